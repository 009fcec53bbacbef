"""A bounded ring of samples: those of the last minute as they are, older ones the calm interval apart."""

from __future__ import annotations

from collections import deque

import msgspec

#: Bound of all samples together, as :attr:`Sample.size` counts them.
RING_BYTES = 512 * 1024
#: Samples of this time stay as they are; older ones are thinned to the calm interval.
DENSE_USEC = 60_000_000
#: What Python keeps for a sample besides its bytes.
_SAMPLE_OVERHEAD = 640


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One moment. ``parts`` are the abridged files in the order of
    :data:`oomwatchd.observe.abridged.PARTS`; ``processes``, ``groups`` and ``tmpfs`` hold pairs of a number
    that stands for one and its bytes."""

    usec: int
    wall: float
    parts: tuple[bytes, ...]
    processes: bytes = b""
    groups: bytes = b""
    tmpfs: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of memory that this sample takes, Python's own part estimated upward."""
        texts = sum(map(len, self.parts))
        return texts + len(self.processes) + len(self.groups) + len(self.tmpfs) + _SAMPLE_OVERHEAD


class Ring:
    """The samples of ``span_usec``; calm ones come every ``interval_usec``."""

    def __init__(self, interval_usec: int, span_usec: int) -> None:
        self._interval = interval_usec
        self._span = span_usec
        self._recent: deque[Sample] = deque()
        self._older: deque[Sample] = deque()
        #: what they take; at most RING_BYTES
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._recent) + len(self._older)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The oldest first."""
        return (*self._older, *self._recent)

    @property
    def newest_usec(self) -> int:
        """When the newest was taken; 0 if there is none."""
        return self._recent[-1].usec if self._recent else 0

    def keep(self, sample: Sample) -> None:
        self._recent.append(sample)
        self.size_bytes += sample.size
        while self._recent[0].usec < sample.usec - DENSE_USEC:
            old = self._recent.popleft()
            # a calm sample may come a little early
            if not self._older or old.usec - self._older[-1].usec >= self._interval * 9 // 10:
                self._older.append(old)
            else:
                self.size_bytes -= old.size
        while self._older and (
            self._older[0].usec < sample.usec - self._span or self.size_bytes > RING_BYTES
        ):
            self.size_bytes -= self._older.popleft().size
        while self.size_bytes > RING_BYTES and len(self._recent) > 1:
            self.size_bytes -= self._recent.popleft().size
