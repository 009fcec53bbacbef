"""What a warning says: memory of a machine or of a cgroup is about to be exhausted.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from typing import Literal

import msgspec

#: ``near``: it stands; ``came_true``: the kernel killed; ``passed``: it did not; ``unknown``: nobody watched
#: on
State = Literal["near", "came_true", "passed", "unknown"]
#: ``growth``: at the present rate nothing is left within the horizon; ``thrashing``: next to nothing is left,
#: and tasks wait for what was just reclaimed
Reason = Literal["growth", "thrashing"]
#: why a warning passed
Passed = Literal["freed", "stopped", "slowed", "room", "gone"]


class Candidate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A process as oom_badness() would weigh it now (mm/oom_kill.c); amounts in bytes."""

    pid: int
    comm: str
    rss_bytes: int
    swap_bytes: int = 0
    pgtables_bytes: int = 0
    oom_score_adj: int = 0
    uid: int | None = None
    cgroup: str | None = None


class Nearing(msgspec.Struct, frozen=True, kw_only=True):
    """One warning, from its beginning to its end.

    ``cgroup`` is the path of the cgroup whose limit is near; None is the machine. ``used_bytes`` is what
    cannot be dropped, swapped memory included; ``capacity_bytes`` is the limit (or RAM) with the swap that
    helps; ``left_bytes`` the difference. ``cache_bytes`` is page cache, which the kernel drops first and
    which is not in ``used_bytes``. Times are CLOCK_MONOTONIC in microseconds, walls seconds since the epoch.

    ``soonest_seconds`` and ``latest_seconds`` say when nothing is left, counted from the warning; ``latest``
    is None where the growth slows down so much that it may never end. ``grown_bytes`` is by how much it grew
    since ``since_usec``. ``points`` are (time, used bytes), the oldest first."""

    state: State = "near"
    reason: Reason = "growth"
    cgroup: str | None = None
    limit_bytes: int | None = None
    capacity_bytes: int
    used_bytes: int
    cache_bytes: int = 0
    swap_left_bytes: int = 0
    usec: int
    wall: float
    since_usec: int
    grown_bytes: int = 0
    #: the part of it that is tmpfs files and shared memory; None: not known
    shmem_grown_bytes: int | None = None
    rate_bytes_per_second: float = 0.0
    soonest_seconds: float = 0.0
    latest_seconds: float | None = None
    #: share of the last 10 s in which all tasks waited for memory (PSI "full"); None where nobody says
    pressure_full_ratio: float | None = None
    #: pages a second that were read again soon after they had been reclaimed (workingset_refault_*)
    refaults_per_second: float | None = None
    points: tuple[tuple[int, int], ...] = ()
    candidates: tuple[Candidate, ...] = ()
    #: how it ended: when, why it passed, and the kill that it announced
    ended_usec: int | None = None
    ended_wall: float | None = None
    passed: Passed | None = None
    peak_bytes: int | None = None
    kill_id: str | None = None
    #: from the warning to the kernel's kill
    lead_seconds: float | None = None

    @property
    def left_bytes(self) -> int:
        """What may still be taken."""
        return max(0, self.capacity_bytes - self.used_bytes)


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """The warning that a kill's event had: its event's id and how long before the kill it was."""

    id: str
    lead_seconds: float
