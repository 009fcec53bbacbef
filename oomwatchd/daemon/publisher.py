"""Each event is stored, counted by how much the store grew, and handed to the sinks if it is news.

A local sink takes an event once. How far they are is saved, so that the next daemon hands out what this one
stored and did not hand out before it was killed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from oomwatchd.config import Config
from oomwatchd.daemon.log import OncePerKind
from oomwatchd.daemon.outputs import Outputs
from oomwatchd.daemon.waiting import FULL_CAPTURES, WaitingRoom, key_of
from oomwatchd.errors import OomwatchdError
from oomwatchd.event import OomEvent
from oomwatchd.metrics import Metrics
from oomwatchd.records.capture import OomCapture
from oomwatchd.store import Count, Limits, StateInUseError, StateLock, Store, StoreError

log = logging.getLogger(__name__)


class Publisher:
    """The store and the sinks, as of one thread: the worker's."""

    def __init__(
        self,
        metrics: Metrics,
        failures: OncePerKind,
        waiting: WaitingRoom,
        on_event: Callable[[OomEvent], None],
        boot_id: str | None,
    ) -> None:
        self._metrics = metrics
        self._failures = failures
        self._waiting = waiting
        self._on_event = on_event
        self._boot_id = boot_id
        self._outputs = Outputs(metrics, failures, boot_id)
        self._unsent_repeats: dict[str, int] = {}
        #: events that are handed out with a later revision, with the number of their first news
        self._put_off: dict[str, int] = {}
        self._lock: StateLock | None = None
        self.store = Store.open(None)
        #: where the store's file is, None: in memory only
        self.directory: Path | None = None

    def open_store(self, config: Config) -> None:
        """Open the store, in memory if its directory cannot be used. Raises StateInUseError."""
        section, directory = config.store, config.state_path()
        limits = Limits(
            max_events=section.max_events,
            max_bytes=section.max_bytes,
            max_age_seconds=section.max_age_days * 86400.0,
        )
        self.store.close()
        try:
            self._lock = StateLock.take(directory)
            self.store, self.directory = Store.open(directory, limits=limits), directory
        except OomwatchdError as error:
            if isinstance(error, StateInUseError) and section.in_use == "end":
                raise
            log.warning("%s; events are kept in memory only, until the daemon ends", error.message)
            self.store = Store.open(None, limits=limits.in_memory())
        self._measure()

    def open_sinks(self, config: Config) -> None:
        """Open the sinks of ``config``; they begin with :meth:`start`."""
        self._outputs.open(config, self.store)

    def start(self) -> None:
        self._outputs.start()

    def reopen_sinks(self, config: Config) -> None:
        """Close the sinks and open those of ``config``."""
        self._outputs.close()
        self.open_sinks(config)
        self.start()

    def close_sinks(self) -> None:
        self._outputs.close()

    def close_store(self) -> None:
        self.store.close()
        if self._lock is not None:
            self._lock.close()

    def sends_to(self, name: str) -> bool:
        """Whether a sink of this name takes events."""
        return self._outputs.sends_to(name)

    def look(self) -> None:
        """Look after the store's file and the sinks."""
        self.store.check()
        self._measure()
        self._outputs.look()

    def _measure(self) -> None:
        """The store's state, into the metrics."""
        store = self.store
        up = self.directory is not None and store.failure is None
        self._metrics.store(up=up, events=store.events, size=store.bytes, failures=store.failures)

    def publish(self, capture: OomCapture, event: OomEvent) -> None:
        """Keep an event of this host. While a later revision waits, it is handed out with that one."""
        growth = _Growth(self._metrics.count, settled=capture.settled)
        outcome = self.store.put(capture, event, growth)
        self._metrics.queue(len(self._waiting))
        self._measure()
        news = outcome != "known" and not event.historical and self._is_news(event, growth, outcome == "new")
        if key_of(capture) in self._waiting:  # the rest of a group kill, mostly: told of in one
            if news:
                self._put_off.setdefault(event.id, self.store.last_news)
            return
        self._outputs.notify()
        if self._put_off.pop(event.id, None) is not None or news:
            self._on_event(event)
            self._outputs.emit(event)
            self._save_position()

    def publish_followed(self, capture: OomCapture, event: OomEvent) -> None:
        """Keep an event of another machine; this host's counts do not change."""
        growth = _Growth(self._metrics.count_followed, settled=capture.settled)
        outcome = self.store.put(capture, event, growth, self._boot_id)
        self._measure()
        if outcome != "known" and self._is_news(event, growth, outcome == "new"):
            self._on_event(event)
            self._outputs.notify()
            self._outputs.emit(event)
        self._save_position()

    def publish_rest(self, event_of: Callable[[OomCapture], OomEvent]) -> None:
        """Hand out what the last daemon stored and did not hand out before it was killed."""
        undelivered: dict[str, None] = {}  # the rest of a group kill is news of its own
        try:
            undelivered = dict.fromkeys(news.event_id for news in self.store.undelivered(FULL_CAPTURES))
        except StoreError as error:
            self._failures.failed("telling what was stored", error)
        for event_id in undelivered:
            try:
                capture = self.store.get(event_id)
            except StoreError as error:  # a damaged row
                self._failures.failed("telling what was stored", error)
                continue
            if capture is not None:
                self._outputs.emit(event_of(capture))
        self._save_position()

    def _save_position(self) -> None:
        """Note how far the local sinks are; while more captures wait, the next put saves it."""
        first = min(self._put_off.values(), default=self.store.last_news + 1)
        self.store.delivered = first - 1
        if not self._waiting:
            with suppress(StoreError):
                self.store.save_delivered()

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
