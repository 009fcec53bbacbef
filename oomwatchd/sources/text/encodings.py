"""Undo the encoding of a copied text: quoted-printable, HTML, Markdown, terminal escape codes, typography."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from oomwatchd.words.deferred import deferred

# ECMA-48 control sequences, operating system commands (xterm titles) and two-character escapes
_ANSI: Final = deferred(
    rb"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)|[()*+][0-9A-B]|[=>78cDEHMNOZ])"
)
_UNCLEAN: Final = (b"\xc2\xa0", b"\xc2\xad", b"\xe2\x80", b"\xe2\x81", b"\xef\xbb\xbf")
# invisible characters: soft hyphens, zero width blanks and (non-)joiners, marks of direction, byte order
# marks
_UNSEEN: Final = deferred(
    rb"\xc2\xad|\xe2\x80[\x8b\x8c\x8e\x8f\xaa-\xae]|\xe2\x81[\xa0\xa6-\xa9]|\xef\xbb\xbf"
)
# blanks inside a soft break's line end are to be ignored (RFC 2045, 6.7 (3))
_EQUALS: Final = deferred(rb"=(?:[0-9A-F]{2}|[ \t]{0,80}\r?\n)?")
_QP: Final = deferred(rb"=([0-9A-Fa-f]{2})")
_ENTITY: Final = deferred(rb"&(?:lt|gt|amp|quot|nbsp|apos|#\d{1,5}|#x[0-9a-f]{1,4});")
_TAGS: Final = (
    rb"(?:a|b|blockquote|body|br|code|dd|div|dl|dt|em|font|h[1-6]|head|hr|html|i|kbd|li|ol|p|pre|s|samp|small"
    rb"|span|strong|sub|sup|table|tbody|td|th|thead|title|tr|tt|u|ul)"
)
_TAG: Final = deferred(rb"</?" + _TAGS + rb"(?:\s[^<>]{0,300})?/?>", re.I)
_MARKUP: Final = deferred(rb"<(?!/?" + _TAGS + rb"\b)", re.I)
#: a line ends with these, unless only the end of a string stands behind
_BREAK: Final = deferred(
    rb"<(?:br(?:\s[^<>]{0,300})?/?|/(?:p|li|pre|div|tr|td|dd|dt|h[1-6]|blockquote))>"
    rb"(?![\"'`,;)\]}]{1,8}\s{0,8}$)",
    re.I,
)
_TWICE: Final = deferred(rb"&amp;(?:lt|gt|amp|quot|nbsp|apos|#\d{1,5}|#x[0-9a-f]{1,4});")
_CLOSING: Final = deferred(rb"</" + _TAGS + rb">|<br ?/?>", re.I)
_OPENING: Final = deferred(rb"<" + _TAGS + rb"[ >/]", re.I)

# Markdown writers put a backslash before characters that Markdown uses; the kernel's own words have none
_ESCAPED: Final = deferred(rb"[A-Za-z]\\_[A-Za-z]")
_UNESCAPED: Final = deferred(rb"[A-Za-z]_[A-Za-z]")
_BACKSLASH: Final = deferred(rb"\\([!-/:-@\[-`{-~])")

_DASH: Final = rb"\xe2(?:\x80[\x90-\x95]|\x88\x92)"
#: words of the kernel in which an editor turned the hyphen into a dash
_TYPESET: Final = deferred(
    rb"oom" + _DASH + rb"kill|(?:anon|file|shmem)" + _DASH + rb"rss|total" + _DASH + rb"vm"
    rb"|\xef\xac\x81le(?:[-:]|" + _DASH + rb")|[0-9](?:\xc3\x97|\xe2\x88\x97)[0-9]{1,9}kB"
)
_DASHES: Final = deferred(_DASH)
_TIMES: Final = deferred(rb"(?<=[0-9])(?:\xc3\x97|\xe2\x88\x97)(?=[0-9]{1,9}kB)")
#: ligatures: letters that a printed page joins
_LIGATURES: Final = {
    b"\xef\xac" + bytes((last,)): letters
    for last, letters in zip(range(0x80, 0x85), (b"ff", b"fi", b"fl", b"ffi", b"ffl"), strict=True)
}
_LIGATURE: Final = deferred(rb"\xef\xac[\x80-\x84]")
# colour codes whose escape character was written out, its backslash perhaps escaped in turn, or lost
_COLOUR: Final = deferred(
    rb"(?:\^\[|\\{1,4}(?:x1b|033|e|u001b|u241b)|\xe2\x90\x9b|\xe2\x86\x90)?\[\d{1,3}(?:;\d{1,3}){0,4}m"
)
_UNCOLOURED: Final = deferred(rb"\[0m")
_COLOURED: Final = deferred(
    _COLOUR.pattern + rb"|(?:\^\[|\\{1,4}(?:x1b|033|e|u001b|u241b)|\xe2\x90\x9b|\xe2\x86\x90)\[m"
)


class Carrier(NamedTuple):
    """How the text was encoded, judged from its beginning."""

    quoted_printable: bool = False
    html: bool = False
    markdown: bool = False
    typeset: bool = False
    coloured: bool = False
    bold: bool = False

    def of_raw_records(self) -> Carrier:
        """The encodings that records of /dev/kmsg may have; typography is not one of them."""
        carrier = self._replace(markdown=False, typeset=False, coloured=False, bold=False)
        return PLAIN if carrier == PLAIN else carrier


PLAIN: Final = Carrier()


def judge(head: bytes) -> Carrier:
    """Judge how a text was encoded.

    Quoted-printable: nearly every ``=`` is an escape, which no kernel text has. HTML: there are entities, or
    tags that open and close, and every ``<`` belongs to a tag. Markdown: most underscores inside words are
    escaped. Typeset: in the kernel's own words hyphens became dashes, letters became ligatures, or stars
    became multiplication signs.
    """
    quoted_printable = False
    if b"=3D" in head:
        signs = [len(match[0]) for match in _EQUALS.finditer(head)]
        quoted_printable = sum(length > 1 for length in signs) >= 0.95 * len(signs)
    # most texts lack these signs, which a search for one byte soon shows
    markup = b"&" in head and _ENTITY.search(head) is not None
    markup = markup or (
        b"<" in head and _CLOSING.search(head) is not None and _OPENING.search(head) is not None
    )
    markup = markup and _MARKUP.search(head) is None
    escaped = len(_ESCAPED.findall(head)) if b"\\" in head else 0
    carrier = Carrier(
        quoted_printable=quoted_printable,
        html=markup,
        markdown=escaped > 0 and escaped >= len(_UNESCAPED.findall(head)),
        typeset=not head.isascii() and _TYPESET.search(head) is not None,
        bold=has_bold(head),
        coloured=b"[0m" in head and _is_coloured(head),
    )
    return PLAIN if carrier == PLAIN else carrier


def _is_coloured(head: bytes) -> bool:
    """Whether written-out codes colour half of the lines, and the colour ends: a task's name may hold a
    colour too."""
    if b"\x1b" in head:
        head = _ANSI.sub(b"", head)
    lines = [line for line in head.split(b"\n") if line.strip()]
    coloured = sum(b"m" in line and _COLOUR.search(line) is not None for line in lines)
    return 2 * coloured >= len(lines) and _UNCOLOURED.search(head) is not None


def quoted_printable(line: bytes) -> bytes:
    """Undo RFC 2045's escapes in one line whose soft breaks are already joined. A result that is not UTF-8 is
    read as Latin-1: some mails have no other special characters than Latin-1's hard blanks."""
    line = _QP.sub(lambda match: bytes((int(match[1], 16),)), line)
    try:
        line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1").encode()
    return line


