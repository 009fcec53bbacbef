"""The worker: one thread that stores, explains, counts and hands out events, each step in a try of its own.

It may wait for a disk or a journal; the main thread never waits for it. Between the two is the bounded queue
of ``waiting``.

The class is longer than others because it is the one order in which a capture is completed, explained,
placed, timed, stored and handed to the sinks: each step passes capture and event to the next.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from time import monotonic, time

import msgspec

from oomwatchd.config import Config
from oomwatchd.daemon.incident import Incident
from oomwatchd.daemon.live_facts import LiveFacts
from oomwatchd.daemon.log import OncePerKind
from oomwatchd.daemon.outputs import Outputs
from oomwatchd.daemon.own_deaths import OwnDeaths
from oomwatchd.daemon.unit_watch import UnitWatch
from oomwatchd.daemon.waiting import CUT_CAPTURES, FULL_CAPTURES, Waiting, WaitingRoom, cut_down, key_of
from oomwatchd.diagnosis.attribution import has_name
from oomwatchd.errors import OomwatchdError, UnavailableError
from oomwatchd.event import OomEvent, conclude
from oomwatchd.metrics import Metrics
from oomwatchd.observe.container import NOT_FOUND, ContainerNames
from oomwatchd.observe.hierarchy import memory_hierarchy
from oomwatchd.observe.history import Before
from oomwatchd.observe.host import Host, sees_kernel_pids
from oomwatchd.observe.members import LEAST, crowds
from oomwatchd.records.capture import OomCapture
from oomwatchd.reports.storms import MAX_COVERED, Covered, storm_key
from oomwatchd.sources.manager import ManagerJournal
from oomwatchd.store import Count, Limits, StateInUseError, StateLock, Store, StoreError

log = logging.getLogger(__name__)

#: after so long, a pid of the task table may be another's
_PLACED_SECONDS = 10.0
#: the counter that holds when this boot's journal was first watched (CLOCK_MONOTONIC, microseconds)
_JOURNAL_BEGAN = "began_journal_usec"
#: a report is large from here on: a smaller one is not worth two writes to the disk
_LARGE_BYTES = 1 << 20


class Worker:
    """Store, sinks and the thread that serves them. The main thread calls ``submit`` and ``later``."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        on_event: Callable[[OomEvent], None],
        clock: Callable[[], float] = monotonic,
        boot_id: str | None = None,
        live_facts: LiveFacts | None = None,
        names: ContainerNames | None = None,
    ) -> None:
        """``names`` are those of containers; ``live_facts`` says who holds what when a report begins (None:
        not read)."""
        self._config = config
        self._boot_id = boot_id
        self._metrics = metrics
        self._on_event = on_event
        self._clock = clock
        self._failures = OncePerKind(log)
        self._waiting = WaitingRoom(metrics)
        self._queue: SimpleQueue[int | Callable[[], None] | None] = SimpleQueue()
        self._latencies: dict[int, float] = {}
        self._unsent_repeats: dict[str, int] = {}
        #: events that are handed out with a later revision, with the number of their first news
        self._put_off: dict[str, int] = {}
        self._store = Store.open(None)
        self._lock: StateLock | None = None
        self._deaths = OwnDeaths(self._store, None)
        #: a kill's capture with the warning that it had
        self.warned: Callable[[OomCapture, OomEvent], OomCapture] | None = None
        self._outputs = Outputs(metrics, self._failures, boot_id)
        self._busy = False
        self._unit_watch: UnitWatch | None = None
        #: where the pids of reports can be looked up, None: nowhere
        self._host: Host | None = None
        self._live_facts = live_facts
        self._incident = Incident()
        self._names = names or ContainerNames()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        #: where the store's file is, None: in memory only
        self.directory: Path | None = None

    # -- the hurried half --------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Captures that are not stored yet."""
        return len(self._waiting)

    @property
    def dropped(self) -> int:
        """Captures for which there was no room even cut down; their kills are lost."""
        return self._waiting.dropped

    @property
    def idle(self) -> bool:
        """Everything submitted is stored and counted."""
        return not self._waiting and not self._busy

    @property
    def sending(self) -> bool:
        """Whether a sink across the network is taking what it has not."""
        return any(one.waiting > 0 and one.failed_since is None for one in self._metrics.deliveries())

    def open(self) -> None:
        """Open the store, in memory if its directory cannot be used, and the sinks. Raises
        StateInUseError."""
        self._open_store()
        pid = os.getpid() if sees_kernel_pids(Path("/proc")) else None
        self._deaths = OwnDeaths(self._store, self._boot_id, int(self._clock() * 1e6), pid)
        self._outputs.open(self._config, self._store)

    def position(self, boot_id: str | None) -> int | None:
        """The highest sequence number that the store knows of this boot."""
        with suppress(StoreError):
            return self._store.position(boot_id) if boot_id else None
        return None

    def last_usec(self, boot_id: str | None) -> int | None:
        """The log clock's stamp of the newest report of this boot that is or was stored."""
        with suppress(StoreError):
            return self._store.last_usec(boot_id) if boot_id else None
        return None

    def covered(self, boot_id: str | None) -> list[Covered]:
        """The runs of repeated reports that are stored and counted, oldest first."""
        found: list[Covered] = []
        with suppress(StoreError):
            stored = self._store.without_victim(boot_id, MAX_COVERED) if boot_id else []
            for capture in reversed(stored):
                key = storm_key(capture.records)
                if key is not None and capture.first_seq is not None and capture.last_seq is not None:
                    found.append(Covered(key, capture.first_seq, capture.last_seq))
        return found

    def load_counters(self, boot_id: str | None) -> dict[str, float]:
        """What an earlier daemon of this boot saved."""
        with suppress(StoreError):
            return self._store.load_counters(boot_id) if boot_id else {}
        return {}

    def save_counters(self, boot_id: str | None, counters: Mapping[str, float]) -> None:
        """Save counters that no event changes."""
        if boot_id:
            self._store.save_counters(boot_id, counters)

    def start(self) -> None:
        """Raises UnavailableError where no thread can be started."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise UnavailableError(
                f"the worker: {error}",
                hint="raise the limit on tasks (TasksMax=), processes (ulimit -u) or address space",
            ) from error
        self._outputs.start()

    def look_afterwards(self, host: Host, journal: Path | None = None) -> None:
        """Follow in the journal what becomes of events, and systemd-oomd's kills; after ``start``."""
        boot_id = host.boot_id
        self._host = host if sees_kernel_pids(host.proc) else None
        if boot_id is None:
            return
        began = self.load_counters(boot_id).get(_JOURNAL_BEGAN)
        if began is None:
            began = self._clock() * 1e6
            self.later(lambda: self.save_counters(boot_id, {_JOURNAL_BEGAN: began}))
        self._unit_watch = UnitWatch(
            memory_hierarchy(host), self._serve_again, boot_id=boot_id, began_usec=int(began)
        )
        thread = threading.Thread(
            target=self._unit_watch.watch,
            args=(lambda: ManagerJournal.open(boot_id, journal), self.later),
            name="journal",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            log.warning("what becomes of the victims' units is not known without the journal: %s", error)

    def submit(
        self, capture: OomCapture, named_at: float | None, before: Callable[[], Before] | None = None
    ) -> None:
        """Hand over a capture; a later revision replaces one that still waits. Never waits. Belongs to one
        thread."""
        if self._waiting.put(capture, named_at, before):
            self._queue.put(key_of(capture))

    def look_around(self, usec: int) -> None:
        """A report begins: have the worker read who holds what."""
        facts = self._live_facts
        if facts is not None and facts.due(usec):
            self._queue.put(lambda: facts.look(usec, int(self._clock() * 1e6)))

    def look_early(self, usec: int) -> None:
        """Memory is short, or a limit is near: have the worker read what processes hold."""
        facts = self._live_facts
        if facts is not None and facts.early_due(usec):
            self._queue.put(lambda: facts.look_early(usec))

    def later(self, task: Callable[[], None]) -> None:
        """Run ``task`` in the worker's thread, after what was submitted before."""
        self._queue.put(task)

    def tend(self) -> None:
        """Look after the store's file; for :meth:`later`."""
        self._store.check()
        self._measure_store()
        self._outputs.look()

    def take(self, captures: Iterable[OomCapture]) -> None:
        """Work at captures that do not come from the ring; for :meth:`later`."""
        for capture in captures:
            self._serve(Waiting(capture, None))

    def serve(self, make: Callable[[], OomCapture]) -> None:
        """Have a capture made and served."""
        self.later(lambda: self._serve(Waiting(make(), None)))

    def take_followed(self, capture: OomCapture) -> None:
        """Serve a report of another machine, of which nothing on this host says more; for :meth:`later`."""
        event = self._concluded(capture)
        growth = _Growth(self._metrics.count_followed, settled=capture.settled)
        outcome = self._store.put(capture, event, growth, self._boot_id)
        self._measure_store()
        if outcome != "known" and self._is_news(event, growth, outcome == "new"):
            self._on_event(event)
            self._outputs.notify()
            self._outputs.emit(event)
        self._save_position()

    def reopen_sinks(self, config: Config) -> None:
        """Close the sinks and open those of ``config``; for :meth:`later`."""
        self._outputs.close()
        self._outputs.open(config, self._store)
        self._outputs.start()

    def stop(self, seconds: float) -> bool:
        """Finish what waits and close; returns whether that took at most ``seconds``."""
        if self._unit_watch is not None:
            self._unit_watch.stop()
        if self._thread.ident is None:  # it never began
            self._close()
            return True
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # -- the patient half --------------------------------------------------------------------------

    def _run(self) -> None:
        self._tell_rest()
        while (item := self._queue.get()) is not None:
            self._busy = True
            try:
                if callable(item):
                    item()
                elif waiting := self._waiting.take(item):
                    try:
                        self._serve(waiting)
                    finally:
                        self._waiting.done(waiting)
            except Exception as error:
                self._metrics.internal_error()
                self._failures.failed("the worker", error)
            self._busy = False
        self._close()

    def _close(self) -> None:
        self._outputs.close()
        self._deaths.ended()
        self._store.close()
        if self._lock is not None:
            self._lock.close()

    def _serve(self, waiting: Waiting) -> None:
        number = key_of(waiting.capture)
        if number in self._deaths:
            self._explain(Waiting(cut_down(waiting.capture), waiting.named_at))
        elif waiting.bytes < _LARGE_BYTES:
            self._explain(waiting)
        else:
            with self._deaths.noted(number):
                self._explain(waiting)

    def _explain(self, waiting: Waiting) -> None:
        capture = self._with_more("names of containers", self._names.with_names, self._with_before(waiting))
        if self._live_facts is not None:
            capture = self._with_more("who holds what", self._live_facts.added_to, capture)
        watched = capture.settled and not capture.historical and capture.at is not None
        capture = self._store.completed(capture)
        capture = self._with_more("the reports behind it", self._incident.added_to, capture)
        event = self._concluded(capture)
        self._incident.note(capture, event)
        more = self._with_more("where its processes are", lambda one: self._placed(one, event), capture)
        more = self._with_more("names of containers", lambda one: self._called(one, event), more)
        if self.warned is not None:
            warned = self.warned
            more = self._with_more("its warning", lambda one: warned(one, event), more)
        if more is not capture:
            capture, event = more, self._concluded(more)
        capture, event = self._timed(capture, event, waiting.named_at)
        if watched and self._unit_watch is not None:
            capture, event = self._unit_watch.settled(capture, event)
        self._deaths.reported(capture, event)
        self._keep(capture, event)
        if watched and self._unit_watch is not None:
            self._unit_watch.listen(capture, event)

    def _with_before(self, waiting: Waiting) -> OomCapture:
        try:
            return waiting.capture if waiting.before is None else waiting.before().added_to(waiting.capture)
        except Exception as error:
            self._metrics.internal_error()
            self._failures.failed("telling the time before a report", error)
            return waiting.capture

    def _with_more(
        self, what: str, more: Callable[[OomCapture], OomCapture], capture: OomCapture
    ) -> OomCapture:
        """The capture with all that can be added; a fault there costs no report."""
        try:
            return more(capture)
        except Exception as error:
            self._metrics.internal_error()
            self._failures.failed(f"adding {what} to a report", error)
            return capture

    def _called(self, capture: OomCapture, event: OomEvent) -> OomCapture:
        """With the names of containers that the report names by cgroup only, because no process of theirs was
        seen alive."""
        paths = {one.cgroup for one in event.attribution if one.container_id and one.container_name is None}
        if event.memcg is not None:
            paths |= {event.memcg.oom_path, event.memcg.task_path}
        if event.near is not None:
            paths |= {one.cgroup if one.kind == "process" else one.name for one in event.near.growers}
        names = self._names.named(path for path in paths if path is not None)
        known = {one.container_id for one in event.attribution if one.container_name is not None}
        held = dict(capture.container_names)
        if names.keys() - held.keys() - known:
            capture = msgspec.structs.replace(capture, container_names=tuple((held | names).items()))
        unnamed = {one.container_id for one in event.attribution if has_name(one)} - known - names.keys()
        if unnamed and capture.names_obstacle is None:
            capture = msgspec.structs.replace(capture, names_obstacle=self._names.obstacle or NOT_FOUND)
        return capture

    def _placed(self, capture: OomCapture, event: OomEvent) -> OomCapture:
        """With what is in the cgroup at its limit, and with the cgroups of a large task table: many small
        processes are found by them, too."""
        late = capture.detected is None or time() - capture.detected > _PLACED_SECONDS
        if late or capture.settled:
            return capture
        placed = capture
        if self._live_facts is not None and event.memcg is not None:
            placed = self._live_facts.look_into(placed, event.memcg.oom_path)
        if self._host is not None and len(event.tasks) >= LEAST:
            found = crowds(self._host, (task.pid for task in event.tasks))
            placed = msgspec.structs.replace(placed, crowds=found) if found else placed
        return placed

    def _serve_again(self, capture: OomCapture) -> None:
        """Entries that the journal brought later, for a stored event or as an event of their own."""
        self._keep(capture, self._concluded(capture))

    def _keep(self, capture: OomCapture, event: OomEvent) -> None:
        growth = _Growth(self._metrics.count, settled=capture.settled)
        outcome = self._store.put(capture, event, growth)
        self._metrics.queue(len(self._waiting))
        self._measure_store()
        news = outcome != "known" and not event.historical and self._is_news(event, growth, outcome == "new")
        if key_of(capture) in self._waiting:  # the rest of a group kill, mostly: told of in one
            if news:
                self._put_off.setdefault(event.id, self._store.last_news)
            return
        self._outputs.notify()
        if self._put_off.pop(event.id, None) is not None or news:
            self._on_event(event)
            self._outputs.emit(event)
            self._save_position()

    def _save_position(self) -> None:
        """Note how far the local sinks are; while more captures wait, the next put saves it."""
        first = min(self._put_off.values(), default=self._store.last_news + 1)
        self._store.delivered = first - 1
        if not self._waiting:
            with suppress(StoreError):
                self._store.save_delivered()

    def _tell_rest(self) -> None:
        """Hand out what the last daemon stored and did not hand out before it was killed."""
        undelivered: dict[str, None] = {}  # the rest of a group kill is news of its own
        try:
            undelivered = dict.fromkeys(news.event_id for news in self._store.undelivered(FULL_CAPTURES))
        except StoreError as error:
            self._failures.failed("telling what was stored", error)
        for event_id in undelivered:
            try:
                capture = self._store.get(event_id)
            except StoreError as error:  # a damaged row
                self._failures.failed("telling what was stored", error)
                continue
            if capture is not None:
                if capture.source.followed is None and key_of(capture) in self._deaths:
                    capture = cut_down(capture)
                self._outputs.emit(self._concluded(capture))
        self._save_position()

    def _concluded(self, capture: OomCapture) -> OomEvent:
        """The event; a fault of its explanation is logged and counted."""
        event, error = conclude(capture)
        if error is not None:
            self._metrics.internal_error()
            self._failures.failed("explaining a report", error)
        return event

    def _is_news(self, event: OomEvent, growth: _Growth, new: bool) -> bool:
        """A revision is sent when it has new kills; a storm's last revision is sent for its count, a
        warning's for its end."""
        if event.near is not None:
            return True
        unsent = self._unsent_repeats.pop(event.id, 0) + (0 if new else growth.reports)
        if new or growth.kills:
            return True
        if growth.settled:
            return unsent > 0
        if unsent:
            self._unsent_repeats[event.id] = unsent
            if len(self._unsent_repeats) > FULL_CAPTURES:
                del self._unsent_repeats[next(iter(self._unsent_repeats))]
        return False

    def _timed(
        self, capture: OomCapture, event: OomEvent, named_at: float | None
    ) -> tuple[OomCapture, OomEvent]:
        """The detection latency is the first issue's; later revisions of the report keep it."""
        key = key_of(capture)
        latency = self._latencies.pop(key, None)
        if latency is None and named_at is not None:
            latency = max(0.0, self._clock() - named_at)
        if latency is None:
            return capture, event
        if not capture.settled:
            self._latencies[key] = latency
            if len(self._latencies) > CUT_CAPTURES:
                del self._latencies[next(iter(self._latencies))]
        capture = msgspec.structs.replace(capture, detection_latency_seconds=latency)
        time = msgspec.structs.replace(event.time, detection_latency_seconds=latency)
        return capture, msgspec.structs.replace(event, time=time)

    # -- opening and closing -----------------------------------------------------------------------

    def _open_store(self) -> None:
        section = self._config.store
        limits = Limits(
            max_events=section.max_events,
            max_bytes=section.max_bytes,
            max_age_seconds=section.max_age_days * 86400.0,
        )
        directory = self._config.state_path()
        try:
            self._lock = StateLock.take(directory)
            store = Store.open(directory, limits=limits)
        except OomwatchdError as error:
            if isinstance(error, StateInUseError) and section.in_use == "end":
                raise
            log.warning("%s; events are kept in memory only, until the daemon ends", error.message)
            store = Store.open(None, limits=limits.in_memory())
        else:
            self.directory = directory
        self._store.close()
        self._store = store
        self._measure_store()

    def _measure_store(self) -> None:
        store = self._store
        up = self.directory is not None and store.failure is None
        self._metrics.store(up=up, events=store.events, size=store.bytes, failures=store.failures)

    @property
    def store(self) -> Store:
        """The store, for reading."""
        return self._store

    @property
    def store_failure(self) -> str | None:
        """Why events are not written to disk; None if they are."""
        return self._store.failure or (None if self.directory is not None else "no directory for them")

    def sends_to(self, name: str) -> bool:
        """Whether a sink of this name takes events."""
        return self._outputs.sends_to(name)

    @property
    def stored_events(self) -> int:
        """Events in the store, as of the last one."""
        return self._store.events


class _Growth:
    """Reports to the metrics by how much the store grew."""

    def __init__(self, count: Count, *, settled: bool) -> None:
        self._count = count
        self.settled = settled
        self.reports = 0
        self.kills = 0

    def __call__(self, event: OomEvent, reports: int, kills: int, undecoded: int) -> Mapping[str, float]:
        self.reports, self.kills = reports, kills
        return self._count(event, reports, kills, undecoded)
