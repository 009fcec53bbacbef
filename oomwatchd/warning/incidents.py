"""The open warnings: each incident opens one, which closes as come true or as passed, with the reason.

The machine and each cgroup with a limit can have a warning. If several would tell of the same growth (a
cgroup, its parent, the machine), only the one that ends first is given.

One long class: an incident opens, rises and closes by what all the others hold.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

import msgspec

from oomwatchd.records.nearing import Nearing, Passed, Reason
from oomwatchd.warning.budget import Budget
from oomwatchd.warning.lives import Lives
from oomwatchd.warning.projection import LEAST_SECONDS, Projection, project, project_lows
from oomwatchd.warning.series import Point, Series, rest_usec, thinned

#: How many scopes are followed, and how many are shown in metrics: those with the least room for their
#: growth.
MOST_SCOPES, MOST_TOLD = 96, 20
#: A kill's report may come this much later than the drop in memory that the kill caused.
GRACE_USEC = 5_000_000
#: Later kills of the same exhaustion belong to the same warning.
SAME_USEC = 30_000_000
#: No end was in sight for so long: it slowed down.
_SLOWED_USEC = 300_000_000
#: Memory counts as freed if these shares of the growth and of the capacity were given back.
_FREED_OF_GROWTH, _FREED_OF_CAPACITY = 0.3, 0.03
#: Almost nothing is left, and tasks wait (PSI "full"), or this share of the capacity is read again each
#: second.
_FULL_SHARE, _PRESSURE, _REFAULTS = 0.04, 0.15, 0.02
_THRASHED_USEC = 3_000_000
#: A growth by the first of these shares, which rose within this time, is near its end at whatever pace if the
#: second share is all that is left.
_ROSE_SHARE, _LAST_SHARE, _ROSE_USEC = 0.1, 0.03, 20_000_000
#: A growth is as usual up to this many times what fell back before.
_USUAL = 1.2
#: Two growths are the same if this share of one is the other's.
_SAME_GROWTH = 0.5
#: A level counts as above one that was held and left before if it is higher by this share of the capacity, or
#: of what that level left free.
_ABOVE_MARK, _ABOVE_MARK_OF_LEFT = 0.05, 0.5

#: the most bytes by which a scope can still grow; None where nothing bounds it
Bound = Callable[["Reading"], int | None]
#: whether the growth by so many bytes since then (usec) is of new processes that compute all the time
IsJob = Callable[["Reading", int, int], bool]


class Reading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One look at one scope; fields as in :class:`~oomwatchd.records.nearing.Nearing`. ``refaults_bytes`` is
    a count since boot."""

    cgroup: str | None = None
    usec: int
    used_bytes: int
    capacity_bytes: int
    limit_bytes: int | None = None
    cache_bytes: int = 0
    shmem_bytes: int | None = None
    swap_left_bytes: int = 0
    pressure_full_ratio: float | None = None
    refaults_bytes: int | None = None
    #: the kernel's own count of kills; None: not read
    kills: int | None = None

    @property
    def left_bytes(self) -> int:
        """Bytes that can still be taken."""
        return max(0, self.capacity_bytes - self.used_bytes)


