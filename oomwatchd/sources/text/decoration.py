"""What people and programs put around the lines of a log: numbers, bullets, comment signs, code marks, bars.

Decoration is judged from the whole beginning of a text, because kernel lines begin with figures and stars
too. A number must count the lines, a sign must stand before most kernel lines, and a pair of marks must stand
before and after one line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from oomwatchd.sources.text.wrap import kind_of
from oomwatchd.words.deferred import deferred

#: cat -n, nl, less -N, vim, grep -n, lists
_NUMBER: Final = deferred(rb"[ \t]{0,16}(\d{1,9})(?:[:.)|]?[ \t]|:(?!\d\d:\d\d)|[.)|](?!\d)|$)")
_GREP: Final = deferred(rb"\d{1,9}:(?!\d\d:\d\d)")
#: the kernel's own lines with a number in front
_PAGES: Final = deferred(rb"[ \t]{0,16}\d{1,9} (?:total|pages?|free|reserved|slab) ")
_QUOTED: Final = deferred(rb"(?:[ \t]{0,16}>){1,16}[ \t]?")
_SIGN: Final = deferred(
    rb"[ \t]{0,64}((?:[-+*#;%/!|$]{1,3}|\xe2\x80\xa2|\xc2\xb7))[ \t]?(?=[ \t]{0,64}[^ \t\r])"
)
_PAIR: Final = deferred(
    rb"[ \t]{0,64}(?:(?P<mark>\*\*|__|~~|``?|')(?P<marked>(?!(?P=mark))[^\r\n]{1,65536})(?P=mark)[,;.]?"
    rb"|(?:\xe2\x80[\x98\x9c])(?P<quoted>[^\r\n]{4,65536})(?:\xe2\x80[\x99\x9d])[,;.]?"
    rb"|\|[ \t]?(?P<barred>[^\r\n]{4,65536})\|)[ \t\r]{0,200}$"
)
_PAIR_FIRST: Final = frozenset(b"*_~`'|\xe2")
_BOX: Final = rb"(?:code|quote|pre|php|b|i|u|s|color|size|font|spoiler|indent)"
_BOXED: Final = deferred(
    rb"\[/?" + _BOX + rb"(?:=[^\]\r\n]{0,80})?\]|\{(?:noformat|code(?::[^}\r\n]{0,80})?)\}", re.I
)
_BOX_END: Final = deferred(rb"\[/" + _BOX + rb"\]|\{(?:noformat|code)\}|\[code\]", re.I)
#: a syslog's facility and severity, which some templates put at the end; marks of a line's end
_PRIORITY: Final = deferred(
    rb"[ \t]{0,8}\[(?:kern|user|daemon|syslog|local[0-7])\."
    rb"(?:emerg|alert|crit|err|error|warn|warning|notice|info|debug)\][ \t\r]{0,200}$"
)
_ENDS: Final = (b"$", b"\\", b"\xc2\xb6", b"\xe2\x86\xb5", b"\xe2\x8f\x8e", b"\\n")
_FIRST: Final = frozenset(b"-+*#;%/!|$\xe2\xc2")
#: a cell of a table ends
_CELL: Final = b" | "
_STAMPED: Final = deferred(
    rb"(?:<\d{1,3}>)?\[ *\d{1,12}\.\d{1,9}\]|\[[^\[\]]{3,40}\d\d:\d\d:\d\d[^\[\]]{0,12}\] "
    rb"|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d |kernel: "
)
_BLANKS: Final = frozenset((b" ", b"\t"))
_MAY_COUNT: Final = _BLANKS | {bytes((digit,)) for digit in b"0123456789"}
_MAY_SIGN: Final = _BLANKS | {bytes((sign,)) for sign in _FIRST}
_MAY_PAIR: Final = _BLANKS | {bytes((mark,)) for mark in _PAIR_FIRST}
#: how many lines are examined
_SAMPLE: Final = 4096


class Decoration(NamedTuple):
    """The decoration to remove from every line that has it."""

    numbers: bool = False
    sign: bytes = b""
    #: the sign stands before every line, those too that were broken before it was put there
    everywhere: bool = False
    pairs: bool = False
    boxes: bool = False
    priorities: bool = False
    end: bytes = b""
    #: all of the text is quoted (``>``)
    quoted: bool = False

    def undo(self, line: bytes) -> bytes:
        """The line without it."""
        if self.quoted and (match := _QUOTED.match(line)) is not None:
            line = line[match.end() :]
        if self.numbers and (match := _NUMBER.match(line)) is not None:
            line = line[match.end() :]
        if self.boxes:
            line = _BOXED.sub(b"", line)
        if self.sign:
            line = _unsigned(line, self.sign, everywhere=self.everywhere)
        if self.pairs and (match := _PAIR.match(line)) is not None:
            line = _within(match)
        if self.priorities:
            line = _PRIORITY.sub(b"", line)
        if self.end:
            stripped = line.rstrip(b" \t\r")
            if stripped.endswith(self.end):
                line = stripped[: -len(self.end)]
        return line


NONE: Final = Decoration()


def judge(said: Sequence[bytes], together: bytes) -> Decoration:
    """The decoration of a text, from its lines that are not blank and from the text in one piece."""
    if not said:
        return NONE
    if said[0].lstrip(b" \t")[:1] == b">" or said[-1].lstrip(b" \t")[:1] == b">":
        quoted = [line[match.end() :] if (match := _QUOTED.match(line)) else line for line in said]
        if 4 * sum(a is not b for a, b in zip(said, quoted, strict=True)) >= 3 * len(said):
            within = _judge([line for line in quoted if line.strip()], together)
            return within if within is NONE else within._replace(quoted=True)
    return _judge(said, together)


def _judge(said: Sequence[bytes], together: bytes) -> Decoration:
    if not said:
        return NONE
    # most texts have none, which the first letters of their lines show
    first = {line[:1] for line in said}
    numbers = not first.isdisjoint(_MAY_COUNT) and _is_numbered(said)
    lines = said
    if numbers:
        lines = [line[match.end() :] if (match := _NUMBER.match(line)) else line for line in said]
        first = {line[:1] for line in lines}
    boxes = (b"[/" in together or b"{" in together or b"ode]" in together or b"ODE]" in together) and (
        _BOX_END.search(together) is not None
    )
    sign = b"" if first.isdisjoint(_MAY_SIGN) else _sign(lines)
    everywhere = False
    if sign:
        signed = sum(line.lstrip(b" \t").startswith(sign) for line in lines)
        everywhere = 10 * signed >= 9 * len(lines)
        lines = [_unsigned(line, sign, everywhere=everywhere) for line in lines]
        first = {line[:1] for line in lines}
    pairs = not first.isdisjoint(_MAY_PAIR) and _has_pairs(lines)
    if pairs:
        lines = [_within(match) if (match := _PAIR.match(line)) else line for line in lines]
    priorities = b" [kern." in together and _has_priorities(lines)
    decoration = Decoration(
        numbers=numbers,
        sign=sign,
        everywhere=everywhere,
        pairs=pairs,
        boxes=boxes,
        priorities=priorities,
        end=_end(lines),
    )
    return NONE if decoration == NONE else decoration


def _unsigned(line: bytes, sign: bytes, *, everywhere: bool) -> bytes:
    """The line without the sign. If some lines have none, they are the rest of a broken line, which may begin
    with such a sign itself."""
    if everywhere:
        bare = line.lstrip(b" \t")
        return bare[len(sign) :].removeprefix(b" ") if bare.startswith(sign) else line
    if line.strip(b" \t\r") == sign:
        return b""  # the word behind it was too long for its line
    match = _SIGN.match(line)
    if match is None or match[1] != sign:
        return line
    apart = match[0][-1:] in _BLANKS
    rest = line[match.end() :]
    return rest if apart or not rest[:1].isalpha() or _is_kernels(rest) else line


def _within(match: re.Match[bytes]) -> bytes:
    """The text between a pair of marks; "** 7 printk messages dropped **" is the kernel's own."""
    marked: bytes | None = match["marked"]
    if marked is None:
        return match["quoted"] or match["barred"].rstrip(b" \t")
    return match[0] if match["mark"] in (b"**", b"__", b"~~") and marked[-1:] == b" " else marked


