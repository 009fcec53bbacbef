"""Lines of a serial console that lost bytes -> lines as the kernel wrote them, where that is certain.

A serial line has no checksums: bytes get lost, or arrive as others. The kernel's wordings are known
(``oomwatchd.formats``), so a line that matches a wording but for a few letters gets those letters back.
Nothing else is put into a line: names and figures stay as they came, unless another line of the same report
has the same name or figure with more letters (where a byte is lost, the others stay in their order). A row of
the task table has fixed columns: where they are shifted, a blank or a digit is missing, and nobody can say
which, so the row is left out.
"""

from __future__ import annotations

import re
from typing import Final

from oomwatchd.follow.wordings import MAX_LINE, is_rest_of, mend
from oomwatchd.formats import ESSENTIAL, Form, Match, Role, oom_kill
from oomwatchd.formats.recognise import ALL, Recognised, recognise

#: lines for which a mended line shows that the console loses bytes
_DOUBTFUL_LINES: Final = 200
#: rows of a report that are remembered
_MOST_ROWS: Final = 4096
#: mended lines that are remembered, so that a report knows how many it has
_MOST_MENDED: Final = 4096
#: of a page, by architecture
_PAGES_KIB: Final = (4, 16, 64, 8)
_RESIDENT: Final = ("anon-rss", "file-rss", "shmem-rss")
#: forms whose patterns also take a line that lost letters
_LOOSE: Final = frozenset(form for form in ALL if form.role in ESSENTIAL or form is oom_kill.TASKS_HEADER)
#: "[%5lu.%06lu]" (kernel/printk/printk.c print_time())
_STAMP: Final = re.compile(r"\[(?= *\d+\.)[ \d]{5,9}\.\d{6}\](?:\[ *[CT]\d{1,7}\])? ")
_STAMP_ROOM: Final = 48
#: what may be left of one
_SPOILT_STAMP: Final = re.compile(r"(?:\[ {0,5}\d{0,7}\.?\d{2,7}\]?|[ \d]{1,8}\.\d{2,6}\]?|\d{6,12}\]) ?")
#: one of these is in most lines of a report, even if some bytes are lost
_SIGNS: Final = re.compile(rb"oom|OOM|[Kk]ill|oces|emory|gfp_|mask|-rss|Mem-|emcg")
_RETURNS: Final = re.compile(rb"\r+\n?")
_SIZE: Final = re.compile(r"(?P<name>total-vm|anon-rss|file-rss|shmem-rss):(?P<kib>\d*)kB")
_MASK: Final = re.compile(r"(?:gfp_mask=|mode:)0x(?P<mask>[0-9a-f]+)\((?P<flags>[A-Z_|]+)\)")
_MOST_MASKS: Final = 256
_ROW: Final = re.compile(r"\[? *\d[\d \]-]{18,}\s\S.{0,15}$")


#: how wide the columns of a row are printed, by the width of its process id and how many columns there are
#: (mm/oom_kill.c dump_tasks(), dump_task())
_WIDTHS: Final = {
    (5, 6): ((5, 5, 8, 8, 3, 7),),  # 2.6.32
    (5, 7): ((5, 5, 8, 8, 3, 7, 13), (5, 5, 8, 8, 7, 8, 13)),  # 2.6.36, 3.8
    (5, 8): ((5, 5, 8, 8, 7, 7, 8, 13),),  # 4.0
    (7, 7): ((5, 5, 8, 8, 8, 8, 13),),  # 4.19
    (7, 10): ((5, 5, 8, 8, 8, 8, 9, 8, 8, 13),),  # 6.8
}


def is_as_printed(row: str) -> bool:
    """Whether each column of a row of the task table is as wide as some kernel prints it: a figure may be
    wider, not narrower. True where no such table is known."""
    match = oom_kill.TASKS_ROW.pattern.match(row)
    if match is None:
        return False
    figures = match["figures"]
    columns = figures.split()
    width = row.find("]") - 1
    if width not in (5, 7) and row[1] == " ":
        return False
    known = _WIDTHS.get((width, len(columns)))
    return known is None or any(figures == _printed(columns, widths) for widths in known)


def _printed(columns: list[str], widths: tuple[int, ...]) -> str:
    return "".join(f" {column:>{width}}" for column, width in zip(columns, widths, strict=True))


