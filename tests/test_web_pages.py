"""The pages and the API over a real store: what they show, what they refuse, what hostile names do."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.daemon.host_memory import HostMemory
from oomwatchd.delivery.policy import Delivery
from oomwatchd.diagnosis.attribution import Attribution
from oomwatchd.diagnosis.headroom import CgroupHeadroom, Headroom, ZoneHeadroom, headroom
from oomwatchd.event import conclude
from oomwatchd.event.groups import grouped
from oomwatchd.metrics import MAX_UNITS, Metrics
from oomwatchd.metrics.families import registry
from oomwatchd.observe.host import read_host
from oomwatchd.records.capture import Snapshot
from oomwatchd.store import EventRow, Limits, Store
from oomwatchd.web import App, Health, Later, Request, Response
from oomwatchd.web.pages import Pages
from oomwatchd.web.shown import State
from tests.samples import BOOT, capture, event

HOSTILE = "</title><script>alert(1)</script>\x1b[31m\u202e'\" \x00"
ZONE = ZoneHeadroom(
    node=0,
    zone="Normal",
    managed_bytes=1 << 30,
    free_bytes=100 << 20,
    min_bytes=40 << 20,
    reserve_bytes=10 << 20,
    blocks=(10, 5, 0, 1),
)


@pytest.fixture
def store() -> Iterator[Store]:
    opened = Store.open(None, limits=Limits(max_events=None))
    yield opened
    opened.close()


def state(**fields: Any) -> State:
    values: dict[str, Any] = {
        "started": 1_790_000_000.0,
        "trouble": None,
        "kernel_kills": 3.0,
        "kills": 2.0,
        "unaccounted": 0.0,
        "stored": 1,
        "store_failure": None,
        "without": (),
        "headroom": Headroom(),
    }
    return State(**(values | fields))


def answer(store: Store, target: str, shown: State | None = None) -> Response:
    path, _, query = target.partition("?")
    pages = Pages(lambda: shown or state(), lambda: store)
    app = App(registry(Metrics()), Health(), pages)
    made = app(Request("GET", path, query))
    while isinstance(made, Later):
        made = made.make()
    return made


def text(store: Store, target: str, shown: State | None = None) -> str:
    made = answer(store, target, shown)
    assert made.status is HTTPStatus.OK, made.body
    return made.body.decode()


def json(store: Store, target: str) -> Any:
    made = answer(store, target)
    assert made.status is HTTPStatus.OK, made.body
    return msgspec.json.decode(made.body)


def put(store: Store, seq: int, **fields: Any) -> str:
    one = event(seq, **fields)
    store.put(capture(seq), one)
    return one.id


class Tags(HTMLParser):
    """The elements of a page and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_how_far_each_sink_has_come(store: Store) -> None:
    hook = Delivery(
        sink="webhook", position=7, delivered=5, dropped=2, waiting=3, failed_since=1.0, last_error="<x>"
    )
    page = text(store, "/", state(deliveries=(Delivery(sink="otlp", position=9, delivered=9), hook)))
    assert "<div><dt>Sent to otlp</dt><dd>9</dd></div>" in page
    assert "<dt>Sent to webhook</dt><dd>5; 3 waiting; 2 given up; &lt;x&gt;</dd>" in page


def test_the_state_at_a_glance(store: Store) -> None:
    put(store, 100)
    page = text(
        store,
        "/",
        state(
            unaccounted=1.0,
            without=("/proc/pressure/memory",),
            headroom=Headroom(
                total_bytes=4 << 30,
                available_bytes=1 << 30,
                pressure={("some", w): 0.5 for w in (10, 60, 300)},
                zones=(ZONE,),
                cgroups=(CgroupHeadroom(path="/x", limit_bytes=64 << 20, usage_bytes=16 << 20),),
            ),
        ),
    )
    for words in (
        "<h1>Watching</h1>",
        "2026-09-21 14:13:20 UTC",
        "2 seen in the kernel log since the watch began; 3 by the kernel's own count since boot</dd>",
        "1: kills whose messages were lost",
        "1 GiB of 4 GiB (25.0 %)",
        "some: 50.0 % over 10 s",
        "node 0 Normal",
        "50 MiB",
        "48 MiB",
        "stress",
        "/proc/pressure/memory",
    ):
        assert words in page, words


