"""The HTML report: its structure, its policy, and that no name ever becomes markup."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.event import OomEvent, conclude
from oomwatchd.records.capture import Snapshot
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import Allocation, Finding
from oomwatchd.render import fields
from oomwatchd.render.html import figures, render_html, render_html_page
from oomwatchd.render.html.view import view
from oomwatchd.words.escape import harmless, harmless_name
from tests.recorded import captures, kernel_recordings, logs

_VOID = {"meta", "link", "br", "hr", "input", "rect", "line", "polyline"}
#: the names of a recorded boot: quotes, tags, escapes, a newline, an empty one, blanks, forged lines
_HOSTILE = "kernel/6.12.94+deb13-cloud-amd64-amd64.kmsg.gz"
_SEED = "seed/mips-3.10-highmem.log"


class Element(msgspec.Struct):
    tag: str
    attributes: dict[str, str]
    text: str = ""


class Page(HTMLParser):
    """The elements of a page in order, with the text directly in each; refuses what is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.text = ""
        self._open: list[Element] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1].tag == tag, f"</{tag}> closes nothing"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1].text += data
            if self._open[-1].tag not in ("style", "script"):
                self.text += data

    def all(self, tag: str) -> list[Element]:
        return [e for e in self.elements if e.tag == tag]

    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(e.tag, tuple(e.attributes)) for e in self.elements]


def offences(page: Page) -> Iterator[str]:  # noqa: C901 - one branch for each rule
    """What a self-contained, accessible page must not have."""
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    yield from (f"id {i} twice" for i in set(ids) if ids.count(i) > 1)
    level = 0
    for e in page.elements:
        for name, value in e.attributes.items():
            if name.startswith("on") or name in ("style", "src", "srcset", "action", "ping"):
                yield f"<{e.tag} {name}>"
            if name in ("href", "xlink:href") and not value.startswith(("#", "data:,")):
                yield f"link to {value}"
            if name == "href" and value.startswith("#") and value[1:] not in ids:
                yield f"link to nothing: {value}"
            if name == "aria-labelledby" and value not in ids:
                yield f"label {value} is not there"
        if e.tag == "th" and e.attributes.get("scope") not in ("col", "row"):
            yield "a head without scope"
        if e.tag == "svg" and "aria-hidden" not in e.attributes:
            # the drawing inside a chart is part of it
            if e.attributes.get("role") == "img" and not e.attributes.get("aria-label"):
                yield "a chart without words"
            elif "role" not in e.attributes and "viewbox" not in e.attributes:
                yield "a drawing that is neither silent nor named"
        if re.fullmatch(r"h[1-6]", e.tag):
            if int(e.tag[1]) > level + 1:
                yield f"<{e.tag}> after h{level}"
            level = int(e.tag[1])
    for tag in ("h1", "main", "title", "style", "script"):
        if len(page.all(tag)) != 1:
            yield f"{len(page.all(tag))} <{tag}>"


def event_of(file: Path, number: int = 0) -> OomEvent:
    return conclude(captures(file)[number]).event


@cache
def events(file: Path) -> tuple[OomEvent, ...]:
    return tuple(conclude(capture).event for capture in captures(file))


@pytest.mark.slow
def test_every_report_of_the_corpus_is_a_sound_page(corpus: Path) -> None:
    files = [*kernel_recordings(corpus), *logs(corpus)]
    kinds = set()
    for file in files:
        for capture in captures(file):
            event = conclude(capture).event
            kinds.add((event.kind, event.constraint))
            assert list(offences(Page(render_html(event, capture.records)))) == [], file.name
    assert {k for k, _ in kinds} >= {"oom_kill", "oom_no_victim", "oom_panic", "page_alloc_failure"}
    assert {c for _, c in kinds} >= {"none", "memcg", "cpuset", "memory_policy", None}


def test_an_offence_is_found() -> None:
    bad = (
        '<main><title></title><style></style><script></script><h1 id="a">x</h1><h3 id="a"></h3>'
        '<a href="https://example.org/">x</a><a href="#b"></a><th></th><p style="x" onclick="y"></p>'
        '<svg></svg><svg role="img"></svg><p aria-labelledby="c"></p></main>'
    )
    assert len(list(offences(Page(bad)))) == 10


