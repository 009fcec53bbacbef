"""Text that a user makes the kernel print is no report, changes none, and moves no counter."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

import msgspec
import pytest

from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import OomReport
from oomwatchd.reports.assemble import Assembler, OomBlock, ReportBegan, Signal, VictimChosen
from tests.blocks import blocks_of, read_records, report_of
from tests.carriers import BEGINNINGS, CARRIERS, Carrier
from tests.conftest import corpus_directory

KILLED = (
    "Memory cgroup out of memory: Killed process 7 (x) total-vm:8kB, anon-rss:4kB, file-rss:0kB, "
    "shmem-rss:0kB, UID:0 pgtables:28kB oom_score_adj:0"
)
#: beginnings that are tried in each recording
SAMPLE = 30
#: kernels whose reports have every part between them
RECORDINGS = ("4.4-cg1", "4.18-cg1", "5.0-cg1", "5.4-cg2", "6.12-cg2", "5.10-armhf")
#: without those that print anything at all
KNOWN = [carrier for carrier in CARRIERS if carrier.name != "driver from elsewhere"]


def renumbered(texts: list[str], caller: str | None = None) -> list[KmsgRecord]:
    return [
        KmsgRecord(text=text, facility=0, seq=100 + n, usec=1_000_000 + n, caller=caller)
        for n, text in enumerate(texts)
    ]


@cache
def genuine(name: str) -> list[list[str]]:
    """The texts of a recording's reports, one list for each that has a kill line."""
    path = Path(corpus_directory()) / "samples" / f"{name}.kmsg.gz"
    blocks = blocks_of(read_records(path))
    found = [[record.text for record in block.records] for block in blocks if report_of(block).kills]
    assert found
    return found


def told(texts: list[str]) -> list[OomReport]:
    """What is said of these records, without the lines that nobody understood, which any other line is, and
    the architecture, which a dump of any process tells."""
    reports = [report_of(block) for block in blocks_of(renumbered(texts))]
    plain = [
        msgspec.structs.replace(report, undecoded=(), arch=None, first_usec=None, kill_usec=None)
        for report in reports
    ]
    return plain


def signals_of(texts: list[str]) -> tuple[list[Signal], int]:
    assembler = Assembler()
    signals = [signal for record in renumbered(texts) for signal in assembler.feed(record)]
    return signals + assembler.flush(), assembler.forged_records


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: carrier.name)
def test_alone_it_is_nothing(carrier: Carrier) -> None:
    said = {}
    for text in BEGINNINGS:
        signals, forged = signals_of(carrier.records(text))
        if [s for s in signals if isinstance(s, OomBlock | VictimChosen | ReportBegan)] or forged:
            said[text] = [type(s).__name__ for s in signals]
    assert said == {}


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: carrier.name)
def test_behind_line_breaks_and_other_controls_it_is_nothing(carrier: Carrier) -> None:
    """/dev/kmsg escapes them, and what is read back has them again, within one record."""
    chance = Random(carrier.name)
    said = {}
    for text in chance.sample(BEGINNINGS, SAMPLE):
        for controls in ("\n{}", "{}\n", "\n{}\n", "\r{}", "\x1b[2K{}", "\u2028{}", "\t{}", "\0{}"):
            signals, forged = signals_of(carrier.records(controls.format(text.replace("{", "("))))
            if signals or forged:
                said[controls, text] = [type(signal).__name__ for signal in signals]
    assert said == {}


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: carrier.name)
def test_beside_a_lone_kill_line_it_is_nothing(carrier: Carrier) -> None:
    alone = told([KILLED])
    changed = {}
    for text in BEGINNINGS:
        lines = carrier.records(text)
        for texts in ([*lines, KILLED], [KILLED, *lines], [*lines, KILLED, *lines]):
            if told(texts) != alone:
                changed[text] = texts
    assert changed == {}


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("carrier", KNOWN, ids=lambda carrier: carrier.name)
def test_inside_a_report_it_changes_nothing(carrier: Carrier, name: str) -> None:
    chance = Random(f"{carrier.name} {name}")
    reports = genuine(name)
    changed = {}
    for text in chance.sample(BEGINNINGS, SAMPLE):
        lines = carrier.records(text)
        texts = chance.choice(reports)
        at = chance.randrange(len(texts) + 1)
        if told([*texts[:at], *lines, *texts[at:]]) != told(texts):
            changed[text] = (at, len(texts), texts[at - 1 : at + 1])
    assert changed == {}


@pytest.mark.parametrize("row", ["[1] 1 1 1 1 1 1: link is up", "[ 1] 0 1 1 1 1 1 1 1 1 x: link is up"])
def test_a_row_anywhere_raises_nothing(row: str) -> None:
    for name in RECORDINGS:
        texts = genuine(name)[0]
        for at in range(len(texts) + 1):
            assert told([*texts[:at], row, *texts[at:]])
            lines = [KmsgRecord(text=text) for text in (*texts[:at], row, *texts[at:])]
            assert [report_of(block) for block in blocks_of(lines)]
