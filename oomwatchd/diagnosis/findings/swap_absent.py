"""The machine has no swap.

The kernel printed ``Total swap = 0kB``. Without swap, anonymous memory cannot be reclaimed: only page cache
and slab can shrink, and the kill comes sooner and with less warning. Many servers and most boards and
Kubernetes nodes run without swap on purpose.

A little swap, or zram on boards without a disk, lets rarely used anonymous memory make room.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size

ID = "swap_absent"
TITLE = "There is no swap"

#: Share of RAM in anonymous pages. With less, swap would have made little room.
_ANON_SHARE = 0.5
#: With less than this share, swap would have made almost no room.
_HARDLY = 0.1


def find(case: Case) -> Claim | None:
    memory = case.report.memory
    if memory is None or memory.swap is None or memory.swap.total_bytes != 0:
        return None
    if case.report.trigger.sysrq:
        return None  # nothing had run out
    anon, whole = case.anon_bytes, case.ram_bytes
    own, together = case.of_processes
    carries = bool(whole) and anon is not None and anon >= _ANON_SHARE * (whole or 0)
    emptied = case.swapped_bytes
    finding = Finding(
        id=ID,
        severity="info" if not emptied else "warning",
        title=TITLE if not emptied else "Swap is being taken out of use",
        explanation=_off(emptied) if emptied else _explanation(anon, whole),
        evidence={
            "swap_total_bytes": 0,
            "anon_bytes": anon,
            "shmem_bytes": case.total("shmem"),
            "ram_bytes": whole,
        },
        advice=_advice(case, own, carries=carries, emptied=emptied),
    )
    if emptied and not case.in_cgroup:
        return Claim(
            finding=finding, cause=Cause(tier=Tier.TAKEN, text="swapoff was under way", excess_bytes=emptied)
        )
    text = f"processes hold {case.ledger.percent(own)} {case.of}, and there is no swap"
    cause = (
        Cause(tier=Tier.TOGETHER, text=text, excess_bytes=own) if together and not case.in_cgroup else None
    )
    return Claim(finding=finding, cause=cause)


def _advice(case: Case, own: int, *, carries: bool, emptied: int) -> str:
    if emptied:
        return "See who ran swapoff, and why: what swap held had to go back to RAM; swapon brings it back."
    if not carries:
        return ""
    more = f" With less than that, add RAM or run less: processes hold {size(own)}." if own else ""
    since = " (zram from 3.14 on)" if case.kernel_at_least(3, 14) is False else ""
    return f"Swap or zram{since} would let rarely used anonymous memory make room.{more}"


def _off(swapped: int) -> str:
    return (
        f"No swap is in use, and yet {size(swapped)} of listed processes are in swap: swapoff was taking it "
        "out of use, and what it held had to go back to RAM."
    )


def _explanation(anon: int | None, whole: int | None) -> str:
    if not whole or anon is None:
        return "The machine has no swap, so anonymous and shared memory could not be moved out."
    held = f"{size(anon)}, {percent(anon, whole)} of RAM"
    if anon < _HARDLY * whole:
        return (
            f"The machine has no swap; with so little anonymous and shared memory ({held}) it would hardly "
            "have helped."
        )
    return f"The machine has no swap, so anonymous and shared memory ({held}) could not be moved out."