# the policy


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(corpus: Path) -> None:
    page = Page(render_html(event_of(corpus / _SEED)))
    meta = next(e for e in page.all("meta") if e.attributes.get("http-equiv"))
    assert meta.attributes["http-equiv"] == "Content-Security-Policy"
    policy = dict(d.strip().split(" ", 1) for d in meta.attributes["content"].split(";"))
    assert policy.pop("default-src") == policy.pop("base-uri") == policy.pop("form-action") == "'none'"
    assert policy.pop("img-src") == "data:"
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        digest = hashlib.sha256(page.all(tag)[0].text.encode()).digest()
        assert policy.pop(name) == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert policy == {}
    # the policy holds for what comes after it
    order = [e.tag for e in page.elements]
    assert page.elements.index(meta) < min(order.index("style"), order.index("script"), order.index("link"))


def test_the_same_event_gives_the_same_page(corpus: Path) -> None:
    capture = captures(corpus / _SEED)[0]
    assert render_html(conclude(capture).event, capture.records) == render_html(
        conclude(capture).event, capture.records
    )


def test_nothing_is_imported_before_the_first_page() -> None:
    code = "import sys, oomwatchd.render.html; print({'jinja2', 'markupsafe'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# the reader's order


def test_who_why_and_what_to_change_come_first(corpus: Path) -> None:
    event = event_of(corpus / _SEED)
    text = Page(render_html(event)).text
    order = [
        event.summary,
        "Died",
        "min_free_kbytes (pid 118, 469 MiB resident, score 922)",
        "Asked",
        "Why",
        "Normal zone 32 kB short",
        "Change",
        "Bound min_free_kbytes",
        "What the figures say",
        "short by 32 kB",
        "Memory",
        "Zones against their watermarks",
        "Free blocks by order",
        "Largest tasks",
        "Further findings",
        "Task table",
        "Details",
    ]
    # the summary also stands in the title
    at = text.index(event.summary) + len(event.summary)
    for words in order:
        at = text.index(words, at) + len(words)


def test_every_finding_is_on_the_page_once(corpus: Path) -> None:
    event = event_of(corpus / _SEED)
    shown = view(event)
    assert sorted(f.title for f in (*shown.top, *shown.more)) == sorted(f.title for f in event.findings)
    # the cause first, then the two zones that fell short
    ids = [f.id for f in shown.top]
    assert ids == ["single_process_dominates", "zone_below_watermark", "zone_below_watermark"]


def test_the_raw_report_stands_at_the_end_line_by_line(corpus: Path) -> None:
    record = KmsgRecord(text="Mem-Info:\nactive_anon:1 \x1b[31m", usec=1_500_000)
    page = Page(render_html(event_of(corpus / _SEED), [record]))
    assert page.all("pre")[-1].text == "[    1.500000] Mem-Info:\n[    1.500000] active_anon:1 \\x1b[31m\n"
    assert 'class="raw"' in render_html(event_of(corpus / _SEED), [record])
    assert 'class="raw"' not in render_html(event_of(corpus / _SEED))


# hostile names


def test_recorded_hostile_names_are_shown_and_never_markup(corpus: Path) -> None:
    seen = set()
    for capture in captures(corpus / _HOSTILE):
        event = conclude(capture).event
        page = Page(render_html(event, capture.records))
        for victim in event.victims:
            seen.add(victim.comm)
            assert harmless_name(victim.comm) in page.text
        assert harmless(page.text.replace("\n", "")) == page.text.replace("\n", "")
    assert {"<script>x", "x\ny", "\x1b[31mred", "", " lead trail ", "\"q\\b'"} <= seen


