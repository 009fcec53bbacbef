"""The task table of a report (dump_tasks()): rows as text -> columns of figures -> Task.

A report of a large host is mostly this table, so the rows are only kept while the report is read, and
parsed together: one pattern over all of them, then column by column.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import repeat

import msgspec

from oomwatchd.formats import COMM_BYTES, printed_bytes
from oomwatchd.records.report import Task

#: columns that have a field of their own; others stay under their printed names
_KNOWN = frozenset(
    (
        "total_vm", "rss", "rss_anon", "rss_file", "rss_shmem", "swapents", "pgtables_bytes", "nr_ptes",
        "oom_score_adj",
    )
)  # fmt: skip

#: columns of a table whose header is lost, by the count of figures after tgid
_BY_COUNT = {
    4: "total_vm rss cpu oom_adj",
    5: "total_vm rss nr_ptes swapents oom_score_adj",
    6: "total_vm rss nr_ptes nr_pmds swapents oom_score_adj",
    8: "total_vm rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj",
}
_MIN_PAGE = 4096


class TaskTable:
    """Rows as they come, then what they say.

    ``rejected`` holds the rows that do not fit the columns, once the table was read.
    """

    def __init__(self) -> None:
        self.columns: tuple[str, ...] = ()
        self.rejected: list[str] = []
        self._texts: list[str] = []
        self._read = 0  # rows that the columns below hold
        self._pids: list[int] = []
        self._figures: list[list[int]] = []
        self._names: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._texts)

    def header(self, columns: Iterable[str]) -> None:
        """The header was read: names of the figures after tgid. ValueError for another header than that
        of the rows before."""
        columns = tuple(columns)
        if self._texts and columns != self.columns:
            raise ValueError("the rows before it have other columns")
        self.columns = columns

    def takes(self, text: str) -> bool:
        """Keep a line that looks like a row of this table; whether it does."""
        if self.columns and text[:1] == "[" and text[1:8].lstrip(" ")[:1].isdigit():
            self._texts.append(text)
            return True
        return False

    def take_rows(self, texts: Sequence[str]) -> int:
        """Keep those of the next lines that look like rows of this table, up to the first that does not; how
        many they are."""
        count = row_count(texts) if self.columns else 0
        self._texts += texts[:count]
        return count

    def take_without_header(self, text: str, figures: Sequence[str]) -> None:
        """A row before any header: its figures tell the kernel's era. ValueError when there is a header,
        for then the row does not fit it.

        A name that is a number cannot be told from a column: the smallest known table wins.
        """
        if self.columns:
            raise ValueError("the row has fewer figures than the header has columns")
        count = max((n for n in _BY_COUNT if n + 2 <= len(figures)), default=4)
        columns = _BY_COUNT[count]
        if count == 5 and int(figures[4]) >= _MIN_PAGE and int(figures[4]) % _MIN_PAGE == 0:
            columns = columns.replace("nr_ptes", "pgtables_bytes")
        self.columns = tuple(columns.split())
        self._texts.append(text)

    # -- what it says ------------------------------------------------------------------------------

    def has(self, column: str) -> bool:
        return column in self.columns

    @property
    def pids(self) -> list[int]:
        self._parse()
        return self._pids

    @property
    def names(self) -> list[str]:
        self._parse()
        return self._names

    def figure(self, pid: int, column: str) -> int | None:
        """One figure of one process, as printed; None where the table does not have it."""
        self._parse()
        if column not in self.columns or pid not in self._pids:
            return None
        return self._figures[2 + self.columns.index(column)][self._pids.index(pid)]

    def tasks(self, page_size: int | None) -> tuple[Task, ...]:
        """The rows; amounts that are printed in pages are None where the page size is unknown."""
        self._parse()
        if not self._pids:
            return ()
        columns = dict(zip(self.columns, self._figures[2:], strict=True))

        def plain(name: str) -> Iterable[int | None]:
            return columns.get(name) or repeat(None)

        def pages(name: str) -> Iterable[int | None]:
            if page_size is None or name not in columns:
                return repeat(None)
            return [figure * page_size for figure in columns[name]]

        others = [name for name in self.columns if name not in _KNOWN]
        extra: Iterable[dict[str, int] | None] = repeat(None)
        if others:
            extra = [
                dict(zip(others, figures, strict=True))
                for figures in zip(*(columns[name] for name in others), strict=True)
            ]
        return tuple(
            map(
                Task,
                self._pids,
                self._figures[0],
                self._figures[1],
                self._names,
                pages("total_vm"),
                pages("rss"),
                pages("rss_anon"),
                pages("rss_file"),
                pages("rss_shmem"),
                plain("pgtables_bytes"),
                plain("nr_ptes"),
                pages("swapents"),
                plain("oom_score_adj"),
                extra,
            )
        )

    def _parse(self) -> None:
        if self._read == len(self._texts):
            return
        self._read = len(self._texts)
        count = 2 + len(self.columns)
        try:
            numbers, names = _split(self._texts, count)
        except (ValueError, msgspec.DecodeError):  # some row does not fit: find out which
            matched = [_pattern(count).match(text) for text in self._texts]
            self.rejected = [text for text, m in zip(self._texts, matched, strict=True) if m is None]
            rows = [m.groups("") for m in matched if m is not None]
            names = [row[-1] for row in rows]
            numbers = [[int(row[n]) for row in rows] for n in range(1 + count)]
        self._pids, *self._figures = numbers
        self._names = list(names)
        if len(max(self._names, key=len, default="")) > COMM_BYTES:
            self._names = [_without_remark(name) for name in self._names]


def _split(texts: Sequence[str], count: int) -> tuple[list[list[int]], Sequence[str]]:
    """Rows that are all as the kernel prints them, cut at their blanks: pids and the other columns, names.
    ValueError or msgspec.DecodeError when one is not, or has a name that is empty or begins with a blank (the
    pattern reads those)."""
    rows = [text[1:].replace("]", " ", 1).split(None, count + 1) for text in texts]
    pids, *columns, names = zip(*rows, strict=True)
    if len(columns) != count or any(map(_begins_with_blank, texts, names)):
        raise ValueError("a name is empty or begins with a blank")
    return _numbers((pids, *columns)), names


def _without_remark(name: str) -> str:
    """A name without what an author wrote behind it, or wrapped before it: none is longer than 15 bytes."""
    if printed_bytes(name) <= COMM_BYTES:
        return name
    name = name.lstrip(" ")
    remark = _REMARK.match(name)
    return remark[1] if remark is not None and printed_bytes(name) > COMM_BYTES else name


_REMARK = re.compile(rf"(\S.{{0,{COMM_BYTES - 1}}}?)(?:\t|  )", re.DOTALL)


def _begins_with_blank(text: str, name: str) -> bool:
    return text[-len(name) - 2] == " "


def _numbers(columns: Sequence[Sequence[str]]) -> list[list[int]]:
    """Columns of decimal numbers of at most 14 digits (formats.rx() says why), the first of pids. ValueError
    or msgspec.DecodeError if one is none."""
    text = ",".join(map(",".join, columns))
    figures = _DECODER.decode(f"[{text}]")  # takes a third of the time of as many int()
    count = len(columns[0])
    numbers = [figures[at : at + count] for at in range(0, len(figures), count)]
    if (
        max(figures) >= _TOO_MUCH
        or min(figures) <= -_TOO_MUCH
        or not 0 <= min(numbers[0]) <= max(numbers[0]) < _NO_PID
    ):
        raise ValueError("not all are figures of a table")
    return numbers


_TOO_MUCH = 10**14
_NO_PID = 10**10
_DECODER = msgspec.json.Decoder(list[int])

#: lines that look like rows (``TaskTable.takes``), joined with NUL, which no record's text holds
_ROWS = re.compile(r"(?:\[ {0,6}[0-9][^\0]*+(?:\0|\Z))+")


def row_count(texts: Sequence[str]) -> int:
    """How many of these lines look like rows of a task table, up to the first that does not."""
    if not texts or texts[0][:1] != "[":
        return 0
    joined = "\0".join(texts)
    rows = _ROWS.match(joined)
    if rows is None:
        return 0
    return joined.count("\0", 0, rows.end()) + (rows.end() == len(joined) and joined[-1] != "\0")


@cache
def _pattern(figures: int) -> re.Pattern[str]:
    """A row with this many figures after the pid, in rows joined with NUL (which no record's text holds).
    The name is all that follows one blank; it may be empty or hold blanks and numbers."""
    figure = r"\s+(-?\d{1,14})"  # bounded as by formats.rx(); the blanks hold it
    return re.compile(rf"(?:\A|\0)\[ *(\d{{1,10}})\]{figure * figures}(?: ([^\0]*))?(?=\0|\Z)")
