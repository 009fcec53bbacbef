"""Hands stored events to sinks across the network: at least once, in order, for as long as it takes.

Each sink has its own thread and its own position in the store's news. No sink waits for another, and nothing
waits for a sink. The position advances only when the receiver has taken an event, so neither a restart nor an
outage loses one. An event that is delivered twice has the same id. Bounds: those of the store, and an age
beyond which an event is given up and counted.

One long class: a lane is one thread, and every step needs its position, its deadline and its failures.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeGuard

import msgspec

from oomwatchd.delivery.policy import Delivery, News, RateBound, pause
from oomwatchd.errors import DeliveryError, OomwatchdError
from oomwatchd.event import Conclusion, OomEvent, conclude, unexplained
from oomwatchd.records.capture import OomCapture

log = logging.getLogger(__name__)

#: older news are dropped
MAX_AGE_SECONDS = 7 * 86400.0
#: a wall clock before 2020 was never set: ages mean nothing then
_CLOCK_UNSET = 1_577_836_800.0
#: how long a stopping outbox waits for deliveries under way
STOP_SECONDS = 2.0
_ERROR_LENGTH = 200
#: a fault of our own counts as this many failures in a row: a pause of half a minute
_AFTER_A_FAULT = 6
#: an attempt has its deadline (timeout_seconds, 60 at most): one that takes longer than two hangs
OVERDUE_SECONDS = 120.0
#: no further event is added to a batch whose events have more tasks than this
_BATCH_TASKS = 4096
#: a large event takes some 10 MiB while it is made: one lane at a time
_EXPLAINING = threading.Lock()
#: an event is given up after this many attempts that end in a fault of our own
_FAULTS = 3


def _share() -> float:
    """A random number from 0 to 1, without loading the module ``random``."""
    return int.from_bytes(os.urandom(4)) / 2**32


class Receiver(Protocol):
    """A sink across the network. ``batch`` is how many events it takes at once."""

    @property
    def name(self) -> str: ...

    @property
    def batch(self) -> int: ...

    def deliver(self, events: Sequence[OomEvent]) -> None:
        """Hand the events over, all or none. Raises DeliveryError; may take seconds."""

    def close(self) -> None: ...


class Holding(Receiver, Protocol):
    """A receiver that holds some of the events it took, to send them later as one message."""

    def due(self) -> float | None:
        """Seconds until the held events are due; None: none are held."""

    def tell_held(self, *, at_the_end: bool = False) -> None:
        """Send the held events that are due, ``at_the_end`` all. Raises DeliveryError, and keeps them
        then."""


def _holds(receiver: Receiver) -> TypeGuard[Holding]:
    # not isinstance(): with a protocol it brings inspect, ast and dis from Python 3.12 on
    return hasattr(receiver, "tell_held")


class Shelf(Protocol):
    """The store, as the outbox sees it. Its methods raise OomwatchdError."""

    @property
    def last_news(self) -> int: ...

    def news(self, position: int, limit: int) -> Sequence[News]: ...

    def get(self, event_id: str) -> OomCapture | None: ...

    def deliveries(self) -> Sequence[Delivery]: ...

    def save_delivery(self, delivery: Delivery) -> None: ...

    def forget_deliveries(self, kept: Sequence[str]) -> None: ...


class Lane:
    """The deliveries to one receiver: what is next, and when to try again. Belongs to one thread."""

    def __init__(
        self,
        receiver: Receiver,
        shelf: Shelf,
        state: Delivery,
        *,
        wall: Callable[[], float] = time.time,
        share: Callable[[], float] = _share,
        conclude: Callable[[OomCapture], Conclusion] = conclude,
        boot_id: str | None = None,
        uptime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._receiver = receiver
        self._shelf = shelf
        self._wall = wall
        self._share = share
        self._conclude = conclude
        self._bound = RateBound()
        self._boot_id = boot_id
        self._uptime = uptime
        self._in_a_row = 0
        #: when the attempt under way began (CLOCK_MONOTONIC), None: there is none
        self._began: float | None = None
        self._said_overdue = False
        #: faults of our own in a row
        self._faults = 0
        #: events refused in a row, when the first of them was refused, and the last one's id
        self._refused, self._refused_since, self._refused_id = 0, 0.0, ""
        self._lock = threading.Lock()
        self._ended = False
        #: the last news of a batch that was refused as a whole: up to it, events are sent one by one
        self._single_up_to = 0
        #: read by other threads
        self.state = state
        #: how long the last attempt took
        self.seconds = 0.0

    def end(self) -> None:
        """Another lane takes over: deliveries still under way change nothing any more."""
        with self._lock:
            self._ended = True

    def look(self) -> None:
        """Count waiting events between two attempts."""
        waiting = max(0, self._shelf.last_news - self.state.position)
        oldest = None
        if waiting:
            with suppress(OomwatchdError):
                oldest = next((news.wall for news in self._shelf.news(self.state.position, 1)), None)
        self.state = msgspec.structs.replace(self.state, waiting=waiting, oldest_waiting=oldest)

    @property
    def seen(self) -> Delivery:
        """The state for others: an attempt that is longer under way than any deadline of the receiver counts
        as a failure too."""
        began = self._began
        if began is None or time.monotonic() - began < OVERDUE_SECONDS:
            return self.state
        if not self._said_overdue:
            self._said_overdue = True
            log.error(
                "sink %s: an attempt that began %d s ago has not ended", self.state.sink, OVERDUE_SECONDS
            )
        return msgspec.structs.replace(
            self.state,
            failures=self.state.failures + 1,
            failed_since=self.state.failed_since or self._wall() - (time.monotonic() - began),
            last_error="an attempt does not come to its end",
            waiting=max(1, self._shelf.last_news - self.state.position),
        )

    @property
    def idle_seconds(self) -> float | None:
        """Seconds until a step is due although nothing waits; None: never."""
        return self._receiver.due() if _holds(self._receiver) else None

    def tell_held(self, *, at_the_end: bool = False) -> None:
        """Have the receiver send the held events that are due, ``at_the_end`` all."""
        if _holds(self._receiver):
            try:
                self._receiver.tell_held(at_the_end=at_the_end)
            except DeliveryError as error:
                what = "message is lost, its events are stored" if at_the_end else "message is sent later"
                log.warning("sink %s: %s; the held %s", self.state.sink, error, what)
                self._save(failures=self.state.failures + 1, last_error=str(error)[:_ERROR_LENGTH])

    def step(self) -> float | None:
        """Try the next events once. Returns seconds until the next step is due; None: nothing waits."""
        limit = 1 if self.state.position < self._single_up_to else self._receiver.batch
        news = self._shelf.news(self.state.position, limit)
        if not news:
            if self.state.waiting:
                self._save(waiting=0, oldest_waiting=None)
            self.tell_held()
            return None
        now = self._wall()
        events, dropped, left_out, considered = self._chosen(news, now)
        news = news[:considered]
        last = news[-1].number
        if events:
            began = self._began = time.monotonic()
            error = self._delivered(events)
            self._began, self._said_overdue = None, False
            self.seconds = time.monotonic() - began
            if error is not None:
                if not error.refused:
                    return self._failed(error, now, news)
                if len(news) > 1:
                    self._single_up_to = last
                    return 0.0
                return self._given_up(error, now, news, events[0], left_out)
            if self.state.failed_since is not None:
                log.warning("sink %s takes events again", self.state.sink)
            self._in_a_row = self._refused = 0
            self.state = msgspec.structs.replace(self.state, last_delivered=self._wall(), failed_since=None)
        self._pass(news, delivered=len(events), left_out=left_out, dropped=dropped)
        return 0.0

    def _delivered(self, events: Sequence[OomEvent]) -> DeliveryError | None:
        """Hand the events over; return the error if they were not taken. A fault of ours (an event that
        cannot be put into the receiver's form) may recur with each attempt: the third one counts as a
        refusal."""
        try:
            self._receiver.deliver(events)
        except DeliveryError as error:
            return error
        except Exception as fault:
            log.error("sink %s: %s: %s", self.state.sink, type(fault).__name__, fault, exc_info=fault)
            self._faults += 1
            return DeliveryError(
                f"a bug in oomwatchd: {type(fault).__name__}", refused=self._faults >= _FAULTS
            )
        self._faults = 0
        return None

    def _pass(
        self,
        news: Sequence[News],
        *,
        delivered: int,
        left_out: int,
        dropped: int,
        next_attempt: float | None = None,
    ) -> None:
        """Move the position past these news."""
        last = news[-1].number
        missing = last - self.state.position - len(news)
        self._save(
            position=last,
            delivered=self.state.delivered + delivered,
            left_out=self.state.left_out + left_out,
            dropped=self.state.dropped + dropped + missing,
            next_attempt=next_attempt,
            waiting=max(0, self._shelf.last_news - last),
            oldest_waiting=None,
        )

    def _chosen(self, news: Sequence[News], now: float) -> tuple[list[OomEvent], int, int, int]:
        """The events to deliver, how many are given up, how many are left out, and of how many news."""
        events: list[OomEvent] = []
        dropped = left_out = tasks = 0
        last = {item.event_id: item.number for item in news}  # the rest of a group kill is news of its own
        for considered, item in enumerate(news):
            if tasks > _BATCH_TASKS:
                return events, dropped, left_out, considered
            if item.number != last[item.event_id]:
                continue
            with _EXPLAINING:
                event = self._event_of(item, now)
            if event is None:
                dropped += 1
                continue
            tasks += len(event.tasks)
            where = event.memcg.oom_path if event.memcg else None
            # the last revision of a storm always passes
            passes = event.repeats or (
                self._bound.take(event.id, event.kind, event.kills, where, item.wall) is not None
            )
            if passes:
                events.append(event)
            else:
                left_out += 1
        return events, dropped, left_out, len(news)

    def _event_of(self, item: News, now: float) -> OomEvent | None:
        """The event of this news; None: it is gone, or too old."""
        try:
            capture = self._shelf.get(item.event_id)
        except OomwatchdError as error:  # a damaged row
            log.error("sink %s: %s", self.state.sink, error)
            return None
        if capture is None or self._is_old(item, capture, now):
            return None
        event, fault = self._conclude(capture)
        if fault is not None:
            log.error("sink %s: event %s: %s", self.state.sink, event.id, unexplained(fault))
        return event

    def _is_old(self, item: News, capture: OomCapture, now: float) -> bool:
        """Whether it is too old to deliver. A board without a battery-backed clock has the time of its last
        shutdown until it learns the time, so an event of this boot is never older than this boot."""
        if now <= _CLOCK_UNSET or not _CLOCK_UNSET < item.wall < now - MAX_AGE_SECONDS:
            return False
        of_this_boot = self._boot_id is not None and capture.source.boot_id == self._boot_id
        return not of_this_boot or self._uptime() > MAX_AGE_SECONDS

    def _given_up(
        self, error: DeliveryError, now: float, news: Sequence[News], event: OomEvent, left_out: int
    ) -> float:
        """Give up an event that the receiver will never take. If it also refused the one before, it may
        refuse all, for a fault of ours or its own: then pause, so that there is time to fix it before the
        next ones."""
        log.error("sink %s refuses event %s: %s; given up", self.state.sink, event.id, error)
        if not self._refused:
            self._refused_since = now
        if event.id != self._refused_id:  # another refusal of the same event says nothing new
            self._refused += 1
        self._refused_id = event.id
        self._in_a_row = 0
        seconds, failed_since = 0.0, self.state.failed_since
        if self._refused > 1:
            seconds = pause(self._refused - 1, self._share())
            failed_since = failed_since or self._refused_since
        self.state = msgspec.structs.replace(
            self.state,
            failures=self.state.failures + 1,
            failed_since=failed_since,
            last_error=str(error)[:_ERROR_LENGTH],
        )
        until = now + seconds if seconds else None
        self._pass(news, delivered=0, left_out=left_out, dropped=1, next_attempt=until)
        return seconds

    def _failed(self, error: DeliveryError, now: float, news: Sequence[News]) -> float:
        self._in_a_row += 1
        seconds = pause(self._in_a_row, self._share(), retry_after=error.retry_after_seconds)
        if self.state.failed_since is None:
            log.warning(
                "sink %s: %s; events wait in the store, tried again until taken", self.state.sink, error
            )
        self._save(
            failures=self.state.failures + 1,
            failed_since=self.state.failed_since or now,
            next_attempt=now + seconds,
            last_error=str(error)[:_ERROR_LENGTH],
            waiting=max(len(news), self._shelf.last_news - self.state.position),
            oldest_waiting=news[0].wall,
        )
        return seconds

    def _save(self, **changes: object) -> None:
        self.state = msgspec.structs.replace(self.state, **changes)
        # a store that cannot be written now: after a restart some events are delivered again
        with suppress(OomwatchdError), self._lock:
            if not self._ended:
                self._shelf.save_delivery(self.state)


class Outbox:
    """All receivers, each with its thread. ``notify`` may be called from any thread."""

    def __init__(
        self,
        receivers: Sequence[Receiver],
        shelf: Shelf,
        on_state: Callable[[Delivery, float], None],
        boot_id: str | None = None,
    ) -> None:
        """``on_state`` gets each state and the seconds that the last attempt took. A new receiver begins with
        events from now on. ``boot_id`` is this boot's. Raises OomwatchdError."""
        self._on_state = on_state
        self._stopping = threading.Event()
        self._receivers = receivers
        known = {state.sink: state for state in shelf.deliveries()}
        with suppress(OomwatchdError):  # a disk that is full now; the next start forgets them
            shelf.forget_deliveries([receiver.name for receiver in receivers])
        self._lanes: list[tuple[Lane, threading.Event, threading.Thread]] = []
        for receiver in receivers:
            state = known.get(receiver.name)
            if state is None or state.position > shelf.last_news:
                state = Delivery(sink=receiver.name, position=shelf.last_news)
                with suppress(OomwatchdError):
                    shelf.save_delivery(state)
            lane, wake = Lane(receiver, shelf, state, boot_id=boot_id), threading.Event()
            thread = threading.Thread(
                target=self._run, args=(lane, wake), name=f"sink {receiver.name}", daemon=True
            )
            self._lanes.append((lane, wake, thread))
            on_state(state, 0.0)

    def start(self) -> None:
        """Begin to deliver."""
        for lane, _, thread in self._lanes:
            try:
                thread.start()
            except RuntimeError as error:
                log.error("sink %s: %s; events wait in the store", lane.state.sink, error)

    def notify(self) -> None:
        """There may be news."""
        for _, wake, _ in self._lanes:
            wake.set()

    def look(self) -> None:
        """Report the state of each lane, even if it hangs; to be called every few seconds."""
        for lane, _, _ in self._lanes:
            self._on_state(lane.seen, lane.seconds)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop; deliveries under way get ``seconds``. The next outbox delivers the rest."""
        self._stopping.set()
        self.notify()
        deadline = time.monotonic() + seconds
        for lane, _, thread in self._lanes:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
            lane.end()
        for receiver in self._receivers:
            with suppress(Exception):
                receiver.close()

    def _run(self, lane: Lane, wake: threading.Event) -> None:
        self._deliver(lane, wake)
        with suppress(Exception):  # the receiver may be closed by now
            lane.tell_held(at_the_end=True)

    def _deliver(self, lane: Lane, wake: threading.Event) -> None:
        due = 0.0
        while not self._stopping.is_set():
            wake.clear()
            seconds: float | None = due - time.monotonic()
            if due <= time.monotonic():
                try:
                    seconds = lane.step()
                except Exception as error:
                    if self._stopping.is_set():
                        return
                    log.error("sink %s: %s: %s", lane.state.sink, type(error).__name__, error, exc_info=error)
                    seconds = pause(_AFTER_A_FAULT, 0.0)
                due = time.monotonic() + (seconds or 0.0)
            else:
                lane.look()
            if self._stopping.is_set():
                return
            self._on_state(lane.state, lane.seconds)
            if seconds is None or seconds > 0:
                wake.wait(lane.idle_seconds if seconds is None else seconds)
