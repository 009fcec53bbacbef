"""Free memory, but no block large enough.

A request above order 0 needs 2^order contiguous pages from a free list that it may use. A zone can have
plenty of free single pages and still refuse. ``unusable_ratio`` is the kernel's unusable free index: the
share of the zone's free memory that cannot serve this order (0 none, 1 all). The letters of the buddy line
give the migrate types of the free blocks: U unmovable, M movable, E reclaimable, C CMA, H the high-order
atomic reserve, I isolated.

``vm.min_free_kbytes`` keeps more memory free, and with it more large blocks. ``vm.watermark_boost_factor``
and ``vm.compaction_proactiveness`` (5.9+) let the kernel assemble blocks ahead of time; writing 1 to
/proc/sys/vm/compact_memory does so once. The lasting fix is a caller that does not ask for large blocks
(jumbo frames, large kmalloc buffers, drivers without scatter-gather).

For an allocation that fails (nobody is killed) the order alone is the reason if no zone's figures show
another. Above
order 3 (PAGE_ALLOC_COSTLY_ORDER) the kernel gives up early, and the caller must cope. A request without
__GFP_IO (a device that resumes) or one that may not wait is never helped by compaction
(try_to_compact_pages()).
"""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.diagnosis.allocator import Request, ZoneVerdict, expand, suits, unusable_free_index
from oomwatchd.diagnosis.case import COSTLY_ORDER, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.diagnosis.levers import LASTS
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import kib
from oomwatchd.words.deferred import deferred

ID = "fragmentation"
TITLE = "Free memory, but no block large enough"

#: The largest page size of any Linux kernel, in bytes.
_LARGEST_PAGE = 64 << 10

#: Allocators that try large blocks first and go on with smaller ones: ION's and the DMA-BUF heap's buffers,
#: TTM's, those behind an IOMMU, and the data of large packets.
_FALLS_BACK = deferred(
    r"ion_(?:system_heap|page_pool)_alloc\w*|alloc_largest_available|system_heap_(?:do_)?allocate|"
    r"ttm_pool_alloc\w*|_*iommu_dma_alloc\w*|alloc_skb_with_frags"
)
_LETTERS = {
    "U": "unmovable",
    "M": "movable",
    "E": "reclaimable",
    "C": "CMA",
    "H": "high-order atomic reserve",
    "I": "isolated",
    "R": "reserve",
}


def find(case: Case) -> Iterator[Claim]:
    request = case.request
    if request is None or request.order == 0:
        return
    found = list(_by_zones(case, request))
    yield from found
    if not found and case.report.kind == "page_alloc_failure" and not case.stalled:
        yield _failed(case, request)
    elif not case.verdicts and case.report.kind != "page_alloc_failure":
        # the log lacks the zones: the header alone tells what was asked for
        pages = f" for {1 << request.order} pages in a row (order {request.order})"
        pages += ", and compaction is not built in" if case.compaction_off else ""
        yield Claim(
            finding=Finding(
                id=ID,
                severity="info",
                title=f"A request of order {request.order}",
                explanation=f"The request needs {1 << request.order} pages in a row. Without the zones' "
                "figures the log does not tell whether there were too few pages or no block that large.",
                evidence={"order": request.order},
            ),
            refusal=Refusal(text=pages, place="behind"),
        )


def _by_zones(case: Case, request: Request) -> Iterator[Claim]:
    # Fragmentation: the zone has enough free memory but no block of the order. If the log lacks the amounts,
    # the blocks alone decide.
    for verdict in case.verdicts:
        if verdict.allowed and verdict.shortfall_bytes is None:
            if verdict.block_available is False:
                yield _finding(case, verdict, request)
            elif verdict.block_available is None and case.compaction_off and _above(verdict, request):
                yield _uncompacted(case, verdict, request)


def _failed(case: Case, request: Request) -> Claim:
    """The claim for an allocation that failed although no printed zone shows why: the order says enough."""
    pages = 1 << request.order
    costly = request.order > COSTLY_ORDER
    explanation = f"The request needs {pages} pages in a row, and no block that large was to be had."
    if costly:
        explanation += (
            f" Above order {COSTLY_ORDER} the kernel neither retries for long nor kills: the caller has to "
            "bear the failure."
        )
    elif {"__GFP_NORETRY", "__GFP_RETRY_MAYFAIL"} & set(case.report.trigger.gfp_flags or ()):
        explanation += " The caller allows the failure (__GFP_NORETRY) and has to bear it."
    finding = Finding(
        id=ID,
        severity="warning" if costly else "info",
        title=f"A request of order {request.order} failed",
        explanation=explanation + _no_compaction(case),
        evidence={"order": request.order},
        advice=_advice(case, request.order),
    )
    # beside another refusal the summary line says what the request needs
    beside = bool(case.failing) or any(v.fits for v in case.verdicts)
    told = f"it needs {pages} pages in a row" if beside and costly else ""
    return Claim(
        finding=finding,
        refusal=Refusal(text=f"{pages} pages in a row were not to be had", rank=65),
        cause=Cause(tier=Tier.BARRED if costly else Tier.TOGETHER, text=told),
    )


def _no_compaction(case: Case) -> str:
    """What the request's own flags say of compaction (try_to_compact_pages(), gfp_compaction_allowed())."""
    flags = expand(case.report.trigger.gfp_flags or ())
    if case.may_wait is False:
        return " It may not wait, so nothing could be compacted for it."
    if case.may_wait and "__GFP_IO" not in flags:
        return " Without __GFP_IO (suspend, resume, block drivers) nothing is compacted for it."
    return ""


