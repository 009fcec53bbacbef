"""When a growth exhausts its capacity: a range, and whether it is certain enough for a warning.

A warning is a bet that growth goes on. It is taken where the growth was watched for long enough, compared
with the time that is left (:data:`EVIDENCE`), did not slow down on its way, and is not known to be bounded
before the end (by memory that is mapped already, or by the size of a tmpfs). Short bursts at the start of a
program give no warning, however steep, until little is left.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from oomwatchd.warning.series import NOISE, Lows, Point, halves, slope

#: A growth is expected to continue for this many times as long as it was watched.
EVIDENCE = 2.2
#: ... but less if what grows is a job: a new process that computes all the time, like a compiler. Jobs end.
_JOBS_EVIDENCE, _JOBS_TIMES = 0.35, 2.0
#: ... and must be watched for at least this long: the first time if little was used when it began, when it
#: may be a start-up or a job; the second if nearly all was used. In between, the used share decides.
WATCHED_SECONDS, LEAST_SECONDS = 22.0, 8.0
_LIKELY_SHARE, _LATE_SHARE = 0.5, 0.9
_LEAST_POINTS = 4
#: A smaller growth says nothing.
_GROWN_SHARE = 4 * NOISE
#: ... nor does one that is less than this many times its wobble, or than the second number if it took half of
#: the capacity.
_WOBBLES, _FEW_WOBBLES, _GROWN_ENOUGH = 6.0, 4.0, 0.5
#: At least this share of a growth must follow from its slope: the rest is noise, which always has a low and a
#: high over a long time.
_EXPLAINED = 0.6
#: ... and it must have come in as many steps: two jobs that began, one after the other, are no trend.
_LEAST_STEPS = 4.0
#: It must have grown at this share of its rate lately: between the last two looks; a long growth, which may
#: come in steps, in the last part of its time.
_LAST, _LAST_PART, _LONG_USEC = 0.4, 6, 40_000_000
#: A growth that began with a jump (this share of it at once, this much faster than now) must be watched this
#: many times as long: it may slow down further.
_JUMP, _FASTER, _JUMPED = 0.25, 1.5, 2.0
#: ... as must one of which the second share came in the first share of its time.
_EARLY, _EARLY_JUMP = 0.25, 0.5
#: The second half still counts as steady at this share of the first half's rate.
_STEADY = 0.97
#: ... and a slowing growth leads to no end, unless the level where it comes to rest is this many times the
#: capacity.
_CEILING = 1.5
#: A growth gets faster and faster if the pace of its second half is higher by this factor, and went on to
#: rise within that half by this part of what that leads one to expect. Its end is then sooner, which is
#: believed if it took this share of the capacity in so many steps, for so many times the time for which it
#: was watched.
_FASTER_BY, _STILL_FASTER, _FASTER_SHARE, _FASTER_EVIDENCE = 2.0, 0.5, 0.25, 0.75
_FASTER_STEPS = 6.0
#: A bounded growth is no danger if it leaves this share of the capacity free.
_BOUND_MARGIN = 0.05


class Projection(msgspec.Struct, frozen=True, gc=False):
    """``rate`` in bytes a second; ``soonest`` and ``latest`` in seconds from the newest point (``latest``
    None: perhaps never); ``near`` whether that is worth a warning; ``swing`` how far it rises above the
    projected points and falls back, in bytes."""

    since_usec: int
    grown_bytes: int
    rate: float
    soonest: float
    latest: float | None
    near: bool
    swing: int = 0

    @property
    def middle(self) -> float:
        """Seconds at the present rate."""
        return self.soonest if self.latest is None else (self.soonest + self.latest) / 2


def project(
    points: Sequence[Point],
    capacity: int,
    *,
    horizon_seconds: float,
    wobble: float = 0.0,
    bound_bytes: int | None = None,
    job: bool = False,
) -> Projection | None:
    """Where the growth of ``points`` (:attr:`Series.growths`) leads; None where it leads to no end.

    ``wobble`` is how much it falls and rises all the time (:attr:`Series.wobble`); ``bound_bytes`` is the
    most by which it can still grow, if known; ``job``: new processes that compute all the time grow.
    """
    if len(points) < 2 or capacity <= 0:
        return None
    (began, first), (usec, used) = points[0], points[-1]
    seconds, grown, room = (usec - began) / 1e6, used - first, max(0, capacity - used)
    # without the first point: the growth began somewhere between it and the next look
    whole = slope(points)
    few = len(points) < _LEAST_POINTS
    parts = (points, points) if few else halves(points[1:])
    early, late = map(slope, parts)
    if grown <= NOISE * capacity or late <= 0 or whole <= 0:
        return None
    fastest, slowest = max(whole, late), late if late > early else min(whole, late)
    explained = fastest * seconds
    watched = seconds
    # looks may be far apart: the growth began between the first two, and took no longer than its amount says
    seconds = min(seconds, grown / max(fastest, early, slope(points[1:])))
    soonest = room / fastest
    latest: float | None = room / slowest
    faster = None if few else _faster(parts, early, late, room, watched)
    if faster is not None:
        soonest = min(soonest, faster)
    ceiling = _ceiling(parts, early, late)
    if ceiling is not None and ceiling < _CEILING * capacity:
        latest = None
    jumped = _jumped_to(points, late)
    wanted = _wanted_seconds(first / capacity) * (1 if jumped is None else _JUMPED)
    wanted, evidence = (wanted * _JOBS_TIMES, _JOBS_EVIDENCE) if job else (wanted, EVIDENCE)
    trend = grown if jumped is None else used - jumped
    near = (
        latest is not None
        and soonest <= horizon_seconds
        and not few
        and trend >= _wanted_growth(capacity, wobble)
        and explained >= _EXPLAINED * grown
        and _still_grows(points, _LAST * late)
        and _steps(points) >= _LEAST_STEPS
        and (
            (seconds >= wanted and room / slowest <= evidence * seconds)
            or (
                watched >= wanted
                and not wobble  # ups and downs have no pace
                and not job  # it begins slowly, and ends
                and _steps(points) >= _FASTER_STEPS
                and _is_believed(faster, grown / capacity, watched)
                and _still_grows(points, late)
            )
        )
        and not (bound_bytes is not None and bound_bytes < room - _BOUND_MARGIN * capacity)
    )
    return Projection(began, grown, late, soonest, latest, near)


def project_lows(lows: Lows, capacity: int, usec: int, *, horizon_seconds: float) -> Projection | None:
    """The same of memory that rises and falls all the time: it ends when a rise from a low meets the
    capacity. Seconds are counted from ``usec``."""
    found = project(lows.points, capacity - lows.swing, horizon_seconds=horizon_seconds, wobble=lows.noise)
    if found is None:
        return None
    passed = (usec - lows.points[-1][0]) / 1e6
    return msgspec.structs.replace(
        found,
        soonest=max(0.0, found.soonest - passed),
        latest=None if found.latest is None else max(0.0, found.latest - passed),
        swing=lows.swing,
    )


def _is_believed(faster: float | None, share: float, seconds: float) -> bool:
    return faster is not None and share >= _FASTER_SHARE and faster <= _FASTER_EVIDENCE * seconds


def _steps(points: Sequence[Point]) -> float:
    """How many equal steps would be as uneven as its rises are: one large step is no trend."""
    rises = [max(0, later[1] - earlier[1]) for earlier, later in pairwise(points)]
    squares = sum(rise * rise for rise in rises)
    return sum(rises) ** 2 / squares if squares else 0.0


def _wanted_growth(capacity: int, wobble: float) -> float:
    enough = max(_GROWN_ENOUGH * capacity, _FEW_WOBBLES * wobble)
    return min(_GROWN_SHARE * capacity + _WOBBLES * wobble, enough)


def _wanted_seconds(share: float) -> float:
    """How long a growth must be watched: the more is used, the shorter."""
    late = min(1.0, max(0.0, (share - _LIKELY_SHARE) / (_LATE_SHARE - _LIKELY_SHARE)))
    return WATCHED_SECONDS + late * (LEAST_SECONDS - WATCHED_SECONDS)


def _jumped_to(points: Sequence[Point], rate: float) -> int | None:
    """The level to which it jumped at its beginning, None: it did not."""
    (began, first), (later, more), (now, used) = points[0], points[1], points[-1]
    seconds = (later - began) / 1e6
    if more - first >= max(_JUMP * (used - first), _FASTER * rate * seconds):
        return more
    until = began + int(_EARLY * (now - began))
    level = next(level for when, level in reversed(points) if when <= until)
    return level if level - first >= _EARLY_JUMP * (used - first) else None


def _still_grows(points: Sequence[Point], rate: float) -> bool:
    now, used = points[-1]
    took = now - points[0][0]
    since = now - took // _LAST_PART if took >= _LONG_USEC else now - 1
    before, less = next(point for point in reversed(points[:-1]) if point[0] <= since)
    return (used - less) * 1e6 >= rate * (now - before)


def _faster(
    parts: tuple[Sequence[Point], Sequence[Point]], early: float, late: float, room: int, seconds: float
) -> float | None:
    """Seconds until nothing is left if the pace goes on to grow by the same factor each second. None: it does
    not get much faster."""
    first, second = ((part[0][0] + part[-1][0]) / 2e6 for part in parts)
    if early <= 0 or second <= first:
        return None
    growth = math.log(late / early) / (second - first)
    if growth * seconds < 2 * math.log(_FASTER_BY) or len(parts[1]) < _LEAST_POINTS:
        return None
    # ... and did not stop to get faster
    third, fourth = map(slope, halves(parts[1]))
    if fourth < third * math.exp(_STILL_FASTER * growth * seconds / 4):
        return None
    now = late * math.exp(growth * (parts[1][-1][0] / 1e6 - second))
    return math.log1p(growth * room / now) / growth


def _ceiling(parts: tuple[Sequence[Point], Sequence[Point]], early: float, late: float) -> float | None:
    """The level where a slowing growth comes to rest, if it slows down further as it did from its first to
    its second half (by the same factor each second). None: it does not slow down."""
    first, second = ((part[0][0] + part[-1][0]) / 2e6 for part in parts)
    if early <= 0 or late >= _STEADY * early or second <= first:
        return None
    decay = math.log(early / late) / (second - first)
    now, used = parts[1][-1]
    return used + late * math.exp(-decay * (now / 1e6 - second)) / decay
