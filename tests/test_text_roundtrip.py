"""Recorded kernel reports, written down in every form that people have, decode to the same report.

The truth is what the raw records decode to, so each form is tried on many kernels and architectures
without a hand-made fixture: only what the form itself cannot carry may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import OomReport
from oomwatchd.sources.text import TextReader
from tests.blocks import blocks_of, differences, read_records, report_of
from tests.conftest import corpus_directory

Records = Sequence[KmsgRecord]
Writer = Callable[[Records], list[str]]

BOOTED = 1_700_000_000
LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")


def _each(records: Records, prefix: Callable[[KmsgRecord], str]) -> list[str]:
    """A line for each line of each record, all with the record's prefix."""
    return [prefix(record) + line for record in records for line in record.text.split("\n")]


def _stamp(record: KmsgRecord) -> str:
    assert record.usec is not None
    return f"[{record.usec // 1_000_000:5d}.{record.usec % 1_000_000:06d}] "


def _time(record: KmsgRecord, form: str) -> str:
    assert record.usec is not None
    return datetime.fromtimestamp(BOOTED + record.usec / 1e6, UTC).strftime(form)


def dmesg(records: Records) -> list[str]:
    return _each(records, _stamp)


def dmesg_human_time(records: Records) -> list[str]:
    return _each(records, lambda record: _time(record, "[%a %b %e %H:%M:%S %Y] "))


def dmesg_decoded_levels(records: Records) -> list[str]:
    return _each(records, lambda record: f"kern  :{LEVELS[record.level or 0]:6s}: {_stamp(record)}")


def dmesg_json(records: Records) -> list[str]:
    """As util-linux prints it: an entry over several lines."""
    entries = [
        f'      {{\n         "pri": {record.level},\n         "time": {(record.usec or 0) / 1e6:12.6f},\n'
        f'         "msg": {json.dumps(record.text)}\n      }}'
        for record in records
    ]
    return ["{", '   "dmesg": [', ",".join(entries), "   ]", "}"]


def angle_levels(records: Records) -> list[str]:
    return _each(records, lambda record: f"<{record.level}>{_stamp(record)}")


def callers(records: Records) -> list[str]:
    return _each(records, lambda record: f"{_stamp(record)[:-1]}[ T1234] ")


def serial_console(records: Records) -> list[str]:
    return [line + "\r" for line in dmesg(records)]


def syslog(records: Records) -> list[str]:
    """rsyslog: a record is one line, newlines stand as #012."""
    return [
        _time(record, "%b %e %H:%M:%S ")
        + "host kernel: "
        + _stamp(record)
        + record.text.replace("\n", "#012")
        for record in records
    ]


def syslog_iso(records: Records) -> list[str]:
    return _each(records, lambda r: _time(r, "%Y-%m-%dT%H:%M:%S.%f+00:00 host kernel: ") + _stamp(r))


def syslog_rfc5424(records: Records) -> list[str]:
    return _each(
        records,
        lambda r: f"<{r.level}>1 " + _time(r, "%Y-%m-%dT%H:%M:%S.%fZ host kernel - - - ") + _stamp(r),
    )


def _journal(records: Records, form: str) -> list[str]:
    """journalctl indents the further lines of an entry under its message."""
    lines = []
    for record in records:
        prefix = _time(record, form)
        first, *rest = record.text.split("\n")
        lines += [prefix + first, *(" " * len(prefix) + line for line in rest)]
    return lines


def journal_short(records: Records) -> list[str]:
    return _journal(records, "%b %d %H:%M:%S host kernel: ")


def journal_iso(records: Records) -> list[str]:
    return _journal(records, "%Y-%m-%dT%H:%M:%S+0000 host kernel: ")


def journal_json(records: Records) -> list[str]:
    return [
        json.dumps(
            {
                "_TRANSPORT": "kernel",
                "SYSLOG_IDENTIFIER": "kernel",
                "PRIORITY": str(record.level),
                "MESSAGE": record.text,
                "__REALTIME_TIMESTAMP": str(BOOTED * 1_000_000 + (record.usec or 0)),
                "_SOURCE_MONOTONIC_TIMESTAMP": str(record.usec),
                "_BOOT_ID": "0123456789abcdef0123456789abcdef",
            }
        )
        for record in records
    ]


