"""Lines of styled text for a terminal: paragraphs, and tables whose columns stand under each other.

It is our own because rich takes 30 ms for the tables of one report, and a log may hold hundreds. Widths are
columns of the terminal: a wide East Asian character takes two, a combining one none (Unicode UAX #11).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

#: SGR parameters of each style (ECMA-48)
_STYLES = {
    "": "",
    "bold": "1",
    "dim": "2",
    "bold red": "1;31",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
}

#: text and its style
Span = tuple[str, str]
#: pieces of text one after another; a plain text has no style
Line = str | tuple[Span, ...]


def columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns_of(character) for character in text)


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def plain(line: Line) -> str:
    """The text alone."""
    return line if isinstance(line, str) else "".join(text for text, _ in line)


def rendered(line: Line, *, color: bool) -> str:
    """The line as it is written, with escape sequences if ``color``; no blanks at its end."""
    if isinstance(line, str):
        return line.rstrip()
    if not color:
        return plain(line).rstrip()
    return "".join(
        f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and text else text for text, style in line
    ).rstrip()


def styled(line: str, style: str) -> Line:
    """All of it in one style."""
    return ((line, style),) if style else line


def wrapped(text: str, width: int) -> list[str]:
    """The words of ``text`` in lines of at most ``width`` columns; a longer word is broken."""
    if text.isascii():
        return _wrapped_ascii(text, width)
    lines: list[str] = []
    held = ""
    taken = 0
    for word in text.split(" "):
        room = columns(word)
        if held and taken + 1 + room <= width:
            held = f"{held} {word}"
            taken += 1 + room
            continue
        if held:
            lines.append(held)
        if room > width:
            *full, word = folded(word, width)
            lines += full
            room = columns(word)
        held, taken = word, room
    return [*lines, held] if held or not lines else lines


def _wrapped_ascii(text: str, width: int) -> list[str]:
    """The same for a text whose characters take one column each."""
    lines: list[str] = []
    text = text.lstrip(" ")
    at, end = 0, len(text)
    while end - at > width:
        blank = text.rfind(" ", at, at + width + 1)
        cut = at + width if blank <= at else blank
        lines.append(text[at:cut])
        at = cut if blank <= at else blank + 1
        while at < end and text[at] == " ":
            at += 1
    return [*lines, text[at:]] if at < end or not lines else lines


def folded(text: str, width: int) -> list[str]:
    """``text`` broken after every ``width`` columns, inside words too; at least one piece."""
    if text.isascii():
        return [text[at : at + width] for at in range(0, len(text), width)] or [""]
    pieces = [""]
    taken = 0
    for character in text:
        room = _columns_of(character)
        if taken + room > width and pieces[-1]:
            pieces.append("")
            taken = 0
        pieces[-1] += character
        taken += room
    return pieces


def under(title: str, text: str, width: int) -> list[Line]:
    """``text`` after ``title``, its further lines below its first."""
    indent = columns(title) + 1
    lines = wrapped(text, max(width - indent, 8)) or [""]
    return [f"{title} {lines[0]}", *(f"{' ' * indent}{line}" for line in lines[1:])]


class Row:
    """The cells of a row, each a text or a text with a style; ``style`` is that of the others."""

    __slots__ = ("cells", "style")

    def __init__(self, *cells: str | Span, style: str = "") -> None:
        self.cells = tuple([(cell, style) if isinstance(cell, str) else cell for cell in cells])
        self.style = style


def table(
    rows: Sequence[Row],
    width: int,
    *,
    right: Sequence[int] = (),
    gap: int = 2,
    least: Sequence[int] = (),
) -> list[Line]:
    """Rows with their columns under each other, at most ``width`` columns wide as far as that can be.

    ``right``: the numbers of the columns that end, not begin, under each other. ``least``: the least width of
    each of the first columns. The last column takes what is left, and is folded if it needs more; no other
    is cut. A row may have fewer cells than others.
    """
    count = max([len(row.cells) for row in rows], default=0)
    lengths = [[columns(text) for text, _ in row.cells] for row in rows]
    widths = [*least, *[0] * count][:count]
    for row_lengths in lengths:
        widths[: len(row_lengths)] = map(max, widths, row_lengths)
    room = max(width - sum(widths[:-1]) - gap * (count - 1), 1) if count else 0
    ends = [at in right for at in range(count)]
    if count:
        widths[-1] = min(widths[-1], room) if ends[-1] else 0  # nothing follows that could need the blanks
    between = " " * gap
    lines: list[Line] = []
    for row, row_lengths in zip(rows, lengths, strict=True):
        cells, taken = row.cells, row_lengths
        rest: list[str] = []
        if len(cells) == count and taken[-1] > room:
            text, style = cells[-1]
            shown, *rest = folded(text, room)
            cells, taken = (*cells[:-1], (shown, style)), [*taken[:-1], columns(shown)]
        padded = [
            " " * (most - length) + text if end else text + " " * (most - length)
            for (text, _), length, most, end in zip(cells, taken, widths, ends, strict=False)
        ]
        lines.append(_joined(padded, [style for _, style in cells], between))
        indent = " " * (width - room)
        lines += [_joined([indent, piece], ["", cells[-1][1]], "") for piece in rest]
    return lines


def _joined(texts: Sequence[str], styles: Sequence[str], between: str) -> Line:
    """The texts as one line: a plain one where none has a style."""
    if not any(styles):
        return between.join(texts)
    spans = [
        span for text, style in zip(texts, styles, strict=True) for span in ((between, ""), (text, style))
    ]
    return tuple(spans[1:])
