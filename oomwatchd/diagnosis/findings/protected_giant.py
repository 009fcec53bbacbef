"""The largest consumer is exempt from being killed.

``oom_score_adj`` -1000 (older: oom_adj -17) exempts a process, and the kernel never kills init. If such a
process is the one that grew, others die in its place, one after the other, and little is freed.

Use -1000 only for processes that the machine cannot live without and that do not grow.
``OOMScoreAdjust=-900`` also protects a process, but the kernel can still kill it as a last resort.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.levers import setting
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name

ID = "protected_giant"
TITLE = "The largest consumer is exempt from being killed"

#: Least shares of what all listed tasks hold and of all memory. A smaller process is not the cause.
_SHARE, _MATTERS = 0.2, 0.1


def find(case: Case) -> Finding | None:
    if case.scores is None or len(case.scores.rows) < 2:
        return None
    rows = case.scores.rows
    largest = max(rows, key=lambda r: r.footprint_bytes)
    whole = sum(r.footprint_bytes for r in rows)
    if largest.excluded_by is None or largest.footprint_bytes < _SHARE * whole:
        return None
    if largest.footprint_bytes < _MATTERS * (case.bound_bytes or 0):
        return None
    task, held = largest.task, largest.footprint_bytes
    ground = "it is init" if largest.excluded_by == "init" else f"{largest.excluded_by} exempts it"
    return Finding(
        id=ID,
        severity="warning",
        title=TITLE,
        explanation=f"{task.comm} (pid {task.pid}) holds {size(held)}, {percent(held, whole)} of what all "
        f"listed processes hold, and could not be chosen: {ground}.",
        evidence={
            "pid": task.pid,
            "comm": task.comm,
            "footprint_bytes": held,
            "share_ratio": case.ledger.share(held),
            "oom_score_adj": task.oom_score_adj,
        },
        advice=""
        if largest.excluded_by == "init"
        else f"Give {harmless_name(task.comm)} an oom_score_adj above -1000 "
        f"({setting(case, 'OOMScoreAdjust=', f'/proc/{task.pid}/oom_score_adj')}), or bound its memory.",
    )
