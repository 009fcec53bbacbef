"""Events on pods, taken by a server that validates by the API's official schema and its rules for Events.
No package of Debian has the schemas, so these tests are skipped with Debian's own modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kubernetes_validate")

from oomwatchd.delivery.outbox import Lane
from oomwatchd.delivery.policy import Delivery
from oomwatchd.diagnosis.attribution import Attribution
from oomwatchd.event import Conclusion, OomEvent
from oomwatchd.sinks import SinkError, open_sink
from oomwatchd.sinks.kubernetes import BURST, SECONDS_EACH, Kubernetes, Options
from oomwatchd.store import Store
from tests.delivery.api_server import ApiServer
from tests.delivery.receivers import certificate, receiver
from tests.samples import capture, event
from tests.test_sinks import HOSTILE

UID = "7d1c2c0e-8a53-4a3f-9d5b-2f1d6a7b8c9d"


def in_pod(seq: int = 100, name: str | None = "shop/web-0/app", **fields: Any) -> OomEvent:
    """A kill in a container of a pod."""
    whose = Attribution(
        pid=4242,
        role="victim",
        container_id="a" * 64,
        container_name=name,
        pod_uid=UID,
        command_line="app --password=hunter2",
        executable="/secret/app",
    )
    return event(seq, **({"attribution": (whose,)} | fields))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    cert, context = certificate(tmp_path)
    with receiver(context) as at:
        yield ApiServer(at, tmp_path, cert)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def sink(server: ApiServer, clock: Clock | None = None, **fields: Any) -> Kubernetes:
    return Kubernetes(server.options(**fields), server.at.url, clock or Clock())


def test_a_kill_in_a_pod_is_an_event_on_it(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "node-7")
    sink(server).deliver([in_pod()])
    [made] = server.events.values()
    assert made["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "shop",
        "name": "web-0",
        "uid": UID,
        "fieldPath": "spec.containers{app}",
    }
    assert (made["reason"], made["type"], made["count"]) == ("KernelOomKill", "Warning", 1)
    assert made["message"] == event().summary
    assert made["firstTimestamp"] == made["lastTimestamp"] == "2026-09-21T14:13:20Z"
    assert made["source"] == {"component": "oomwatchd", "host": "node-7"}


def test_neither_command_line_nor_path_is_sent(server: ApiServer) -> None:
    sink(server).deliver([in_pod()])
    [request] = server.at.requests
    assert b"hunter2" not in request.body and b"/secret" not in request.body


@pytest.mark.parametrize(
    "name", [None, "web", "shop/web/app/x", "../pods/app", "shop/web?x/app", "Shop/web/app", "a b/c/d"]
)
def test_what_is_in_no_pod_with_a_name_is_not_sent(server: ApiServer, name: str | None) -> None:
    sink(server).deliver([in_pod(name=name), event()])
    assert server.at.requests == []


@pytest.mark.parametrize("text", [*HOSTILE, "x" * 5000, "é" * 3000, ""])
def test_hostile_names_are_taken(server: ApiServer, text: str) -> None:
    sink(server).deliver([in_pod(summary=f"{text} killed", name=f"shop/web-0/{text.replace('/', '')}")])
    assert [request.answer for request in server.at.requests] in ([201], [])


def test_the_token_is_read_anew_for_each_request(server: ApiServer) -> None:
    sinks = sink(server)
    sinks.deliver([in_pod(100)])
    server.token = "rotated"  # noqa: S105
    with pytest.raises(SinkError, match="401") as failed:
        sinks.deliver([in_pod(200, name="shop/web-1/app")])
    assert not failed.value.refused and "token" not in str(failed.value)
    (server.directory / "token").write_text("rotated\n")
    sinks.deliver([in_pod(200, name="shop/web-1/app")])
    assert len(server.events) == 2


def test_what_is_delivered_again_is_one_event(server: ApiServer) -> None:
    for _ in range(3):  # the daemon died before it had noted the delivery
        sink(server).deliver([in_pod()])
    assert [request.answer for request in server.at.requests] == [201, 409, 409]


def test_a_namespace_that_is_gone_holds_nothing_up(server: ApiServer) -> None:
    server.ending, server.gone = {"shop"}, {"lost"}
    sinks = sink(server)
    sinks.deliver([in_pod()])
    sinks.deliver([in_pod(name="lost/web-0/app")])
    sinks.deliver([in_pod(name="kept/web-0/app")])
    assert [made["metadata"]["namespace"] for made in server.events.values()] == ["kept"]


def test_a_role_that_is_missing_is_an_outage_that_says_what_is_missing(server: ApiServer) -> None:
    server.allowed = False
    with pytest.raises(SinkError, match="must be allowed to create events in namespace shop") as failed:
        sink(server).deliver([in_pod()])
    assert not failed.value.refused


def test_a_crash_loop_is_few_events_that_count_all(server: ApiServer) -> None:
    clock = Clock()
    sinks = sink(server, clock)
    for n in range(1000):  # in 1000 s, under ever new names of processes
        clock.now += 1
        while sinks.due() == 0.0:
            sinks.tell_held()
        sinks.deliver([in_pod(100 + n, comm=f"c{n}", summary=f"c{n} killed")])
    clock.now += 3600
    sinks.tell_held()
    assert len(server.events) < 10
    assert sum(made["count"] for made in server.events.values()) == 1000


def test_many_containers_at_once_are_told_at_a_bounded_rate(server: ApiServer) -> None:
    clock = Clock()
    sinks = sink(server, clock)
    for n in range(100):
        event_of_its_own = in_pod(100 + n, name=f"shop/web-{n}/app")
        try:
            sinks.deliver([event_of_its_own])
        except SinkError as error:
            assert not error.refused and error.retry_after_seconds is not None
            assert 0 < error.retry_after_seconds <= SECONDS_EACH
            clock.now += error.retry_after_seconds
            sinks.deliver([event_of_its_own])
        assert len(server.events) == n + 1
    assert clock.now - 1000 == pytest.approx((100 - BURST) * SECONDS_EACH)


def test_an_outage_loses_nothing(server: ApiServer, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state")
    walls = [1_790_000_000.0]
    found = {"100": in_pod(100), "200": in_pod(200, name="shop/web-1/app")}
    lane = Lane(
        sink(server),
        store,
        Delivery(sink="kubernetes", position=0),
        wall=lambda: walls[0],
        conclude=lambda one: Conclusion(found[str(one.first_seq)], None),
    )
    for seq in (100, 200):
        store.put(capture(seq), event(seq))
    server.allowed = False
    for _ in range(3):
        walls[0] += lane.step() or 0.0
    assert (lane.state.delivered, lane.state.waiting) == (0, 2) and lane.state.failed_since is not None
    server.allowed = True
    while lane.step() is not None:
        pass
    assert len(server.events) == 2 and lane.state.failed_since is None
    store.close()


def test_a_test_goes_to_its_own_namespace(server: ApiServer) -> None:
    from oomwatchd.cli.notify_test import test_event as marked

    sink(server).deliver([marked(1_790_000_000.0)])
    [made] = server.events.values()
    assert (made["metadata"]["namespace"], made["type"]) == ("monitoring", "Normal")
    assert made["reason"] == "OomwatchdTest" and made["message"].startswith("TEST of oomwatchd")


def test_the_address_is_the_pods_own(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SinkError, match="no pod"):
        open_sink(server.options(url=""))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.at.port))
    opened = open_sink(server.options(url=""))
    assert isinstance(opened, Kubernetes)
    opened.deliver([in_pod()])
    assert len(server.events) == 1
    assert open_sink(Options()) is None


def test_the_token_goes_nowhere_without_tls() -> None:
    with pytest.raises(ValueError, match="https"):
        Options(enabled=True, url="http://api.example:6443")
