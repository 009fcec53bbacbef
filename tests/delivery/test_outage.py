"""Outages: receivers that fail, hang, reset and recover; the network gone for a whole storm of real kills,
with the daemon killed in between."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatchd.cli.throwaway import victim
from oomwatchd.delivery.outbox import Lane
from oomwatchd.delivery.policy import Delivery
from oomwatchd.event import Conclusion, OomEvent, conclude
from oomwatchd.records.capture import OomCapture
from oomwatchd.sinks.webhook import Options, Webhook
from oomwatchd.store import Store
from tests.delivery.receivers import GARBAGE, HANG, RESET, Receiver, certificate, free_port, receiver, until
from tests.samples import capture, event
from tests.test_daemon import RUN, Running

SECRET = "hunter2-correct-horse"  # noqa: S105  # not a secret: it must never be said
STORM = 200


def ids_of(requests: Receiver) -> list[str]:
    """The distinct ids that were taken, in the order of their first coming."""
    return list(dict.fromkeys(request.headers["webhook-id"] for request in requests.taken()))


@pytest.mark.slow
def test_a_receiver_that_fails_hangs_resets_and_recovers_gets_every_event_in_order(tmp_path: Path) -> None:
    """The lane is stepped by hand: no pause is waited for."""
    file, context = certificate(tmp_path)
    store = Store.open(tmp_path)
    port, ids = free_port(), [event(seq).id for seq in range(1000, 1400, 10)]
    webhook = Webhook(Options(url=f"https://localhost:{port}/", ca_file=str(file), timeout_seconds=0.5))

    def concluded(stored: OomCapture) -> Conclusion:
        assert stored.first_seq is not None
        return Conclusion(event(stored.first_seq))

    lane = Lane(webhook, store, Delivery(sink="webhook", position=0), conclude=concluded)
    for seq in range(1000, 1400, 10):
        store.put(capture(seq), event(seq))
    lane.step()
    assert lane.state.last_error == f"https://localhost:{port}: Connection refused"
    chance = random.Random(8)  # the same run every time, nothing secret
    seen: list[str] = []
    for _ in range(4):  # the server goes and comes back
        with receiver(context, port) as server:
            server.answers = [
                chance.choice((200, 500, 503, 429, 302, RESET, GARBAGE, HANG)) for _ in range(20)
            ]
            while server.answers and lane.step() is not None:
                pass
            seen += ids_of(server)
        lane.step()
    with receiver(context, port) as server:
        while lane.step() is not None:
            pass
        seen += ids_of(server)
    assert list(dict.fromkeys(seen)) == ids
    assert lane.state.dropped == 0 and lane.state.failures > 20
    store.close()


@contextlib.contextmanager
def alertmanager(directory: Path, port: int) -> Iterator[None]:
    """Debian's Alertmanager, which notifies nobody."""
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("needs prometheus-alertmanager")
    config = directory / "alertmanager.yml"
    config.write_text("route:\n  receiver: none\nreceivers:\n- name: none\n")
    command = [
        program,
        f"--config.file={config}",
        f"--storage.path={directory}/am",
        "--cluster.listen-address=",
    ]
    with (directory / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: ask(port, "/-/ready") is not None)
        yield
    finally:
        process.kill()
        process.wait()


def ask(port: int, path: str) -> bytes | None:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
    except OSError:
        return None
    return body if answer.status == 200 else None


def kill_many(count: int) -> list[str]:
    """Real kills, ten at a time; the victims' names."""
    names = []
    for begin in range(0, count, 10):
        with contextlib.ExitStack() as stack:
            victims = [stack.enter_context(victim()) for _ in range(begin, min(begin + 10, count))]
            for child in victims:
                child.exceed()
            for child in victims:
                child.wait(30)
            names += [child.comm for child in victims]
    return names


def settings(directory: Path, webhook: int, otlp: int, alerts: int) -> str:
    for name in ("token", "key"):
        (directory / name).write_text(f"{SECRET}\n")
    return f"""
[sinks.webhook]
url = "https://localhost:{webhook}/{SECRET}"
ca_file = "{directory}/localhost.pem"
signing_key = "{directory}/key"
timeout_seconds = 1.0
secret_headers = {{ X-Token = "{directory}/token" }}
[sinks.otlp]
url = "http://127.0.0.1:{otlp}"
secret_headers = {{ X-Token = "{directory}/token" }}
[sinks.alertmanager]
urls = ["http://127.0.0.1:{alerts}"]
"""


