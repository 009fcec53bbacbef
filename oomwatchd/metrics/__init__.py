"""Prometheus metrics: plain state that the daemon sets; :mod:`.families` makes metrics of it at scrape.

Counters that follow from stored events (events, kills, undecoded lines, latency) last as long as the
boot: the store saves them in the transaction that stores the event and the daemon loads them at start.
All other counters begin at 0 with the process. None of them counts an event that was in the ring buffer
before the first start in this boot ("historical"): ``increase()`` must not show events from before the watch.

Every label set exists from the start with 0, because a series that is born at 1 never shows an increase; of
units and containers each begins at 0 (:mod:`.series`).
One long class: each thing that is counted has its method of a few lines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, get_args

import msgspec

from oomwatchd.delivery.policy import Delivery
from oomwatchd.diagnosis.attribution import names_of, short_id
from oomwatchd.diagnosis.headroom import Headroom
from oomwatchd.event import OomEvent
from oomwatchd.metrics.series import LABEL_CHARACTERS, Series
from oomwatchd.records.report import Constraint, Kind
from oomwatchd.words.escape import harmless

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from oomwatchd.warning.incidents import Outlook

KINDS: tuple[str, ...] = get_args(Kind)
#: what became of warnings; ``missed``: a kill that had none
OUTCOMES = ("came_true", "passed", "unknown", "missed")
_WARNINGS = "warnings"
CONSTRAINTS: tuple[str, ...] = (*get_args(Constraint), "unknown")

#: upper bounds in seconds: a quiet host takes milliseconds, a thrashing one seconds
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

#: units and containers with a series of their own; the kills of all others are counted as "other"
MAX_UNITS = MAX_CONTAINERS = 50
#: machines that are followed and have their own counts
MAX_HOSTS = 128
OTHER, UNKNOWN = "other", "unknown"

EVENTS = "events"
_UNITS, _CONTAINERS = "unit", "container"
_HOST_KILLS, _HOST_EVENTS = "host_kills", "host_events"
KILLS = "kills"
_LATENCY = "latency"

#: an event's id and its wall time
Example = tuple[str, float | None]


class Following(msgspec.Struct, frozen=True):
    """What a follower of other machines says of itself: sources by name that are open or not, and by host the
    bytes that were read and what was dropped, by reason."""

    sources: dict[str, bool]
    bytes: dict[str, int]
    dropped: dict[tuple[str, str], int]


class Numbers:
    """All counters at one moment: plain values without a lock. :class:`Metrics` changes them and
    ``metrics.families`` reads them, both under its lock."""

    def __init__(self, sinks: Iterable[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.events = {(kind, constraint): 0.0 for kind in KINDS for constraint in CONSTRAINTS}
        self.kills = dict.fromkeys(CONSTRAINTS, 0.0)
        self.units = Series(_UNITS, MAX_UNITS, ((OTHER,), (UNKNOWN,)), clock)
        #: by namespace, pod and container
        self.containers = Series(_CONTAINERS, MAX_CONTAINERS, ((OTHER,) * 3,), clock)
        #: kills and reports of each machine that is followed
        self.host_kills = Series(_HOST_KILLS, MAX_HOSTS, ((OTHER,),), clock)
        self.host_events = Series(_HOST_EVENTS, MAX_HOSTS, ((OTHER,),), clock)
        #: what its sources are doing, None where nothing is followed
        self.followed: Following | None = None
        #: the last event of each counter: its id and time
        self.examples: dict[tuple[str, ...], Example] = {}
        self.parts: dict[str, tuple[bool, float]] = {}
        self.buckets = [0.0] * (len(LATENCY_BUCKETS) + 1)
        self.latency_sum = 0.0
        self.last_kill: float | None = None
        self.undecoded = 0.0
        self.baseline: float | None = None
        self.kernel_kills: float | None = None
        self.records = 0
        self.lost = 0
        self.forged = 0
        self.looked_at = {True: 0, False: 0}
        self.overflow = 0
        self.dropped = 0
        self.witness: tuple[int, int] | None = None
        self.suppressed = 0.0
        self.headless = 0.0
        self.told_unseen = 0.0
        self.internal_errors = 0
        self.depth = 0
        self.kmsg_up = False
        self.sinks = dict.fromkeys(sinks, 0)
        self.deliveries: dict[str, Delivery] = {}
        self.store: tuple[bool, int, int, int] | None = None
        self.warnings = dict.fromkeys(OUTCOMES, 0.0)
        self.withheld = 0.0
        self.outlook: tuple[Outlook, ...] | None = None


class Metrics:
    """The numbers behind ``/metrics``. Every method may be called from any thread."""

    def __init__(self, sinks: Iterable[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._headroom: Callable[[], Headroom] | None = None
        self._sink_kinds = tuple(sinks)
        self._sink_names = frozenset(self._sink_kinds)
        self._numbers = Numbers(self._sink_kinds, clock)

    def load(self, counters: Mapping[str, float]) -> None:
        """Continue from what an earlier process of the same boot saved; unknown names are ignored."""
        with self._lock:
            for key in self._numbers.events:
                self._numbers.events[key] = counters.get(f"{EVENTS} {key[0]} {key[1]}", 0.0)
            for constraint in self._numbers.kills:
                self._numbers.kills[constraint] = counters.get(f"{KILLS} {constraint}", 0.0)
            self._numbers.units.load(counters)
            self._numbers.containers.load(counters)
            self._numbers.host_kills.load(counters)
            self._numbers.host_events.load(counters)
            self._numbers.buckets = [
                counters.get(f"{_LATENCY} {n}", 0.0) for n in range(len(self._numbers.buckets))
            ]
            self._numbers.latency_sum = counters.get(f"{_LATENCY} sum", 0.0)
            self._numbers.undecoded = counters.get("undecoded", 0.0)
            self._numbers.suppressed = counters.get("suppressed", 0.0)
            self._numbers.headless = counters.get("headless", 0.0)
            self._numbers.told_unseen = counters.get("told_unseen", 0.0)
            for outcome in OUTCOMES:
                self._numbers.warnings[outcome] = counters.get(f"{_WARNINGS} {outcome}", 0.0)
            self._numbers.withheld = counters.get("withheld", 0.0)
            self._numbers.last_kill = counters.get("last_kill")
            self._numbers.baseline = counters.get("baseline")

    def saved(self) -> dict[str, float]:
        """What :meth:`load` reads."""
        with self._lock:
            return self._saved()

    def _saved(self) -> dict[str, float]:
        saved = {
            f"{EVENTS} {kind} {constraint}": n for (kind, constraint), n in self._numbers.events.items() if n
        }
        saved |= {f"{KILLS} {constraint}": n for constraint, n in self._numbers.kills.items() if n}
        saved |= self._numbers.units.saved() | self._numbers.containers.saved()
        saved |= self._numbers.host_kills.saved() | self._numbers.host_events.saved()
        saved |= {f"{_LATENCY} {number}": n for number, n in enumerate(self._numbers.buckets) if n}
        saved |= {f"{_LATENCY} sum": self._numbers.latency_sum, "undecoded": self._numbers.undecoded}
        saved |= {"suppressed": self._numbers.suppressed, "headless": self._numbers.headless}
        saved |= {f"{_WARNINGS} {outcome}": n for outcome, n in self._numbers.warnings.items() if n}
        saved |= {"told_unseen": self._numbers.told_unseen, "withheld": self._numbers.withheld}
        if self._numbers.last_kill is not None:
            saved["last_kill"] = self._numbers.last_kill
        if self._numbers.baseline is not None:
            saved["baseline"] = self._numbers.baseline
        return saved

    def count(self, event: OomEvent, reports: int, kills: int, undecoded: int) -> Mapping[str, float]:
        """Count an event that the store takes (see ``store.Count``); returns what is to be saved with it.

        A kill's time is the kernel's stamp of the report on the wall clock.
        """
        constraint = event.constraint or "unknown"
        with self._lock:
            if event.unseen is not None:  # no report: the difference stays in oomwatchd_oom_kills_unaccounted
                self._numbers.told_unseen = float(event.unseen.unaccounted_kills)
            elif not event.historical:
                self._numbers.undecoded += undecoded
                if reports:
                    self._numbers.suppressed += event.suppressed_headers or 0
                    self._numbers.headless += "header" in event.missing
                self._numbers.kills[constraint] += kills
                self._numbers.events[event.kind, constraint] += reports
                self._count_places(event, kills)
                self._exemplify(event, constraint, reports, kills)
                latency = event.time.detection_latency_seconds
                if kills and kills == event.kills and latency is not None:
                    self._numbers.buckets[sum(latency > bound for bound in LATENCY_BUCKETS)] += 1
                    self._numbers.latency_sum += latency
            if kills and (moment := _seconds(event)) is not None:
                self._numbers.last_kill = max(moment, self._numbers.last_kill or 0.0)
            return self._saved()

    def count_followed(
        self, event: OomEvent, reports: int, kills: int, undecoded: int
    ) -> Mapping[str, float]:
        """The same of an event of another machine, which has its own counters: none of this host's grows."""
        name = _labels(event.host.name if event.host is not None else OTHER)
        with self._lock:
            self._numbers.host_events.add(name, float(reports))
            self._numbers.host_kills.add(name, float(kills))
            return self._numbers.host_kills.saved() | self._numbers.host_events.saved()

    def following(self, state: Following) -> None:
        """What the follower of other machines does."""
        with self._lock:
            self._numbers.followed = state

    def _count_places(self, event: OomEvent, kills: int) -> None:
        """Count the last ``kills`` kills of the event by unit and container; a later revision adds only its
        new ones."""
        owners = {one.pid: one for one in event.attribution if one.role == "victim"}
        each = [owners.get(victim.pid) for victim in event.victims for _ in range(victim.kills)]
        each[:0] = [None] * (kills - len(each))
        for whose in each[len(each) - kills :]:
            if whose is not None and whose.container_id is not None:
                called = names_of(whose)
                name = called.container or short_id(whose.container_id)
                labels = (called.namespace or "", called.pod or "", name)
                self._numbers.containers.add(_labels(*labels), 1.0)
                if not whose.unit or whose.container_id in whose.unit:
                    continue  # a scope of its own, drawn anew for each container
            unit = whose.unit if whose is not None else None
            self._numbers.units.add(_labels(unit) if unit is not None else (UNKNOWN,), 1.0)

    def _exemplify(self, event: OomEvent, constraint: str, reports: int, kills: int) -> None:
        example = event.id, _seconds(event)
        if reports:
            self._numbers.examples[EVENTS, event.kind, constraint] = example
        if kills:
            self._numbers.examples[KILLS, constraint] = example

    def kills_now(self) -> tuple[float | None, float, float | None]:
        """The kernel's count, ours, and by how much ours lags behind the kernel's growth."""
        with self._lock:
            ours = sum(self._numbers.kills.values())
            if self._numbers.kernel_kills is None:
                return None, ours, None
            return (
                self._numbers.kernel_kills,
                ours,
                self._numbers.kernel_kills - (self._numbers.baseline or 0) - ours,
            )

    @property
    def told_unseen(self) -> float:
        """How many kills of this boot earlier events say are not in the log
        (``Unseen.unaccounted_kills``)."""
        with self._lock:
            return self._numbers.told_unseen

    @property
    def lost_records(self) -> int:
        """Records of the kernel log that this process could not read."""
        with self._lock:
            return self._numbers.lost

    def observe(self, headroom: Callable[[], Headroom]) -> None:
        """``headroom`` is asked at each scrape how much memory is left; it may raise."""
        with self._lock:
            self._headroom = headroom

    def warned(self, outcome: str) -> None:
        """Count what became of a warning, or a kill that had none (one of OUTCOMES)."""
        with self._lock:
            self._numbers.warnings[outcome] += 1

    def withheld(self, count: int) -> None:
        """Count warnings that were not given, because there were too many."""
        with self._lock:
            self._numbers.withheld += count

    def outlook(self, outlook: tuple[Outlook, ...]) -> None:
        """How near the end is for the machine and the nearest cgroups."""
        with self._lock:
            self._numbers.outlook = outlook

    def part(self, name: str, *, up: bool, seconds: float = 0.0) -> None:
        """Whether a part of the daemon (one of a fixed set of names) works, and how long its last turn
        took."""
        with self._lock:
            self._numbers.parts[name] = up, seconds

    def kernel_kills(self, count: int | None) -> None:
        """``oom_kill`` of /proc/vmstat as just read, None where the kernel has none (before 4.13).

        The first one in a boot is the baseline of ``oomwatchd_oom_kills_unaccounted``: save it at once
        (``saved``), so that kills while the daemon is down are missed. Read it when the counted events are
        up to date, or the difference shows kills that are still being counted.
        """
        with self._lock:
            if count is not None and self._numbers.kernel_kills is not None:
                count = max(count, int(self._numbers.kernel_kills))  # as of a moment before: it never falls
            self._numbers.kernel_kills = count
            if self._numbers.baseline is None and count is not None:
                self._numbers.baseline = count

    def records(self, read: int = 0, *, lost: int = 0, forged: int = 0) -> None:
        """Count records of the ring buffer: read, overwritten before they were read, and those of another
        facility than kern that look like a report."""
        with self._lock:
            self._numbers.records += read
            self._numbers.lost += lost
            self._numbers.forged += forged

    def kmsg_up(self, up: bool) -> None:
        """Whether the ring buffer is open and its last read succeeded."""
        with self._lock:
            self._numbers.kmsg_up = up

    def queue(self, depth: int, *, overflow: int = 0) -> None:
        """How many captures wait for the worker, and how many more were cut down because it was full."""
        with self._lock:
            self._numbers.depth = depth
            self._numbers.overflow += overflow

    def dropped(self) -> None:
        """Count a capture for which there was no room even cut down."""
        with self._lock:
            self._numbers.dropped += 1

    def internal_error(self) -> None:
        """Count an error of our own that cost a step or an explanation."""
        with self._lock:
            self._numbers.internal_errors += 1

    def looked_at(self, *, readable: bool) -> None:
        """A victim was looked at in /proc, and was still there or not."""
        with self._lock:
            self._numbers.looked_at[readable] += 1

    def witness(self, victims: int, unreported: int) -> None:
        """What the trace point oom:mark_victim showed: processes marked as victims, and those of them that
        the log did not name in time."""
        with self._lock:
            self._numbers.witness = (victims, unreported)

    def sinks(self, names: Collection[str]) -> None:
        """Set which sinks there are; the state of all others is forgotten."""
        with self._lock:
            self._sink_names = frozenset(names)
            self._numbers.sinks = {
                name: self._numbers.sinks.get(name, 0) for name in (*self._sink_kinds, *names)
            }
            self._numbers.deliveries = {
                name: self._numbers.deliveries[name] for name in names if name in self._numbers.deliveries
            }
            kept = {_sink_part(name) for name in names}
            self._numbers.parts = {
                part: state
                for part, state in self._numbers.parts.items()
                if part in kept or not part.startswith(_sink_part(""))
            }

    def sink(self, name: str, *, up: bool, seconds: float = 0.0) -> None:
        """Whether a sink on this host took what it was last given, and how long that took."""
        self.part(_sink_part(name), up=up, seconds=seconds)

    def sink_failed(self, sink: str) -> None:
        """Count an event that a configured sink did not take; names that are not configured are ignored."""
        with self._lock:
            if sink in self._numbers.sinks:
                self._numbers.sinks[sink] += 1

    def deliveries(self) -> tuple[Delivery, ...]:
        """The state of each network sink, in the order of names."""
        with self._lock:
            return tuple(self._numbers.deliveries[name] for name in sorted(self._numbers.deliveries))

    def delivery(self, state: Delivery, seconds: float = 0.0) -> None:
        """Set the state of a network sink, and how long its last attempt took. An unknown sink is ignored."""
        with self._lock:
            if state.sink in self._sink_names:
                self._numbers.deliveries[state.sink] = state
                self._numbers.sinks[state.sink] = state.failures
                self._numbers.parts[_sink_part(state.sink)] = state.failed_since is None, seconds

    def store(self, *, up: bool, events: int, size: int, failures: int) -> None:
        """The store's state: whether its file can be written, what it holds, puts that did not reach it."""
        with self._lock:
            self._numbers.store = (up, events, size, failures)

    def counted(self) -> object:
        """What was counted and what works, to compare with what it was; the host's memory is not in it."""
        with self._lock:
            numbers = self._numbers
            return (
                *(dict(one) for one in (numbers.events, numbers.kills, numbers.sinks)),
                *(one.counts() for one in (numbers.units, numbers.containers)),
                *(one.counts() for one in (numbers.host_kills, numbers.host_events)),
                *(numbers.kernel_kills, numbers.told_unseen, numbers.last_kill, numbers.store),
                {name: up for name, (up, _) in numbers.parts.items()},
            )

    def seen(self) -> None:
        """Each series is looked at once, in a file: none begins at 0."""
        with self._lock:
            for one in (self._numbers.units, self._numbers.containers):
                one.seen()
            for one in (self._numbers.host_kills, self._numbers.host_events):
                one.seen()

    def collect(self, *, host: bool = True) -> Iterator[Metric]:
        """All families, with all label sets, of one moment; ``host``: with its memory's."""
        # without a scrape the library is not even loaded
        from oomwatchd.metrics.families import families

        # outside the lock: it reads files, and the watch must never wait for a scrape
        seen = self._look() if host else Headroom()
        with self._lock:
            return iter(families(self._numbers, seen))

    def _look(self) -> Headroom:
        if self._headroom is None:
            return Headroom()
        began = time.perf_counter()
        try:
            seen = self._headroom()
        except Exception:  # only these families are then absent
            self.part("host_memory", up=False, seconds=time.perf_counter() - began)
            return Headroom()
        self.part("host_memory", up=bool(seen.zones), seconds=time.perf_counter() - began)
        return seen


def _labels(*values: str) -> tuple[str, ...]:
    return tuple(harmless(value)[:LABEL_CHARACTERS] for value in values)


def _sink_part(name: str) -> str:
    return f"sink_{name}"


def _seconds(event: OomEvent) -> float | None:
    """The event's wall time in seconds since the epoch."""
    if event.time.wall is None:
        return None
    try:
        return datetime.fromisoformat(event.time.wall).timestamp()
    except ValueError:
        return None
