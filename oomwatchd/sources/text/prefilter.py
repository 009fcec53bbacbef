"""Read a log of any size, fast: text without a report is not decoded.

A chunk of the file without any needle cannot begin a report, so it is skipped while no report is open. Where
a needle is found, the text before it is read too, for lines just before a report (``callbacks suppressed``,
sysrq). In the beginning of a text, needles are also found if a line break divides them: a short text may be
wrapped inside a needle, a long log is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.sources.text.needles import NEEDLES, has_needle, spells_needle
from oomwatchd.sources.text.reader import TextReader

#: up to here a text may be wrapped inside a needle
SMALL: Final = 4 << 20
CHUNK: Final = 1 << 20
#: how much before a needle is read
CONTEXT: Final = 64 << 10

_SEAM: Final = max(map(len, NEEDLES)) - 1
#: the most bytes that a broken needle spans, with the prefix of its second line
_BROKEN_SEAM: Final = 4096


class PrefilteredReader:
    """Data in, records out; data that cannot begin a report is skipped.

    ``idle`` says whether the consumer has no open report, so that text without a report's beginning may be
    skipped; it is asked after all earlier records were consumed. ``reader`` may be given to read its
    ``form``.
    """

    def __init__(self, idle: Callable[[], bool] = lambda: True, reader: TextReader | None = None) -> None:
        self.reader = TextReader() if reader is None else reader
        self._idle = idle
        self._size = 0
        #: the end of the data so far
        self._end = b""
        #: the text so far, while it holds no needle but may be wrapped inside one
        self._beginning: bytearray | None = bytearray()
        #: the data that was skipped last; None while nothing is skipped
        self._passed: bytes | None = None

    def feed(self, data: bytes) -> Iterator[list[KmsgRecord]]:
        """Take the next data, cut anywhere; return its records in some lists. Pieces of :data:`CHUNK` bytes
        let most of it be skipped."""
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
                yield reader.feed(_tail(passed))
            yield reader.feed(data)
        elif passed is None:
            # the half-read line and the held line may still begin a report
            end = data.find(b"\n") + 1
            yield reader.feed(data[:end])
            yield reader.interrupt()
            if self._idle():
                self._passed = data[end:]
            else:
                yield reader.feed(data[end:])
        else:
            self._passed = data if len(data) >= CONTEXT else _tail(passed + data)

    def pause(self) -> list[KmsgRecord]:
        """Nothing more comes for now: return the whole lines."""
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
        for found in reading.feed(data):
            yield from found
    yield from reading.flush()


def _tail(data: bytes) -> bytes:
    """The last lines of the skipped data."""
    if len(data) <= CONTEXT:
        return data
    at = len(data) - CONTEXT
    line = data.find(b"\n", at)
    return data[at:] if line < 0 else data[line + 1 :]