def test_kills_from_before_the_watch_are_not_missed_ones(store: Store) -> None:
    page = text(store, "/", state(kernel_kills=24048.0, unaccounted=0.0))
    assert "24048 by the kernel's own count since boot, none unaccounted for</dd>" in page


def test_what_is_wrong_stands_first(store: Store) -> None:
    page = text(store, "/", state(trouble="the kernel log is gone", store_failure="disk full"))
    assert "<h1>Not well: the kernel log is gone</h1>" in page
    assert "in memory only: disk full" in page


def test_the_list_filters_and_pages_through(store: Store) -> None:
    for n in range(120):
        unit = f"u{n % 3}.service"
        whose = (Attribution(pid=4242, role="victim", cgroup="/x", unit=unit),)
        put(store, 100 + n * 10, comm=f"p{n % 2}", attribution=whose)
    seen: list[str] = []
    target: str | None = "/events?comm=p1&each=1"
    pages = 0
    while target:
        page = text(store, target)
        links = [a["href"] or "" for tag, a in Tags(page).found if tag == "a"]
        seen += [link for link in links if link.startswith("/events/")]
        target = next((link for link in links if "after=" in link and "each=1" in link), None)
        pages += 1
        assert pages < 10
    assert len(seen) == len(set(seen)) == 60
    assert pages == 2
    assert "No stored event matches." in text(store, "/events?unit=nothing")
    assert len(json(store, "/api/v1/events?unit=u1.service&limit=1000")["events"]) == 40
    assert json(store, "/api/v1/events?since=2030-01-01")["events"] == []
    assert len(json(store, "/api/v1/events?before=2030-01-01T00:00Z&limit=7")["events"]) == 7


def crash_loop(store: Store, times: int, name: str | None = "shop/web-otlp/app") -> None:
    """A container that is started again and dies, each time under another id and with other figures."""
    for n in range(times):
        identifier = f"{n:064x}"
        pod = "0b8c4a7e-1111-4222-8333-944455566677"
        path = f"/kubepods.slice/kubepods-pod{pod.replace('-', '_')}.slice/cri-containerd-{identifier}.scope"
        whose = Attribution(
            pid=4242, role="victim", cgroup=path, container_id=identifier, pod_uid=pod,
            container_name=name,
        )  # fmt: skip
        one = event(
            1000 + 10 * n,
            attribution=(whose,),
            memcg=None,
            summary=f"app (pid {4242 + n}) killed: container {identifier[:12]} at its limit, {n} %",
        )
        kept = capture(1000 + 10 * n)
        store.put(msgspec.structs.replace(kept, wall_offset=1.79e9 + n * 300.0), one)


def test_a_crash_loop_is_one_row(store: Store) -> None:
    crash_loop(store, 300)
    put(store, 90_000)
    page = text(store, "/events")
    assert page.count('<th scope="row">') == 2
    assert ">300 times</a>, first <time" in page
    assert '<td class="kills"><span class="alone">kills: </span>300</td>' in page
    assert "shop/web-otlp/app" in page
    each = next(
        a["href"] or "" for tag, a in Tags(page).found if tag == "a" and "each=1" in (a.get("href") or "")
    )
    seen = set()
    target: str | None = each
    while target:
        links = [a["href"] or "" for tag, a in Tags(text(store, target)).found if tag == "a"]
        seen |= {link for link in links if link.startswith("/events/")}
        target = next((link for link in links if "after=" in link), None)
    assert len(seen) == 300, "each kill is stored and listed"
    assert len(json(store, "/api/v1/events?limit=1000")["events"]) == 301
    assert text(store, "/").count('<th scope="row">') == 2


def test_a_crash_loop_in_a_pod_without_names_is_one_row(store: Store) -> None:
    crash_loop(store, 5, name=None)
    page = text(store, "/events")
    assert page.count('<th scope="row">') == 1
    links = [a["href"] or "" for tag, a in Tags(page).found if tag == "a"]
    each = next(link for link in links if "each=1" in link)
    assert text(store, each).count('<th scope="row">') == 5


