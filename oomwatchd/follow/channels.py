"""Sources opened: each gives what came, says what is wrong, and is opened again when it has ended."""

from __future__ import annotations

import errno
import os
import signal
import socket
import ssl
import stat
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from oomwatchd.errors import NoInputError, OomwatchdError, PermissionDeniedError, UnavailableError
from oomwatchd.follow.address import Place
from oomwatchd.follow.syslog import Frames, read_message
from oomwatchd.sources.text import FollowedFile
from oomwatchd.words.escape import harmless

#: what one source gives at once, so that the others have their turn
MAX_READ = 256 << 10
MAX_DATAGRAMS = 1024
_DATAGRAM = 64 << 10
_RECEIVE_BUFFER = 4 << 20
#: of one listener: each is one sender, mostly
MAX_CONNECTIONS = 256
#: how much of a file is read that was there before
MAX_OLD = 4 << 20
#: seconds until a source is opened again, doubled up to the second
FIRST_WAIT, LAST_WAIT = 0.5, 60.0
#: SO_RXQ_OVFL of Linux's asm-generic/socket.h: the kernel counts what the socket had no room for
_RXQ_OVFL = 40


class Arrival(NamedTuple):
    """What came: ``sender`` is None where the source has one host, else an address, or the name that the
    sender gives itself."""

    sender: str | None
    data: bytes


class Channel:
    """One source. ``descriptors`` are to be polled; ``read`` belongs to one of them and never waits."""

    def __init__(self, place: Place) -> None:
        self.place = place
        #: counts of what was not taken: datagram, foreign, connection
        self.dropped: dict[str, int] = {}
        #: descriptors that were closed since they were asked for
        self.closed: set[int] = set()

    def open(self) -> None:
        """Raises OomwatchdError."""
        raise NotImplementedError

    def descriptors(self) -> list[int]:
        raise NotImplementedError

    def read(self, descriptor: int) -> Iterator[Arrival]:
        """Raises EOFError, with what is wrong, where the source has ended."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    #: whether it is read every now and then and not polled
    is_polled = True
    #: whether it is opened again when it has ended
    again = True

    def drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count


class _Stream(Channel):
    """One descriptor with bytes."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._descriptor = -1

    def descriptors(self) -> list[int]:
        return [self._descriptor] if self._descriptor >= 0 else []

    def read(self, descriptor: int) -> Iterator[Arrival]:
        taken = 0
        while taken < MAX_READ:
            try:
                data = os.read(descriptor, 64 << 10)
            except BlockingIOError:
                return
            except OSError as error:
                raise EOFError(error.strerror) from None
            if not data:
                raise EOFError(self.why_ended())
            taken += len(data)
            yield Arrival(None, data)

    def why_ended(self) -> str:
        return "it has ended"

    def close(self) -> None:
        if self._descriptor > 2:
            os.close(self._descriptor)
        self._descriptor = -1


def opened(path: str, flags: int) -> int:
    """A descriptor that never waits. Raises OomwatchdError."""
    try:
        return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise PermissionDeniedError(
            f"{harmless(path)} may not be read", hint="for a serial line: the group dialout"
        ) from None
    except OSError as error:
        raise NoInputError(f"{harmless(path)} cannot be opened: {error.strerror}") from None


class Serial(_Stream):
    """A serial line: 8 bits, no parity, nothing interpreted, as termios(3) has it."""

    def open(self) -> None:
        descriptor = opened(self.place.path, os.O_RDONLY | os.O_NOCTTY)
        try:
            if not os.isatty(descriptor):
                raise NoInputError(
                    f"{harmless(self.place.path)} is no serial line",
                    hint="for a file or a pipe: file:, pipe:",
                )
            speed = getattr(termios, f"B{self.place.speed}")
            mode = termios.tcgetattr(descriptor)
            mode[0] = termios.IGNBRK  # a break is what a board that loses power sends
            mode[1] &= ~termios.OPOST
            mode[2] &= ~(termios.CSIZE | termios.PARENB | termios.CSTOPB | getattr(termios, "CRTSCTS", 0))
            mode[2] |= termios.CS8 | termios.CREAD | termios.CLOCAL
            mode[3] &= ~(termios.ICANON | termios.ECHO | termios.ECHONL | termios.ISIG | termios.IEXTEN)
            mode[4] = mode[5] = speed
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(descriptor, termios.TCSANOW, mode)
        except termios.error as error:
            os.close(descriptor)
            raise UnavailableError(
                f"{harmless(self.place.path)} does not take {self.place.speed} baud: {error.args[-1]}"
            ) from None
        except OomwatchdError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def why_ended(self) -> str:
        return "the line was hung up"


