"""Compare the kernel log with the kernel's count of kills and with its trace point.

The log may lose a kill line (overwritten before it was read); the trace point ``oom:mark_victim`` does not.
A process that was marked and does not appear in the log in time is logged once and counted. It may also have
been exiting by itself: the kernel marks such a process to let it finish, and prints nothing.

The kernel's own count of kills has no such doubt. Where it grows by more than the kill lines that were read,
and stays ahead, that becomes an event (``Unseen``) with all that is known of the missing kills.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from oomwatchd.records.capture import Unseen

if TYPE_CHECKING:
    from oomwatchd.sources.tracefs import Marked

#: a kill line that has not come after so long will not come
PATIENCE_USEC = 10_000_000
#: marked processes and named pids that are remembered
MAX_REMEMBERED = 4096
#: how long a difference must last before it becomes an event: the kernel counts a kill before it prints the
#: line, and journald is later still
LASTING_USEC = {"kmsg": 10_000_000, "journal": 60_000_000}
#: a log that keeps losing kills brings an event this often
TELL_USEC = 300_000_000
#: named in one telling
MAX_CGROUPS = 8
MAX_NAMES = 16


class Counted:
    """Whether the kernel counted the kills of lone kill lines. Not thread-safe.

    The kernel counts a kill before it prints the kill line (``__oom_kill_process()``), so its count has moved
    by the time at which the line can be read. ``count`` reads it, None where there is none (before 4.13:
    those kernels print two lines of each kill).
    """

    def __init__(self, count: Callable[[], int | None]) -> None:
        self._count = count
        self._base = 0  # at the last agreement: before the first one, the whole boot's count
        self._lines = 0  # kill lines that were believed since then
        self._seen = 0  # the count when it was read last
        self._at_rest: tuple[int, int] | None = None

    def confirms(self, lines: int, lone: int) -> bool:
        """Whether lone kill lines are believed: ``lines`` kill lines were read, ``lone`` of them without any
        other line of their report. They are believed if the count leaves room for them, or if it moved since
        it was read last: one of them may be that kill, and a kill must not be missed because of a forged
        line."""
        self._lines += lines
        if not lone or (count := self._count()) is None:
            return True
        moved, self._seen = count > self._seen, count
        if count - self._base >= self._lines:
            return True
        self._lines -= lone
        if moved:
            self._lines = count - self._base
        return moved

    def rest(self) -> None:
        """To be called now and then while no report is open. If two calls find the same, a kill that was
        counted and not read will not be read any more."""
        count = self._count()
        if count is None:
            return
        if (count, self._lines) == self._at_rest:
            self._base, self._lines = count, 0
        self._at_rest, self._seen = (count, self._lines), count


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

    def marked(self, victims: Iterable[Marked]) -> list[Marked]:
        """The trace point named victims; those whom the log has not named yet."""
        ahead = []
        for victim in victims:
            self.victims += 1
            # the same pid, long ago, was another process
            if victim.usec - self._named.pop(victim.pid, -PATIENCE_USEC) < PATIENCE_USEC:
                continue
            ahead.append(victim)
            self._marked[victim.pid] = victim
            if len(self._marked) > MAX_REMEMBERED:
                self._marked.popitem(last=False)
                self.unreported += 1
        return ahead

    def awaits(self, since_usec: int) -> bool:
        """Whether the newest marked process was marked after ``since_usec`` and is not yet in the log."""
        newest = next(reversed(self._marked.values()), None)
        return newest is not None and newest.usec >= since_usec

    def missing(self, now_usec: int) -> list[Marked]:
        """Those whose kill line is overdue; each is given once."""
        overdue = [victim for victim in self._marked.values() if now_usec - victim.usec >= PATIENCE_USEC]
        for victim in overdue:
            del self._marked[victim.pid]
        self.unreported += len(overdue)
        return overdue


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted of this boot (kills) and by this process (the rest) up to one moment."""

    kernel_kills: float
    reported_kills: float
    lost_records: int = 0
    dropped_reports: int = 0


class Balance:
    """The kernel's count of kills against those that its log reported. Not thread-safe.

    ``reported``: kills of this boot that earlier events say are missing. ``counts`` returns each cgroup's own
    count of kills.
    """

    def __init__(
        self,
        reported: float,
        counts: Callable[[], Mapping[str, int]] = dict,
        lasting_usec: int = LASTING_USEC["kmsg"],
    ) -> None:
        self._reported = reported
        self._counts = counts
        self._lasting_usec = lasting_usec
        self._since: int | None = None  # since when kills have been missing
        self._missing = 0.0  # the fewest since then
        self._reported_usec: int | None = None
        self._agreed: Totals | None = None  # when the counts last agreed, or what was missing was told
        self._cgroups: Mapping[str, int] = {}
        self._marked: deque[tuple[int, str | None]] = deque(maxlen=MAX_NAMES)

    def marked(self, victims: Iterable[Marked]) -> None:
        """Victims of the trace point that the log did not name in time."""
        self._marked += ((victim.pid, victim.comm) for victim in victims)

    def weigh(self, totals: Totals, unaccounted: float, usec: int) -> Unseen | None:
        """The kills to say in an event, at a moment when all that was read is counted. ``unaccounted`` is how
        many the log lacks. A difference counts when it has lasted."""
        self._reported = min(self._reported, max(unaccounted, 0.0))  # found again by a restart
        missing = unaccounted - self._reported
        if missing <= 0:
            self._since = None
            self.agree(totals)
            return None
        if self._since is None:
            self._since, self._missing = usec, missing
        self._missing = min(self._missing, missing)
        lasted = usec - self._since >= self._lasting_usec
        soon = self._reported_usec is not None and usec - self._reported_usec < TELL_USEC
        if not lasted or soon:
            return None
        return self._tell(totals, int(self._missing), usec)

    def agree(self, totals: Totals) -> None:
        """The next event counts from this moment: the daemon begins, or nothing is missing."""
        if self._agreed is None or self._agreed.kernel_kills != totals.kernel_kills:
            self._cgroups = self._counts()
        self._agreed = totals
        self._marked.clear()

    def _tell(self, totals: Totals, kills: int, usec: int) -> Unseen:
        before, cgroups = self._agreed, self._counts()
        grown = {path: n - self._cgroups.get(path, 0) for path, n in cgroups.items()} if before else {}
        largest = sorted(((n, path) for path, n in grown.items() if n > 0), reverse=True)[:MAX_CGROUPS]
        reported = int(totals.reported_kills - before.reported_kills) if before else 0
        unseen = Unseen(
            kills=kills,
            kernel_kills=kills + reported,
            reported_kills=reported,
            unaccounted_kills=int(self._reported) + kills,
            lost_records=totals.lost_records - (before.lost_records if before else 0),
            dropped_reports=totals.dropped_reports - (before.dropped_reports if before else 0),
            cgroups=tuple((path, n) for n, path in largest),
            marked=tuple(self._marked),
        )
        self._reported += kills
        self._reported_usec, self._since = usec, None
        self._cgroups, self._agreed = cgroups, totals
        self._marked.clear()
        return unseen
