"""The task table of a report (dump_tasks()): rows as text -> columns of figures -> Task.

A report of a large host is mostly this table. So the rows are only collected while the report is read, and
then parsed together: one pattern over all of them, then column by column.

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
from oomwatchd.words.deferred import deferred

#: columns that have a field of their own; others stay under their printed names
_KNOWN = frozenset(
    (
        "uid", "tgid", "total_vm", "rss", "rss_anon", "rss_file", "rss_shmem", "swapents", "pgtables_bytes",
        "nr_ptes", "oom_score_adj",
    )
)  # fmt: skip

#: columns of a table whose header is lost, by their count
_BY_COUNT = {
    6: "uid tgid total_vm rss cpu oom_adj",
    7: "uid tgid total_vm rss nr_ptes swapents oom_score_adj",
    8: "uid tgid total_vm rss nr_ptes nr_pmds swapents oom_score_adj",
    10: "uid tgid total_vm rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj",
}
_MIN_PAGE = 4096
#: columns that a vendor may have put before total_vm
_MAX_INSERTED = 3


class TaskTable:
    """Collects rows, then tells what they say. ``raw``: they are whole records; in a table with a header, a
    row whose name is longer than a process name is then rejected.

    The table's header names the columns. If the header is lost, the number of columns tells them, if the
    figures agree. ``unsure``: the rows have unknown columns, so no figure is told. ``rejected`` holds the
    rows that do not fit the columns. Both are set when the table is parsed.
    """

    def __init__(self, *, raw: bool = False) -> None:
        self._raw = raw
        self.rejected: list[str] = []
        self.unsure = False
        self._columns: tuple[str, ...] = ()
        self._headless = False
        self._texts: list[str] = []
        self._read = 0  # rows that the columns below hold
        self._pids: list[int] = []
        self._figures: list[list[int]] = []
        self._names: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._texts)

    def header(self, columns: Iterable[str]) -> None:
        """Take the header: names of the figures after the pid. ValueError if the rows before it have another
        header."""
        columns = tuple(columns)
        if self._texts and columns != self.columns:
            raise ValueError("the rows before it have other columns")
        self._columns = columns

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the figures after the pid."""
        if self._headless and not self._columns:
            self._columns = _columns_of(self._texts)
        return self._columns

    def takes(self, text: str) -> bool:
        """Keep the line if it looks like a row of this table; return whether it does."""
        if (self._columns or self._headless) and text[:1] == "[" and text[1:8].lstrip(" ")[:1].isdigit():
            self._texts.append(text)
            return True
        return False

    def take_rows(self, texts: Sequence[str]) -> int:
        """Keep the next lines up to the first that does not look like a row of this table; return how many
        were kept."""
        count = row_count(texts) if self._columns or self._headless else 0
        self._texts += texts[:count]
        return count

    def take_without_header(self, text: str) -> None:
        """Keep a row of a table without a header. ValueError if there is one: the row does not fit it."""
        if self._columns:
            raise ValueError("the row has fewer figures than the header has columns")
        self._headless = True
        self._texts.append(text)

    # -- what it says ------------------------------------------------------------------------------

    def has(self, column: str) -> bool:
        """Whether there is such a column."""
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
        """One figure of one process, as printed; None where the table does not have it. If the first thread
        has exited, the row has another thread's pid; its tgid is the process."""
        self._parse()
        if self.unsure or not self._pids or column not in self.columns:
            return None
        keys = self._pids
        if pid not in keys and "tgid" in self.columns:
            keys = self._figures[self.columns.index("tgid")]
        return self._figures[self.columns.index(column)][keys.index(pid)] if pid in keys else None

    def column(self, name: str) -> Sequence[int]:
        """All figures of one column, as printed; nothing where the table does not have it for sure."""
        self._parse()
        if self.unsure or not self._pids or name not in self.columns:
            return ()
        return self._figures[self.columns.index(name)]

    def contradicts(self, pid: int, total_vm: int) -> None:
        """Compare a process' row with its total_vm (pages) from another line. If they differ by far, the row
        was printed with other columns."""
        said = self.figure(pid, "total_vm")
        if said is None or said == total_vm:
            return
        at = self._pids.index(pid)
        far = not total_vm // 2 <= said <= total_vm * 2 + 1
        self.unsure = (far and self._headless) or any(column[at] == total_vm for column in self._figures)

    def tasks(self, page_size: int | None) -> tuple[Task, ...]:
        """The rows; amounts that are printed in pages are None where the page size is unknown."""
        self._parse()
        if not self._pids:
            return ()
        columns = dict(zip(self.columns, self._figures, strict=True))
        if self.unsure:
            columns = {name: columns[name] for name in ("uid", "tgid") if name in columns}

        def plain(name: str) -> Iterable[int | None]:
            return columns.get(name) or repeat(None)

        def pages(name: str) -> Iterable[int | None]:
            if page_size is None or name not in columns:
                return repeat(None)
            return [figure * page_size for figure in columns[name]]

        others = [name for name in columns if name not in _KNOWN and name not in Task.__struct_fields__]
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
                plain("uid"),
                plain("tgid"),
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
        count = len(self.columns)
        exact = self._raw and not self._headless
        try:
            numbers, names = _split(self._texts, count)
            if exact and len(max(names, key=len)) > COMM_BYTES and not all(map(_is_name, names)):
                raise ValueError("a name is longer than a process name")
        except (ValueError, msgspec.DecodeError):  # some row does not fit: find out which
            matched = [_pattern(count).match(text) for text in self._texts]
            if exact:
                matched = [m if m is not None and _is_name(m[2 + count] or "") else None for m in matched]
            self.rejected = [text for text, m in zip(self._texts, matched, strict=True) if m is None]
            rows = [m.groups("") for m in matched if m is not None]
            names = [row[-1] for row in rows]
            numbers = [[int(row[n]) for row in rows] for n in range(1 + count)]
        self._pids, *self._figures = numbers
        self._names = list(names)
        self._check()
        if not exact and len(max(self._names, key=len, default="")) > COMM_BYTES:
            self._names = [_without_remark(name) for name in self._names]

    def _check(self) -> None:
        """Whether the rows are what the columns say."""
        numbered = self._names and all(map(_figures_before, self._names))  # most tables: the first is not
        more = min(map(_figures_before, self._names)) if numbered else 0
        if more and (len(self._names) > 1 or self._headless):  # a single name may begin with a number
            self.unsure = True
            self._names = [name.split(None, more)[-1] for name in self._names]
        elif self._headless and not _bears_out(self.columns, self._figures):
            self.unsure = True


