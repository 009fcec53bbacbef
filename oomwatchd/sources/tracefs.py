"""The trace point ``oom:mark_victim`` as a second witness of kills, in a tracing instance of its own.

It fires for each process that is marked as a victim, even if the kernel log loses the report. A process that
is already exiting is marked too, but not killed. It needs a mounted tracefs and root, or an instance that
root made for us (packaging/systemd/oomwatchd.service.d/trace.conf). The trace point ``printk:console`` is
switched on too, for the first line of a report: the kernel log itself wakes its readers only at the next
timer tick.

The raw ``trace_pipe_raw`` is read, because ``trace_pipe`` does not escape names: a newline in a name would
make a second line. Sources: Documentation/trace/ftrace.rst, kernel/trace/ring_buffer.c (``struct
buffer_data_page``,
``struct ring_buffer_event``), include/trace/events/oom.h (4.13; with the name since 6.9).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from oomwatchd.errors import UnavailableError
from oomwatchd.formats.oom_kill import HEADER_MARK
from oomwatchd.records.kmsg import to_text

#: an instance that root made for a service that may not use tracefs itself (the drop-in trace.conf)
HANDED = Path("/run/oomwatchd-trace")
#: where tracefs may be mounted; the first that is counts
ROOTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
INSTANCE = "oomwatchd"
#: buffer of each CPU, for about 200 victims
BUFFER_KIB = 16
#: an event filter for the kernel (Documentation/trace/events.rst)
FIRST_LINE = f'msg ~ "*{HEADER_MARK}*"'
#: pages that one reading takes from one CPU
MAX_PAGES = 16
#: the largest sub-buffer: it is at least a page, which may be 64 KiB
_PAGE_BYTES = 65536
_COMM_BYTES = 15


class Marked(msgspec.Struct, frozen=True, gc=False):
    """A process marked as a victim. ``usec`` is CLOCK_MONOTONIC in microseconds; ``comm`` is None where the
    trace point has no name."""

    usec: int
    pid: int
    comm: str | None = None


class Layout(msgspec.Struct, frozen=True):
    """The offsets of the fields, from the event's ``format`` and from ``header_page``."""

    event_id: int
    pid: int
    comm: int | None
    commit: int
    commit_size: int
    data: int
    little_endian: bool = sys.byteorder == "little"


_FIELD = re.compile(
    r"field:(?P<type>[^;]*?)(?P<name>\w+)(?:\[\d*\])?;\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);"
)
_ID = re.compile(r"^ID: (\d+)$", re.MULTILINE)

# kernel/trace/ring_buffer.c, include/linux/ring_buffer.h
_TYPE_DATA_MAX, _PADDING, _TIME_EXTEND, _TIME_STAMP = 28, 29, 30, 31
_COMMIT_MASK = (1 << 20) - 1
_MISSED_EVENTS = 1 << 31


def parse_layout(event: str, page: str) -> Layout:
    """Read the offsets. Raises ValueError if the files look like those of no known kernel."""
    number = _ID.search(event)
    fields = {m["name"]: m for m in _FIELD.finditer(event)}
    header = {m["name"]: m for m in _FIELD.finditer(page)}
    if number is None or "pid" not in fields or not header.keys() >= {"commit", "data"}:
        raise ValueError("a trace point format that is not known")
    comm = fields.get("comm")
    return Layout(
        event_id=int(number[1]),
        pid=int(fields["pid"]["offset"]),
        comm=int(comm["offset"]) if comm is not None and "__data_loc" in comm["type"] else None,
        commit=int(header["commit"]["offset"]),
        commit_size=int(header["commit"]["size"]),
        data=int(header["data"]["offset"]),
    )


