"""An aftershock: the process that asked had been killed already.

The page allocator retries a small request that may wait (up to order 3, without __GFP_NORETRY) until it
succeeds, or until the OOM killer has chosen the requesting task itself. Such a victim may use half of the
memory below the min watermark (ALLOC_OOM). When that is used up too, its request fails. Such a failure is a
consequence of the earlier kill and needs no change of its own.

Requests for zones below Normal can fail too, because the kernel kills nobody for them
(__alloc_pages_may_oom()).

A task that is itself reclaiming memory (PF_MEMALLOC, for example while zram writes out a page) ignores the
watermarks and fails only when nothing is free. Its call trace shows this; it is not a victim.

Source: __alloc_pages_slowpath() (tsk_is_oom_victim(), TIF_MEMDIE up to 4.13), __perform_reclaim().
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.escape import harmless_name

ID = "asker_was_killed_before"
TITLE = "An aftershock: the requesting process had been killed already"


def find(case: Case) -> Claim | None:
    trigger = case.report.trigger
    if not case.asker_is_victim:
        return None
    who = harmless_name(trigger.comm) if trigger.comm else "the process"
    return Claim(
        finding=Finding(
            id=ID,
            severity="info",
            title=TITLE,
            explanation=f"An order-{trigger.order} request that may wait fails only if the task that asks "
            "is a "
            f"victim of the OOM killer: {who} had been killed before and used up what a victim may take "
            "below the "
            "min watermark.",
            evidence={"order": trigger.order, "pid": trigger.pid},
            advice="Nothing to change for this failure: see the kill before it, which has the cause.",
        ),
        cause=Cause(tier=Tier.MANNER, text="an aftershock: who asked had been killed before"),
    )
