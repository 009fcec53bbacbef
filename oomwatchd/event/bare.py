"""What is certain of a report that could not be read: its identity and its kill lines.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re

from oomwatchd.formats import oom_kill
from oomwatchd.formats.recognise import recognise
from oomwatchd.records.capture import OomCapture
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import Kind, OomReport, Victim


def bare_report(capture: OomCapture) -> OomReport:
    """The certain part of a report on which ``decode`` failed: its identity and its kill lines."""
    killed = [m for record in capture.records for m in _kill_lines(record)]
    named = {m["pid"]: Victim(pid=int(m["pid"]), comm=m["comm"] or "") for m in killed}
    kind: Kind = "oom_kill" if killed or capture.unseen is not None else "oom_no_victim"
    return OomReport(
        kind=_KINDS_OF_FORM.get(capture.source.form, kind),
        complete=False,
        lost_records=capture.lost_records,
        first_usec=capture.records[0].usec if capture.records else None,
        first_wall=capture.records[0].wall if capture.records else None,
        kernel=capture.kernel,
        arch=capture.arch,
        page_size_bytes=capture.page_size_bytes,
        kills=len(killed),
        victims=tuple(named.values()),
    )


#: events that are not kernel reports
_KINDS_OF_FORM: dict[str, Kind] = {"oomd": "oomd_kill", "near": "oom_near"}


def bare_summary(report: OomReport) -> str:
    """Whom the kernel killed, in one line."""
    names = ", ".join(f"{victim.comm} ({victim.pid})" for victim in report.victims[:3])
    more = f" and {len(report.victims) - 3} more" if len(report.victims) > 3 else ""
    return f"{report.kills} kill(s): {names}{more}" if names else f"{report.kind.replace('_', ' ')}"


def _kill_lines(record: KmsgRecord) -> list[re.Match[str]]:
    try:
        found = recognise(record.text, raw=record.is_whole)
    except Exception:  # the fault that brought us here may be that of recognising a line
        return []
    return [found[1]] if found is not None and found[0] is oom_kill.KILLED else []
