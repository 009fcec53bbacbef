"""Much memory is locked or otherwise unevictable.

mlock(), mlockall(), SHM_LOCK, ramfs and pinned pages make memory unevictable: the kernel can neither drop it
nor move it to swap.

``VmLck`` in /proc/PID/status names the process; RLIMIT_MEMLOCK (``LimitMEMLOCK=``) limits it.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import HOLDS, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.facts import Held
from oomwatchd.diagnosis.levers import raised_first
from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name

ID = "mlocked_or_unevictable"
TITLE = "Much memory is locked or unevictable"

#: Share of the whole.
_LARGE = 0.25
#: Share of the unevictable memory. If mlock() has at least this share, it is named as the reason.
_MOSTLY = 0.5
#: Most that a process elsewhere may lock, as a share of what is unevictable in the cgroup.
_FITS = 1.1


def find(case: Case) -> Claim | None:
    whole = case.ledger.whole_bytes
    memcg = case.report.memcg
    if case.in_cgroup:
        held = kinds(memcg).unevictable if memcg is not None else None
        mlocked = None
    else:
        held, mlocked = case.total("unevictable"), case.total("mlocked")
    if held is None or not whole or held < _LARGE * whole:
        return None
    most = _locker(case, held)
    who = f" {harmless_name(most.name)} (pid {most.pid}) locks {size(most.amount)}." if most else ""
    if most and case.in_cgroup and not case.lists(most):
        who += (
            " It lives outside the cgroup: file pages and shared memory are charged to the cgroup of whoever "
            "touched them first, and locked by whoever maps them."
        )
    by_lock = mlocked is not None and mlocked >= _MOSTLY * held
    mounts = f" ramfs is mounted on {', '.join(map(harmless_name, case.facts.ramfs[:3]))}."
    ramfs = mounts if case.facts.ramfs and not by_lock else ""
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation=f"{size(held)}, {percent(held, whole)} of {case.ledger.whole_name}, cannot be "
            "reclaimed because it is locked or unevictable"
            + (f" ({size(mlocked)} by mlock)." if mlocked is not None else ".")
            + who
            + ramfs,
            evidence={
                "unevictable_bytes": held,
                "mlocked_bytes": mlocked,
                "whole_bytes": whole,
                "share_ratio": case.ledger.share(held),
            },
            advice=_advice(case, by_lock=by_lock),
        ),
        cause=Cause(
            tier=Tier.HELD,
            text=f"locked or unevictable memory holds {case.ledger.percent(held)} "
            f"{case.of}{_holder(case, held, by_lock=by_lock)}",
            # the process that locks the memory also holds it: rank the lock above the holder
            excess_bytes=held + (whole >> 4),
        )
        if held >= HOLDS * whole or (case.early and not by_lock)
        else None,
    )


def _locker(case: Case, held: int) -> Held | None:
    """Live: the process that locks most. In a cgroup, one that lives there, or one whose amount fits."""
    if not case.in_cgroup:
        return next(iter(case.facts.locked), None)
    own = next((h for h in case.facts.locked if case.lists(h)), None)
    if own is not None and own.amount >= _MOSTLY * held:
        return own
    fits = (h for h in case.facts.locked_shared if _MOSTLY * held <= h.amount <= _FITS * held)
    return next(fits, own)


def _holder(case: Case, held: int, *, by_lock: bool) -> str:
    """The ramfs mount or the process to name in the summary line; empty if no process is large enough."""
    if case.facts.ramfs and not by_lock and not case.in_cgroup:
        return f", ramfs on {harmless_name(case.facts.ramfs[0])}"
    if case.early and not by_lock and not case.in_cgroup:
        return ", most likely the unpacked initramfs"
    locker = _locker(case, held) if case.in_cgroup else None
    if locker is not None and locker.amount >= _MOSTLY * held:
        return f" ({harmless_name(locker.name)} locks {size(locker.amount)})"
    largest = case.largest
    if largest is None or largest.bytes < _LARGE * (case.bound_bytes or 0):
        return ""
    return f" ({harmless_name(largest.comm)} is the largest process)"


def _advice(case: Case, *, by_lock: bool) -> str:
    bound = "ulimit -l; LimitMEMLOCK where systemd starts it"
    if case.in_cgroup:
        who = _locker(case, kinds(case.report.memcg).unevictable or 0) if case.report.memcg else None
        tells = (
            f"{harmless_name(who.name)} (pid {who.pid}) locks {size(who.amount)}"
            if who
            else "VmLck in /proc/PID/status tells who locks"
        )
        less = f"have less locked: {tells}, RLIMIT_MEMLOCK bounds it ({bound})"
        return raised_first(case, less)
    if by_lock:
        return (
            f"Find who locks (VmLck in /proc/PID/status) and bound it ({bound}); root and CAP_IPC_LOCK are "
            "above that bound."
        )
    if case.facts.ramfs:
        where = ", ".join(map(harmless_name, case.facts.ramfs[:3]))
        return (
            f"Look for a ramfs: {where} is one, without any bound; remove what is not needed there, or use a "
            "tmpfs with size= in its place."
        )
    if case.early:
        return (
            "Give the machine more RAM (a crash kernel: a larger crashkernel=), or make the initramfs "
            "smaller: unpacked, it is a ramfs that nothing reclaims."
        )
    return (
        "Look for a ramfs (the root of an initramfs is one) and locked shared memory (ipcs -m) as well as "
        "for who locks: VmLck in /proc/PID/status."
    )
