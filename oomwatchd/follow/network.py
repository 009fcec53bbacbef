"""Sources on the network, opened: netconsole and syslog, by datagrams and by connections."""

from __future__ import annotations

import errno
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from oomwatchd.errors import NoInputError, PermissionDeniedError, UnavailableError
from oomwatchd.follow.address import Place
from oomwatchd.follow.channels import MAX_READ, Arrival, Channel, Command, File, Pipe, Serial
from oomwatchd.follow.syslog import Frames, read_message
from oomwatchd.words.escape import harmless

#: the most datagrams of one source in one turn, so that the others have their turn
MAX_DATAGRAMS = 1024
_DATAGRAM = 64 << 10
_RECEIVE_BUFFER = 4 << 20
#: connections of one listener; mostly each is one sender
MAX_CONNECTIONS = 256
#: SO_RXQ_OVFL of Linux's asm-generic/socket.h: the kernel counts datagrams that the socket had no room for
_RXQ_OVFL = 40


class Datagrams(Channel):
    """netconsole or syslog over UDP: each sender is a host of its own."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._socket: socket.socket | None = None
        self._overflows = 0
        self._is_syslog = place.kind == "syslog-udp"

    def open(self) -> None:
        self._socket = bound(self.place, socket.SOCK_DGRAM)
        for option in (getattr(socket, "SO_RCVBUFFORCE", 33), socket.SO_RCVBUF):
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, option, _RECEIVE_BUFFER)
                break
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, _RXQ_OVFL, 1)

    def descriptors(self) -> list[int]:
        return [] if self._socket is None else [self._socket.fileno()]

    @property
    def port(self) -> int:
        """Where it listens."""
        return 0 if self._socket is None else int(self._socket.getsockname()[1])

    def read(self, descriptor: int) -> Iterator[Arrival]:
        assert self._socket is not None
        size = socket.CMSG_SPACE(4)
        for _ in range(MAX_DATAGRAMS):
            try:
                data, ancillary, _, sender = self._socket.recvmsg(_DATAGRAM, size)
            except BlockingIOError:
                return
            except OSError as error:
                raise EOFError(error.strerror) from None
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == _RXQ_OVFL:
                    (count,) = struct.unpack("=I", value[:4])
                    self.drop("datagram", (count - self._overflows) & 0xFFFFFFFF)
                    self._overflows = count
            address = plain_address(sender)
            if not self._is_syslog:
                yield Arrival(address, data)
            elif (arrival := of_message(self, address, data)) is not None:
                yield arrival

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def of_message(channel: Channel, address: str, data: bytes) -> Arrival | None:
    """A syslog message as a line of its host; None if it is not the kernel's."""
    message = read_message(data)
    if message is None:
        channel.drop("foreign")
        return None
    sender = message.host if channel.place.section.relay and message.host else address
    return Arrival(sender, message.line + b"\n")


class _Connection(NamedTuple):
    socket: socket.socket
    address: str
    frames: Frames


class Connections(Channel):
    """syslog over TCP, plain or within TLS."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._listener: socket.socket | None = None
        self._context: ssl.SSLContext | None = None
        #: the least recently used first
        self._open: dict[int, _Connection] = {}

    def open(self) -> None:
        if self.place.kind == "syslog-tls":
            self._context = context_of(self.place)
        self._listener = bound(self.place, socket.SOCK_STREAM)
        self._listener.listen(64)

    def descriptors(self) -> list[int]:
        return [] if self._listener is None else [self._listener.fileno(), *self._open]

    @property
    def port(self) -> int:
        """Where it listens."""
        return 0 if self._listener is None else int(self._listener.getsockname()[1])

    def read(self, descriptor: int) -> Iterator[Arrival]:
        assert self._listener is not None
        if descriptor == self._listener.fileno():
            self._accept()
            return
        connection = self._open.get(descriptor)
        if connection is None:
            return
        taken = 0
        try:
            while taken < MAX_READ:
                data = connection.socket.recv(64 << 10)
                if not data:
                    raise ConnectionError
                taken += len(data)
                for message in connection.frames.feed(data):
                    arrival = of_message(self, connection.address, message)
                    if arrival is not None:
                        yield arrival
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._open[descriptor] = self._open.pop(descriptor)
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError):
                self.drop("connection")
            self._end(descriptor)

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(64):
            try:
                client, sender = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self.drop("connection")
                return
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
            self._open[client.fileno()] = _Connection(client, plain_address(sender), Frames())
            if len(self._open) > MAX_CONNECTIONS:  # close the one that was silent longest
                self.drop("connection")
                self._end(next(iter(self._open)))

    def _end(self, descriptor: int) -> None:
        connection = self._open.pop(descriptor, None)
        if connection is not None:
            connection.socket.close()
            self.closed.add(descriptor)

    def close(self) -> None:
        for descriptor in list(self._open):
            self._end(descriptor)
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def plain_address(sender: object) -> str:
    """A socket's address for people; an IPv4 address mapped into IPv6 is shown as IPv4."""
    host = str(sender[0]) if isinstance(sender, tuple) and sender else "unknown"
    return host.removeprefix("::ffff:").partition("%")[0]


def bound(place: Place, kind: socket.SocketKind) -> socket.socket:
    """A bound socket that never blocks. Raises OomwatchdError."""
    host, port = place.listen.host, place.listen.port
    tried = [host, "0.0.0.0"] if host == "::" else [host]  # noqa: S104 - where IPv6 is switched off
    failure: OSError | None = None
    for name in tried:
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        made = None
        try:
            made = socket.socket(family, kind)
            made.setblocking(False)
            if kind == socket.SOCK_STREAM:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            made.bind((name, port))
        except OSError as error:
            failure = error
            if made is not None:
                made.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                break
            continue
        return made
    assert failure is not None
    text = f"cannot listen on {harmless(place.text)}: {failure.strerror}"
    if failure.errno == errno.EACCES:
        raise PermissionDeniedError(text, hint="ports below 1024 need CAP_NET_BIND_SERVICE") from None
    raise UnavailableError(text, hint="another program may listen there") from None


def context_of(place: Place) -> ssl.SSLContext:
    """The TLS context that the section describes. Raises NoInputError."""
    section = place.section
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(section.tls_cert, section.tls_key or None)
        if section.tls_client_ca:
            context.load_verify_locations(section.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        what = error.strerror or str(error)
        raise NoInputError(f"the certificate of {harmless(place.text)} cannot be used: {what}") from None
    return context


#: by the kind of a place
CHANNELS: dict[str, Callable[[Place], Channel]] = {
    "serial": Serial,
    "file": File,
    "pipe": Pipe,
    "command": Command,
    "netconsole": Datagrams,
    "syslog-udp": Datagrams,
    "syslog-tcp": Connections,
    "syslog-tls": Connections,
}
