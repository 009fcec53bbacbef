"""A tmpfs mount grew before the kill.

This uses the flight recorder, which follows the largest tmpfs mounts that the daemon sees. A file in a tmpfs
is memory. It is charged to the cgroup that wrote it first and stays when the writer is killed: the kill frees
none of it. The finding names each mount that grew by a twentieth of RAM in the recorded minutes. If a cgroup
was at its limit, it names each mount that grew by a fifth of that limit, if the cgroup's own statistics show
as much shared memory. Others may have filled the mount all the same: their part is at most the machine's
shared memory (Shmem of /proc/meminfo) less the cgroup's, and what is in swap. If that leaves too little of
the mount for the cgroup, the finding says so and is not the cause.

Limit the mount with ``size=``, remove stale files, or write to a disk instead. The daemon does not see a
tmpfs in another mount namespace (a container's).
"""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.diagnosis.case import HOLDS, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import raised_first
from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.records.capture import Track
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name

ID = "tmpfs_grew"
TITLE = "A tmpfs mount grew before the kill"

#: Share of RAM, and share of a cgroup's limit.
_GREW, _GREW_IN_CGROUP = 0.05, 0.20
#: Share of the same from which the growth is the main cause.
_MUCH = 0.5


def find(case: Case) -> Iterator[Claim]:
    whole, of, least, most = _measure(case)
    if case.capture is None or not whole:
        return
    for track in case.capture.tracks:
        if track.kind != "tmpfs" or len(track.points) < 2:
            continue
        began, first = min(track.points, key=lambda point: point[1])
        ended, last = track.points[-1]
        grown = last - first
        seconds = (ended - began) / 1e6
        if seconds > 0 and least * whole <= grown and (most is None or grown <= most * 1.1):
            others = _of_others(case, most)
            yield _told(
                case,
                track,
                first,
                last,
                seconds,
                whole,
                of,
                others=others if others is not None and last - others < least * whole else None,
            )


def _measure(case: Case) -> tuple[int | None, str, float, int | None]:
    """The whole that growth is compared with, its name, the least share of it, and an upper bound for the
    growth (the cgroup's shared memory; None for the machine)."""
    memcg = case.report.memcg
    if case.report.constraint == "memcg":
        counter = memcg.memory if memcg is not None else None
        shmem = kinds(memcg).shmem if memcg is not None else None
        if counter is None or not counter.limit_bytes or shmem is None:
            return None, "", 0.0, None
        return counter.limit_bytes, "the cgroup's limit", _GREW_IN_CGROUP, shmem
    return case.meminfo_at.get("MemTotal"), "RAM", _GREW, None


def _of_others(case: Case, own: int | None) -> int | None:
    """The most shared memory that others than the cgroup can have, in RAM or in swap; None if unknown, or if
    the whole machine is meant. ``own`` is the cgroup's."""
    machine = case.meminfo_at.get("Shmem")
    if own is None or machine is None:
        return None
    swapped = case.meminfo_at.get("SwapTotal", 0) - case.meminfo_at.get("SwapFree", 0)
    return max(machine - own, 0) + max(swapped, 0)


def _told(
    case: Case,
    track: Track,
    first: int,
    last: int,
    seconds: float,
    whole: int,
    of: str,
    *,
    others: int | None,
) -> Claim:
    """``others`` is the shared memory of others if it may be all of the mount."""
    grown = last - first
    name = harmless_name(track.name)
    per_minute = int(grown * 60 / seconds)
    finding = Finding(
        id=ID,
        severity="critical" if grown >= _MUCH * whole else "warning",
        title=TITLE,
        explanation=f"The files in {name} grew from {size(first)} to {size(last)} in the {seconds:.0f} "
        f"seconds before, by {percent(grown, whole)} of {of}: {size(per_minute)} a minute. A kill gives "
        "none of it back."
        + (
            f" Others may have filled it: up to {size(others)} of shared memory are theirs." if others else ""
        ),
        evidence={
            "mount": track.name,
            "first_bytes": first,
            "last_bytes": last,
            "seconds": round(seconds, 3),
            "growth_per_minute_bytes": per_minute,
            "share_ratio": case.ledger.share(grown),
        },
        advice=_advice(case, name),
    )
    text = f"the tmpfs {name} grew to {size(last)}"
    cause = Cause(tier=Tier.HELD, text=text, excess_bytes=last + (whole >> 4))
    return Claim(finding=finding, cause=cause if last >= HOLDS * whole and not others else None)


def _advice(case: Case, name: str) -> str:
    if case.in_cgroup:
        text = raised_first(case, "remove them", needed=f"the files in {name} (tmpfs) are needed")
        return f"{text} The mount's size= below the need fails with ENOSPC instead."
    return f"See what fills {name}, remove what is not needed, and bound it with the mount's size= option."
