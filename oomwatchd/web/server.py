"""HTTP/1.1 for a few scrapers and browsers, in one thread that no client can block.

A request is answered only when it is complete; until then its connection costs a buffer and a deadline, no
thread. So clients that are idle, send a byte at a time, delay the TLS handshake or never read their answer
keep nobody else waiting. If there are too many connections, the longest idle one is closed, first of a client
that has more than its share. Slow work (a page from the store, a password's hash) is given to a lane
(:mod:`oomwatchd.web.lanes`): one thread with a bounded queue, so that a scrape never waits behind a page.

Why no known server is used, as measured: cheroot 11 gives a new connection to a worker at once; with four
workers and a timeout of 10 s, 50 idle connections or four that send a byte each half second kept a scrape
waiting for more than a minute. waitress 3 reads requests without a thread, but at its limit of connections
(100) it accepts no more until idle ones time out (120 s): with 110 idle ones a scrape got no answer; and
it has no TLS. prometheus_client's own does the TLS handshake in the thread that accepts: one idle client
stops every scrape.

One long class: a connection may be stopped at each of its steps, and all of them share the one table of
connections.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus

import msgspec

from oomwatchd.web.connection import Channel, Connection, Security, WantRead, WantWrite
from oomwatchd.web.lanes import ROOM, Lane, Later, Task, guarded
from oomwatchd.web.listening import client_of, is_local, shown
from oomwatchd.web.messages import (
    MAX_REQUEST_BYTES,
    BadRequest,
    Request,
    Response,
    compose,
    refusal,
)

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
#: one client's share of the connections: a client with more loses its own first
CLIENT_SHARE = MAX_CONNECTIONS // 4
#: time to send a whole request, from its first byte or the connection's beginning
REQUEST_SECONDS = 10.0
#: time between two requests; longer than common scrape intervals
IDLE_SECONDS = 90.0
#: time for a lane to make an answer, and again for the client to take all of it
ANSWER_SECONDS = 15.0
#: time for the client to close after the last answer: closing with unread data would reset the connection,
#: and the answer could be lost
LINGER_SECONDS = 2.0
#: faults of our own; each closes all connections, and one more than this ends the server
MAX_FAULTS = 16

#: Called in the server's own thread: whatever may wait or compute for long must be a Later.
Handler = Callable[[Request], Response | Later]


_BUSY = Response(
    HTTPStatus.SERVICE_UNAVAILABLE, b"too many requests wait already\n", headers={"Retry-After": "2"}
)


class HttpServer:
    """Serves ``handler`` on ``listeners`` (listening sockets, which it then owns) from a thread."""

    def __init__(
        self, listeners: Sequence[socket.socket], handler: Handler, security: Security | None = None
    ) -> None:
        self._listeners = list(listeners)
        self._handler = handler
        self._security = security
        self._lanes = {name: Lane(name, self._made) for name in ROOM}
        self._answers: deque[tuple[Task, bytes | Later]] = deque()
        self._selector = selectors.DefaultSelector()
        self._connections: set[Connection] = set()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._stopping = False
        #: the last fault in securing a connection
        self._said = ""
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, listener)
        self._wake_reader.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as ``host:port``, ``[v6]:port`` or a socket's path."""
        return [shown(listener.getsockname()) for listener in self._listeners]

    def start(self) -> None:
        """Begin to serve. Raises RuntimeError if no thread can be started."""
        for lane in self._lanes.values():
            lane.start()
        self._thread.start()

    @property
    def ended(self) -> bool:
        """It was started and does not serve any more, for whatever reason."""
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def stopped(self) -> bool:
        """It was told to end."""
        return self._stopping

    def stop(self, timeout: float = 2.0) -> None:
        """End at once: open connections are closed. Waits ``timeout`` seconds at most for the thread."""
        if self._stopping:
            return
        self._stopping = True
        if self._thread.is_alive():
            self._wake()
            self._thread.join(timeout)
        elif self._thread.ident is None:
            self._close_all()

    def _wake(self) -> None:
        # full: it wakes anyway; closed: it has just ended by itself
        with suppress(OSError):
            self._wake_writer.send(b"x")

    def _run(self) -> None:
        faults = 0
        try:
            while not self._stopping:
                try:
                    self._turn()
                except Exception as error:
                    faults += 1
                    if faults > MAX_FAULTS:
                        raise
                    log.error("HTTP: %s: %s; connections closed", type(error).__name__, error, exc_info=error)
                    for connection in list(self._connections):
                        self._close(connection)
        except Exception:
            log.exception("the HTTP server has ended")
        finally:
            self._close_all()

    def _close_all(self) -> None:
        for lane in self._lanes.values():
            lane.stop()
        for connection in list(self._connections):
            self._close(connection)
        for held in (*self._listeners, self._wake_reader, self._wake_writer):
            held.close()
        self._selector.close()

    def _turn(self) -> None:
        """Wait for the next thing to do, and do it."""
        nearest = min((connection.deadline for connection in self._connections), default=None)
        timeout = None if nearest is None else max(0.0, nearest - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Connection):
                if key.data in self._connections:  # not closed by an earlier one of this turn
                    self._serve(key.data)
            elif key.data is not None:
                self._accept(key.data)
            else:
                self._wake_reader.recv(4096)
        while self._answers:
            task, answer = self._answers.popleft()
            if task.connection in self._connections:
                if isinstance(answer, Later):
                    self._delegate(task.connection, task.request, answer)
                else:
                    self._answer(task.connection, answer)
        now = time.monotonic()
        for connection in [c for c in self._connections if c.deadline <= now]:
            self._close(connection)

    def _made(self, task: Task, answer: bytes | Later) -> None:
        """In a lane's thread: an answer is ready."""
        self._answers.append((task, answer))
        self._wake()

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                # The listener stays readable: make room, or do not spin
                if self._connections:
                    self._drop_one()
                else:
                    time.sleep(0.1)
            return
        accepted.setblocking(False)
        channel: Channel = accepted
        if self._security is not None:
            try:
                channel = self._security.wrap(accepted)
            except Exception as error:
                # a client that leaves before the handshake (a probe of the port) is no fault; logging it
                # would let anybody fill the log
                if not isinstance(error, OSError) and str(error) != self._said:
                    self._said = str(error)
                    log.error("cannot secure a connection: %s (said once)", error)
                accepted.close()
                return
        if len(self._connections) >= MAX_CONNECTIONS:
            self._drop_one()
        now = time.monotonic()
        connection = Connection(
            channel,
            local=is_local(listener),
            client=client_of(address),
            since=now,
            deadline=now + REQUEST_SECONDS,
        )
        self._connections.add(connection)
        self._await(connection, selectors.EVENT_READ)

    def _await(self, connection: Connection, events: int) -> None:
        """Have the selector wait for these events of the connection, 0: for none."""
        if events == connection.events:
            return
        if not events:
            self._selector.unregister(connection.channel)
        elif connection.events:
            self._selector.modify(connection.channel, events, connection)
        else:
            self._selector.register(connection.channel, events, connection)
        connection.events = events

    def _drop_one(self) -> None:
        """Close the longest idle connection, first of clients that have more than their share. One that is
        being answered is closed only if all are."""
        held = Counter(connection.client for connection in self._connections)
        crowding = [c for c in self._connections if held[c.client] > CLIENT_SHARE]
        self._close(min(crowding or self._connections, key=lambda c: (c.waits or len(c.rest) > 0, c.since)))

    def _serve(self, connection: Connection) -> None:
        try:
            if connection.rest:
                self._send(connection)
            elif connection.lingers:
                if not connection.channel.recv(MAX_REQUEST_BYTES):
                    self._close(connection)
            else:
                self._receive(connection)
        except BlockingIOError:
            return
        except WantRead:
            self._await(connection, selectors.EVENT_READ)
        except WantWrite:
            self._await(connection, selectors.EVENT_WRITE)
        except OSError:
            self._close(connection)

    def _receive(self, connection: Connection) -> None:
        data = connection.channel.recv(MAX_REQUEST_BYTES)
        if not data:
            self._close(connection)
            return
        self._await(connection, selectors.EVENT_READ)
        now = time.monotonic()
        if not connection.reader.begun:
            connection.deadline = now + REQUEST_SECONDS
        connection.since = now
        try:
            read = connection.reader.feed(data)
        except BadRequest as refused:
            connection.stays = False
            self._answer(connection, refusal(refused))
            return
        if read is None:
            return
        request, connection.stays = read
        certified = self._security is not None and self._security.is_certified(connection.channel)
        request = msgspec.structs.replace(
            request, local=connection.local, certified=certified, client=connection.client
        )
        answer = guarded(lambda: self._handler(request), request)
        if isinstance(answer, Later):
            self._delegate(connection, request, answer)
        else:
            self._answer(connection, compose(answer, request, connection.stays))

    def _delegate(self, connection: Connection, request: Request, later: Later) -> None:
        """Hand the request to its lane; further data of the client waits in its socket meanwhile."""
        connection.waits = True
        connection.deadline = time.monotonic() + ANSWER_SECONDS
        self._await(connection, 0)
        refused = self._lanes[later.lane].take(Task(connection, request, later))
        if refused is not None and refused.connection in self._connections:
            self._answer(refused.connection, compose(_BUSY, refused.request, refused.connection.stays))

    def _answer(self, connection: Connection, data: bytes) -> None:
        connection.rest = memoryview(data)
        connection.waits = False
        connection.deadline = time.monotonic() + ANSWER_SECONDS
        self._await(connection, selectors.EVENT_WRITE)
        self._serve(connection)

    def _send(self, connection: Connection) -> None:
        connection.rest = connection.rest[connection.channel.send(connection.rest) :]
        if connection.rest:
            self._await(connection, selectors.EVENT_WRITE)
            return
        connection.since = time.monotonic()
        connection.deadline = connection.since + IDLE_SECONDS
        if not connection.stays:
            connection.channel.shutdown(socket.SHUT_WR)
            connection.lingers = True
            connection.deadline = connection.since + LINGER_SECONDS
        self._await(connection, selectors.EVENT_READ)

    def _close(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.closed = True
        with suppress(KeyError, ValueError):
            self._await(connection, 0)
        connection.channel.close()