def _above(verdict: ZoneVerdict, request: Request) -> bool:
    """Whether free exceeds min by more than the request, for any page size."""
    free, minimum = verdict.free_bytes, verdict.record.bytes_of("min")
    return free is not None and minimum is not None and free - minimum > _LARGEST_PAGE << request.order


def _uncompacted(case: Case, verdict: ZoneVerdict, request: Request) -> Claim:
    """The claim for a report without a buddy line whose kernel has no compaction."""
    finding = Finding(
        id=ID,
        severity="critical",
        title=f"An order-{request.order} request, and no compaction in this kernel",
        explanation=f"{verdict.label} has {kib(verdict.free_bytes or 0)} free, above min "
        f"{kib(verdict.record.bytes_of('min') or 0)}, but the request needs {1 << request.order} pages in a "
        "row, and a kernel without compaction cannot bring free pages together.",
        evidence={
            "zone": verdict.zone,
            "node": verdict.node,
            "order": request.order,
            "free_bytes": verdict.free_bytes,
        },
        advice=_advice(case, request.order),
    )
    text = f"no block of order {request.order} could be made: compaction is not built in"
    return Claim(
        finding=finding,
        refusal=Refusal(text=text, rank=45, alone=True),
        cause=Cause(tier=Tier.BARRED, text="", excess_bytes=verdict.free_bytes or 0),
    )


def _finding(case: Case, verdict: ZoneVerdict, request: Request) -> Claim:
    blocks = verdict.record.free_blocks or ()
    index = unusable_free_index(verdict.record, request.order)
    usable_orders = [b.order for b in blocks if b.count and suits(b.order, b.migratetypes, request)]
    unsuited = [b for b in blocks if b.count and b.order >= request.order]
    held = sorted({_LETTERS.get(c, c) for b in unsuited for c in b.migratetypes or ""})
    if unsuited and not usable_orders:
        why = f"the larger blocks belong to kinds it may not use ({', '.join(held)})"
    elif usable_orders:
        why = "the blocks that large are too few for the kernel's rule (free memory without the lower orders)"
    else:
        why = "no block that large is free"
    share = "" if index is None else f" {100 * index:.0f} % of it is in blocks too small."
    finding = Finding(
        id=ID,
        severity="critical",
        title=f"{verdict.label} zone: free memory, but no block of order {request.order}",
        explanation=f"{verdict.label} {_amounts(verdict)} the request needs {1 << request.order} pages in a "
        f"row and {why}.{share}{_no_compaction(case)}",
        evidence={
            "zone": verdict.zone,
            "node": verdict.node,
            "order": request.order,
            "usable_bytes": verdict.usable_bytes,
            "required_bytes": verdict.required_bytes,
            "unusable_ratio": None if index is None else round(index, 4),
            "largest_free_order": max((b.order for b in blocks if b.count), default=None),
        },
        advice=_advice(case, request.order),
    )
    text = f"no free block of order {request.order} in {verdict.label} zone"
    return Claim(
        finding=finding,
        refusal=Refusal(text=text, rank=45, alone=True),
        cause=Cause(tier=Tier.BARRED, text="", excess_bytes=verdict.usable_bytes or 0)
        if not case.minor(verdict)
        else None,
    )


def _amounts(verdict: ZoneVerdict) -> str:
    usable, required = verdict.usable_bytes, verdict.required_bytes
    if usable is None:
        blocks = verdict.record.free_blocks_total_bytes
        return "has free pages, but" if blocks is None else f"has {kib(blocks)} in free blocks, but"
    if required is None:
        return f"has {kib(usable)} usable, but"
    return f"has {kib(usable)} usable, more than the {kib(required)} demanded, but"


def _borne(case: Case, order: int) -> bool:
    """Whether the caller tries its luck: it forbids to try hard (__GFP_NORETRY) for an order above
    PAGE_ALLOC_COSTLY_ORDER (graphics buffers, vmalloc, huge pages), or is one that goes on with smaller
    blocks."""
    if any(_FALLS_BACK.fullmatch(function) for function in case.functions):
        return True
    return order > COSTLY_ORDER and "__GFP_NORETRY" in (case.report.trigger.gfp_flags or ())


def _advice(case: Case, order: int) -> str:
    caller = case.caller
    if case.report.kind == "page_alloc_failure" and _borne(case, order):
        asks = f"{caller} (by the call trace)" if caller else "Who asks"
        return (
            f"Nothing to change if nothing else failed: {asks} only tries for {1 << order} pages in a row "
            "and goes on with smaller blocks. A newer kernel may no longer print it."
        )
    who = f"{caller} asked, by the call trace" if caller else "the call trace names the caller"
    text = (
        f"Find who needs {1 << order} pages in a row ({who}) and have it ask for less, or for pages not in a "
        "row (kvmalloc)"
    )
    if case.compaction_off:
        return f"{text}; else build the kernel with CONFIG_COMPACTION: this one cannot make larger blocks."
    ahead = "vm.compaction_proactiveness" + ("" if case.kernel_at_least(5, 9) else ", 5.9+")
    text += f"; else raise vm.min_free_kbytes ({LASTS})"
    if case.kernel_at_least(5, 9) is False:
        return f"{text}, or write 1 to /proc/sys/vm/compact_memory from time to time."
    return f"{text}, or have the kernel compact ahead of time ({ahead})."
