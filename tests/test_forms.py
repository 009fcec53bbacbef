"""The room of line forms: each sample is taken by its own form, each by one only."""

from __future__ import annotations

import importlib
import pkgutil
import re
import textwrap
from time import process_time

import pytest

from oomwatchd import formats
from oomwatchd.formats import (
    Form,
    Proof,
    Role,
    Section,
    dump_stack,
    gfp,
    memcontrol,
    oom_kill,
    show_mem,
    slab_common,
)
from oomwatchd.formats.recognise import ALL, recognise, recognise_row
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.reports.assemble import OomBlock
from oomwatchd.sources.text import TextReader
from tests.blocks import blocks_of, report_of

SAMPLES = [
    pytest.param(form, sample, id=f"{form.name}-{n}") for form in ALL for n, sample in enumerate(form.samples)
]
ROWS = {
    memcontrol.STAT: Section.MEMCG,
    slab_common.SLAB_ROW: Section.SLAB,
    slab_common.ALLOCATION: Section.SLAB,
}


@pytest.mark.parametrize(("form", "sample"), SAMPLES)
@pytest.mark.parametrize("raw", [True, False])
def test_a_sample_is_taken_by_its_own_form(form: Form, sample: str, raw: bool) -> None:
    found = recognise_row(sample, ROWS[form]) if form in ROWS else recognise(sample, raw=raw)
    assert found is not None
    assert found[0] is form


@pytest.mark.parametrize(("form", "sample"), SAMPLES)
def test_a_sample_matches_no_other_form(form: Form, sample: str) -> None:
    text = sample.lstrip()
    others = [
        other.name
        for other in ALL
        if other is not form
        and other not in ROWS
        and form not in ROWS
        and (not other.begins or text.startswith(other.begins))
        and other.pattern.match(text)
    ]
    assert others == []


@pytest.mark.parametrize("form", ALL, ids=lambda form: form.name)
def test_a_run_of_blanks_takes_no_quadratic_time(form: Form) -> None:
    began = process_time()
    for sample in form.samples:
        for at in [match.start() for match in re.finditer(r"\b|$", sample)]:
            form.pattern.match(sample[:at] + " " * 60_000 + sample[at:])
    assert process_time() - began < 3  # milliseconds; a run that is divided in every way takes more for each


def test_every_form_is_listed_and_says_all_of_its_line() -> None:
    modules = [
        importlib.import_module(f"oomwatchd.formats.{module.name}")
        for module in pkgutil.iter_modules(formats.__path__)
    ]
    defined = {
        form.name: form for module in modules for form in vars(module).values() if isinstance(form, Form)
    }
    in_tables = {form.name for module in modules for form in getattr(module, "FORMS", ())}
    assert {form.name for form in ALL} == defined.keys() | in_tables
    assert len({form.name for form in ALL}) == len(ALL)
    for form in ALL:
        assert form.samples and form.source, form.name
        assert form.begins or form.marks or form.in_place or form in (oom_kill.TASKS_ROW, show_mem.PAGES)
        assert form.copies is not None or form.role is Role.NEIGHBOUR, form.name
        assert form.needles or form.proof is not Proof.ALONE, form.name
        # what alone proves a report may begin one
        assert form.opens or form.proof is Proof.NONE, form.name


@pytest.mark.parametrize(("form", "sample"), SAMPLES)
def test_a_sample_has_its_needle_and_the_shape_of_its_copies(form: Form, sample: str) -> None:
    assert not form.needles or any(needle in sample for needle in form.needles)
    if form.copies is not None and "\n" not in sample:
        assert re.match(form.copies.start, sample.lstrip())


def placed_in(form: Form, sample: str, *, raw: bool) -> list[OomBlock]:
    """The blocks of a report with this line in its place."""
    match = form.pattern.match(sample.lstrip())
    assert match is not None
    groups = match.groupdict()
    comm, pid = groups.get("comm") or "stress", groups.get("pid") or "2543"
    header = f"{comm} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    killed = f"Killed process {pid} ({comm}) total-vm:8kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB"
    title = {Section.MEMCG: "Memory cgroup stats for /foo:", Section.SLAB: "Unreclaimable slab info:"}
    lines = [header, *([title[form.section]] if form.in_place else []), killed]
    at = {Role.BEFORE: 0, Role.EXTRA: len(lines), Role.AFTER: len(lines)}.get(form.role, len(lines) - 1)
    lines.insert(at, sample)
    if form.role is Role.HEADER:
        lines.remove(header)
    if form.role in (Role.KILL, Role.OUTCOME):
        lines.remove(killed)
    return blocks_of(
        KmsgRecord(text=line, facility=0 if raw else None, seq=n if raw else None)
        for n, line in enumerate(lines)
    )


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(("form", "sample"), SAMPLES)
def test_a_sample_is_placed_and_read(form: Form, sample: str, raw: bool) -> None:
    blocks = placed_in(form, sample, raw=raw)
    inside = [sample in [record.text for record in block.records] for block in blocks]
    assert any(inside) is (form.role is not Role.NEIGHBOUR)
    if any(inside):
        block = blocks[inside.index(True)]
        assert report_of(block).undecoded == ()


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(("form", "sample"), SAMPLES)
def test_what_a_sample_proves_alone(form: Form, sample: str, raw: bool) -> None:
    records = [KmsgRecord(text=sample, facility=0 if raw else None, seq=7 if raw else None)]
    assert len(blocks_of(records)) == (form.proof >= (Proof.ALONE if raw else Proof.IN_TEXT))


