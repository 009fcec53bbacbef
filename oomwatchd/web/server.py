"""HTTP/1.1 for a few scrapers and browsers, in one thread that nobody can hold up.

A request is answered only when it is there whole; until then its connection costs a buffer and a
deadline, no thread. So idle clients, clients that send a byte at a time, that dawdle over a TLS handshake
or that never read their answer keep nobody else waiting. When there are too many connections the longest
idle one goes. What takes its time (a page out of the store, a password's hash) is handed to a lane: one
thread with a bounded room before it, so that a scrape never waits behind a page.

Why none of the known ones, measured: cheroot 11 gives a new connection to a worker at once; with four
workers and a timeout of 10 s, 50 idle connections or four that send a byte each half second kept a scrape
waiting for more than a minute. waitress 3 reads requests without a thread, but at its limit of connections
(100) it accepts no more until idle ones time out (120 s): with 110 idle ones a scrape got no answer; and
it has no TLS. prometheus_client's own does the TLS handshake in the thread that accepts: one idle client
stops every scrape.

Only GET and HEAD, no request bodies, no pipelining (a connection with more than one request in its buffer
is closed after the first answer). Source: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import selectors
import socket
import stat
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from oomwatchd.errors import OomwatchdError, PermissionDeniedError, UnavailableError

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 16384
MAX_HEADERS = 100
MAX_CONNECTIONS = 64
#: to send a whole request, counted from its first byte or the connection's begin
REQUEST_SECONDS = 10.0
#: between two requests; longer than common scrape intervals
IDLE_SECONDS = 90.0
#: to have an answer made by a lane, and again to take it whole
ANSWER_SECONDS = 15.0
#: requests that wait for one lane; more are told to come later
LANE_ROOM = 16
#: for the client to close after the last answer; closing with its data unread would reset the connection
#: and could take the answer with it
LINGER_SECONDS = 2.0
_GZIP_BYTES = 1024
#: of our own, each of which costs the connections that there are; one more ends the server
MAX_FAULTS = 16

#: nothing may be loaded, framed, guessed or kept
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Request(msgspec.Struct, frozen=True):
    """A request; ``path`` and ``query`` as sent (percent-encoded), header names in lower case.

    ``local``: it came to an address that only this host can reach; ``certified``: its client showed a
    certificate that was verified.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    local: bool = False
    certified: bool = False


class Response(msgspec.Struct, frozen=True):
    """An answer; the server adds the length, compression and the security headers."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}


Lane = Literal["password", "page"]
LANES: tuple[Lane, ...] = ("password", "page")


class Later(msgspec.Struct, frozen=True):
    """An answer that takes its time: ``make`` is called in the thread of ``lane``, which serves one
    request after the other, and may itself name another lane."""

    lane: Lane
    make: Callable[[], Response | Later]


#: Called in the server's own thread: whatever may wait or compute for long must be a Later.
Handler = Callable[[Request], Response | Later]


class WantRead(Exception):
    """A channel can only go on when its socket is readable."""


class WantWrite(Exception):
    """A channel can only go on when its socket is writable."""


class Channel(Protocol):
    """What the server needs of a connection, which never blocks: a plain socket, or TLS around one.
    ``recv`` and ``send`` raise BlockingIOError, WantRead, WantWrite, or OSError when it is broken."""

    def fileno(self) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: memoryview, /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class Security(Protocol):
    """Wraps accepted sockets. ``wrap`` is called for each, so that renewed certificates count at once;
    None: plain."""

    def wrap(self, accepted: socket.socket, /) -> Channel: ...
    def is_certified(self, channel: Channel, /) -> bool: ...


class BadRequest(Exception):
    """A request that is refused, with the status that says why; the connection is closed."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


_TARGET = re.compile(rb"(?:https?://[^/?#\s]*)?(/[!-~]*|(?=\?))", re.ASCII)
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def parse(head: bytes) -> tuple[Request, bool]:
    """A request's head (without its closing empty line) and whether the connection may stay open.

    Raises BadRequest.
    """
    first, *lines = head.split(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    method, target, version = words
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    if not _TOKEN.fullmatch(method):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if method not in (b"GET", b"HEAD"):
        raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED)
    matched = _TARGET.fullmatch(target)
    if matched is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if len(lines) > MAX_HEADERS:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or b"\n" in line or b"\0" in line or b"\r" in line:
            raise BadRequest(HTTPStatus.BAD_REQUEST)
        key = name.decode("ascii").lower()
        text = value.strip(b" \t").decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if version == b"HTTP/1.1" and "host" not in headers:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    path, _, query = matched[1].decode("ascii").partition("?")
    stays = version == b"HTTP/1.1" and "close" not in headers.get("connection", "").lower()
    return Request(method.decode("ascii"), path.partition("#")[0], query, headers), stays


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(seconds: float) -> str:
    """Seconds since the epoch as RFC 9110, 5.6.7 has them; ``email.utils`` would cost 0.6 MiB."""
    t = time.gmtime(seconds)
    day = f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04}"
    return f"{day} {t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"


