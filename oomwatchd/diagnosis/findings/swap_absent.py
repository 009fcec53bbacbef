"""The machine has no swap.

The kernel said so (``Total swap = 0kB``). Anonymous memory cannot be reclaimed at all then: only page cache
and slab give way, and the kill comes sooner and with less warning. Many servers and most boards and
Kubernetes nodes are run so on purpose.

A little swap, or zram on boards without a disk, lets rarely used anonymous memory make room.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size

ID = "swap_absent"
TITLE = "There is no swap"

#: below this share of RAM in anonymous pages swap would not have made room worth naming
_ANON_SHARE = 0.5
#: and below this none at all
_HARDLY = 0.1


def find(case: Case) -> Finding | None:
    memory = case.report.memory
    if memory is None or memory.swap is None or memory.swap.total_bytes != 0:
        return None
    if case.report.trigger.sysrq:
        return None  # nothing had run out
    anon, ram = case.anon_bytes or 0, case.ram_bytes or 0
    carries = bool(ram) and anon >= _ANON_SHARE * ram
    return Finding(
        id=ID,
        severity="info",
        title=TITLE,
        explanation=_explanation(anon, ram),
        evidence={
            "swap_total_bytes": 0,
            "anon_bytes": anon,
            "shmem_bytes": case.total("shmem"),
            "ram_bytes": case.ram_bytes,
        },
        advice="Swap or zram would let rarely used anonymous memory make room." if carries else "",
    )


def _explanation(anon: int, ram: int) -> str:
    if not ram:
        return "The machine has no swap, so anonymous and shared memory could not be moved out."
    held = f"{size(anon)}, {percent(anon, ram)} of RAM"
    if anon < _HARDLY * ram:
        return (
            f"The machine has no swap; with so little anonymous and shared memory ({held}) it would hardly "
            "have helped."
        )
    return f"The machine has no swap, so anonymous and shared memory ({held}) could not be moved out."
