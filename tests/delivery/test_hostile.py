"""Receivers that answer without end: one deadline bounds the whole exchange."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import create_server, socket

import pytest

from oomwatchd.delivery import outbox
from oomwatchd.delivery.outbox import Lane, Outbox
from oomwatchd.delivery.policy import Delivery
from oomwatchd.errors import DeliveryError
from oomwatchd.metrics import Metrics
from oomwatchd.sinks.webhook import Options, Webhook
from oomwatchd.store import Store
from tests.delivery.receivers import certificate
from tests.samples import capture, event

SECONDS = 1.0


def takes_it(client: socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def drips_its_head(client: socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 60_000:
        client.sendall(bytes((byte,)))
        time.sleep(0.1)


def drips_its_body(client: socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    while True:
        client.sendall(b"a")
        time.sleep(0.1)


def continues_for_ever(client: socket) -> None:
    while True:
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def says_nothing(client: socket) -> None:
    time.sleep(20)


def sends_many_headers(client: socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        client.sendall(b"X-A: b\r\n")
        time.sleep(0.1)


def chunks_without_end(client: socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"1\r\na\r\n")
        time.sleep(0.1)


def chunk_size_without_end(client: socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"0")
        time.sleep(0.1)


def handshake_drips(client: socket) -> None:
    client.sendall(b"\x16\x03\x03\x40\x00")  # a handshake record of 16 KiB
    while True:
        client.sendall(b"\x02")
        time.sleep(0.1)


ANSWERS = (
    *(drips_its_head, drips_its_body, continues_for_ever, says_nothing, sends_many_headers),
    *(chunks_without_end, chunk_size_without_end),
)


@contextlib.contextmanager
def answering(answer: Callable[[socket], None], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A receiver that reads a whole request and answers so; its port."""
    ended = threading.Event()

    def serve(client: socket) -> None:
        with contextlib.suppress(OSError), client:
            if context is not None:
                client = context.wrap_socket(client, server_side=True)
            if answer is not handshake_drips:
                while b"\r\n\r\n" not in client.recv(65536):
                    pass
            answer(client)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

    with create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        ended.set()


def attempt(webhook: Webhook) -> tuple[str, float, float]:
    """What was said, after how many seconds, and the processor time they took."""
    began, processor = time.monotonic(), time.thread_time()
    with pytest.raises(DeliveryError) as failed:
        webhook.deliver([event()])
    return str(failed.value), time.monotonic() - began, time.thread_time() - processor


@pytest.mark.parametrize("answer", ANSWERS)
def test_no_answer_holds_a_lane_beyond_its_deadline(answer: Callable[[socket], None]) -> None:
    with answering(answer) as port:
        webhook = Webhook(Options(url=f"http://127.0.0.1:{port}/", timeout_seconds=SECONDS))
        for _ in range(2):  # the second finds nothing of the first
            said, seconds, _ = attempt(webhook)
            assert said == f"http://127.0.0.1:{port}: no answer within 1 s"
            assert SECONDS * 0.9 < seconds < SECONDS + 1
        webhook.close()


@pytest.mark.parametrize("answer", [drips_its_head, continues_for_ever, handshake_drips])
def test_nor_within_tls(answer: Callable[[socket], None], tmp_path: Path) -> None:
    file, context = certificate(tmp_path)
    with answering(answer, None if answer is handshake_drips else context) as port:
        options = Options(url=f"https://localhost:{port}/", ca_file=str(file), timeout_seconds=SECONDS)
        webhook = Webhook(options)
        said, seconds, _ = attempt(webhook)
        assert said == f"https://localhost:{port}: no answer within 1 s"
        assert seconds < SECONDS + 1
        webhook.close()


def test_the_next_exchange_has_a_deadline_of_its_own() -> None:
    answers = [says_nothing, takes_it]
    with answering(lambda client: answers.pop(0)(client)) as port:
        webhook = Webhook(Options(url=f"http://127.0.0.1:{port}/", timeout_seconds=SECONDS))
        attempt(webhook)
        webhook.deliver([event()])
        time.sleep(SECONDS * 1.2)  # no timer is left that ends what comes later
        webhook.close()


def test_a_lane_that_hangs_is_failing_for_all_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason: one that no deadline knows."""
    release = threading.Event()

    class Hangs:
        name, batch = "webhook", 1

        def deliver(self, _events: object) -> None:
            release.wait(20)

        def close(self) -> None: ...

    monkeypatch.setattr(outbox, "OVERDUE_SECONDS", 0.3)
    store, states = Store.open(None), list[Delivery]()
    box = Outbox([Hangs()], store, lambda state, _: states.append(state))
    box.start()
    store.put(capture(), event())
    box.notify()
    time.sleep(0.1)
    box.look()
    assert states[-1].failed_since is None
    time.sleep(0.5)
    box.look()
    assert states[-1].failed_since is not None
    assert (states[-1].failures, states[-1].waiting) == (1, 1)
    assert states[-1].last_error == "an attempt does not come to its end"
    metrics = Metrics(sinks=("webhook",))
    metrics.sinks(["webhook"])
    metrics.delivery(states[-1])
    values = {
        s.name: s.value
        for family in metrics.collect()
        for s in family.samples
        if s.labels.get("part") == "sink_webhook" or s.labels.get("sink") == "webhook"
    }
    assert values["oomwatchd_part_up"] == 0
    release.set()
    box.stop()
    store.close()


def test_how_long_the_oldest_event_waits_is_said_between_attempts() -> None:
    class Takes:
        name, batch = "webhook", 1

        def deliver(self, _events: object) -> None: ...

        def close(self) -> None: ...

    now = 1.79e9
    store = Store.open(None, clock=lambda: now)
    lane = Lane(Takes(), store, Delivery(sink="webhook", position=0))
    store.put(capture(), event())
    now += 60
    store.put(capture(2000), event(2000))
    lane.look()
    assert (lane.state.waiting, lane.state.oldest_waiting) == (2, 1.79e9)
    while lane.step() is not None:
        pass
    assert (lane.state.waiting, lane.state.oldest_waiting) == (0, None)
    store.close()
