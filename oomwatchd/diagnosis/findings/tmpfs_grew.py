"""A tmpfs mount grew before the kill.

Taken from the flight recorder, which follows the largest tmpfs mounts that the daemon sees. What is written
to a tmpfs is memory of whoever wrote it first, counts against that cgroup, and stays when the writer is
killed: the kill gives none of it back. Told is each mount that grew by a twentieth of RAM in the recorded
minutes, or, where a cgroup was at its limit, by a fifth of that limit, if the cgroup's own statistics show as
much shared memory.

Bound the mount with ``size=``, clear what is stale, write to a disk instead. A tmpfs in another mount
namespace (a container's) is not seen.
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

#: of RAM; of a cgroup's limit
_GREW, _GREW_IN_CGROUP = 0.05, 0.20
#: from where on it is the main thing, of the same
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
            yield _told(case, track, first, last, seconds, whole, of)


def _measure(case: Case) -> tuple[int | None, str, float, int | None]:
    """What growth is compared with, its name, the least share of it, and the most that can be meant."""
    memcg = case.report.memcg
    if case.report.constraint == "memcg":
        counter = memcg.memory if memcg is not None else None
        shmem = kinds(memcg).shmem if memcg is not None else None
        if counter is None or not counter.limit_bytes or shmem is None:
            return None, "", 0.0, None
        return counter.limit_bytes, "the cgroup's limit", _GREW_IN_CGROUP, shmem
    return case.meminfo_at.get("MemTotal"), "RAM", _GREW, None


def _told(case: Case, track: Track, first: int, last: int, seconds: float, whole: int, of: str) -> Claim:
    grown = last - first
    name = harmless_name(track.name)
    per_minute = int(grown * 60 / seconds)
    finding = Finding(
        id=ID,
        severity="critical" if grown >= _MUCH * whole else "warning",
        title=TITLE,
        explanation=f"The files in {name} grew from {size(first)} to {size(last)} in the {seconds:.0f} "
        f"seconds before, by {percent(grown, whole)} of {of}: {size(per_minute)} a minute. A kill gives "
        "none of it back.",
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
    return Claim(finding=finding, cause=cause if last >= HOLDS * whole else None)


def _advice(case: Case, name: str) -> str:
    if case.in_cgroup:
        text = raised_first(case, "remove them", needed=f"the files in {name} (tmpfs) are needed")
        return f"{text} The mount's size= below the need fails with ENOSPC instead."
    return f"See what fills {name}, remove what is not needed, and bound it with the mount's size= option."
