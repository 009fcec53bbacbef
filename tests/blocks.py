"""Recorded kernel logs as reports: what the tests of several rooms start from."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from oomwatchd.records.kmsg import KmsgRecord, parse_record
from oomwatchd.records.report import OomReport
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.reports.decode import decode


class Scenario(NamedTuple):
    """One scenario of a recorded boot: the records after ``after_seq`` up to the next scenario's, and
    by how much the kernel's own oom_kill counter grew."""

    name: str
    after_seq: int
    kills: int


def read_records(path: Path) -> list[KmsgRecord]:
    """The records of a saved copy of /dev/kmsg, gzipped or not."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [record for line in data.splitlines() if (record := parse_record(line))]


def blocks_of(records: Iterable[KmsgRecord], *, early: bool = False) -> list[OomBlock]:
    """The blocks that an assembler cuts out of these records."""
    assembler = Assembler(early=early)
    signals = [signal for record in records for signal in assembler.feed(record)]
    signals += assembler.flush()
    return [signal for signal in signals if isinstance(signal, OomBlock)]


def report_of(block: OomBlock) -> OomReport:
    return decode(block.records, lost_records=block.lost_records)


def scenarios(kmsg: Path) -> list[Scenario]:
    """The truth file beside a recording."""
    truth = kmsg.with_name(kmsg.name.replace(".kmsg.gz", ".truth")).read_text()
    return [
        Scenario(m[1], int(m[2]), int(m[3]))
        for m in re.finditer(r"^(\S+) after_seq=(\d+) kills=(\d+)$", truth, re.MULTILINE)
    ]


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where ``found`` lacks or contradicts ``expected``; fields that are not in ``expected`` are ignored."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return [
            line
            for key, value in expected.items()
            for line in (
                differences(value, found[key], f"{where}.{key}")
                if key in found
                else [f"{where}.{key} is missing"]
            )
        ]
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return [f"{where}: {len(found)} items, expected {len(expected)}"]
        return [
            line for n, (a, b) in enumerate(zip(expected, found, strict=True))
            for line in differences(a, b, f"{where}[{n}]")
        ]  # fmt: skip
    return [] if expected == found else [f"{where}: {found!r}, expected {expected!r}"]
