"""Records become signals, whatever happens: an error of the assembler costs one step and not the watch.

The record stays in the ring buffer, so a daemon that ended on it would end on it again after its restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from oomwatchd.records.kmsg import KmsgGap, KmsgRecord
from oomwatchd.reports.assemble import Assembler, Signal


class Cutter:
    """An :class:`Assembler` that is replaced after an error; ``failed`` is told of each."""

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._assembler = Assembler()
        self._failed = failed
        self._forged = self._kill_lines = 0

    def feed(self, items: Sequence[KmsgRecord | KmsgGap]) -> Iterator[Signal]:
        """The signals of the records, in their order; they must be consumed before the next call."""
        at = 0
        while at < len(items):
            taken = 0
            try:
                taken = self._assembler.take_run(items, at)
            except Exception as error:
                yield from self._replace(error)
            if taken:
                at += taken
                continue
            try:
                signals = self._assembler.feed(items[at])
            except Exception as error:
                signals = self._replace(error)
            yield from signals
            at += 1

    def tick(self, usec: int) -> list[Signal]:
        """What is due at this moment of the log clock."""
        try:
            return self._assembler.tick(usec)
        except Exception as error:
            return self._replace(error)

    def flush(self) -> list[Signal]:
        """The watch ends: what is there."""
        try:
            return self._assembler.flush()
        except Exception as error:
            return self._replace(error)

    @property
    def idle(self) -> bool:
        """No report is under way."""
        return self._assembler.idle

    @property
    def unfinished_usec(self) -> int | None:
        """Stamp of the newest line of a report whose rest is awaited; None: there is none."""
        return self._assembler.unfinished_usec

    def next_deadline(self) -> int | None:
        """When ``tick`` has something to do, on the log clock; None: nothing is under way."""
        return self._assembler.next_deadline()

    def newly_forged(self) -> int:
        """Records that only looked like a report's, since this was last asked."""
        count, self._forged = self._assembler.forged_records - self._forged, self._assembler.forged_records
        return count

    def new_kill_lines(self) -> int:
        """Kill lines, since this was last asked."""
        count, self._kill_lines = self._assembler.kill_lines - self._kill_lines, self._assembler.kill_lines
        return count

    def _replace(self, error: Exception) -> list[Signal]:
        """The state of an assembler that failed cannot be trusted, and its next step might fail like this
        one. What it had is issued if it still can be."""
        self._failed(error)
        failed, self._assembler = self._assembler, Assembler()
        self._forged = self._kill_lines = 0
        try:
            return failed.flush()
        except Exception as again:
            self._failed(again)
            return []
