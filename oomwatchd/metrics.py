"""Prometheus metrics: plain state that the daemon sets, and a collector that reads it at scrape.

Counters that follow from stored events (events, kills, undecoded lines, latency) last as long as the
boot: the store saves them in the transaction that stores the event and the daemon loads them at start.
All other counters begin at 0 with the process. None of them counts an event that was in the ring buffer
before the first start in this boot ("historical"): ``increase()`` must not show what nobody watched.

Every label set exists from the start with 0, because a series that is born at 1 never shows an increase.
``python -m oomwatchd.metrics`` writes docs/metrics.md.
"""

from __future__ import annotations

import platform
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, get_args

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Exemplar

from oomwatchd import __version__
from oomwatchd.delivery import Delivery
from oomwatchd.distance import CgroupDistance, Distance, ZoneDistance
from oomwatchd.event import OomEvent
from oomwatchd.render.escape import harmless
from oomwatchd.report import Constraint, Kind

KINDS: tuple[str, ...] = get_args(Kind)
CONSTRAINTS: tuple[str, ...] = (*get_args(Constraint), "unknown")

#: upper bounds in seconds: a quiet host takes milliseconds, a thrashing one seconds
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

#: units that have kills of their own counted; those of all others are counted as "other"
MAX_UNITS = 50
OTHER, UNKNOWN = "other", "unknown"
UNIT_CHARACTERS = 128
#: orders of the unusable free ratio: one less than a page block of a megabyte, and what is asked for often
ORDERS = (1, 2, 3, 4, 6, 9, 10)

_EVENTS = "events"
_UNITS = "unit"
_KILLS = "kills"
_LATENCY = "latency"


