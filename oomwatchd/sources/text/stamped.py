"""Plain lines of dmesg, syslog and journal, many at once: the short way for the most frequent forms of a log.

One pattern cuts all lines of a text. A line that it knows has one prefix (the kernel's stamp, a syslog's or
the journal's header with the kernel's tag), and a text that needs no mending and that the next line cannot
continue. All other lines are left to the reader. What was cut also shows much of a document at once
(:mod:`.manner`, :mod:`.learn`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import repeat
from operator import add, eq
from typing import Final, NamedTuple

from oomwatchd.formats import pieces
from oomwatchd.records.capture import SourceForm
from oomwatchd.records.kmsg import FACILITY_KERN, KmsgRecord
from oomwatchd.sources.text import certain, encodings
from oomwatchd.words.deferred import deferred

#: so many lines are taken at once: their parts stay in the processor's cache
BATCH: Final = 512

#: a line of a call trace, which no form is like, or another line whose leading blanks are the kernel's
_INDENTED: Final = (
    r" (?:(?:\[<[0-9a-f]{8,16}>\] )?(?:\? )?"
    r"[\w.$]{1,128}\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}(?: \[\w{1,56}\])?"
    rf"| *(?!{certain.FLUSH_LEFT})[^\s(\[.\-][^\n]*(?<![\s\]]))"
)
_ROW: Final = r"\[ *\d{1,10}\] +\d+ +\d[^\n]*(?<![\s\]])"
_STAMP: Final = r"\[ *(\d{1,12})\.(\d{6})\] "
_TAG: Final = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [\w.-]{1,253} %s: "
_BEGUN: Final = "|".join(map(re.escape, sorted(pieces.BEGUN)))
# a line that some kernels print a word at a time has none of these signs while more may follow
_ZONE: Final = rf"(?!lowm|prot)(?:{_BEGUN})[^\n=_]* [^\n=_]*[=_][^\n]*(?<![\s\]])"
_RESERVE: Final = r"lowmem_reserve\[\]:[ \d]*(?<! )"
# not what may be a vendor's caller, an indent, one word, or a line that may go on
_WORDS: Final = rf"(?!{_BEGUN})[^\s(\[.\-][^\n ]*+ [^\n]*(?<![\s\]])"
#: what the reader of prefixes looks for behind a prefix
_TAGGED: Final = b"kernel: "
_NONE: Final = repeat(None)
#: so many lines show whether most have such a prefix
_LOOK: Final = 16


class Shape(NamedTuple):
    """One kind of prefix: the form it is counted as, whether it names the kernel and has its stamp, what
    begins such a line, and the pattern that cuts lines."""

    form: SourceForm
    tagged: bool
    stamped: bool
    begins: re.Pattern[bytes]
    line: re.Pattern[str]


def _shape(form: SourceForm, prefix: str, *, tagged: bool, stamped: bool) -> Shape:
    """``prefix``: with two groups, which are the kernel's stamp if it has one."""
    begins = prefix.replace("(", "(?:")
    plain = rf"{_WORDS}|{_ROW}|{_INDENTED}|{_ZONE}|{_RESERVE}(?=\n{begins}[A-Z])"
    line = rf"^(?:{prefix}(?:({plain})|[^\n]*)|[^\n]*)$"
    return Shape(form, tagged, stamped, deferred(begins.encode()), deferred(line, re.MULTILINE | re.ASCII))


_SHAPES: Final = (
    _shape("dmesg", _STAMP, tagged=False, stamped=True),
    _shape("syslog", _TAG % "kernel" + _STAMP, tagged=True, stamped=True),
    _shape("journal", _TAG % "(kernel)" + "()", tagged=True, stamped=False),
)


class Cut(NamedTuple):
    """Lines that were cut, of one shape. ``seconds`` and ``fractions`` are of the kernel's stamp, if the
    shape has one; ``seconds`` is "" only if the line has no such prefix. ``texts`` are what stands behind the
    prefix, "" if the line is not plain."""

    shape: Shape
    seconds: Sequence[str]
    fractions: Sequence[str]
    texts: Sequence[str]


def cut(lines: Sequence[bytes], together: bytes) -> Cut | None:
    """Cut lines in which nothing has to be undone; None if few have a known prefix. ``together``: the lines
    joined with newlines."""
    looked_at = lines[:: len(lines) // _LOOK + 1]
    for shape in _SHAPES:
        if 2 * sum(shape.begins.match(line) is not None for line in looked_at) >= len(looked_at):
            found = shape.line.findall(together.decode("utf-8", "backslashreplace"))
            return Cut(shape, *zip(*found, strict=True))
    return None


def cuts(head: Sequence[bytes]) -> list[Cut | None]:
    """The same for each batch of a long text; nothing if something has to be undone in it."""
    if encodings.is_dirty(b"\n".join(head)):
        return []
    batches = [head[begin : begin + BATCH] for begin in range(0, len(head), BATCH)]
    return [cut(batch, b"\n".join(batch)) for batch in batches]


def all_prefixed(found: Sequence[Cut | None]) -> bool:
    """Whether every line of a text begins with such a prefix."""
    return bool(found) and all(part is not None and "" not in part.seconds for part in found)


def behind(head: Sequence[bytes], together: bytes, found: Sequence[Cut | None]) -> bytes:
    """The text of a document as far as a second stamp on its line may be in it."""
    if not any(found):
        return together
    parts: list[bytes] = []
    for number, part in enumerate(found):
        lines = head[number * BATCH : (number + 1) * BATCH]
        if part is None:
            parts += lines
        else:
            parts += [line for line, text in zip(lines, part.texts, strict=True) if not text]
            parts.append("\n".join([text for text in part.texts if "." in text]).encode())
    return b"\n".join(parts)


def records(lines: Sequence[bytes], together: bytes, found: Cut) -> tuple[list[KmsgRecord], list[int]]:
    """A record for each line, and the numbers of the lines that are not plain: their records say nothing."""
    shape, seconds, fractions, texts = found
    others = [at for at, text in enumerate(texts) if not text]
    if shape.tagged:
        if together.count(_TAGGED) > len(lines) - len(others) or b"#" in together:
            others += [at for at, text in enumerate(texts) if "#" in text or "kernel: " in text]
    elif _TAGGED in together:
        others += [at for at, line in enumerate(lines) if _TAGGED in line]
    if any(map(eq, lines, lines[1:])):  # the same line twice is one
        twice = [at for at in range(1, len(lines)) if lines[at] == lines[at - 1]]
        others += [at - 1 for at in twice] + twice
    stamps = map(int, map("0".__add__, map(add, seconds, fractions))) if shape.stamped else _NONE
    facility = repeat(FACILITY_KERN if shape.tagged else None)
    made = map(KmsgRecord, texts, facility, _NONE, _NONE, stamps, repeat("-"), _NONE, _NONE, lines)
    return list(made), sorted(set(others))
