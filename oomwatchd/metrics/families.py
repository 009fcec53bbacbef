"""The metric families, made of the numbers at each scrape with prometheus_client, which is loaded only for
this. Long, because it is one list: each family with its text, its labels and where its value comes from."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

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
from oomwatchd.delivery.policy import Delivery
from oomwatchd.diagnosis.headroom import CgroupHeadroom, Headroom, ZoneHeadroom
from oomwatchd.metrics import (
    EVENTS,
    KILLS,
    LATENCY_BUCKETS,
    MAX_CONTAINERS,
    MAX_HOSTS,
    MAX_UNITS,
    OTHER,
    UNKNOWN,
    Example,
    Following,
    Metrics,
    Numbers,
)
from oomwatchd.metrics.series import LABEL_CHARACTERS
from oomwatchd.warning.incidents import MOST_TOLD, Outlook
from oomwatchd.words.escape import harmless

#: orders of the unusable free ratio: one less than a page block of a megabyte, and what is asked for often
ORDERS = (1, 2, 3, 4, 6, 9, 10)

#: why something of a followed host is not used
_REASONS = ("bytes", "lost", "spoilt", "event", "foreign", "datagram", "connection", "host")


def families(numbers: Numbers, seen: Headroom) -> list[Metric]:
    """All families; call it under the lock of :class:`Metrics`."""
    return [*_counted(numbers), *_parts(numbers), *_headroom(seen), *_warnings(numbers)]


def _followed(numbers: Numbers, state: Following) -> list[Metric]:
    """Of the machines whose logs are followed: none of it is in the counters of this host."""
    kills = CounterMetricFamily(
        "oomwatchd_followed_oom_kills",
        f"Kills that the logs of followed hosts report: the {MAX_HOSTS} hosts with the latest kills, all "
        f"others as '{OTHER}'. Nothing proves that a kernel wrote them.",
        labels=("host",),
    )
    events = CounterMetricFamily(
        "oomwatchd_followed_oom_events", "Reports in the logs of followed hosts.", labels=("host",)
    )
    for family, series in ((kills, numbers.host_kills), (events, numbers.host_events)):
        for labels, number in series.shown():
            family.add_metric(labels, number)
    up = GaugeMetricFamily(
        "oomwatchd_followed_source_up", "1 if the source of other hosts' logs is open.", labels=("source",)
    )
    for name, well in state.sources.items():
        up.add_metric([harmless(name)], float(well))
    size = CounterMetricFamily(
        "oomwatchd_followed_bytes", "Bytes read from the logs of followed hosts.", labels=("host",)
    )
    for name, number in state.bytes.items():
        size.add_metric([harmless(name)], number)
    dropped = CounterMetricFamily(
        "oomwatchd_followed_dropped",
        "Input of followed hosts that was not used. bytes: its queue was full. lost: records that are "
        "missing by their sequence numbers. spoilt: lines of a serial console that lost bytes and cannot be "
        "mended. "
        "event: more events than its share. foreign: messages of programs. datagram: the socket was full. "
        "host: more hosts than there is room for.",
        labels=("host", "reason"),
    )
    for (name, reason), number in state.dropped.items():
        dropped.add_metric([harmless(name), reason], number)
    return [kills, events, up, size, dropped]


def _counted(numbers: Numbers) -> list[Metric]:
    build = InfoMetricFamily("oomwatchd_build", "Version of oomwatchd and of its Python.")
    build.add_metric([], {"version": __version__, "python": sys.version.split()[0]})
    events = CounterMetricFamily(
        "oomwatchd_oom_events",
        "Reports of the kernel since the first start in this boot, by how they ended and by what was "
        "exhausted (none: the whole system). One report may kill several processes or none. "
        "oomd_kill: systemd-oomd killed a cgroup; the kernel neither reports nor counts that.",
        labels=("kind", "constraint"),
    )
    for (kind, constraint), number in numbers.events.items():
        _add(
            events,
            {"kind": kind, "constraint": constraint},
            number,
            numbers.examples.get((EVENTS, kind, constraint)),
        )
    kills = CounterMetricFamily(
        "oomwatchd_oom_kills",
        "Kills that the kernel log reported since the first start in this boot, counted as the kernel "
        "counts: a group kill counts its first victim twice.",
        labels=("constraint",),
    )
    for constraint, number in numbers.kills.items():
        _add(kills, {"constraint": constraint}, number, numbers.examples.get((KILLS, constraint)))
    units = CounterMetricFamily(
        "oomwatchd_unit_oom_kills",
        f"The same kills by the victim's systemd unit: the {MAX_UNITS} units with the latest kills, all "
        f"others as '{OTHER}'; '{UNKNOWN}' where neither unit nor container is known. Kills in a "
        "container's own scope are not here. A new series is 0 for a minute.",
        labels=("unit",),
    )
    for labels, number in numbers.units.shown():
        units.add_metric(labels, number)
    containers = CounterMetricFamily(
        "oomwatchd_container_oom_kills",
        f"The same kills by the victim's container: the {MAX_CONTAINERS} containers with the latest kills, "
        f"all others as '{OTHER}'. The labels are those of kube-state-metrics and cAdvisor. Outside "
        "Kubernetes namespace and pod are empty. Without a name, container is the first 12 digits of the id. "
        "A new series is 0 for a minute.",
        labels=("namespace", "pod", "container"),
    )
    for labels, number in numbers.containers.shown():
        containers.add_metric(labels, number)
    families: list[Metric] = [build, events, kills, units, containers]
    if numbers.followed is not None:
        families += _followed(numbers, numbers.followed)
    if numbers.kernel_kills is not None:
        families.append(
            CounterMetricFamily(
                "oomwatchd_kernel_oom_kills",
                "The kernel's own count of OOM kills since boot (oom_kill in /proc/vmstat); absent "
                "where the kernel has none (before 4.13).",
                value=numbers.kernel_kills,
            )
        )
        families.append(
            _gauge(
                "oomwatchd_oom_kills_unaccounted",
                "Growth of the kernel's count since the first start in this boot, minus the kills seen in "
                "its log. If it stays above 0, messages of kills were lost. Absent without that count.",
                numbers.kernel_kills - (numbers.baseline or 0) - sum(numbers.kills.values()),
            )
        )
    families.append(
        _gauge(
            "oomwatchd_last_oom_kill_timestamp_seconds",
            "When the last known kill of this boot happened, seconds since the epoch; 0 if none did.",
            numbers.last_kill or 0,
        )
    )
    families += [
        _counter("oomwatchd_kmsg_records", "Kernel log records read by this process.", numbers.records),
        _counter(
            "oomwatchd_kmsg_lost_records",
            "Kernel log records that were overwritten before this process could read them.",
            numbers.lost,
        ),
        _counter(
            "oomwatchd_kmsg_forged_records",
            "Records that look like the kernel's OOM messages but were written by user space, or single "
            "lines that neither other lines nor the kernel's count confirm; they are ignored.",
            numbers.forged,
        ),
        _gauge(
            "oomwatchd_kmsg_up",
            "1 while the kernel log is open and readable; 0: no OOM can be seen.",
            int(numbers.kmsg_up),
        ),
        _counter(
            "oomwatchd_undecoded_lines",
            "Lines inside reports that this version does not understand; they are kept with the event.",
            numbers.undecoded,
        ),
    ]
    total = 0.0
    buckets = []
    for bound, number in zip((*map(str, LATENCY_BUCKETS), "+Inf"), numbers.buckets, strict=True):
        total += number
        buckets.append((bound, total))
    families.append(
        HistogramMetricFamily(
            "oomwatchd_detection_latency_seconds",
            "From the kernel's stamp of a report's first kill until its event was ready to be stored.",
            buckets=buckets,
            sum_value=numbers.latency_sum,
        )
    )
    families += [
        _gauge("oomwatchd_queue_depth", "Reports that wait to be stored and sent.", numbers.depth),
        _counter(
            "oomwatchd_internal_errors",
            "Faults of oomwatchd itself. Each cost one step or one explanation. The log names each kind "
            "once. Please report them.",
            numbers.internal_errors,
        ),
        _counter(
            "oomwatchd_queue_overflow",
            "Reports that lost their details because too many waited; their kills are still counted.",
            numbers.overflow,
        ),
    ]
    families.append(
        _counter(
            "oomwatchd_queue_dropped",
            "Reports given up because the queue was full, even for shortened ones. A restart finds them "
            "again until the kernel log overwrites them.",
            numbers.dropped,
        )
    )
    families += [
        _counter(
            "oomwatchd_suppressed_reports",
            "Reports whose first part the kernel left out by its rate limit, as its log says.",
            numbers.suppressed,
        ),
        _counter(
            "oomwatchd_headless_reports",
            "Reports that were read without their first part. If they stay fewer than the suppressed ones, "
            "some were lost whole or killed nobody.",
            numbers.headless,
        ),
    ]
    looks = CounterMetricFamily(
        "oomwatchd_victim_looks",
        "Victims that the daemon looked for in /proc as soon as the kernel named them: how many could still "
        "be read, and how many were gone.",
        labels=("found",),
    )
    for readable, count in numbers.looked_at.items():
        looks.add_metric(["readable" if readable else "gone"], count)
    families.append(looks)
    if numbers.witness is not None:
        victims, unreported = numbers.witness
        families += [
            _counter(
                "oomwatchd_marked_victims",
                "Processes that the trace point oom:mark_victim named since the daemon started.",
                victims,
            ),
            _counter(
                "oomwatchd_unreported_victims",
                "Marked victims that the kernel log did not name within 10 s: their messages were lost, "
                "or they were exiting by themselves.",
                unreported,
            ),
        ]
    failures = CounterMetricFamily(
        "oomwatchd_sink_failures",
        "How often a sink (journal, file, webhook ...) did not take events. Network sinks try again.",
        labels=("sink",),
    )
    for sink, failed in numbers.sinks.items():
        failures.add_metric((sink,), failed)
    families += [failures, *_deliveries(numbers.deliveries.values())]
    if numbers.store is not None:
        up, stored, size, failed = numbers.store
        families += [
            _gauge(
                "oomwatchd_store_up", "1 while events reach the disk; 0: they are only in memory.", int(up)
            ),
            _gauge("oomwatchd_store_events", "Events in the store.", stored),
            _gauge("oomwatchd_store_size_bytes", "What the store uses of the disk.", size),
            _counter(
                "oomwatchd_store_failures", "Events that did not reach the disk when they came.", failed
            ),
        ]
    return families


def _parts(numbers: Numbers) -> list[Metric]:
    up = GaugeMetricFamily(
        "oomwatchd_part_up",
        "1 while this part of the daemon works; 0: the daemon works without it.",
        labels=("part",),
    )
    seconds = GaugeMetricFamily(
        "oomwatchd_part_duration_seconds",
        "How long the last run of this part took.",
        labels=("part",),
    )
    parts = {"kmsg": (numbers.kmsg_up, None), **numbers.parts}
    if numbers.store is not None:
        parts["store"] = (numbers.store[0], None)
    for name, (works, took) in sorted(parts.items()):
        up.add_metric((name,), int(works))
        if took is not None:
            seconds.add_metric((name,), took)
    return [up, seconds]


def _add(family: Metric, labels: dict[str, str], value: float, example: Example | None) -> None:
    exemplar = None
    if example is not None:
        event_id, moment = example
        # what OpenMetrics allows: 128 characters of names and values
        exemplar = Exemplar({"event_id": event_id[:100]}, 1.0, moment)
    family.add_sample(f"{family.name}_total", labels, value, exemplar=exemplar)


def _warnings(numbers: Numbers) -> list[Metric]:
    became = CounterMetricFamily(
        "oomwatchd_warnings",
        "Warnings (events oom_near) of this boot by what became of them: came_true, passed, unknown (nobody "
        "watched on); missed: exhaustions that ended in a kill without a warning, however short they were.",
        labels=("outcome",),
    )
    for outcome, number in numbers.warnings.items():
        became.add_metric((outcome,), number)
    withheld = CounterMetricFamily(
        "oomwatchd_warnings_withheld",
        "Growths of this boot towards an end that had no warning, because there were too many at once.",
        value=numbers.withheld,
    )
    if numbers.outlook is None:
        return [became, withheld]
    left = GaugeMetricFamily(
        "oomwatchd_exhaustion_left_bytes",
        "What may still be taken before somebody is killed: of the machine (cgroup empty) and of at most "
        f"{MOST_TOLD} cgroups that grow towards their limit. Page cache counts as free, swap as far as it "
        "helps.",
        labels=("cgroup",),
    )
    seconds = GaugeMetricFamily(
        "oomwatchd_exhaustion_seconds",
        "Seconds until nothing of it is left if the growth goes on like this; +Inf: no end in sight.",
        labels=("cgroup",),
    )
    stands = GaugeMetricFamily(
        "oomwatchd_warning_open", "1 while a warning of it (event oom_near) is open.", labels=("cgroup",)
    )
    for one in numbers.outlook:
        labels = (harmless(one.cgroup or "")[:LABEL_CHARACTERS],)
        left.add_metric(labels, one.left_bytes)
        seconds.add_metric(labels, float("inf") if one.seconds is None else one.seconds)
        stands.add_metric(labels, int(one.open))
    return [became, withheld, left, seconds, stands]


def _headroom(seen: Headroom) -> list[Metric]:
    zone = ("node", "memory_zone")
    headroom = GaugeMetricFamily(
        "oomwatchd_zone_headroom_bytes",
        "Free memory above what an order-0 request for movable memory must leave in this zone (free - min - "
        "lowmem reserve). If no zone has any and nothing can be reclaimed, the OOM killer runs. A low zone "
        "may always be below 0.",
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
        "How much this cgroup can still be charged before its own limit, with inactive page cache counted as "
        "free; for the 20 cgroups with the least room.",
        labels=("cgroup",),
    )
    limit = GaugeMetricFamily("oomwatchd_cgroup_limit_bytes", "The limit of this cgroup.", labels=("cgroup",))
    shown: set[str] = set()
    for group in seen.cgroups:
        name = harmless(group.path)
        # names that look the same once escaped: a series may appear only once, and the nearest come first
        if name in shown:
            continue
        shown.add(name)
        room.add_metric((name,), group.headroom_bytes)
        limit.add_metric((name,), group.limit_bytes)
    families: list[Metric] = [headroom, largest, unusable]
    if seen.available_bytes is not None:
        text = "MemAvailable: what can be had without swapping."
        families.append(_gauge("oomwatchd_memory_available_bytes", text, seen.available_bytes))
    return [*families, pressure, room, limit]


class _Collector(Collector):
    def __init__(self, metrics: Metrics, *, host: bool) -> None:
        self._metrics = metrics
        self._host = host

    def collect(self) -> Iterable[Metric]:
        return self._metrics.collect(host=self._host)


def registry(metrics: Metrics, *, host: bool = True) -> CollectorRegistry:
    """A registry of its own that serves ``metrics`` alone (no process, platform or GC series); ``host``: with
    the state of the host's memory."""
    own = CollectorRegistry(auto_describe=False)
    own.register(_Collector(metrics, host=host))
    return own


