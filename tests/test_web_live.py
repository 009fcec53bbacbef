"""The running daemon while clients attack its HTTP server: it still watches, and still answers."""

from __future__ import annotations

import contextlib
import http.client
import socket
import statistics
import threading
import time

import pytest

from oomwatchd.cli import throwaway
from tests.kernel.running import RunningDaemon, wait_for
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.oom, pytest.mark.slow]


class Siege:
    """100 idle connections, clients that send a byte at a time, huge headers, and who asks for pages
    without end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=besiege)
            for besiege in (self._idle, self._drip, self._drip, self._huge, self._pages, self._pages)
        ]
        self.pages = 0

    def __enter__(self) -> Siege:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=5)

    def _idle(self) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(self._connect())
            self._ended.wait()

    def _drip(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError), self._connect() as client:
                for byte in b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 1000:
                    client.send(bytes([byte]))
                    if self._ended.wait(0.02):
                        break

    def _huge(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError), self._connect() as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000)
            self._ended.wait(0.02)

    def _pages(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                for path in ("/", "/events", "/api/v1/event.schema.json"):
                    client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
                    client.request("GET", path)
                    client.getresponse().read()
                    client.close()
                    self.pages += 1


def test_besieged_it_detects_and_is_scraped(daemon: RunningDaemon) -> None:
    with Siege(daemon.port) as siege:
        wait_for("pages to be read", lambda: siege.pages > 10)
        took = []
        for _ in range(40):
            began = time.monotonic()
            assert daemon.get("/metrics")[0] == 200
            took.append(time.monotonic() - began)
        with throwaway.victim() as victim:
            victim.exceed()
            victim.wait(PATIENCE)
        (line,) = wait_for("the event", lambda: daemon.lines_of(victim.comm))
        assert daemon.get("/-/healthy")[0] == 200
    assert siege.pages > 20
    # clients and server share the test's processors
    assert statistics.median(took) < 0.1, took
    assert max(took) < 2, took
    # a busy machine takes its time; who is blocked takes for ever
    assert line["time"]["detection_latency_seconds"] < 2
