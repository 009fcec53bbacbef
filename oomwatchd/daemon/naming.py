"""When names of containers are read: soon after a container appears, never during a kill."""

from __future__ import annotations

import logging
from collections.abc import Callable

from oomwatchd.observe.cgroup import Cgroups
from oomwatchd.observe.container import ContainerNames

log = logging.getLogger(__name__)

#: Cgroups that appear within this time are read together.
TOGETHER_SECONDS = 0.3
#: A helper may have to be started for a name: not in the moments after a kill.
AFTER_KILL_USEC = 1_000_000
#: Where kills follow each other, names are read after so long all the same: a report settles 5 s after its
#: kill, and a name that comes later is in no event.
LATEST_SECONDS = 3.0


class Naming:
    """Called by the loop; ``later`` hands a task to the worker, because names are files on disks. Moments
    are those of a monotonic clock, in seconds."""

    def __init__(
        self, names: ContainerNames, cgroups: Cgroups, later: Callable[[Callable[[], None]], None]
    ) -> None:
        self._names = names
        self._cgroups = cgroups
        self._later = later
        #: cgroups made when names were learnt last
        self._learnt = 0
        self._due: float | None = None
        #: not put off beyond this
        self._latest = 0.0
        self._said: str | None = None

    def run(self, moment: float, *, usec_since_kill: int) -> None:
        """Learn what is due."""
        if self._names.obstacle not in (None, self._said):
            self._said = self._names.obstacle
            log.info("works without the names of some containers: %s", self._said)
        if self._cgroups.made == self._learnt:
            return
        if self._due is None:
            self._due, self._latest = moment + TOGETHER_SECONDS, moment + LATEST_SECONDS
        if moment < self._due:
            return
        if usec_since_kill < AFTER_KILL_USEC and moment < self._latest:
            self._due = moment + TOGETHER_SECONDS
            return
        self._due, self._learnt = None, self._cgroups.made
        table = self._cgroups.table
        self._later(lambda: self._names.learn(table))

    def seconds_until_due(self, moment: float) -> float | None:
        """None: nothing is."""
        return None if self._due is None else max(0.0, self._due - moment)
