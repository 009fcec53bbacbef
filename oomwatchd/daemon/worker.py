"""The worker: one thread that completes, explains, stores, counts and hands out what the main thread submits.

It may wait for a disk or a journal; the main thread never waits for it. Between the two is the bounded queue
of ``waiting``. What is added to a capture is ``completion``'s, what becomes of an event ``publisher``'s.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from time import monotonic

from oomwatchd.config import Config
from oomwatchd.daemon.completion import Completion
from oomwatchd.daemon.earlier import Earlier
from oomwatchd.daemon.live_facts import LiveFacts
from oomwatchd.daemon.log import OncePerKind
from oomwatchd.daemon.own_deaths import OwnDeaths
from oomwatchd.daemon.publisher import Publisher
from oomwatchd.daemon.unit_watch import UnitWatch
from oomwatchd.daemon.waiting import Waiting, WaitingRoom, cut_down, key_of
from oomwatchd.errors import UnavailableError
from oomwatchd.event import OomEvent
from oomwatchd.metrics import Metrics
from oomwatchd.observe.container import ContainerNames
from oomwatchd.observe.hierarchy import memory_hierarchy
from oomwatchd.observe.history import Before
from oomwatchd.observe.host import Host, sees_kernel_pids
from oomwatchd.records.capture import OomCapture
from oomwatchd.sources.manager import ManagerJournal
from oomwatchd.store import Store

log = logging.getLogger(__name__)

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
        self._clock = clock
        self._failures = OncePerKind(log)
        self._waiting = WaitingRoom(metrics)
        self._queue: SimpleQueue[int | Callable[[], None] | None] = SimpleQueue()
        self._completion = Completion(metrics, self._failures, clock, live_facts, names or ContainerNames())
        self._publisher = Publisher(metrics, self._failures, self._waiting, on_event, boot_id)
        self._deaths = OwnDeaths(self.store, None)
        self._busy = False
        self._unit_watch: UnitWatch | None = None
        self._live_facts = live_facts
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

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
        self._publisher.open_store(self._config)
        pid = os.getpid() if sees_kernel_pids(Path("/proc")) else None
        self._deaths = OwnDeaths(self.store, self._boot_id, int(self._clock() * 1e6), pid)
        self._publisher.open_sinks(self._config)

    def earlier(self, boot_id: str | None) -> Earlier:
        """What earlier daemons of that boot left; after ``open``."""
        return Earlier(self.store, boot_id)

    def link_warnings(self, warned: Callable[[OomCapture, OomEvent], OomCapture]) -> None:
        """Have ``warned`` add to a kill's capture the warning that it had; before ``start``."""
        self._completion.warned = warned

    def start(self) -> None:
        """Raises UnavailableError where no thread can be started."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise UnavailableError(
                f"the worker: {error}",
                hint="raise the limit on tasks (TasksMax=), processes (ulimit -u) or address space",
            ) from error
        self._publisher.start()

    def look_afterwards(self, host: Host, journal: Path | None = None) -> None:
        """Follow in the journal what becomes of events, and systemd-oomd's kills; after ``start``."""
        boot_id = host.boot_id
        self._completion.host = host if sees_kernel_pids(host.proc) else None
        if boot_id is None:
            return
        earlier = self.earlier(boot_id)
        began = earlier.counters().get(_JOURNAL_BEGAN)
        if began is None:
            began = self._clock() * 1e6
            self.later(lambda: earlier.save_counters({_JOURNAL_BEGAN: began}))
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
        self._publisher.look()

    def take(self, captures: Iterable[OomCapture]) -> None:
        """Work at captures that do not come from the ring; for :meth:`later`."""
        for capture in captures:
            self._serve(Waiting(capture, None))

    def serve(self, make: Callable[[], OomCapture]) -> None:
        """Have a capture made and served."""
        self.later(lambda: self._serve(Waiting(make(), None)))

    def take_followed(self, capture: OomCapture) -> None:
        """Serve a report of another machine, of which nothing on this host says more; for :meth:`later`."""
        self._publisher.publish_followed(capture, self._completion.concluded(capture))

    def reopen_sinks(self, config: Config) -> None:
        """Close the sinks and open those of ``config``; for :meth:`later`."""
        self._publisher.reopen_sinks(config)

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
        self._publisher.publish_rest(self._event_again)
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
        self._publisher.close_sinks()
        self._deaths.ended()
        self._publisher.close_store()

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
        capture = self._completion.with_moment(waiting)
        watched = capture.settled and not capture.historical and capture.at is not None
        capture, event = self._completion.explained(self.store.completed(capture), waiting.named_at)
        if watched and self._unit_watch is not None:
            capture, event = self._unit_watch.settled(capture, event)
        self._deaths.reported(capture, event)
        self._publisher.publish(capture, event)
        if watched and self._unit_watch is not None:
            self._unit_watch.listen(capture, event)

    def _serve_again(self, capture: OomCapture) -> None:
        """Entries that the journal brought later, for a stored event or as an event of their own."""
        self._publisher.publish(capture, self._completion.concluded(capture))

    def _event_again(self, capture: OomCapture) -> OomEvent:
        """The event of a stored report, of which a daemon may have died."""
        if capture.source.followed is None and key_of(capture) in self._deaths:
            capture = cut_down(capture)
        return self._completion.concluded(capture)

    @property
    def store(self) -> Store:
        """The store, for reading."""
        return self._publisher.store

    @property
    def directory(self) -> Path | None:
        """Where the store's file is, None: in memory only."""
        return self._publisher.directory

    def sends_to(self, name: str) -> bool:
        """Whether a sink of this name takes events."""
        return self._publisher.sends_to(name)
