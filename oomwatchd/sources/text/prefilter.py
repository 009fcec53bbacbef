"""Read a log of any size, fast: text without a report is not decoded.

A chunk of the file without any of the needles cannot begin a report, and is passed over while no report is
open. Where a needle is found, the text before it is read too, for what stands
just before a report (``callbacks suppressed``, sysrq). In the beginning a needle is found however it is
broken: a short text may be wrapped inside one, a long log is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.sources.text.needles import NEEDLES, has_needle, spells_needle
from oomwatchd.sources.text.reader import TextReader

#: so much of a text may be wrapped inside a needle
SMALL: Final = 4 << 20
CHUNK: Final = 1 << 20
#: how much before a needle is read
CONTEXT: Final = 64 << 10

_SEAM: Final = max(map(len, NEEDLES)) - 1
#: a broken needle spans so many bytes at most, with what stands before its second line
_BROKEN_SEAM: Final = 4096


class PrefilteredReader:
    """Data in, records out; data that cannot begin a report is passed over.

    ``idle`` says whether the consumer waits for nothing, so that text without a report's beginning may be
    left out; it is asked after everything before was consumed. ``reader`` may be given to see its ``form``.
    """

    def __init__(self, idle: Callable[[], bool] = lambda: True, reader: TextReader | None = None) -> None:
        self.reader = TextReader() if reader is None else reader
        self._idle = idle
        self._size = 0
        #: the end of what came so far
        self._end = b""
        #: the text so far, while it does not spell a needle and may be wrapped inside one
        self._beginning: bytearray | None = bytearray()
        #: what was passed over last; None while nothing is
        self._passed: bytes | None = None

    def feed(self, data: bytes) -> Iterator[KmsgRecord]:
        """The next data, cut anywhere; in pieces of a :data:`CHUNK` most can be passed over."""
        reader, before = self.reader, self._end
        self._size += len(data)
        self._end = (before + data[-_BROKEN_SEAM:])[-_BROKEN_SEAM:]
        if self._beginning is not None:
            self._beginning += data
            if self._size > SMALL:
                self._passed = _tail(bytes(self._beginning[: -len(data)]))
                self._beginning = None
            elif not self._idle() or spells_needle(data) or spells_needle(before + data[:_BROKEN_SEAM]):
                data = bytes(self._beginning)
                self._beginning = None
            else:
                return
        passed = self._passed
        if (
            self._size <= SMALL
            or not self._idle()
            or has_needle(data)
            or has_needle(before[-_SEAM:] + data[:_SEAM])
        ):
            self._passed = None
            if passed is not None:
                yield from reader.feed(_tail(passed))
            yield from reader.feed(data)
        elif passed is None:
            # the line that is half read, and the one held back, may yet begin a report
            end = data.find(b"\n") + 1
            yield from reader.feed(data[:end])
            yield from reader.interrupt()
            if self._idle():
                self._passed = data[end:]
            else:
                yield from reader.feed(data[end:])
        else:
            self._passed = data if len(data) >= CONTEXT else _tail(passed + data)

    def pause(self) -> list[KmsgRecord]:
        """Nothing more comes for now: the lines that are whole."""
        return self.reader.pause()

    def flush(self) -> list[KmsgRecord]:
        """The data has ended."""
        return self.reader.flush()


def records(
    stream: BinaryIO, *, idle: Callable[[], bool] = lambda: True, reader: TextReader | None = None
) -> Iterator[KmsgRecord]:
    """The records of a log from an open binary stream; see :class:`PrefilteredReader`."""
    reading = PrefilteredReader(idle, reader)
    while data := stream.read(CHUNK):
        yield from reading.feed(data)
    yield from reading.flush()


def _tail(data: bytes) -> bytes:
    """The last lines of what was left out."""
    if len(data) <= CONTEXT:
        return data
    at = len(data) - CONTEXT
    line = data.find(b"\n", at)
    return data[at:] if line < 0 else data[line + 1 :]
