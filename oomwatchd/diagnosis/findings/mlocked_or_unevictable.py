"""Much memory is locked or otherwise unevictable.

mlock(), mlockall(), SHM_LOCK, ramfs and pinned pages take memory out of the kernel's reach: it can neither
drop it nor move it to swap.

``VmLck`` in /proc/PID/status names the process; RLIMIT_MEMLOCK (``LimitMEMLOCK=``) bounds it.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.text import ratio

ID = "mlocked_or_unevictable"
TITLE = "Much memory is locked or unevictable"

#: of RAM, or of the cgroup's usage
_LARGE = 0.25
#: of what is unevictable: mlock() explains it
_MOSTLY = 0.5


def find(case: Case) -> Finding | None:
    memcg = case.report.memcg
    whole: int | None
    if case.report.constraint == "memcg" and memcg is not None and memcg.memory is not None:
        held, whole, of = kinds(memcg).unevictable, memcg.memory.usage_bytes, "the cgroup's memory"
        mlocked = None
    else:
        held, whole, of = case.total("unevictable"), case.ram_bytes, "RAM"
        mlocked = case.total("mlocked")
    if held is None or not whole or held < _LARGE * whole:
        return None
    return Finding(
        id=ID,
        severity="warning",
        title=TITLE,
        explanation=f"{size(held)}, {percent(held, whole)} of {of}, cannot be reclaimed because it is locked "
        "or unevictable" + (f" ({size(mlocked)} by mlock)." if mlocked is not None else "."),
        evidence={
            "unevictable_bytes": held,
            "mlocked_bytes": mlocked,
            "whole_bytes": whole,
            "share_ratio": ratio(held, whole),
        },
        advice="Find who locks (VmLck in /proc/PID/status) and bound it with LimitMEMLOCK= (ulimit -l)."
        if mlocked is not None and mlocked >= _MOSTLY * held
        else "Look for a ramfs (the root of an initramfs is one) and locked shared memory (ipcs -m) as well "
        "as for who locks: VmLck in /proc/PID/status.",
    )
