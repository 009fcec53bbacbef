"""Much page cache was left in a zone that was too full.

Reclaim first drops page cache that needs no writing. If a zone refuses a request but still holds much of it,
the kill came too early. The cache was pinned or protected (``memory.min``, ``memory.low``, mlock), dirty
pages were written too slowly for the kernel to wait, or this kernel version reclaims badly. On 32-bit
machines the cache of block devices (mkfs, dd to a device) must be in low memory.

Update the kernel if it is not a recent stable one, limit how much may be dirty (``vm.dirty_bytes``), and
lower ``memory.min`` and ``memory.low`` of other cgroups.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import COSTLY_ORDER, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import LASTS
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size

ID = "page_cache_left"
TITLE = "Much page cache was left"

#: Share of the zones that refused. A thrashing machine keeps less than this as its working set.
_LARGE = 0.25


def find(case: Case) -> Claim | None:
    full = [v for v in case.failing if not case.minor(v)]
    # an allocation failure may mean that the request must not wait for reclaim; a kill always follows reclaim
    if case.report.kind == "page_alloc_failure" or not full or any(v.fits for v in case.verdicts):
        return None
    whole = sum(v.managed_bytes or 0 for v in full)
    cache = waiting = 0
    for verdict in full:
        bytes_of = verdict.record.bytes_of
        cache += (bytes_of("active_file") or 0) + (bytes_of("inactive_file") or 0)
        waiting += bytes_of("writepending") or (bytes_of("dirty") or 0) + (bytes_of("writeback") or 0)
    clean = max(cache - waiting, 0)
    names = ", ".join(v.label for v in full)
    if whole and clean < _LARGE * whole and case.request is not None and case.request.order > 0:
        return _of_high_order(case, clean, whole, names, case.request.order)
    if not whole or clean < _LARGE * whole:
        return None
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation=f"{names}: {size(cache)} of {size(whole)} ({percent(cache, whole)}) are page "
            "cache, of "
            f"which only {size(waiting)} wait to be written. The kernel should have dropped the rest "
            "before it "
            "killed: it was pinned or protected, or this kernel reclaims badly.",
            evidence={
                "zones": names,
                "cache_bytes": cache,
                "waiting_bytes": waiting,
                "managed_bytes": whole,
                "share_ratio": case.ledger.share(cache),
            },
            advice="See what protects the cache (memory.min and memory.low of cgroups, mlock), then try a "
            "newer kernel; vm.dirty_bytes bounds what must be written first.",
        ),
        cause=Cause(
            tier=Tier.HELD,
            text=f"page cache that was not dropped holds {case.ledger.percent(cache)} {case.of}",
            excess_bytes=cache,
        ),
    )


def _of_high_order(case: Case, clean: int, whole: int, names: str, order: int) -> Claim | None:
    """The claim for a small order above 0: with slab that could be reclaimed, enough was left. The kernel
    gave up too early: 4.7 to 4.9 decide on the last result of compaction (should_compact_retry())."""
    slab = case.total("slab_reclaimable") or 0
    if clean + slab < _LARGE * whole or order > COSTLY_ORDER:
        return None
    text = f"page cache and slab that could be reclaimed hold {case.ledger.percent(clean + slab)} {case.of}"
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title="Much could still be reclaimed",
            explanation=f"{names}: {size(clean)} of page cache that needs no writing, and {size(slab)} of "
            f"slab that can be reclaimed, were left of {size(whole)} when an order-{order} request found too "
            "little free. The kernel stopped reclaim and compaction early.",
            evidence={"cache_bytes": clean, "slab_reclaimable_bytes": slab, "managed_bytes": whole},
            advice="Try a newer kernel (4.7 to 4.9 give up too early for such orders). Until then raise "
            f"vm.min_free_kbytes ({LASTS}), or write 2 to /proc/sys/vm/drop_caches when slab is large.",
        ),
        cause=Cause(tier=Tier.HELD, text=text, excess_bytes=clean + slab),
    )
