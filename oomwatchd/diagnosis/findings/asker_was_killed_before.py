"""An aftershock: the process that asked had been killed already.

The page allocator tries small requests that may wait (up to order 3, without __GFP_NORETRY) until they
succeed, or until the task that asks has itself been chosen by the OOM killer. Such a task may use half of
what is below the min watermark (ALLOC_OOM); when that is gone too, its request fails. A failure of that kind
belongs to the kill before it, and asks for nothing of its own.

The kernel kills nobody for zones below Normal (__alloc_pages_may_oom()), so that requests for those fail too.

A task that reclaims (PF_MEMALLOC: zram writes out a page, say) has no mark at all, and fails when nothing is
free; its call trace shows that, and it is no victim.

Source: __alloc_pages_slowpath() (tsk_is_oom_victim(), TIF_MEMDIE up to 4.13), __perform_reclaim().
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.escape import harmless_name

ID = "asker_was_killed_before"
TITLE = "An aftershock: who asked had been killed already"


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
