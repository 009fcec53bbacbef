"""The request failed while the machine was being suspended.

While the machine suspends, hibernates or resumes, tasks are frozen, the OOM killer is disabled
(oom_killer_disable()) and nothing is written to disk (pm_restrict_gfp_mask()). A request that finds too
little memory then fails, where it would have waited otherwise. Graphics drivers need much memory at that
time: they move the card's own memory to RAM.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding

ID = "while_suspending"
TITLE = "The machine was being suspended or resumed"


def find(case: Case) -> Claim | None:
    if case.report.kind != "page_alloc_failure" or not case.suspending:
        return None
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation="By the call trace the machine was being suspended or resumed. Tasks are frozen "
            "then, no process is killed for memory, and nothing is written to disk: the request could but "
            "fail.",
            evidence={"function": case.caller},
            advice="Have more RAM free before the machine suspends: end what is large (a driver that moves "
            "the memory of its card to RAM needs that much), or add RAM.",
        ),
        cause=Cause(
            tier=Tier.BARRED if not case.request or not case.request.order else Tier.TOGETHER,
            text="the machine was being suspended: nothing is written or killed for memory then",
            excess_bytes=1,
        ),
    )
