"""32-bit: low memory is used up while high memory is free.

A 32-bit kernel can address only the first part of RAM directly (about 896 MB on i386). Its own data, page
tables, kernel stacks, slab and most drivers' buffers must live there, in DMA and Normal. HighMem serves
user pages only. When Normal runs out, free HighMem does not help.

A 64-bit kernel has no such line. On a 32-bit one: fewer threads, fewer and smaller kernel caches,
CONFIG_HIGHPTE for page tables, another VMSPLIT, and no more RAM than the low zone can describe.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import kib, size

ID = "low_zone_exhausted"
TITLE = "Low memory is used up while HighMem is free"

#: of the low zone
_MOSTLY = 0.5


def find(case: Case) -> Finding | None:
    low, request = case.nearest, case.request
    high = next((v for v in case.verdicts if v.zone == "HighMem"), None)
    if low is None or request is None or high is None or high.allowed:
        return None
    free, mark = high.record.bytes_of("free"), high.record.bytes_of("high")
    if free is None or mark is None or free <= mark:
        return None
    cache = sum(low.record.bytes_of(name) or 0 for name in ("active_file", "inactive_file"))
    mostly_cache = cache >= _MOSTLY * (low.managed_bytes or 0) > 0
    return Finding(
        id=ID,
        severity="critical",
        title=TITLE,
        explanation=f"The request needs low memory (class {request.class_zone}). {low.label} is short by "
        f"{kib(low.shortfall_bytes or 0)}, while HighMem has {kib(free)} free, above its high watermark of "
        f"{kib(mark)}, which the kernel cannot use for its own data."
        + (f" Most of {low.label} is page cache ({size(cache)})." if mostly_cache else ""),
        evidence={
            "zone": low.zone,
            "shortfall_bytes": low.shortfall_bytes,
            "highmem_free_bytes": free,
            "highmem_high_bytes": mark,
            "low_cache_bytes": cache,
            "slab_unreclaimable_bytes": case.total("slab_unreclaimable"),
            "kernel_stack_bytes": case.total("kernel_stack"),
            "pagetables_bytes": case.total("pagetables"),
        },
        advice="Run a 64-bit kernel, or write less at once: the cache of block devices fills low memory "
        "(vm.dirty_bytes; dd with oflag=direct)."
        if mostly_cache
        else "Run a 64-bit kernel, or lower what the kernel keeps in low memory (slab, page tables, "
        "kernel stacks: see the figures).",
    )