def is_dirty(data: bytes) -> bool:
    """Whether any line in this data needs :func:`clean`."""
    if b"\r" in data or b"\x1b" in data or b"\0" in data or b"\b" in data:
        return True
    return not data.isascii() and any(mark in data for mark in _UNCLEAN)


def clean(line: bytes) -> list[bytes]:
    """A physical line without terminal codes; a carriage return inside it begins another line."""
    if not is_dirty(line):
        return [line]
    if b"\x1b" in line:
        line = _ANSI.sub(b"", line)
    line = _UNSEEN.sub(b"", line.replace(b"\xc2\xa0", b" "))
    line = line.replace(b"\b", b"").rstrip(b"\r\0").replace(b"\0", b"\\x00")
    if b"\r" not in line:
        return [line]
    return [part for part in line.split(b"\r") if part.strip()]


def is_console(line: bytes) -> bool:
    """Whether the line shows that a terminal or a serial line carried it."""
    return b"\x1b[" in line or b"\r" in line.rstrip(b"\r") or line.endswith(b"\r\r")


def is_marked(text: str) -> bool:
    """Whether a text has HTML's breaks between its lines."""
    return "<" in text and _BREAK.search(text.encode("utf-8", "backslashreplace")) is not None


def unmark(line: bytes) -> bytes:
    """A line of HTML as text; it has several lines if its tags separate them. Feeds escape HTML twice."""
    import html

    if b"&amp;" in line and _TWICE.search(line) is not None:
        line = html.unescape(line.decode("utf-8", "backslashreplace")).encode("utf-8", "backslashreplace")
    if b"<" in line:
        line = _TAG.sub(b"", _BREAK.sub(b"\n", line).rstrip(b"\r\n \t"))
    text = line.decode("utf-8", "backslashreplace")
    return html.unescape(text).replace("\xa0", " ").encode("utf-8", "backslashreplace")


#: a word that was made bold; "** 7 printk messages dropped **" is the kernel's own
_BOLD: Final = deferred(rb"(?<![*\w])\*\*(?=[^\s*])([^*\r\n]{1,200})(?<=[^\s*])\*\*(?![*\w])")


def has_bold(data: bytes) -> bool:
    """Whether words are bold by Markdown's signs."""
    return b"**" in data and _BOLD.search(data) is not None


def unbold(line: bytes) -> bytes:
    """Take Markdown's signs of bold words away."""
    return _BOLD.sub(rb"\1", line) if b"**" in line else line


def unescape_markdown(line: bytes) -> bytes:
    """Take Markdown's backslashes away."""
    return _BACKSLASH.sub(rb"\1", line) if b"\\" in line else line


def untypeset(line: bytes) -> bytes:
    """Hyphens in the place of dashes, letters in the place of ligatures."""
    if line.isascii():
        return line
    line = _TIMES.sub(b"*", _DASHES.sub(b"-", line))
    return _LIGATURE.sub(lambda match: _LIGATURES[match[0]], line)


def uncolour(line: bytes) -> bytes:
    """Remove colour codes whose escape character was written out or lost."""
    if b"\x1b" in line:
        line = _ANSI.sub(b"", line)
    return _COLOURED.sub(b"", line) if b"m" in line else line
