"""An atomic request failed: it may not wait for reclaim.

Interrupt handlers and code under a spinlock (GFP_ATOMIC, GFP_NOWAIT) take what is free above their reduced
mark, at once, or nothing. Such failures come in bursts, mostly of network traffic, while kswapd catches up;
callers that cope (receive buffers are asked for again) make them harmless. They are no OOM: nobody is killed.

Where they come often, ``vm.min_free_kbytes`` keeps more free, so that a burst finds more.
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
