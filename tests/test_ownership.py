"""Which report a line belongs to: reports that lack lines, beside others, and dumps that are not the OOM
killer's."""

from __future__ import annotations

import pytest

from oomwatchd.event import OomEvent, conclude
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.render.fields import asked, died
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


def test_the_reapers_word_before_the_table_is_on_an_earlier_kill() -> None:
    lines = [HEADER.format("a"), REAPED.format(1, "old"), HEAD, ROW.format(411, "x"), KILLED.format(411, "x")]
    (event,) = events(lines)
    assert [(victim.pid, victim.reaped) for victim in event.victims] == [(411, None)]
    # unless nothing else names a victim, as a search for "oom" leaves it
    first, second = events(
        [HEADER.format("a"), REAPED.format(1, "x"), HEADER.format("b"), REAPED.format(2, "y")]
    )
    assert [[victim.comm for victim in event.victims] for event in (first, second)] == [["x"], ["y"]]


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


TABLE = ["[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name"]
TABLE += ["[  743]     0   743   130120     8120       1        0             0 a.out"]


@pytest.mark.parametrize("cut", ["", " ", " (", " (a", " (a.ou"])
def test_a_kill_line_cut_behind_the_pid_has_its_name_from_the_table(cut: str) -> None:
    for begin in ("", "Out of memory: "):
        (event,) = events([HEADER.format("x"), *TABLE, f"{begin}Killed process 743{cut}"])
        assert [(v.pid, v.comm, v.kills) for v in event.victims] == [(743, "a.out", 1)]


@pytest.mark.parametrize("cut", [" (", " (a", " (a.out", " (a.out)", " (a.out) sco", " (a.out) score "])
def test_a_choice_cut_behind_the_pid_is_one(cut: str) -> None:
    """The rows before it have no head; the row of the chosen has its name, if there is one."""
    chosen = f"Out of memory: Kill process 743{cut}"
    other = TABLE[1].replace("743", "745").replace("a.out", "sh")
    (event,) = events([other, TABLE[1], chosen])
    assert (event.chosen_pid, event.chosen_comm, len(event.tasks)) == (743, "a.out", 2)
    assert [v.score for v in event.victims] == [None]
    (event,) = events([chosen])
    assert (event.chosen_pid, event.chosen_comm) == (743, cut.strip(" (").partition(")")[0])
    (event,) = events([chosen.replace("Kill ", "Killed ").partition(")")[0]])
    assert [v.pid for v in event.victims] == [743]


def test_a_pid_that_may_be_cut_names_nobody() -> None:
    (event,) = events([HEADER.format("x"), *TABLE, "Out of memory: Killed process 74"])
    assert event.victims == ()
    assert died(event).startswith("unknown")


TRACE = [
    "sh cpuset=/ mems_allowed=0", "CPU: 0 PID: 812 Comm: sh Tainted: G         C        4.19.9-v8 #1",
    "Hardware name: Some Board (DT)", "Call trace:", " dump_backtrace+0x0/0x170", " show_stack+0x24/0x30",
    " dump_stack+0xa8/0xdc", " dump_header.isra.3+0x68/0x248", " oom_kill_process+0xe4/0x350",
    " out_of_memory+0xf4/0x2f0", " __alloc_pages_nodemask+0x804/0xdd0",
]  # fmt: skip


def test_a_stack_that_the_killer_dumped_is_a_report_without_its_header() -> None:
    (event,) = events(TRACE)
    assert (event.trigger.comm, event.trigger.pid, event.kernel) == ("sh", 812, "4.19.9-v8")
    assert event.trigger.cpuset == "/"
    assert "header" in event.missing
    # a stall while the killer prints
    stalled = [line for line in TRACE if "dump_stack" not in line]
    stalled.insert(6, " console_unlock+0x3f0/0x5c0")
    assert events(stalled) == []
    # with its header it is the same report
    assert len(events([HEADER.format("sh"), *TRACE])) == 1


TAIL = ["Free swap  = 12kB", "Total swap = 2044kB", "32638 pages RAM", "3977 pages reserved"]


@pytest.mark.parametrize("end", [[KILLED.format(743, "a.out")], [*TABLE, KILLED.format(743, "a.out")], TABLE])
def test_the_end_of_the_memorys_state_belongs_to_what_follows(end: list[str]) -> None:
    """The lines that open no report by themselves, where the head of the report was cut away."""
    (event,) = events([*TAIL, *end])
    assert event.memory is not None
    assert event.memory.swap is not None
    assert (event.memory.swap.free_bytes, event.memory.swap.total_bytes) == (12 << 10, 2044 << 10)
    for apart in ([*TAIL, "eth0: link becomes ready", *end], [*TAIL, HEADER.format("x"), *end]):
        (event,) = events(apart)
        assert event.memory is None
    (event,) = events([*TAIL, *end], step=2.0)
    assert event.memory is None


ROWS = [
    "[ 4057]     0  4057     1431      881       8       3        0           -17 iscsid",
    "[ 4249]   112  4249     5992      517      17       3        6             0 nrpe",
    "[ 4304]     0  4304    35206      221      37       3      401             0 qemu-system-i38",
]


