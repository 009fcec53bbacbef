"""Plain dmesg lines, many at once: the short way for the most frequent form of a log.

One pattern cuts all lines of a text. A line that it knows has the kernel's stamp, no other prefix, and a text
that needs no mending and that the next line cannot continue. All other lines are left to the reader.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import repeat
from operator import add, eq
from typing import Final

from oomwatchd.formats import pieces
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.sources.text import certain
from oomwatchd.words.deferred import deferred

#: a line of a call trace, which no form is like, or another line whose leading blanks are the kernel's
_INDENTED: Final = (
    r" (?:(?:\[<[0-9a-f]{8,16}>\] )?(?:\? )?"
    r"[\w.$]{1,128}\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}(?: \[\w{1,56}\])?"
    rf"| *(?!{certain.FLUSH_LEFT})[^\s(\[.\-][^\n]*(?<![\s\]]))"
)
_ROW: Final = r"\[ *\d{1,10}\] +\d+ +\d[^\n]*(?<![\s\]])"
_STAMP: Final = r"\[ *(\d{1,12})\.(\d{6})\] "
_BEGUN: Final = "|".join(map(re.escape, sorted(pieces.BEGUN)))
# a line that some kernels print a word at a time has none of these signs while more may follow
_ZONE: Final = rf"(?!lowm|prot)(?:{_BEGUN})[^\n=_]* [^\n=_]*[=_][^\n]*(?<![\s\]])"
_RESERVE: Final = r"lowmem_reserve\[\]:[ \d]*(?<! )(?=\n\[ *\d{1,12}\.\d{6}\] [A-Z])"
# not what may be a vendor's caller, an indent, one word, or a line that may go on
_WORDS: Final = rf"(?!{_BEGUN})[^\s(\[.\-][^\n ]*+ [^\n]*(?<![\s\]])"
_LINE: Final = deferred(
    rf"^(?:{_STAMP}({_WORDS}|{_ROW}|{_INDENTED}|{_ZONE}|{_RESERVE})|[^\n]*)$", re.MULTILINE
)
#: what the reader of prefixes looks for behind a stamp
_TAGGED: Final = "kernel: "
_NONE: Final = repeat(None)
#: so many lines show whether most have a stamp
_LOOK: Final = 16
_STAMPED: Final = deferred(rb"\[ *\d{1,12}\.\d{6}\] ")


def records(lines: Sequence[bytes], together: bytes) -> tuple[list[KmsgRecord], list[int]] | None:
    """A record for each line, and the numbers of the lines that are not plain: their records say nothing.
    None if few lines have a stamp. ``together``: the lines joined with newlines; nothing in them has to be
    undone."""
    looked_at = lines[:: len(lines) // _LOOK + 1]
    if 2 * sum(line[:1] == b"[" and _STAMPED.match(line) is not None for line in looked_at) < len(looked_at):
        return None
    text = together.decode("utf-8", "backslashreplace")
    seconds, fractions, texts = zip(*_LINE.findall(text), strict=True)
    others = [at for at, found in enumerate(texts) if not found]
    if _TAGGED in text:
        others += [at for at, line in enumerate(lines) if b"kernel: " in line]
    if any(map(eq, lines, lines[1:])):  # the same line twice is one
        twice = [at for at in range(1, len(lines)) if lines[at] == lines[at - 1]]
        others += [at - 1 for at in twice] + twice
    stamps = map(int, map("0".__add__, map(add, seconds, fractions)))
    made = map(KmsgRecord, texts, _NONE, _NONE, _NONE, stamps, repeat("-"), _NONE, _NONE, lines)
    return list(made), sorted(set(others))
