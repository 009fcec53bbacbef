"""Many small processes together hold the memory.

None of them stands out, so killing one frees little and the next kill follows: a fork bomb, a worker pool
without bound, jobs that pile up because they no longer finish.

Bound the number: ``TasksMax=`` of the unit, ``pids.max``, the pool's own settings (MaxRequestWorkers,
pm.max_children, concurrency of cron jobs).
"""

from __future__ import annotations

from collections import defaultdict

from oomwatchd.findings._case import Case
from oomwatchd.findings._text import ratio
from oomwatchd.render.amounts import percent, size
from oomwatchd.report import Finding, Task

ID = "many_small_processes"
TITLE = "Many small processes of one name hold the memory"

#: so many of one name, together this share of all resident memory, none of them more than a tenth of it
_COUNT, _SHARE, _LARGEST = 20, 0.5, 0.1


def find(case: Case) -> Finding | None:
    groups: dict[str, list[Task]] = defaultdict(list)
    for task in case.report.tasks:
        if task.rss_bytes is not None:
            groups[task.comm].append(task)
    whole = sum(t.rss_bytes or 0 for t in case.report.tasks)
    if not groups or not whole:
        return None
    comm, tasks = max(groups.items(), key=lambda g: sum(t.rss_bytes or 0 for t in g[1]))
    together = sum(t.rss_bytes or 0 for t in tasks)
    largest = max(t.rss_bytes or 0 for t in tasks)
    if len(tasks) < _COUNT or together < _SHARE * whole or largest > _LARGEST * together:
        return None
    return Finding(
        id=ID,
        severity="critical",
        title=TITLE,
        explanation=f"{len(tasks)} processes named {comm} hold {size(together)} together, "
        f"{percent(together, whole)} of all resident memory; the largest of them only {size(largest)}.",
        evidence={
            "comm": comm,
            "processes": len(tasks),
            "rss_bytes": together,
            "rss_total_bytes": whole,
            "share_ratio": ratio(together, whole),
            "largest_rss_bytes": largest,
        },
        advice=f"Bound how many {comm} may run: its own settings, or TasksMax= of the unit (pids.max).",
    )