def docker_json(records: Records) -> list[str]:
    return [
        json.dumps({"log": line + "\n", "stream": "stdout", "time": "2023-11-14T22:13:20.1Z"})
        for line in dmesg(records)
    ]


def kubernetes(records: Records) -> list[str]:
    return ["2023-11-14T22:13:20.123456789Z stdout F " + line for line in dmesg(records)]


def dmesg_iso(records: Records) -> list[str]:
    return _each(records, lambda record: _time(record, "%Y-%m-%dT%H:%M:%S,%f+00:00 "))


def logread(records: Records) -> list[str]:
    """OpenWrt's ring buffer log."""
    return _each(
        records,
        lambda r: _time(r, "%a %b %e %H:%M:%S %Y ") + f"kern.{LEVELS[r.level or 0]} kernel: " + _stamp(r),
    )


def journal_full(records: Records) -> list[str]:
    return _journal(records, "%a %Y-%m-%d %H:%M:%S UTC host kernel: ")


def journal_monotonic(records: Records) -> list[str]:
    return _each(records, lambda record: _stamp(record) + "host kernel: ")


def vendor_callers(records: Records) -> list[str]:
    return _each(records, lambda record: _stamp(record) + "(2)[431:kswapd0] ")


def collector_columns(records: Records) -> list[str]:
    """Columns that no one could foresee, with the kernel's own stamp behind them."""
    return _each(records, lambda r: _time(r, "%Y-%m-%dT%H:%M:%S.%fZ") + ",dev7,4,1,kernel:, " + _stamp(r))


def numbered(records: Records) -> list[str]:
    return [f"{number}:{line}" for number, line in enumerate(syslog_iso(records), 1000)]


def bare(records: Records) -> list[str]:
    return _each(records, lambda record: "")


def quoted(writer: Writer) -> Writer:
    return lambda records: ["> " + line for line in writer(records)]


def indented(writer: Writer) -> Writer:
    return lambda records: ["    " + line for line in writer(records)]


def spaced(writer: Writer) -> Writer:
    """Every line a paragraph."""
    return lambda records: [line for text in writer(records) for line in (text, "")]


def doubled(writer: Writer) -> Writer:
    """Two daemons, or two inputs of one, wrote into one file."""
    return lambda records: [line for text in writer(records) for line in (text, text)]


def padded(writer: Writer) -> Writer:
    return lambda records: [line.ljust(160) for line in writer(records)]


def under_another_log(writer: Writer) -> Writer:
    """Lines of programs between those of the kernel, of another clock."""

    def mix(records: Records) -> list[str]:
        other = (
            "Nov 14 22:13:20 host systemd[1]: foo.service: Main process exited, code=killed, status=9/KILL"
        )
        return [
            text
            for number, line in enumerate(writer(records))
            for text in ((line, other) if number % 9 == 8 else (line,))
        ]

    return mix


def hanging(width: int, indent: str, writer: Writer) -> Writer:
    """Wrapped between words, and what goes on is indented."""

    def wrap(records: Records) -> list[str]:
        lines = []
        for line in writer(records):
            begin = ""
            while len(line) > width and (at := line.rfind(" ", 12, width + 1)) > 0:
                lines.append(begin + line[:at])
                line, begin = line[at + 1 :], indent
            lines.append(begin + line)
        return lines

    return wrap


def cut_at(width: int, writer: Writer) -> Writer:
    """Hard-wrapped at a column, even inside a number; blanks at the cut are lost."""

    def cut(records: Records) -> list[str]:
        return [
            line[at : at + width].rstrip()
            for line in writer(records)
            for at in range(0, max(len(line), 1), width)
        ]

    return cut


def wrapped_at(width: int, writer: Writer) -> Writer:
    """Wrapped between words, as mail programs do."""

    def wrap(records: Records) -> list[str]:
        lines = []
        for line in writer(records):
            while len(line) > width and (at := line.rfind(" ", 12, width + 1)) > 0:
                lines.append(line[:at])
                line = line[at + 1 :]
            lines.append(line)
        return lines

    return wrap


