"""32-bit: low memory is used up while high memory is free.

A 32-bit kernel can directly address only the first part of RAM (about 896 MB on i386). Its own data, page
tables, kernel stacks, slab and most drivers' buffers must be there, in DMA and Normal. HighMem serves user
pages only. When Normal runs out, free HighMem does not help.

A 64-bit kernel has no such limit. On a 32-bit kernel, use fewer threads, fewer and smaller kernel caches,
CONFIG_HIGHPTE for page tables, another VMSPLIT, and no more RAM than low memory can manage.
"""

from __future__ import annotations

from oomwatchd.diagnosis.allocator import Request, ZoneVerdict
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import kib, size

ID = "low_zone_exhausted"
TITLE = "Low memory is used up while HighMem is free"

#: Share of the low zone. Page cache with this share is what fills it.
_MOSTLY = 0.5


def find(case: Case) -> Claim | None:
    low, request = case.nearest, case.request
    high = next((v for v in case.verdicts if v.zone == "HighMem"), None)
    if low is None or request is None or (high is not None and high.allowed):
        return None
    free, mark = _high(case, high, request)
    if free is None or mark is None or free <= mark:
        return None
    cache = sum(low.record.bytes_of(name) or 0 for name in ("active_file", "inactive_file"))
    mostly_cache = cache >= _MOSTLY * (low.managed_bytes or 0) > 0
    finding = Finding(
        id=ID,
        severity="critical",
        title=TITLE,
        explanation=f"The request needs low memory (class {request.class_zone}). {low.label} is short by "
        f"{kib(low.shortfall_bytes or 0)}, while HighMem has {kib(free)} free, which the kernel cannot use "
        "for its own data."
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
    text = f"HighMem has {size(free)} free, which the kernel's own data may not use"
    return Claim(finding=finding, cause=Cause(tier=Tier.BARRED, text=text, excess_bytes=free))


def _high(case: Case, high: ZoneVerdict | None, request: Request) -> tuple[int | None, int | None]:
    """HighMem's free memory and high watermark. Since 6.1 the kernel omits the zone's line if the request may
    not use it; its free memory is then the machine's total minus the printed zones."""
    if high is not None:
        return high.record.bytes_of("free"), high.record.bytes_of("high")
    memory = case.report.memory
    if memory is None or not memory.highmem_bytes or request.class_zone in ("HighMem", "Movable"):
        return None, None
    return case.free_elsewhere, case.shortfall_bytes
