"""Shared memory (tmpfs, SysV, memfd) holds much memory.

Files in /dev/shm, /run, /tmp (if it is a tmpfs), System V segments, memfd and shared anonymous mappings are
kept in memory. They count as page cache, but can only go to swap. The same holds for the buffers of some
graphics drivers (i915 and others keep them in shmem). They do not go away when a process is killed: a kill
may free nothing.

On a live system the finding names the tmpfs mounts that hold most, and how much they grew in the minutes
before. In a cgroup it names the memfd, deleted files, segment or mount whose size fits what the cgroup is
charged: the holder may live elsewhere, for memory stays charged to the cgroup of whoever touched it first.

Look at ``df -t tmpfs``, ``ipcs -m`` and /dev/shm; limit a tmpfs with ``size=`` and remove stale files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from oomwatchd.diagnosis.case import HOLDS, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.facts import Held
from oomwatchd.diagnosis.levers import bound_process, raised_first, setting
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name

ID = "shmem_large"
TITLE = "Shared memory (tmpfs, SysV, memfd) is large"

#: Shares of the whole.
_LARGE, _HUGE = 0.20, 0.50
#: Most that a holder elsewhere may have, as a share of what the cgroup is charged.
_FITS = 1.1


def find(case: Case) -> Claim | None:
    whole, shmem = case.ledger.whole_bytes, case.ledger.held("shmem")
    if shmem is None or not whole or shmem < _LARGE * whole:
        return None
    victim = case.victim
    mapped = victim.shmem_rss_bytes if victim is not None else None
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical" if shmem >= _HUGE * whole else "warning",
            title=TITLE,
            explanation=f"Shared memory holds {size(shmem)}, {percent(shmem, whole)} of "
            f"{case.ledger.whole_name}. It stays when a process that used it is killed, unless that was its "
            f"last user: a tmpfs file until it is removed, a SysV segment until ipcrm.{_who(case)}"
            f"{_mounts(case)}{case.spare(shmem)}",
            evidence={
                "shmem_bytes": shmem,
                "whole_bytes": whole,
                "share_ratio": case.ledger.share(shmem),
                "victim_shmem_rss_bytes": mapped,
            },
            advice=_advice(case),
        ),
        cause=Cause(
            tier=Tier.HELD,
            text=f"shared memory (tmpfs) holds {case.ledger.percent(shmem)} {case.of}{_mostly(case, shmem)}",
            excess_bytes=shmem,
        )
        if shmem >= HOLDS * whole
        else None,
    )


def _advice(case: Case) -> str:
    if case.in_cgroup:
        # a size= below what is needed makes writes fail with ENOSPC instead
        found = _likely(case)
        less = found.remove if found else "tmpfs: rm; SysV: ipcs -m, ipcrm; memfd: ls -l /proc/*/fd"
        text = raised_first(case, f"remove it ({less})", needed="that shared memory is needed")
        return f"{text} A mount's size= below the need fails with ENOSPC instead."
    mapped = _mapped(case)
    if mapped is not None:
        return (
            f"{bound_process(case, *mapped)} It maps the shared memory (MAP_SHARED, SysV, /dev/shm): a "
            "mount's "
            "size= has no hold on all of these."
        )
    deleted = next(iter(case.facts.deleted), None)
    if deleted is not None and deleted.amount >= _HUGE * (case.ledger.held("shmem") or 0):
        who = f"{harmless_name(deleted.name)} (pid {deleted.pid})"
        return (
            f"End {who}, or have it close the deleted files that it has open: they keep "
            f"{size(deleted.amount)} of a tmpfs (ls -l /proc/{deleted.pid}/fd | grep deleted)."
        )
    memfd = next(iter(case.facts.memfd), None)
    if memfd is not None and memfd.amount >= _HUGE * (case.ledger.held("shmem") or 0):
        return (
            f"Bound {harmless_name(memfd.name)} (pid {memfd.pid}): its own settings, or "
            f"{setting(case, 'MemoryMax=', 'a limit of its cgroup')}: it holds {size(memfd.amount)} in a "
            f"memfd (ls -l /proc/{memfd.pid}/fd)."
        )
    segment = next(iter(case.facts.sysv), None)
    if segment is not None and segment.amount >= _HUGE * (case.ledger.held("shmem") or 0):
        number = harmless_name(segment.name.split()[0])
        return (
            f"Remove the SysV segment {number} of {size(segment.amount)} if nobody needs it (ipcs -m -p; "
            "ipcrm -m "
            f"{number}); kernel.shmall bounds all segments together."
        )
    mount = next(iter(case.facts.tmpfs), None)
    if mount is not None and mount.amount >= _HUGE * (case.ledger.held("shmem") or 0):
        point = harmless_name(mount.name)
        return (
            f"Remove the files below {point} that nobody needs (they hold {size(mount.amount)}; "
            f"du -xa {point} | sort -n shows the largest), and bound it with the mount's size= option "
            "(/etc/fstab or its unit)."
        )
    return (
        "See what it is (df -t tmpfs; ipcs -m; memfd: ls -l /proc/*/fd); remove what is not needed, and "
        "bound "
        "it with the mount's size= option (SysV: ipcrm, kernel.shmall; memfd: whose it is)."
    )


class _Place(NamedTuple):
    """Where shared memory may be: who or what holds it, in words, and how to remove it from there."""

    held: Held
    words: str
    remove: str
    #: a process of the cgroup holds it
    within: bool = False


def _places(case: Case) -> Iterator[_Place]:
    """Live: the largest holder of each kind."""
    facts = case.facts
    for h in facts.deleted[:1]:
        who = f"{harmless_name(h.name)} (pid {h.pid})"
        yield _Place(
            h,
            f"deleted files that {who} has open",
            f"{who} has {size(h.amount)} of deleted files open: ls -l /proc/{h.pid}/fd | grep deleted",
            case.lists(h),
        )
    for h in facts.memfd[:1]:
        who = f"{harmless_name(h.name)} (pid {h.pid})"
        yield _Place(
            h,
            f"a memfd of {who}",
            f"{who} has {size(h.amount)} in a memfd: ls -l /proc/{h.pid}/fd",
            case.lists(h),
        )
    for h in facts.sysv[:1]:
        number = harmless_name(h.name.split()[0])
        yield _Place(
            h, f"SysV segment {number}", f"SysV segment {number} has {size(h.amount)}: ipcrm -m {number}"
        )
    for h in facts.tmpfs[:1]:
        point = harmless_name(h.name)
        yield _Place(
            h, f"files in {point}", f"files in {point} have {size(h.amount)}: du -xa {point} | sort -n"
        )


def _mostly(case: Case, shmem: int) -> str:
    """Live: what most of it is. In a cgroup only what one of its processes holds is certain enough."""
    found = next(
        (p for p in _places(case) if p.held.amount >= _HUGE * shmem and (p.within or not case.in_cgroup)),
        None,
    )
    return f", most of it {found.words}" if found else ""


def _likely(case: Case) -> _Place | None:
    """Live, in a cgroup: what may be most of it. Memory is charged to the cgroup of who touched it first: the
    holder may live elsewhere, and only the amount tells."""
    shmem = case.ledger.held("shmem") or 0
    fits = [
        p
        for p in _places(case)
        if _HUGE * shmem <= p.held.amount and (p.within or p.held.amount <= _FITS * shmem)
    ]
    return max(fits, key=lambda p: p.within, default=None)


def _mapped(case: Case) -> tuple[str, int] | None:
    """The process that maps most of it, from the task table (6.8+) or else from the kill line."""
    held = [(t.rss_shmem_bytes or 0, t.comm, t.pid) for t in case.report.tasks]
    held += [(v.shmem_rss_bytes or 0, v.comm, v.pid) for v in case.report.victims]
    most = max(held, default=None)
    if most is None or most[0] < _HUGE * (case.ledger.held("shmem") or 0):
        return None
    return most[1], most[2]


def _who(case: Case) -> str:
    """Live: the largest memfds and SysV segments, which belong to no mount."""
    if case.in_cgroup:
        found = _likely(case)
        if found is None or found.within:
            return ""
        return (
            f" It may be {found.words}: of {size(found.held.amount)}. Shared memory is charged to the cgroup "
            "of whoever touched it first, and stays there when another process holds it."
        )
    said = [f"memfd of {harmless_name(h.name)} (pid {h.pid}) {size(h.amount)}" for h in case.facts.memfd[:2]]
    said += [f"SysV segment {harmless_name(h.name)} {size(h.amount)}" for h in case.facts.sysv[:2]]
    return f" Largest: {', '.join(said)}." if said else ""


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
