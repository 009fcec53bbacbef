"""The decoder on recorded kernels: every kill the kernel counted, every name as it went in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import OomReport
from oomwatchd.reports.decode import decode
from oomwatchd.sources.text import TextReader
from tests.blocks import blocks_of, read_records, report_of, scenarios
from tests.conftest import corpus_directory

KERNELS = sorted((corpus_directory() / "kernel").glob("*.kmsg.gz"))
SAMPLES = sorted((corpus_directory() / "samples").glob("*.kmsg.gz"))

#: the names that the scenarios hostile_0 … hostile_14 gave their process
HOSTILE = [
    "a) b: c", "x\ny", "\x1b[31mred", "<script>x", "evil, pid=1,u", "Killed process", "\\xff\\xfe\\x80",
    "tab\there", "", " lead trail ", "\"q\\b'", "oom-kill:", "(sd-pam)", "name [ 123]", "x=1,task=init",
]  # fmt: skip


@cache
def reports_of(path: Path) -> tuple[tuple[int, OomReport], ...]:
    """(first sequence number, report) of one recording."""
    return tuple((block.records[0].seq or 0, report_of(block)) for block in blocks_of(read_records(path)))


def within(reports: Sequence[tuple[int, OomReport]], path: Path, name: str) -> list[OomReport]:
    steps = scenarios(path)
    at = next(n for n, step in enumerate(steps) if step.name == name)
    end = steps[at + 1].after_seq if at + 1 < len(steps) else 1 << 62
    return [report for seq, report in reports if steps[at].after_seq < seq <= end]


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_kills_are_what_the_kernel_counted(path: Path) -> None:
    reports = reports_of(path)
    steps = scenarios(path)
    assert len(steps) > 20
    found = {step.name: sum(r.kills for r in within(reports, path, step.name)) for step in steps}
    assert found == {step.name: step.kills for step in steps}
    assert sum(report.kills for _, report in reports) == sum(step.kills for step in steps)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_hostile_names_come_out_as_they_went_in(path: Path) -> None:
    reports = reports_of(path)
    for n, name in enumerate(HOSTILE):
        (report,) = within(reports, path, f"hostile_{n}")
        assert [victim.comm for victim in report.victims] == [name]
        assert report.trigger.comm == name
        assert report.chosen_comm == name
        assert [task.comm for task in report.tasks] == [name]
        assert report.constraint == "memcg"
        assert report.memcg is not None
        assert report.memcg.oom_path == report.memcg.task_path


@pytest.mark.parametrize("path", [*KERNELS, *SAMPLES], ids=lambda path: path.name)
def test_nothing_stays_undecoded_and_what_has_a_header_is_complete(path: Path) -> None:
    for _, report in reports_of(path):
        assert report.undecoded == ()
        assert report.complete == ("header" not in report.missing), report.missing


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_the_parts_of_a_global_report(path: Path) -> None:
    reports = reports_of(path)
    (report,) = within(reports, path, "global_many")
    assert report.constraint == "none"
    assert report.victims[0].comm == "big hog"
    assert len(report.tasks) == 201
    memory = report.memory
    assert memory is not None
    assert report.page_size_bytes == 4096
    assert memory.ram_bytes is not None
    assert memory.swap is not None
    for zone in memory.zones:
        blocks = zone.free_blocks or ()
        assert sum(block.count << block.order for block in blocks) * 4096 == zone.free_blocks_total_bytes
        assert zone.bytes_of("min") is not None
        assert zone.lowmem_reserve_bytes is not None
    assert report.trigger.gfp_flags
    assert "out_of_memory" in report.trigger.call_trace
    assert report.kernel is not None
    assert report.kernel in path.name


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_a_group_kill_is_one_event(path: Path) -> None:
    reports = reports_of(path)
    (report,) = within(reports, path, "oom_group")
    assert report.kills == 4
    assert sorted(victim.kills for victim in report.victims) == [1, 1, 2]
    assert [victim.role for victim in report.victims].count("selected") == 1
    assert report.memcg is not None
    assert report.memcg.group_path == report.memcg.oom_path


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_special_invocations(path: Path) -> None:
    reports = reports_of(path)
    assert all(report.outcome == "no killable processes" for report in within(reports, path, "unkillable"))
    (sysrq,) = within(reports, path, "sysrq")
    assert sysrq.trigger.sysrq
    assert sysrq.trigger.order == -1
    (allocating,) = within(reports, path, "allocating_task")
    assert allocating.victims[0].comm == "allocator"
    if any(step.name == "cpuset" for step in scenarios(path)):
        assert [r.constraint for r in within(reports, path, "cpuset")] == ["cpuset"]
        assert [r.constraint for r in within(reports, path, "mempolicy")] == ["memory_policy"]


def test_memory_cgroup_statistics_of_every_kind(corpus: Path) -> None:
    def first_memcg(name: str) -> OomReport:
        reports = (report for _, report in reports_of(corpus / "samples" / name))
        return next(report for report in reports if report.memcg and report.memcg.stat)

    one_line = first_memcg("4.15-cg1.kmsg.gz").memcg
    one_record = first_memcg("5.4-cg2.kmsg.gz").memcg
    rows = first_memcg("7.0-cg2.kmsg.gz").memcg
    assert one_line and one_record and rows
    assert (one_line.stat_unit_bytes, one_record.stat_unit_bytes, rows.stat_unit_bytes) == (1024, 1, 1)
    assert "rss" in one_line.stat
    assert "anon" in one_record.stat
    assert "anon" in rows.stat
    assert one_line.memory_swap is not None
    assert one_line.memory_swap.limit_bytes is None
    assert rows.swap is not None


TEXT = st.text(max_size=120) | st.sampled_from(
    [
        "x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "CPU: 1 PID: 7 Comm: x Not tainted 6.1.0 #1",
        "Mem-Info:",
        "Node 0 DMA free:1kB min:2kB low:3kB high:4kB",
        "lowmem_reserve[]: 0 1 2",
        "Node 0 DMA: 1*4kB (U) = 4kB",
        "Tasks state (memory values in pages):",
        "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        "[      7]     0     7        1        1     4096        0             0 x",
        "[      7]     0     7        1        1     " + "9" * 30 + "        0             0 x",
        "Memory cgroup stats for /a:",
        "anon 1",
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),task=x,pid=7,uid=0",
        "Out of memory: Killed process 7 (x) total-vm:1kB, anon-rss:1kB, file-rss:0kB",
        "Tasks in /a are going to be killed due to memory.oom.group set",
        "oom_reaper: reaped process 7 (x), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
        "Out of memory and no killable processes...",
        "1.20 GiB 3 mm/filemap.c:1962 func:f",
    ]
)


@pytest.mark.parametrize(
    "line",
    [
        "[      7]     0     7        1        1     " + "9" * 400 + "        0             0 x",
        "Node 0 DMA free:" + "9" * 20 + "kB min:2kB low:3kB high:4kB",
        "lowmem_reserve[]: 0 " + "9" * 40,
        "Node 0 DMA: " + "9" * 30 + "*4kB (U) = 4kB",
        "active_anon:" + "9" * 20 + " free:1",
        "memory: usage " + "9" * 30 + "kB, limit 1kB, failcnt 0",
        "99999999999999 EiB 3 mm/filemap.c:1962 func:f",
        "Out of memory: Killed process 7 (x) total-vm:" + "9" * 25 + "kB, anon-rss:1kB, file-rss:0kB",
        "x invoked oom-killer: gfp_mask=0x" + "f" * 40 + "(), order=" + "9" * 40 + ", oom_score_adj=0",
    ],
)
def test_a_figure_beyond_64_bits_is_no_figure(line: str) -> None:
    lines = [
        "x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "Mem-Info:",
        "Node 0 DMA free:1kB min:2kB low:3kB high:4kB",
        "Memory allocations:",
        "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
    ]
    for at in range(1, len(lines) + 1):
        text = [*lines[:at], line, *lines[at:]]
        report = decode([KmsgRecord(text=part, usec=n) for n, part in enumerate(text)])
        assert len(msgspec.json.encode(report)) > 100


@given(st.lists(TEXT, max_size=40), st.booleans())
def test_decode_never_raises(lines: list[str], raw: bool) -> None:
    records = [KmsgRecord(text=text, seq=n if raw else None, usec=n) for n, text in enumerate(lines)]
    report = decode(records)
    assert report.kills >= 0
    msgspec.json.encode(report)
    for block in blocks_of(records):
        report_of(block)


def _text_reports(text: str) -> list[OomReport]:
    reader = TextReader()
    records = reader.feed(text.encode())
    return [report_of(block) for block in blocks_of([*records, *reader.flush()])]


def test_what_panic_prints_names_the_kernel_and_not_the_trigger() -> None:
    (report,) = _text_reports(
        "[  910.064760] SysRq : Manual OOM execution\n"
        "[  910.113950] Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled\n"
        "[  910.113950]\n"
        "[  910.229545] CPU: 1 PID: 243 Comm: kworker/1:2 Tainted: G  C O  3.16.0-6-amd64 #1\n"
    )
    assert (report.kind, report.kernel) == ("oom_panic", "3.16.0-6-amd64")
    assert (report.trigger.comm, report.trigger.pid, report.trigger.sysrq) == (None, None, True)


def test_an_allocation_failure_that_lost_its_name() -> None:
    """4.9 to 4.13 print the name, the words and the mask as three pieces; those of two CPUs mix."""
    (report,) = _text_reports(
        "[    1.000000] page allocation failure: order:0, mode:0x2080020(GFP_ATOMIC)\n"
        "[    1.000001] CPU: 20 PID: 0 Comm: swapper/20 Not tainted 4.9.0-5-amd64 #1\n"
    )
    assert (report.kind, report.trigger.comm, report.trigger.order) == ("page_alloc_failure", "swapper/20", 0)


def test_a_zone_without_its_free_blocks_is_not_the_whole_mem_info() -> None:
    records = next(
        b.records
        for b in blocks_of(read_records(SAMPLES[0]))
        if report_of(b).complete and report_of(b).memory
    )
    whole = decode(records)
    assert whole.memory is not None
    assert len(whole.memory.zones) > 0
    cut = decode([record for record in records if "*4kB" not in record.text])
    assert "mem_info" in cut.missing
    assert not cut.complete


def test_totals_that_were_shortened_by_hand() -> None:
    (report,) = _text_reports(
        "a invoked oom-killer: gfp_mask=0x140cca, order=0, oom_score_adj=0\nMem-Info:\n"
        "active_anon:12 inactive_anon:941203 … active_file:95 ... free:21538\n"
    )
    assert report.memory is not None
    assert set(report.memory.totals) == {
        "active_anon_bytes", "inactive_anon_bytes", "active_file_bytes", "free_bytes"
    }  # fmt: skip
    assert "elided" in report.missing
    assert (report.trigger.gfp_flags, report.trigger.highest_zone) == (None, "Movable")


def test_a_remark_behind_a_row_is_no_part_of_the_name() -> None:
    (report,) = _text_reports(
        "[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name\n"
        "[ 9117]   118  9117   198934    13612     159     4103             0 palo_be  <========== this one\n"
        "[ 9118]   118  9118       34       12       9        3             0 a  b\n"
        "Out of memory: Kill process 9117 (palo_be) score 237 or sacrifice child\n"
    )
    assert [task.comm for task in report.tasks] == ["palo_be", "a  b"]


def test_a_dump_behind_the_summary_is_another_reports() -> None:
    (report,) = _text_reports(
        "[  221.921944] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c,mems_allowed=0\n"
        "[  221.922111] BUG: KASAN: global-out-of-bounds in vprintk_store+0x362/0x3d0\n"
        "[  221.922114] CPU: 1 PID: 11282 Comm: other Not tainted 5.9.0-next-20201013 #1\n"
        "[  221.922700] Memory cgroup out of memory: Killed process 80 (dd) total-vm:63028kB\n"
    )
    assert (report.trigger.comm, report.trigger.pid) == (None, None)


def test_reports_of_two_tasks_at_once_keep_their_own_dump() -> None:
    """Up to 4.1 nothing keeps the reports of two cgroups apart, and failed allocations never wait."""
    reports = _text_reports(
        "[    1.000001] a: page allocation failure: order:0, mode:0x2080020(GFP_ATOMIC)\n"
        "[    1.000002] b: page allocation failure: order:1, mode:0x2080020(GFP_ATOMIC)\n"
        "[    1.000003] CPU: 1 PID: 11 Comm: a Not tainted 4.9.0 #1\n"
        "[    1.000004] CPU: 2 PID: 12 Comm: b Not tainted 4.9.0 #1\n"
    )
    assert [(r.trigger.comm, r.trigger.pid, r.trigger.order) for r in reports] == [("a", 11, 0), ("b", 12, 1)]


WHOLE = """\
a invoked oom-killer: gfp_mask=0x201da, order=0, oom_score_adj=0
Pid: 7, comm: a Not tainted 3.2.0 #1
Call Trace:
 [<ffffffff810b12b7>] oom_kill_process+0x82/0x283
