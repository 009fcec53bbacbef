"""Listening sockets, opened on an address or a path or passed by the service manager; clients' addresses."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from oomwatchd.errors import OomwatchdError, PermissionDeniedError, UnavailableError


def is_local(listener: socket.socket) -> bool:
    """Whether only this host can reach a listening socket: it has a loopback address or is in the file
    system. A socket that is bound to all addresses is not local, even for a local client."""
    if listener.family == socket.AF_UNIX:
        return True
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    name: str = listener.getsockname()[0]  # as the kernel spells it
    return name == "::1" or name.startswith("127.")


def client_of(address: object) -> str:
    """The client, from the peer's address (accept(2)): an IPv4 address, the /64 of an IPv6 address (one host
    has all of it), or empty for a socket in the file system."""
    if not isinstance(address, tuple):
        return ""
    name = str(address[0]).partition("%")[0]
    if ":" not in name:
        return name
    packed = socket.inet_pton(socket.AF_INET6, name)
    if packed.startswith(b"\0" * 10 + b"\xff\xff"):  # IPv4 on an IPv6 socket
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8))


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for every address of ``host``. Raises OomwatchdError with a hint."""
    hint = "choose another address with `listen` in [http]"
    try:
        # a str would load the codec for international names even if there is nothing to encode
        name = host.encode() if host.isascii() else host
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UnavailableError(f"cannot listen on {host}: {error.strerror}", hint=hint) from error
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
            raise _cannot_listen(shown(address), error, hint) from error
    if not listeners and failure is not None:
        raise _cannot_listen(f"{host}:{port}", failure, hint) from failure
    return listeners


def open_unix_listener(path: Path) -> socket.socket:
    """A listening socket in the file system, for its owner and group. A socket that an earlier process left
    is replaced, unless a process still listens on it. Raises OomwatchdError."""
    hint = "choose another path with `listen` in [http]"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _clear(path)
        # set before bind(): at no moment may others connect
        before = os.umask(0o117)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise _cannot_listen(str(path), error, hint) from error
    return listener


def _clear(path: Path) -> None:
    """Remove a socket on which no process listens any more."""
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
        except BlockingIOError:  # a process listens, and its queue is full
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


def _cannot_listen(address: str, error: OSError, hint: str) -> OomwatchdError:
    if error.errno == errno.EADDRINUSE:
        hint = f"another oomwatchd may be running (see `ss -ltnp`); or {hint}"
    kind = PermissionDeniedError if error.errno == errno.EACCES else UnavailableError
    return kind(f"cannot listen on {address}: {(error.strerror or str(error)).lower()}", hint=hint)


def adopt_listeners(descriptors: Sequence[int]) -> list[socket.socket]:
    """Listening stream sockets that the service manager passed (sd_listen_fds(3)). Raises
    UnavailableError for a descriptor that is not one."""
    adopted = []
    for descriptor in descriptors:
        try:
            listener = socket.socket(fileno=descriptor)
            listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise UnavailableError(f"passed descriptor {descriptor}: {error.strerror}") from error
        if listener.type != socket.SOCK_STREAM or not listens:
            raise UnavailableError(
                f"passed descriptor {descriptor} is not a listening stream socket", hint="use ListenStream="
            )
        adopted.append(listener)
    return adopted


def shown(address: object) -> str:
    """A socket's address as ``host:port``, ``[v6]:port`` or a path."""
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return str(address)
