"""The cgroup may not use (more) swap.

A cgroup at its memory limit can still move anonymous memory to swap, unless its swap limit is 0 or used up:
``memory.swap.max`` (v2), or ``memory.memsw.limit_in_bytes``, which limits memory and swap together (v1). This
may be intended: containers usually get no swap, so that they are killed instead of becoming slow.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Claim, Refusal
from oomwatchd.diagnosis.memcg import at_limit, charge_bytes, kinds
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import size

ID = "memcg_swap_limited"
TITLE = "The cgroup's swap is limited"

#: A swap counter this full has no room left.
_FULL = 0.98
#: Share of the usage that is anonymous memory. With less, swap would not have helped.
_WORTH = 0.25


def find(case: Case) -> Claim | None:
    memcg = case.report.memcg
    if case.report.constraint != "memcg" or memcg is None:
        return None
    if memcg.swap is not None:
        counter, knob = memcg.swap, "memory.swap.max (systemd: MemorySwapMax=)"
        base = 0
    elif memcg.memory_swap is not None and memcg.memory is not None and memcg.memory.limit_bytes is not None:
        counter, knob = memcg.memory_swap, "memory.memsw.limit_in_bytes"
        base = memcg.memory.limit_bytes
    else:
        return None
    limit, usage = counter.limit_bytes, counter.usage_bytes
    if limit is None:
        return None
    room, used = max(limit - base, 0), usage
    if memcg.swap is None and memcg.memory is not None:
        used = usage - memcg.memory.usage_bytes
    if room and used < _FULL * room:
        return None
    unit = charge_bytes(case.report)
    if memcg.memory is not None and not any(at_limit(c, unit) for c in (memcg.memory, memcg.memory_swap)):
        return None  # nothing had to go to swap
    anon, whole = kinds(memcg).anon, memcg.memory.usage_bytes if memcg.memory is not None else 0
    what = "may not use swap" if room == 0 else f"has used up the {size(room)} of swap it may use"
    if room and used > room:
        # memory and swap share one limit: what is not in memory may be in swap
        room = used
        what = f"has {size(used)} in swap, and its limit of memory and swap together is reached"
    finding = Finding(
        id=ID,
        severity="info" if room == 0 else "warning",
        title="The cgroup may not use swap" if room == 0 else "The cgroup's swap is used up",
        explanation=f"The cgroup {what}: at its memory limit nothing anonymous could be moved out.",
        evidence={"swap_room_bytes": room, "usage_bytes": usage, "limit_bytes": limit},
        advice=f"Where slowness is better than a kill, allow swap in {knob}."
        if anon is None or anon >= _WORTH * whole
        else "",
    )
    # most containers get no swap on purpose: the finding is useful only if the machine has swap
    swap = room > 0 or bool(case.meminfo_at.get("SwapTotal"))
    full = (
        f" ({size(used)} of it in swap)" if base and room == used else f" (its {size(room)} of swap are full)"
    )
    text = full if room else " (no swap allowed)"
    return Claim(finding=finding, refusal=Refusal(text=text, rank=89, place="behind") if swap else None)