@pytest.mark.parametrize(
    ("differs", "rows"),
    [
        ({}, 1),
        ({"victim_comm": "b"}, 2),
        ({"kind": "oom_no_victim"}, 2),
        ({"container": "b"}, 2),
        ({"wall": 1e9}, 2),
    ],
)
def test_what_makes_another_group(differs: dict[str, Any], rows: int) -> None:
    def row(**fields: Any) -> EventRow:
        values: dict[str, Any] = {
            "number": 1, "id": "a", "boot_id": None, "first_seq": None, "last_seq": None, "revision": 0,
            "settled": True, "historical": False, "wall": 2e9, "kind": "oom_kill", "constraint": "memcg",
            "kills": 1, "victim_pid": 1, "victim_comm": "app", "cgroup": "/x", "unit": None,
            "summary": "app (pid 1) killed: at its limit", "container": "a",
        }  # fmt: skip
        return EventRow(**(values | fields))

    groups, more = grouped([row(), row(**differs)], 50)
    assert (len(groups), more) == (rows, False)
    assert sum(group.kills for group in groups) == 2


def test_groups_are_paged_without_losing_an_event(store: Store) -> None:
    """Two loops at once and many single events: no event is on two pages, none on none."""
    for n in range(130):
        put(store, 1000 + 20 * n, comm=("a", "b", f"p{n}")[n % 3])
    counted, target, pages = 0, "/events", 0
    while target:
        page = text(store, target)
        counted += sum(int(n) for n in re.findall(r"kills: </span>(\d+)</td>", page))
        links = [a["href"] or "" for tag, a in Tags(page).found if tag == "a"]
        target = next((link for link in links if "after=" in link and "each" not in link), "")
        pages += 1
    assert counted == 130 and pages == 1


def test_filters_take_the_words_of_the_command(store: Store) -> None:
    crash_loop(store, 2)
    now = 1.79e9 + 700
    shown = Pages(state, lambda: store, clock=lambda: now)

    def listed(query: str) -> int:
        made = shown(Request("GET", "/api/v1/events", query))
        assert isinstance(made, Later)
        answered = made.make()
        assert isinstance(answered, Response) and answered.status is HTTPStatus.OK, query
        return len(msgspec.json.decode(answered.body)["events"])

    assert listed("since=1h") == 2 and listed("since=10m") == 1 and listed("since=1m") == 0
    assert listed("since=yesterday") == 2 and listed("since=today") == 2
    assert listed("before=yesterday") == 0
    assert listed("container=ap&pod=web&namespace=shop") == 2 and listed("pod=b") == 0


def test_a_report_has_its_neighbours_and_its_text_for_a_ticket(store: Store) -> None:
    for seq in (100, 200, 300):
        kept = capture(seq)
        store.put(kept, conclude(kept).event)
    first, second, third = (conclude(capture(seq)).event.id for seq in (100, 200, 300))
    page = text(store, f"/events/{second}")
    links = {a.get("rel"): a["href"] for tag, a in Tags(page).found if tag == "a"}
    assert (links["prev"], links["next"]) == (f"/events/{third}", f"/events/{first}")
    assert 'rel="next"' not in text(store, f"/events/{first}")
    assert f'href="/api/v1/events/{second}"' in page and socket.gethostname() in page
    made = answer(store, f"/events/{second}.md")
    assert made.content_type == "text/plain; charset=utf-8"
    assert made.body.decode().startswith("### OOM")
    assert f"| **Host** | {socket.gethostname()} |" in made.body.decode().splitlines()
    assert answer(store, "/events/nothing.md").status is HTTPStatus.NOT_FOUND


def test_events_of_one_moment_are_paged_through_to_the_last(store: Store) -> None:
    for n in range(7):
        one = event(100 + n * 10)
        store.put(msgspec.structs.replace(capture(100 + n * 10), wall_offset=1e9 - (100 + n * 10) / 1e3), one)
    seen, target = [], "/api/v1/events?limit=3"
    while target:
        document = json(store, target)
        seen += [one["id"] for one in document["events"]]
        target = document["next"]
    assert len(seen) == len(set(seen)) == 7


def test_one_event_as_page_and_as_json(store: Store) -> None:
    kept = capture(100)
    one = conclude(kept).event
    store.put(kept, one)
    made = answer(store, f"/events/{one.id}")
    assert made.content_type == "text/html; charset=utf-8"
    page = made.body.decode()
    assert '<a href="/events">All events</a>' in page
    policy = made.headers["Content-Security-Policy"]
    inner = next(a["content"] for tag, a in Tags(page).found if a.get("http-equiv"))
    assert policy == f"{inner}; frame-ancestors 'none'"
    found = answer(store, f"/events/{one.id[:-1]}")
    assert (found.status, found.headers["Location"]) == (HTTPStatus.FOUND, f"/events/{one.id}")
    document = json(store, f"/api/v1/events/{one.id}")
    assert document["id"] == one.id
    jsonschema.validate(document, json(store, "/api/v1/event.schema.json"))


