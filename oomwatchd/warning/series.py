"""The memory that one machine or cgroup held over time: a bounded series, its present growth, robust slopes.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

Point = tuple[int, int]

#: Points kept. The newer half is complete, the older points are thinned repeatedly, so that the shape of a
#: growth over hours is kept.
MOST_POINTS = 64
#: Changes below this share of the capacity are neither growth nor drop.
NOISE = 0.005
#: A drop of this share of the growth and of the capacity ends the growth: a garbage collector's sawtooth, a
#: job's end.
_DROP_OF_GROWTH, _DROP_OF_CAPACITY = 0.3, 0.06
#: ... unless it is part of the wobble; a wobble of more than this share of the capacity comes from many jobs.
_DROP_OF_WOBBLES, _WOBBLES_BY = 3.0, 0.05
#: It stands still if nothing was added for this long.
STILL_USEC = 15_000_000
#: A level that was held and left without a kill counts less with time: its half-life.
MARK_HALF_LIFE_USEC = 3_600_000_000
#: It wobbles if at least this share of all moves are falls.
_OFTEN = 0.2
#: The most points used for a slope: all pairs are compared.
_SLOPE_POINTS = 24


class Series:
    """The points of one scope, and two beginnings of its present growth: when it last fell, and when it last
    stood still. The first shows a growth in steps, the second a growth that begins after a plateau."""

    __slots__ = (
        *("_begun_usec", "_floor", "_mark", "_mark_usec", "_peak", "_resumed_usec", "_risen_usec"),
        "points",
    )

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._peak = self._floor = 0
        self._begun_usec = self._resumed_usec = self._risen_usec = 0
        self._mark = 0.0
        self._mark_usec = 0

    def add(self, usec: int, used: int, capacity: int) -> None:
        """Add a point; one that is not newer than the last is ignored."""
        if self.points and usec <= self.points[-1][0]:
            return
        self.points.append((usec, used))
        self._follow(usec, used, capacity)
        if len(self.points) > MOST_POINTS:
            half = MOST_POINTS // 2
            self.points = [*self.points[:half:2], *self.points[half:]]

    def _follow(self, usec: int, used: int, capacity: int) -> None:
        noise = int(NOISE * capacity)
        drop = self._peak - used
        fell = drop > max(_DROP_OF_CAPACITY * capacity, _DROP_OF_GROWTH * (self._peak - self._floor))
        fell = fell and drop > _DROP_OF_WOBBLES * min(self.wobble, _WOBBLES_BY * capacity)
        if len(self.points) == 1 or fell or used <= self._floor + noise:
            if fell:
                self.came_back(usec)
            if len(self.points) == 1 or fell:
                self._floor = used
            self._floor = min(self._floor, used)
            self._begun_usec = self._resumed_usec = self._risen_usec = usec
            self._peak = used
            return
        if used > self._peak + noise // 2:
            self._peak, self._risen_usec = used, usec
        elif usec - self._risen_usec >= STILL_USEC:
            self._resumed_usec = usec

    def came_back(self, usec: int) -> None:
        """It reached its peak and fell again without a kill: lower levels are no news for a while."""
        self._mark, self._mark_usec = max(self.mark(usec), float(self._peak)), usec

    def mark(self, usec: int) -> float:
        """The level that it came back from, fading."""
        used = self.points[-1][1] if self.points else 0
        faded = 0.5 ** ((usec - self._mark_usec) / MARK_HALF_LIFE_USEC)
        return used + (self._mark - used) * faded if self._mark > used else self._mark

    @property
    def wobble(self) -> float:
        """How much it falls and rises all the time, in bytes: the median of its falls; 0 if falls are
        rare."""
        moves = [later[1] - earlier[1] for earlier, later in pairwise(self.points)]
        falls = [-move for move in moves if move < 0]
        return median(falls) if len(falls) > _OFTEN * len(moves) else 0.0

    @property
    def begun(self) -> Point:
        """The point where the present growth began; the newest point if there is no growth."""
        return next((p for p in self.points if p[0] >= self._begun_usec), self.points[-1])

    @property
    def risen_usec(self) -> int:
        """When it last grew."""
        return self._risen_usec

    @property
    def growths(self) -> tuple[list[Point], ...]:
        """The points since it last fell, and the points since it last stood still if that is later."""
        long = [point for point in self.points if point[0] >= self._begun_usec]
        if self._resumed_usec <= self._begun_usec:
            return (long,)
        return long, [point for point in self.points if point[0] >= self._resumed_usec]


def median(values: Iterable[float]) -> float:
    """The median. The standard library's would load decimal and random."""
    ordered = sorted(values)
    at = len(ordered) // 2
    return ordered[at] if len(ordered) % 2 else (ordered[at - 1] + ordered[at]) / 2


def slope(points: Sequence[Point]) -> float:
    """Bytes a second: the median of the slopes of all pairs (Theil-Sen), which a third of wild points do not
    move. 0 of fewer than two points."""
    if len(points) > _SLOPE_POINTS:
        step = (len(points) - 1) / (_SLOPE_POINTS - 1)
        points = [points[round(step * n)] for n in range(_SLOPE_POINTS)]
    rates = [
        (later[1] - earlier[1]) * 1e6 / (later[0] - earlier[0])
        for at, earlier in enumerate(points)
        for later in points[at + 1 :]
        if later[0] > earlier[0]
    ]
    return median(rates) if rates else 0.0


def halves(points: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """The points of the first and of the second half of their time; the one in the middle is in both."""
    middle = (points[0][0] + points[-1][0]) // 2
    at = next((n for n, point in enumerate(points) if point[0] >= middle), len(points) - 1)
    return list(points[: at + 1]), list(points[at:])
