"""Read a log of any size, fast: what holds no report is not decoded.

A chunk of the file in which none of the needles occurs cannot begin a report, and is passed over while
nobody waits for the rest of one. Where a needle is found, the text before it is read too, for what stands
just before a report (``callbacks suppressed``, sysrq).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.sources.text.reader import TextReader

#: every report holds one of these in a line that can begin it: the header and the summary, the kill lines
#: of all kernels, the report of a failed allocation
NEEDLES: Final = (b"oom-kill", b"illed process ", b"page allocation failure")
#: a smaller file is read whole: its text may be wrapped inside a needle
SMALL: Final = 4 << 20
CHUNK: Final = 1 << 20
#: how much before a needle is read
CONTEXT: Final = 64 << 10

# bytes.find costs three times as much as libc's memmem, and this is all that is done with most of a file
_memmem: Final = ctypes.CDLL(None).memmem
_memmem.restype = ctypes.c_void_p
_memmem.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
_SEAM: Final = max(map(len, NEEDLES)) - 1


def has_needle(data: bytes) -> bool:
    """Whether a report may begin in this data."""
    size = len(data)
    return any(_memmem(data, size, needle, len(needle)) is not None for needle in NEEDLES)


def records(
    stream: BinaryIO, *, idle: Callable[[], bool] = lambda: True, reader: TextReader | None = None
) -> Iterator[KmsgRecord]:
    """The records of a log from an open binary stream.

    ``idle`` says whether the consumer waits for nothing, so that text without a report's beginning may be
    left out; it is asked after everything before was consumed. ``reader`` may be given to see its ``form``.
    """
    reader = TextReader() if reader is None else reader
    size = 0
    last = b""
    skipping = False
    while data := stream.read(CHUNK):
        size += len(data)
        seam = last[-_SEAM:] + data[:_SEAM]
        if size > SMALL and idle() and not has_needle(data) and not has_needle(seam):
            if not skipping:
                # the line that is half read, and the one held back, may yet begin a report
                end = data.find(b"\n") + 1
                yield from reader.feed(data[:end])
                yield from reader.interrupt()
                skipping = idle()
                if not skipping:
                    yield from reader.feed(data[end:])
        else:
            if skipping:
                yield from reader.feed(_tail(last))
                skipping = False
            yield from reader.feed(data)
        last = data
    yield from reader.flush()


def _tail(data: bytes) -> bytes:
    """The last lines of a chunk that was left out."""
    at = max(0, len(data) - CONTEXT)
    line = data.find(b"\n", at)
    return data[at:] if line < 0 else data[line + 1 :]