def test_what_is_not_there_is_not_found(store: Store) -> None:
    put(store, 100)
    put(store, 110)
    ambiguous = BOOT[:12]
    for path in ("/events/", "/events/none", f"/events/{ambiguous}", "/api/v1/events/none", "/events/a/b"):
        assert answer(store, path).status is HTTPStatus.NOT_FOUND, path
    for path in ("/events/%00", "/events/%ff", "/events/" + "a" * 9000, "/assets/../pages.css", "/assets/"):
        assert answer(store, path).status is HTTPStatus.NOT_FOUND, path


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("nonsense=1", "unknown field 'nonsense'; known here: after, before"),
        ("since=tomorrow", "since: no time: give 90m, 2h, 3d (ago), today, yesterday"),
        ("since=nan", "since: no time"),
        ("before=inf", "before: no time"),
        ("limit=0", "limit: not a number from 1 to 1000"),
        ("limit=-1", "limit: not a number"),
        ("limit=99999999999999999999", "limit: not a number"),
        ("limit=\u0663", "limit: not a number"),
        ("limit=0000010001", "limit: not a number"),
        ("limit=00000100099999999999999999", "limit: not a number"),
        ("after=x", "after: take it from the link"),
        ("after=1:99999999999999999999", "after: take it"),
        ("unit=" + "a" * 5000, "unit: too long"),
        ("&".join(f"x{n}=1" for n in range(30)), "too many fields"),
        ("%1b[31m=1", "unknown field '\\\\x1b[31m'"),
    ],
)
def test_a_wrong_query_is_one_clear_line(store: Store, query: str, words: str) -> None:
    made = answer(store, f"/api/v1/events?{query}")
    assert made.status is HTTPStatus.BAD_REQUEST
    assert made.body.decode().startswith(words)
    assert made.body.count(b"\n") == 1


def test_the_page_shows_what_is_wrong_above_the_form_as_it_was_filled(store: Store) -> None:
    made = answer(store, "/events?unit=web&since=%3Cb%3E")
    assert made.status is HTTPStatus.BAD_REQUEST
    page = made.body.decode()
    assert page.index('role="alert">since: no time: give 90m') < page.index("<form")
    assert 'name="unit" value="web"' in page and "No stored event" not in page
    assert "<b>" not in page and 'value="&lt;b&gt;"' in page
    assert "unknown field" in answer(store, "/events?nonsense=1").body.decode()


def test_the_form_asks_for_a_host_where_others_are_followed(store: Store) -> None:
    assert 'name="host"' not in text(store, "/events")
    assert 'name="host" value="cellar"' in text(store, "/events?host=cellar")


@given(st.text(max_size=200))
def test_no_query_is_a_fault_of_ours(query: str) -> None:
    opened = Store.open(None)
    put(opened, 100)
    for path in ("/events", "/api/v1/events"):
        assert answer(opened, f"{path}?{query}").status in (HTTPStatus.OK, HTTPStatus.BAD_REQUEST)
    opened.close()


def test_hostile_names_are_shown_and_harmless(store: Store) -> None:
    whose = (Attribution(pid=4242, role="victim", cgroup=HOSTILE, unit=HOSTILE),)
    put(store, 100, comm=HOSTILE, attribution=whose)
    shown = state(
        without=(HOSTILE,),
        headroom=Headroom(cgroups=(CgroupHeadroom(path=HOSTILE, limit_bytes=1, usage_bytes=1),)),
    )
    from urllib.parse import quote

    for target in ("/", "/events", f"/events?comm={quote(HOSTILE)}&cgroup={quote(HOSTILE)}"):
        page = text(store, target, shown)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", page), target
        scripts = [a for tag, a in Tags(page).found if tag == "script"]
        assert scripts == [{"src": "/assets/pages.js", "defer": None}], target
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert not any(name.startswith("on") or name == "style" for _, a in Tags(page).found for name in a)


