"""How many warnings are given: whoever may make cgroups could let thousands of them grow at once.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

#: So many in this time: of all cgroups, and of those below one of the first, second or third level (a slice,
#: a unit or container, what is in it), so that nobody uses up the warnings of others.
_WITHIN_USEC, _MOST, _MOST_BELOW = 600_000_000, 64, (32, 16, 8)


class Budget:
    """Of the cgroups; the machine has one warning at a time anyway."""

    def __init__(self) -> None:
        self._given: list[tuple[int, tuple[str, ...]]] = []

    def take(self, path: str | None, usec: int) -> bool:
        """Whether a warning of this cgroup may be given now; it counts as given then."""
        if path is None:
            return True
        self._given = [one for one in self._given if usec - one[0] < _WITHIN_USEC]
        names = tuple(path.strip("/").split("/")[: len(_MOST_BELOW)])
        for depth, most in enumerate(_MOST_BELOW[: len(names)], 1):
            if sum(other[:depth] == names[:depth] for _, other in self._given) >= most:
                return False
        if len(self._given) >= _MOST:
            return False
        self._given.append((usec, names))
        return True
