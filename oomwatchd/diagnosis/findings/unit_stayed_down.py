"""The victim's unit failed and was not started again.

The daemon reads the service manager's own entries in the journal for a minute after the report. In that time
the unit entered the failed state, no restart was scheduled and no start followed. A unit with a longer
``RestartSec=`` is reported too.

With ``Restart=on-failure`` systemd starts the unit again. ``OOMPolicy=continue`` keeps the rest of its
processes alive when one is killed.
"""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding
from oomwatchd.words.escape import harmless_name

ID = "unit_stayed_down"
TITLE = "The unit failed and was not started again"

_UP = ("restart_scheduled", "started")


def find(case: Case) -> Iterator[Finding]:
    if case.capture is None or case.capture.unit_watch_seconds is None:
        return
    seconds = case.capture.unit_watch_seconds
    failed = {entry.unit: entry for entry in case.capture.unit_log if entry.step == "failed"}
    up = {entry.unit for entry in case.capture.unit_log if entry.step in _UP}
    for unit, entry in failed.items():
        if unit in up:
            continue
        result = f" with result {harmless_name(entry.result)}" if entry.result else ""
        yield Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation=f"{harmless_name(unit)} failed{result}; within {seconds:.0f} seconds no restart "
            "followed.",
            evidence={"unit": unit, "result": entry.result, "seconds": seconds},
            advice=f"See systemctl status {harmless_name(unit)}; Restart=on-failure has it started again, "
            "OOMPolicy=continue keeps the rest of it alive.",
        )
