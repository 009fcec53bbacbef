"""What an event tells of a warning.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from typing import Literal

from oomwatchd.records.nearing import Passed, Reason, State
from oomwatchd.records.report import Part


class Grower(Part, frozen=True, kw_only=True):
    """Somebody whose memory grows: a process, a cgroup or a tmpfs mount. Amounts in bytes."""

    kind: Literal["process", "cgroup", "tmpfs"]
    name: str
    pid: int | None = None
    cgroup: str | None = None
    #: the container (by its usual name) or unit
    place: str | None = None
    bytes: int
    rate_bytes_per_second: float
    #: for how long it was seen to grow
    seconds: float


class Near(Part, frozen=True, kw_only=True):
    """What a warning tells: fields as in :class:`~oomwatchd.records.nearing.Nearing`, times as RFC 3339."""

    state: State
    reason: Reason
    cgroup: str | None = None
    unit: str | None = None
    container_id: str | None = None
    container_name: str | None = None
    limit_bytes: int | None = None
    capacity_bytes: int
    used_bytes: int
    left_bytes: int
    cache_bytes: int = 0
    swap_left_bytes: int = 0
    grown_bytes: int = 0
    growing_seconds: float = 0.0
    rate_bytes_per_second: float = 0.0
    soonest_seconds: float = 0.0
    latest_seconds: float | None = None
    pressure_full_ratio: float | None = None
    refaults_bytes_per_second: float | None = None
    growers: tuple[Grower, ...] = ()
    #: seconds before (negative) or after the warning, and bytes used
    points: tuple[tuple[float, int], ...] = ()
    #: how it ended
    ended: str | None = None
    passed: Passed | None = None
    peak_bytes: int | None = None
    kill_id: str | None = None
    lead_seconds: float | None = None
