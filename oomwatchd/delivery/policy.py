"""Parts of the delivery of events: a bound on repeats, the state of one sink, pauses.

Core: no clock, no file, no socket; times are arguments.
"""

from __future__ import annotations

import msgspec

#: kinds that one fault may cause hundreds of times a second; they kill nothing
BOUNDED_KINDS = frozenset({"oom_no_victim", "page_alloc_failure"})
#: one event of such a kind and place passes in this time
BOUND_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 300.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0
#: how many places are remembered: a cgroup tree may have any number
_PLACES = 64


class _Place(msgspec.Struct):
    event_id: str
    seconds: float
    before: int
    left_out: int = 0


class RateBound:
    """Lets one of a run of similar events pass in a time, and counts the others.

    Only events without a kill are ever left out. Each is stored and counted in the metrics nevertheless,
    and the next one of its kind and place that passes says how many came before it.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], _Place] = {}

    def take(self, event_id: str, kind: str, kills: int, where: str | None, seconds: float) -> int | None:
        """How many were left out since the last one that passed, if this one passes; None if it does not.

        ``where`` is the cgroup, ``seconds`` the event's time. Asked again about the event that passed last,
        the answer is the same: a delivery is tried more than once.
        """
        if kills or kind not in BOUNDED_KINDS:
            return 0
        key = (kind, where or "")
        place = self._places.pop(key, None)
        if place is not None and place.event_id == event_id:
            self._places[key] = place
            return place.before
        if place is not None and abs(seconds - place.seconds) < BOUND_SECONDS:
            place.left_out += 1
            self._places[key] = place
            return None
        before = place.left_out if place is not None else 0
        self._places[key] = _Place(event_id, seconds, before)
        if len(self._places) > _PLACES:
            del self._places[next(iter(self._places))]
        return before


class Pace:
    """Allows ``burst`` at once, then one every ``seconds``."""

    def __init__(self, burst: int, seconds: float) -> None:
        self._burst = burst
        self._seconds = seconds
        self._left = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Take one at ``now`` (of a clock that does not jump). Returns 0.0, or seconds until one is free."""
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self._left = min(self._burst, self._left + passed / self._seconds)
        if self._left < 1:
            return (1 - self._left) * self._seconds
        self._left -= 1
        return 0.0


class News(msgspec.Struct, frozen=True, kw_only=True):
    """A note that an event is to be delivered; ``wall`` is when it was made, seconds since the epoch."""

    number: int
    event_id: str
    wall: float


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How far a sink has come. Times are seconds since the epoch.

    ``position`` is the number of the last finished news: all up to it were delivered, left out or dropped.
    ``failures`` counts failed attempts; ``failed_since`` is when the present run of failures began, None
    while there is none.
    """

    sink: str
    position: int
    delivered: int = 0
    left_out: int = 0
    dropped: int = 0
    failures: int = 0
    last_delivered: float | None = None
    failed_since: float | None = None
    next_attempt: float | None = None
    last_error: str | None = None
    #: events that wait, and the oldest one's time
    waiting: int = 0
    oldest_waiting: float | None = None


def pause(failures: int, share: float, *, retry_after: float | None = None) -> float:
    """Seconds until the next attempt after ``failures`` failed ones in a row: 1, 2, 4 ... 300, of which
    ``share`` (0..1, random) takes away up to a half, so that a fleet does not come back at one moment.
    A receiver that names a pause (Retry-After) is not asked earlier, up to an hour."""
    seconds = min(LONGEST_PAUSE_SECONDS, 2.0 ** min(max(failures, 1) - 1, 30))
    seconds *= 1.0 - share / 2
    return max(seconds, min(retry_after or 0.0, LONGEST_RETRY_AFTER_SECONDS))