def compose(response: Response, request: Request | None, stays: bool) -> bytes:
    """An answer as bytes; ``request`` None is one that could not be read."""
    body = response.body
    headers = {
        "Date": http_date(time.time()),
        "Content-Type": response.content_type,
        **SECURITY_HEADERS,
        **response.headers,
        "Vary": "Accept, Accept-Encoding",
    }
    if request is not None and len(body) > _GZIP_BYTES and _takes_gzip(request):
        body = zlib.compress(body, level=5, wbits=31)  # as gzip; the module costs more
        headers["Content-Encoding"] = "gzip"
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "keep-alive" if stays else "close"
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if request is not None and request.method == "HEAD" else head + body


def _takes_gzip(request: Request) -> bool:
    for choice in request.headers.get("accept-encoding", "").split(","):
        coding, _, weight = choice.strip().partition(";")
        if coding.strip().lower() == "gzip":
            return re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight, re.I) is None
    return False


class _Connection:
    """A client: what it sent so far, what it has still to take, and until when."""

    def __init__(self, channel: Channel, local: bool, now: float) -> None:
        self.channel = channel
        self.local = local
        self.received = bytearray()
        self.rest = memoryview(b"")
        self.waits = False
        self.stays = True
        self.lingers = False
        self.since = now
        self.deadline = now + REQUEST_SECONDS
        #: what the selector waits for; 0: it does not know this connection
        self.events = 0


class _Task(msgspec.Struct, frozen=True):
    connection: _Connection
    request: Request
    make: Callable[[], Response | Later]


