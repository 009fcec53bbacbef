"""The kernel's own objects hold much memory and cannot be dropped.

Unreclaimable slab is kernel data: network buffers, file descriptors, inotify watches, cgroup structures,
a leak in a driver or filter. The kernel lists the caches by itself (4.15+) when unreclaimable slab is
larger than all user pages together. Named are the largest caches, as printed.

``slabtop -s c`` and /proc/slabinfo show who grows. A cache that only grows is a kernel leak
(CONFIG_DEBUG_KMEMLEAK, slab_debug, memory allocation profiling from 6.10 on).
"""

from __future__ import annotations

from oomwatchd.findings._case import Case
from oomwatchd.findings._text import ratio
from oomwatchd.render.amounts import percent, size
from oomwatchd.report import Finding

ID = "slab_unreclaimable_large"
TITLE = "Unreclaimable slab is large"

#: of RAM or of the cgroup's usage: beyond what busy servers have in ordinary operation
_LARGE, _HUGE = 0.15, 0.40


def find(case: Case) -> Finding | None:
    slab, ram, of = case.measure("slab_unreclaimable", "slab_unreclaimable")
    if slab is None or not ram:
        return None
    share = slab / ram
    if share < _LARGE:
        return None
    caches = sorted(case.report.slab, key=lambda c: -c.total_bytes)[:3]
    named = ", ".join(f"{c.name} {size(c.total_bytes)}" for c in caches)
    evidence: dict[str, int | float | str | None] = {
        "slab_unreclaimable_bytes": slab,
        "ram_bytes": ram,
        "share_ratio": ratio(slab, ram),
    }
    evidence |= {f"cache:{c.name}_bytes": c.total_bytes for c in caches}
    return Finding(
        id=ID,
        severity="critical" if share >= _HUGE else "warning",
        title=TITLE,
        explanation=f"Unreclaimable slab holds {size(slab)}, {percent(slab, ram)} of {of}."
        + (f" The largest caches: {named}." if named else " The report does not list the caches."),
        evidence=evidence,
        advice="See which cache grows (slabtop -s c): a kill does not free the kernel's own objects, and a "
        "cache that only grows is a kernel leak.",
    )
