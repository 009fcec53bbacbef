"""The outbox: a real store, a receiver that answers as the test says, a clock that the test sets; nothing
sleeps."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.delivery.outbox import MAX_AGE_SECONDS, Lane, Outbox
from oomwatchd.delivery.policy import (
    LONGEST_PAUSE_SECONDS,
    LONGEST_RETRY_AFTER_SECONDS,
    Delivery,
    RateBound,
    pause,
)
from oomwatchd.errors import DeliveryError
from oomwatchd.event import Conclusion, OomEvent
from oomwatchd.event.identity import event_id
from oomwatchd.records.capture import OomCapture
from oomwatchd.store import FILE_NAME, Limits, Store
from tests.samples import capture, event, malformed

NOW = 1_790_000_000.0


class Listener:
    """A receiver; ``answers`` are what it does with each attempt, then it takes everything."""

    name = "listener"

    def __init__(self, *answers: Exception | None, batch: int = 1) -> None:
        self.batch = batch
        self.answers = list(answers)
        self.taken: list[str] = []
        self.attempts: list[list[str]] = []
        self.closed = False

    def deliver(self, events: Sequence[OomEvent]) -> None:
        self.attempts.append([e.id for e in events])
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.taken += self.attempts[-1]

    def close(self) -> None:
        self.closed = True


class Rig:
    """A store, a lane on it, and the clock of both."""

    def __init__(self, directory: Path | None, receiver: Listener, limits: Limits | None = None) -> None:
        self.now = NOW
        self.directory = directory
        self.receiver = receiver
        self.store = Store.open(directory, limits=limits, clock=lambda: self.now)
        self.events: dict[int, OomEvent] = {}
        self.lane = self.new_lane()

    def new_lane(self) -> Lane:
        known = {state.sink: state for state in self.store.deliveries()}
        state = known.get("listener") or Delivery(sink="listener", position=self.store.last_news)
        self.store.save_delivery(state)
        return Lane(
            self.receiver, self.store, state, wall=lambda: self.now, share=lambda: 0.0, conclude=self.conclude
        )

    def conclude(self, stored: OomCapture) -> Conclusion:
        assert stored.first_seq is not None
        return Conclusion(self.events[stored.first_seq])

    def put(self, seq: int, revision: int = 0, **fields: object) -> None:
        # the fields of an event are of many types; msgspec checks each
        self.events[seq] = event(seq, **fields)  # type: ignore[arg-type]
        repeats = self.events[seq].repeats
        self.store.put(
            capture(seq, revision=revision, settled=revision > 0, repeats=repeats), self.events[seq]
        )

    def put_many(self, count: int, begin: int = 0) -> list[str]:
        seqs = range(1000 + begin * 10, 1000 + (begin + count) * 10, 10)
        for seq in seqs:
            self.put(seq)
        return [self.events[seq].id for seq in seqs]

    def run(self) -> list[float]:
        """Step until nothing waits, the clock moved on by each pause; the pauses."""
        pauses = []
        while (seconds := self.lane.step()) is not None:
            if seconds:
                pauses.append(seconds)
            self.now += seconds
        return pauses

    def restart(self) -> None:
        self.store.close()
        self.store = Store.open(self.directory, clock=lambda: self.now)
        self.lane = self.new_lane()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*answers: Exception | None, batch: int = 1, limits: Limits | None = None) -> Rig:
        made.append(Rig(tmp_path, Listener(*answers, batch=batch), limits))
        return made[-1]

    yield make
    for each in made:
        each.store.close()


def down(times: int) -> list[Exception]:
    return [DeliveryError("connection refused") for _ in range(times)]


def test_each_once_in_order_and_only_what_came_since(rig: Callable[..., Rig]) -> None:
    made = rig()
    ids = made.put_many(5)
    made.put(9000, historical=True)
    assert made.run() == []
    assert made.receiver.taken == ids
    assert made.lane.state.delivered == 5
    made.put(1010, revision=1)  # nothing that anybody must be told
    assert made.lane.step() is None
    assert made.receiver.taken == ids


def test_more_kills_and_the_end_of_a_storm_are_told_again_under_the_same_id(rig: Callable[..., Rig]) -> None:
    made = rig()
    made.put(0)
    made.run()
    made.put(0, revision=1, kills=3)
    made.put(10, kind="oom_no_victim", kills=0)
    made.run()
    made.put(10, revision=1, kind="oom_no_victim", kills=0, repeats=500)
    made.run()
    first, storm = made.events[0].id, made.events[10].id
    assert made.receiver.taken == [first, first, storm, storm]


def test_an_outage_of_days_loses_nothing_and_pauses_grow(rig: Callable[..., Rig]) -> None:
    made = rig(*down(600))
    ids = made.put_many(50)
    pauses = made.run()
    assert pauses[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert sum(pauses) > 2 * 86400 * 0.9
    assert made.receiver.taken == ids
    assert (made.lane.state.failures, made.lane.state.dropped) == (600, 0)
    assert (made.lane.state.failed_since, made.lane.state.waiting) == (None, 0)


def test_the_place_survives_a_restart_and_what_was_not_taken_comes(rig: Callable[..., Rig]) -> None:
    made = rig(None, None, *down(1000))
    ids = made.put_many(10)
    for _ in range(5):
        made.lane.step()
    [state] = made.store.deliveries()
    assert (state.delivered, state.waiting, state.last_error) == (2, 8, "connection refused")
    assert (state.failed_since, state.oldest_waiting) == (NOW, NOW)
    made.restart()
    ids += made.put_many(3, begin=20)
    made.receiver.answers = []
    made.run()
    assert made.receiver.taken == ids
    [state] = made.store.deliveries()
    assert (state.delivered, state.waiting, state.oldest_waiting) == (13, 0, None)


def test_taken_but_not_noted_comes_again_with_the_same_id(rig: Callable[..., Rig]) -> None:
    """Killed between the receiver's answer and the store's commit."""
    made = rig()
    ids = made.put_many(2)
    made.store.failover.file.connection.execute("PRAGMA query_only = 1")
    made.lane.step()
    made.restart()
    made.run()
    assert made.receiver.taken == [ids[0], *ids]


def test_batches_are_bounded_and_a_refused_event_costs_itself_alone(
    rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    no = DeliveryError("HTTP 400", refused=True)
    made = rig(None, no, None, no, None, None, batch=4)
    ids = made.put_many(10)
    assert made.run() == []
    assert [len(attempt) for attempt in made.receiver.attempts] == [4, 4, 1, 1, 1, 1, 2]
    assert made.receiver.taken == [id for id in ids if id != ids[5]]
    assert made.lane.state.dropped == 1
    assert [r.getMessage() for r in caplog.records] == [
        f"sink listener refuses event {ids[5]}: HTTP 400; given up"
    ]


def test_a_receiver_that_refuses_everything_is_failing_and_gets_time_to_be_mended(
    rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    made = rig(*[DeliveryError("HTTP 400", refused=True)] * 12)
    ids = made.put_many(20)
    assert made.lane.step() == 0.0
    assert (made.lane.state.failed_since, made.lane.state.dropped) == (None, 1)  # it may be this one's fault
    assert made.lane.step() == 1.0
    assert (made.lane.state.failed_since, made.lane.state.next_attempt) == (NOW, NOW + 1)
    assert made.run() == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert made.receiver.taken == ids[12:]
    state = made.lane.state
    assert (state.failed_since, state.next_attempt, state.dropped, state.delivered) == (None, None, 12, 8)
    assert caplog.records[-1].getMessage() == "sink listener takes events again"


def test_what_is_told_again_of_a_refused_event_says_nothing_of_others(rig: Callable[..., Rig]) -> None:
    made = rig(*[DeliveryError("HTTP 413", refused=True)] * 2)
    made.put(0)
    made.run()
    made.put(0, revision=1, kills=3)
    assert made.run() == []
    assert (made.lane.state.dropped, made.lane.state.failed_since) == (2, None)


def test_giving_up_what_is_old_is_not_taking_it(rig: Callable[..., Rig]) -> None:
    made = rig(*down(1))
    made.put_many(1)
    made.lane.step()
    made.now += MAX_AGE_SECONDS + 1
    made.run()
    assert (made.lane.state.dropped, made.lane.state.failed_since) == (1, NOW)


def test_a_clock_that_is_set_makes_nothing_of_this_boot_old(rig: Callable[..., Rig]) -> None:
    """A board without a clock of its own wakes with the time of its last shutdown."""
    made = rig()
    boot_id = capture().source.boot_id
    uptime = 60.0
    made.lane = Lane(
        *(made.receiver, made.store, made.lane.state),
        wall=lambda: made.now,
        conclude=made.conclude,
        boot_id=boot_id,
        uptime=lambda: uptime,
    )
    ids = made.put_many(1)
    made.now += 400 * 86400
    made.run()
    made.put_many(1, begin=10)
    made.now += 400 * 86400
    uptime = MAX_AGE_SECONDS + 1
    made.run()
    assert (made.receiver.taken, made.lane.state.dropped) == (ids, 1)


def test_what_nobody_wants_to_hear_of_any_more_is_dropped_and_counted(rig: Callable[..., Rig]) -> None:
    made = rig(*down(1))
    made.put_many(3)
    made.lane.step()
    made.now += MAX_AGE_SECONDS + 1
    ids = made.put_many(2, begin=50)
    made.run()
    assert made.receiver.taken == ids
    assert made.lane.state.dropped == 3


def test_a_clock_that_was_never_set_makes_nothing_old(rig: Callable[..., Rig]) -> None:
    made = rig()
    made.now = 1000.0
    ids = made.put_many(2)
    made.now = NOW
    made.run()
    assert made.receiver.taken == ids


def test_what_the_store_had_to_give_up_is_counted(rig: Callable[..., Rig]) -> None:
    made = rig(limits=Limits(max_events=5))
    ids = made.put_many(20)
    made.run()
    assert made.receiver.taken == ids[-5:]
    assert made.lane.state.dropped == 15


def test_a_damaged_row_is_dropped_and_not_in_the_way(rig: Callable[..., Rig], tmp_path: Path) -> None:
    made = rig()
    ids = made.put_many(3)
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute("UPDATE event SET capture = x'00' WHERE id = ?", (ids[1],))
    other.close()
    made.run()
    assert made.receiver.taken == [ids[0], ids[2]]
    assert made.lane.state.dropped == 1


def test_the_news_are_forgotten_when_every_sink_is_done(rig: Callable[..., Rig], tmp_path: Path) -> None:
    made = rig()
    made.put_many(3)
    made.run()
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        assert other.execute("SELECT count(*) FROM news").fetchone() == (0,)
    other.close()
    assert made.store.last_news == 3


def test_repeats_without_a_victim_are_bounded(rig: Callable[..., Rig]) -> None:
    made = rig(*down(3))
    for seq in range(0, 200, 10):
        made.now += 1
        made.put(seq, kind="oom_no_victim", kills=0)
    made.put(500)
    made.run()
    assert made.receiver.taken == [made.events[0].id, made.events[500].id]
    assert (made.lane.state.left_out, made.lane.state.dropped) == (19, 0)


def test_events_that_memory_holds_while_the_disk_is_full_are_delivered(rig: Callable[..., Rig]) -> None:
    made = rig()
    ids = made.put_many(2)
    made.store.failover.file.connection.execute("PRAGMA query_only = 1")
    ids += made.put_many(2, begin=10)
    assert made.store.failure is not None
    made.run()
    assert made.receiver.taken == ids
    made.store.failover.file.connection.execute("PRAGMA query_only = 0")
    ids += made.put_many(2, begin=20)
    made.run()
    assert made.receiver.taken == ids
    assert made.lane.state.dropped == 0
    made.restart()
    assert made.lane.step() is None


def test_a_new_file_in_place_of_a_corrupt_one_goes_on_with_the_numbers(
    rig: Callable[..., Rig], tmp_path: Path
) -> None:
    made = rig()
    made.put_many(3)
    made.run()
    assert made.store.failover.renewed_for(malformed())
    ids = made.put_many(2, begin=10)
    made.run()
    assert made.receiver.taken[3:] == ids
    assert made.lane.state.dropped == 0


@given(st.integers(0, 10_000), st.floats(0, 1), st.none() | st.floats(0, 1e9))
def test_pauses_are_bounded_and_random_by_half(
    failures: int, share: float, retry_after: float | None
) -> None:
    seconds = pause(failures, share, retry_after=retry_after)
    assert 0.5 <= seconds <= LONGEST_RETRY_AFTER_SECONDS
    if retry_after is None:
        assert seconds <= LONGEST_PAUSE_SECONDS
        assert pause(failures, 1.0) * 2 == pause(failures, 0.0)
    else:
        assert seconds >= min(retry_after, LONGEST_RETRY_AFTER_SECONDS)


def test_the_receivers_own_pause_is_kept(rig: Callable[..., Rig]) -> None:
    made = rig(DeliveryError("HTTP 429", retry_after_seconds=77.0))
    made.put_many(1)
    assert made.run() == [77.0]


def test_the_bound_remembers_a_bounded_number_of_places() -> None:
    bound = RateBound()
    for number in range(1000):
        assert bound.take(str(number), "oom_no_victim", 0, f"/{number}", 0.0) == 0
    assert len(bound._places) == 64


# -- the threads ---------------------------------------------------------------------------------------


class Waiting(Listener):
    """Tells when it was asked; answers when it is told to."""

    def __init__(self, name: str, go: bool) -> None:
        super().__init__()
        self.name = name
        self.asked = threading.Event()
        self.go = threading.Event()
        if go:
            self.go.set()

    def deliver(self, events: Sequence[OomEvent]) -> None:
        self.asked.set()
        assert self.go.wait(20)
        super().deliver(events)


def test_one_that_hangs_holds_up_neither_the_others_nor_the_end(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    hangs, works = Waiting("hangs", go=False), Waiting("works", go=True)
    states: dict[str, Delivery] = {}
    taken = threading.Event()

    def on_state(state: Delivery, _seconds: float) -> None:
        states[state.sink] = state
        if states["works"].delivered == 1:
            taken.set()

    states["works"] = Delivery(sink="works", position=0)
    outbox = Outbox([hangs, works], store, on_state)
    outbox.start()
    store.put(capture(), event())
    outbox.notify()
    assert hangs.asked.wait(10) and taken.wait(10)
    outbox.stop(0.01)
    assert works.closed and hangs.closed
    assert hangs.taken == []
    hangs.go.set()
    [first, _] = store.deliveries()
    assert (first.sink, first.delivered) == ("hangs", 0)
    store.close()


def test_what_is_on_its_way_when_another_takes_over_changes_nothing(tmp_path: Path) -> None:
    """The sinks are opened anew while a receiver hangs, or leave the configuration."""
    store = Store.open(tmp_path)
    hangs = Waiting("hangs", go=False)
    said: list[Delivery] = []
    outbox = Outbox([hangs], store, lambda state, _seconds: said.append(state))
    outbox.start()
    store.put(capture(), event())
    outbox.notify()
    assert hangs.asked.wait(10)
    outbox.stop(0.01)
    Outbox([], store, lambda *_: None)
    count = len(said)
    hangs.go.set()
    [(_, _, thread)] = outbox._lanes
    thread.join(10)
    assert hangs.taken and store.deliveries() == []
    assert len(said) == count
    store.close()


def test_a_store_that_takes_nothing_at_the_start_keeps_nobody_from_being_told(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.put(capture(), event())
    store.failover.file.connection.execute("PRAGMA query_only = 1")  # the disk is full
    works, taken = Waiting("works", go=True), threading.Event()
    outbox = Outbox([works], store, lambda state, _seconds: taken.set() if state.delivered else None)
    outbox.start()
    store.put(capture(1000), event(1000))
    outbox.notify()
    assert taken.wait(10)
    outbox.stop()
    assert works.taken == [event_id(capture(1000))]
    store.close()


def test_a_sink_that_is_new_begins_now_and_one_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.put(capture(), event())
    Outbox([Waiting("a", True)], store, lambda *_: None)
    [state] = store.deliveries()
    assert (state.sink, state.position, state.waiting) == ("a", 1, 0)
    Outbox([Waiting("b", True)], store, lambda *_: None)
    assert [state.sink for state in store.deliveries()] == ["b"]
    store.close()
