"""Whose line is it: reports that lack lines, beside others, and dumps that are none of the OOM killer's."""

from __future__ import annotations

import pytest

from oomwatchd.event import OomEvent, conclude
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.reports.decode import decode
from oomwatchd.sources.text import GrowingLog

HEADER = "{} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
ZONE = "{} free:{}kB min:41100kB low:51372kB high:61644kB present:897016kB managed:831480kB"
HEAD = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
ROW = "[{0:7}]     0 {0:5}    26000    25000   225280        0             0 {1}"
INTENT = "Out of memory: Kill process {} ({}) score 900 or sacrifice child"
KILLED = "Killed process {} ({}) total-vm:104000kB, anon-rss:90000kB, file-rss:0kB, shmem-rss:0kB"
REAPED = "oom_reaper: reaped process {} ({}), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"


def events(lines: list[str], step: float = 0.01, begin: float = 100.0) -> list[OomEvent]:
    """What a log of these lines says, each this much later than the one before."""
    text = "".join(f"[{begin + n * step:12.6f}] {line}\n" for n, line in enumerate(lines))
    log = GrowingLog()
    return [conclude(capture).event for capture in [*log.feed(text.encode()), *log.finish()]]


def free(event: OomEvent) -> dict[str, object]:
    assert event.memory is not None
    return {zone.zone: zone.amounts["free_bytes"] for zone in event.memory.zones}


@pytest.mark.parametrize("names", [("a", "b", "c"), ("a", "b", "b"), ("a", "a", "a")])
@pytest.mark.parametrize("kills", [True, False])
def test_zone_lines_of_headers_without_kill_lines(names: tuple[str, ...], kills: bool) -> None:
    lines = []
    for n, name in enumerate(names):
        lines += [HEADER.format(name), ZONE.format("Normal", 1000 + n), ZONE.format("HighMem", 2000 + n)]
        lines += [INTENT.format(10 + n, "x"), KILLED.format(10 + n, "x")] if kills else []
    found = events(lines, step=0.3)
    assert [event.trigger.comm for event in found] == list(names)
    assert [free(event) for event in found] == [
        {"Normal": (1000 + n) * 1024, "HighMem": (2000 + n) * 1024} for n in range(len(names))
    ]


def test_a_second_line_of_a_zone_never_replaces_the_first() -> None:
    (event,) = events([HEADER.format("a"), ZONE.format("Normal", 1000), ZONE.format("Normal", 5)])
    assert free(event) == {"Normal": 1000 * 1024}


def test_the_reaper_names_the_victim_whose_kill_line_is_not_there() -> None:
    (event,) = events([HEADER.format("a"), HEAD, ROW.format(411, "stress"), REAPED.format(411, "stress")])
    assert [(v.pid, v.comm, v.reaped, v.kills) for v in event.victims] == [(411, "stress", True, 0)]
    assert event.kind == "oom_kill"
    assert "kill" in event.missing  # the line itself was not there


def test_the_reaper_of_another_process_names_nobody_here() -> None:
    lines = [HEADER.format("a"), INTENT.format(411, "stress"), REAPED.format(412, "other")]
    (event,) = events(lines)
    assert [victim.pid for victim in event.victims] == [411]
    assert event.victims[0].reaped is None


def test_the_reapers_word_on_a_kill_that_is_told_stays_with_it() -> None:
    lines = [HEADER.format("a"), KILLED.format(1, "x"), HEADER.format("b"), REAPED.format(1, "x")]
    first, second = events(lines)
    assert first.victims[0].reaped is True
    assert second.victims == ()


@pytest.mark.parametrize("word", ["sysrq: ", "SysRq : ", "sysrq: SysRq : "])
def test_asked_by_hand_without_a_header(word: str) -> None:
    lines = [f"{word}Manual OOM execution", INTENT.format(5, "x"), KILLED.format(5, "x")]
    (event,) = events(lines)
    assert event.trigger.sysrq
    assert [victim.pid for victim in event.victims] == [5]


def test_a_request_by_hand_that_is_ignored_is_an_event() -> None:
    lines = ["sysrq: Manual OOM execution", KILLED.format(5, "x"), "sysrq: Manual OOM execution"]
    killed, ignored = events([*lines, "sysrq: OOM request ignored. No task eligible"], step=0.3)
    assert killed.kind == "oom_kill"
    assert (ignored.kind, ignored.outcome) == ("oom_no_victim", "request ignored: no task eligible")
    assert ignored.trigger.sysrq


def test_the_ignored_request_and_its_no_killable_process_are_one() -> None:
    lines = [
        "sysrq: Manual OOM execution", HEADER.format("kworker/0:1"),
        "Out of memory and no killable processes...", "sysrq: OOM request ignored. No task eligible",
    ]  # fmt: skip
    (event,) = events(lines)
    assert event.outcome == "no killable processes"


LMK = "lowmemorykiller: Killing 'com.example.app' (2601), adj 0,"
DUMP = [
    "Mem-info:",
    ZONE.format("Normal", 24532),
    "[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name",
    "[ 2601] 10021  2601   141200    15120     120        0             0 com.example.app",
]


def test_a_dump_by_the_low_memory_killer_is_no_report() -> None:
    assert events([LMK, *DUMP]) == []
    # the same lines without its word are what is left of a report
    assert len(events(DUMP)) == 1
    # and with the kernel's own kill line they are one
    (event,) = events([LMK, *DUMP, INTENT.format(2601, "x"), KILLED.format(2601, "x")])
    assert [victim.pid for victim in event.victims] == [2601]


def test_the_low_memory_killer_long_before_changes_nothing() -> None:
    assert len(events([LMK, "healthd: battery l=55", *DUMP], step=2.0)) == 1


def test_a_title_of_a_task_table_proves_a_report_in_a_text() -> None:
    (event,) = events(["14562 total pagecache pages", "Tasks state (memory values in pages):"])
    assert not event.complete
    # the ring buffer holds all records: there it proves nothing alone
    record = KmsgRecord(text="Tasks state (memory values in pages):", seq=1, usec=1, facility=0)
    assembler = Assembler()
    signals = [*assembler.feed(record), *assembler.flush()]
    assert not [signal for signal in signals if isinstance(signal, OomBlock)]


def test_live_the_reaper_names_the_victim_of_a_rate_limited_kill_line() -> None:
    lines = [HEADER.format("a"), HEAD, ROW.format(411, "stress"), REAPED.format(411, "stress")]
    assembler = Assembler()
    blocks = []
    for n, line in enumerate(lines):
        record = KmsgRecord(text=line, seq=n, usec=1_000_000 + n, facility=0, flag="-")
        blocks += [signal for signal in assembler.feed(record) if isinstance(signal, OomBlock)]
    blocks += [signal for signal in assembler.tick(2_000_000) if isinstance(signal, OomBlock)]
    (block,) = blocks
    report = decode(block.records)
    assert ([victim.comm for victim in report.victims], report.kills) == (["stress"], 0)
