"""Layers: what a document puts around its lines, and how to remove it.

A layer is learned from the document (:mod:`.learn`). It takes a line and returns the lines inside it, or None
if the line does not have this layer. No layer is made for one product.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from oomwatchd.sources.text import certain, encodings
from oomwatchd.words.deferred import deferred

#: characters that separate the tokens of a prefix
DELIMITERS: Final = r"\s\[\](){}<>\"'|:,;=\\"
_ESCAPE: Final = deferred(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|([0-3][0-7]{2})|(.))", re.S)
_LETTERS: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "", "a": "\a", "b": "\b", "e": "\x1b", "f": "\f"}
_LITERAL: Final = deferred(
    r"(?:[ \t]{0,16}>){0,16}[ \t]*(?:- {1,8})?[bBrRuUfFL]{0,2}"
    r"(?:\"(?P<double>(?:[^\"\\]|\\.)*)\"|'(?P<single>(?:[^'\\]|\\.|'')*)'|`(?P<back>[^`]*)`)[ \t,;)\\+.]*$"
)


class Cut(NamedTuple):
    """The lines found inside a line, and the text before them."""

    lines: list[str]
    before: str = ""


def unescape(text: str, quote: str) -> str:
    """Undo the escapes of a quoted string: backslashes, or doubled quotes."""
    if "\\" in text:
        text = _ESCAPE.sub(_escaped, text)
    return text.replace(quote * 2, quote) if quote * 2 in text else text


def _escaped(match: re.Match[str]) -> str:
    hexadecimal, unicode, octal, letter = match.groups()
    if hexadecimal is not None or unicode is not None:
        code = int(hexadecimal or unicode, 16)
    elif octal is not None:
        code = int(octal, 8)
    else:
        return _LETTERS.get(letter, letter)
    if code == 0 or (code > 0x7F and unicode is None):
        return match[0]  # an escaped byte: the kernel writes such escapes itself
    return match[0] if 0xD800 <= code < 0xE000 else chr(code)


def _parts(text: str) -> list[str]:
    return text.rstrip("\r\n").split("\n")


#: the longest prefix that may stand alone on its line
_ALONE: Final = 512


class Template(NamedTuple):
    """A prefix, and perhaps a suffix, as patterns. ``loose``: the same prefix with any words in it, for lines
    whose text is certain. ``quote``: the text is quoted."""

    prefix: re.Pattern[str]
    loose: re.Pattern[str]
    suffix: re.Pattern[str] | None = None
    quote: str = ""

    def undo(self, line: str) -> Cut | None:
        """The line without it."""
        match = self.prefix.match(line)
        if match is None:
            match = self.loose.match(line)
            if match is not None and not certain.begins(line, match.end()):
                match = None
        if match is None and len(line) <= _ALONE:
            # the word behind it was too long for its line
            match = self.prefix.fullmatch(line.rstrip() + " ")
        if match is None:
            return None
        text = line[match.end() :]
        if self.suffix is not None and (end := self.suffix.search(text)) is not None:
            text = text[: end.start()]
        elif not match[0]:
            return None
        if self.quote:
            return Cut(_parts(unescape(text, self.quote)), match[0])
        return Cut([text], match[0])


class Encoded(NamedTuple):
    """HTML or colours inside the fields of records."""

    html: bool = False
    coloured: bool = False

    def undo(self, line: str) -> Cut | None:
        """The lines without them."""
        raw = line.encode("utf-8", "backslashreplace")
        text = encodings.unmark(raw) if self.html else raw
        parts = [
            clean.decode("utf-8", "backslashreplace")
            for part in text.split(b"\n")
            for clean in encodings.clean(encodings.uncolour(part) if self.coloured else part)
        ]
        return None if parts == [line] else Cut(parts)


class Label(NamedTuple):
    """The value after a label: ``label="text"``, ``"label": "text"``, ``'label'=>'text'``."""

    label: str
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, label: str) -> Label:
        """The layer of one label."""
        return cls(
            label,
            re.compile(
                r"(?<![\w.@-])[\"']?" + re.escape(label) + r"[\"']?[ \t]*(?:=>|[:=])[ \t]*[bu]?"
                r"(?:\"(?P<double>(?:[^\"\\]|\\.)*)(?:\"|$)|'(?P<single>(?:[^'\\]|\\.|'')*)(?:'|$)"
                r"|(?P<bare>[^\s\"'{}\[\],][^\s]*))"
            ),
        )

    def undo(self, line: str) -> Cut | None:
        """The value, unescaped."""
        match = self.pattern.search(line)
        if match is None:
            return None
        if (double := match["double"]) is not None:
            return Cut(_parts(unescape(double, "")), line[: match.start()])
        if (single := match["single"]) is not None:
            return Cut(_parts(unescape(single, "'")), line[: match.start()])
        return Cut([match["bare"]], line[: match.start()])


class Column(NamedTuple):
    """One column of a table with a delimiter; cells that hold the delimiter are quoted."""

    delimiter: str
    place: int
    cells: int

    def undo(self, line: str) -> Cut | None:
        """The cell."""
        cells = row(line, self.delimiter)
        if len(cells) != self.cells:
            return None
        return Cut(_parts(cells[self.place]), " ".join(cells[: self.place]))


class Others(NamedTuple):
    """Lines of a record other than the field with the text: other fields, and separators of records."""

    def undo(self, line: str) -> Cut | None:
        """No lines, if it is such a line."""
        if _OTHERS.match(line) is None and _OTHERS_BEHIND.search(line, 0, _LOOK) is None:
            return None
        return None if certain.find(line) is not None or certain.begins(line, 0) else Cut([])


_LOOK: Final = 512
_OTHERS: Final = deferred(
    r"[ \t]*(?:- {1,8})?[\"']?[A-Za-z_@][\w.@/-]{0,63}[\"']?[ \t]*(?::(?:[ \t]|$)|=>|=)"
)
#: the same after other text before each line
_OTHERS_BEHIND: Final = deferred(
    r"(?<![\w\"])\"[A-Za-z_@][\w.@/-]{0,63}\"[ \t]*:[ \t]|[ \t]- [A-Za-z_][\w.@/-]{0,63}: "
    r"|(?:^|[ \t])(?:[\]\[{}(),-]{1,4}[ \t]*$|[\]}],?[ \t]|[\[{][ \t])"
)


class Literals(NamedTuple):
    """String literals of source code, one on each line; ``ended``: line ends are written out (``\\n``), and a
    string without one continues in the next."""

    ended: bool

    def undo(self, line: str) -> Cut | None:
        """The text of a literal that is one whole line."""
        body = literal(line)
        return None if body is None else Cut(_parts(unescape(body, "")))


def literal(line: str) -> str | None:
    """The text between the quotes of a line that is one string literal of source code; None for others."""
    match = _LITERAL.match(line)
    if match is None or match.lastgroup is None:
        return None
    body = match[match.lastgroup]
    if match.lastgroup == "single" and "''" in body:  # quotes are doubled, so backslashes are literal
        return body.replace("\\", "\\\\").replace("''", "'")
    return body


#: "|" between columns has a blank or the line's end on both sides; between flags it has none
_BAR: Final = deferred(r"(?:^|(?<=[ \t]))\|(?=[ \t]|$)")
BAR: Final = "|"


def row(line: str, delimiter: str) -> list[str]:
    """The cells of a line; none if it cannot be read."""
    if delimiter == BAR:
        return [cell.strip(" \t") for cell in _BAR.split(line.strip(" \t"))]
    import csv

    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []


class Json(NamedTuple):
    """The strings under one of these paths in a JSON object, whatever stands before the object."""

    paths: frozenset[tuple[str, ...]]

    def undo(self, line: str) -> Cut | None:
        """The strings, in the order of the line."""
        found = json_in(line)
        if found is None:
            return None
        at, value = found
        texts = [text for path, text in leaves(value) if path in self.paths]
        if not texts:
            return None
        return Cut([part for text in texts for part in _parts(text)], line[:at])


@functools.cache
def _decode() -> Callable[[str, int], tuple[object, int]]:
    """Reads the JSON value that begins at a place in a text; it and where it ends."""
    import json

    return json.JSONDecoder(strict=False).raw_decode


#: bounds: places in a line where JSON is tried; values examined, and how deep
_MAX_BEGINS: Final = 4
MAX_NODES: Final = 4096
MAX_DEPTH: Final = 12
_PAIR: Final = 2


def json_in(line: str) -> tuple[int, object] | None:
    """Where a JSON object (or a list with one) begins in the line, and its value; None if there is none."""
    at = -1
    for _ in range(_MAX_BEGINS):
        at = _json_begin(line, at + 1)
        if at < 0:
            return None
        try:
            value, _ = _decode()(line, at)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) or (isinstance(value, list) and line.find("{", at) >= 0):
            return at, value
    return None


def is_record(line: bytes) -> bool:
    """Whether a line holds a JSON object: HTML and colours in its strings are theirs."""
    return json_in(line.decode("utf-8", "backslashreplace")) is not None


def _json_begin(line: str, at: int) -> int:
    places = [place for place in (line.find("{", at), line.find("[", at)) if place >= 0]
    return min(places, default=-1)


def leaves(value: object) -> Iterator[tuple[tuple[str, ...], str]]:
    """The strings in a JSON value, each with its path; in a list of two, the path holds the place."""
    waiting: list[tuple[tuple[str, ...], object]] = [((), value)]
    for _ in range(MAX_NODES):
        if not waiting:
            return
        path, value = waiting.pop()
        if isinstance(value, str):
            yield path, value.replace("\0", "\\x00")
        elif len(path) >= MAX_DEPTH:
            continue
        elif isinstance(value, dict):
            waiting += [((*path, str(key)), inner) for key, inner in reversed(value.items())]
        elif isinstance(value, list):
            pair = len(value) == _PAIR
            waiting += [
                ((*path, str(place) if pair else "*"), inner)
                for place, inner in reversed(list(enumerate(value[:MAX_NODES])))
            ]


Layer = Template | Label | Column | Literals | Json | Encoded | Others
#: alternative layers: each line has one of them
Stage = tuple[Layer, ...]


#: what closes a string, a value or a call
_CLOSING: Final = " \t\"'`,;)]}\\"
_FEW: Final = 6
#: a line of a table's frame, drawn with signs or with the characters of Unicode for it
_FRAME_FIRST: Final = frozenset("-+=|: \t") | {chr(code) for code in range(0x2500, 0x2580)}
_FRAME: Final = deferred(r"[ \t]*[-+=|:\u2500-\u257f]{3}[-+=|: \t\u2500-\u257f]*$")


def undo(stages: tuple[Stage, ...], line: str, at: int = 0) -> Iterator[tuple[str, str, bool]]:
    """The lines inside a line, the text before each, and whether any layer was removed that stands before its
    text."""
    if line[:1] in _FRAME_FIRST and _FRAME.match(line) is not None:
        return
    for index in range(at, len(stages)):
        for layer in stages[index]:
            cut = layer.undo(line)
            if cut is None:
                continue
            stood_before = bool(cut.before) or not isinstance(layer, Template | Encoded)
            for inner in cut.lines:
                for text, before, cut_within in undo(stages, inner, index + 1):
                    if len(text) < _FEW and text.strip() and not text.strip(_CLOSING):
                        continue  # what closed the text, behind its line's end
                    yield text, f"{cut.before} {before}" if before else cut.before, stood_before or cut_within
            return
    yield line, "", False
