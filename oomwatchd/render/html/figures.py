"""The geometry of the charts: amounts -> shares of a length, in percent.

Bars are drawn in percent of their box and so keep their text at the reader's size at any width. All
figures stand beside the drawing as text.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec


class Segment(msgspec.Struct, frozen=True):
    """A piece of a bar; ``kind`` is its colour's name."""

    kind: str
    start: float
    width: float


class Mark(msgspec.Struct, frozen=True):
    """A line across a bar."""

    kind: str
    at: float


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One row: what it is, its figure, the drawing, and what else is to be said. ``swatch`` names a colour
    that the row explains."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    swatch: str = ""
    segments: tuple[Segment, ...] = ()
    marks: tuple[Mark, ...] = ()


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a column chart: ``at`` is its middle, ``height`` its share of the highest."""

    label: str
    value: str
    kind: str
    at: float
    width: float
    height: float


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """A column chart; ``text`` says it in words."""

    title: str
    text: str
    columns: tuple[Column, ...]
    note: str = ""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a line chart: points as SVG wants them, in a box of 100 by 100."""

    kind: str
    title: str
    value: str
    points: str


class Moment(msgspec.Struct, frozen=True):
    """A line across a chart at a moment; ``label`` is its number in the list of what happened."""

    at: float
    label: str


class Lines(msgspec.Struct, frozen=True, kw_only=True):
    """Lines over time, crossed by ``marks`` at moments; ``text`` says it in words."""

    title: str
    text: str
    top: str
    start: str
    end: str
    lines: tuple[Line, ...]
    marks: tuple[Moment, ...] = ()


def share(part: float, whole: float) -> float:
    """``part`` of ``whole`` in percent, held between 0 and 100."""
    return round(min(max(100 * part / whole, 0.0), 100.0), 2) if whole > 0 else 0.0


def segments(parts: Iterable[tuple[str, int | None]], whole: float) -> tuple[Segment, ...]:
    """The parts one after another; what is unknown or nothing has no segment."""
    drawn, start = [], 0.0
    for kind, amount in parts:
        end = start + (amount or 0)
        if amount:
            left = share(start, whole)
            drawn.append(Segment(kind, left, round(share(end, whole) - left, 2)))
        start = end
    return tuple(drawn)


def marks(amounts: Iterable[tuple[str, int | None]], whole: float) -> tuple[Mark, ...]:
    """Lines at the known amounts."""
    return tuple(Mark(kind, share(at, whole)) for kind, at in amounts if at is not None)


def compact(count: int) -> str:
    """A count of four characters at most: ``950``, ``12k``, ``3M``."""
    for unit in ("", "k", "M", "G", "T"):
        if count < 1000:
            return f"{count}{unit}"
        count //= 1000
    return f"{count}P"


def line_points(series: Sequence[tuple[float, float]], span: float, top: float) -> str:
    """(seconds before the end, amount) as SVG points; time runs to the right, amounts upward."""
    return " ".join(f"{100 - share(before, span):g},{100 - share(value, top):g}" for before, value in series)
