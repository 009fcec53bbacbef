"""The request may use one low zone only, and that is used up while others have memory.

GFP_DMA and GFP_DMA32 are for devices that reach the first part of memory alone: zone DMA (16 MiB on x86,
1 GiB on some arm64 boards) or DMA32 (4 GiB). No amount of free memory above helps such a request, no process
can be killed for it (__alloc_pages_may_oom() kills nobody for zones below Normal), and more RAM adds nothing
to the zone. The call trace names who asks.

What helps: a driver that asks for less, or at its start, or sets a wider DMA mask; an IOMMU; for the pools of
the DMA API ``coherent_pool=``, ``swiotlb=`` and ``cma=`` on the kernel's command line.

Source: gfp_zone(), dma_direct_optimal_gfp_mask(), kernel/dma/pool.c.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import kib, size
from oomwatchd.words.escape import harmless, harmless_name

ID = "dma_zone_exhausted"
TITLE = "The one zone that the request may use is used up"

#: of the zone: most of it is free, and broken up or held back
_MOSTLY = 0.5
#: the pools that the DMA API fills itself (kernel/dma/pool.c)
_POOL = ("dma_atomic_pool_init", "atomic_pool_expand", "atomic_pool_work_fn", "atomic_pool_resize")


def find(case: Case) -> Claim | None:
    low, request = case.nearest, case.request
    if low is None or request is None or request.class_zone not in ("DMA", "DMA32"):
        return None
    above = [v for v in case.verdicts if v.excluded_by == "class zone"]
    free = sum(max((v.free_bytes or 0) - (v.record.bytes_of("high") or 0), 0) for v in above)
    if not above:
        free = case.free_elsewhere or 0  # since 6.1 the zones above are not printed
    whole, short = low.managed_bytes, low.shortfall_bytes or 0
    if any(v.fits for v in case.verdicts) or free <= short or not whole:
        return None
    if (low.free_bytes or 0) > _MOSTLY * whole:
        return None  # broken up: what holds that back says it
    trace = case.report.trigger.call_trace
    caller = f"{harmless(case.caller)} (by the call trace)" if case.caller else "the driver that asks"
    asker = harmless_name(case.report.trigger.comm) if case.report.trigger.comm else "Who asked"
    advice = (
        "Have the pool of the DMA API smaller: coherent_pool= on the kernel's command line (boot loader)."
        if any(function in _POOL for function in trace)
        else f"Have {caller} ask for less, or its driver take memory above the zone (a wider DMA mask, an "
        f"IOMMU): more RAM adds nothing to {harmless(low.zone)}, and a kill frees nothing there."
    )
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical",
            title=TITLE,
            explanation=f"{asker} asked for memory of {harmless(low.zone)} or below, of which there are "
            f"{size(whole)} in all ({kib(low.free_bytes or 0)} free, short by {kib(short)}). "
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
