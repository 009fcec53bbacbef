"""One process holds most of the memory that processes hold.

The share is taken of the resident memory of all listed processes (of the cgroup, in a cgroup's report).
Shared pages count in each process that maps them. Nothing is said where even that process holds little of
the memory itself: then something else does.

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

#: of what the listed processes hold, and of the memory there is
_SHARE, _MATTERS = 0.5, 0.2


def find(case: Case) -> Finding | None:
    held = {t.pid: (t.rss_bytes, t.comm) for t in case.report.tasks if t.rss_bytes is not None}
    if (victim := case.victim) is not None and victim.pid not in held and "tasks" in case.report.missing:
        # the table is cut, but the kill line tells of one more
        sizes = (victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes)
        held[victim.pid] = (sum(size or 0 for size in sizes), victim.comm)
    whole = sum(rss for rss, _ in held.values())
    if len(held) < 2 or not whole:
        return None
    pid, (rss, comm) = max(held.items(), key=lambda row: row[1][0])
    if rss < _SHARE * whole or rss < _MATTERS * (case.bound_bytes or 0):
        return None
    page = case.report.page_size_bytes
    pages = f" ({rss // page} of {whole // page} pages)" if page else ""
    others = plural(len(held) - 1, "other process")
    return Finding(
        id=ID,
        severity="warning",
        title=TITLE,
        explanation=f"{comm} (pid {pid}) holds {size(rss)}{pages}, {percent(rss, whole)} of "
        f"what all listed processes hold; the rest is in {others}.",
        evidence={
            "pid": pid,
            "comm": comm,
            "rss_bytes": rss,
            "rss_total_bytes": whole,
            "share_ratio": ratio(rss, whole),
            "tasks": len(held),
        },
        advice=f"Bound {comm}: MemoryMax= of its unit, a container limit, or its own settings.",
    )
