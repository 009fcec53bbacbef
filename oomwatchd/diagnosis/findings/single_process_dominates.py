"""One process holds most of the memory that processes hold.

The share is taken of what all listed processes (of the cgroup, in a cgroup's report) hold, resident and in
swap. Shared pages count in each process that maps them. Nothing is said where even that process holds little
of the memory itself: then something else does; nor where the list shows it to hold most only because the
table is cut, which the kernel's own count of anonymous memory tells.

Bound the process: ``MemoryMax=`` in its unit, a container limit, its own settings (heap size, cache size,
worker memory). A rising ``rss`` over days without a rising load is a leak.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.text import plural, ratio

ID = "single_process_dominates"
TITLE = "One process holds most of the memory"

#: of what the listed processes hold, and of the memory there is
_SHARE, _MATTERS = 0.5, 0.2
#: of the machine's anonymous memory: a table that accounts for less is cut
_LISTED = 0.5


def find(case: Case) -> Finding | None:
    held = {
        t.pid: (t.rss_bytes, t.swap_bytes or 0, t.comm) for t in case.report.tasks if t.rss_bytes is not None
    }
    if (victim := case.victim) is not None and victim.pid not in held and "tasks" in case.report.missing:
        # the table is cut, but the kill line tells of one more
        sizes = (victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes)
        held[victim.pid] = (sum(size or 0 for size in sizes), 0, victim.comm)
    whole = sum(rss + swap for rss, swap, _ in held.values())
    if not whole:
        return None
    pid, (rss, swap, comm) = max(held.items(), key=lambda row: row[1][0] + row[1][1])
    bound = case.bound_bytes or 0
    if rss + swap < _SHARE * whole or rss + swap < _MATTERS * bound or rss < _SHARE * _unlisted(case, whole):
        return None
    page = case.report.page_size_bytes
    resident = sum(rss for rss, _, _ in held.values())
    pages = f" ({rss // page} of {whole // page} pages)" if page and resident == whole else ""
    swapped = f" resident and {size(swap)} in swap" if swap else ""
    if len(held) < 2 and (not bound or rss + swap < _SHARE * bound):
        return None  # alone in the list, and not known to be large: that says nothing
    rest = (
        f"the rest is in {plural(len(held) - 1, 'other process')}" if len(held) > 1 else "no other is listed"
    )
    by = "its own settings (heap, cache, number of workers)"
    if case.report.constraint != "memcg":
        by = f"MemoryMax= of its unit, a container limit, or {by}"
    return Finding(
        id=ID,
        severity="warning",
        title=TITLE,
        explanation=f"{comm} (pid {pid}) holds {size(rss)}{swapped}{pages}, {percent(rss + swap, whole)} of "
        f"what all listed processes hold; {rest}.",
        evidence={
            "pid": pid,
            "comm": comm,
            "rss_bytes": rss,
            "swap_bytes": swap,
            "rss_total_bytes": resident,
            "held_total_bytes": whole,
            "share_ratio": ratio(rss + swap, whole),
            "bound_bytes": bound or None,
            "tasks": len(held),
        },
        advice=f"Bound {comm}: {by}.",
    )


def _unlisted(case: Case, whole: int) -> int:
    """The machine's anonymous memory, where the listed processes cannot account for half of it; else 0."""
    if case.report.constraint == "memcg":
        return 0
    anon = (case.total("active_anon") or 0) + (case.total("inactive_anon") or 0) - (case.total("shmem") or 0)
    return anon if whole < _LISTED * anon else 0
