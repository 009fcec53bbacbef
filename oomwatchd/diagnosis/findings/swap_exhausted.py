"""Swap is full.

The kernel can reclaim anonymous memory only into swap. When swap is full, that memory stays where it is, and
the memory that can still be dropped (page cache) runs out next. Usually the machine was slow for a while
before; the pressure (PSI) before the kill shows this.

If one process holds the memory, its growth decides. A process that grew steadily for a while leaks, or will
fill any swap: limit it. Otherwise swap that is smaller than RAM, but not tiny, is worth enlarging first: what
a process rarely uses then makes room. With more swap than that, the machine would only swap; add RAM.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import HOLDS, Case, Process
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import own_settings
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import ratio

ID = "swap_exhausted"
TITLE = "Swap is full"

#: Share of what processes have in RAM and swap. A process with less is not alone the reason.
_DOMINATES = 0.5
#: Share of RAM. Less swap never was meant to carry a load.
_LEAST_SWAP = 0.1


def find(case: Case) -> Claim | None:
    memory = case.report.memory
    if memory is None or memory.swap is None or not case.swap_full:
        return None
    total, free = memory.swap.total_bytes or 0, memory.swap.free_bytes or 0
    own, together = case.of_processes
    one = _one(case, total)
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
        advice=_advice(case, total, own, one),
    )
    if case.in_cgroup:
        return Claim(finding=finding)
    if one is not None:
        dead = any(victim.pid == one.pid for victim in case.report.victims[:1])
        text = (
            f"swap of {size(total)} is full; {harmless_name(one.comm)} {'held' if dead else 'holds'} "
            f"{case.ledger.percent(one.rss_bytes)} {case.of} and {size(one.swap_bytes)} of swap"
        )
        # the process's share of RAM alone has its own finding
        return Claim(finding=finding, cause=Cause(tier=Tier.HELD, text=text, excess_bytes=one.bytes))
    text = f"processes hold {case.ledger.percent(own)} {case.of}, and swap is full"
    return Claim(
        finding=finding, cause=Cause(tier=Tier.TOGETHER, text=text, excess_bytes=own) if together else None
    )


def _one(case: Case, total: int) -> Process | None:
    """The process that holds most of the memory and of a swap that is smaller than RAM."""
    largest, ram = case.largest, case.ram_bytes or 0
    if largest is None or not _LEAST_SWAP * ram <= total < ram or largest.rss_bytes < HOLDS * ram:
        return None
    most = largest.bytes >= _DOMINATES * case.held_bytes
    return largest if most and largest.swap_bytes >= _DOMINATES * total else None


def _advice(case: Case, total: int, own: int, one: Process | None) -> str:
    ram = case.ram_bytes or 0
    kind = "swap on a disk" if case.facts.zram else "swap"
    if one is None:
        less = f": processes hold {size(own)}." if own else "."
        return (
            f"More {kind} (now {size(total)}) or RAM makes room for what is rarely used; else run less{less}"
        )
    return (
        f"More {kind}: {size(total)} are full, begin with {size(ram)} more (mkswap, swapon; /etc/fstab keeps "
        f"it), or add RAM. If {harmless_name(one.comm)} fills that, too, it leaks or is too large: bound it "
        f"by {own_settings(one.comm)}, or a cgroup's limit."
    )