class _Lane:
    """One thread that makes answers one after the other; ``done`` is called in it with each."""

    def __init__(self, name: str, done: Callable[[_Task, bytes | Later], None]) -> None:
        self._tasks: deque[_Task | None] = deque()
        self._work = threading.Semaphore(0)
        self._done = done
        self._thread = threading.Thread(target=self._run, name=f"http-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self, task: _Task) -> bool:
        """Whether there is room for the task."""
        if len(self._tasks) >= LANE_ROOM:
            return False
        self._tasks.append(task)
        self._work.release()
        return True

    def stop(self) -> None:
        """No further task is begun; one under way is not waited for."""
        self._tasks.clear()
        self._tasks.append(None)
        self._work.release()

    def _run(self) -> None:
        while True:
            self._work.acquire()
            try:
                task = self._tasks.popleft()
            except IndexError:  # stop() emptied the room
                continue
            if task is None:
                return
            made = _guarded(task.make, task.request)
            # here, for compressing a large page takes its time, too
            self._done(
                task,
                made if isinstance(made, Later) else compose(made, task.request, task.connection.stays),
            )


def _guarded(make: Callable[[], Response | Later], request: Request) -> Response | Later:
    try:
        return make()
    except Exception as error:
        log.error("cannot answer %r: %s: %s", request.path, type(error).__name__, error, exc_info=error)
        return Response(HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error\n")


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
        self._lanes = {name: _Lane(name, self._made) for name in LANES}
        self._answers: deque[tuple[_Task, bytes | Later]] = deque()
        self._selector = selectors.DefaultSelector()
        self._connections: set[_Connection] = set()
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
        return [_shown(listener.getsockname()) for listener in self._listeners]

    def start(self) -> None:
        """Begin to serve. Raises RuntimeError where no thread is to be had."""
        for lane in self._lanes.values():
            lane.start()
        self._thread.start()

    @property
    def ended(self) -> bool:
        """It was begun and serves no more, for whatever reason."""
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
            if isinstance(key.data, _Connection):
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

    def _made(self, task: _Task, answer: bytes | Later) -> None:
        """In a lane's thread: an answer is ready."""
        self._answers.append((task, answer))
        self._wake()

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
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
                # a client that has left before the handshake (a probe of the port) is no fault, and who wants
                # to fill the log with lines needs only come and go
                if not isinstance(error, OSError) and str(error) != self._said:
                    self._said = str(error)
                    log.error("cannot secure a connection: %s (said once)", error)
                accepted.close()
                return
        if len(self._connections) >= MAX_CONNECTIONS:
            self._drop_one()
        connection = _Connection(channel, is_local(listener), time.monotonic())
        self._connections.add(connection)
        self._await(connection, selectors.EVENT_READ)

    def _await(self, connection: _Connection, events: int) -> None:
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
        """Close the longest idle connection; one that is being answered only if all are."""
        self._close(min(self._connections, key=lambda c: (c.waits or len(c.rest) > 0, c.since)))

    def _serve(self, connection: _Connection) -> None:
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

    def _receive(self, connection: _Connection) -> None:
        data = connection.channel.recv(MAX_REQUEST_BYTES)
        if not data:
            self._close(connection)
            return
        self._await(connection, selectors.EVENT_READ)
        now = time.monotonic()
        if not connection.received:
            connection.deadline = now + REQUEST_SECONDS
        connection.since = now
        connection.received += data
        # An empty line before the request is allowed (RFC 9112, 2.2)
        while connection.received.startswith(b"\r\n"):
            del connection.received[:2]
        head, end, more = bytes(connection.received).partition(b"\r\n\r\n")
        if len(head) > MAX_REQUEST_BYTES:
            self._refuse(connection, BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
            return
        if not end:
            return
        try:
            request, stays = parse(head)
        except BadRequest as refused:
            self._refuse(connection, refused)
            return
        connection.stays = stays and not more
        connection.received.clear()
        certified = self._security is not None and self._security.is_certified(connection.channel)
        request = msgspec.structs.replace(request, local=connection.local, certified=certified)
        answer = _guarded(lambda: self._handler(request), request)
        if isinstance(answer, Later):
            self._delegate(connection, request, answer)
        else:
            self._answer(connection, compose(answer, request, connection.stays))

    def _delegate(self, connection: _Connection, request: Request, later: Later) -> None:
        """Hand the request to its lane; what the client sends meanwhile waits in its socket."""
        if not self._lanes[later.lane].take(_Task(connection, request, later.make)):
            self._answer(connection, compose(_BUSY, request, connection.stays))
            return
        connection.waits = True
        connection.deadline = time.monotonic() + ANSWER_SECONDS
        self._await(connection, 0)

    def _refuse(self, connection: _Connection, refused: BadRequest) -> None:
        connection.stays = False
        headers = {"Allow": "GET, HEAD"} if refused.status is HTTPStatus.METHOD_NOT_ALLOWED else {}
        body = f"{refused.status.phrase}\n".encode()
        self._answer(connection, compose(Response(refused.status, body, headers=headers), None, False))

    def _answer(self, connection: _Connection, data: bytes) -> None:
        connection.rest = memoryview(data)
        connection.waits = False
        connection.deadline = time.monotonic() + ANSWER_SECONDS
        self._await(connection, selectors.EVENT_WRITE)
        self._serve(connection)

    def _send(self, connection: _Connection) -> None:
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

    def _close(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        with suppress(KeyError, ValueError):
            self._await(connection, 0)
        connection.channel.close()


def is_local(listener: socket.socket) -> bool:
    """Whether only this host can reach a listening socket: a loopback address or a socket in the file
    system. One that is bound to every address is not local, whoever connects."""
    if listener.family == socket.AF_UNIX:
        return True
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    name: str = listener.getsockname()[0]  # as the kernel spells it
    return name == "::1" or name.startswith("127.")


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for every address of ``host``. Raises OomwatchdError with the mend."""
    mend = "choose another address with `listen` in [http]"
    try:
        # a str would load the codec for international names even where there is nothing to encode
        name = host.encode() if host.isascii() else host
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UnavailableError(f"cannot listen on {host}: {error.strerror}", mend=mend) from error
    listeners: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, _, address in found:
        try:
            listeners.append(_listen(family, kind, protocol, address))
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                # a name with an address that this host does not have (localhost without IPv6)
                failure = error
                continue
            for listener in listeners:
                listener.close()
            raise _cannot_listen(_shown(address), error, mend) from error
    if not listeners and failure is not None:
        raise _cannot_listen(f"{host}:{port}", failure, mend) from failure
    return listeners


def open_unix_listener(path: Path) -> socket.socket:
    """A listening socket in the file system, for its owner and group. One that an earlier process left
    behind is replaced, one that somebody serves is not. Raises OomwatchdError."""
    mend = "choose another path with `listen` in [http]"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _clear(path)
        # no moment in which others may connect
        before = os.umask(0o117)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise _cannot_listen(str(path), error, mend) from error
    return listener


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens to any more."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EADDRINUSE, "a file of another kind is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
        except BlockingIOError:  # somebody listens and has much to do
            return


def _listen(
    family: int, kind: int, protocol: int, address: tuple[str | int, ...] | tuple[int, bytes]
) -> socket.socket:
    listener = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _cannot_listen(address: str, error: OSError, mend: str) -> OomwatchdError:
    if error.errno == errno.EADDRINUSE:
        mend = f"another oomwatchd may be running (see `ss -ltnp`); or {mend}"
    kind = PermissionDeniedError if error.errno == errno.EACCES else UnavailableError
    return kind(f"cannot listen on {address}: {(error.strerror or str(error)).lower()}", mend=mend)


def adopt_listeners(descriptors: Sequence[int]) -> list[socket.socket]:
    """Listening stream sockets that the service manager passed (sd_listen_fds(3)). Raises
    UnavailableError for a descriptor that is none."""
    adopted = []
    for descriptor in descriptors:
        try:
            listener = socket.socket(fileno=descriptor)
            listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise UnavailableError(f"passed descriptor {descriptor}: {error.strerror}") from error
        if listener.type != socket.SOCK_STREAM or not listens:
            raise UnavailableError(
                f"passed descriptor {descriptor} is no listening stream socket", mend="use ListenStream="
            )
        adopted.append(listener)
    return adopted


def _shown(address: object) -> str:
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return str(address)
