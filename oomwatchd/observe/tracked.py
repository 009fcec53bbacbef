"""The largest processes from sample to sample, while memory is short or a cgroup's limit is in sight.

They are found anew when a scan is due: one that took d seconds of CPU is repeated after 100 d at the
earliest, so that scans take 1 % of one CPU at most. Between scans only those that were found are asked.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence

from oomwatchd.observe.cgroup import Cgroups
from oomwatchd.observe.group import Group
from oomwatchd.observe.history import Name
from oomwatchd.observe.numbered import Numbered
from oomwatchd.observe.process import CommandLine
from oomwatchd.observe.processes import Processes, Seen

#: Tracked of the machine.
TOP_PROCESSES = 10
#: Processes of each watched cgroup that are compared and tracked.
_WATCHED_MEMBERS = 256
_TOP_MEMBERS = 6
#: Between scans at least, and CPU time of one times this.
_LEAST_USEC = 1_000_000
_SPACING = 100


class Tracked:
    """Which processes are followed, and their sizes. Not thread-safe; nothing here raises."""

    def __init__(
        self,
        processes: Processes,
        cgroups: Cgroups,
        names: Numbered,
        command_line: CommandLine,
        cpu: Callable[[], float],
    ) -> None:
        self._processes = processes
        self._cgroups = cgroups
        self._names = names
        self.command_line = command_line
        self._cpu = cpu
        self._top: list[Seen] = []
        self._scanned_for: set[int] = set()
        self._scan_usec = 0

    def scan_now(self) -> None:
        """Scan with the next sample."""
        self._scan_usec = 0

    def sizes(self, usec: int, watched: Sequence[Group], *, everywhere: bool) -> bytes:
        """Pairs of a process' number and its resident bytes: of the machine if ``everywhere``, and of the
        ``watched`` cgroups."""
        if not everywhere and not watched:
            self._top, self._scanned_for = [], set()
            return b""
        # 0 is no cgroup's number
        scope = {group.number for group in watched} | ({0} if everywhere else set())
        if usec >= self._scan_usec or not scope <= self._scanned_for:
            self._scan(usec, watched, everywhere=everywhere)
            self._scanned_for = scope
        pairs = array("q")
        for one in self._top:
            size = self._processes.resident(one.facts.pid)
            if size:
                number = -one.number  # cgroups count upward
                if number not in self._names:
                    facts = one.facts
                    self._names.put(number, Name("process", facts.comm or "", facts.pid, facts.cgroup))
                pairs.extend((number, size))
        return pairs.tobytes()

    def _scan(self, usec: int, watched: Sequence[Group], *, everywhere: bool) -> None:
        began = self._cpu()
        pids = self._processes.largest(TOP_PROCESSES) if everywhere else []
        for group in watched:
            members = self._cgroups.members(group, _WATCHED_MEMBERS)
            pids += self._processes.largest(_TOP_MEMBERS, members)
        seen = (self._processes.see(pid, self.command_line, usec) for pid in dict.fromkeys(pids))
        self._top = [one for one in seen if one is not None]
        cost = int((self._cpu() - began) * 1e6)
        self._scan_usec = usec + max(_LEAST_USEC, cost * _SPACING)


def charged(groups: Iterable[Group], names: Numbered) -> bytes:
    """Pairs of a cgroup's number and the bytes that it is charged."""
    pairs = array("q")
    for group in dict.fromkeys(groups):
        if group.usage is not None:
            if group.number not in names:
                names.put(group.number, Name("cgroup", group.path))
            pairs.extend((group.number, group.usage))
    return pairs.tobytes()
