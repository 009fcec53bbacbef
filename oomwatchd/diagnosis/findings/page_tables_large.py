"""Page tables hold much memory.

Each process that maps a memory area needs its own page tables for it: 8 bytes for each 4 KiB page, which is
1/512. If a thousand database processes all map a large shared segment, they pay this a thousand times.

Huge pages for the shared segment (``vm.nr_hugepages``, or transparent huge pages for tmpfs) cut the tables
to 1/512. Fewer processes (a connection pooler) help as well.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import HOLDS, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import raised_first
from oomwatchd.records.report import Finding, Task
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import plural

ID = "page_tables_large"
TITLE = "Page tables are large"

#: Shares of RAM. Memory that is mapped once costs 0.2 %.
_LARGE, _HUGE = 0.05, 0.20
#: Share of all page tables. One process with this share is the reason.
_ONE = 0.5


def find(case: Case) -> Claim | None:
    whole, tables = case.ledger.whole_bytes, case.ledger.held("pagetables")
    # each process has at least a few tables, so their share is larger in a small cgroup than in a machine
    least = _HUGE if case.in_cgroup else _LARGE
    if tables is None or not whole or tables < least * whole:
        return None
    tasks = len(case.report.tasks)
    among = f" {plural(tasks, 'process')} were listed." if tasks > 1 else ""
    shmem = case.ledger.held("shmem")
    most = max(case.report.tasks, key=_tables, default=None)
    held = _tables(most) if most is not None else 0
    one = most is not None and held >= _ONE * tables
    who = f" (pid {most.pid})" if one and most is not None else ""
    if one and most is not None:
        among += f" {most.comm}{who} alone has {size(held)} of them."
    shared = shmem is not None and shmem >= _LARGE * whole
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical" if tables >= _HUGE * whole else "warning",
            title=TITLE,
            explanation=f"Page tables hold {size(tables)}, {percent(tables, whole)} of "
            f"{case.ledger.whole_name}.{among}{case.spare(tables)}",
            evidence={
                "pagetables_bytes": tables,
                "whole_bytes": whole,
                "share_ratio": case.ledger.share(tables),
                "tasks": tasks,
                "shmem_bytes": shmem,
            },
            advice=_advice(case, shmem if shared and tasks > 1 and not one else None),
        ),
        cause=Cause(
            tier=Tier.HELD if case.in_cgroup else Tier.TAKEN,
            text=f"page tables hold {case.ledger.percent(tables)} {case.of}"
            + (f", most of them of {harmless_name(most.comm)}" if one and most is not None else ""),
            excess_bytes=tables,
        )
        if tables >= (HOLDS if case.in_cgroup else _HUGE / 2) * whole
        else None,
    )


def _advice(case: Case, shmem: int | None) -> str:
    """The advice. ``shmem`` is the shared memory in bytes that many processes map, if they do."""
    if shmem is not None:
        less = (
            f"map the shared memory ({size(shmem)}) with huge pages (vm.nr_hugepages), or run fewer "
            "processes that map it"
        )
    else:
        less = (
            "see who maps so much (VmPTE in /proc/PID/status); fewer processes, smaller mappings or huge "
            "pages make the tables smaller"
        )
    return raised_first(case, less) if case.in_cgroup else f"{less[0].upper()}{less[1:]}."


def _tables(task: Task) -> int:
    return task.pgtables_bytes or 0
