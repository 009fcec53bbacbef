"""Cutting blocks: lone kill lines, groups, interleaving, gaps, forgery, time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomwatchd.records.kmsg import KmsgGap, KmsgRecord
from oomwatchd.reports.assemble import (
    DEADLINE_USEC,
    DRAINED_USEC,
    SETTLE_USEC,
    Assembler,
    OomBlock,
    ReportBegan,
    VictimChosen,
)
from tests.blocks import blocks_of, read_records, report_of
from tests.conftest import corpus_directory

HEADER = "{} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
CPU = "CPU: 1 PID: {1} Comm: {0} Not tainted 6.1.0 #1"
USAGE = "memory: usage 4096kB, limit 4096kB, failcnt 1"
TITLE = "Tasks state (memory values in pages):"
COLUMNS = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
ROW = "[{1:7d}]     0 {1:5d}     1000      900    45056        0             0 {0}"
SUMMARY = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a,"
    "task={0},pid={1},uid=0"
)
KILLED = (
    "Memory cgroup out of memory: Killed process {1} ({0}) total-vm:4000kB, anon-rss:3600kB, file-rss:0kB, "
    "shmem-rss:0kB, UID:0 pgtables:44kB oom_score_adj:0"
)
GROUP = "Tasks in /a are going to be killed due to memory.oom.group set"
REAPED = "oom_reaper: reaped process {1} ({0}), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"


def lines_of(comm: str, pid: int) -> list[str]:
    return [form.format(comm, pid) for form in (HEADER, CPU, USAGE, TITLE, COLUMNS, ROW, SUMMARY, KILLED)]


def records(
    lines: Iterable[str], *, seq: int = 0, usec: int = 0, caller: str | None = None
) -> list[KmsgRecord]:
    return [
        KmsgRecord(text=text, facility=0, seq=seq + n, usec=usec + n * 10) for n, text in enumerate(lines)
    ]


def kills(blocks: Iterable[OomBlock]) -> list[list[int]]:
    return [[victim.pid for victim in report_of(block).victims] for block in blocks]


def test_lone_kill_lines_are_reports_of_their_own() -> None:
    assert kills(blocks_of(records(KILLED.format("x", pid) for pid in (7, 8, 9)))) == [[7], [8], [9]]


def test_a_header_that_follows_opens_a_new_report() -> None:
    assert kills(blocks_of(records(lines_of("x", 7) + lines_of("y", 8)))) == [[7], [8]]


def test_signals_come_while_there_is_time() -> None:
    assembler = Assembler()
    seen = [(n, signal) for n, r in enumerate(records(lines_of("x", 7))) for signal in assembler.feed(r)]
    assert [(n, type(signal)) for n, signal in seen] == [(0, ReportBegan), (6, VictimChosen)]
    assert isinstance(seen[1][1], VictimChosen)
    assert (seen[1][1].pid, seen[1][1].comm) == (7, "x")


def test_a_block_is_issued_when_it_is_quiet_and_again_when_it_has_settled() -> None:
    assembler = Assembler()
    last = 0
    for record in records(lines_of("x", 7)):
        assembler.feed(record)
        last = record.usec or 0
    assert assembler.tick(last + DRAINED_USEC - 1) == []
    assert assembler.next_deadline() == last + DRAINED_USEC
    (first,) = assembler.tick(last + DRAINED_USEC)
    assert isinstance(first, OomBlock)
    assert (first.revision, first.settled, first.closed_by) == (0, False, "kill")
    assert assembler.tick(last + DRAINED_USEC + 1) == []
    (settled,) = assembler.tick(last + SETTLE_USEC)
    assert isinstance(settled, OomBlock)
    assert (settled.revision, settled.settled) == (1, True)
    assert assembler.next_deadline() is None


def test_the_reaper_revises_the_report_it_belongs_to() -> None:
    assembler = Assembler()
    for record in records([*lines_of("x", 7), KILLED.format("y", 8)]):
        assembler.feed(record)
    issued = assembler.tick(1_000_000)
    assert [len(signal.records) for signal in issued if isinstance(signal, OomBlock)] == [8, 1]
    reaped = KmsgRecord(text=REAPED.format("x", 7), facility=0, seq=9, usec=2_000_000)
    (revised,) = [*assembler.feed(reaped), *assembler.tick(2_200_000)]
    assert isinstance(revised, OomBlock)
    assert revised.revision == 1
    assert report_of(revised).victims[0].reaped is True
    assert REAPED.format("z", 99) not in [r.text for r in revised.records]


def test_a_reaper_line_alone_is_no_report() -> None:
    assert blocks_of(records([REAPED.format("x", 7)])) == []


def test_a_group_kill_names_the_chosen_one_twice() -> None:
    lines = [*lines_of("x", 7)[:5], ROW.format("x", 7), ROW.format("y", 8), SUMMARY.format("x", 7)]
    lines += [KILLED.format("x", 7), GROUP, KILLED.format("x", 7), KILLED.format("y", 8)]
    blocks = blocks_of(records([*lines, KILLED.format("stranger", 99)]))
    assert kills(blocks) == [[7, 8], [99]]
    assert report_of(blocks[0]).kills == 3


def test_a_group_kill_without_a_header() -> None:
    lines = [KILLED.format("x", 7), GROUP, KILLED.format("x", 7), KILLED.format("y", 8)]
    assert kills(blocks_of(records(lines))) == [[7, 8]]


def interleaved(one: list[str], other: list[str]) -> list[str]:
    return [line for pair in zip(one, other, strict=True) for line in pair]


def test_interleaved_reports_are_told_apart_by_their_caller() -> None:
    mixed = interleaved(lines_of("x", 7), lines_of("y", 8))
    stream = [
        KmsgRecord(text=text, facility=0, seq=n, usec=n, caller=("T7", "T8")[n % 2])
        for n, text in enumerate(mixed)
    ]
    blocks = blocks_of(stream)
    assert [[r.text for r in block.records] for block in blocks] == [lines_of("x", 7), lines_of("y", 8)]


def test_interleaved_reports_without_callers_keep_their_victims() -> None:
    one, other = lines_of("x", 7), lines_of("y", 8)
    stream = [*one[:6], *other[:4], *one[6:], *other[4:]]
    blocks = blocks_of(records(stream))
    reports = [report_of(block) for block in blocks]
    assert [(r.trigger.comm, [v.pid for v in r.victims]) for r in reports] == [("x", [7]), ("y", [8])]
    assert all(report.kills == 1 for report in reports)


def test_a_cut_off_report_is_not_lost_to_the_next() -> None:
    blocks = blocks_of(records([*lines_of("x", 7)[:5], *lines_of("y", 8)]))
    reports = [report_of(block) for block in blocks]
    assert [r.trigger.comm for r in reports] == ["x", "y"]
    assert "kill" in reports[0].missing
    assert not reports[0].complete
    assert not {"kill", "tasks", "constraint", "header"} & set(reports[1].missing)


def test_a_report_whose_head_is_lost() -> None:
    (block,) = blocks_of(records(lines_of("x", 7)[4:]))
    report = report_of(block)
    assert report.missing == ("header", "memcg")
    assert [task.pid for task in report.tasks] == [7]


def test_lost_records_inside_a_block_are_counted() -> None:
    stream = records(lines_of("x", 7))
    del stream[3:5]
    (block,) = blocks_of(stream)
    assert block.lost_records == 2
    assert not report_of(block).complete


def test_a_gap_between_blocks_is_not_theirs() -> None:
    stream = [*records(lines_of("x", 7)), *records(lines_of("y", 8), seq=500)]
    assert [block.lost_records for block in blocks_of(stream)] == [0, 0]


def test_without_sequence_numbers_the_source_tells_of_gaps() -> None:
    assembler = Assembler(early=False)
    lines = lines_of("x", 7)
    for text in lines[:4]:
        assembler.feed(KmsgRecord(text=text))
    assembler.feed(KmsgGap(3))
    for text in lines[4:]:
        assembler.feed(KmsgRecord(text=text))
    (block,) = assembler.flush()
    assert isinstance(block, OomBlock)
    assert block.lost_records == 3


@pytest.mark.parametrize("facility", [1, 3, 16])
def test_what_user_space_wrote_never_makes_a_report(facility: int) -> None:
    assembler = Assembler()
    for n, text in enumerate(lines_of("x", 7)):
        assert assembler.feed(KmsgRecord(text=text, facility=facility, seq=n, usec=n)) == []
    assert assembler.flush() == []
    assert assembler.forged_records > 0


def test_who_floods_the_log_does_not_hold_up_a_report() -> None:
    """A reader that never reaches the log's end has only the records' stamps as its clock."""
    assembler = Assembler()
    for record in records(lines_of("x", 7)):
        assembler.feed(record)
    flood = [
        KmsgRecord(text="noise", facility=1, seq=8 + n, usec=1000 * n)
        for n in range(SETTLE_USEC // 1000 + 10)
    ]
    issued = [(record.usec, signal) for record in flood for signal in assembler.feed(record)]
    assert [(usec, block.settled) for usec, block in issued if isinstance(block, OomBlock)] == [
        (6000, False),
        (SETTLE_USEC + 1000, True),
    ]


def test_a_forged_line_inside_a_real_report_changes_nothing() -> None:
    stream = records(lines_of("x", 7))
    stream.insert(7, KmsgRecord(text=KILLED.format("evil", 1), facility=1, seq=7, usec=60))
    stream[8:] = [KmsgRecord(text=r.text, facility=0, seq=8 + n, usec=70) for n, r in enumerate(stream[8:])]
    assert kills(blocks_of(stream)) == [[7]]


def test_a_report_without_an_end_is_given_up() -> None:
    assembler = Assembler()
    stream = records(lines_of("x", 7)[:3])
    for record in stream:
        assembler.feed(record)
    last = stream[-1].usec or 0
    assert assembler.tick(last + DEADLINE_USEC - 1) == []
    (block,) = assembler.tick(last + DEADLINE_USEC)
    assert isinstance(block, OomBlock)
    assert (block.closed_by, block.settled) == ("deadline", True)


def test_another_boot_in_the_same_file_ends_what_was_open() -> None:
    first = records(lines_of("x", 7)[:3], usec=900_000_000)
    second = records(lines_of("y", 8), seq=100, usec=5_000_000)
    blocks = blocks_of([*first, *second])
    assert [block.closed_by for block in blocks] == ["clock", "kill"]


def test_pieces_of_one_line_are_joined() -> None:
    lines = lines_of("x", 7)
    stream = records(lines)
    head, tail = lines[6][:40], lines[6][40:]
    stream[6:7] = [
        KmsgRecord(text=head, facility=0, seq=6, usec=60),
        KmsgRecord(text=tail, facility=0, seq=7, usec=61, flag="c"),
    ]
    stream[8:] = [KmsgRecord(text=lines[7], facility=0, seq=8, usec=70)]
    (block,) = blocks_of(stream)
    assert [record.text for record in block.records] == lines


WORD_BY_WORD = [
    "Mem-Info:", "Node 0 ", "DMA free:15872kB min:40kB low:48kB high:60kB", "lowmem_reserve[]:", " 0", " 808",
    " 3849", "Node 0 ", "DMA: ", "2*4kB ", "(U) ", "1*8kB ", "(UE) ", "0*16kB ", "= 16kB", "7 pages RAM",
]  # fmt: skip
JOINED = [
    "Mem-Info:", "Node 0 DMA free:15872kB min:40kB low:48kB high:60kB", "lowmem_reserve[]: 0 808 3849",
    "Node 0 DMA: 2*4kB (U) 1*8kB (UE) 0*16kB = 16kB", "7 pages RAM",
]  # fmt: skip


def test_lines_that_are_printed_a_word_at_a_time_are_joined() -> None:
    """Linux 4.9 begins a record at each of them."""
    lines = lines_of("x", 7)
    stream = records([lines[0], *WORD_BY_WORD, *lines[1:]])
    (block,) = blocks_of(stream)
    assert [record.text for record in block.records] == [lines[0], *JOINED, *lines[1:]]
    memory = report_of(block).memory
    assert memory is not None
    (zone,) = memory.zones
    assert (zone.node, zone.zone, zone.lowmem_reserve_bytes) == (0, "DMA", (0, 808 * 4096, 3849 * 4096))
    assert report_of(block).undecoded == ()
    # a line of another CPU between two words ends the line, and nothing else is lost
    stream = records([lines[0], *WORD_BY_WORD[:5], "usb 1-1: new device", *WORD_BY_WORD[5:], *lines[1:]])
    (block,) = blocks_of(stream)
    assert JOINED[1] in [record.text for record in block.records]
    assert lines[-1] == block.records[-1].text


def test_memory_is_bounded_by_the_count_of_blocks() -> None:
    assembler = Assembler(early=False)
    for n in range(5000):
        assembler.feed(KmsgRecord(text=HEADER.format(f"x{n}")))
    assert len(assembler.flush()) <= 100


PATHS = [
    *sorted((corpus_directory() / "samples").glob("*.gz")),
    *sorted((corpus_directory() / "kernel").glob("5*.kmsg.gz")),
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_live_and_offline_cut_the_same(path: Path) -> None:
    """The last issue of each block, early or late, holds the same records."""
    stream = read_records(path)
    offline = {block.records[0].seq: block.records for block in blocks_of(stream)}
    live = {block.records[0].seq: block.records for block in blocks_of(stream, early=True)}
    assert live == offline


LINE = st.sampled_from(
    [*lines_of("x", 7), *lines_of("y", 8), GROUP, REAPED.format("x", 7), "foreign", "", "Mem-Info:", "anon 1",
     "Out of memory and no killable processes...", "oom_kill_process: 3 callbacks suppressed"]
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(LINE, max_size=60), st.booleans())
def test_every_kill_line_is_in_exactly_one_block(lines: list[str], stamped: bool) -> None:
    stream = [
        KmsgRecord(text=text, facility=0, seq=n if stamped else None, usec=n * 1000 if stamped else None)
        for n, text in enumerate(lines)
    ]
    blocks = blocks_of(stream)
    assert sum(report_of(block).kills for block in blocks) == sum("Killed process" in text for text in lines)
    again = blocks_of(stream)
    assert [block.records for block in again] == [block.records for block in blocks]


@pytest.mark.parametrize("part", [COLUMNS, USAGE])
def test_an_excerpt_of_a_report_is_a_report_in_text_alone(part: str) -> None:
    lines = ["eth0: link up", part, ROW.format("a", 7), "eth0: link down"]
    (block,) = blocks_of([KmsgRecord(text=line) for line in lines])
    assert report_of(block).kind == "oom_no_victim"
    assert "kill" in report_of(block).missing
    assert blocks_of(records(lines)) == []