FILL = "stress invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), order=0"


@pytest.mark.parametrize("width", [60, 72, 80])
@pytest.mark.parametrize(
    "form", [form for form in ALL if form.copies is not None], ids=lambda form: form.name
)
def test_a_sample_survives_a_wrap(form: Form, width: int) -> None:
    for sample in form.samples:
        if "\n" in sample:
            continue  # of several lines
        # the width is shown by the lines around it
        lines = [f"[  100.00000{n}] {text}" for n, text in enumerate((FILL, FILL, FILL, sample, FILL))]
        pieces = [
            piece
            for line in lines
            for piece in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)
        ]
        reader = TextReader()
        records = reader.feed(("\n".join(pieces) + "\n").encode()) + reader.flush()
        mended = [" ".join(record.text.split()) for record in records]
        assert " ".join(sample.split()) in mended


@pytest.mark.parametrize(
    "text",
    [
        "Memory cgroup stats for /Killed process 1 (systemd) total-vm:1kB, anon-rss:1kB, file-rss:0kB:",
        "Memory cgroup stats for /a invoked oom-killer: gfp_mask=0xcc0(), order=0, oom_score_adj=0:",
        "Task in /x invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0 killed as a result of "
        "limit of /x",
        "Tasks in / invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0 are going to be killed due "
        "to memory.oom.group set",
        "Task in /a killed as a result of limit of /x: Killed process 1 (a) total-vm:1kB, anon-rss:1kB, "
        "file-rss:0kB",
        "usb 1-1: device descriptor read/64, error -71",
        "foo: Out of memory",
    ],
)
def test_a_hostile_cgroup_name_is_neither_header_nor_kill_line(text: str) -> None:
    found = recognise(text, raw=True)
    assert found is None or found[0] not in (oom_kill.HEADER, oom_kill.KILLED, oom_kill.SUMMARY)


@pytest.mark.parametrize(
    ("comm", "expected"),
    [
        ("x) total-vm:1kB", "x) total-vm:1kB"),
        ("a) b: c", "a) b: c"),
        ("", ""),
        (" lead trail ", " lead trail "),
        ("x\ny", "x\ny"),
    ],
)
def test_a_kill_line_is_cut_from_the_right(comm: str, expected: str) -> None:
    text = f"Out of memory: Killed process 5 ({comm}) total-vm:8kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB"
    found = recognise(text, raw=True)
    assert found is not None
    assert found[0] is oom_kill.KILLED
    assert found[1]["comm"] == expected
    assert oom_kill.sizes(found[1]["sizes"])["total-vm"] == 8


def summary(text: str, known: str | None = None, *, raw: bool = True) -> oom_kill.Summary:
    found = recognise(text, raw=raw)
    assert found is not None
    assert found[0] is oom_kill.SUMMARY
    return oom_kill.parse_summary(found[1]["constraint"], found[1]["rest"], known)


def test_the_summary_line_of_a_limit() -> None:
    assert summary(
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0-1,oom_memcg=/a,"
        "task_memcg=/a/b,task=dd,pid=80,uid=1000"
    ) == oom_kill.Summary(
        constraint="CONSTRAINT_MEMCG", cpuset="/", mems_allowed="0-1", oom_memcg="/a", task_memcg="/a/b",
        task="dd", pid=80, uid=1000,
    )  # fmt: skip


def test_a_summary_line_set_out_for_reading() -> None:
    found = summary(
        "oom-kill:constraint=CONSTRAINT_MEMCG, nodemask=(null), oom_memcg=/a, task_memcg=/a/b,  task=x, y, "
        "pid=80, uid=1000",
        raw=False,
    )
    assert (found.oom_memcg, found.task_memcg, found.task, found.pid, found.uid) == (
        "/a",
        "/a/b",
        "x, y",
        80,
        1000,
    )


@pytest.mark.parametrize("path", ["/ltp/test-95520", "in", ""])
def test_a_path_that_may_be_cut_is_not_told(path: str) -> None:
    head = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/ltp/test"
    found = summary(f"{head},task_memcg={path}", raw=False)
    assert (found.oom_memcg, found.task_memcg) == ("/ltp/test", None)
    assert summary(f"{head},task_memcg=/ltp/test,task=a", raw=False).task_memcg == "/ltp/test"


