"""The victim's cgroup, where the kernel prints the kill line alone.

The kernel counts each kill in the victim's own cgroup, and in /proc/vmstat, before it prints the kill line
(``__oom_kill_process()``): v1 ``oom_kill`` in memory.oom_control (4.13), v2 ``oom_kill`` in
memory.events.local (5.2), before that in memory.events of all ancestors too. Kill lines and counts are
balanced like books:

- A victim that was seen in a cgroup belongs there if the cgroup counted more kills than kill lines were
  attributed to it (``recorder``). A dying process stays in ``cgroup.procs`` until it has given up its memory
  (``cgroup_exit()`` comes after ``exit_mm()``), so that it is often still seen after its kill line.
- Victims that nobody saw belong to a cgroup if that is the only one with kills to give, has exactly as many,
  and every kill that the kernel counted was read in the log (``events``). A cgroup that was removed with its
  count, or a kill line not yet read, would otherwise attribute a kill to a neighbour.
- All others remain unknown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from oomwatchd.observe.cgroup import MAX_GROUPS, Cgroups
from oomwatchd.observe.group import Group

#: The books are closed after so long without a kill line.
QUIET_USEC = 10_000_000
#: Counts are compared after so long without another kill line. A kill line follows its count at once.
STEADY_USEC = 3_000
#: Kills whose cgroup is not known yet.
MAX_OPEN = 4096
#: The first kill may be the first of many: if the last look at all members is this old, look again.
_STALE_USEC = 1_000_000
#: CPU time of a look at all cgroups, times this, is the time until the next one: when kills are open, and
#: when it is taken beforehand only.
_SPACING, _BEFOREHAND_SPACING = 5, 100


class Found(NamedTuple):
    """The cgroup of the kill of that number, and how that is known: ``recorder`` or ``events``."""

    number: int
    path: str
    learnt: str


class Kills:
    """The books of one host. Not thread-safe; nothing here raises for what the host shows. ``oom_kills`` is
    the kernel's count of all kills (``oom_kill`` of /proc/vmstat); times are CLOCK_MONOTONIC."""

    def __init__(
        self,
        cgroups: Cgroups,
        oom_kills: Callable[[], int | None],
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._cgroups = cgroups
        self._oom_kills = oom_kills
        self._cpu = cpu
        #: the kernel's count when the books were opened, None if they cannot be balanced
        self._opening: int | None = None
        #: at the last walk
        self._at_walk: int | None = None
        self._opened = False
        #: and at the last look
        self._counted: int | None = None
        self._lines = 0
        self._open: dict[int, int] = {}
        #: kills attributed to cgroups that were not seen yet
        self._ahead: dict[str, int] = {}
        self._line_usec = -QUIET_USEC
        self._look_usec = -_STALE_USEC
        self._next_usec = self._next_beforehand_usec = 0
        #: a kill line came since the last look
        self._behind = False

    @property
    def waiting(self) -> bool:
        """There are kills whose cgroup is not known."""
        return bool(self._open)

    def close_books(self, usec: int) -> None:
        """To be called after each walk: what was counted is settled if no kill is under way, which is so if
        no kill line came for long and the count is that of the walk before."""
        count, before = self._oom_kills(), self._at_walk
        self._at_walk = count
        under_way = usec - self._line_usec < QUIET_USEC or count != before
        if under_way and self._opened:
            return
        self._opened = True
        changed = count is None or count != self._opening or self._lines > 0
        for group in self._cgroups:
            if changed or group.kills is None:
                group.kills = group.counted = self._cgroups.kills(group) or 0
            group.claims = 0
        self._opening = self._counted = count
        self._lines, self._look_usec, self._behind = 0, usec, False
        self._open.clear()
        self._ahead.clear()

    def named(self, number: int, pid: int, path: str | None, usec: int) -> None:
        """A kill line was read; ``path`` is the victim's cgroup where that is known already."""
        self._lines += 1
        self._line_usec = usec
        self._behind = True
        if path is not None:
            self._claim(path)
            return
        self._open[number] = pid
        if len(self._open) > MAX_OPEN:
            del self._open[next(iter(self._open))]
            self._opening = None

    def resolve(self, usec: int) -> list[Found]:
        """The cgroups of kills that had none, as far as they are known by now."""
        if not self._behind and not self._open:
            return []
        found = self._seen() if self._behind else []
        wanted = self._behind and (self._open or usec - self._look_usec >= _STALE_USEC)
        if wanted or (self._open and not self._balanced()):
            # a look from before the line was read may lack its kill, and who is dying is gone soon
            due = self._next_usec if self._behind and self._open else self._next_beforehand_usec
            if usec >= due:
                self._look(usec)
                found += self._seen()
        return found + self._counts(usec)

    # -- who was seen where ------------------------------------------------------------------------

    def _seen(self) -> list[Found]:
        found = []
        for number, pid in self._open.items():
            group = self._cgroups.of(pid)
            if group is not None and self._confirms(group):
                self._claim(group.path)
                found.append(Found(number, group.path, "recorder"))
        for one in found:
            del self._open[one.number]
        return found

    def _confirms(self, group: Group) -> bool:
        """Whether that cgroup has a kill to give; one that is gone cannot deny it."""
        counting = self._cgroups.counting(group)
        if counting is None:
            return True
        self._meet(counting)
        counting.counted = max(counting.counted, self._cgroups.kills(counting) or 0)
        return counting.unclaimed > 0 and not self._counts_others(counting)

    # -- whose count grew --------------------------------------------------------------------------

    def _balanced(self) -> bool:
        """Every kill that the kernel counted at the last look was read in the log, and none later."""
        counted, opening = self._counted, self._opening
        return counted is not None and opening is not None and counted - opening == self._lines

    def _counts(self, usec: int) -> list[Found]:
        if not self._open or self._cgroups.truncated or not self._balanced():
            return []
        # nothing was counted since: no line is on its way that would balance the books by chance
        if usec - self._look_usec < STEADY_USEC or self._oom_kills() != self._counted:
            return []
        grown = [g for g in self._cgroups if g.unclaimed > 0 and not self._counts_others(g)]
        if len(grown) != 1 or grown[0].unclaimed != len(self._open):
            return []
        found = [Found(number, grown[0].path, "events") for number in self._open]
        grown[0].claims += len(found)
        self._open.clear()
        return found

    def _counts_others(self, group: Group) -> bool:
        """Where ancestors count the same kills, one that had children may count a removed one's."""
        return self._cgroups.hierarchical_counts and group.parent_of_some

    # -- the books ---------------------------------------------------------------------------------

    def _claim(self, path: str) -> None:
        """One kill in this cgroup is accounted for."""
        group = self._cgroups.get(path)
        if group is not None and (counting := self._cgroups.counting(group)) is not None:
            self._meet(counting)
            counting.claims += 1
        elif len(self._ahead) < MAX_GROUPS:
            self._ahead[path] = self._ahead.get(path, 0) + 1

    def _meet(self, group: Group) -> None:
        """A cgroup that is new since the books were opened has had no kill before."""
        if group.kills is None:
            group.kills = 0
            group.claims += self._ahead.pop(group.path, 0)

    def _look(self, usec: int) -> None:
        """Look at all cgroups: who is in them, and what they count. All counts of theirs are in the one that
        is read last."""
        began = self._cpu()
        for group, _ in self._cgroups.visit():
            self._cgroups.see_members(group)
            self._meet(group)
            group.counted = self._cgroups.kills(group) or 0
        self._counted = self._oom_kills()
        self._look_usec, self._behind = usec, False
        cost = int((self._cpu() - began) * 1e6)
        self._next_usec = usec + cost * _SPACING
        self._next_beforehand_usec = usec + cost * _BEFOREHAND_SPACING