class Metrics:
    """The numbers behind ``/metrics``. Every method may be called from any thread."""

    def __init__(self, sinks: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._events = {(kind, constraint): 0.0 for kind in KINDS for constraint in CONSTRAINTS}
        self._kills = dict.fromkeys(CONSTRAINTS, 0.0)
        self._units = {UNKNOWN: 0.0, OTHER: 0.0}
        #: the last event of each counter
        self._examples: dict[tuple[str, ...], Exemplar] = {}
        self._distance: Callable[[], Distance] | None = None
        self._parts: dict[str, tuple[bool, float]] = {}
        self._buckets = [0.0] * (len(LATENCY_BUCKETS) + 1)
        self._latency_sum = 0.0
        self._last_kill: float | None = None
        self._undecoded = 0.0
        self._baseline: float | None = None
        self._kernel_kills: float | None = None
        self._records = 0
        self._lost = 0
        self._forged = 0
        self._overflow = 0
        self._dropped = 0
        self._witness: tuple[int, int] | None = None
        self._suppressed = 0.0
        self._headless = 0.0
        self._internal_errors = 0
        self._depth = 0
        self._kmsg_up = False
        self._sink_kinds = tuple(sinks)
        self._sink_names = frozenset(self._sink_kinds)
        self._sinks = dict.fromkeys(self._sink_kinds, 0)
        self._deliveries: dict[str, Delivery] = {}
        self._store: tuple[bool, int, int, int] | None = None

    def load(self, counters: Mapping[str, float]) -> None:
        """Take up what an earlier process of the same boot saved; unknown names are ignored."""
        with self._lock:
            for key in self._events:
                self._events[key] = counters.get(f"{_EVENTS} {key[0]} {key[1]}", 0.0)
            for constraint in self._kills:
                self._kills[constraint] = counters.get(f"{_KILLS} {constraint}", 0.0)
            for name, value in counters.items():
                if name.startswith(f"{_UNITS} "):
                    self._count_unit(name.partition(" ")[2], value)
            self._buckets = [counters.get(f"{_LATENCY} {n}", 0.0) for n in range(len(self._buckets))]
            self._latency_sum = counters.get(f"{_LATENCY} sum", 0.0)
            self._undecoded = counters.get("undecoded", 0.0)
            self._suppressed = counters.get("suppressed", 0.0)
            self._headless = counters.get("headless", 0.0)
            self._last_kill = counters.get("last_kill")
            self._baseline = counters.get("baseline")

    def saved(self) -> dict[str, float]:
        """What :meth:`load` takes up."""
        with self._lock:
            return self._saved()

    def _saved(self) -> dict[str, float]:
        saved = {f"{_EVENTS} {kind} {constraint}": n for (kind, constraint), n in self._events.items() if n}
        saved |= {f"{_KILLS} {constraint}": n for constraint, n in self._kills.items() if n}
        saved |= {f"{_UNITS} {unit}": n for unit, n in self._units.items() if n}
        saved |= {f"{_LATENCY} {number}": n for number, n in enumerate(self._buckets) if n}
        saved |= {f"{_LATENCY} sum": self._latency_sum, "undecoded": self._undecoded}
        saved |= {"suppressed": self._suppressed, "headless": self._headless}
        if self._last_kill is not None:
            saved["last_kill"] = self._last_kill
        if self._baseline is not None:
            saved["baseline"] = self._baseline
        return saved

    def count(self, event: OomEvent, reports: int, kills: int, undecoded: int) -> Mapping[str, float]:
        """Count an event that the store takes (see ``store.Count``); returns what is to be saved with it.

        A kill's time is the kernel's stamp of the report on the wall clock.
        """
        constraint = event.constraint or "unknown"
        with self._lock:
            if not event.historical:
                self._undecoded += undecoded
                if reports:
                    self._suppressed += event.suppressed_headers or 0
                    self._headless += "header" in event.missing
                self._kills[constraint] += kills
                self._events[event.kind, constraint] += reports
                self._count_units(event, kills)
                self._exemplify(event, constraint, reports, kills)
                latency = event.time.detection_latency_seconds
                if kills and kills == event.kills and latency is not None:
                    self._buckets[sum(latency > bound for bound in LATENCY_BUCKETS)] += 1
                    self._latency_sum += latency
            if kills and (moment := _seconds(event)) is not None:
                self._last_kill = max(moment, self._last_kill or 0.0)
            return self._saved()

    def _count_units(self, event: OomEvent, kills: int) -> None:
        """The last ``kills`` kills of the event; a later revision adds its own behind the earlier ones."""
        units = {one.pid: one.unit for one in event.attribution if one.role == "victim"}
        each = [units.get(victim.pid) for victim in event.victims for _ in range(victim.kills)]
        each[:0] = [None] * (kills - len(each))
        for unit in each[len(each) - kills :]:
            self._count_unit(UNKNOWN if unit is None else harmless(unit)[:UNIT_CHARACTERS], 1.0)

    def _count_unit(self, unit: str, kills: float) -> None:
        if unit not in self._units and len(self._units) >= MAX_UNITS + 2:
            unit = OTHER
        self._units[unit] = self._units.get(unit, 0.0) + kills

    def _exemplify(self, event: OomEvent, constraint: str, reports: int, kills: int) -> None:
        moment = _seconds(event)
        # what OpenMetrics allows: 128 characters of names and values
        example = Exemplar({"event_id": event.id[:100]}, 1.0, moment)
        if reports:
            self._examples[_EVENTS, event.kind, constraint] = example
        if kills:
            self._examples[_KILLS, constraint] = example

    def kills_now(self) -> tuple[float | None, float, float | None]:
        """The kernel's count, ours, and what of the kernel's growth ours lacks."""
        with self._lock:
            ours = sum(self._kills.values())
            if self._kernel_kills is None:
                return None, ours, None
            return self._kernel_kills, ours, self._kernel_kills - (self._baseline or 0) - ours

    def observe(self, distance: Callable[[], Distance]) -> None:
        """Where the distance from running out is had at scrape; it may raise."""
        with self._lock:
            self._distance = distance

    def part(self, name: str, *, up: bool, seconds: float = 0.0) -> None:
        """Whether a part of the daemon (one of a fixed set of names) works, and how long its last turn
        took."""
        with self._lock:
            self._parts[name] = up, seconds

    def kernel_kills(self, count: int | None) -> None:
        """``oom_kill`` of /proc/vmstat as just read, None where the kernel has none (before 4.13).

        The first one in a boot is the baseline of ``oomwatchd_oom_kills_unaccounted``: save it at once
        (``saved``), so that kills while the daemon is down are missed. Read it when the counted events are
        up to date, or the difference shows those still on their way.
        """
        with self._lock:
            self._kernel_kills = count
            if self._baseline is None and count is not None:
                self._baseline = count

    def records(self, read: int = 0, *, lost: int = 0, forged: int = 0) -> None:
        """Count records of the ring buffer: read, overwritten before they were read, and those of another
        facility than kern that look like a report."""
        with self._lock:
            self._records += read
            self._lost += lost
            self._forged += forged

    def kmsg_up(self, up: bool) -> None:
        """Whether the ring buffer is open and its last read succeeded."""
        with self._lock:
            self._kmsg_up = up

    def queue(self, depth: int, *, overflow: int = 0) -> None:
        """How many captures wait for the worker, and how many more were cut down because it was full."""
        with self._lock:
            self._depth = depth
            self._overflow += overflow

    def dropped(self) -> None:
        """Count a capture that found even the room for cut down ones full."""
        with self._lock:
            self._dropped += 1

    def internal_error(self) -> None:
        """Count an error of our own that cost a step or an explanation."""
        with self._lock:
            self._internal_errors += 1

    def witness(self, victims: int, unreported: int) -> None:
        """What the trace point oom:mark_victim showed: processes marked as victims, and those of them that
        the log did not name in time."""
        with self._lock:
            self._witness = (victims, unreported)

    def sinks(self, names: Collection[str]) -> None:
        """Which sinks there are from now on; what was said of others is forgotten."""
        with self._lock:
            self._sink_names = frozenset(names)
            self._sinks = {name: self._sinks.get(name, 0) for name in (*self._sink_kinds, *names)}
            self._deliveries = {name: self._deliveries[name] for name in names if name in self._deliveries}
            kept = {_sink_part(name) for name in names}
            self._parts = {
                part: state
                for part, state in self._parts.items()
                if part in kept or not part.startswith(_sink_part(""))
            }

    def sink(self, name: str, *, up: bool, seconds: float = 0.0) -> None:
        """Whether a sink on this host took what it was last given, and how long that took."""
        self.part(_sink_part(name), up=up, seconds=seconds)

    def sink_failed(self, sink: str) -> None:
        """Count an event that a configured sink did not take; names that are not configured are ignored."""
        with self._lock:
            if sink in self._sinks:
                self._sinks[sink] += 1

    def deliveries(self) -> tuple[Delivery, ...]:
        """How far each sink across the network has come, in the order of names."""
        with self._lock:
            return tuple(self._deliveries[name] for name in sorted(self._deliveries))

    def delivery(self, state: Delivery, seconds: float = 0.0) -> None:
        """How far a sink across the network has come, and how long its last attempt took. One that is not
        there (any more) is ignored."""
        with self._lock:
            if state.sink in self._sink_names:
                self._deliveries[state.sink] = state
                self._sinks[state.sink] = state.failures
                self._parts[_sink_part(state.sink)] = state.failed_since is None, seconds

    def store(self, *, up: bool, events: int, size: int, failures: int) -> None:
        """The store's state: whether its file can be written, what it holds, puts that did not reach it."""
        with self._lock:
            self._store = (up, events, size, failures)

    def collect(self) -> Iterator[Metric]:
        """All families, with all label sets, as of one moment."""
        # outside the lock: it reads files, and the watch must never wait for a scrape
        seen = self._look()
        with self._lock:
            return iter([*self._collect(), *self._collect_parts(), *_collect_distance(seen)])

    def _look(self) -> Distance:
        if self._distance is None:
            return Distance()
        began = time.perf_counter()
        try:
            seen = self._distance()
        except Exception:  # these are then absent, and nothing else is
            self.part("host_memory", up=False, seconds=time.perf_counter() - began)
            return Distance()
        self.part("host_memory", up=bool(seen.zones), seconds=time.perf_counter() - began)
        return seen

    def _collect_parts(self) -> list[Metric]:
        up = GaugeMetricFamily(
            "oomwatchd_part_up",
            "1 while this part of the daemon works; 0: it is done without.",
            labels=("part",),
        )
        seconds = GaugeMetricFamily(
            "oomwatchd_part_duration_seconds",
            "How long this part took when it last had its turn.",
            labels=("part",),
        )
        parts = {"kmsg": (self._kmsg_up, None), **self._parts}
        if self._store is not None:
            parts["store"] = (self._store[0], None)
        for name, (works, took) in sorted(parts.items()):
            up.add_metric((name,), int(works))
            if took is not None:
                seconds.add_metric((name,), took)
        return [up, seconds]

    def _collect(self) -> list[Metric]:
        build = InfoMetricFamily("oomwatchd_build", "Version of oomwatchd and of its Python.")
        build.add_metric([], {"version": __version__, "python": platform.python_version()})
        events = CounterMetricFamily(
            "oomwatchd_oom_events",
            "Reports of the kernel since the first start in this boot, by how they ended and by what was "
            "exhausted (none: the whole system). One report may kill several processes or none.",
            labels=("kind", "constraint"),
        )
        for (kind, constraint), number in self._events.items():
            _add(
                events,
                {"kind": kind, "constraint": constraint},
                number,
                self._examples.get((_EVENTS, kind, constraint)),
            )
        kills = CounterMetricFamily(
            "oomwatchd_oom_kills",
            "Kills that the kernel log reported since the first start in this boot, counted as the kernel "
            "counts: a group kill counts its first victim twice.",
            labels=("constraint",),
        )
        for constraint, number in self._kills.items():
            _add(kills, {"constraint": constraint}, number, self._examples.get((_KILLS, constraint)))
        units = CounterMetricFamily(
            "oomwatchd_unit_oom_kills",
            f"The same kills by the victim's systemd unit: {MAX_UNITS} units at most, those of the rest as "
            f"'{OTHER}'; '{UNKNOWN}' where no unit is known. A unit's series begins with its first kill: "
            "alert on oomwatchd_oom_kills_total.",
            labels=("unit",),
        )
        for unit, number in self._units.items():
            units.add_metric((unit,), number)
        families: list[Metric] = [build, events, kills, units]
        if self._kernel_kills is not None:
            families.append(
                CounterMetricFamily(
                    "oomwatchd_kernel_oom_kills",
                    "The kernel's own count of OOM kills since boot (oom_kill in /proc/vmstat); absent "
                    "where the kernel has none (before 4.13).",
                    value=self._kernel_kills,
                )
            )
            families.append(
                _gauge(
                    "oomwatchd_oom_kills_unaccounted",
                    "Growth of the kernel's count since the first start in this boot, less the kills seen in "
                    "its log. Lastingly above 0: kills whose messages were lost. Absent without that count.",
                    self._kernel_kills - (self._baseline or 0) - sum(self._kills.values()),
                )
            )
        families.append(
            _gauge(
                "oomwatchd_last_oom_kill_timestamp_seconds",
                "When the last known kill of this boot happened, seconds since the epoch; 0 if none did.",
                self._last_kill or 0,
            )
        )
        families += [
            _counter("oomwatchd_kmsg_records", "Kernel log records read by this process.", self._records),
            _counter(
                "oomwatchd_kmsg_lost_records",
                "Kernel log records that were overwritten before this process could read them.",
                self._lost,
            ),
            _counter(
                "oomwatchd_kmsg_forged_records",
                "Records that look like the kernel's OOM messages but were written by user space; they are "
                "never believed.",
                self._forged,
            ),
            _gauge(
                "oomwatchd_kmsg_up",
                "1 while the kernel log is open and readable; 0: no OOM can be seen.",
                int(self._kmsg_up),
            ),
            _counter(
                "oomwatchd_undecoded_lines",
                "Lines inside reports that this version does not understand; they are kept with the event.",
                self._undecoded,
            ),
        ]
        total = 0.0
        buckets = []
        for bound, number in zip((*map(str, LATENCY_BUCKETS), "+Inf"), self._buckets, strict=True):
            total += number
            buckets.append((bound, total))
        families.append(
            HistogramMetricFamily(
                "oomwatchd_detection_latency_seconds",
                "From the kernel's stamp of a report's first kill until its event was ready to be stored.",
                buckets=buckets,
                sum_value=self._latency_sum,
            )
        )
        families += [
            _gauge("oomwatchd_queue_depth", "Reports that wait to be stored and sent.", self._depth),
            _counter(
                "oomwatchd_internal_errors",
                "Faults of oomwatchd itself, each of which cost one step or one explanation; the log says "
                "each kind once. Please report them.",
                self._internal_errors,
            ),
            _counter(
                "oomwatchd_queue_overflow",
                "Reports that lost their details because too many waited; their kills are still counted.",
                self._overflow,
            ),
        ]
        families.append(
            _counter(
                "oomwatchd_queue_dropped",
                "Reports given up because even the room for cut down ones was full; until the kernel log "
                "overwrites them a restart finds them again.",
                self._dropped,
            )
        )
        families += [
            _counter(
                "oomwatchd_suppressed_reports",
                "Reports whose first part the kernel says it left out (its rate limit: suppressed).",
                self._suppressed,
            ),
            _counter(
                "oomwatchd_headless_reports",
                "Reports that were read without their first part. Lastingly fewer than the suppressed ones: "
                "some were lost whole, or killed nobody.",
                self._headless,
            ),
        ]
        if self._witness is not None:
            victims, unreported = self._witness
            families += [
                _counter(
                    "oomwatchd_marked_victims",
                    "Processes that the trace point oom:mark_victim named since the daemon started.",
                    victims,
                ),
                _counter(
                    "oomwatchd_unreported_victims",
                    "Those of them that the kernel log did not name within 10 s: their messages were lost, "
                    "or they were exiting by themselves.",
                    unreported,
                ),
            ]
        failures = CounterMetricFamily(
            "oomwatchd_sink_failures",
            "Times that a sink (journal, file, webhook ...) did not take events; across the network they are "
            "tried again.",
            labels=("sink",),
        )
        for sink, failed in self._sinks.items():
            failures.add_metric((sink,), failed)
        families += [failures, *_delivery_families(self._deliveries.values())]
        if self._store is not None:
            up, stored, size, failed = self._store
            families += [
                _gauge(
                    "oomwatchd_store_up", "1 while events reach the disk; 0: memory keeps the last.", int(up)
                ),
                _gauge("oomwatchd_store_events", "Events in the store.", stored),
                _gauge("oomwatchd_store_size_bytes", "What the store uses of the disk.", size),
                _counter(
                    "oomwatchd_store_failures", "Events that did not reach the disk when they came.", failed
                ),
            ]
        return families


def _add(family: Metric, labels: dict[str, str], value: float, example: Exemplar | None) -> None:
    family.add_sample(f"{family.name}_total", labels, value, exemplar=example)


def _collect_distance(seen: Distance) -> list[Metric]:
    zone = ("node", "memory_zone")
    headroom = GaugeMetricFamily(
        "oomwatchd_zone_headroom_bytes",
        "Free memory above what an order-0 request for movable memory must leave in this zone (free - min - "
        "lowmem reserve). None in any zone and nothing to reclaim: the OOM killer comes. A low zone may be "
        "below 0 for good.",
        labels=zone,
    )
    largest = GaugeMetricFamily(
        "oomwatchd_zone_largest_free_order",
        "Order of the largest free block in this zone (a block has 2^order pages); -1: nothing is free.",
        labels=zone,
    )
    unusable = GaugeMetricFamily(
        "oomwatchd_zone_unusable_free_ratio",
        "Share of this zone's free memory in blocks too small for a request of that order (the kernel's "
        "unusable free index).",
        labels=(*zone, "order"),
    )
    for one in seen.zones:
        labels = (str(one.node), harmless(one.zone))
        headroom.add_metric(labels, one.headroom_bytes)
        if one.blocks:
            largest.add_metric(labels, one.largest_free_order)
            for order in ORDERS:
                if order < len(one.blocks):
                    unusable.add_metric((*labels, str(order)), one.unusable_free_ratio(order))
    pressure = GaugeMetricFamily(
        "oomwatchd_memory_pressure_ratio",
        "Share of time in which some or all (full) tasks waited for memory, over the last 10, 60 or 300 "
        "seconds (/proc/pressure/memory).",
        labels=("share", "window_seconds"),
    )
    for (share, window), value in seen.pressure.items():
        pressure.add_metric((share, str(window)), value)
    room = GaugeMetricFamily(
        "oomwatchd_cgroup_headroom_bytes",
        "What this cgroup may still be charged below its own limit, inactive page cache counted as free; the "
        "20 cgroups with the least room.",
        labels=("cgroup",),
    )
    limit = GaugeMetricFamily("oomwatchd_cgroup_limit_bytes", "The limit of this cgroup.", labels=("cgroup",))
    for group in seen.cgroups:
        name = harmless(group.path)
        room.add_metric((name,), group.headroom_bytes)
        limit.add_metric((name,), group.limit_bytes)
    families: list[Metric] = [headroom, largest, unusable]
    if seen.available_bytes is not None:
        text = "MemAvailable: what can be had without swapping."
        families.append(_gauge("oomwatchd_memory_available_bytes", text, seen.available_bytes))
    return [*families, pressure, room, limit]


class _Collector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.collect()


def registry(metrics: Metrics) -> CollectorRegistry:
    """A registry of its own that serves ``metrics`` alone (no process, platform or GC series)."""
    own = CollectorRegistry(auto_describe=False)
    own.register(_Collector(metrics))
    return own


def _sink_part(name: str) -> str:
    return f"sink_{name}"


def _delivery_families(states: Iterable[Delivery]) -> list[Metric]:
    """Of the sinks across the network that are configured; counted since they were."""
    label = ("sink",)
    delivered = CounterMetricFamily(
        "oomwatchd_sink_delivered",
        "Events that a sink across the network took, since it was configured.",
        labels=label,
    )
    dropped = CounterMetricFamily(
        "oomwatchd_sink_dropped",
        "Events given up for a sink: refused by the receiver, older than a week, or gone from the store.",
        labels=label,
    )
    left_out = CounterMetricFamily(
        "oomwatchd_sink_left_out",
        "Reports without a victim that a sink was not told of, because one like it was told within a minute.",
        labels=label,
    )
    waiting = GaugeMetricFamily(
        "oomwatchd_sink_waiting_events", "Events in the store that a sink has yet to take.", labels=label
    )
    failing = GaugeMetricFamily(
        "oomwatchd_sink_failing_since_timestamp_seconds",
        "Since when a sink has taken nothing that was tried, seconds since the epoch; 0 while all is well.",
        labels=label,
    )
    for state in states:
        delivered.add_metric((state.sink,), state.delivered)
        dropped.add_metric((state.sink,), state.dropped)
        left_out.add_metric((state.sink,), state.left_out)
        waiting.add_metric((state.sink,), state.waiting)
        failing.add_metric((state.sink,), state.failed_since or 0)
    return [delivered, dropped, left_out, waiting, failing]


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _seconds(event: OomEvent) -> float | None:
    """The event's wall time in seconds since the epoch."""
    if event.time.wall is None:
        return None
    try:
        return datetime.fromisoformat(event.time.wall).timestamp()
    except ValueError:
        return None


def _example() -> Distance:
    """A host that shows everything, for the documentation."""
    zone = ZoneDistance(
        node=0, zone="ZONE", managed_bytes=0, free_bytes=0, min_bytes=0, reserve_bytes=0, blocks=(0,) * 11
    )
    windows = {(share, window): 0.0 for share in ("some", "full") for window in (10, 60, 300)}
    cgroup = CgroupDistance(path="CGROUP", limit_bytes=0, usage_bytes=0)
    return Distance(available_bytes=0, pressure=windows, zones=(zone,), cgroups=(cgroup,))


def document() -> str:
    """docs/metrics.md, from the families themselves."""
    metrics = Metrics(sinks=("SINK",))
    metrics.delivery(Delivery(sink="SINK", position=0))
    metrics.kernel_kills(0)
    metrics.store(up=True, events=0, size=0, failures=0)
    metrics.part("PART", up=True)
    metrics.observe(_example)
    lines = [
        "# Metrics",
        "",
        "<!-- written by `python -m oomwatchd.metrics > docs/metrics.md` -->",
        "",
        "Served on `http://127.0.0.1:10053/metrics` (`[http] listen` in the configuration), as Prometheus "
        "text or OpenMetrics.",
        "",
        "Counters of events, kills, undecoded lines and latency last as long as the boot: they survive "
        "restarts of the daemon and are saved together with the event that moved them. All other counters "
        "begin at 0 when the daemon starts. Reports that were already in the kernel log when the daemon "
        "first started in this boot are stored and marked historical, and counted in none of them. Every "
        "label set is there from the start, with 0.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for family in metrics.collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        values: dict[str, dict[str, Any]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault(label, {})[value] = None
        shown = []
        for label, known in values.items():
            fixed = label in ("kind", "constraint", "share", "window_seconds", "order")
            shown.append(f"`{label}`" + (f": {', '.join(known)}" if fixed else ""))
        labels = "; ".join(shown) if family.type != "histogram" else f"`le`: {', '.join(values['le'])}"
        kind = "gauge" if family.type == "info" else family.type
        lines.append(f"| `{family.name}{suffix}` | {kind} | {labels} | {family.documentation} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
