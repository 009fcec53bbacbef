"""One deadline over a whole exchange: connecting, sending, each byte of the answer.

A socket's timeout begins anew with each byte, so a receiver that drips, or answers ``100 Continue`` without
end, would hold its thread for ever. At the deadline the sockets are shut down from outside, which ends
whatever waits for them.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    import ssl


class Deadline:
    """Knows the sockets of one client, which has one exchange at a time."""

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()
        self._exchange = 0
        #: the last exchange was ended by the deadline
        self.passed = False

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """A context in which the exchange ends after so many seconds, with some error."""
        self.passed = False
        self._exchange += 1
        timer = threading.Timer(seconds, self._end, (self._exchange,))
        timer.daemon = True
        with suppress(RuntimeError):  # no thread can be started: the sockets' own timeouts remain
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._exchange += 1

    def _end(self, exchange: int) -> None:
        with self._lock:
            if exchange != self._exchange:  # it ended just now
                return
            self.passed = True
            for one in list(self._sockets):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def add(self, one: socket.socket) -> None:
        """A new connection, before anything is said on it."""
        with self._lock:
            self._sockets.add(one)
            passed = self.passed
        if passed:
            raise TimeoutError

    def watch(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """The same, whose connections are known before their handshake begins."""
        import ssl

        add = self.add

        class Watched(ssl.SSLSocket):
            def do_handshake(self, block: bool = False) -> None:
                add(self)
                super().do_handshake(block)

        context.sslsocket_class = Watched
        return context

    def pool_classes(self) -> dict[str, Any]:
        """For ``urllib3.PoolManager.pool_classes_by_scheme``: plain connections, which have no context."""
        from urllib3.connection import HTTPConnection
        from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

        add = self.add

        class Connection(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                if self.sock is not None:
                    add(self.sock)

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        return {"http": Pool, "https": HTTPSConnectionPool}