_TEXT = st.text(
    st.one_of(
        st.sampled_from("<>&\"'`={}%#/\\ -!\n\r\x00\x1b\u202e\u200b\u2028\ufeff"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)
_MARKUP = st.sampled_from(
    [
        "</pre></details><script>alert(1)</script>",
        '" onload="alert(1)',
        "' autofocus onfocus=alert(1) '",
        "</style></title><img src=x onerror=alert(1)>",
        "{{ 7 * 7 }}{% raw %}",
        "<!-- -->]]><svg/onload=alert(1)>",
        "javascript:alert(1)",
    ]
)


@cache
def whole_event(file: Path) -> OomEvent:
    """A report with every part that a page can show."""
    event = event_of(file)
    parts = {
        "meminfo": "MemTotal: 1000 kB\nMemAvailable: 10 kB\nSwapTotal: 10 kB\nSwapFree: 5 kB\n",
        "pressure_memory": "some avg10=12.50 avg60=1.00 avg300=0.10 total=5\n",
    }
    moments = [msgspec.to_builtins(Snapshot(usec=n * 1_000_000, wall=n, parts=parts)) for n in range(4)]
    return msgspec.structs.replace(
        event,
        allocations=(Allocation(bytes=4096, calls=1, location="a.c:1", module="m", function="f"),),
        undecoded=("odd",),
        snapshots={"before": moments[:3], "at": moments[3]},
        findings=(
            *event.findings,
            Finding(id="x", severity="info", title="t", explanation="e", evidence={"comm": "c"}, advice="a"),
        ),
    )


def spoiled(event: OomEvent, text: str) -> OomEvent:
    """The event with ``text`` wherever a name or a word of the kernel's may stand."""
    replace = msgspec.structs.replace
    assert event.memcg is not None and event.snapshots is not None
    at = Snapshot(usec=9_000_000, wall=9.0, parts={"meminfo": f"{text}\nMemTotal: 5 kB"})
    return replace(
        event,
        summary=text,
        kernel=text,
        outcome=text,
        trigger=replace(event.trigger, comm=text, cpuset=text, mems_allowed=text, call_trace=(text,)),
        memcg=replace(event.memcg, oom_path=text, task_path=text, group_path=text, stat={"a" + text: 1}),
        tasks=tuple(replace(t, comm=text) for t in event.tasks),
        victims=tuple(replace(v, comm=text) for v in event.victims),
        attribution=tuple(replace(a, cgroup=text + "/", unit="u" + text) for a in event.attribution),
        slab=tuple(replace(s, name=text) for s in event.slab),
        allocations=tuple(replace(a, function=text, location=text, module=text) for a in event.allocations),
        undecoded=(text,),
        findings=tuple(
            replace(f, title=text, explanation=text, advice="a" + text, evidence={"comm": text})
            for f in event.findings
        ),
        snapshots={**event.snapshots, "at": msgspec.to_builtins(at)},
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(_TEXT, _MARKUP))
def test_no_text_changes_the_structure_of_a_page(corpus: Path, text: str) -> None:
    event = whole_event(corpus / "field" / "oomgroup-41-kills-duplicated-611rc6.log")
    small = msgspec.structs.replace(event, tasks=event.tasks[:5], victims=event.victims[:3])

    def page(word: str) -> Page:
        # a record's newlines make lines of their own: here it holds none
        return Page(render_html(spoiled(small, word), [KmsgRecord(text="".join(word.split("\n")))]))

    found = page(text)
    assert found.shape() == page("word").shape()
    assert not [c for c in found.text if c != "\n" and harmless(c) != c]


# charts


def test_a_zone_shows_what_was_needed_against_what_was_free(corpus: Path) -> None:
    bars = {b.label: b for b in view(event_of(corpus / _SEED)).zones}
    normal = bars["Normal: 32 kB short"]
    assert normal.value == "free 18244 kB" and normal.tone == "bad"
    assert normal.note == "needs more than 18276 kB, min 10084 kB, low 12604 kB, high 15124 kB"
    at = {m.kind: m.at for m in normal.marks}
    # the free memory ends above the high mark and just below what was needed
    assert at["min"] < at["low"] < at["high"] < normal.segments[0].width < at["needed"]


def test_blocks_that_the_request_could_not_use_are_told_apart(corpus: Path) -> None:
    event = event_of(corpus / "field" / "numeric-comm-531-order1-610rc1.log")
    assert event.trigger.order == 1
    for chart in view(event).blocks:
        kinds = {c.label: c.kind for c in chart.columns}
        assert kinds["0"] == "unusable"
        assert "usable" in kinds.values()
        assert max(c.height for c in chart.columns) == 100
        assert "below order 1" in chart.note


def test_memory_parts_do_not_overlap(corpus: Path) -> None:
    case = fields.case_of(event_of(corpus / _SEED))
    shares = fields.memory_shares(case)
    assert [s.kind for s in shares][-3:] == ["reserved", "unnamed", "free"]
    assert sum(s.bytes for s in shares) == case.ram_bytes
    strip = view(event_of(corpus / _SEED)).memory_strip
    assert strip is not None
    ends = [s.start + s.width for s in strip.segments]
    assert all(a == pytest.approx(b.start, abs=0.02) for a, b in zip(ends, strip.segments[1:], strict=False))
    assert ends[-1] == pytest.approx(100, abs=0.02)


def test_a_cgroup_shows_usage_against_its_limit(corpus: Path) -> None:
    shown = view(event_of(corpus / "field" / "oomgroup-41-kills-duplicated-611rc6.log"))
    memory, swap = shown.cgroup
    assert (memory.label, memory.value, memory.tone) == ("memory", "470 MiB of 470 MiB", "bad")
    assert memory.segments[0].width == memory.marks[0].at
    # without a limit there is nothing to draw against
    assert swap.value.endswith("no limit") and not (swap.segments or swap.marks)
    assert [b.label for b in shown.cgroup_split] == ["anonymous", "file cache, including shared", "kernel"]


#: a nested cgroup on v1, 3.9 to 5.2: each cgroup of the subtree has a line, without its children
_NESTED = """\
[  100.000000] dd invoked oom-killer: gfp_mask=0x14000c0(GFP_KERNEL), nodemask=(null),  order=0, \
oom_score_adj=0
[  100.000006] Task in /a/b killed as a result of limit of /a
[  100.000007] memory: usage 102400kB, limit 102400kB, failcnt 117
[  100.000008] memory+swap: usage 102400kB, limit 9007199254740988kB, failcnt 0
[  100.000009] kmem: usage 0kB, limit 9007199254740988kB, failcnt 0
[  100.000010] Memory cgroup stats for /a: cache:0KB rss:0KB rss_huge:0KB shmem:0KB mapped_file:0KB \
dirty:0KB writeback:0KB swap:0KB \
inactive_anon:0KB active_anon:0KB inactive_file:0KB active_file:0KB unevictable:0KB
[  100.000011] Memory cgroup stats for /a/b: cache:4KB rss:102396KB rss_huge:0KB shmem:0KB mapped_file:0KB \
dirty:0KB writeback:0KB swap:0KB \
inactive_anon:0KB active_anon:102396KB inactive_file:0KB active_file:4KB unevictable:0KB
[  100.000012] [ pid ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
[  100.000013] [  114]     0   114    30000    25700   253952        0             0 dd
[  100.000014] Memory cgroup out of memory: Kill process 114 (dd) score 1000 or sacrifice child
[  100.000015] Killed process 114 (dd) total-vm:120000kB, anon-rss:102396kB, file-rss:404kB, shmem-rss:0kB
"""


def test_the_page_and_the_findings_agree_on_what_nested_cgroups_hold(tmp_path: Path) -> None:
    log = tmp_path / "nested.log"
    log.write_text(_NESTED)
    event = event_of(log)
    assert event.memcg is not None and len(event.memcg.descendants) == 1
    shown = [(bar.label, bar.value) for bar in view(event).cgroup_split]
    assert shown == [("anonymous", "100.0 MiB, 100.0 %"), ("file cache, including shared", "4 kB, 0.0 %")]
    held = kinds(event.memcg)
    assert (held.anon, held.file) == (102396 * 1024, 4 * 1024)
    said = next(f for f in event.findings if f.id == "memcg_limit_reached").evidence
    assert said["anon_bytes"] == held.anon


def test_a_killed_task_is_in_the_chart_even_if_small(corpus: Path) -> None:
    event = event_of(corpus / "field" / "kmsg-raw-caller-wrapped-android-qcom-510.log")
    bars = view(event).tasks
    assert len(bars) == 13
    assert bars[-1].label == "agent:amservice (10192), killed" and bars[-1].tone == "bad"
    assert [s.kind for s in bars[0].segments] == ["rss", "swap"]
    assert bars[0].segments[-1].start + bars[0].segments[-1].width == 100


def test_the_minutes_before_are_drawn_where_they_were_recorded(corpus: Path) -> None:
    assert view(event_of(corpus / _SEED)).before == ()

    def snapshot(second: int, available: int) -> object:
        text = f"MemTotal: 1000 kB\nMemAvailable: {available} kB\nAnonPages: {1000 - available} kB\n"
        parts = {"meminfo": text, "pressure_memory": f"some avg10={second}.00 avg60=0.00\nfull avg10=1\n"}
        return msgspec.to_builtins(Snapshot(usec=second * 1_000_000, wall=second, parts=parts))

    before = [snapshot(0, 1000), snapshot(30, 500)]
    event = msgspec.structs.replace(
        event_of(corpus / _SEED), snapshots={"before": before, "at": snapshot(60, 0)}
    )
    memory, pressure = view(event).before
    assert {line.title: line.points for line in memory.lines} == {
        "anonymous": "0,100 50,50 100,0",
        "available": "0,0 50,50 100,100",
    }
    assert (memory.start, memory.top) == ("60 s before", "1000 kB")
    assert pressure.lines[0].points == "0,100 50,50 100,0"
    assert "waiting from 0.0 % to 60.0 %" in pressure.text


@pytest.mark.parametrize("text", ["", "some", "some avg10", "some avg10=x total=1", "full avg10=1.0"])
def test_pressure_that_cannot_be_read_is_left_out(corpus: Path, text: str) -> None:
    moments = [
        msgspec.to_builtins(Snapshot(usec=n, wall=n, parts={"pressure_memory": text})) for n in range(3)
    ]
    event = msgspec.structs.replace(event_of(corpus / _SEED), snapshots={"before": moments})
    assert view(event).before == ()


def test_segments_stay_in_their_box() -> None:
    drawn = figures.segments([("a", 30), ("b", None), ("c", 0), ("d", 90)], 100)
    assert [(s.kind, s.start, s.width) for s in drawn] == [("a", 0, 30), ("d", 30, 70)]
    assert figures.share(5, 0) == 0


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1000, "1k"), (123_456, "123k"), (9_999_999, "9M")]
)
def test_counts_fit_above_a_column(count: int, text: str) -> None:
    assert figures.compact(count) == text