def stored(directory: Path) -> list[OomEvent]:
    """What is to be delivered, in order."""
    store = Store.open_reader(directory / "state")
    try:
        return [found for kept in store.export() if not (found := conclude(kept).event).historical]
    finally:
        store.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()


@pytest.mark.slow
@pytest.mark.oom
def test_no_network_for_a_storm_of_200_kills_with_the_daemon_killed_in_between(
    daemon: Running, tmp_path: Path
) -> None:
    """SIGKILL twice: while the network is down, and during the delivery."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    _, context = certificate(tmp_path)
    ports = free_port(), free_port(), free_port()
    daemon.configure(settings(tmp_path, *ports))
    daemon.start()
    daemon.until(daemon.ready, 60)
    names = kill_many(STORM // 2)
    daemon.process.kill()
    daemon.process.wait()
    names += kill_many(STORM // 10)  # nobody watches
    daemon.start()
    daemon.until(daemon.ready, 60)
    names += kill_many(STORM - len(names))

    def told() -> set[str]:
        return {killed.comm for found in stored(tmp_path) for killed in found.victims}

    until(lambda: set(names) <= told(), 60)
    until(lambda: daemon.metric('oomwatchd_sink_waiting_events{sink="otlp"}') >= STORM)
    pages = "".join(daemon.get(path)[1] for path in ("/", "/metrics"))  # while nothing is taken
    assert f"https://localhost:{ports[0]}: Connection refused" in pages
    events = stored(tmp_path)
    # others may kill on this machine, too; what had been stored by now is compared
    expected = [found.id for found in events if found.kills]
    ours = [found.id for found in events if any(killed.comm in names for killed in found.victims)]
    assert len(ours) == len(set(ours)) == STORM == len(set(names))

    def uids(collector: Receiver) -> list[str]:
        return list(
            dict.fromkeys(
                pair.value.string_value
                for request in collector.taken()
                for resource in ExportLogsServiceRequest.FromString(request.body).resource_logs
                for record in resource.scope_logs[0].log_records
                for pair in record.attributes
                if pair.key == "log.record.uid"
            )
        )

    def alerts() -> set[str]:
        answer = json.loads(ask(ports[2], "/api/v2/alerts") or b"[]")
        return {alert["labels"]["event_id"] for alert in answer}

    with (
        receiver(context, ports[0]) as hook,
        receiver(port=ports[1]) as collector,
        alertmanager(tmp_path, ports[2]),
    ):
        hook.answers = [step for fault in (503, HANG, RESET, GARBAGE) for step in (*[200] * 10, fault)]
        until(lambda: len(ids_of(hook)) >= STORM // 4, 120, daemon.log.read_text)
        daemon.process.kill()  # in the midst of it
        daemon.process.wait()
        daemon.start()
        until(
            lambda: set(expected) <= set(ids_of(hook)) & set(uids(collector)) & alerts(),
            120,
            daemon.log.read_text,
        )
        wanted = set(expected)
        assert [name for name in ids_of(hook) if name in wanted] == expected
        assert [name for name in uids(collector) if name in wanted] == expected
        assert set(ours) <= wanted
        # what comes again is what was on its way when the daemon was killed
        assert len(hook.taken()) - len(set(ids_of(hook))) <= 1
        assert {request.headers["x-token"] for request in hook.taken()} == {SECRET}
        delivered = 'oomwatchd_sink_delivered_total{sink="webhook"}'
        until(lambda: daemon.metric(delivered) >= len(expected))
        shown = subprocess.run(
            [sys.executable, "-c", RUN, "events", "--config", str(daemon.config), "deliveries"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        pages += "".join(daemon.get(path)[1] for path in ("/", "/metrics"))
    lines = [json.loads(line)["id"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert set(ours) <= set(lines)
    # told again: what was being told when the daemon was killed
    assert len(lines) - len(set(lines)) <= 2
    assert daemon.metric('oomwatchd_sink_dropped_total{sink="webhook"}') == 0
    assert re.search(r"^webhook: \d+ delivered, \d+ waiting$", shown, re.M)
    assert SECRET not in daemon.log.read_text() + shown + pages
    assert SECRET.encode() not in (tmp_path / "state" / "events.sqlite").read_bytes()
    assert daemon.end() == 0


@pytest.mark.oom
def test_each_of_several_webhooks_has_a_place_of_its_own(daemon: Running) -> None:
    """A sink that is down holds up no other; a sink that leaves the configuration is forgotten."""

    def table(name: str, port: int) -> str:
        return f'[[sinks.webhook]]\nname = "{name}"\nurl = "http://127.0.0.1:{port}/"\n'

    with receiver() as chat:
        both = table("chat", chat.port) + table("pager", free_port())
        daemon.configure(both)
        daemon.start()
        daemon.until(daemon.ready, 60)

        def told_of(name: str) -> bool:
            victims = [request.json()["data"]["victims"] for request in chat.taken()]
            return any(name == victim["comm"] for killed in victims for victim in killed)

        [name] = kill_many(1)
        daemon.until(lambda: told_of(name))
        taken = 'oomwatchd_sink_delivered_total{sink="webhook-chat"}'
        daemon.until(lambda: daemon.metric(taken) >= 1)
        daemon.until(lambda: daemon.metric('oomwatchd_part_up{part="sink_webhook-pager"}') == 0)
        assert daemon.metric('oomwatchd_sink_waiting_events{sink="webhook-pager"}') >= 1
        assert daemon.metric('oomwatchd_part_up{part="sink_webhook-chat"}') == 1
        assert daemon.metric('oomwatchd_part_up{part="sink_jsonl"}') == 1
        daemon.configure(table("chat", chat.port))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until(lambda: "webhook-pager" not in daemon.get("/metrics")[1])
        assert daemon.metric(taken) >= 1
        [name] = kill_many(1)
        daemon.until(lambda: told_of(name))
        told = [request.headers["webhook-id"] for request in chat.taken()]
        assert len(told) == len(set(told)) >= 2
    assert daemon.end() == 0


@pytest.mark.slow
def test_debians_alertmanager_takes_an_alert_and_shows_it(tmp_path: Path) -> None:
    from oomwatchd.sinks.alertmanager import Alertmanager
    from oomwatchd.sinks.alertmanager import Options as AlertOptions

    port = free_port()
    with alertmanager(tmp_path, port):
        sink = Alertmanager(AlertOptions(urls=[f"http://127.0.0.1:{port}"], link="http://h/${id}"))
        hostile = event(300, comm='x"\n{}\x1b[31m\u202e')
        sink.deliver([event(), event(200)])
        sink.deliver([event(), hostile])  # the first comes twice
        found = {a["labels"]["event_id"]: a for a in json.loads(ask(port, "/api/v2/alerts") or b"[]")}
    assert set(found) == {event().id, event(200).id, hostile.id}
    shown = found[event().id]
    assert shown["status"]["state"] in ("active", "unprocessed")
    assert shown["annotations"]["summary"] == event().summary
    assert shown["generatorURL"] == f"http://h/{event().id}"
    assert shown["labels"]["unit"] == "web.service"


def test_a_context_that_is_not_trusted_is_tried_again_until_it_is(tmp_path: Path) -> None:
    """An expired certificate that is renewed: an outage like any other."""
    file, good = certificate(tmp_path)
    (tmp_path / "bad").mkdir()
    _, bad = certificate(tmp_path / "bad")
    store = Store.open(tmp_path)
    store.put(capture(), event())
    port = free_port()
    webhook = Webhook(Options(url=f"https://localhost:{port}/", ca_file=str(file)))
    lane = Lane(webhook, store, Delivery(sink="webhook", position=0), conclude=lambda _: Conclusion(event()))
    contexts: list[ssl.SSLContext] = [bad, good]
    taken = []
    for context in contexts:
        with receiver(context, port) as server:
            lane.step()
            taken.append(len(server.requests))
    assert taken == [0, 1]
    store.close()