class Outlook(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The forecast for one scope; ``seconds`` until nothing is left, None: not in sight."""

    cgroup: str | None = None
    left_bytes: int
    seconds: float | None = None
    open: bool = False


class _Scope:
    """What is known of one scope."""

    __slots__ = (
        *(
            "ending",
            "ending_since",
            "kills",
            "open",
            "projection",
            "reading",
            "refaults_per_second",
            "series",
            "withheld",
        ),
        *("shmem", "slow_since", "swing", "thrashing_since"),
    )

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.series = Series()
        #: its tmpfs files and shared memory over time
        self.shmem: list[Point] = []
        self.projection: Projection | None = None
        self.open: Nearing | None = None
        self.refaults_per_second: float | None = None
        self.thrashing_since: int | None = None
        self.slow_since: int | None = None
        #: its warning was not given, because there were too many
        self.withheld = False
        #: by how many bytes it rose and fell all the time when the warning was given
        self.swing = 0
        #: the kernel's count when the warning was given
        self.kills: int | None = None
        #: why the open warning will pass unless a kill comes, and since when that holds
        self.ending: Passed | Literal["killed"] | None = None
        self.ending_since = 0


class Incidents:
    """All scopes of one host. ``quiet(path)`` says for which cgroups no warning is wanted, ``lost(path)`` why
    there is no reading of one any more."""

    def __init__(
        self,
        *,
        horizon_seconds: float,
        quiet: Callable[[str | None], bool] = lambda _path: False,
        lost: Callable[[str | None], Passed] = lambda _path: "gone",
        bound: Bound = lambda _reading: None,
        is_job: IsJob = lambda _reading, _since, _grown: False,
    ) -> None:
        self.horizon_seconds = horizon_seconds
        self.quiet = quiet
        self._lost = lost
        self._bound = bound
        self._is_job = is_job
        self._scopes: dict[str | None, _Scope] = {}
        self._lives = Lives()
        self._budget = Budget()
        #: growths that had no warning because there were too many
        self.withheld = 0
        #: recent warnings that came true, by cgroup: until when they are remembered, and the warning
        self._lately: dict[str | None, tuple[int, Nearing]] = {}
        #: the forecasts of the scopes that end first, as of the last look
        self.outlook: tuple[Outlook, ...] = ()
        #: seconds until nothing is left, of each scope whose end is in sight
        self.sight: dict[str | None, float] = {}

    # -- looking -----------------------------------------------------------------------------------

    def take(self, readings: Iterable[Reading], usec: int, wall: float) -> list[Nearing]:
        """Take one look at all scopes; return the warnings that opened and those that passed."""
        seen = set()
        for reading in readings:
            if reading.cgroup not in self._scopes and len(self._scopes) >= MOST_SCOPES:
                continue
            seen.add(reading.cgroup)
            self._look(reading)
        changed = [
            done
            for path, scope in list(self._scopes.items())
            if (done := self._ended(scope, usec, wall, gone=path not in seen)) is not None
        ]
        for path in [path for path, scope in self._scopes.items() if path not in seen and not scope.open]:
            self._lives.ended(path, self._scopes.pop(path).series)
        changed += self._opened(usec, wall)
        self._tell(usec)
        return changed

    def _look(self, reading: Reading) -> None:
        scope = self._scopes.get(reading.cgroup)
        if scope is None:
            scope = self._scopes[reading.cgroup] = _Scope(reading)
            scope.series.held_before(self._lives.level(reading.cgroup, reading.usec), reading.usec)
        before, scope.reading = scope.reading, reading
        seconds = (reading.usec - before.usec) / 1e6
        if seconds > 0 and reading.refaults_bytes is not None and before.refaults_bytes is not None:
            again = max(0, reading.refaults_bytes - before.refaults_bytes)
            scope.refaults_per_second = again / seconds
        scope.series.add(reading.usec, reading.used_bytes, reading.capacity_bytes)
        if reading.shmem_bytes is not None:
            scope.shmem.append((reading.usec, reading.shmem_bytes))
            scope.shmem = thinned(scope.shmem)
        wobble = scope.series.wobble
        found = [
            projection
            for growth in scope.series.growths
            if (projection := self._project(growth, scope, wobble)) is not None
        ]
        lows = scope.series.lows
        if lows is not None:
            ratchet = project_lows(
                lows, reading.capacity_bytes, reading.usec, horizon_seconds=self.horizon_seconds
            )
            found += [ratchet] if ratchet is not None else []
        last = _at_the_end(scope.series, reading)
        found += [last] if last is not None else []
        scope.projection = max(found, key=lambda one: (one.near, -one.soonest), default=None)
        if not self._thrashes(scope):
            scope.thrashing_since = None
        elif scope.thrashing_since is None:
            scope.thrashing_since = reading.usec

    def _project(self, growth: Sequence[Point], scope: _Scope, wobble: float) -> Projection | None:
        reading, series = scope.reading, scope.series
        capacity = reading.capacity_bytes
        ask = partial(project, growth, capacity, horizon_seconds=self.horizon_seconds, wobble=wobble)
        found = ask()
        if found is None or not found.near:
            return found
        usual = _USUAL * (series.usual_rise or 0)
        if found.grown_bytes <= usual and growth[0][1] + usual < capacity:
            return msgspec.structs.replace(found, near=False)  # it will fall back as before
        if scope.open is not None:
            return found
        # asked only now, because both read each process
        bound = self._bound(reading)
        job = self._is_job(reading, series.begun[0], found.grown_bytes)
        return ask(bound_bytes=bound, job=job) if job or bound is not None else found

    def _thrashes(self, scope: _Scope) -> bool:
        reading = scope.reading
        if reading.left_bytes >= _FULL_SHARE * reading.capacity_bytes:
            return False
        again = (scope.refaults_per_second or 0.0) >= _REFAULTS * reading.capacity_bytes
        return again or (reading.pressure_full_ratio or 0.0) >= _PRESSURE

    # -- opening -----------------------------------------------------------------------------------

    def _opened(self, usec: int, wall: float) -> list[Nearing]:
        due = [
            (projection.soonest if reason == "growth" and projection else 0.0, path or "", path, reason)
            for path, scope in self._scopes.items()
            if scope.open is None and scope.reading.usec == usec
            for projection in (scope.projection,)
            if (reason := self._reason(scope)) is not None and not self.quiet(path)
        ]
        opened = []
        for _, _, path, reason in sorted(due, key=lambda one: one[:2]):
            scope = self._scopes[path]
            if self._is_told(path, scope):
                continue
            if not self._budget.take(path, usec):
                self.withheld += not scope.withheld
                scope.withheld = True
            else:
                scope.open = _nearing(scope, reason, usec, wall)
                scope.ending = scope.slow_since = None
                scope.kills = scope.reading.kills
                scope.swing = scope.projection.swing if scope.projection else 0
                opened.append(scope.open)
        return opened

    def _reason(self, scope: _Scope) -> Reason | None:
        reading, found = scope.reading, scope.projection
        if scope.thrashing_since is not None and reading.usec - scope.thrashing_since >= _THRASHED_USEC:
            return "thrashing"
        if found is None or not found.near:
            return None
        if found.swing:  # it came back from each rise, but never quite
            return "growth"
        mark, capacity = scope.series.mark(reading.usec), reading.capacity_bytes
        above = min(_ABOVE_MARK * capacity, _ABOVE_MARK_OF_LEFT * max(0.0, capacity - mark))
        return None if mark > 0 and reading.used_bytes < mark + above else "growth"

    def _is_told(self, path: str | None, scope: _Scope) -> bool:
        """Whether the same growth already has a warning: in a child cgroup, in a parent, or for the
        machine."""
        rate = scope.projection.rate if scope.projection else 0.0
        for other, one in self._scopes.items():
            if one.open is None or not _related(path, other):
                continue
            theirs = one.projection.rate if one.projection else one.open.rate_bytes_per_second
            inner, outer = (theirs, rate) if _is_below(other, path) else (rate, theirs)
            if inner >= _SAME_GROWTH * outer:
                return True
        return False

    # -- ending ------------------------------------------------------------------------------------

    def _ended(self, scope: _Scope, usec: int, wall: float, *, gone: bool) -> Nearing | None:
        if scope.open is None:
            return None
        why = self._lost(scope.reading.cgroup) if gone else self._why_ended(scope, usec)
        if scope.ending == "killed":
            why = "killed"
        if why is None:
            scope.ending = None
            return None
        if scope.ending is None or (why == "killed" and scope.ending != why):
            scope.ending_since = usec
        scope.ending = why
        if usec - scope.ending_since < GRACE_USEC:
            return None
        if why == "killed":  # and no report named the victim
            lead = (scope.ending_since - scope.open.usec) / 1e6
            del self._scopes[scope.reading.cgroup]
            self._lives.killed(scope.reading.cgroup)
            return _closed(scope, usec, wall, state="came_true", lead=lead)
        done = _closed(scope, usec, wall, state="passed", passed=why)
        scope.series.came_back(usec)
        return done

    def _why_ended(self, scope: _Scope, usec: int) -> Passed | Literal["killed"] | None:
        told, reading, found = scope.open, scope.reading, scope.projection
        if told is None:
            return None
        if scope.kills is None:
            scope.kills = reading.kills
        elif reading.kills is not None and reading.kills > scope.kills:
            return "killed"
        given = max(_FREED_OF_GROWTH * told.grown_bytes, _FREED_OF_CAPACITY * reading.capacity_bytes)
        if reading.used_bytes <= told.used_bytes - given - scope.swing:
            return "freed"
        if scope.thrashing_since is not None:
            return None
        if reading.capacity_bytes >= 1.1 * told.capacity_bytes and not (found and found.near):
            return "room"
        took = usec - told.since_usec
        still = usec - max(scope.series.risen_usec, told.usec)
        if still >= rest_usec(took):
            return "stopped"
        if found is not None and found.soonest <= 2 * self.horizon_seconds:
            scope.slow_since = None
        elif scope.slow_since is None:
            scope.slow_since = usec
        elif usec - scope.slow_since >= _SLOWED_USEC:
            return "slowed"
        return None

    def killed(
        self, limit: str | None, victim: str | None, usec: int, wall: float, *, live: bool = True
    ) -> tuple[Nearing, float, bool] | None:
        """The kernel killed at the limit of this cgroup (None: of the machine), in the cgroup ``victim``.
        Returns the warning of it as it ended, how many seconds before the kill it was given, and whether this
        kill ended it. One that is not ``live`` was read afterwards: it may be older than the warning."""
        whose: list[str | None] = [limit]
        if limit is None and victim is not None:
            whose += [p for p in (*self._scopes, *self._lately) if p is not None and _is_below(victim, p)]
        for path in {*whose, victim}:
            self._lives.killed(path)
        for path in whose:
            scope = self._scopes.get(path)
            if scope is not None and scope.open is not None and (live or scope.open.usec <= usec):
                lead = max(0.0, (usec - scope.open.usec) / 1e6)
                done = _closed(scope, usec, wall, state="came_true", lead=lead)
                self._lately[path] = usec + SAME_USEC, done
                if len(self._lately) > MOST_SCOPES:
                    del self._lately[next(iter(self._lately))]
                # from here on it is another growth
                del self._scopes[path]
                return done, lead, True
            lately = self._lately.get(path)
            if lately is not None and usec < lately[0] and (live or lately[1].usec <= usec):
                return lately[1], max(0.0, (usec - lately[1].usec) / 1e6), False
        for path in whose if live else ():  # this level led to a kill, so it is not one that was survived
            self._scopes.pop(path, None)
        return None

    def resume(self, told: Nearing, usec: int) -> None:
        """Watch on what an earlier daemon of this boot warned of, as of now; it ends like any other."""
        reading = Reading(
            cgroup=told.cgroup,
            usec=usec,
            used_bytes=told.used_bytes,
            capacity_bytes=told.capacity_bytes,
            limit_bytes=told.limit_bytes,
        )
        scope = self._scopes.setdefault(told.cgroup, _Scope(reading))
        if scope.open is None or scope.open.usec < told.usec:
            scope.open = told

    # -- telling -----------------------------------------------------------------------------------

    def _tell(self, usec: int) -> None:
        told = []
        for path, scope in self._scopes.items():
            found = scope.projection
            seconds = found.soonest if found is not None and found.latest is not None else None
            left = scope.reading.left_bytes
            told.append(Outlook(cgroup=path, left_bytes=left, seconds=seconds, open=scope.open is not None))
        never = float("inf")
        told.sort(
            key=lambda one: (
                one.cgroup is not None,
                not one.open,
                never if one.seconds is None else one.seconds,
            )
        )
        self.outlook = tuple(told[:MOST_TOLD])
        self.sight = {one.cgroup: one.seconds for one in told if one.seconds is not None}

    @property
    def soonest_seconds(self) -> float | None:
        """Seconds until the first scope is exhausted; None: none is in sight."""
        return min(self.sight.values(), default=None)


def _at_the_end(series: Series, reading: Reading) -> Projection | None:
    """The growth that has used up all but the last of the capacity, however it got there."""
    capacity = reading.capacity_bytes
    if reading.left_bytes > _LAST_SHARE * capacity:
        return None
    since, first = series.begun
    grown, seconds = reading.used_bytes - first, (reading.usec - since) / 1e6
    if (
        grown < _ROSE_SHARE * capacity
        or seconds < LEAST_SECONDS
        or reading.usec - series.risen_usec > _ROSE_USEC
    ):
        return None
    rate = grown / seconds
    return Projection(since, grown, rate, reading.left_bytes / rate, None, near=True)


def _nearing(scope: _Scope, reason: Reason, usec: int, wall: float) -> Nearing:
    reading, found = scope.reading, scope.projection
    since = found.since_usec if found else scope.series.begun[0]
    shared = [held for when, held in scope.shmem if when >= since]
    return Nearing(
        reason=reason,
        cgroup=reading.cgroup,
        limit_bytes=reading.limit_bytes,
        capacity_bytes=reading.capacity_bytes,
        used_bytes=reading.used_bytes,
        cache_bytes=reading.cache_bytes,
        swap_left_bytes=reading.swap_left_bytes,
        usec=usec,
        wall=wall,
        since_usec=since,
        grown_bytes=found.grown_bytes if found else 0,
        shmem_grown_bytes=shared[-1] - shared[0] if shared else None,
        rate_bytes_per_second=found.rate if found else 0.0,
        soonest_seconds=round(found.soonest, 1) if found else 0.0,
        latest_seconds=None if found is None or found.latest is None else round(found.latest, 1),
        pressure_full_ratio=reading.pressure_full_ratio,
        refaults_per_second=scope.refaults_per_second,
        points=tuple(scope.series.points),
    )


def _closed(
    scope: _Scope,
    usec: int,
    wall: float,
    *,
    state: str,
    passed: Passed | None = None,
    lead: float | None = None,
) -> Nearing:
    told, scope.open = scope.open, None
    scope.ending = scope.slow_since = None
    points = tuple(scope.series.points)
    assert told is not None  # asked by each caller
    return msgspec.structs.replace(
        told,
        state=state,
        passed=passed,
        ended_usec=usec,
        ended_wall=wall,
        lead_seconds=None if lead is None else round(lead, 3),
        peak_bytes=max((used for when, used in points if when >= told.usec), default=told.used_bytes),
        points=points,
    )


def _is_below(path: str | None, other: str | None) -> bool:
    """Whether the first is inside the second, or the same."""
    if other is None or path == other:
        return True
    return path is not None and path.startswith(f"{other.rstrip('/')}/")


def _related(path: str | None, other: str | None) -> bool:
    return path != other and (_is_below(path, other) or _is_below(other, path))
