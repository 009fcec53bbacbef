"""Lines that lost a few letters -> the same lines with the letters of their wording (``oomwatchd.formats``).

A wording is what of a form's samples is always the same, with places for names and figures between. A line is
compared with the wordings that it shares most with, letter by letter. Letters may be missing or spoilt, but
few, and not many in a row. If two wordings, or two ways through one, are as good, the line stays as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

from oomwatchd.formats import Form, Role, oom_kill
from oomwatchd.formats.recognise import ALL, recognise

#: a longer line is passed on as it is
MAX_LINE: Final = 4096
#: letters in a row that may be missing, and how many of so many
_MOST_RUN: Final = 2
_WINDOW: Final = 12
_MOST_IN_WINDOW: Final = 3
#: a wording with fewer letters of its own is too short to be certain
_MIN_LETTERS: Final = 10
_GRAM: Final = 4
#: so much of a wording must be in a line as it is
_LEAST_SHARED: Final = 0.35
#: wordings that are tried for one line
_MOST_TRIED: Final = 6
_MAX_NAME: Final = 256
#: places in one line from which the rest of a wording is tried
_MOST_STEPS: Final = 1000
_CONTROL: Final = re.compile("[\0-\x08\x0b-\x1f\x7f\ufffd]|[\udc80-\udcff]")


class _Piece(NamedTuple):
    """A part of a wording: letters that are always the same, or (``literal`` empty) a figure or a name."""

    literal: str
    figure: re.Pattern[str] | None = None


class _Wording(NamedTuple):
    form: Form
    pieces: tuple[_Piece, ...]
    letters: int
    #: how many runs of :data:`_GRAM` letters it has
    grams: int


_DECIMAL: Final = re.compile(r"-?\d+")
_SPOILT_FIGURE: Final = re.compile(r"-?0\d")
_HEX: Final = re.compile(r"0x[0-9a-f]+")
#: what differs from line to line, beside the groups of a form's pattern
_VARIABLE: Final = re.compile(
    r"(?P<hex>0x[0-9a-f]+)|(?P<flags>(?<=\()[A-Z_]+(?:\|[A-Z_]+)*(?=\)))|(?P<path>(?<![\w.])/[^\s,]*)"
    r"|(?P<value>(?<=,task=).+?(?=,pid=)|(?<=cpuset=)[a-z][^, ]*|(?<=\? )(?:no|yes)\b)|(?P<number>-?\d+)"
)
_NAMES: Final = ("comm", "path", "by", "cpuset", "release", "build", "hardware", "name")


def _pieces(form: Form, sample: str) -> tuple[_Piece, ...]:
    """What of a sample is always the same."""
    match = form.pattern.match(sample)
    spans = [] if match is None else [match.span(name) for name in _NAMES if name in form.pattern.groupindex]
    names = sorted(span for span in spans if span[0] >= 0 and span[0] < span[1])
    pieces: list[_Piece] = []

    def literal(text: str) -> None:
        if text:
            pieces.append(_Piece(text))

    def variable(figure: re.Pattern[str] | None) -> None:
        if not pieces or pieces[-1].literal:  # two names side by side are one
            pieces.append(_Piece("", figure))

    def between(text: str) -> None:
        at = 0
        for found in _VARIABLE.finditer(text):
            literal(text[at : found.start()])
            variable(_HEX if found["hex"] else _DECIMAL if found["number"] else None)
            at = found.end()
        literal(text[at:])

    at = 0
    for begin, end in names:
        if begin >= at:
            between(sample[at:begin])
            variable(None)
            at = end
    between(sample[at:])
    return tuple(pieces)


def _grams(text: str) -> Iterator[str]:
    return (text[at : at + _GRAM] for at in range(len(text) - _GRAM + 1))


@cache
def _wordings() -> tuple[tuple[_Wording, ...], dict[str, tuple[int, ...]]]:
    """All wordings that are long enough, and by each few letters of theirs which have them."""
    seen: dict[tuple[_Piece, ...], _Wording] = {}
    for form in ALL:
        if form.role is Role.NEIGHBOUR or form.in_place or form is oom_kill.TASKS_ROW:
            continue
        for sample in form.samples:
            pieces = _pieces(form, sample.strip(" "))
            letters = sum(len(piece.literal.replace(" ", "")) for piece in pieces)
            if letters >= _MIN_LETTERS:
                grams = sum(max(1, len(piece.literal) - _GRAM + 1) for piece in pieces if piece.literal)
                seen.setdefault(pieces, _Wording(form, pieces, letters, grams))
    wordings = tuple(seen.values())
    index: dict[str, list[int]] = {}
    for number, wording in enumerate(wordings):
        for gram in {gram for piece in wording.pieces for gram in _grams(piece.literal)}:
            index.setdefault(gram, []).append(number)
    return wordings, {gram: tuple(numbers) for gram, numbers in index.items()}


def _candidates(text: str) -> list[_Wording]:
    """The wordings that share most with a line."""
    wordings, index = _wordings()
    shared: Counter[int] = Counter()
    for gram in _grams(text):
        shared.update(index.get(gram, ()))
    scored = [(count / wordings[number].grams, number) for number, count in shared.items()]
    scored = [one for one in scored if one[0] >= _LEAST_SHARED]
    return [wordings[number] for _, number in sorted(scored, reverse=True)[:_MOST_TRIED]]


class _Aligned(NamedTuple):
    cost: int
    text: str


def _through(literal: str, text: str, at: int, last: bool) -> tuple[int, int] | None:
    """How a line goes through the letters of a wording: where it is behind them, and how many are missing or
    spoilt. None: these are other letters. The end of a line may have been broken off, so it must be there."""
    missed: list[int] = []
    k = 0
    while k < len(literal):
        here = text[at : at + 1]
        if here == literal[k]:
            at += 1
        else:
            missed.append(k)
            if len(missed) >= 2 and _dense(missed):
                return None
            following = literal[k + 1 : k + 2]
            if here and following and here != following and text[at + 1 : at + 2] == following:
                at += 1  # another byte came in its place
        k += 1
    if last and missed and missed[-1] == len(literal) - 1:
        return None
    return at, len(missed)


def _dense(missed: list[int]) -> bool:
    run = 1
    while run < len(missed) and missed[-run - 1] == missed[-1] - run:
        run += 1
    return run > _MOST_RUN or sum(missed[-1] - k < _WINDOW for k in missed) > _MOST_IN_WINDOW


class _Line:
    """One line and how often more of it may be tried: a line full of beginnings could be tried for ever."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.left = _MOST_STEPS

    def align(self, pieces: tuple[_Piece, ...], most: int, k: int = 0, at: int = 0) -> _Aligned | None:
        """The line as its wording has it, with the fewest letters put in; None if it is another line, or if
        two ways are as good."""
        self.left -= 1
        if self.left < 0:
            return None
        text = self._text
        done: list[str] = []
        cost = 0
        for number in range(k, len(pieces)):
            piece = pieces[number]
            if piece.literal:
                through = _through(piece.literal, text, at, number == len(pieces) - 1)
                if through is None:
                    return None
                at, missed = through
                cost += missed
                done.append(piece.literal)
            elif piece.figure is not None:
                found = piece.figure.match(text, at)
                if found is None:
                    cost += 1
                else:
                    # no amount begins with 0: a digit before it is lost
                    amount = number + 1 < len(pieces) and pieces[number + 1].literal.startswith("kB")
                    done.append("" if amount and _SPOILT_FIGURE.match(found[0]) else found[0])
                    at = found.end()
            elif number == len(pieces) - 1:
                done.append(text[at:])
                at = len(text)
            else:
                return self._named(pieces, most - cost, number, at, cost, "".join(done))
            if cost > most:
                return None
        return _Aligned(cost, "".join(done)) if at == len(text) else None

    def _named(
        self, pieces: tuple[_Piece, ...], most: int, number: int, at: int, cost: int, done: str
    ) -> _Aligned | None:
        """The same from a name on: it ends where the rest fits best."""
        text = self._text
        soon = set(pieces[number + 1].literal[: _MOST_RUN + 1])
        best: _Aligned | None = None
        equal = False
        for end in range(at, min(len(text), at + _MAX_NAME)):
            if text[end] not in soon:
                continue
            rest = self.align(pieces, most, number + 1, end)
            if rest is None:
                continue
            if best is None or rest.cost + cost < best.cost:
                best, equal, most = (
                    _Aligned(rest.cost + cost, done + text[at:end] + rest.text),
                    False,
                    rest.cost,
                )
            elif rest.cost + cost == best.cost:
                equal = equal or done + text[at:end] + rest.text != best.text
        return None if equal else best


def mend(text: str) -> str | None:
    """A line (without its stamp) that is of no known wording, with the letters that it lost; None if that is
    not certain."""
    if len(text) > MAX_LINE:
        return None
    line = _Line(_CONTROL.sub("", text).strip(" "))
    best: _Aligned | None = None
    equal = False
    for wording in _candidates(text):
        found = line.align(wording.pieces, 2 + wording.letters // 20)
        if line.left < 0:
            return None
        if found is None:
            continue
        known = recognise(found.text)
        if known is None or known[0] is not wording.form:
            continue
        if best is None or found.cost < best.cost:
            best, equal = found, False
        elif found.cost == best.cost:
            equal = equal or found.text != best.text
    return None if best is None or equal else best.text


def is_rest_of(short: str, whole: str, most: int = _MOST_RUN) -> bool:
    """Whether ``short`` is ``whole`` without a few letters."""
    if not 0 <= len(whole) - len(short) <= most:
        return False
    letters = iter(whole)
    return all(letter in letters for letter in short)