def _figures_before(name: str) -> int:
    """How many numbers stand before the name; if all rows have them, they are columns and not part of it."""
    words = name.split()
    return next((n for n, word in enumerate(words[:-1]) if not _NUMBER.match(word)), max(0, len(words) - 1))


def _columns_of(texts: Sequence[str]) -> tuple[str, ...]:
    """The columns of rows without a header: from the number of figures that all rows have, and from relations
    between the figures. A name that is a number looks like a column: the smallest known table wins."""
    # a row of figures alone was cut
    rows = [_LEADING.match(text) for text in texts if not _ONLY_FIGURES.match(text) or len(texts) == 1]
    figures = [list(map(int, row[1].split())) for row in rows if row is not None]
    count = min(map(len, figures), default=0)
    columns: list[list[int]] = [[row[n] for row in figures] for n in range(count)]
    known = max((n for n in _BY_COUNT if n <= count), default=6)
    if len(figures) == 1:
        count = known
    for inserted in range(_MAX_INSERTED + 1):
        names = _BY_COUNT.get(count - inserted, "").split()
        if not names:
            continue
        if names[4] == "nr_ptes" and count - inserted == 7:
            ptes = columns[4 + inserted]
            if all(n % _MIN_PAGE == 0 for n in ptes) and any(ptes):
                names[4] = "pgtables_bytes"
        names[2:2] = [f"column_{2 + n}" for n in range(inserted)]
        if _bears_out(names, columns):
            return tuple(names)
    return tuple(_BY_COUNT[known].split())


