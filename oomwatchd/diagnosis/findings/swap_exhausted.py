"""Swap is full.

The kernel can reclaim anonymous memory only into swap. When swap is full, that memory stays where it is, and
the memory that can still be dropped (page cache) runs out next. Usually the machine was slow for a while
before; the pressure (PSI) before the kill shows this.

More swap only delays the kill. Find what grows, or add RAM.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.text import ratio

ID = "swap_exhausted"
TITLE = "Swap is full"

#: Share of swap. Less free swap is unusable: each CPU allocates a cluster, and read-ahead needs neighbours.
_FREE_SHARE = 0.02


def find(case: Case) -> Claim | None:
    memory = case.report.memory
    if memory is None or memory.swap is None or not memory.swap.total_bytes or memory.swap.free_bytes is None:
        return None
    total, free = memory.swap.total_bytes, memory.swap.free_bytes
    if free > _FREE_SHARE * total:
        return None
    own, together = case.of_processes
    finding = Finding(
        id=ID,
        severity="warning",
        title=TITLE,
        explanation=f"Of {size(total)} of swap {size(free)} ({percent(free, total)}) were free: anonymous "
        "memory had nowhere to go.",
        evidence={
            "swap_total_bytes": total,
            "swap_free_bytes": free,
            "swap_cache_bytes": memory.swap.cache_bytes,
            "free_share_ratio": ratio(free, total),
            "anon_bytes": case.anon_bytes,
            "shmem_bytes": case.total("shmem"),
            "ram_bytes": case.ram_bytes,
        },
        advice=f"More swap (now {size(total)}) or RAM makes room for what is rarely used; else run less"
        + (f": processes hold {size(own)}." if own else "."),
    )
    text = f"processes hold {case.ledger.percent(own)} {case.of}, and swap is full"
    cause = Cause(tier=Tier.TOGETHER, text=text, excess_bytes=own) if together else None
    return Claim(finding=finding, cause=None if case.in_cgroup else cause)