Mem-Info:
active_anon:1 inactive_anon:2 isolated_anon:0
Normal free:4000kB min:4116kB low:5144kB high:6172kB present:500000kB all_unreclaimable? yes
lowmem_reserve[]: 0 0
Normal: 260*4kB 170*8kB = 2400kB
1146 total pagecache pages
Out of memory: Kill process 7 (a) score 237 or sacrifice child
Killed process 7 (a) total-vm:47388kB, anon-rss:3744kB, file-rss:80kB
"""


@pytest.mark.parametrize(
    "mark",
    [
        "[...]", "<snip>", "(...snipped...)", "--- snip ---", "*snip*", "[truncated]", "..snip..", "[..]",
        "...", "(some lines omitted)", "... (此处省略若干行)", "…",
    ],
)  # fmt: skip
def test_marks_of_what_was_left_out(mark: str) -> None:
    (whole,) = _text_reports(WHOLE)
    assert whole.missing == ()
    (cut,) = _text_reports(WHOLE.replace("lowmem_reserve[]: 0 0", mark))
    assert cut.missing == ("elided",)


@pytest.mark.parametrize(
    "line", ["------------[ cut here ]------------", "(unreliable)", "[drm] skipped a frame"]
)
def test_what_is_no_such_mark(line: str) -> None:
    (report,) = _text_reports(WHOLE.replace("lowmem_reserve[]: 0 0", line))
    assert report.missing == ()


def test_every_header_has_a_stack_and_every_limit_its_statistics() -> None:
    head, _, rest = WHOLE.partition("Pid: 7")
    (cut,) = _text_reports(head + rest[rest.index("Mem-Info") :])
    assert cut.missing == ("stack",)
    records = next(
        block.records
        for block in blocks_of(read_records(SAMPLES[0]))
        if report_of(block).constraint == "memcg"
    )
    assert decode(records).missing == ()
    assert decode([r for r in records if not r.text.startswith("Memory cgroup stats")]).missing == ("memcg",)


#: RHEL 4, Fedora Core 4 and 5, Ubuntu 6.06
OLDEST = """\
oom-killer: gfp_mask=0x1d2
DMA per-cpu:
cpu 0 hot: low 2, high 6, batch 1
Free pages:        3060kB (0kB HighMem)
Active:29519 inactive:29110 dirty:0 writeback:0 unstable:0 free:765 slab:2624 mapped:56916 pagetables:475
DMA free:1080kB min:124kB low:152kB high:184kB active:5908kB inactive:5868kB present:16384kB \
pages_scanned:836 all_unreclaimable? no
lowmem_reserve[]: 0 239 239
DMA: 0*4kB 1*8kB 1*16kB 1*32kB 0*64kB 0*128kB 0*256kB 0*512kB 1*1024kB 0*2048kB 0*4096kB = 1080kB
Swap cache: add 226413, delete 226413, find 56113/77134, race 0+0
Free swap:            0kB
"""


@pytest.mark.parametrize(
    ("ending", "score"),
    [
        ("Out of Memory: Killed process 4712 (panel).\n", None),
        (
            "Out of Memory: Kill process 4711 (session) score 7 and children.\n"
            "Out of memory: Killed process 4712 (panel).\n",
            7,
        ),
    ],
)
def test_the_first_kernels_name_no_task(ending: str, score: int | None) -> None:
    (report,) = _text_reports(OLDEST + ending)
    assert (report.trigger.comm, report.trigger.gfp_mask, report.trigger.order) == (None, 0x1D2, None)
    assert report.trigger.oom_score_adj is None
    assert (report.complete, report.constraint, report.undecoded) == (True, "none", ())
    assert [(victim.pid, victim.comm) for victim in report.victims] == [(4712, "panel")]
    assert report.memory is not None
    assert report.memory.swap is not None
    assert report.memory.swap.free_bytes == 0
    assert score is None or report.chosen_pid == 4711


def test_who_charges_a_cgroup_is_at_its_limit() -> None:
    header = "a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\nCall Trace:\n"
    for line, constraint in ((" try_charge+0x1/0x2", "memcg"), (" ? try_charge+0x1/0x2", None)):
        (report,) = _text_reports(header + line + "\n")
        assert report.constraint == constraint


def test_a_trace_of_which_nothing_is_sure() -> None:
    """Without frame pointers; it may hold the leftovers of earlier calls, but only one killer was called."""
    header = "a invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0\nCall Trace:\n"
    killer = " [<ffffffff810db186>] ? {}+0x28/0x3e0\n"
    kill, charge = killer.format("oom_kill_process"), killer.format("mem_cgroup_oom_synchronize")
    for lines, constraint in (
        (kill + charge, "memcg"),
        (kill + killer.format("out_of_memory") + charge, None),
        (charge, None),
    ):
        (report,) = _text_reports(header + killer.format("dump_header") + lines)
        assert report.constraint == constraint, lines


def test_a_line_about_the_cgroup_tells_the_constraint_also_if_it_is_cut() -> None:
    (report,) = _text_reports("[  849.759079] Task in /kubepods/burstable/pod81fb814-df6b/5d5b52d84\n")
    assert (report.constraint, report.constraint_basis) == ("memcg", "text")


def test_what_a_copy_quotes_is_told_without_the_marks() -> None:
    text = (
        '"a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n'
        '[    1.000000] CPU: 1 PID: 9 Comm: a Not tainted 6.1.0-9-amd64";\n'
    )
    (report,) = _text_reports(text)
    assert (report.trigger.comm, report.trigger.pid, report.kernel) == ("a", 9, "6.1.0-9-amd64")
    named = text.replace("Comm: a", 'Comm: "a')
    assert [report.trigger.comm for report in _text_reports(named)] == ['"a']


def test_a_remark_behind_a_kill_line_is_no_name() -> None:
    line = (
        "Out of memory: Killed process 9 (a) total-vm:216868kB, anon-rss:18960kB, file-rss:1280kB, "
        "shmem-rss:0kB, UID:0 pgtables:100kB oom_score_adj:0 (the leak)"
    )
    assert [victim.comm for report in _text_reports(line + "\n") for victim in report.victims] == ["a"]


def test_what_was_left_out_of_a_summary_line() -> None:
    kill = "Memory cgroup out of memory: Killed process 9 (a) total-vm:1830052kB, anon-rss:152644kB, ...\n"
    line = "oom-kill:constraint=CONSTRAINT_MEMCG,...,oom_memcg={},task_memcg={},task=a,pid=9\n"
    for oom, task, expected in (
        ("/a", "/a/b", ("/a", "/a/b")),
        ("/a", "/a/.../b", ("/a", None)),
        ("/\u2026/a", "/a", (None, "/a")),
    ):
        (report,) = _text_reports(line.format(oom, task) + kill)
        assert report.memcg is not None
        assert (report.memcg.oom_path, report.memcg.task_path) == expected
