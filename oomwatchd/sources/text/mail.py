"""Undo the transfer encodings of mail as it was sent (RFC 2045): quoted-printable, base64.

A mail says itself how it is encoded, and each of its parts may be encoded in another way. A text that was
copied out of a mail says nothing; :mod:`.encodings` judges it by its signs.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

from oomwatchd.sources.text import encodings
from oomwatchd.words.deferred import deferred

_ENCODING: Final = deferred(
    rb"[ \t>]{0,16}content-transfer-encoding:[ \t]*(quoted-printable|base64|\w{1,16})", re.I
)
_BOUNDARY: Final = deferred(rb"boundary=(?:\"([^\"\r\n]{1,70})\"|([^\s\";]{1,70}))", re.I)
_BASE64: Final = deferred(rb"[A-Za-z0-9+/]{1,1024}={0,2}[ \t\r]*$")
#: a sign that no encoder leaves: the text was decoded when the mail was copied
_DECODED: Final = deferred(rb"=(?![0-9A-Fa-f]{2}|[ \t\r]*$)")
#: a mailbox separates its mails with this
_FROM: Final = deferred(rb"From \S{1,255} .{0,40}\d\d:\d\d:\d\d .{0,10}\d{4}[ \t\r]*$")
_ENCODED: Final = (b"quoted-printable", b"base64")
MAX_BOUNDARIES: Final = 64
#: a text is held back up to this size
MAX_HELD: Final = 64 * 1024


def is_mail(head: bytes) -> bool:
    """Whether a part of the text is encoded mail, by its own words."""
    if b"ransfer-" not in head and b"RANSFER-" not in head:
        return False
    return any(match[1].lower() in _ENCODED for match in _ENCODING.finditer(head))


class Transfer:
    """Lines of a mail -> lines of its text."""

    def __init__(self) -> None:
        self._now = b""
        #: the encoding of the part that begins after the next blank line
        self._next: bytes | None = None
        self._boundaries: set[bytes] = set()
        self._held = bytearray()

    def take(self, raw: bytes) -> list[bytes]:
        """The whole lines of text that this line of the mail completes."""
        if raw[:2] == b"--" and raw[2:].rstrip().removesuffix(b"--") in self._boundaries:
            return [*self._begin(b""), raw]
        if self._now == b"base64":
            if _BASE64.match(raw) is not None:
                return self._decoded(raw)
            if raw.strip():
                return [*self._begin(b""), raw]
            return []
        if self._now == b"quoted-printable":
            if _DECODED.search(raw) is not None:
                return [*self._begin(self._now), raw]
            soft = raw.rstrip(b" \t\r")
            if soft.endswith(b"=") and len(self._held) < MAX_HELD:
                self._held += soft[:-1]
                return []
            line = encodings.quoted_printable(bytes(self._held) + raw)
            self._held.clear()
            return line.split(b"\n")
        return self._header(raw)

    def flush(self) -> list[bytes]:
        """The text held back; the mail has ended."""
        return self._begin(b"")

    def _begin(self, encoding: bytes) -> list[bytes]:
        held = bytes(self._held)
        self._held.clear()
        text = held if self._now == b"base64" else encodings.quoted_printable(held)
        self._now, self._next = encoding, None
        return text.split(b"\n") if held else []

    def _header(self, raw: bytes) -> list[bytes]:
        if (match := _ENCODING.match(raw)) is not None:
            self._next = match[1].lower()
        elif _FROM.match(raw) is not None:
            self._next = None
        elif not raw.strip() and self._next is not None:
            return [*self._begin(self._next), raw]
        if b"oundary=" in raw and len(self._boundaries) < MAX_BOUNDARIES:
            self._boundaries.update(match[1] or match[2] for match in _BOUNDARY.finditer(raw))
        return [raw]

    def _decoded(self, raw: bytes) -> list[bytes]:
        """The whole lines in the text so far with this line of base64. Such lines are multiples of 4."""
        try:
            self._held += binascii.a2b_base64(raw)
        except ValueError:
            return [*self._begin(b""), raw]
        end = self._held.rfind(b"\n")
        if end < 0 and len(self._held) < MAX_HELD:
            return []
        text = bytes(self._held[: end if end >= 0 else len(self._held)])
        del self._held[: len(text) + (end >= 0)]
        return text.split(b"\n")
