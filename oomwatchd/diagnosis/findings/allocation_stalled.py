"""An allocation waited for seconds and is still waiting.

The kernel prints ``page allocation stalls for Nms`` (4.10 to 4.14) when a task has waited more than 10 s for
memory. Nothing has failed yet, but reclaim makes no progress. Usual causes are a slow or hung device that
dirty pages must be written to, a task that holds a memory management lock but gets no CPU time, and per-CPU
work that does not run. To find the cause, compare the traces of the other stalled tasks and read what the
workqueue watchdog prints after them.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.deferred import deferred

ID = "allocation_stalled"
TITLE = "An allocation waited for seconds"

_STALL = deferred(r"page allocation stalls for (\d+)ms")


def find(case: Case) -> Claim | None:
    found = _STALL.search(case.report.outcome or "")
    if found is None:
        return None
    seconds = int(found[1]) / 1000
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation=f"The task has waited {seconds:.0f} s for memory and still waits; nothing has failed "
            "yet. Reclaim makes no progress. Usual causes are a slow or hung device, a task that holds a "
            "lock and gets no CPU time, and per-CPU work that does not run.",
            evidence={"waited_seconds": seconds},
            advice="Compare the traces of all stalled tasks (SysRq w shows more) and look for a workqueue "
            "lockup or hung task behind them: what they wait for is what to fix.",
        ),
        refusal=Refusal(text=f"the allocation stalled for {seconds:.0f} s", rank=30, alone=True),
        cause=Cause(tier=Tier.MANNER, text=""),
    )