def _bears_out(names: Sequence[str], columns: Sequence[Sequence[int]]) -> bool:
    """Whether the figures fit these column names: no process holds more than it has mapped, and the
    adjustment is within its bounds."""
    named = dict(zip(names, columns, strict=False))
    mapped, held = named.get("total_vm", ()), named.get("rss", ())
    adjustment = named.get("oom_score_adj", named.get("oom_adj", ()))
    parts = [named[name] for name in ("rss_anon", "rss_file", "rss_shmem") if name in named]
    return (
        all(map(int.__eq__, map(sum, zip(*parts, strict=True)), held) if parts else ())
        and all(rss <= total for rss, total in zip(held, mapped, strict=True))
        and all(-1000 <= one <= 1000 for one in adjustment)
        and all(figure >= 0 for column in columns[2 : len(names) - 1] for figure in column)
    )


_ONLY_FIGURES = deferred(r"\[ *\d{1,10}\][\s\d-]*\Z")
_NUMBER = deferred(r"-?\d{1,14}\Z")
_LEADING = deferred(r"\[ *\d{1,10}\]((?:\s+-?\d{1,14}(?=\s))+)")


def _split(texts: Sequence[str], count: int) -> tuple[list[list[int]], Sequence[str]]:
    """Split rows at their blanks: pids and the other columns, names. ValueError or msgspec.DecodeError if a
    row is not as the kernel prints it, or its name is empty or begins with a blank (the pattern reads
    those)."""
    heads, *columns, names = zip(*[text[1:].split(None, count + 1) for text in texts], strict=True)
    if len(columns) != count or any(map(_begins_with_blank, texts, names)):
        raise ValueError("a name is empty or begins with a blank")
    pids = (",".join(heads) + ",").split("],")
    if len(pids) != len(heads) + 1:
        raise ValueError("a bracket does not stand right behind each pid")
    return _numbers((pids[:-1], *columns)), names


def _is_name(name: str) -> bool:
    return len(name) <= COMM_BYTES or printed_bytes(name) <= COMM_BYTES


def _without_remark(name: str) -> str:
    """The name without a remark that an author added after it. Only a name over 15 bytes can hold one."""
    if printed_bytes(name) <= COMM_BYTES:
        return name
    name = name.lstrip(" ")
    remark = _REMARK.match(name)
    return remark[1] if remark is not None and printed_bytes(name) > COMM_BYTES else name


_REMARK = deferred(rf"(\S.{{0,{COMM_BYTES - 1}}}?)(?:\t|  )", re.DOTALL)


def _begins_with_blank(text: str, name: str) -> bool:
    return text[-len(name) - 2] == " "


def _numbers(columns: Sequence[Sequence[str]]) -> list[list[int]]:
    """Parse columns of decimal numbers of at most 14 digits (formats.rx() says why); the first holds pids.
    ValueError or msgspec.DecodeError if a field is not such a number."""
    text = ",".join(map(",".join, columns))
    figures = _DECODER.decode(f"[{text}]")  # takes a third of the time of as many int()
    count = len(columns[0])
    numbers = [figures[at : at + count] for at in range(0, len(figures), count)]
    if (
        len(figures) != count * len(columns)  # a comma in a column
        or max(figures) >= _TOO_MUCH
        or min(figures) <= -_TOO_MUCH
        or not 0 <= min(numbers[0]) <= max(numbers[0]) < _NO_PID
    ):
        raise ValueError("not all are figures of a table")
    return numbers


_TOO_MUCH = 10**14
_NO_PID = 10**10
_DECODER = msgspec.json.Decoder(list[int])

#: lines that look like rows (``TaskTable.takes``), joined with NUL, which no record's text holds
_ROWS = deferred(r"(?:\[ {0,6}[0-9][^\0]*+(?:\0|\Z))+")


def row_count(texts: Sequence[str]) -> int:
    """The number of lines, counted from the first, that look like rows of a task table."""
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
