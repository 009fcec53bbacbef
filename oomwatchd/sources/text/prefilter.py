"""Read a log of any size, fast: what holds no report is not decoded.

A chunk of the file in which none of the needles occurs cannot begin a report, and is passed over while
nobody waits for the rest of one. Where a needle is found, the text before it is read too, for what stands
just before a report (``callbacks suppressed``, sysrq).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.sources.text.needles import NEEDLES, has_needle
from oomwatchd.sources.text.reader import TextReader

#: a smaller file is read whole: its text may be wrapped inside a needle
SMALL: Final = 4 << 20
CHUNK: Final = 1 << 20
#: how much before a needle is read
CONTEXT: Final = 64 << 10

_SEAM: Final = max(map(len, NEEDLES)) - 1


class PrefilteredReader:
    """Data that is fed in, as records; data that cannot begin a report is passed over.

    ``idle`` says whether the consumer waits for nothing, so that text without a report's beginning may be
    left out; it is asked after everything before was consumed. ``reader`` may be given to see its ``form``.
    """

    def __init__(self, idle: Callable[[], bool] = lambda: True, reader: TextReader | None = None) -> None:
        self.reader = TextReader() if reader is None else reader
        self._idle = idle
        self._size = 0
        self._last = b""
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[KmsgRecord]:
        """The next data, cut anywhere; in pieces of a :data:`CHUNK` most can be passed over."""
        reader, last = self.reader, self._last
        self._size += len(data)
        self._last = data
        seam = last[-_SEAM:] + data[:_SEAM]
        if self._size <= SMALL or not self._idle() or has_needle(data) or has_needle(seam):
            if self._skipping:
                yield from reader.feed(_tail(last))
                self._skipping = False
            yield from reader.feed(data)
        elif not self._skipping:
            # the line that is half read, and the one held back, may yet begin a report
            end = data.find(b"\n") + 1
            yield from reader.feed(data[:end])
            yield from reader.interrupt()
            self._skipping = self._idle()
            if not self._skipping:
                yield from reader.feed(data[end:])

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
    """The last lines of a chunk that was left out."""
    at = max(0, len(data) - CONTEXT)
    line = data.find(b"\n", at)
    return data[at:] if line < 0 else data[line + 1 :]
