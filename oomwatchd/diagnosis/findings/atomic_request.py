"""An atomic request failed: it may not wait for reclaim.

Interrupt handlers and code under a spinlock (GFP_ATOMIC, GFP_NOWAIT) either get memory at once, above a
reduced watermark, or fail. Such failures come in bursts, mostly under network traffic, until kswapd catches
up. They are harmless if the caller copes with them (the network stack, for example, asks for receive buffers
again). They are not OOM events: nobody is killed.

If they are frequent, raise ``vm.min_free_kbytes``: the kernel then keeps more memory free for bursts.
"""

from __future__ import annotations

from oomwatchd.diagnosis.allocator import expand
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.diagnosis.levers import LASTS
from oomwatchd.records.report import Finding

ID = "atomic_request"
TITLE = "An atomic request cannot wait for reclaim"


def find(case: Case) -> Claim | None:
    report = case.report
    flags = expand(report.trigger.gfp_flags or ())
    waits = flags & {"__GFP_DIRECT_RECLAIM", "__GFP_WAIT"}
    if report.kind != "page_alloc_failure" or not flags or waits:
        return None
    order = f"order-{report.trigger.order} " if report.trigger.order else ""
    return Claim(
        finding=Finding(
            id=ID,
            severity="info",
            title=TITLE,
            explanation=f"The {order}request may neither sleep nor reclaim: it found too little free at that "
            "moment and failed. No OOM followed from it, and a caller that copes loses nothing.",
            advice=f"If they come often, raise vm.min_free_kbytes ({LASTS}): a burst then finds more.",
        ),
        refusal=Refusal(text="an atomic request cannot wait for reclaim", rank=70),
        cause=Cause(tier=Tier.TOGETHER, text=""),
    )
