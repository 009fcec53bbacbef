"""What other witnesses say of kills that the kernel log did not report.

The log may lose a kill line (overwritten before it was read); the trace point ``oom:mark_victim`` does not.
A process that was marked and is not named in the log for a while is said, once, and counted. It may also be
one that was exiting by itself: the kernel marks it to let it finish and prints nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from oomwatchd.sources.tracefs import Marked

#: a kill line that has not come after so long will not come
PATIENCE_USEC = 10_000_000
#: marked processes and named pids that are remembered
MAX_REMEMBERED = 4096


class Witness:
    """Compares marked victims with those that the log named. Not thread-safe."""

    def __init__(self) -> None:
        self._marked: OrderedDict[int, Marked] = OrderedDict()
        self._named: OrderedDict[int, int] = OrderedDict()
        #: processes that were marked as victims
        self.victims = 0
        #: those of them that the log did not name
        self.unreported = 0

    def named(self, pid: int, usec: int) -> None:
        """The log named a victim; ``usec`` is CLOCK_MONOTONIC."""
        if self._marked.pop(pid, None) is None:
            self._named[pid] = usec
            self._named.move_to_end(pid)
            if len(self._named) > MAX_REMEMBERED:
                self._named.popitem(last=False)

    def marked(self, victims: Iterable[Marked]) -> None:
        """The trace point named victims."""
        for victim in victims:
            self.victims += 1
            # the same pid, long ago, was another process
            if victim.usec - self._named.pop(victim.pid, -PATIENCE_USEC) < PATIENCE_USEC:
                continue
            self._marked[victim.pid] = victim
            if len(self._marked) > MAX_REMEMBERED:
                self._marked.popitem(last=False)
                self.unreported += 1

    def missing(self, now_usec: int) -> list[Marked]:
        """Those whose kill line is overdue; each is given once."""
        overdue = [victim for victim in self._marked.values() if now_usec - victim.usec >= PATIENCE_USEC]
        for victim in overdue:
            del self._marked[victim.pid]
        self.unreported += len(overdue)
        return overdue
