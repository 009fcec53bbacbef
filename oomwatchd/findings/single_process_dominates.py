"""One process holds most of the memory that processes hold.

The share is taken of the resident memory of all listed processes (of the cgroup, in a cgroup's report).
Shared pages count in each process that maps them.

Bound the process: ``MemoryMax=`` in its unit, a container limit, its own settings (heap size, cache size,
worker memory). A rising ``rss`` over days without a rising load is a leak.
"""

from __future__ import annotations

from oomwatchd.findings._case import Case
from oomwatchd.findings._text import plural, ratio
from oomwatchd.render.amounts import percent, size
from oomwatchd.report import Finding

ID = "single_process_dominates"
TITLE = "One process holds most of the memory"

_SHARE = 0.5


def find(case: Case) -> Finding | None:
    tasks = [t for t in case.report.tasks if t.rss_bytes is not None]
    whole = sum(t.rss_bytes or 0 for t in tasks)
    if len(tasks) < 2 or not whole:
        return None
    largest = max(tasks, key=lambda t: t.rss_bytes or 0)
    rss = largest.rss_bytes or 0
    if rss < _SHARE * whole:
        return None
    page = case.report.page_size_bytes
    pages = f" ({rss // page} of {whole // page} pages)" if page else ""
    others = plural(len(tasks) - 1, "other process")
    return Finding(
        id=ID,
        severity="warning",
        title=TITLE,
        explanation=f"{largest.comm} (pid {largest.pid}) holds {size(rss)}{pages}, {percent(rss, whole)} of "
        f"what all listed processes hold; the rest is in {others}.",
        evidence={
            "pid": largest.pid,
            "comm": largest.comm,
            "rss_bytes": rss,
            "rss_total_bytes": whole,
            "share_ratio": ratio(rss, whole),
            "tasks": len(tasks),
        },
        advice=f"Bound {largest.comm}: MemoryMax= of its unit, a container limit, or its own settings.",
    )
