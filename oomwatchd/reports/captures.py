"""Records of a saved log -> captures: blocks cut, repeats folded. Used by ``analyze`` and by readers that
follow a log.

Core: no clock. For a log that grows the caller passes the time (``drain``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord
from oomwatchd.reports.assemble import Assembler, OomBlock, Signal
from oomwatchd.reports.quoted import standing
from oomwatchd.reports.storms import UPDATE_USEC, Fold, Folded


class Captures:
    """The reports of one boot's records: each once, when it is complete, in the order of the text.

    ``source`` is asked when a report is found; ``wall_offset``: seconds since the epoch minus the log clock.
    """

    def __init__(self, source: Callable[[], Source], *, wall_offset: float | None = None) -> None:
        self._source = source
        self._wall_offset = wall_offset
        self._assembler = Assembler(early=False)
        self._fold = Fold(early=False)
        self._holds_since: float | None = None

    @property
    def idle(self) -> bool:
        """No report is open: lines that belong to no report change nothing."""
        return self._assembler.idle

    @property
    def has_finished(self) -> bool:
        """Some report has its last line and waits for lines that may still belong to it."""
        return self._assembler.has_finished

    @property
    def is_empty(self) -> bool:
        """Nothing of a report is held."""
        return self._assembler.is_empty and self._fold.is_empty

    def feed(self, item: KmsgRecord | KmsgGap) -> list[OomCapture]:
        """The next record."""
        signals = self._assembler.feed(item)
        return self._fold_all(signals) if signals else []

    def feed_all(self, items: Sequence[KmsgRecord | KmsgGap]) -> list[OomCapture]:
        """The next records, many at once."""
        found: list[OomCapture] = []
        feed = self._assembler.feed
        for item in items:
            if signals := feed(item):
                found += self._fold_all(signals)
        return found

    def drain(self, now: float) -> list[OomCapture]:
        """Nothing more can be read at ``now`` (seconds of any clock that does not go back). Returns the
        reports that are complete, and those that got no line for too long. Repeats are returned when they
        have ended, and from time to time before."""
        found = self._fold_all(self._assembler.drain(now))
        if self._fold.is_empty:
            self._holds_since = None
        elif self._holds_since is None:
            self._holds_since = now
        if self._holds_since is not None and (
            self._assembler.is_empty or now - self._holds_since >= UPDATE_USEC / 1e6
        ):
            found += self._all(self._fold.flush())
            self._holds_since = None
        return found

    def flush(self) -> list[OomCapture]:
        """The log has ended."""
        return self._fold_all(self._assembler.flush()) + self._all(self._fold.flush())

    def _fold_all(self, signals: Iterable[Signal]) -> list[OomCapture]:
        found: list[OomCapture] = []
        for signal in signals:
            if isinstance(signal, OomBlock) and standing(signal.records) != "quoted":
                found += self._all(self._fold.take(signal))
        return found

    def _all(self, folded: Iterable[Folded]) -> list[OomCapture]:
        return [_capture(one, self._source(), self._wall_offset) for one in folded]


def captures_of(
    items: Iterable[KmsgRecord | KmsgGap], source: Source, *, wall_offset: float | None = None
) -> Iterator[OomCapture]:
    """The reports of one boot's records, as they are found."""
    captures = Captures(lambda: source, wall_offset=wall_offset)
    for item in items:
        yield from captures.feed(item)
    yield from captures.flush()


def _capture(folded: Folded, source: Source, wall_offset: float | None) -> OomCapture:
    block = folded.block
    last = folded.last or block.records[-1]
    return OomCapture(
        source=source,
        records=block.records,
        first_seq=block.records[0].seq,
        last_seq=last.seq,
        lost_records=block.lost_records,
        left_out=block.left_out,
        revision=block.revision,
        settled=True,
        wall_offset=wall_offset,
        repeats=folded.repeats,
        last_usec=last.usec if folded.repeats else None,
        last_wall=last.wall if folded.repeats else None,
    )
