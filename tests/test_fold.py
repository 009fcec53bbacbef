"""Repeats are folded into one report with a count; kills never are."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.reports.storms import (
    GAP_USEC,
    MAX_OPEN,
    SPAN_USEC,
    UPDATE_USEC,
    Covered,
    Fold,
    Folded,
    storm_key,
)
from tests.blocks import blocks_of, read_records, report_of, scenarios
from tests.conftest import corpus_directory

KERNELS = sorted((corpus_directory() / "kernel").glob("*.kmsg.gz"))
KILLED = "Memory cgroup out of memory: Killed process {} (x) total-vm:1kB, anon-rss:1kB, file-rss:0kB"


def no_victim(seq: int, usec: int, comm: str = "x", pid: int = 7, cgroup: str = "/adj") -> list[KmsgRecord]:
    """A report that ends without a victim, its essential lines."""
    lines = (
        f"{comm} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=-1000",
        f"CPU: 1 PID: {pid} Comm: {comm} Not tainted 6.1.0 #1",
        f"Memory cgroup stats for {cgroup}:",
        "Out of memory and no killable processes...",
    )
    return [KmsgRecord(text=text, facility=0, seq=seq + n, usec=usec) for n, text in enumerate(lines)]


def block(seq: int, usec: int, **names: object) -> OomBlock:
    return OomBlock(records=tuple(no_victim(seq, usec, **names)), closed_by="outcome")  # type: ignore[arg-type]


def last_issues(issued: list[Folded]) -> dict[int | None, Folded]:
    return {folded.block.records[0].seq: folded for folded in issued}


def live(records: list[KmsgRecord], fold: Fold) -> list[Folded]:
    """As the daemon does it, with a timer that never comes late."""
    assembler = Assembler()
    out: list[Folded] = []
    for record in records:
        out += [f for s in assembler.feed(record) if isinstance(s, OomBlock) for f in fold.take(s)]
    out += [f for s in assembler.flush() if isinstance(s, OomBlock) for f in fold.take(s)]
    return out + fold.flush()


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_a_recorded_storm_is_a_handful_of_reports_and_every_kill_stays(path: Path) -> None:
    records = read_records(path)
    blocks = blocks_of(records)
    fold = Fold(early=False)
    folded = [f for b in blocks for f in fold.take(b)] + fold.flush()
    assert len(folded) < 60 < 70 < len(blocks)
    assert sum(1 + f.repeats for f in folded) == len(blocks)
    assert sum(f.repeats for f in folded) == fold.folded > 40
    kills = sum(report_of(f.block).kills for f in folded)
    assert kills == sum(scenario.kills for scenario in scenarios(path))
    assert len(last_issues(folded)) == len(folded), "an id twice"
    firsts = [f.block.records[0].seq or 0 for f in folded]
    assert firsts == sorted(firsts), "the order of the text"
    assert all(f.block.settled for f in folded)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_live_and_offline_fold_the_same(path: Path) -> None:
    records = read_records(path)
    offline = Fold(early=False)
    whole = [f for b in blocks_of(records) for f in offline.take(b)] + offline.flush()
    issued = live(records, Fold())
    last = last_issues(issued)
    assert {seq: (f.repeats, f.last) for seq, f in last.items()} == {
        seq: (f.repeats, f.last) for seq, f in last_issues(whole).items()
    }
    assert all(f.block.settled for f in last.values())
    assert len(issued) < 3 * len(whole), "the rate of issues is not bounded"


def test_a_storm_of_minutes_is_issued_every_few_seconds() -> None:
    fold, step = Fold(), 5_000  # 200 a second
    issued = [f for n in range(12_000) for f in fold.take(block(n * 4, n * step))]
    assert len(issued) == 1 + 12_000 * step // UPDATE_USEC - (12_000 * step % UPDATE_USEC == 0)
    assert issued[0].repeats == 0
    assert not any(f.block.settled for f in issued)
    assert fold.next_deadline() == 11_999 * step + GAP_USEC
    assert fold.tick(11_999 * step + GAP_USEC - 1) == []
    (end,) = fold.tick(11_999 * step + GAP_USEC)
    assert (end.repeats, end.block.settled, end.block.records[0].seq) == (11_999, True, 0)
    assert end.last is not None and (end.last.seq, end.last.usec) == (11_999 * 4 + 3, 11_999 * step)
    assert [f.block.revision for f in (*issued, end)] == list(range(len(issued) + 1))
    assert fold.next_deadline() is None


def test_a_storm_without_end_becomes_an_event_each_span() -> None:
    fold = Fold()
    issued = [f for n in range(1300) for f in fold.take(block(n * 4, n * 1_000_000))] + fold.flush()
    settled = [f for f in issued if f.block.settled]
    assert len(settled) == 1300 * 1_000_000 // SPAN_USEC + 1
    assert sum(1 + f.repeats for f in settled) == 1300


def test_other_triggers_cgroups_and_scopes_stay_apart() -> None:
    fold = Fold(early=False)
    others: list[dict[str, Any]] = [{}, {"comm": "y"}, {"pid": 8}, {"cgroup": "/other"}]
    blocks = [block(n * 4, n * 1000, **others[n % 4]) for n in range(40)]
    for each in blocks:
        fold.take(each, scope=False)
    fold.take(block(1000, 50_000), scope=True)
    assert [f.repeats for f in fold.flush()] == [9, 9, 9, 9, 0]


def test_what_ends_otherwise_is_no_repeat() -> None:
    records = no_victim(0, 0)
    assert storm_key(records) is not None
    killed = KmsgRecord(text=KILLED.format(9), facility=0)
    panic = KmsgRecord(text="Kernel panic - not syncing: System is deadlocked on memory", facility=0)
    assert storm_key([*records, killed]) is None
    assert storm_key([killed, *records]) is None
    assert storm_key([*records, panic]) is None
    assert storm_key([]) is None


def test_a_cgroups_name_does_not_make_a_kill_foldable() -> None:
    records = [
        KmsgRecord(text="Memory cgroup stats for /Out of memory and no killable processes...:", facility=0),
        KmsgRecord(text=KILLED.format(9), facility=0),
    ]
    assert storm_key(records) is None


def test_another_boot_begins_another_run() -> None:
    fold, issued = Fold(early=False), list[Folded]()
    for usec in (100_000_000, 100_001_000, 5_000_000, 5_001_000):
        issued += fold.take(OomBlock(records=tuple(no_victim(0, usec)), closed_by="outcome"))
    assert [f.repeats for f in issued + fold.flush()] == [1, 1]


def test_open_runs_are_bounded() -> None:
    fold = Fold()
    for n in range(1000):
        fold.take(block(n * 4, 1000 + n, pid=n + 1))
    assert len(fold.flush()) == MAX_OPEN


def test_text_without_stamps_is_folded_too() -> None:
    fold = Fold(early=False)
    lines = [KmsgRecord(text=record.text) for record in no_victim(0, 0)]
    for _ in range(5):
        assert fold.take(OomBlock(records=tuple(lines), closed_by="outcome")) == []
    (one,) = fold.flush()
    assert one.repeats == 4


def covered_by(stored: dict[int | None, Folded]) -> list[Covered]:
    return [
        Covered(key, f.block.records[0].seq or 0, (f.last or f.block.records[-1]).seq or 0)
        for f in stored.values()
        if (key := storm_key(f.block.records))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_ended_anywhere_and_read_again_from_anywhere_each_report_counts_once(seed: int) -> None:
    """The ring is read again from a record that it still holds; the store knows the stored part of a run."""
    dice = random.Random(seed)
    blocks = [block(n * 4, n * dice.choice((2000, 40_000)), pid=dice.choice((7, 8))) for n in range(400)]
    stored: dict[int | None, Folded] = {}
    begin = 0
    for _ in range(4):
        fold = Fold(covered=covered_by(stored))
        issued = [f for b in blocks[begin : dice.randrange(100, 400)] for f in fold.take(b)]
        kept = dice.randrange(len(issued) + 1)  # the rest was still in the queue at kill -9
        stored |= last_issues(issued[:kept])
        reached = max(((f.last or f.block.records[-1]).seq or 0 for f in stored.values()), default=0)
        begin = dice.randrange(reached // 4 + 1)
    fold = Fold(covered=covered_by(stored))
    rest = last_issues([f for b in blocks for f in fold.take(b)] + fold.flush())
    assert not rest.keys() & stored.keys(), "an id twice"
    assert sum(1 + f.repeats for f in (*stored.values(), *rest.values())) == len(blocks)


LINE = st.sampled_from(
    [*(record.text for record in no_victim(0, 0)), KILLED.format(7), KILLED.format(8), "foreign"]
)


@settings(max_examples=200)
@given(st.lists(LINE, max_size=60), st.booleans())
def test_no_kill_line_is_ever_lost(lines: list[str], stamped: bool) -> None:
    records = [
        KmsgRecord(text=text, facility=0, seq=n if stamped else None, usec=n * 1000 if stamped else None)
        for n, text in enumerate(lines)
    ]
    fold = Fold(early=False)
    folded = [f for b in blocks_of(records) for f in fold.take(b)] + fold.flush()
    assert sum(report_of(f.block).kills for f in folded) == sum("Killed process" in text for text in lines)
