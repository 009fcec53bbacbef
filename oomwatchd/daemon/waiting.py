"""The bounded queue between the main thread and the worker.

When it is full, a capture is cut down to the lines that say who was killed, when and where, so that a storm
loses detail and no kill.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from oomwatchd.formats import ESSENTIAL
from oomwatchd.formats.recognise import recognise
from oomwatchd.metrics import Metrics
from oomwatchd.observe.history import Before
from oomwatchd.records.capture import OomCapture, weight

#: How many captures wait whole (up to some 100 KiB each), and then cut down (about 1 KiB each).
FULL_CAPTURES = 128
CUT_CAPTURES = 8192
#: Bytes of all whole captures together. A larger one may wait where it is the only one.
FULL_BYTES = 8 << 20
#: Lines of a cut down capture: the header and all that names a victim.
CUT_RECORDS = 64


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A capture on its way; ``named_at`` is when its first victim was named (CLOCK_MONOTONIC, seconds),
    None where no latency is measured; ``before`` formats the samples before it. A capture that ``is_cut``
    holds only what names its victims."""

    capture: OomCapture
    named_at: float | None
    before: Callable[[], Before] | None = None
    is_cut: bool = False
    bytes: int = 0


class WaitingRoom:
    """Captures by ``key_of``. One thread puts them in, another takes them out; neither waits."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting: dict[int, Waiting] = {}
        #: bytes of whole captures that came, and of those that are done with; each written by one thread
        self._came = self._went = 0
        #: captures for which there was no room even cut down; their kills are lost
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: int) -> bool:
        return key in self._waiting

    def put(
        self, capture: OomCapture, named_at: float | None, before: Callable[[], Before] | None = None
    ) -> bool:
        """Add a capture; a later revision replaces one that still waits. False: there was no room even for
        its kills.

        The other thread only ever takes entries out, so what is counted here is at most too high by those.
        """
        key, overflow = key_of(capture), 0
        earlier = self._waiting.pop(key, None)
        if earlier is not None:
            self._came -= earlier.bytes
        size = weight(capture)
        # what was whole stays whole
        if (earlier is None or earlier.is_cut) and not self._has_room(size):
            overflow = int(earlier is None)
            if overflow and len(self._waiting) >= CUT_CAPTURES:
                self.dropped += 1
                self._metrics.dropped()
                self._metrics.queue(len(self._waiting), overflow=1)
                return False
            self._waiting[key] = Waiting(cut_down(capture), named_at, None, is_cut=True)
        else:
            self._came += size
            self._waiting[key] = Waiting(capture, named_at, before, bytes=size)
        self._metrics.queue(len(self._waiting), overflow=overflow)
        return True

    def _has_room(self, size: int) -> bool:
        """Whether one more capture of ``size`` bytes may wait whole. The one under work counts, too."""
        held = self._came - self._went
        return len(self._waiting) < FULL_CAPTURES and (not held or held + size <= FULL_BYTES)

    def take(self, key: int) -> Waiting | None:
        """The capture, if it was not replaced and taken meanwhile; ``done`` follows."""
        return self._waiting.pop(key, None)

    def done(self, waiting: Waiting) -> None:
        """The capture that was taken is done with."""
        self._went += waiting.bytes


def key_of(capture: OomCapture) -> int:
    """Identifies a waiting report; the same for each of its revisions."""
    return (capture.records[0].number or 0) if capture.records else -1


def cut_down(capture: OomCapture) -> OomCapture:
    """The essential lines of a report: who was killed, when, in which cgroup. Its first record stays, because
    it identifies the report."""
    kept = [
        record
        for record in capture.records[1:]
        if (found := recognise(record.text, raw=True)) and found[0].role in ESSENTIAL
    ]
    return msgspec.structs.replace(
        capture,
        records=(*capture.records[:1], *kept[:CUT_RECORDS]),
        before=(),
        tracks=(),
        marks=(),
        earlier=(),
        at=None,
        after=None,
    )
