"""An allocation waited for seconds and is still waiting.

The kernel prints ``page allocation stalls for Nms`` (4.10 to 4.14) when a task has waited more than 10 s for
memory. Nothing has failed yet, but reclaim makes no progress. Usual causes are a slow or hung device that
dirty pages must be written to, a task that holds a memory management lock but gets no CPU time, and per-CPU
work that does not run. Or nearly all memory is anonymous: then only swap could free some, and programs wait
for their own pages (thrashing). To find the cause, compare the traces of the other stalled tasks and read
what the workqueue watchdog prints after them.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.diagnosis.ledger import Kind
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import size
from oomwatchd.words.deferred import deferred

ID = "allocation_stalled"
TITLE = "An allocation waited for seconds"

#: What reclaim can only move to swap, and what it can drop or write out.
_SWAP_ALONE: tuple[Kind, ...] = ("anon", "shmem")
_DROPPED: tuple[Kind, ...] = ("file", "waiting", "slab_reclaimable")
#: Shares of the whole: with so much of the one and so little of the other, only swap could free memory.
_MOST, _LITTLE = 0.6, 0.1
_STALL = deferred(r"page allocation stalls for (\d+)ms")


def find(case: Case) -> Claim | None:
    found = _STALL.search(case.report.outcome or "")
    if found is None:
        return None
    seconds = int(found[1]) / 1000
    anon = sum(case.ledger.held(kind) or 0 for kind in _SWAP_ALONE)
    cache = sum(case.ledger.held(kind) or 0 for kind in _DROPPED)
    whole = case.ledger.whole_bytes
    if whole and anon >= _MOST * whole and cache < _LITTLE * whole:
        return _thrashing(case, seconds, anon, cache)
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


def _thrashing(case: Case, seconds: float, anon: int, cache: int) -> Claim:
    """The claim if only swap could free memory: no lock and no device is behind the wait."""
    held = f"anonymous and shared memory holds {case.ledger.percent(anon)} {case.of}"
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation=f"The task has waited {seconds:.0f} s for memory and still waits; nothing has failed "
            f"yet. {held[0].upper()}{held[1:]}, cache that could be dropped {size(cache)} only: reclaim can "
            "but move pages to swap, and programs wait for their own pages to come back (thrashing).",
            evidence={"waited_seconds": seconds, "anon_bytes": anon, "cache_bytes": cache},
            advice="Find which program grew (ps -e -o pid,rss,comm --sort=-rss; df -t tmpfs) and bound it by "
            "its own settings or a cgroup's limit, or add RAM; until then end it by hand, since nothing was "
            "killed.",
        ),
        refusal=Refusal(text=f"the allocation stalled for {seconds:.0f} s", rank=30),
        cause=Cause(tier=Tier.HELD, text=held, excess_bytes=anon),
    )
