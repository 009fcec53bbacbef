"""An atomic request failed: it may not wait for reclaim.

Interrupt handlers and code under a spinlock (GFP_ATOMIC, GFP_NOWAIT) either get memory at once, above a
reduced watermark, or fail. Such failures come in bursts, mostly under network traffic, until kswapd catches
up. They are harmless if the caller copes with them (the network stack, for example, asks for receive buffers
again). They are not OOM events: nobody is killed.

A task that is itself reclaiming memory (kswapd, direct reclaim) cannot reclaim again either. With
__GFP_NOMEMALLOC its request may not use the reserves and fails the same way; its caller has another way.

Above order 3 such a request cannot be counted on at all: its caller has to change. If others are frequent,
raise ``vm.min_free_kbytes``: the kernel then keeps more memory free for bursts.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import COSTLY_ORDER, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.diagnosis.levers import LASTS
from oomwatchd.records.report import Finding
from oomwatchd.words.escape import harmless

ID = "atomic_request"
TITLE = "An atomic request cannot wait for reclaim"

_NESTED = "was made while its task reclaimed memory, which may not use the reserves (__GFP_NOMEMALLOC)"


def find(case: Case) -> Claim | None:
    report = case.report
    nested = case.reclaiming and case.request is not None and not case.request.spares
    if report.kind != "page_alloc_failure" or (case.may_wait is not False and not nested):
        return None
    order = f"order-{report.trigger.order} " if report.trigger.order else ""
    costly = (report.trigger.order or 0) > COSTLY_ORDER
    return Claim(
        finding=Finding(
            id=ID,
            severity="info",
            title="Reclaim itself asked, and cannot reclaim again" if nested else TITLE,
            explanation=f"The {order}request {_NESTED if nested else 'may neither sleep nor reclaim'}: it "
            "found too little free at that moment and failed. No OOM followed from it, and a caller that "
            "copes loses nothing.",
            advice=_of_high_order(case, report.trigger.order or 0)
            if costly
            else f"If they come often, raise vm.min_free_kbytes ({LASTS}): a burst then finds more.",
        ),
        refusal=Refusal(
            text="asked by reclaim itself" if nested else "an atomic request cannot wait for reclaim", rank=70
        ),
        cause=Cause(tier=Tier.BARRED, text="reclaim itself asked, and cannot wait" if nested else ""),
    )


def _of_high_order(case: Case, order: int) -> str:
    """Above PAGE_ALLOC_COSTLY_ORDER more free memory hardly helps: nothing is compacted for the request."""
    module = next(iter(case.trace_modules), None)
    caller = case.caller
    who = f"module {harmless(module)}" if module else harmless(caller) if caller else "who asks"
    by = " (by the call trace)" if module or caller else ""
    return (
        f"Have {who}{by} ask for single pages, or when it may wait: {1 << order} pages in a row without "
        "reclaim or compaction cannot be counted on, however much is free. Its maker can change that; a "
        "newer version may have."
    )
