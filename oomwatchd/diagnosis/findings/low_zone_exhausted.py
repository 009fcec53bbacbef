"""32-bit: low memory is used up while high memory is free.

A 32-bit kernel can directly address only the first part of RAM (about 896 MB on i386). Its own data, page
tables, kernel stacks, slab and most drivers' buffers must be there, in DMA and Normal. HighMem serves user
pages only. When Normal runs out, free HighMem does not help.

A 64-bit kernel has no such limit. On a 32-bit kernel, use fewer threads, fewer and smaller kernel caches,
CONFIG_HIGHPTE for page tables, another VMSPLIT, and no more RAM than low memory can manage.
"""

from __future__ import annotations

from collections.abc import Sequence

from oomwatchd.diagnosis.allocator import Request, ZoneVerdict
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import kib, percent, size
from oomwatchd.words.escape import harmless

ID = "low_zone_exhausted"
TITLE = "Low memory is used up while HighMem is free"

#: Share of the low zone. Page cache with this share is what fills it.
_MOSTLY = 0.5
#: Share of RAM that is free in HighMem.
_PLENTY = 0.1
#: Share of that cache. If less waits to be written, writing is not what holds it.
_FEW = 0.1
_LISTS = ("active_anon", "inactive_anon", "active_file", "inactive_file")


def find(case: Case) -> Claim | None:
    low, request = case.nearest, case.request
    if request is None:
        return _without_request(case)
    high = next((v for v in case.verdicts if v.zone == "HighMem"), None)
    if high is not None and high.allowed:
        return None
    free, mark = _high(case, high, request)
    if low is None and (high is None or (free is not None and mark is not None and free > mark)):
        return _by_rule(case, request)
    if low is None or free is None or mark is None or free <= mark:
        return _by_rule(case, request) if high is None else None
    cache = sum(low.record.bytes_of(name) or 0 for name in ("active_file", "inactive_file"))
    mostly_cache = cache >= _MOSTLY * (low.managed_bytes or 0) > 0
    finding = Finding(
        id=ID,
        severity="critical",
        title=TITLE,
        explanation=f"The request needs low memory (class {request.class_zone}). {low.label} is "
        f"{case.short(low)}, while HighMem has {kib(free)} free, which the kernel cannot use "
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
        advice=_less_of(case, [low]),
    )
    text = f"HighMem has {size(free)} free, which the kernel's own data may not use"
    if mostly_cache:
        text += f"; page cache holds {percent(cache, low.managed_bytes or cache)} of {harmless(low.label)}"
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


def _less_cache(zones: Sequence[ZoneVerdict], cache: int) -> str:
    names = ("writepending", "dirty", "writeback")
    waiting = [amount for v in zones for name in names if (amount := v.record.bytes_of(name)) is not None]
    if waiting and sum(waiting) < _FEW * cache:
        return (
            "Try a newer kernel, or a 64-bit one: the page cache in low memory needs no writing, and this "
            "kernel should have dropped it (4.8 and 4.9 did not, with memory cgroups)."
        )
    return (
        "Run a 64-bit kernel, or write less at once: the cache of block devices fills low memory "
        "(vm.dirty_bytes; dd with oflag=direct)."
    )


def _slab(zones: Sequence[ZoneVerdict]) -> int:
    """The slab of these zones (printed for each up to 4.12)."""
    names = ("slab_reclaimable", "slab_unreclaimable")
    return sum(v.record.bytes_of(name) or 0 for v in zones for name in names)


def _less_of(case: Case, zones: Sequence[ZoneVerdict]) -> str:
    slab, whole = _slab(zones), sum(v.managed_bytes or 0 for v in zones)
    cache = sum(v.record.bytes_of(n) or 0 for v in zones for n in ("active_file", "inactive_file"))
    if cache >= _MOSTLY * whole > 0:
        return _less_cache(zones, cache)
    if slab >= _MOSTLY * whole > 0:
        return (
            f"See which cache grows (slabtop -s c, /proc/slabinfo): slab holds {size(slab)} of the "
            f"{size(whole)} of low memory. A 64-bit kernel has no such bound."
        )
    return (
        "Run a 64-bit kernel, or lower what the kernel keeps in low memory (slab, page tables, kernel "
        "stacks: see the figures)."
    )