def test_rows_alone_are_a_report_that_lost_its_head_and_end() -> None:
    """Three of them, with a log's prefix and with names: only the OOM killer prints such a table."""
    for prefix in ("[  925.594313] ", "[Tue Jul 14 11:35:52 2020] ", "Jul 14 11:35:52 web kernel: "):
        log = GrowingLog()
        text = "".join(f"{prefix}{row}\n" for row in ROWS)
        (capture,) = [*log.feed(text.encode()), *log.finish()]
        tasks = conclude(capture).event.tasks
        assert [task.comm for task in tasks] == ["iscsid", "nrpe", "qemu-system-i38"]
    assert events(ROWS[:2]) == []
    assert events([row.rpartition(" ")[0] for row in ROWS]) == []
    log = GrowingLog()
    assert [*log.feed("\n".join(ROWS).encode()), *log.finish()] == []  # may be anybody's numbers


def test_what_stands_behind_an_authors_words_is_another_log() -> None:
    """Of a document that shows two: the first with prefixes, the second without."""
    first = f"[Wed May  1 10:00:00 2024] {HEADER.format('web')}\n[Wed May  1 10:00:00 2024] {DUMP_LINE}\n"
    kill = f"{INTENT.format(9, 'db')}\n{KILLED.format(9, 'db')}\n"
    words = "The following lines are from the other cluster of ours.\n"
    for between, victims in ((words, [[], [9]]), ("", [[9]])):
        log = GrowingLog()
        found = [*log.feed((first + between + kill).encode()), *log.finish()]
        assert [[v.pid for v in conclude(capture).event.victims] for capture in found] == victims


@pytest.mark.parametrize(
    "line",
    [
        "Out of memory: Killed process   9 (db) total-vm:4096kB, anon-rss:2048kB, file-rss:12kB",
        "killed process 9 (db) total-vm: 4096kb, anon-rss:2048kb, file-rss: 12kb",
    ],
)
def test_a_kill_line_that_somebody_laid_out_or_typed(line: str) -> None:
    (event,) = events([line])
    (victim,) = event.victims
    assert (victim.pid, victim.comm, victim.total_vm_bytes) == (9, "db", 4096 << 10)
    assert (victim.anon_rss_bytes, victim.file_rss_bytes) == (2048 << 10, 12 << 10)


def test_who_was_only_chosen_is_not_said_to_have_died() -> None:
    (event,) = events([HEADER.format("x"), *TABLE, INTENT.format(743, "a.out")])
    assert died(event).startswith("unknown: a.out (pid 743) was chosen")
    assert " killed" not in event.summary


PANIC = "Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled"
DUMP_LINE = "CPU: 1 PID: 743 Comm: a.out Tainted: PO 4.1.10 #1"


def test_the_line_behind_a_panic_names_who_asked() -> None:
    (event,) = events([PANIC, DUMP_LINE])
    assert (event.trigger.panicked_comm, event.trigger.panicked_pid) == ("a.out", 743)
    assert asked(event) == "a.out (pid 743), by the line behind the panic"
    # a header says it better
    (event,) = events([HEADER.format("b"), PANIC, DUMP_LINE])
    assert asked(event).startswith("b (")
    (event,) = events(["sysrq: Manual OOM execution", PANIC, DUMP_LINE])
    assert "by hand" in asked(event)


@pytest.mark.parametrize(
    "words",
    [
        "triggered out of memory codition (oom killer not called)",
        "caused out of memory",
        "hit oom condition",
    ],
)
def test_a_header_is_known_by_what_it_says_of_the_request(words: str) -> None:
    request = "gfp_mask=0x201da, order=0, oom_score_adj=0"
    panic = "Kernel panic - not syncing: Reboot due to persistent out of memory codition.."
    (event,) = events([f"aaews {words}: {request}", *TABLE, panic])
    assert (event.trigger.comm, event.trigger.gfp_mask, event.trigger.order) == ("aaews", 0x201DA, 0)
    assert event.kind == "oom_panic"


def test_openvz_names_the_container_and_the_sizes() -> None:
    lines = [
        "OOM killer in rage, 16 tasks killed in ub 1234",
        "Out of memory in UB 1234: OOM killed process 21738 (php-cgi) score 0 vm:281988kB, rss:17004kB,"
        " swap:4kB",
    ]
    (event,) = events(lines)
    assert event.constraint == "memcg"
    assert event.memcg is not None and event.memcg.oom_path == "UB 1234"
    (victim,) = event.victims
    assert (victim.total_vm_bytes, victim.rss_bytes, victim.swap_bytes) == (
        281988 << 10,
        17004 << 10,
        4 << 10,
    )
    whose = next(one for one in event.attribution if one.role == "victim")
    assert (whose.container_runtime, whose.container_id) == ("openvz", "1234")
    assert "UB 1234" in event.summary
    (host,) = events([lines[1].replace("1234", "0")])
    assert host.memcg is None