def _is_numbered(said: Sequence[bytes]) -> bool:
    """Whether most lines begin with their line number, in this text or in a longer one (``grep -n``)."""
    room = len(said) // 3
    numbers: list[int] = []
    for line in said:
        match = _NUMBER.match(line)
        if match is None:
            room -= 1
            if room < 0:
                return False
        else:
            numbers.append(int(match[1]))
    if len(numbers) < 3 and not (len(numbers) == len(said) and all(map(_GREP.match, said))):
        return False
    if 2 * sum(_PAGES.match(line) is not None for line in said) >= len(numbers):
        return False
    steps = [b - a for a, b in pairwise(numbers)]
    if 10 * sum(step == 1 for step in steps) >= 8 * len(steps) > 0:
        return True
    grepped = sum(_GREP.match(line) is not None for line in said)
    return 10 * grepped >= 8 * len(said) and all(step > 0 for step in steps)


def _is_kernels(line: bytes) -> bool:
    if line.lstrip(b" \t")[:1] == b">" and (quote := _QUOTED.match(line)) is not None:
        line = line[quote.end() :]
    return _STAMPED.match(line) is not None or kind_of(line[:200].decode("utf-8", "replace")) is not None


def _sign(lines: Sequence[bytes]) -> bytes:
    """The sign that stands before most of the kernel's lines."""
    signed = [line for line in lines if line.lstrip(b" \t")[:1] and line.lstrip(b" \t")[0] in _FIRST]
    if not signed:
        return b""
    found: Counter[bytes] = Counter()
    for line in signed[:_SAMPLE]:
        match = _SIGN.match(line)
        if (
            match is not None
            and _is_kernels(line[match.end() :])
            and _PAIR.match(line) is None
            and not (match[1] == b"|" and _CELL in line[match.end() :].rstrip() + b" ")
        ):
            found[match[1]] += 1
    if not found:
        return b""
    sign, count = found.most_common(1)[0]
    others = sum(
        _is_kernels(line)
        for line in lines[:_SAMPLE]
        if not ((match := _SIGN.match(line)) is not None and match[1] == sign)
    )
    return sign if count > 4 * others else b""


def _has_priorities(lines: Sequence[bytes]) -> bool:
    sample = lines[:_SAMPLE]
    return 3 * sum(_PRIORITY.search(line[-240:]) is not None for line in sample) >= len(sample)


def _has_pairs(lines: Sequence[bytes]) -> bool:
    return any(
        bool(stripped) and stripped[0] in _PAIR_FIRST and _PAIR.match(stripped) is not None
        for stripped in (line.lstrip(b" \t") for line in lines)
    )


def _end(lines: Sequence[bytes]) -> bytes:
    """The mark at the end of nearly every line."""
    last = lines[0].rstrip(b" \t\r")
    for end in _ENDS:
        # the first line alone may be a heading
        if last.endswith(end) or (len(lines) > 1 and lines[1].rstrip(b" \t\r").endswith(end)):
            count = sum(line.rstrip(b" \t\r").endswith(end) for line in lines)
            if count >= 2 and 10 * count >= 9 * len(lines):
                return end
    return b""
