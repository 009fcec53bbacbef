"""Kernel stacks hold much memory: there are very many threads.

Each thread has a kernel stack (16 KiB on 64-bit, 8 KiB on most 32-bit machines) that cannot be reclaimed.
Two percent of RAM in stacks means tens of thousands of threads on a small server.

Bound them: ``TasksMax=`` in the unit, ``pids.max`` in the cgroup, ``kernel.threads-max``, ulimit -u.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.text import ratio

ID = "kernel_stacks_large"
TITLE = "Kernel stacks are large: very many threads"

#: of RAM; a thousand threads on 4 GiB make 0.4 %
_LARGE, _HUGE = 0.02, 0.10
#: fewer threads (of 16 KiB) are what a small machine has anyway
_MANY = 1000


def find(case: Case) -> Finding | None:
    stacks, ram, of = case.measure("kernel_stack", "kernel_stack")
    if stacks is None or not ram or stacks < _LARGE * ram:
        return None
    if stacks < _HUGE * ram and stacks >> 14 < _MANY:
        return None
    if case.report.constraint == "memcg" and stacks < 2 * _HUGE * ram:
        return None  # a cgroup of a few pages
    return Finding(
        id=ID,
        severity="critical" if stacks >= _HUGE * ram else "warning",
        title=TITLE,
        explanation=f"Kernel stacks hold {size(stacks)}, {percent(stacks, ram)} of {of}: about "
        f"{stacks // (16 << 10)} threads of 16 KiB each (twice as many where a stack has 8 KiB).",
        evidence={"kernel_stack_bytes": stacks, case.whole_name: ram, "share_ratio": ratio(stacks, ram)},
        advice="Bound the number of threads: TasksMax= of the unit (pids.max of the cgroup).",
    )