def _is_sound_row(body: str, known: Recognised | None) -> bool:
    """Whether it is no row of the task table, or one whose columns end where they should."""
    if known is None:
        return _ROW.match(body) is None
    return known[0] is not oom_kill.TASKS_ROW or is_as_printed(body)


class _Report:
    """What the lines of a report so far say of its processes."""

    def __init__(self) -> None:
        #: process id and name that the kernel chose
        self._chosen: tuple[str, str] | None = None
        #: the rows of the task table: name, pages of total_vm and rss
        self._rows: dict[str, tuple[str, int, int] | tuple[str, None, None]] = {}

    def note(self, form: Form, match: Match) -> None:
        if form is oom_kill.TASKS_ROW:
            if len(self._rows) < _MOST_ROWS:
                columns = match["figures"].split()
                self._rows[match["pid"]] = (match["comm"], int(columns[2]), int(columns[3]))
        elif form is oom_kill.INTENT:
            self._chosen = match["pid"], match["comm"]
        elif form is oom_kill.SUMMARY:
            summary = oom_kill.parse_summary(match["constraint"], match["rest"])
            if summary.pid is not None and summary.task is not None:
                self._chosen = str(summary.pid), summary.task

    def spoilt_row(self, body: str) -> None:
        """Of a row that is left out, the process id: it stands there twice."""
        match = oom_kill.TASKS_ROW.pattern.match(body)
        if match is not None and len(self._rows) < _MOST_ROWS:
            pid = match["pid"]
            if match["figures"].split()[1] == pid:
                self._rows.setdefault(pid, (match["comm"], None, None))

    def confirmed(self, body: str, known: Recognised) -> str:
        """A kill line with the process id, the name and the sizes that the lines before it have, where its
        own are theirs without a digit or some letters."""
        form, match = known
        if form is not oom_kill.KILLED or not match["comm"]:
            return body
        pid, comm = self._whose(match["pid"], match["comm"])
        (a, b), (c, d) = match.span("pid"), match.span("comm")
        rest = body[d:]
        if pid in self._rows:
            _, pages, resident = self._rows[pid]
            if pages is not None and resident is not None:
                rest = _sized(rest, pages, resident)
        return body[:a] + pid + body[b:c] + comm + rest

    def _whose(self, pid: str, comm: str) -> tuple[str, str]:
        """Process id and name of a kill line, by the line that chose a process and by the rows."""
        near = [
            other
            for other in ([] if self._chosen is None else [self._chosen])
            + [(other, row[0]) for other, row in self._rows.items()]
            if is_rest_of(pid, other[0], 1) and _like(comm, other[1])
        ]
        # the same id anywhere confirms it; else the process that was chosen
        near = [one for one in near if one[0] == pid] or [one for one in near if one == self._chosen] or near
        if len({other for other, _ in near}) != 1:
            return pid, comm
        return near[0][0], max([comm, *(name for _, name in near)], key=len)


def _like(a: str, b: str) -> bool:
    """Whether two names are the same but for some letters that one of them lost."""
    return is_rest_of(a, b) or is_rest_of(b, a)


def _sized(sizes: str, pages: int, resident: int) -> str:
    """The sizes of a kill line, of which one may have lost a digit: the virtual size is that of the process's
    row of the table, and the resident sizes have the row's sum."""
    figures = {found["name"]: found for found in _SIZE.finditer(sizes)}
    wanted: dict[str, int] = {}
    for page in _PAGES_KIB:
        if (total := figures.get("total-vm")) is None or not total["kib"]:
            break
        if int(total["kib"]) == pages * page or is_rest_of(total["kib"], str(pages * page), 1):
            wanted["total-vm"] = pages * page
            held = {name: figures[name]["kib"] for name in _RESIDENT if name in figures}
            if all(held.values()) and (missing := resident * page - sum(map(int, held.values()))):
                could = [name for name, kib in held.items() if is_rest_of(kib, str(int(kib) + missing), 1)]
                if len(could) == 1:
                    wanted[could[0]] = int(held[could[0]]) + missing
            break
    return _SIZE.sub(lambda found: f"{found['name']}:{wanted.get(found['name'], found['kib'])}kB", sizes)