def test_an_amount_without_its_unit_is_not_told() -> None:
    cut = "total-vm:1051484kB, anon-rss:1046572kB, file-rss:12k, shmem-rss:0k0"
    assert oom_kill.sizes(cut) == {"total-vm": 1051484, "anon-rss": 1046572, "file-rss": 12}
    assert oom_kill.sizes("anon-rss:1kB, file-rss:12") == {"anon-rss": 1}
    assert oom_kill.sizes("UID:0 pgtables:3kB oom_score_adj:-17") == {
        "UID": 0,
        "pgtables": 3,
        "oom_score_adj": -17,
    }


def test_node_lists_hold_commas() -> None:
    found = summary(
        "oom-kill:constraint=CONSTRAINT_CPUSET,nodemask=0,2,cpuset=cs,mems_allowed=0,2,global_oom,"
        "task_memcg=/,task=dd,pid=7,uid=0"
    )
    assert (found.nodemask, found.cpuset, found.mems_allowed, found.global_oom) == ("0,2", "cs", "0,2", True)


def test_without_cpusets_and_cgroups() -> None:
    found = summary("oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),task=dd,pid=7,uid=0")
    assert (found.task, found.pid, found.cpuset, found.task_memcg) == ("dd", 7, None, None)


@pytest.mark.parametrize(
    ("oom", "task", "comm"),
    [
        (
            "/z,task_memcg=/kubepods/x,task=fake,pid=77,uid=0",
            "/z,task_memcg=/kubepods/x,task=fake,pid=77,uid=0/b",
            "dd",
        ),
        ("/a b", "/a b/c,d=e", ",task=y,pid=1"),
        ("/", "/user.slice", "x=1,task=init"),
        ("/x,global_oom", "/x,global_oom", "evil, pid=1,u"),
    ],
)
def test_hostile_names_in_the_summary_line(oom: str, task: str, comm: str) -> None:
    text = (
        f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg={oom},"
        f"task_memcg={task},task={comm},pid=80,uid=0"
    )
    found = summary(text, known=comm)
    assert (found.oom_memcg, found.task_memcg, found.task, found.pid) == (oom, task, comm, 80)


@pytest.mark.parametrize(
    ("mask", "era", "names"),
    [
        (0x200DA, "2.6.31", ("GFP_HIGHUSER_MOVABLE",)),
        (0x201DA, "2.6.31", ("GFP_HIGHUSER_MOVABLE", "__GFP_COLD")),
        (0x280DA, "2.6.31", ("GFP_HIGHUSER_MOVABLE", "__GFP_ZERO")),
        (0x1201D2, "2.6.27", ("GFP_HIGHUSER_MOVABLE", "__GFP_COLD")),
        (0xD0, "2.6.31", ("GFP_KERNEL",)),
        (0x2000D0, "2.6.31", ("GFP_KERNEL", "__GFP_NOTRACK")),
        (0x3000D0, "3.8", ("GFP_KERNEL", "__GFP_KMEMCG", "__GFP_NOTRACK")),
        (0x20, "2.6.31", ("GFP_ATOMIC",)),
        (0x4020, "2.6.31", ("GFP_ATOMIC", "__GFP_COMP")),
        (0x24201CA, "4.4", ("GFP_HIGHUSER_MOVABLE", "__GFP_COLD")),
        (0x24000C0, "4.5", ("GFP_KERNEL",)),
        (0x25000C0, "4.5", ("GFP_KERNEL_ACCOUNT",)),
        (0x2080020, "4.4", ("GFP_ATOMIC",)),
        (0x0, "2.6.31", ()),
        (0x80000020, "2.6.31", ("GFP_ATOMIC", "0x80000000")),
    ],
)
def test_a_bare_mask_by_the_table_of_its_era(mask: int, era: gfp.Era, names: tuple[str, ...]) -> None:
    assert set(gfp.names(mask, era)) == set(names)
    assert gfp.names(mask, era)[:1] == names[:1]


def test_the_era_is_told_by_the_report() -> None:
    assert gfp.era_of(0x24201CA) == "4.4"
    assert gfp.era_of(0x24201CA, since_4_5=True) == "4.5"
    assert gfp.era_of(0x1201D2, oomkilladj=True) == "2.6.27"
    assert gfp.era_of(0x3000D0) == "3.8"
    assert gfp.era_of(0x1000D0, since_4_1=True) == "4.1"
    assert gfp.era_of(0x200DA) == "2.6.31"


