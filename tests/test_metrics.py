"""The metrics: what is exported from the start, what is counted, and that promtool accepts them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from oomwatchd.delivery.policy import Delivery
from oomwatchd.diagnosis.attribution import Attribution
from oomwatchd.diagnosis.headroom import CgroupHeadroom, Headroom, ZoneHeadroom
from oomwatchd.event import OomEvent
from oomwatchd.metrics import CONSTRAINTS, KINDS, MAX_CONTAINERS, MAX_UNITS, OTHER, Metrics
from oomwatchd.metrics.families import document, registry
from oomwatchd.metrics.series import ZERO_SECONDS
from oomwatchd.records.report import Victim
from oomwatchd.store import Store
from tests.samples import BOOT, capture, event

REQUIRED = (
    "oomwatchd_build_info",
    "oomwatchd_oom_events_total",
    "oomwatchd_oom_kills_total",
    "oomwatchd_kernel_oom_kills_total",
    "oomwatchd_oom_kills_unaccounted",
    "oomwatchd_last_oom_kill_timestamp_seconds",
    "oomwatchd_kmsg_records_total",
    "oomwatchd_kmsg_lost_records_total",
    "oomwatchd_undecoded_lines_total",
    "oomwatchd_detection_latency_seconds_bucket",
    "oomwatchd_kmsg_forged_records_total",
    "oomwatchd_kmsg_up",
    "oomwatchd_sink_failures_total",
    "oomwatchd_queue_depth",
    "oomwatchd_queue_overflow_total",
    "oomwatchd_store_up",
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def whole(clock: Callable[[], float] = time.monotonic) -> Metrics:
    """Metrics with every family there is."""
    metrics = Metrics(sinks=("journal", "jsonl"), clock=clock)
    metrics.kernel_kills(0)
    metrics.store(up=True, events=0, size=4096, failures=0)
    metrics.part("recorder", up=True, seconds=0.001)
    metrics.observe(lambda: HEADROOM)
    return metrics


HOSTILE = 'a"b\\c\nd\x1b[31m\u202e'
HEADROOM = Headroom(
    total_bytes=1 << 30,
    available_bytes=1 << 29,
    pressure={(share, window): 0.25 for share in ("some", "full") for window in (10, 60, 300)},
    zones=tuple(
        ZoneHeadroom(
            node=0,
            zone=zone,
            managed_bytes=1 << 30,
            free_bytes=8192,
            min_bytes=4096,
            reserve_bytes=reserve,
            blocks=(0, 1),
        )
        for zone, reserve in (("DMA", 8192), ("Normal", 0))
    ),
    cgroups=(CgroupHeadroom(path=HOSTILE, limit_bytes=100, usage_bytes=90, reclaimable_bytes=20),),
)


def values(metrics: Metrics) -> dict[str, float]:
    """Series as they are written in the exposition -> value."""
    text = generate_latest(registry(metrics)).decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_all_names_are_there_and_every_label_set_is_0_from_the_start() -> None:
    found = values(whole())
    for name in REQUIRED:
        assert any(series.partition("{")[0] == name for series in found), name
    for constraint in CONSTRAINTS:
        assert found[f'oomwatchd_oom_kills_total{{constraint="{constraint}"}}'] == 0
        for kind in KINDS:
            assert found[f'oomwatchd_oom_events_total{{constraint="{constraint}",kind="{kind}"}}'] == 0
    assert found['oomwatchd_sink_failures_total{sink="jsonl"}'] == 0
    assert not any("_created" in series for series in found)


def test_the_kernels_count_is_absent_where_it_does_not_exist() -> None:
    metrics = Metrics()
    metrics.kernel_kills(None)
    found = values(metrics)
    assert "oomwatchd_kernel_oom_kills_total" not in found
    assert "oomwatchd_oom_kills_unaccounted" not in found


def test_events_and_kills_are_counted_and_revisions_by_their_growth() -> None:
    metrics = whole()
    metrics.count(event(kills=2), 1, 2, 1)
    metrics.count(event(kills=3), 0, 1, 0)
    metrics.count(event(constraint=None, kind="oom_panic", kills=0), 1, 0, 0)
    found = values(metrics)
    assert found['oomwatchd_oom_kills_total{constraint="memcg"}'] == 3
    assert found['oomwatchd_oom_events_total{constraint="memcg",kind="oom_kill"}'] == 1
    assert found['oomwatchd_oom_events_total{constraint="unknown",kind="oom_panic"}'] == 1
    assert found["oomwatchd_undecoded_lines_total"] == 1
    assert found["oomwatchd_detection_latency_seconds_count"] == 1
    assert found['oomwatchd_detection_latency_seconds_bucket{le="0.01"}'] == 0
    assert found['oomwatchd_detection_latency_seconds_bucket{le="0.025"}'] == 1
    assert found["oomwatchd_last_oom_kill_timestamp_seconds"] == 1_790_000_000


def test_historical_events_move_no_counter_but_say_when_the_last_kill_was() -> None:
    metrics = whole()
    metrics.count(event(historical=True), 1, 1, 5)
    found = values(metrics)
    assert sum(value for name, value in found.items() if "_total" in name) == 0
    assert found["oomwatchd_detection_latency_seconds_count"] == 0
    assert found["oomwatchd_last_oom_kill_timestamp_seconds"] == 1_790_000_000


def test_unaccounted_is_the_kernels_growth_less_ours_over_a_restart() -> None:
    first = Metrics()
    first.kernel_kills(7)
    first.count(event(kills=2), True, 2, 0)
    first.kernel_kills(9)
    assert values(first)["oomwatchd_oom_kills_unaccounted"] == 0
    second = Metrics()
    second.load(first.saved())
    second.kernel_kills(12)
    found = values(second)
    assert found["oomwatchd_kernel_oom_kills_total"] == 12
    assert found["oomwatchd_oom_kills_unaccounted"] == 3


def test_what_is_saved_is_what_is_loaded() -> None:
    clock = Clock()
    first = whole(clock)
    saved = first.count(event(latency=1e6), True, 1, 4)
    second = whole()
    second.load(dict(saved) | {"from a later version": 1.0})

    def counted(metrics: Metrics) -> dict[str, float]:
        return {name: value for name, value in values(metrics).items() if "duration" not in name}

    counted(first)
    clock.now += ZERO_SECONDS
    assert counted(second) == counted(first)


def of_unit(unit: str | None, seq: int = 100, kills: int = 1) -> OomEvent:
    """An event that killed ``kills`` processes of a unit."""
    victims = tuple(Victim(pid=pid, comm="x") for pid in range(1, kills + 1))
    whose = tuple(Attribution(pid=victim.pid, role="victim", unit=unit) for victim in victims)
    return event(seq, kills=kills, victims=victims, attribution=whose)


def family(counted: Metrics, name: str) -> dict[str, float]:
    return {k: v for k, v in values(counted).items() if k.startswith(f"oomwatchd_{name}_oom_kills_total")}


def settled(counted: Metrics, clock: Clock, name: str) -> dict[str, float]:
    """The family when no series is new any more."""
    family(counted, name)
    clock.now += ZERO_SECONDS
    return family(counted, name)


def in_container(n: int | str, name: str | None = None, unit: str | None = None) -> OomEvent:
    identifier = f"{n:064x}"[::-1] if isinstance(n, int) else n
    whose = Attribution(
        pid=1,
        role="victim",
        unit=unit or f"docker-{identifier}.scope",
        container_id=identifier,
        container_name=name,
    )
    return event(victims=(Victim(pid=1, comm="x"),), attribution=(whose,))


def test_ten_thousand_containers_and_then_a_unit_are_counted_under_their_names() -> None:
    clock = Clock()
    metrics = Metrics(clock=clock)
    for n in range(10_000):
        metrics.count(in_container(n, f"shop/web-{n}/app"), 1, 1, 0)
    metrics.count(of_unit("db.service"), 1, 1, 0)
    metrics.count(in_container(3), 1, 1, 0)
    found = settled(metrics, clock, "container")
    assert len(found) == MAX_CONTAINERS + 1 and sum(found.values()) == 10_001
    label = 'oomwatchd_container_oom_kills_total{container="app",namespace="shop",pod="web-9999"}'
    assert found[label] == 1
    assert found['oomwatchd_container_oom_kills_total{container="300000000000",namespace="",pod=""}'] == 1
    assert settled(metrics, clock, "unit") == {
        'oomwatchd_unit_oom_kills_total{unit="other"}': 0,
        'oomwatchd_unit_oom_kills_total{unit="unknown"}': 0,
        'oomwatchd_unit_oom_kills_total{unit="db.service"}': 1,
    }
    saved = metrics.saved()
    assert len(saved) < 200, "what went is forgotten in the store, too"
    again = Metrics(clock=clock)
    again.load(saved)
    assert family(again, "container") == found, "and at once: it was seen before"


def test_a_container_in_a_unit_of_its_own_name_counts_for_both() -> None:
    clock = Clock()
    metrics = Metrics(clock=clock)
    metrics.count(in_container("f" * 64, "web", unit="web.service"), 1, 1, 0)
    assert settled(metrics, clock, "unit")['oomwatchd_unit_oom_kills_total{unit="web.service"}'] == 1
    label = 'oomwatchd_container_oom_kills_total{container="web",namespace="",pod=""}'
    assert settled(metrics, clock, "container")[label] == 1


def test_a_new_series_begins_at_zero_for_two_servers_that_scrape() -> None:
    clock = Clock()
    metrics = Metrics(clock=clock)
    name = 'oomwatchd_container_oom_kills_total{container="app",namespace="shop",pod="web-0"}'
    seen = []
    for n in range(9):
        if n < 3:
            metrics.count(in_container(7, "shop/web-0/app"), 1, 1, 0)
        seen.append(family(metrics, "container")[name])
        clock.now += 15
    assert seen == [0, 0, 0, 0, 3, 3, 3, 3, 3]


def test_what_has_no_place_is_forgotten_in_the_store(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    metrics = Metrics()
    for n in range(MAX_CONTAINERS + 20):
        told = msgspec.structs.replace(in_container(n), id=f"e{n}")
        store.put(capture(100 + 10 * n), told, metrics.count)
    loaded = store.load_counters(BOOT)
    assert sum(name.startswith("container ") for name in loaded) == MAX_CONTAINERS + 1
    assert sum(n for name, n in loaded.items() if name.startswith("container ")) == MAX_CONTAINERS + 20
    store.close()


def test_kills_by_unit_are_bounded_and_lose_none() -> None:
    clock = Clock()
    metrics = Metrics(clock=clock)
    for n in range(1000):
        metrics.count(of_unit(f"u{n}.service"), 1, 1, 0)
    metrics.count(of_unit("u3.service", kills=3), 1, 3, 0)
    # a later revision brings one more
    metrics.count(of_unit("u3.service", kills=4), 0, 1, 0)
    metrics.count(of_unit(None), 1, 1, 0)
    metrics.count(of_unit(HOSTILE), 1, 1, 0)
    found = settled(metrics, clock, "unit")
    assert len(found) == MAX_UNITS + 2
    assert sum(found.values()) == 1006
    assert found['oomwatchd_unit_oom_kills_total{unit="u3.service"}'] == 4, "since it had a place again"
    assert found['oomwatchd_unit_oom_kills_total{unit="u999.service"}'] == 1
    assert found['oomwatchd_unit_oom_kills_total{unit="unknown"}'] == 1
    assert found[f'oomwatchd_unit_oom_kills_total{{unit="{OTHER}"}}'] == 1002 - MAX_UNITS
    units = family
    again = whole()
    again.load(metrics.saved())
    assert units(again, "unit") == found


def test_cgroups_that_are_made_to_look_the_same_are_one_series() -> None:
    names = ("/a\x01", "/a\\x01", "/b")
    groups = [CgroupHeadroom(path=name, limit_bytes=9, usage_bytes=n) for n, name in enumerate(names)]
    metrics = Metrics()
    metrics.observe(lambda: Headroom(cgroups=tuple(groups)))
    lines = generate_latest(registry(metrics)).decode().splitlines()
    assert [line for line in lines if line.startswith("oomwatchd_cgroup_headroom_bytes{")] == [
        'oomwatchd_cgroup_headroom_bytes{cgroup="/a\\\\x01"} 9.0',
        'oomwatchd_cgroup_headroom_bytes{cgroup="/b"} 7.0',
    ]


def test_the_distance_from_running_out() -> None:
    found = values(whole())
    assert found['oomwatchd_zone_headroom_bytes{memory_zone="DMA",node="0"}'] == -4096
    assert found['oomwatchd_zone_headroom_bytes{memory_zone="Normal",node="0"}'] == 4096
    assert found['oomwatchd_zone_largest_free_order{memory_zone="Normal",node="0"}'] == 1
    assert found['oomwatchd_zone_unusable_free_ratio{memory_zone="Normal",node="0",order="1"}'] == 0
    assert found["oomwatchd_memory_available_bytes"] == 1 << 29
    assert found['oomwatchd_memory_pressure_ratio{share="full",window_seconds="60"}'] == 0.25
    (room,) = [v for k, v in found.items() if k.startswith("oomwatchd_cgroup_headroom_bytes")]
    assert room == 30


def test_a_part_that_fails_costs_its_own_metrics_alone() -> None:
    def fail() -> Headroom:
        raise OSError("gone")

    metrics = whole()
    metrics.observe(fail)
    found = values(metrics)
    assert not any(name.startswith("oomwatchd_zone_") for name in found)
    assert found['oomwatchd_part_up{part="host_memory"}'] == 0
    assert found['oomwatchd_part_up{part="recorder"}'] == 1
    assert found['oomwatchd_part_duration_seconds{part="recorder"}'] == 0.001
    assert found['oomwatchd_part_up{part="kmsg"}'] == 0
    metrics.kmsg_up(True)
    assert values(metrics)['oomwatchd_part_up{part="kmsg"}'] == 1


def test_sinks_are_parts_and_those_that_are_gone_are_forgotten() -> None:
    metrics = whole()
    metrics.sinks(["journal", "webhook-chat", "webhook-pager"])
    metrics.sink("journal", up=False)
    metrics.delivery(Delivery(sink="webhook-chat", position=0), 0.5)
    metrics.delivery(Delivery(sink="webhook-pager", position=0, failures=3, failed_since=1e9))
    found = values(metrics)
    assert found['oomwatchd_part_up{part="sink_journal"}'] == 0
    assert found['oomwatchd_part_up{part="sink_webhook-chat"}'] == 1
    assert found['oomwatchd_part_duration_seconds{part="sink_webhook-chat"}'] == 0.5
    assert found['oomwatchd_part_up{part="sink_webhook-pager"}'] == 0
    assert found['oomwatchd_sink_failures_total{sink="webhook-pager"}'] == 3
    metrics.sinks(["webhook-chat"])
    metrics.delivery(Delivery(sink="webhook-pager", position=0, failures=4))  # a thread that hung
    found = values(metrics)
    named = {series for series in found if "pager" in series or "sink_journal" in series}
    assert named == set()
    assert found['oomwatchd_part_up{part="sink_webhook-chat"}'] == 1
    assert found['oomwatchd_part_up{part="recorder"}'] == 1


def test_exemplars_name_the_event() -> None:
    metrics = whole()
    one = event()
    metrics.count(one, 1, 1, 0)
    text = generate_openmetrics(registry(metrics)).decode()  # type: ignore[no-untyped-call]
    named = [line for line in text.splitlines() if f'# {{event_id="{one.id}"}} 1.0' in line]
    assert [line.partition("{")[0] for line in named] == [
        "oomwatchd_oom_events_total",
        "oomwatchd_oom_kills_total",
    ]
    assert b"event_id" not in generate_latest(registry(metrics)), "the text format has none"


def test_process_counters() -> None:
    metrics = whole()
    metrics.records(5)
    metrics.records(2, lost=3, forged=1)
    metrics.queue(4, overflow=2)
    metrics.kmsg_up(True)
    metrics.sink_failed("jsonl")
    metrics.sink_failed("attacker")
    metrics.store(up=False, events=3, size=8192, failures=6)
    found = values(metrics)
    assert found["oomwatchd_kmsg_records_total"] == 7
    assert found["oomwatchd_kmsg_lost_records_total"] == 3
    assert found["oomwatchd_kmsg_forged_records_total"] == 1
    assert found["oomwatchd_queue_depth"] == 4
    assert found["oomwatchd_queue_overflow_total"] == 2
    assert found["oomwatchd_kmsg_up"] == 1
    assert found['oomwatchd_sink_failures_total{sink="jsonl"}'] == 1
    assert not any("attacker" in series for series in found)
    assert found["oomwatchd_store_up"] == 0
    assert found["oomwatchd_store_failures_total"] == 6


def test_promtool_has_no_complaint() -> None:
    beside_python = Path(sys.executable).parent
    promtool = shutil.which(
        "promtool", path=f"{beside_python}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    )
    if promtool is None:
        pytest.fail("promtool is not installed (Debian: prometheus)")
    metrics = whole()
    metrics.count(event(), 1, 1, 0)
    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=generate_latest(registry(metrics)),
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_openmetrics_is_well_formed() -> None:
    metrics = whole()
    metrics.count(event(), 1, 1, 0)
    text = generate_openmetrics(registry(metrics)).decode()  # type: ignore[no-untyped-call]
    parsed = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    families = {family.name: family for family in parsed}
    assert families["oomwatchd_detection_latency_seconds"].type == "histogram"
    assert families["oomwatchd_oom_kills"].type == "counter"


def test_the_documentation_is_current() -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
    assert page.read_text() == document(), "run: python -m tools.generate"
