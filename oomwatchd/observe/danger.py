"""Signs that memory of the machine is short, or will be.

A PSI trigger says that tasks waited for memory. MemAvailable says that little is left, and its fall when
nothing will be. Without PSI, direct reclaim since the last sample is the sign. Sources: proc(5),
Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import re

from oomwatchd import procfs
from oomwatchd.observe.growth import GrowthRate
from oomwatchd.observe.limits import IN_SIGHT_SECONDS
from oomwatchd.records.capture import Mark

#: Pressure lasts for so long after the last sign of it.
PRESSURE_USEC = 10_000_000
#: MemAvailable below this share of MemTotal is a sign of pressure.
LOW_RATIO = 0.10
#: MemAvailable that falls by less than this share of MemTotal a second is ignored.
_FALLING = 0.0005
#: MemTotal moves by less on its own.
_TOTAL_RATIO = 0.001
_STALLS = re.compile(rb"^(?:allocstall\w*|pgscan_direct) (\d+)$", re.MULTILINE)


class Danger:
    """What the samples' figures say. Times are CLOCK_MONOTONIC in microseconds."""

    def __init__(self, *, has_trigger: bool) -> None:
        """``has_trigger``: the kernel says when tasks wait for memory, so direct reclaim need not."""
        self._has_trigger = has_trigger
        self._until = -1
        self._total: int | None = None
        self._stalls: int | None = None
        self._available: GrowthRate | None = None
        #: until nothing is available, if MemAvailable goes on falling like this; None: it does not fall
        self.left_seconds: float | None = None

    def sign(self, usec: int) -> None:
        """There was a sign of pressure."""
        self._until = usec + PRESSURE_USEC

    def under_pressure(self, usec: int) -> bool:
        return usec < self._until

    def judge(self, meminfo: bytes, vmstat: bytes, usec: int, wall: float) -> Mark | None:
        """Read the signs in a sample's files; the mark of a changed MemTotal."""
        total, available = procfs.amount_of(meminfo, b"MemTotal"), procfs.amount_of(meminfo, b"MemAvailable")
        if total and available is not None and available < LOW_RATIO * total:
            self.sign(usec)
        self.left_seconds = self._until_nothing(total, available, usec)
        if not self._has_trigger:
            stalls = sum(int(m[1]) for m in _STALLS.finditer(vmstat))
            if self._stalls is not None and stalls > self._stalls:
                self.sign(usec)
            self._stalls = stalls
        before = self._total
        if not total or (before and abs(total - before) <= _TOTAL_RATIO * before):
            return None
        self._total = total
        if before is None:
            return None
        return Mark(
            usec=usec, wall=wall, kind="mem_total", name="MemTotal", before_bytes=before, after_bytes=total
        )

    def _until_nothing(self, total: int | None, available: int | None, usec: int) -> float | None:
        if not total or available is None:
            return None
        if self._available is None:
            self._available = GrowthRate(usec, available)
        falls = -self._available.rate(usec, available)
        if falls < _FALLING * total or available > falls * IN_SIGHT_SECONDS:
            return None
        return available / falls