FORMS: dict[str, Writer] = {
    writer.__name__: writer
    for writer in (
        dmesg, dmesg_human_time, dmesg_decoded_levels, dmesg_json, angle_levels, callers, serial_console,
        syslog, syslog_iso, syslog_rfc5424, journal_short, journal_iso, journal_json, docker_json,
        kubernetes, dmesg_iso, logread, journal_full, journal_monotonic, vendor_callers, collector_columns,
        numbered, bare,
    )
} | {
    "quoted dmesg": quoted(dmesg),
    "quoted bare": quoted(bare),
    "indented dmesg": indented(dmesg),
    "indented bare": indented(bare),
    "dmesg cut at 80": cut_at(80, dmesg),
    "bare cut at 90": cut_at(90, bare),
    "quoted dmesg cut at 100": quoted(cut_at(100, dmesg)),
    "syslog cut at 132": cut_at(132, syslog),
    "dmesg wrapped at 72": wrapped_at(72, dmesg),
    "quoted dmesg wrapped at 72": quoted(wrapped_at(72, dmesg)),
    "bare wrapped at 78": wrapped_at(78, bare),
    "journal wrapped at 78": wrapped_at(78, journal_short),
    "quoted syslog": quoted(syslog),
    "quoted syslog wrapped at 78": quoted(wrapped_at(78, syslog)),
    "indented vendor callers": indented(vendor_callers),
    "indented collector columns": indented(collector_columns),
    "indented dmesg cut at 100": indented(cut_at(100, dmesg)),
    "quoted logread wrapped and indented": quoted(hanging(100, "\t", logread)),
    "dmesg -T wrapped and indented": hanging(76, "    ", dmesg_human_time),
    "console wrapped and indented": lambda records: [
        line + "\r" for line in hanging(90, "  ", callers)(records)
    ],
    "paragraphs of dmesg wrapped at 76": spaced(wrapped_at(76, dmesg)),
    "padded dmesg wrapped at 98": padded(wrapped_at(98, dmesg)),
    "every line twice": doubled(dmesg),
    "every journal line twice": doubled(journal_short),
    "every bare line twice": doubled(bare),
    "dmesg between other lines": under_another_log(dmesg),
    "bare between other lines": under_another_log(bare),
    "kubernetes in the journal": lambda records: [
        "2023-11-14T22:13:20.123456789Z stderr F " + line for line in journal_short(records)
    ],
}  # fmt: skip

RECORDINGS = [
    *sorted((corpus_directory() / "samples").glob("*.kmsg.gz")),
    *sorted((corpus_directory() / "kernel").glob("*.kmsg.gz")),
]

#: what stamps, raw records and cut places alone tell
FREE = (
    "first_usec",
    "kill_usec",
    "first_wall",
    "complete",
    "missing",
    "undecoded",
    "lost_records",
    "suppressed_headers",
)


def _facts(report: OomReport) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(report))
    return {name: value for name, value in facts.items() if name not in FREE}


@cache
def _samples(path: Path) -> list[tuple[Records, OomReport]]:
    """One whole report of each kind in a recording, with names that text can carry."""
    kinds: dict[tuple[str | None, bool, bool], tuple[Records, OomReport]] = {}
    for block in blocks_of(read_records(path)):
        report = report_of(block)
        names = [task.comm for task in report.tasks] + [victim.comm for victim in report.victims]
        plain = all(
            name.isprintable() and "\\" not in name and name == name.strip() and name for name in names
        )
        if report.complete and report.kind == "oom_kill" and plain:
            kinds.setdefault(
                (report.constraint, len(report.victims) > 1, bool(report.tasks)), (block.records, report)
            )
    return list(kinds.values())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.removesuffix(".kmsg.gz"))
def test_a_report_in_this_form_is_the_same_report(path: Path, form: str) -> None:
    samples = _samples(path)
    assert samples
    for records, report in samples:
        reader = TextReader()
        data = ("\n".join(FORMS[form](records)) + "\n").encode()
        found = [report_of(block) for block in blocks_of([*reader.feed(data), *reader.flush()])]
        assert len(found) == 1
        assert differences(_facts(report), _facts(found[0])) == []