def test_a_mask_whose_names_were_left_out_is_not_read_with_an_old_table() -> None:
    for mask in (0x140CCA, 0xCC0, 0xCD0, 0x6000C0, 0x14000C0, 0x100DCA):
        assert gfp.is_later(mask)
    for mask in (0x201DA, 0xD0, 0x20, 0x4020, 0x24201CA, 0x25000C0, 0x2080020, 0x0, 0x3000D0):
        assert not gfp.is_later(mask)
    assert gfp.highest_zone(gfp.zone_flags(0x140CCA)) == "Movable"
    assert gfp.highest_zone(gfp.zone_flags(0xCC0)) == "Normal"


@pytest.mark.parametrize(
    ("flags", "zone"),
    [
        (("GFP_HIGHUSER_MOVABLE", "__GFP_ZERO"), "Movable"),
        (("GFP_HIGHUSER",), "HighMem"),
        (("GFP_KERNEL",), "Normal"),
        (("GFP_KERNEL", "__GFP_DMA32"), "DMA32"),
        (("GFP_DMA",), "DMA"),
        ((), "Normal"),
    ],
)
def test_the_highest_zone_that_the_flags_allow(flags: tuple[str, ...], zone: str) -> None:
    assert gfp.highest_zone(flags) == zone


def test_amounts_in_every_spelling() -> None:
    assert show_mem.parse_amounts(
        "free:1kB reserved_highatomic:2KB isolated(anon):3kB shmem_thp: 4kB pages_scanned:5 "
        "all_unreclaimable? yes Balloon:6kB"
    ) == {
        "free_bytes": 1024,
        "reserved_highatomic_bytes": 2048,
        "isolated_anon_bytes": 3072,
        "shmem_thp_bytes": 4096,
        "pages_scanned": 5,
        "all_unreclaimable": True,
        "Balloon_bytes": 6144,
    }


@pytest.mark.parametrize(
    "limit", [9007199254740991, 18014398509481983, 9007199254740928, 8589934588, 1 << 52]
)
def test_limits_that_mean_no_limit(limit: int) -> None:
    assert memcontrol.counter(1, limit, 0).limit_bytes is None


def test_a_limit() -> None:
    assert memcontrol.counter(1, 102400, 0).limit_bytes == 102400 * 1024


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (" oom_kill_process.cold (mm/oom_kill.c:1041) ", ["oom_kill_process.cold"]),
        ("dump_header (mm/oom_kill.c:74 mm/oom_kill.c:468)", ["dump_header"]),
        ("? oom_killer_disable (mm/oom_kill.c:1113)", []),
        (" show_stack (no file here)", []),
        ("__alloc_pages_slowpath+0x735/0x1460", ["__alloc_pages_slowpath"]),
    ],
)
def test_a_stack_that_was_decoded(line: str, names: list[str]) -> None:
    assert dump_stack.symbols(line) == names


@pytest.mark.parametrize(
    ("line", "comm", "total_vm"),
    [
        (
            "Killed process 9682, UID 27,(mysqld) total-vm:47388kB, anon-rss:3744kB, file-rss:80kB",
            "mysqld",
            47388,
        ),
        ("Killed process 9682(mysqld) total-vm:47388kB, anon-rss:3744kB", "mysqld", 47388),
        ("Out of memory: Killed process 9682 (a)       total-vm:8kB,      anon-rss:4kB", "a", 8),
        ("Out of Memory: Killed process 9682 (mysqld).", "mysqld", None),
        ("Memory cgroup out of memory: Killed process 20121 (stress) ...", "stress", None),
        ("Out of memory: Killed process 7431 (llama) file-rss:2244172kB", "llama", None),
    ],
)
def test_a_kill_line_that_lost_or_gained_blanks(line: str, comm: str, total_vm: int | None) -> None:
    found = recognise(line)
    assert found is not None
    assert found[0] is oom_kill.KILLED
    assert found[1]["comm"] == comm
    assert oom_kill.sizes(found[1]["sizes"] or "").get("total-vm") == total_vm


@pytest.mark.parametrize(
    "path", ["a:0KB ", "/x: a:0KB b:1KB ", "a: 0KB: ", "a", ": ", "/x:      ", "a:0KB", "for a: "]
)
def test_a_path_of_statistics_takes_no_quadratic_time(path: str) -> None:
    began = process_time()
    for end in ("!", ": cache:0KB", ": cache:0KB !"):
        found = recognise(f"Memory cgroup stats for {path * 10_000}{end}", raw=True)
        assert found is None or found[1]["path"].startswith(path.rstrip())
    assert process_time() - began < 3


def test_statistics_in_a_path_are_the_paths() -> None:
    found = recognise("Memory cgroup stats for /a: b:1KB c:2KB d: cache:0KB rss:5KB", raw=True)
    assert found is not None
    assert (found[1]["path"], found[1]["stats"]) == ("/a: b:1KB c:2KB d", "cache:0KB rss:5KB")
