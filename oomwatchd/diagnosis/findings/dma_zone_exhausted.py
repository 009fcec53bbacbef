"""The request may use only one low zone, and that zone is used up while others have free memory.

GFP_DMA and GFP_DMA32 are for devices that can address only the first part of memory: zone DMA (16 MiB on x86,
1 GiB on some arm64 boards) or DMA32 (4 GiB). Free memory above these zones does not help such a request. The
kernel kills nobody for zones below Normal (__alloc_pages_may_oom()), and more RAM adds nothing to them. The
call trace names the caller.

These help: a driver that asks for less, allocates at its start, or sets a wider DMA mask; an IOMMU. For the
pools of the DMA API, set ``coherent_pool=``, ``swiotlb=`` and ``cma=`` on the kernel command line.

Source: gfp_zone(), dma_direct_optimal_gfp_mask(), kernel/dma/pool.c.
"""

from __future__ import annotations

from oomwatchd.diagnosis.allocator import ZoneVerdict
from oomwatchd.diagnosis.case import COSTLY_ORDER, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import kib, size
from oomwatchd.words.escape import harmless, harmless_name

ID = "dma_zone_exhausted"
TITLE = "The one zone that the request may use is used up"

#: Share of the zone. If more is free, the zone is fragmented or its memory is reserved, not used up.
_MOSTLY = 0.5
#: Functions that fill the DMA API's own pools (kernel/dma/pool.c).
_SMALLER_POOL = (
    "Have the pool of the DMA API smaller: coherent_pool= on the kernel's command line (boot loader)."
)
_POOL = ("dma_atomic_pool_init", "atomic_pool_expand", "atomic_pool_work_fn", "atomic_pool_resize")


def find(case: Case) -> Claim | None:
    low, request = case.nearest, case.request
    if request is not None and case.report.kind == "page_alloc_failure":
        empty = any(v.excluded_by == "empty" and v.zone == request.class_zone for v in case.verdicts)
        if not case.verdicts or (empty and not any(v.allowed for v in case.verdicts)):
            return _by_flags(case, request.class_zone, empty=empty)
    if request is None or request.class_zone not in ("DMA", "DMA32"):
        return None
    if _for_the_pool(case) and case.report.kind == "page_alloc_failure":
        zone = low or next((v for v in case.verdicts if v.allowed), None)
        return None if zone is None else _pool(case, zone)
    if low is None:
        return None
    above = [v for v in case.verdicts if v.excluded_by == "class zone"]
    free = sum(max((v.free_bytes or 0) - (v.record.bytes_of("high") or 0), 0) for v in above)
    if not above:
        free = case.free_elsewhere or 0  # since 6.1 the zones above are not printed
    whole, short = low.managed_bytes, low.shortfall_bytes or 0
    if any(v.fits for v in case.verdicts) or free <= short or not whole:
        return None
    if (low.free_bytes or 0) > _MOSTLY * whole:
        return None  # fragmented or reserved: other findings explain that
    caller = f"{harmless(case.caller)} (by the call trace)" if case.caller else "the driver that asks"
    asker = harmless_name(case.report.trigger.comm) if case.report.trigger.comm else "Who asked"
    advice = (
        _SMALLER_POOL
        if _for_the_pool(case)
        else f"Have {caller} ask for less, or its driver take memory above the zone (a wider DMA mask, an "
        f"IOMMU): more RAM adds nothing to {harmless(low.zone)}, and a kill frees nothing there."
    )
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical",
            title=TITLE,
            explanation=f"{asker} asked for memory of {harmless(low.zone)} or below, of which there are "
            f"{size(whole)} in all ({kib(low.free_bytes or 0)} free, {case.short(low)}). "
            f"{size(free)} are free above, which the request may not use.",
            evidence={
                "zone": low.zone,
                "zone_managed_bytes": whole,
                "shortfall_bytes": short,
                "free_above_bytes": free,
                "caller": case.caller,
            },
            advice=advice,
        ),
        cause=Cause(
            tier=Tier.BARRED,
            text=f"{size(free)} are free above zone {harmless(low.zone)}, which the request may not use",
            excess_bytes=free,
        ),
    )


def _by_flags(case: Case, zone: str, *, empty: bool) -> Claim | None:
    """The claim for a log without zones, or with an empty one: the flags name the one zone that may serve the
    request."""
    if not {"GFP_DMA", "__GFP_DMA", "GFP_DMA32", "__GFP_DMA32"} & set(case.report.trigger.gfp_flags or ()):
        return None
    asks = f"{harmless(case.caller)} (by the call trace)" if case.caller else "the driver that asks"
    costly = case.request is not None and case.request.order > COSTLY_ORDER
    pool = _for_the_pool(case)
    kdump = " A crash kernel (kdump) has none of it unless crashkernel=SIZE,low reserves some."
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=f"Only zone {zone} may serve the request",
            explanation=f"The flags ask for memory of zone {zone} or below, whatever is free above"
            f"{', and there is none of it' if empty else ''}.{kdump}",
            evidence={"zone": zone, "caller": case.caller},
            advice="Nothing to change unless a driver fails afterwards: the kernel fills this pool at its "
            f"start, just in case. {_SMALLER_POOL}{kdump}"
            if pool
            else f"Have {asks} ask for less, or its driver take memory above the zone (a wider DMA mask, an "
            "IOMMU).",
        ),
        refusal=Refusal(
            text=f"only zone {zone} may serve the request, and it {'has no memory' if empty else 'did not'}",
            rank=44 if empty or pool else 66 if costly else 64,
        ),
        # a block that large is rare in any zone
        cause=Cause(
            tier=Tier.MANNER if pool else Tier.TOGETHER if costly and not empty else Tier.BARRED,
            text="",
            excess_bytes=1,
        ),
    )


def _pool(case: Case, low: ZoneVerdict) -> Claim:
    """The claim for the pool that the DMA API fills at boot, just in case (dma_atomic_pool_init())."""
    zone = harmless(low.label)
    return Claim(
        finding=Finding(
            id=ID,
            severity="info",
            title="The DMA API could not fill its pool",
            explanation=f"At its start the kernel sets memory of {zone} aside for devices, before any asks "
            f"for it. {zone} has {size(low.managed_bytes or 0)}, of which {kib(low.free_bytes or 0)} are "
            "free: too little for a pool that large. Only a device that needs such memory in an interrupt "
            "would miss it.",
            evidence={
                "zone": low.zone,
                "zone_managed_bytes": low.managed_bytes,
                "free_bytes": low.free_bytes,
            },
            advice=f"Nothing to change unless a driver fails afterwards. {_SMALLER_POOL}",
        ),
        cause=Cause(
            tier=Tier.MANNER, text="the kernel's own pool for devices asked, at its start, just in case"
        ),
    )


def _for_the_pool(case: Case) -> bool:
    return any(function in _POOL for function in case.report.trigger.call_trace)
