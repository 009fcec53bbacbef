"""What earlier lives of a cgroup held: a unit that is started again makes a new cgroup of the same path.

A service that fills its caches at each start, or a nightly job, grows like a leak each time. What it held
before, and left without a kill, is no news. A level where it stood counts at once, one that it left while it
grew from the second time on, because it may be a leak that somebody stopped.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from typing import NamedTuple

from oomwatchd.warning.series import Series

#: Cgroups remembered, and lives of each. A life counts for so long: weekly jobs come again.
_MOST_PATHS, _MOST_LIVES, _COUNTS_USEC = 256, 4, 8 * 86_400_000_000


class _Life(NamedTuple):
    usec: int
    peak: int
    rested: bool


class Lives:
    """By path of the cgroup."""

    def __init__(self) -> None:
        self._lives: dict[str, list[_Life]] = {}

    def ended(self, path: str | None, series: Series) -> None:
        """The cgroup is gone, or has been calm for long."""
        if path is None or not series.points:
            return
        usec = series.points[-1][0]
        kept = self._lives.pop(path, [])[1 - _MOST_LIVES :]
        self._lives[path] = [*kept, _Life(usec, series.highest(usec), series.rests(usec))]
        if len(self._lives) > _MOST_PATHS:  # names that never come again are many
            once = (path for path, lives in self._lives.items() if len(lives) == 1)
            del self._lives[next(once, next(iter(self._lives)))]

    def killed(self, path: str | None) -> None:
        """Its levels led to a kill."""
        if path is not None:
            self._lives.pop(path, None)

    def level(self, path: str | None, usec: int) -> int:
        """Bytes up to which a growth is known to be harmless; 0: none are."""
        lives = self._lives.get(path, []) if path is not None else []
        lives = [life for life in lives if usec - life.usec <= _COUNTS_USEC]
        peaks = sorted((life.peak for life in lives), reverse=True)
        twice = peaks[1] if len(peaks) > 1 else 0
        return max(twice, *(life.peak for life in lives if life.rested), 0)
