"""Cut long task tables: the largest tasks stay, the others become a sum.

A host has up to 4 million tasks, and each row costs half a KiB while its report is under way.

Core: no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from oomwatchd.records.capture import RowsLeftOut
from oomwatchd.records.kmsg import KmsgRecord

#: rows that a report keeps: live, where the daemon's own memory is limited, and of a saved log
LIVE_ROWS = 4_096
SAVED_ROWS = 32_768
#: one in so many of the kept rows is kept for its oom_score_adj
_BY_ADJ = 8
_PAGE_BYTES = 4096
_PID_LIMIT = 1 << 22  # PID_MAX_LIMIT
#: columns of page tables, and the bytes of their unit
_TABLES = {"pgtables_bytes": 1, "nr_ptes": _PAGE_BYTES, "nr_pmds": _PAGE_BYTES, "nr_puds": _PAGE_BYTES}


class _Row(NamedTuple):
    """``pages`` is what oom_badness() counts, before oom_score_adj."""

    pages: int
    adj: int
    pid: int
    rss: int
    swap: int
    tables_bytes: int


class Rows:
    """How many rows a report has, and which were left out.

    ``kept`` is how many stay; up to half as many more may gather before the others go."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        #: with this many rows, some are dropped
        self.most = kept + kept // 2
        #: rows among the block's records
        self.count = 0
        #: the rows that were dropped; None: none
        self.left_out: RowsLeftOut | None = None
        self._rows: list[_Row] = []  # those that stayed last time, and where they stand
        self._places: list[int] = []
        self._looked_at = 0  # records that were looked at
        self._gone = bytearray()  # one bit for each pid whose row was dropped

    def was_listed(self, pid: int | None) -> bool:
        """Whether the row of this process was dropped."""
        return pid is not None and pid >> 3 < len(self._gone) and bool(self._gone[pid >> 3] & 1 << (pid & 7))

    def let_go(self, records: Sequence[KmsgRecord]) -> list[KmsgRecord]:
        """The records of a block without the smallest of its tasks."""
        columns = _Columns.of(records)
        rows, places = self._rows, self._places
        for at in range(self._looked_at, len(records)):
            if (row := columns.row(records[at].text)) is not None:
                rows.append(row)
                places.append(at)
        if not rows:  # none can be read
            self.count = 0
            return list(records)
        stay = self._choose(rows)
        gone = [row for row, stays in zip(rows, stay, strict=True) if not stays]
        self._add(gone)
        away = {at for at, stays in zip(places, stay, strict=True) if not stays}
        kept = [at for at in range(len(records)) if at not in away]
        of_rows = {at for at, stays in zip(places, stay, strict=True) if stays}
        self._rows = [row for row, stays in zip(rows, stay, strict=True) if stays]
        self._places = [n for n, at in enumerate(kept) if at in of_rows]
        self._looked_at = len(kept)
        self.count = len(self._rows)
        return [records[at] for at in kept]

    def _choose(self, rows: Sequence[_Row]) -> list[bool]:
        """Which rows stay: one eighth are those with the highest oom_score_adj, the rest the largest."""
        first = sorted(((row.adj, row.pages) for row in rows if row.adj > 0), reverse=True)
        first = first[: self._kept // _BY_ADJ]
        least_first = first[-1] if first else (1 << 30, 0)
        room = self._kept - len(first)
        least = sorted((row.pages for row in rows), reverse=True)[min(room, len(rows)) - 1]
        stay = [row.pages > least or (row.adj, row.pages) >= least_first for row in rows]
        ties = self._kept - sum(stay)  # among equals the first stay
        for at, row in enumerate(rows):
            if ties > 0 and not stay[at] and row.pages == least:
                stay[at] = True
                ties -= 1
        return stay

    def _add(self, gone: Sequence[_Row]) -> None:
        old = self.left_out or RowsLeftOut(rows=0, rss_pages=0, swap_pages=0, page_tables_bytes=0)
        self.left_out = RowsLeftOut(
            rows=old.rows + len(gone),
            rss_pages=old.rss_pages + sum(row.rss for row in gone),
            swap_pages=old.swap_pages + sum(row.swap for row in gone),
            page_tables_bytes=old.page_tables_bytes + sum(row.tables_bytes for row in gone),
        )
        most = max((row.pid for row in gone), default=0)
        self._gone.extend(bytes(max(0, (most >> 3) + 1 - len(self._gone))))
        for row in gone:
            self._gone[row.pid >> 3] |= 1 << (row.pid & 7)


class _Columns(NamedTuple):
    """Where the amounts stand in a row, behind the pid; None: not in this table."""

    figures: int
    rss: int | None
    swap: int | None
    adj: int | None
    tables: tuple[tuple[int, int], ...]  # column, bytes of its unit

    @classmethod
    def of(cls, records: Sequence[KmsgRecord]) -> _Columns:
        """As the table's header has them."""
        names: list[str] = []
        for record in records:
            _, bracket, text = record.text.partition("]")
            if bracket and "total_vm" in text and text.rstrip().endswith("name"):
                names = text.split()
                break
        at = {name: n for n, name in enumerate(names)}
        tables = tuple((at[name], unit) for name, unit in _TABLES.items() if name in at)
        return cls(len(names) - 1, at.get("rss"), at.get("swapents"), at.get("oom_score_adj"), tables)

    def row(self, text: str) -> _Row | None:
        """None for what is no row, or does not fit the columns."""
        if text[:1] != "[" or self.rss is None:
            return None
        pid, _, rest = text[1:].partition("]")
        figures = rest.split(None, self.figures)
        try:
            number, rss = int(pid), int(figures[self.rss])
            swap = int(figures[self.swap]) if self.swap is not None else 0
            adj = int(figures[self.adj]) if self.adj is not None else 0
            tables = 0
            for column, unit in self.tables:
                tables += int(figures[column]) * unit
        except (ValueError, IndexError):
            return None
        if not 0 <= number < _PID_LIMIT:
            return None
        return _Row(rss + swap + tables // _PAGE_BYTES, adj, number, rss, swap, tables)
