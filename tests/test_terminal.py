"""The terminal report: the verdict first, within its width, plain without colour, harmless always."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from oomwatchd.diagnosis.attribution import Attribution, owner_of
from oomwatchd.event import EventKind, EventSource, EventTime, OomEvent, conclude
from oomwatchd.records.capture import Mark, Track
from oomwatchd.records.report import Finding, Memcg, MemcgCounter, Task, Trigger, Victim
from oomwatchd.render import fields
from oomwatchd.render.fields import field_value, track_title
from oomwatchd.render.terminal import render_text
from oomwatchd.words.amounts import kib, percent, size
from oomwatchd.words.escape import harmless, harmless_name
from oomwatchd.words.text import ratio
from tests.recorded import captures, kernel_recordings, kinds, logs

SGR = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = (
    "a) b: c",
    "x\ny",
    "\x1b[31mred",
    "[bold red]markup[/]",
    ":smile:",
    "<script>x",
    "\u202eevil\u2066",
    "zero\u200bwidth\ufeff",
    "\x9b31mC1",
    "\ud800",
    "",
    " lead trail ",
    "\u3164\u2800",
    "e\u0301\u0301\u0301",
    "\x1b]0;title\x07",
    "bell\x07\x08\x7f",
)


def event(name: str = "java", **fields: Any) -> OomEvent:
    values: dict[str, Any] = {
        "id": "0123456789abcdef",
        "kind": "oom_kill",
        "summary": f"{harmless_name(name)} (pid 7) killed: cgroup /a at its limit of 512 MiB",
        "complete": True,
        "missing": (),
        "lost_records": 0,
        "source": EventSource(kind="file", form="dmesg"),
        "time": EventTime(kernel_seconds=12.5),
        "kernel": name,
        "arch": None,
        "page_size_bytes": 4096,
        "trigger": Trigger(comm=name, pid=7, order=0, gfp_flags=("GFP_KERNEL",)),
        "constraint": "memcg",
        "memcg": Memcg(
            oom_path=f"/{name}", task_path=name, memory=MemcgCounter(usage_bytes=1, limit_bytes=1 << 29)
        ),
        "memory": None,
        "tasks": (Task(pid=7, comm=name, rss_bytes=4096, swap_bytes=0, oom_score_adj=0),),
        "slab": (),
        "allocations": (),
        "kills": 1,
        "victims": (Victim(pid=7, comm=name, anon_rss_bytes=4096),),
        "findings": (
            Finding(id="x", severity="critical", title=name, explanation=name, advice=f"Do {name}"),
        ),
    }
    return OomEvent(**(values | fields))


def seed(corpus: Path) -> OomEvent:
    (capture,) = captures(corpus / "seed/mips-3.10-highmem.log")
    return conclude(capture).event


def test_the_first_five_lines_say_who_asked_died_why_and_what_to_change(corpus: Path) -> None:
    assert render_text(seed(corpus)).splitlines()[:5] == [
        "DIED     min_free_kbytes (pid 118, 469 MiB resident, score 922)",
        "ASKED    min_free_kbytes (pid 118, order 0, GFP_HIGHUSER_MOVABLE)",
        "WHY      Normal zone 32 kB short for an order-0 request; min_free_kbytes held",
        "         92 % of RAM",
        "CHANGE   Bound min_free_kbytes: its own settings (heap, cache, number of",
    ]


POD = "10d16a28-60ff-475f-a631-510d9792219f"
CONTAINER = "178ec18073cc6ac7be2de8d9869daf162a6349dd056b6535849112c53ec3102a"
KUBEPODS = "/kubepods.slice/kubepods-burstable.slice"
IN_POD = f"{KUBEPODS}/kubepods-burstable-pod{POD.replace('-', '_')}.slice/cri-containerd-{CONTAINER}.scope"


@pytest.mark.parametrize(
    ("path", "limit", "name", "died"),
    [
        ("/system.slice/mariadb.service", None, None, "a (pid 7), in mariadb.service"),
        ("/system.slice/mariadb.service", "/system.slice/mariadb.service", None, "a (pid 7)"),
        ("/apps/\x1b[31m", None, None, "a (pid 7), in cgroup /apps/\\x1b[31m"),
        ("/", None, None, "a (pid 7)"),
        (IN_POD, IN_POD, None, f"a (pid 7), in container 178ec18073cc, pod {POD}"),
        (IN_POD, IN_POD, "shop/cart-0/app", "a (pid 7), in container shop/cart-0/app (178ec18073cc)"),
        (f"/docker/{CONTAINER}", None, None, "a (pid 7), in container 178ec18073cc"),
        (f"/docker/{CONTAINER}", f"/docker/{CONTAINER}", None, "a (pid 7)"),
    ],
)
def test_where_the_victim_lived(path: str, limit: str | None, name: str | None, died: str) -> None:
    owner = msgspec.structs.asdict(owner_of(path))
    shown = event(
        victims=(Victim(pid=7, comm="a"),),
        memcg=None if limit is None else Memcg(oom_path=limit, task_path=path),
        attribution=(Attribution(pid=7, role="victim", cgroup=path, container_name=name, **owner),),
    )
    assert render_text(shown, width=200).splitlines()[0] == f"DIED     {died}"


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/system.slice/mariadb.service", "/system.slice/mariadb.service"),
        (IN_POD, "container 178ec18073cc"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/run-u640.service", "run-u640.service"),
        ("/fuzzing/prod/service-a/tor_extrainfo_2024", ".../service-a/tor_extrainfo_2024"),
        (f"/a/{'b' * 30}/c/d", ".../c/d"),
        (f"/a/{'b' * 90}", f"/a/{'b' * 8}...{'b' * 22}"),
    ],
)
def test_a_track_keeps_the_name_by_which_it_is_known(path: str, title: str) -> None:
    shown = track_title(Track(kind="cgroup", name=path, points=()), 36)
    assert shown == title
    assert len(shown) <= 36


def test_the_verdict_is_not_cut_where_it_matters() -> None:
    advice = f"Raise resources.limits.memory (Kubernetes) of pod {POD} above 16 GiB, or make it smaller."
    long = event(findings=(Finding(id="x", severity="critical", title="x", explanation="x", advice=advice),))
    for width in (40, 80):
        verdict = " ".join(render_text(long, width=width).partition("CHANGE")[2].partition("12.5")[0].split())
        assert verdict.replace(" ", "") == advice.replace(" ", "")
    assert "..." in render_text(event(trigger=Trigger(comm="a" * 100, pid=1)), width=80).splitlines()[1]


def test_what_to_change_begins_within_five_lines(corpus: Path) -> None:
    shown = 0
    for path in logs(corpus):
        for capture in captures(path):
            lines = render_text(conclude(capture).event).splitlines()
            assert any(line.startswith("CHANGE") for line in lines[:5]), (path.stem, lines[:8])
            shown += 1
    assert shown > 100


def test_zones_stand_against_what_the_request_needed(corpus: Path) -> None:
    rows = [" ".join(line.split()) for line in render_text(seed(corpus)).splitlines()]
    assert "HighMem 224 256 2984 5716 >256 short by 32" in rows
    assert "Normal 18244 10084 12604 15124 >18276 short by 32" in rows
    assert "swap unknown" in rows


def test_a_figure_keeps_its_unit() -> None:
    why = "node 0 Normal zone 268 kB short for an order-0 request; random holds 92 % of RAM"
    lines = render_text(event(summary=f"java (pid 7) killed: {why}")).splitlines()[2:4]
    assert [line[9:] for line in lines] == [why.partition(" 92")[0], "92 % of RAM"]


def test_a_narrow_console_loses_columns_and_no_names(corpus: Path) -> None:
    text = render_text(seed(corpus), width=40)
    assert all(line.isascii() and len(line) <= 40 for line in text.splitlines())
    rows = [" ".join(line.split()) for line in text.splitlines()]
    for row in (
        "anonymous 470 MiB 91.7 %",
        "zone free min needs",
        "Normal 18244 10084 >18276",
        "Normal: short by 32",
        "pid rss score name",
        "118 469 MiB 922 min_free_kbytes",
    ):
        assert row in rows


def test_a_why_of_two_lines_still_leaves_the_change_within_five() -> None:
    why = "confined to node 1 by its memory policy; node 1 DMA32 zone 16 kB short for an order-0 request"
    lines = render_text(event(summary=f"java (pid 7) killed: {why}")).splitlines()
    assert f"{lines[2].removeprefix('WHY').strip()} {lines[3].strip()}" == why
    assert lines[4].startswith("CHANGE")


def test_a_why_of_one_line_leaves_two_to_the_change() -> None:
    advice = "Raise MemoryMax= of a.service above 512 MiB (memory.max), or make what runs in it smaller."
    finding = Finding(id="x", severity="critical", title="t", explanation="e", advice=advice)
    lines = render_text(event(findings=(finding,))).splitlines()
    assert lines[3].startswith("CHANGE   Raise")
    assert f"{lines[3].removeprefix('CHANGE').strip()} {lines[4].strip()}" == advice


@pytest.mark.parametrize(
    ("fields", "died"),
    [
        (
            {"victims": (), "kills": 0, "kind": "oom_no_victim", "outcome": "no killable"},
            "nobody (no killable)",
        ),
        (
            {"victims": (), "kills": 0, "missing": ("kill",)},
            "unknown: no line of the log names who was killed",
        ),
        ({"victims": (), "kind": "oom_panic", "outcome": "x"}, "nobody: the kernel panicked (x)"),
        ({"victims": (Victim(pid=7, comm="a"), Victim(pid=8, comm="a"))}, "a (pid 7) and 1 more"),
    ],
)
def test_who_died(fields: dict[str, Any], died: str) -> None:
    assert render_text(event(**fields)).splitlines()[0] == f"DIED     {died}"


def test_a_wide_zone_table_breaks_no_figure(corpus: Path) -> None:
    event = seed(corpus)
    assert event.memory is not None
    large = tuple(
        msgspec.structs.replace(zone, amounts=dict.fromkeys(zone.amounts, 2**40))
        for zone in event.memory.zones
    )
    event = msgspec.structs.replace(event, memory=msgspec.structs.replace(event.memory, zones=large))
    for width in (60, 80, 120):
        text = render_text(event, width=width)
        table = text.partition("Zones, in kB")[2].partition("\n\n")[0]
        assert table.count(" 1073741824") == (4 if width < 64 else 8), table
        for zone in large:
            assert re.search(rf"{zone.zone}( .*)?:? +(short by|at the mark|fits|no block)", table), table


def test_free_is_what_the_zones_show_as_free(corpus: Path) -> None:
    """What lies on per-CPU lists is not free in a zone: the check against the watermark does not see it."""
    path = sorted(corpus.glob("kernel/6.12*.kmsg.gz"))[0]
    shown = [
        e for c in captures(path) if (e := conclude(c).event).memory and fields.case_of(e).total("free_pcp")
    ]
    assert shown
    for event in shown:
        case = fields.case_of(event)
        free = {share.kind: share.bytes for share in fields.memory_shares(case)}
        zones = [zone.bytes_of("free") for zone in case.zones]
        if case.zones and None not in zones and not case.confined:
            assert free["free"] == case.total("free")
            assert free["pcp"] == case.total("free_pcp")


@pytest.mark.parametrize(
    ("kind", "outcome", "said"),
    [
        ("page_alloc_failure", "order:5", "nobody: a request for memory failed (order:5)"),
        ("oom_no_victim", "no killable process", "nobody (no killable process)"),
        ("oom_no_victim", None, "nobody: the log shows no kill"),
        ("test", None, "nobody: this is a test"),
    ],
)
def test_why_nobody_died(kind: EventKind, outcome: str | None, said: str) -> None:
    assert fields.died(event(kind=kind, outcome=outcome, kills=0, victims=())) == said


def test_every_recorded_report_fits_its_width_and_is_plain(corpus: Path) -> None:
    shown = 0
    for path in (*kernel_recordings(corpus), *logs(corpus)):
        for one in kinds(path):
            for width in (80, 60):
                text = render_text(one, width=width)
                assert max(cell_len(line) for line in text.splitlines()) <= width
                assert all(c == "\n" or c.isprintable() for c in text)
                assert "\x1b" not in text
                shown += 1
    assert shown >= 300


def test_colour_adds_style_and_nothing_else(corpus: Path) -> None:
    plain, coloured = render_text(seed(corpus)), render_text(seed(corpus), color=True)
    assert "\x1b[" in coloured
    bars = str.maketrans("█░", "#.")
    assert [x.rstrip() for x in SGR.sub("", coloured).translate(bars).splitlines()] == plain.splitlines()


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {"TERM": "dumb"}])
def test_the_environment_does_not_decide(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    found = seed(corpus)
    expected = render_text(found), render_text(found, color=True)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    assert (render_text(found), render_text(found, color=True)) == expected


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("color", [False, True])
def test_hostile_names_are_shown_and_do_nothing(name: str, color: bool) -> None:
    text = render_text(event(name), width=200, color=color)
    bare = SGR.sub("", text)
    assert all(c == "\n" or (c.isprintable() and unicodedata.category(c)[0] not in "CM") for c in bare)
    assert harmless(name) in bare
    # a name makes no line of its own and takes no other away
    assert len(bare.splitlines()) == len(
        SGR.sub("", render_text(event("n"), width=200, color=color)).splitlines()
    )
    text.encode("utf-8")


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40), st.integers(0, 120))
def test_any_name_and_width(name: str, width: int) -> None:
    text = render_text(event(name), width=width)
    assert "\x1b" not in text
    assert max(cell_len(line) for line in text.splitlines()) <= max(width, 40)


def test_nothing_known_is_still_a_report() -> None:
    empty = event(
        trigger=Trigger(), memcg=None, victims=(), tasks=(), findings=(), kernel=None, page_size_bytes=None,
        constraint=None, time=EventTime(), summary="nobody killed: out of memory",
    )  # fmt: skip
    assert render_text(empty).splitlines() == [
        "DIED     nobody: the log shows no kill",
        "ASKED    unknown: the report's first line is missing",
        "WHY      out of memory",
        "CHANGE   no advice follows from these figures",
        "event 0123456789abcdef",
    ]


def test_a_cut_report_says_what_it_lacks() -> None:
    cut = msgspec.structs.replace(event(), complete=False, missing=("mem_info", "tasks"), lost_records=3)
    assert "incomplete: mem_info, tasks missing, 3 records lost" in " ".join(render_text(cut).split())
    elided = msgspec.structs.replace(event(), complete=False, missing=("elided", "tasks"))
    said = " ".join(render_text(elided).split())
    assert "incomplete: lines were cut out of the log, tasks missing" in said


# names


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("java", "java"),
        ("Web Content", "Web Content"),
        ("x\ny", "x\\x0ay"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202e\u200b", "\\u202e\\u200b"),
        ("\U000e0041", "\\U000e0041"),
        ("café 日本", "café 日本"),
        ("no\u00a0break", "no\\xa0break"),
    ],
)
def test_harmless(name: str, shown: str) -> None:
    assert harmless(name) == shown


@given(st.text())
def test_harmless_text_is_printable_and_stays_so(text: str) -> None:
    shown = harmless(text)
    assert shown.isprintable()
    assert harmless(shown) == shown


@pytest.mark.parametrize(("name", "shown"), [("", '""'), (" a", '" a"'), ("a ", '"a "'), ("a b", "a b")])
def test_names_that_would_not_be_seen_are_quoted(name: str, shown: str) -> None:
    assert harmless_name(name) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0, "0 kB"),
        (18276 << 10, "17.8 MiB"),
        (9 << 20, "9216 kB"),
        (512 << 20, "512 MiB"),
        (1 << 30, "1 GiB"),
        (8_000_000_000, "7.5 GiB"),
        (1 << 50, "1 PiB"),
    ],
)
def test_sizes(amount: int, shown: str) -> None:
    assert size(amount) == shown


def test_exact_amounts_and_shares() -> None:
    assert kib(18276 << 10) == "18276 kB"
    assert percent(120018, 120238) == "99.8 %"
    assert percent(1, 0) == "0 %"


@pytest.mark.parametrize(("part", "whole"), [(16244, 16384), (1, 3), (9995, 10000), (0, 5)])
def test_a_share_is_the_same_in_text_and_evidence(part: int, whole: int) -> None:
    assert field_value("share_ratio", ratio(part, whole)) == percent(part, whole)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_minutes_before_are_drawn_the_victims_own_first(width: int) -> None:
    mib = 1 << 20
    climb = tuple((second * 1_000_000, second * 10 * mib) for second in range(1, 11))
    flat = tuple((usec, 500 * mib) for usec, _ in climb)
    hostile = "\x1b[31m[bold]x"
    shown = event(
        victims=(Victim(pid=7, comm=hostile),),
        tracks=(
            Track(kind="cgroup", name="/", points=flat),
            Track(kind="process", name="big", pid=1, points=flat),
            Track(kind="process", name=hostile, pid=7, points=climb),
        ),
        marks=(Mark(usec=5, wall=1.0, kind="swap_off", name="/dev/\x1b[0m", before_bytes=mib),),
    )
    text = render_text(shown, width=width)
    assert "\x1b" not in text
    assert all(cell_len(line) <= width for line in text.splitlines())
    before = text.partition("The minutes before")[2]
    rows = [line for line in before.splitlines() if re.match(r"big|\\x1b", line)]
    assert len(rows) == 2 and rows[0].startswith("\\x1b")
    if width >= 80:
        assert re.search(r"\(pid 7\) +10 MiB +100 MiB +[_.]+[-=+*%]+#+$", rows[0])
        assert "swap area out of use (1024 kB)" in before
