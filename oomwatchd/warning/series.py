"""The memory that one machine or cgroup held over time: a bounded series, its present growth, robust slopes.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

Point = tuple[int, int]

#: Points kept. The newer half is complete, the older points are thinned repeatedly, so that the shape of a
#: growth over hours is kept.
MOST_POINTS = 64
#: Changes below this share of the capacity are neither growth nor drop.
NOISE = 0.005
#: A drop of this share of the growth and of the capacity ends the growth: a garbage collector's sawtooth, a
#: job's end.
_DROP_OF_GROWTH, _DROP_OF_CAPACITY = 0.2, 0.06
#: ... unless it is part of the wobble; a wobble of more than this share of the capacity comes from many jobs.
_DROP_OF_WOBBLES, _WOBBLES_BY = 3.0, 0.05
#: It stands still if nothing was added for this long.
STILL_USEC = 15_000_000
#: A level that was held and left without a kill counts less with time: its half-life.
MARK_HALF_LIFE_USEC = 3_600_000_000
#: ... if it was held in an earlier life of the same cgroup: a service starts seldom.
EARLIER_HALF_LIFE_USEC = 7 * 86_400_000_000
#: A growth has come to rest if nothing was added for as long as it took, but at least the first and at most
#: the second of these times.
_RESTS_USEC, _RESTS_MOST_USEC = 30_000_000, 300_000_000
#: So many growths that fell back are kept.
_MOST_RISES = 8
#: It wobbles if at least this share of all moves are falls.
_OFTEN = 0.2
#: The most points used for a slope: all pairs are compared.
_SLOPE_POINTS = 24
#: It turns where it moved by this share of the capacity against its direction; so many lows are kept.
_TURN, _MOST_LOWS = 0.03, 32
#: Lows show a growth if there are so many, and the newest is no older than this many times the usual time
#: between two.
_LEAST_LOWS, _OVERDUE = 5, 2.5
#: ... and if lows and the highs between them rise too often for chance (Mann-Kendall, standard deviations).
_RISING = 3.3


class Lows(NamedTuple):
    """``points`` are the lows without those below which it fell later; ``swing`` is how far it rises above a
    low, ``noise`` how far a low lies from their line, in bytes."""

    points: list[Point]
    swing: int
    noise: float


class Series:
    """The points of one scope, and two beginnings of its present growth: when it last fell, and when it last
    stood still. The first shows a growth in steps, the second a growth that begins after a plateau."""

    __slots__ = (
        *("_begun_usec", "_floor", "_mark", "_mark_fades_usec", "_mark_usec", "_peak", "_resumed_usec"),
        "_risen_usec",
        *("_falls", "_lows", "_rises", "_turning"),
        "points",
    )

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._peak = self._floor = 0
        self._begun_usec = self._resumed_usec = self._risen_usec = 0
        self._mark = 0.0
        self._mark_usec, self._mark_fades_usec = 0, MARK_HALF_LIFE_USEC
        #: growths that fell back: when, and by how much it had grown
        self._rises: list[Point] = []
        #: where it turned up again, and how far it rose from there; since the last turn the highest point
        #: while it rises, the lowest while it falls
        self._lows: list[tuple[int, int, int]] = []
        self._falls = False
        self._turning: Point = (0, 0)

    def add(self, usec: int, used: int, capacity: int) -> None:
        """Add a point; one that is not newer than the last is ignored."""
        if self.points and usec <= self.points[-1][0]:
            return
        self.points.append((usec, used))
        self._follow(usec, used, capacity)
        self._turn(usec, used, int(_TURN * capacity))
        self.points = thinned(self.points)

    def _follow(self, usec: int, used: int, capacity: int) -> None:
        noise = int(NOISE * capacity)
        drop = self._peak - used
        fell = drop > max(_DROP_OF_CAPACITY * capacity, _DROP_OF_GROWTH * (self._peak - self._floor))
        fell = fell and drop > _DROP_OF_WOBBLES * min(self.wobble, _WOBBLES_BY * capacity)
        if len(self.points) == 1 or fell or used <= self._floor + noise:
            if fell:
                self._rises = [*self._rises[1 - _MOST_RISES :], (usec, self._peak - self._floor)]
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

    def _turn(self, usec: int, used: int, enough: int) -> None:
        when, extreme = self._turning
        if len(self.points) == 1 or (used < extreme if self._falls else used > extreme):
            self._turning = usec, used
        elif self._falls and used - extreme >= enough:
            self._falls, self._turning = False, (usec, used)
            self._lows.append((when, extreme, used - extreme))
            self._lows = thinned(self._lows, _MOST_LOWS)
        elif not self._falls and extreme - used >= enough:
            if self._lows:
                began, low, _ = self._lows[-1]
                self._lows[-1] = began, low, extreme - low
            self._falls, self._turning = True, (usec, used)

    def came_back(self, usec: int) -> None:
        """It reached its peak and fell again without a kill: lower levels are no news for a while."""
        self._mark, self._mark_usec = max(self.mark(usec), float(self._peak)), usec

    def held_before(self, level: int, usec: int) -> None:
        """It held that in an earlier life."""
        if level > self._mark:
            self._mark, self._mark_usec, self._mark_fades_usec = float(level), usec, EARLIER_HALF_LIFE_USEC

    def mark(self, usec: int) -> float:
        """The level that it came back from, fading."""
        used = self.points[-1][1] if self.points else 0
        faded = 0.5 ** ((usec - self._mark_usec) / self._mark_fades_usec)
        return used + (self._mark - used) * faded if self._mark > used else self._mark

    def highest(self, usec: int) -> int:
        """The highest level that it held, or came back from lately."""
        return int(max(self._peak, self.mark(usec)))

    def rests(self, usec: int) -> bool:
        """Whether its growth has come to rest."""
        return usec - self._risen_usec >= rest_usec(self._risen_usec - self._begun_usec)

    @property
    def usual_rise(self) -> int | None:
        """By how much it grew, twice or more, before it fell back; None: nothing is usual."""
        since = self.points[-1][0] - MARK_HALF_LIFE_USEC if self.points else 0
        rises = sorted(rise for when, rise in self._rises if when >= since)
        return rises[max(0, len(rises) - 2)] if rises else None

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
    def lows(self) -> Lows | None:
        """What stays held of memory that rises and falls all the time. None: too few lows, or they are
        over."""
        if len(self._lows) < _LEAST_LOWS:
            return None
        times = [when for when, _, _ in self._lows]
        usual = median(later - earlier for earlier, later in pairwise(times))
        if self.points[-1][0] - times[-1] > _OVERDUE * usual:
            return None
        highs = [low + swing for _, low, swing in self._lows[:-1]]
        if rising([low for _, low, _ in self._lows]) + rising(highs) < _RISING * 2**0.5:
            return None
        least, kept = self.points[-1][1], []
        for when, low, _ in reversed(self._lows):
            least = min(least, low)
            kept.append((when, least))
        rate = slope([(when, low) for when, low, _ in self._lows])
        level = median(low - rate * when / 1e6 for when, low, _ in self._lows)
        noise = median(abs(low - level - rate * when / 1e6) for when, low, _ in self._lows)
        return Lows(kept[::-1], int(median(swing for _, _, swing in self._lows[:-1])), noise)

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


def rest_usec(took_usec: int) -> int:
    """For how long nothing is added if a growth that took so long has come to rest."""
    return min(_RESTS_MOST_USEC, max(_RESTS_USEC, took_usec))


_T = TypeVar("_T")


def thinned(values: list[_T], most: int = MOST_POINTS) -> list[_T]:
    """No more than ``most``: of the older half every other one goes."""
    half = most // 2
    return values if len(values) <= most else [*values[:half:2], *values[half:]]


def median(values: Iterable[float]) -> float:
    """The median. The standard library's would load decimal and random."""
    ordered = sorted(values)
    at = len(ordered) // 2
    return ordered[at] if len(ordered) % 2 else (ordered[at - 1] + ordered[at]) / 2


def rising(values: Sequence[float]) -> float:
    """How often later values are higher, in standard deviations of what chance would do (Mann-Kendall)."""
    count = len(values)
    score = sum(
        (later > earlier) - (later < earlier)
        for at, earlier in enumerate(values)
        for later in values[at + 1 :]
    )
    return float(score / (count * (count - 1) * (2 * count + 5) / 18) ** 0.5) if count > 1 else 0.0


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