def _deliveries(states: Iterable[Delivery]) -> list[Metric]:
    """The families of the configured network sinks."""
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
        "Reports without a victim that were not sent, because one like it was sent within the minute before.",
        labels=label,
    )
    waiting = GaugeMetricFamily(
        "oomwatchd_sink_waiting_events", "Events in the store that a sink has yet to take.", labels=label
    )
    failing = GaugeMetricFamily(
        "oomwatchd_sink_failing_since_timestamp_seconds",
        "Since when every attempt to send has failed, seconds since the epoch; 0 while the sink works.",
        labels=label,
    )
    oldest = GaugeMetricFamily(
        "oomwatchd_sink_oldest_waiting_timestamp_seconds",
        "When the oldest event that a sink has yet to take happened, seconds since the epoch; 0: none waits.",
        labels=label,
    )
    for state in states:
        oldest.add_metric((state.sink,), state.oldest_waiting or 0)
        delivered.add_metric((state.sink,), state.delivered)
        dropped.add_metric((state.sink,), state.dropped)
        left_out.add_metric((state.sink,), state.left_out)
        waiting.add_metric((state.sink,), state.waiting)
        failing.add_metric((state.sink,), state.failed_since or 0)
    return [delivered, dropped, left_out, waiting, failing, oldest]


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _example() -> Headroom:
    """A host that shows everything, for the documentation."""
    zone = ZoneHeadroom(
        node=0, zone="ZONE", managed_bytes=0, free_bytes=0, min_bytes=0, reserve_bytes=0, blocks=(0,) * 11
    )
    windows = {(share, window): 0.0 for share in ("some", "full") for window in (10, 60, 300)}
    cgroup = CgroupHeadroom(path="CGROUP", limit_bytes=0, usage_bytes=0)
    return Headroom(available_bytes=0, pressure=windows, zones=(zone,), cgroups=(cgroup,))


