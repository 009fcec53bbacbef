"""A crash loop in a chat: the first kill at once, the others as a message now and then, none forgotten."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from oomwatchd.delivery.outbox import Lane, Outbox
from oomwatchd.delivery.policy import Delivery
from oomwatchd.diagnosis.attribution import Attribution
from oomwatchd.event import Conclusion, OomEvent
from oomwatchd.event.groups import key_of, key_of_event
from oomwatchd.sinks import SinkError
from oomwatchd.sinks._groups import HOLD_SECONDS, Groups
from oomwatchd.sinks.webhook import Options, Webhook
from oomwatchd.store import Store
from tests.delivery.receivers import Receiver, until
from tests.samples import capture, event


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def loop(n: int, **fields: Any) -> OomEvent:
    """The same cgroup's kill number ``n``: another pid, other figures."""
    values = {"summary": f"stress (pid {n}) killed: cgroup /test at its limit, {n} %"}
    return event(100 + 10 * n, **(values | fields))


def test_a_loop_is_told_at_once_and_then_ever_less_often() -> None:
    groups, told, held = Groups(), [], 0
    for n in range(300):  # a day of it, every 288 s
        now = n * 288.0
        while (waiting := groups.next_held(now)) is not None:
            groups.done(waiting, now)
            told.append((now, waiting.times))
        made = groups.take(loop(n), now)
        if made is None:
            held += 1
        else:
            told.append((now, made.times))
    assert told[0] == (0.0, 1) and told[1] == (288.0, 1)
    assert len(told) < 30, "once an hour"
    waiting = groups.next_held(1e9)
    assert sum(times for _, times in told) + (waiting.times if waiting else 0) == 300


def test_another_place_or_reason_is_told_at_once() -> None:
    groups = Groups()
    assert groups.take(loop(1), 0.0) is not None
    assert groups.take(loop(2), 0.1) is None
    assert groups.take(loop(3, comm="other"), 0.2) is not None
    assert groups.take(loop(4, summary="stress (pid 4) killed: out of memory"), 0.3) is not None
    assert groups.take(loop(5), 8 * 3600.0) is not None, "after six hours of quiet"


def test_a_retry_counts_once() -> None:
    groups = Groups()
    first = groups.take(loop(1), 0.0)
    assert first is not None and groups.take(loop(1), 5.0) == first
    assert [groups.take(loop(2), at) for at in (6.0, 7.0)] == [None, None]
    [held] = [groups.next_held(HOLD_SECONDS[0])]
    assert held is not None and held.times == 1


def test_what_is_remembered_is_bounded() -> None:
    groups = Groups()
    for n in range(1000):
        groups.take(loop(n, comm=f"c{n % 500}"), n / 1000)
    assert len(groups._groups) <= 64


def test_the_same_key_for_a_stored_event_and_one_at_hand(tmp_path: Path) -> None:
    identifier, uid = "a" * 64, "0b8c4a7e-1111-4222-8333-944455566677"
    in_pod = f"/kubepods/pod{uid}/{identifier}"
    store = Store.open(None)
    for n, whose in enumerate(
        (
            Attribution(pid=4242, role="victim", cgroup="/x", unit="a.service"),
            Attribution(pid=4242, role="victim", cgroup=in_pod, container_id=identifier, pod_uid=uid),
            Attribution(
                pid=4242, role="victim", cgroup=in_pod, container_id=identifier, container_name="a/b/c"
            ),
        )
    ):
        told = event(100 + 10 * n, attribution=(whose,), memcg=None)
        store.put(capture(100 + 10 * n), told)
        [row] = [row for row in store.list() if row.id == told.id]
        assert key_of(row) == key_of_event(told), whose
    store.close()


@pytest.mark.parametrize("template", ["slack", "mattermost", "matrix", "teams"])
def test_ten_kills_in_a_second_are_two_messages(plain: Receiver, template: str) -> None:
    clock = Clock()
    sink = Webhook(Options(url=plain.url, template=template), steady=clock)
    for n in range(10):
        sink.deliver([loop(n)])
        clock.now += 0.1
    assert len(plain.requests) == 1
    assert sink.due() == pytest.approx(HOLD_SECONDS[0] - 1.0)
    sink.tell_held()
    assert len(plain.requests) == 1, "not due yet"
    clock.now += HOLD_SECONDS[0]
    sink.tell_held()
    assert len(plain.requests) == 2 and sink.due() is None
    said = re.sub(r"\\\\", "", plain.requests[1].body.decode())
    assert "9 times since 2026-09-21T14:13:20" in said
    assert "times since" not in plain.requests[0].body.decode()


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_held_at_the_end_is_told_then(plain: Receiver, fails: bool) -> None:
    store = Store.open(None)
    sink = Webhook(Options(url=plain.url, template="slack"))
    outbox = Outbox([sink], store, lambda _state, _seconds: None)
    [(lane, _, _)] = outbox._lanes
    lane._conclude = lambda kept: Conclusion(loop((kept.first_seq or 0) // 10 - 10), None)
    outbox.start()
    for n in range(3):
        store.put(capture(100 + 10 * n), loop(n))
        outbox.notify()
    until(lambda: lane.state.delivered == 3)
    assert len(plain.requests) == 1
    plain.answers = [503] if fails else []
    outbox.stop()
    assert [request.answer for request in plain.requests] == [200, 503 if fails else 200]
    assert b"2 times since" in plain.requests[1].body
    store.close()


def test_a_program_gets_each_event(plain: Receiver) -> None:
    for options in (Options(url=plain.url), Options(url=plain.url, template="slack", group=False)):
        sink = Webhook(options)
        plain.requests.clear()
        for n in range(10):
            sink.deliver([loop(n)])
        assert len(plain.requests) == 10 and sink.due() is None


def test_what_cannot_be_told_is_held_on(plain: Receiver) -> None:
    clock = Clock()
    sink = Webhook(Options(url=plain.url, template="slack"), steady=clock)
    sink.deliver([loop(1)])
    sink.deliver([loop(2)])
    clock.now += 31
    plain.answers = [503]
    with pytest.raises(SinkError):
        sink.tell_held()
    assert sink.due() == pytest.approx(60.0)
    clock.now += 60
    sink.tell_held()
    assert [request.answer for request in plain.requests] == [200, 503, 200]


def test_the_outbox_tells_what_is_held_when_nothing_waits(plain: Receiver) -> None:
    clock, store = Clock(), Store.open(None)
    sink = Webhook(Options(url=plain.url, template="slack"), steady=clock)
    lane = Lane(
        sink,
        store,
        Delivery(sink="webhook", position=0),
        wall=lambda: 1_790_000_000.0,
        conclude=lambda kept: Conclusion(loop((kept.first_seq or 0) // 10), None),
    )
    for n in range(3):
        store.put(capture(100 + 10 * n), loop(n))
        while lane.step() is not None:
            pass
    assert lane.state.delivered == 3 and len(plain.requests) == 1
    assert lane.idle_seconds == pytest.approx(30.0)
    clock.now += 30
    assert lane.step() is None
    assert len(plain.requests) == 2 and lane.idle_seconds is None
    store.close()
