"""Undo what carried the text: quoted-printable, HTML, terminal escape codes, no-break spaces."""

from __future__ import annotations

import html
import re
from typing import Final, NamedTuple

# ECMA-48 control sequences, operating system commands (xterm titles) and two-character escapes
_ANSI: Final = re.compile(
    rb"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)|[()*+][0-9A-B]|[=>78cDEHMNOZ])"
)
_DIRTY: Final = (b"\0", b"\b", b"\r", b"\x1b", b"\xc2\xa0", b"\xe2\x80\x8b", b"\xef\xbb\xbf")
_EQUALS: Final = re.compile(rb"=(?:[0-9A-F]{2}|\r?\n)?")
_QP: Final = re.compile(rb"=([0-9A-Fa-f]{2})")
_ENTITY: Final = re.compile(rb"&(?:lt|gt|amp|quot|nbsp|apos|#\d{1,5}|#x[0-9a-f]{1,4});")
_TAG: Final = re.compile(
    rb"</?(?:a|b|br|code|div|em|font|i|li|p|pre|span|strong|td|tr|tt)(?:\s[^<>]{0,300})?/?>"
)
_MARKUP: Final = re.compile(rb"<(?!/?(?:a|b|br|code|div|em|font|i|li|p|pre|span|strong|td|tr|tt)\b)")


class Carrier(NamedTuple):
    """How the text was carried, judged from its beginning."""

    quoted_printable: bool = False
    html: bool = False


def judge(head: bytes) -> Carrier:
    """Quoted-printable: nearly every ``=`` is an escape, as no kernel text writes it. HTML: there are
    entities, and no ``<`` but those of tags."""
    quoted_printable = False
    if b"=3D" in head:
        signs = [len(match[0]) for match in _EQUALS.finditer(head)]
        quoted_printable = sum(length > 1 for length in signs) >= 0.95 * len(signs)
    markup = _ENTITY.search(head) is not None and _MARKUP.search(head) is None
    return Carrier(quoted_printable=quoted_printable, html=markup)


def quoted_printable(line: bytes) -> bytes:
    """Undo RFC 2045's escapes in one line whose soft breaks are already closed."""
    return _QP.sub(lambda match: bytes((int(match[1], 16),)), line)


def is_dirty(data: bytes) -> bool:
    """Whether any line in this data needs :func:`clean`."""
    return any(mark in data for mark in _DIRTY)


def clean(line: bytes) -> list[bytes]:
    """A physical line without terminal codes; a carriage return inside begins a further line."""
    if not is_dirty(line):
        return [line]
    if b"\x1b" in line:
        line = _ANSI.sub(b"", line)
    line = line.replace(b"\xc2\xa0", b" ").replace(b"\xe2\x80\x8b", b"").replace(b"\xef\xbb\xbf", b"")
    line = line.replace(b"\b", b"").rstrip(b"\r\0").replace(b"\0", b"\\x00")
    if b"\r" not in line:
        return [line]
    return [part for part in line.split(b"\r") if part.strip()]


def is_console(line: bytes) -> bool:
    """Whether the line shows that a terminal or a serial line carried it."""
    return b"\x1b[" in line or b"\r" in line.rstrip(b"\r") or line.endswith(b"\r\r")


def unmark(line: bytes) -> bytes:
    """A line of HTML as text."""
    text = _TAG.sub(b"", line).decode("utf-8", "backslashreplace")
    return html.unescape(text).replace("\xa0", " ").encode("utf-8", "backslashreplace")