def test_pages_load_from_here_alone(store: Store) -> None:
    for target in ("/", "/events"):
        made = answer(store, target)
        assert made.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'; ")
        for _, attributes in Tags(made.body.decode()).found:
            for name in ("src", "href", "action"):
                assert (attributes.get(name) or "/").startswith(("/", "#", "data:,"))
    for asset in ("/assets/pages.css", "/assets/pages.js"):
        body = text(store, asset)
        assert "http" not in body.replace("http-equiv", "")


@pytest.mark.slow
def test_a_scrape_with_1000_units_and_10000_events_takes_less_than_50_ms(tmp_path: Path) -> None:
    """Measured at the application: no request waits for another (see test_web_access)."""
    opened = Store.open(tmp_path)
    opened.failover.file.connection.execute("PRAGMA synchronous = OFF")
    metrics = Metrics(sinks=("journal", "jsonl"))
    for n in range(10_000):
        unit = f"unit{n % 1000}.service"
        whose = (Attribution(pid=4242, role="victim", cgroup="/x", unit=unit),)
        opened.put(capture(100 + n * 10), event(100 + n * 10, attribution=whose), metrics.count)
    metrics.kernel_kills(10_000)
    metrics.observe(HostMemory(read_host()))
    app = App(registry(metrics), Health(), Pages(state, lambda: opened))
    took = []
    for accept in ("text/plain", "application/openmetrics-text;version=1.0.0") * 5:
        began = time.perf_counter()
        made = app(Request("GET", "/metrics", headers={"accept": accept}))
        took.append(time.perf_counter() - began)
        assert isinstance(made, Response)
        assert made.body.count(b"oomwatchd_unit_oom_kills_total{") == MAX_UNITS + 2
    assert sorted(took)[len(took) // 2] < 0.05
    for target in ("/events", "/events?unit=unit7.service", "/events?comm=none", "/"):
        began = time.perf_counter()
        text(opened, target)
        assert time.perf_counter() - began < 1, target
    opened.close()


# -- headroom ---------------------------------------------------------------------------------------

ZONEINFO = """Node 0, zone      DMA
  per-node stats
      nr_free_pages 7
  pages free     3840
        boost    0
        min      24
        low      30
        high     36
        spanned  4095
        present  3998
        managed  3840
        cma      0
        protection: (0, 3019, 10443, 10443, 10443)
      nr_free_pages 3840
  pagesets
    cpu: 0
              count: 0
              high:  0
Node 0, zone   Normal
  pages free     1000
        min      400
        managed  190000
        protection: (0, 0, 0, 0, 0)
Node 0, zone  Movable
  pages free     0
        min      0
        managed  0
        protection: (0, 0, 0, 0, 0)
"""
BUDDYINFO = "Node 0, zone      DMA      0      0      1 \nNode 0, zone   Normal      8      4      1 \n"


def test_distance_is_the_kernels_arithmetic() -> None:
    parts = {
        "zoneinfo": ZONEINFO,
        "buddyinfo": BUDDYINFO,
        "meminfo": "MemTotal:       100 kB\nMemFree: 1 kB\nMemAvailable:   40 kB\n",
        "pressure_memory": "some avg10=12.50 avg60=1.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 "
        "avg300=0.00 total=0\n",
    }
    seen = headroom(Snapshot(usec=0, wall=0.0, parts=parts), 4096)
    dma, normal = seen.zones
    assert dma.headroom_bytes == (3840 - 24 - 10443) * 4096
    assert normal.headroom_bytes == 600 * 4096
    assert (dma.largest_free_order, normal.largest_free_order) == (2, 2)
    # 8 + 4 * 2 + 4 pages, of which 8 are single
    assert normal.unusable_free_ratio(0) == 0
    assert normal.unusable_free_ratio(1) == pytest.approx(8 / 20)
    assert normal.unusable_free_ratio(3) == 1
    assert (seen.total_bytes, seen.available_bytes) == (100 * 1024, 40 * 1024)
    assert seen.pressure["some", 10] == pytest.approx(0.125)


@given(st.dictionaries(st.sampled_from(["zoneinfo", "buddyinfo", "meminfo", "pressure_memory"]), st.text()))
def test_no_file_of_the_host_breaks_it(parts: dict[str, str]) -> None:
    headroom(Snapshot(usec=0, wall=0.0, parts=parts), 4096)


def test_this_host_shows_its_zones() -> None:
    seen = HostMemory(read_host())()
    assert seen.zones
    assert seen.total_bytes
    assert all(zone.largest_free_order >= 0 for zone in seen.zones if zone.free_bytes > 1 << 20)
