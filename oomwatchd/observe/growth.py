"""How fast an amount changes, from looks at uneven intervals."""

from __future__ import annotations

#: The change is measured over at least this time: the kernel charges a cgroup in batches, and programs
#: allocate in steps.
WINDOW_USEC = 5_000_000
#: Looks closer than this are ignored.
_LEAST_USEC = 500_000


class GrowthRate:
    """One amount. Times are CLOCK_MONOTONIC in microseconds."""

    __slots__ = ("_amount", "_later_amount", "_later_usec", "_rate", "_usec")

    def __init__(self, usec: int, amount: int) -> None:
        self._usec = self._later_usec = usec
        self._amount = self._later_amount = amount
        self._rate = 0.0

    def rate(self, usec: int, amount: int) -> float:
        """Bytes a second over the last 5 to 10 s, or since the last look; ``amount`` is the present one."""
        if usec - self._later_usec >= WINDOW_USEC:
            self._usec, self._amount = self._later_usec, self._later_amount
            self._later_usec, self._later_amount = usec, amount
        if usec - self._usec >= _LEAST_USEC:
            self._rate = (amount - self._amount) * 1e6 / (usec - self._usec)
        return self._rate
