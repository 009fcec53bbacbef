"""A client's connection as the server keeps it, and the interface of a plain socket or one with TLS."""

from __future__ import annotations

import socket
from typing import Protocol

from oomwatchd.web.messages import RequestReader


class WantRead(Exception):
    """A channel can only go on when its socket is readable."""


class WantWrite(Exception):
    """A channel can only go on when its socket is writable."""


class Channel(Protocol):
    """A connection that never blocks: a plain socket, or TLS around one.
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


class Connection:
    """A client: the data it sent so far, the data still to be sent to it, and its deadline."""

    def __init__(self, channel: Channel, *, local: bool, client: str, since: float, deadline: float) -> None:
        self.channel = channel
        self.local = local
        self.client = client
        self.reader = RequestReader()
        self.rest = memoryview(b"")
        self.waits = False
        self.stays = True
        self.lingers = False
        self.since = since
        self.deadline = deadline
        #: the events that the selector waits for; 0: the connection is not registered
        self.events = 0
        self.closed = False