class Mender:
    """The lines of one console. ``feed`` takes data cut anywhere and gives whole lines; ``flush`` gives the
    rest."""

    def __init__(self) -> None:
        self._rest = b""
        #: the beginning of this line was passed on already
        self._within = False
        self._stamp = ""
        #: lines until the console counts as sound again
        self._doubtful = 0
        self._report = _Report()
        #: masks by the names of their flags
        self._masks: dict[str, str] = {}
        #: the last lines that were mended, without their stamps
        self._mended: dict[str, None] = {}
        #: lines that were left out
        self.left_out = 0

    @property
    def holds(self) -> bool:
        """Whether the beginning of a line waits for its end."""
        return bool(self._rest)

    def has_mended(self, text: str) -> bool:
        """Whether a line (without its stamp) was mended lately."""
        return text in self._mended

    def feed(self, data: bytes) -> bytes:
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        whole, self._rest = data[:end], data[end:]
        if len(self._rest) > MAX_LINE:
            whole, self._rest, self._within = data, b"", True
            return whole
        if self._within and whole:
            first, newline, whole = whole.partition(b"\n")
            self._within = False
            return first + newline + self._lines(whole)
        return self._lines(whole)

    def flush(self) -> bytes:
        """What came of a line so far; nothing more comes for now."""
        data, self._rest = self._rest, b""
        if not data or self._within:
            return data
        self._within = True
        return self._line(data) or b""

    def _lines(self, data: bytes) -> bytes:
        # the end of a line is two bytes, either of which may be lost
        lines = _RETURNS.sub(b"\n", data).split(b"\n")
        kept = [line for one in lines[:-1] if (line := self._line(one)) is not None]
        return b"".join(line + b"\n" for line in kept)

    def _line(self, line: bytes) -> bytes | None:
        """The line as it should be; None if it is left out."""
        if len(line) > MAX_LINE or not line.strip():
            return line
        if not self._doubtful and _SIGNS.search(line) is None:
            if line[:1] == b"[" and (found := _STAMP.match(line[:_STAMP_ROOM].decode("ascii", "replace"))):
                self._stamp = found[0]
            return line
        text = line.decode("utf-8", "surrogateescape")
        stamp, body = self._split(text)
        body, known = self._known(body)
        self._doubtful = self._doubtful - 1 if stamp + body == text else _DOUBTFUL_LINES
        self._doubtful = max(0, self._doubtful)
        checked = self._checked(body, known)
        if checked is None:
            self.left_out += 1
            return None
        if stamp + checked == text:
            return line
        self._mended[checked] = None
        if len(self._mended) > _MOST_MENDED:
            del self._mended[next(iter(self._mended))]
        return (stamp + checked).encode("utf-8", "surrogateescape")

    def _known(self, body: str) -> tuple[str, Recognised | None]:
        """A line, with the letters of its wording if it lost some, and its form."""
        known = recognise(body, raw=True)
        if known is None or (self._doubtful and known[0] in _LOOSE):
            mended = mend(body)
            if mended is not None:
                return mended, recognise(mended)
        return body, known

    def _checked(self, body: str, known: Recognised | None) -> str | None:
        """A line as the other lines of its report confirm it; None if it is left out."""
        if known is not None and known[0].role is Role.HEADER:
            self._report = _Report()
            body = self._masked(body)
        if self._doubtful and not _is_sound_row(body, known):
            self._report.spoilt_row(body)
            return None
        if known is not None:
            if self._doubtful:
                body = self._report.confirmed(body, known)
            self._report.note(*known)
        return body

    def _masked(self, body: str) -> str:
        """A header with the mask that these flags had before, where its own is that without a digit."""
        found = _MASK.search(body)
        if found is None:
            return body
        flags, mask = found["flags"], found["mask"]
        before = self._masks.get(flags, "")
        if self._doubtful and is_rest_of(mask, before, 1):
            return body[: found.start("mask")] + before + body[found.end("mask") :]
        if len(self._masks) < _MOST_MASKS or flags in self._masks:
            self._masks[flags] = mask
        return body

    def _split(self, text: str) -> tuple[str, str]:
        """The stamp, and what the kernel printed. A stamp that lost bytes becomes that of the line before: no
        line was printed earlier."""
        if found := _STAMP.match(text):
            self._stamp = found[0]
            return found[0], text[found.end() :]
        if self._stamp and (found := _SPOILT_STAMP.match(text)):
            return self._stamp, text[found.end() :]
        return "", text
