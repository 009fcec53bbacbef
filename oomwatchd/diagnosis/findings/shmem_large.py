"""Shared memory (tmpfs, SysV, memfd) holds much.

Files in /dev/shm, /run, /tmp (where it is a tmpfs), System V segments, memfd and shared anonymous mappings
live in memory, count as page cache, and yet can only go to swap. So do the buffers of some graphics
drivers (i915 and others keep them in shmem). They do not vanish when a process is
killed: a kill may free nothing.

Live, the tmpfs mounts that hold most are named, and by how much they grew in the minutes before.

Look at ``df -t tmpfs``, ``ipcs -m`` and /dev/shm; bound a tmpfs with ``size=``, remove what is stale.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import ratio

ID = "shmem_large"
TITLE = "Shared memory (tmpfs, SysV, memfd) is large"

#: of RAM, or of the cgroup's usage
_LARGE, _HUGE = 0.20, 0.50


def find(case: Case) -> Finding | None:
    memcg = case.report.memcg
    whole: int | None
    if case.report.constraint == "memcg" and memcg is not None and memcg.memory is not None:
        shmem, whole, of = kinds(memcg).shmem, memcg.memory.usage_bytes, "the cgroup's memory"
    else:
        shmem, whole, of = case.total("shmem"), case.ram_bytes, "RAM"
    if shmem is None or not whole or shmem < _LARGE * whole:
        return None
    victim = case.victim
    mapped = victim.shmem_rss_bytes if victim is not None else None
    return Finding(
        id=ID,
        severity="critical" if shmem >= _HUGE * whole else "warning",
        title=TITLE,
        explanation=f"Shared memory holds {size(shmem)}, {percent(shmem, whole)} of {of}. It stays when a "
        "process that used it is killed, unless that was its last user." + _mounts(case),
        evidence={
            "shmem_bytes": shmem,
            "whole_bytes": whole,
            "share_ratio": ratio(shmem, whole),
            "victim_shmem_rss_bytes": mapped,
        },
        advice="See what it is (df -t tmpfs, ipcs -m, /dev/shm) and bound it with the mount's size= option; "
        "on a desktop it may be graphics buffers.",
    )


def _mounts(case: Case) -> str:
    """The largest tmpfs mounts that the recorder saw."""
    if case.capture is None or case.report.constraint == "memcg":
        return ""
    said = []
    for track in case.capture.tracks:
        if track.kind == "tmpfs" and track.points:
            first, last = track.points[0][1], track.points[-1][1]
            grown = f" (of it {size(last - first)} since)" if last - first >= last // 10 else ""
            said.append(f"{harmless_name(track.name)} {size(last)}{grown}")
    return f" tmpfs mounts: {', '.join(said[:3])}." if said else ""
