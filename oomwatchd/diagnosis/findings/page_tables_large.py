"""Page tables hold much memory.

Each process that maps a memory area needs page tables of its own for it: 8 bytes for each 4 KiB page, so
1/512. A thousand database processes which all map a large shared segment pay that a thousand times.

Huge pages for the shared segment (``vm.nr_hugepages``, or transparent huge pages for tmpfs) cut the tables
to 1/512; fewer processes (a connection pooler) help as well.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding, Task
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.text import plural, ratio

ID = "page_tables_large"
TITLE = "Page tables are large"

#: of RAM; memory mapped once costs 0.2 %
_LARGE, _HUGE = 0.05, 0.20
#: of the tables: one process is the reason
_ONE = 0.5


def find(case: Case) -> Finding | None:
    tables, ram, of = case.measure("pagetables", "pagetables")
    # a cgroup of few pages has more tables than a machine, as each process has a few at least
    least = _HUGE if case.report.constraint == "memcg" else _LARGE
    if tables is None or not ram or tables < least * ram:
        return None
    tasks = len(case.report.tasks)
    among = f" {plural(tasks, 'process')} were listed." if tasks > 1 else ""
    shmem, _, _ = case.measure("shmem", "shmem")
    most = max(case.report.tasks, key=_tables, default=None)
    held = _tables(most) if most is not None else 0
    one = most is not None and held >= _ONE * tables
    if one and most is not None:
        among += f" {most.comm} (pid {most.pid}) alone has {size(held)} of them."
    shared = shmem is not None and shmem >= _LARGE * ram
    return Finding(
        id=ID,
        severity="critical" if tables >= _HUGE * ram else "warning",
        title=TITLE,
        explanation=f"Page tables hold {size(tables)}, {percent(tables, ram)} of {of}.{among}",
        evidence={
            "pagetables_bytes": tables,
            case.whole_name: ram,
            "share_ratio": ratio(tables, ram),
            "tasks": tasks,
            "shmem_bytes": shmem,
        },
        advice=f"Map the shared memory ({size(shmem)}) with huge pages (vm.nr_hugepages), or run fewer "
        "processes that map it."
        if shared and shmem is not None and tasks > 1 and not one
        else "See who maps so much (VmPTE in /proc/PID/status); fewer processes, smaller mappings or huge "
        "pages make the tables smaller.",
    )


def _tables(task: Task) -> int:
    return task.pgtables_bytes or 0