def document() -> str:
    """docs/metrics.md, from the families themselves."""
    metrics = Metrics(sinks=("SINK",))
    metrics.delivery(Delivery(sink="SINK", position=0))
    metrics.kernel_kills(0)
    metrics.store(up=True, events=0, size=0, failures=0)
    metrics.part("PART", up=True)
    metrics.witness(0, 0)
    metrics.observe(_example)
    metrics.outlook((Outlook(cgroup="CGROUP", left_bytes=0),))
    metrics.following(Following({"SOURCE": True}, {"HOST": 0}, {("HOST", reason): 0 for reason in _REASONS}))
    lines = [
        "# Metrics",
        "",
        "<!-- written by `python -m tools.generate` -->",
        "",
        "Served on `http://127.0.0.1:10053/metrics` (`[http] listen` in the configuration), as Prometheus "
        "text or OpenMetrics.",
        "",
        "Counters of events, kills, undecoded lines and latency last as long as the boot: they survive "
        "restarts of the daemon and are saved together with the event that moved them. All other counters "
        "begin at 0 when the daemon starts. Reports that were already in the kernel log when the daemon "
        "first started in this boot are stored and marked historical, but not counted. Every label set is "
        "there from the start, with 0.",
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
            fixed = label in ("kind", "constraint", "share", "window_seconds", "order", "outcome")
            shown.append(f"`{label}`" + (f": {', '.join(known)}" if fixed else ""))
        labels = "; ".join(shown) if family.type != "histogram" else f"`le`: {', '.join(values['le'])}"
        kind = "gauge" if family.type == "info" else family.type
        lines.append(f"| `{family.name}{suffix}` | {kind} | {labels} | {family.documentation} |")
    return "\n".join(lines) + "\n"