def parse_page(page: bytes, layout: Layout) -> tuple[list[Marked], bool]:
    """One sub-buffer: the victims in it, and whether events before it were lost. Never raises."""
    order: Literal["little", "big"] = "little" if layout.little_endian else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(page[at : at + size], order)

    time = number(0, 8)
    commit = number(layout.commit, layout.commit_size)
    end = min(len(page), layout.data + (commit & _COMMIT_MASK))
    found = []
    at = layout.data
    while at + 4 <= end:
        head = number(at, 4)
        kind, delta = (head & 31, head >> 5) if layout.little_endian else (head >> 27, head & 0x7FFFFFF)
        at += 4
        if kind in (_TIME_EXTEND, _TIME_STAMP):
            whole = (number(at, 4) << 27) + delta
            time = whole if kind == _TIME_STAMP else time + whole
            at += 4
            continue
        if kind == _PADDING and not delta:
            break  # to the end of the page
        time += delta
        length = kind * 4 if 1 <= kind <= _TYPE_DATA_MAX else number(at, 4)
        body = at if 1 <= kind <= _TYPE_DATA_MAX else at + 4
        if length <= 0:
            break
        if kind != _PADDING and number(body, 2) == layout.event_id and body + layout.pid + 4 <= end:
            found.append(Marked(time // 1000, number(body + layout.pid, 4), _comm(page, body, layout)))
        at += length
    return found, bool(commit & _MISSED_EVENTS)


def _comm(page: bytes, body: int, layout: Layout) -> str | None:
    if layout.comm is None:
        return None
    where = int.from_bytes(
        page[body + layout.comm : body + layout.comm + 4], "little" if layout.little_endian else "big"
    )
    offset, length = where & 0xFFFF, min(where >> 16, _COMM_BYTES + 1)
    return to_text(page[body + offset : body + offset + length].split(b"\0")[0])


def _has_event(root: Path) -> bool:
    try:
        return (root / "events/oom/mark_victim/format").exists()
    except OSError:  # nobody but root may look (Python before 3.14 raises)
        return False


def _set_up(directory: Path) -> None:
    """Make the instance and switch the events on; the drop-in trace.conf does the same."""
    directory.mkdir(exist_ok=True)  # one that was left behind by kill -9 is taken over
    (directory / "trace").write_text("")
    (directory / "trace_clock").write_text("mono")
    (directory / "buffer_size_kb").write_text(str(BUFFER_KIB))
    with suppress(OSError):  # 5.0+; before 5.0, as with 0, any event wakes a poll
        (directory / "buffer_percent").write_text("0")
    with suppress(OSError):  # up to 5.14 it fires only for what a console prints
        (directory / "events/printk/console/filter").write_text(FIRST_LINE)
        (directory / "events/printk/console/enable").write_text("1")
    (directory / "events/oom/mark_victim/enable").write_text("1")


class MarkedVictims:
    """The open instance. Not thread-safe. Nothing here waits."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        self._directory = directory
        self._layout = layout
        self._pipes: list[int] = []
        #: readings that found the buffer overwritten
        self.overruns = 0

    @classmethod
    def open(cls, roots: tuple[Path, ...] = (HANDED, *ROOTS)) -> MarkedVictims:
        """Make the instance, if none was made for us, and open it. Raises UnavailableError with the
        reason."""
        root = next((root for root in roots if _has_event(root)), None)
        if root is None:
            raise UnavailableError(
                "no tracefs with the trace point oom:mark_victim",
                hint="mount tracefs; not as root: trace.conf",
            )
        directory = root if root == HANDED else root / "instances" / INSTANCE
        marks = None
        try:
            layout = parse_layout(
                (root / "events/oom/mark_victim/format").read_text(),
                (root / "events/header_page").read_text(),
            )
            marks = cls(directory, layout)
            if directory is not root:
                _set_up(directory)
            for cpu in sorted((directory / "per_cpu").iterdir()):
                pipe = os.open(cpu / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                marks._pipes.append(pipe)
        except (OSError, ValueError) as error:
            if marks is not None:
                marks.close()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UnavailableError(f"no trace point oom:mark_victim: {reason}") from error
        return marks

    def descriptors(self) -> tuple[int, ...]:
        """Descriptors that become readable when a report begins, and as soon as a victim is marked,
        microseconds before its kill line is printed."""
        return tuple(self._pipes)

    def read(self, pipe: int | None = None) -> list[Marked]:
        """The victims marked since the last reading, in order of time; ``pipe``: only those of that CPU."""
        found: list[Marked] = []
        for page in self._pages(self._pipes if pipe is None else (pipe,)):
            marked, missed = parse_page(page, self._layout)
            found += marked
            self.overruns += missed
        return sorted(found, key=lambda marked: marked.usec)

    def _pages(self, pipes: Iterable[int]) -> Iterator[bytes]:
        for pipe in pipes:
            for _ in range(MAX_PAGES):
                try:
                    page = os.read(pipe, _PAGE_BYTES)
                except OSError:
                    break
                if not page:
                    break
                yield page

    def close(self) -> None:
        """Switch it off and remove the instance, if it is ours."""
        for pipe in self._pipes:
            os.close(pipe)
        self._pipes = []
        if self._directory == HANDED:
            return
        for event in ("oom/mark_victim", "printk/console"):
            with suppress(OSError):
                (self._directory / "events" / event / "enable").write_text("0")
        with suppress(OSError):
            self._directory.rmdir()
