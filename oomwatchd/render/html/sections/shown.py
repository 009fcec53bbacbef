"""What a page is made of: findings, tables, facts, and all of one event's page.

Core: no clock, no file, no socket."""

from __future__ import annotations

import msgspec

from oomwatchd.records.report import Severity
from oomwatchd.render.html.figures import Bar, Columns, Lines

#: most rows of one table: nobody reads more, and the page grows
_MOST_ROWS = 5000
#: most changes of memory and swap
_MARKS = 32

#: most rows of one table: nobody reads more, and the page grows
MOST_ROWS = 5000
#: most changes of memory and swap
MARKS = 32


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A finding with its evidence as (title, value)."""

    id: str
    severity: Severity
    title: str
    explanation: str
    advice: str
    evidence: tuple[tuple[str, str], ...]


class Head(msgspec.Struct, frozen=True):
    """A column's head; ``numeric`` columns are set to the right and sorted as numbers."""

    title: str
    numeric: bool = True
    help: str = ""


class Row(msgspec.Struct, frozen=True):
    """Cells in the order of the heads; ``tone`` marks a row that matters."""

    cells: tuple[str, ...]
    tone: str = ""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table whose first column names its rows; ``left_out`` rows are not shown."""

    caption: str
    heads: tuple[Head, ...]
    rows: tuple[Row, ...]
    left_out: int = 0


class Fact(msgspec.Struct, frozen=True):
    """One line of a list of facts."""

    title: str
    value: str


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """All of one event's page. What the event does not have is empty or None."""

    id: str
    kind: str
    grave: bool
    when: str
    summary: str
    origin: tuple[str, ...]
    died: str
    asked: str
    why: str
    change: str
    top: tuple[Shown, ...]
    more: tuple[Shown, ...]
    memory_strip: Bar | None
    memory: tuple[Bar, ...]
    memory_note: str
    zones: tuple[Bar, ...]
    zones_asked: bool
    blocks: tuple[Columns, ...]
    blocks_note: str
    tasks: tuple[Bar, ...]
    tasks_swapped: bool
    tasks_note: str
    cgroup: tuple[Bar, ...]
    cgroup_facts: tuple[Fact, ...]
    cgroup_split: tuple[Bar, ...]
    near: tuple[Lines, ...]
    before: tuple[Lines, ...]
    marks: tuple[Fact, ...]
    after: tuple[Fact, ...]
    victims: Table | None
    request: tuple[Fact, ...]
    call_trace: tuple[str, ...]
    task_table: Table | None
    zone_table: Table | None
    node_table: Table | None
    totals_table: Table | None
    stat_tables: tuple[Table, ...]
    slab_table: Table | None
    allocation_table: Table | None
    snapshots: tuple[Fact, ...]
    undecoded: tuple[str, ...]
    raw: tuple[str, ...]
    raw_title: str


def cell(value: object) -> str:
    """What it prints as; nothing for None."""
    return "" if value is None else str(value)


def yes(value: bool | None) -> str:
    """A flag as a cell."""
    return "" if value is None else "yes" if value else "no"


def kb(value: int | None) -> str:
    """Bytes as whole kB."""
    return "" if value is None else str(value // 1024)