# fields


def test_why_is_not_misled_by_a_colon_in_a_name(corpus: Path) -> None:
    event = next(e for e in events(corpus / _HOSTILE) if e.victims and e.victims[0].comm == "a) b: c")
    assert event.summary.startswith("a) b: c (pid ")
    assert fields.why(event) == "cgroup /h0 at its limit of 8192 kB; a) b: c held 99 % of it"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("free_bytes", 18244 * 1024, "18244 kB (17.8 MiB)"),
        ("shortfall_bytes", 32 * 1024, "32 kB"),
        ("share_ratio", 0.998, "99.8 %"),
        ("seconds", 12.5, "12.5 s"),
        ("growth_per_minute_bytes", 20 << 20, "20 MiB a minute"),
        ("comm", "a\nb", "a\\x0ab"),
        ("pid", 5, "5"),
    ],
)
def test_evidence_carries_its_unit(name: str, value: int | float | str, text: str) -> None:
    assert fields.field_value(name, value) == text


# several events


def test_a_page_of_several_events_has_a_table_of_contents(corpus: Path) -> None:
    several = events(corpus / "field" / "desktop-gentoo-three-ooms-long-tasks-52.log")
    assert len(several) == 3
    page = Page(render_html_page(several))
    assert list(offences(page)) == []
    links = page.all("a")
    assert [a.text for a in links] == [e.summary for e in several]
    assert [a.attributes["href"] for a in links] == ["#e1-event", "#e2-event", "#e3-event"]
    assert len(page.all("article")) == 3


def test_a_page_of_no_event_says_so() -> None:
    page = Page(render_html_page([]))
    assert list(offences(page)) == []
    assert page.all("h1")[0].text == "0 OOM reports"