class Pipe(_Stream):
    """A pipe: of standard input the end is the end, a named one may be opened by the next writer."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.again = place.path != "-"

    def open(self) -> None:
        if self.place.path == "-":
            if stat.S_ISREG(os.fstat(0).st_mode):
                raise NoInputError("standard input is a file", hint="give file:PATH, or use analyze")
            # not made one that does not wait: whoever shares it did not ask for that
            self._descriptor = 0
            return
        descriptor = opened(self.place.path, os.O_RDONLY)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            os.close(descriptor)
            what = "a directory" if stat.S_ISDIR(mode) else "a file"
            raise NoInputError(f"{harmless(self.place.path)} is {what}", hint="for a file: file:PATH")
        self._descriptor = descriptor

    def read(self, descriptor: int) -> Iterator[Arrival]:
        if descriptor != 0:
            yield from super().read(descriptor)
            return
        data = os.read(0, 64 << 10)  # once: it was said to be there
        if not data:
            raise EOFError(self.why_ended())
        yield Arrival(None, data)


class File(Channel):
    """A file that grows and is rotated."""

    is_polled = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._file: FollowedFile | None = None

    def open(self) -> None:
        self._file = FollowedFile(self.place.path, MAX_OLD)

    def descriptors(self) -> list[int]:
        return []

    def news(self) -> Iterator[Arrival]:
        """What came since it was asked last."""
        if self._file is not None:
            for data in self._file.news():
                yield Arrival(None, data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Command(_Stream):
    """What a command writes, started again when it ends; without a shell. Its own words on standard error
    say why it ended."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._process: subprocess.Popen[bytes] | None = None
        self._said = -1

    def open(self) -> None:
        try:
            process = subprocess.Popen(
                self.place.words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise UnavailableError(
                f"cannot run {harmless(self.place.words[0])}: {error.strerror}", hint="check the command"
            ) from None
        assert process.stdout is not None and process.stderr is not None
        self._process = process
        self._descriptor, self._said = process.stdout.fileno(), process.stderr.fileno()
        for descriptor in (self._descriptor, self._said):
            os.set_blocking(descriptor, False)
        self._last_words = b""

    def descriptors(self) -> list[int]:
        return [one for one in (self._descriptor, self._said) if one >= 0]

    def read(self, descriptor: int) -> Iterator[Arrival]:
        if descriptor != self._said:
            yield from super().read(descriptor)
            return
        self._hear()

    def _hear(self) -> None:
        """Read what it says on standard error; a pipe that nobody reads would stop it."""
        try:
            while data := os.read(self._said, 4096):
                self._last_words = (self._last_words + data)[-512:]
            self._said = -1  # closed
        except OSError:
            pass

    def why_ended(self) -> str:
        if self._said >= 0:
            self._hear()
        assert self._process is not None
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            status = None
        lines = self._last_words.decode("utf-8", "replace").strip().splitlines()
        how = "it closed its output" if status is None else f"it ended with status {status}"
        return f"{how}: {harmless(lines[-1])}" if lines else how

    def close(self) -> None:
        process, self._process = self._process, None
        self._descriptor = self._said = -1
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


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
    """A syslog message as a line of its host; None for one that is not the kernel's."""
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
        #: the oldest in use first
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
            if len(self._open) > MAX_CONNECTIONS:  # the one that said nothing for longest
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
    """A socket's address for people, without what IPv6 puts around one of IPv4."""
    host = str(sender[0]) if isinstance(sender, tuple) and sender else "unknown"
    return host.removeprefix("::ffff:").partition("%")[0]


def bound(place: Place, kind: socket.SocketKind) -> socket.socket:
    """A socket that never waits. Raises OomwatchdError."""
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
    """TLS as the section says. Raises NoInputError."""
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