def _more_above(case: Case, zones: Sequence[ZoneVerdict]) -> bool:
    """Whether the machine has memory above these zones: it is counted, protected from requests that could use
    it (lowmem_reserve), or holds more user memory than the zones could."""
    memory = case.report.memory
    if memory is not None and memory.highmem_bytes:
        return True
    if max(zones[0].record.lowmem_reserve_bytes or (0,)) > 0:
        return True  # the highest zone that the request may use
    return sum(case.total(n) or 0 for n in _LISTS) > sum(v.managed_bytes or 0 for v in zones) > 0


def _by_rule(case: Case, request: Request) -> Claim | None:
    """The claim for a 32-bit kernel if no zone is short by the printed figures, or HighMem's line is not in
    the log: no zone that may serve the request is above the high mark that the last check demands."""
    zones = [v for v in case.verdicts if v.allowed and not case.minor(v)]
    if request.class_zone != "Normal" or not zones or not case.has_32_bit or any(v.passes for v in zones):
        return None
    if not _more_above(case, zones):
        return None
    if any(v.cma_bytes > (v.record.bytes_of("high") or 0) for v in zones):
        return None  # what CMA keeps would have sufficed
    if any((v.usable_bytes or 0) > (v.record.bytes_of("high") or 0) for v in zones):
        return None
    names, whole = " and ".join(v.label for v in zones), sum(v.managed_bytes or 0 for v in zones)
    left = sum(v.record.bytes_of(name) or 0 for v in zones for name in _LISTS)
    slab = _slab(zones)
    mostly = f", and slab holds {percent(slab, whole)} of it" if slab >= _MOSTLY * whole > 0 else ""
    finding = Finding(
        id=ID,
        severity="critical",
        title="Low memory is used up",
        explanation=f"The request needs low memory (class Normal), which a 32-bit kernel has in {names} "
        f"alone: {size(whole)} in all{mostly}. None is above its high mark, and reclaim can get no more than "
        f"{size(left)} of user memory back there. What is in HighMem does not count.",
        evidence={
            "zone": zones[0].zone,
            "low_managed_bytes": whole,
            "low_user_bytes": left,
            "low_slab_bytes": slab,
        },
        advice=_less_of(case, zones),
    )
    text = f"low memory is used up{mostly}"
    return Claim(
        finding=finding,
        refusal=Refusal(text=f"only low memory ({harmless(names)}) may serve the request", rank=55),
        cause=Cause(tier=Tier.BARRED, text=text, excess_bytes=1),
    )


def _without_request(case: Case) -> Claim | None:
    """The claim for a log that lost the request: with that much of HighMem free, a request for user memory
    would have passed. So low memory was asked for."""
    report, whole = case.report, case.ledger.whole_bytes
    trigger = report.trigger
    asked = report.kind != "page_alloc_failure" and not trigger.sysrq and trigger.order is None
    if not asked or case.in_cgroup or report.constraint not in ("none", None) or not whole:
        return None
    high = [z for z in case.zones if z.zone == "HighMem"]
    free = sum(max((z.bytes_of("free") or 0) - (z.bytes_of("high") or 1 << 62), 0) for z in high)
    if free < _PLENTY * whole:
        return None
    text = f"HighMem has {size(free)} free, which the kernel's own data may not use"
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical",
            title=TITLE,
            explanation=f"HighMem had {size(free)} free above its high mark, with which a request for user "
            "memory passes. The log lacks the request: the kernel's own data was asked for, which must be in "
            "low memory.",
            evidence={"highmem_free_bytes": free, "whole_bytes": whole},
            advice="Run a 64-bit kernel, or lower what the kernel keeps in low memory: slab (slabtop -s c), "
            "page tables, kernel stacks, and what its drivers and first programs take.",
        ),
        refusal=Refusal(text="low memory is used up", rank=49),
        cause=Cause(tier=Tier.BARRED, text=text, excess_bytes=free),
    )
