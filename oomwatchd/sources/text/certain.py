"""Find where kernel text certainly begins in a line, whatever stands before it.

A place is certain if a form of :mod:`oomwatchd.formats` that begins with fixed letters matches there. A line
that begins with a task's name has no such place; its prefix is learned from the other lines.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from oomwatchd.formats import COMM_BYTES, Form, neighbours, oom_kill, printed_bytes, show_mem
from oomwatchd.formats.recognise import ALL
from oomwatchd.words.deferred import deferred

#: how much of a line is read, and how many places in it are tried
_MAX_LINE: Final = 8192
_MAX_TRIED: Final = 16
#: a shorter match proves nothing
_MIN_MATCH: Final = 8
#: forms that also match inside other lines: every header holds "oom-killer:", and totals may be run together
_WITHIN: Final = frozenset({oom_kill.BARE_HEADER.name, show_mem.TOTALS.name})

_FORMS: Final[dict[str, tuple[Form, ...]]] = {}
for _form in ALL:
    if _form in neighbours.FORMS or _form.name in _WITHIN:
        continue
    for _begin in _form.begins:
        _FORMS[_begin] = (*_FORMS.get(_begin, ()), _form)
_LONGEST: Final = sorted(_FORMS, key=len, reverse=True)
# kernel text does not begin inside a word; only a row's bracket may follow anything
_BEGIN: Final = deferred(
    f"(?=[{re.escape(''.join(sorted({begin[0] for begin in _FORMS})))}])"  # soon tells most places
    r"(?<![A-Za-z0-9_])(?:"
    + "|".join(re.escape(begin) for begin in _LONGEST if begin[0] != "[")
    + r")|\[(?= {0,6}(?:\d{1,7}\] +\d+ +\d|pid))"
)
#: this many letters of a wording, without names and figures, are enough if the rest was broken off
_HEAD: Final = (16, 28)
_HEADS: Final[dict[str, tuple[tuple[str, Form], ...]]] = {}
for _begin, _forms in _FORMS.items():
    _HEADS[_begin] = tuple(
        {
            head[: _HEAD[1]]: (head[: _HEAD[1]], _form)
            for _form in _forms
            for sample in _form.samples
            if (head := re.split(r"[\d(/]", sample, maxsplit=1)[0]).startswith(_begin)
            and len(head) >= _HEAD[0]
        }.values()
    )
#: by what :data:`_BEGIN` found: the beginnings that may stand there, the longest first
_THERE: Final = {
    found: tuple(
        (begin, _FORMS[begin], _HEADS[begin])
        for begin in _LONGEST
        if (begin[0] == "[" if found == "[" else found.startswith(begin))
    )
    for found in {*_FORMS, "["}
}


class Certain(NamedTuple):
    """Kernel text in a line: where it begins, and its form."""

    at: int
    form: Form


def find(line: str) -> Certain | None:
    """The first place in the line at which kernel text certainly begins."""
    line = line[:_MAX_LINE]
    for tried, begin in enumerate(_BEGIN.finditer(line)):
        if tried == _MAX_TRIED:
            return None
        at = begin.start()
        for there, forms, heads in _THERE[begin[0]]:
            if not line.startswith(there, at):
                continue
            for form in forms:
                match = form.pattern.match(line, at)
                if match is not None and match.end() - at >= _MIN_MATCH:
                    return Certain(at, form)
            for head, form in heads:
                if line.startswith(head, at):
                    return Certain(at, form)
    return None


_MAX_TEXT: Final = 65_536
_HEADER: Final = deferred(r"[^\n]{1,60}? invoked oom-killer: gfp_mask=")


def begins(line: str, at: int) -> bool:
    """Whether kernel text begins at this place, or a report's header with a task's name."""
    if _HEADER.match(line, at) is not None:
        name = line[at:].partition(oom_kill.HEADER_MARK)[0]
        return printed_bytes(name.strip(" \t")) <= COMM_BYTES
    text = line[at : at + _MAX_LINE].lstrip(" \t")
    found = find(text)
    return found is not None and found.at == 0


def is_at_once(text: str) -> bool:
    """Whether the text begins with kernel text."""
    found = find(text)
    return found is not None and not text[: found.at].strip(" \t")


def holds(text: str) -> bool:
    """Whether kernel text stands anywhere in a text of some lines."""
    return any(
        _HEADER.search(line) is not None or find(line) is not None for line in text[:_MAX_TEXT].split("\n")
    )


#: forms of lines that the kernel prints without leading blanks, by how they begin
_FLUSH_LEFT: Final = {
    begin: patterns
    for begin, forms in _FORMS.items()
    if (patterns := [form.pattern for form in forms if not form.samples[0].startswith(" ")])
}
_FLUSH_LENGTHS: Final = sorted({len(begin) for begin in _FLUSH_LEFT}, reverse=True)

#: a pattern for what the lines begin with that :func:`is_flush_left` knows, except for rows of a table
FLUSH_LEFT: Final = f"(?:{'|'.join(re.escape(begin) for begin in _FLUSH_LEFT if begin[0] != '[')})"


def is_flush_left(text: str) -> bool:
    """Whether the kernel prints such a line without leading blanks, so that an indent is the copy's."""
    for length in _FLUSH_LENGTHS:
        for pattern in _FLUSH_LEFT.get(text[:length], ()):
            if pattern.match(text) is not None:
                return True
    return False
