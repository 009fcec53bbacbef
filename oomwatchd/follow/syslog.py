"""Syslog messages -> lines of text as a log file has them. RFC 3164, RFC 5424, framing of RFC 6587 and 5425.

A message that is not the kernel's is left out, because programs quote the kernel. It is the kernel's if it
has the facility kern or the tag ``kernel``: some senders give the kernel's lines another facility (glibc's
syslog(3) does).
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: longer messages are cut; RFC 5424 asks for at least 2048 bytes
MAX_MESSAGE = 16 << 10

_PRIORITY = re.compile(rb"<(\d{1,3})>")
_NEW = re.compile(
    rb"1 (?P<time>\S{1,48}) (?P<host>\S{1,255}) (?P<app>\S{1,48}) \S{1,128} \S{1,32} "
    rb'(?:-|(?:\[(?:[^\]"]|"(?:[^"\\]|\\.)*")*\])+)(?: (?:\xef\xbb\xbf)?|$)'
)
_OLD = re.compile(
    rb"(?:(?P<time>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S{8,27}) )?"
    rb"(?:(?P<host>[^\s:\[\]]{1,255}) )?(?P<app>[^\s:\[]{1,64})(?:\[\d*\])?: "
)


class Message(NamedTuple):
    """One message of a kernel: the sender's name for itself, and the line."""

    host: str | None
    line: bytes


def read_message(data: bytes) -> Message | None:
    """Read a message; None if it is not the kernel's."""
    data = data[:MAX_MESSAGE].rstrip(b"\r\n\0").replace(b"\n", b" ")
    priority = _PRIORITY.match(data)
    facility = int(priority[1]) >> 3 if priority else None
    body = data[priority.end() :] if priority else data
    match = _NEW.match(body) or _OLD.match(body)
    if match is None:
        return Message(None, body) if facility == 0 else None
    app = match["app"] or b""
    if facility != 0 and app != b"kernel":
        return None
    host, text = match["host"], body[match.end() :]
    called = None if host in (None, b"-") else host.decode("ascii", "replace")
    if match["time"] in (None, b"-"):
        return Message(called, text)
    return Message(called, b"%b %b kernel: %b" % (match["time"], host or b"-", text))


class Frames:
    """The messages of one connection: counted octets or lines; the first byte of each message tells which."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The whole messages. Raises ValueError if no message can be found any more."""
        self._buffer += data
        found: list[bytes] = []
        while self._buffer:
            message = self._counted() if self._buffer[:1].isdigit() else self._line()
            if message is None:
                break
            found.append(message)
        return found

    def _counted(self) -> bytes | None:
        length, blank, _ = bytes(self._buffer[:8]).partition(b" ")
        if not blank:
            if len(self._buffer) >= 8 or not length.isdigit():
                raise ValueError("no length")
            return None
        if not length.isdigit() or int(length) > MAX_MESSAGE:
            raise ValueError("no length")
        begin, end = len(length) + 1, len(length) + 1 + int(length)
        if len(self._buffer) < end:
            return None
        message = bytes(self._buffer[begin:end])
        del self._buffer[:end]
        return message

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > MAX_MESSAGE:
                raise ValueError("no end of a line")
            return None
        message = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return message
