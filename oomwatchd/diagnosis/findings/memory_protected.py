"""Cgroups are protected from reclaim.

The kernel does not reclaim the first ``memory.min`` bytes of a cgroup, even if it must kill instead.
``memory.low`` protects a cgroup as long as other cgroups have reclaimable memory. All others must do without
the protected memory. Kernels since 6.19 print the protection that a report met. On a live system the daemon
reads it from the cgroups (MemoryMin=, MemoryLow= of units).
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import middle_cut

ID = "memory_protected"
TITLE = "Cgroups are protected from reclaim"

#: Share of RAM.
_LARGE = 0.1


def find(case: Case) -> Claim | None:
    whole, memcg = case.ledger.whole_bytes, case.report.memcg
    if not whole:
        return None
    printed = (memcg.min_protection_bytes or 0) if memcg is not None else 0
    low = (memcg.low_protection_bytes or 0) if memcg is not None else 0
    seen = sum(h.amount for h in case.facts.protected) if not case.in_cgroup else 0
    held = min(max(printed, seen), whole)
    if max(held, min(low, whole)) < _LARGE * whole:
        return None
    who = ", ".join(
        f"{harmless_name(middle_cut(h.name, 60))} {size(h.amount)}" for h in case.facts.protected[:3]
    )
    evictable = sum(case.ledger.held(kind) or 0 for kind in ("file", "waiting"))
    swap = case.report.memory.swap if case.report.memory is not None else None
    if swap is not None and swap.free_bytes:
        evictable += min(case.ledger.held("anon") or 0, swap.free_bytes)
    # without the protection, reclaim would have had pages to drop or to swap out
    decides = held >= _LARGE * whole and evictable >= max(case.shortfall_bytes, int(_LARGE * whole))
    amount = held or low
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning" if held else "info",
            title=TITLE,
            explanation=f"{size(amount)}, {percent(amount, whole)} of {case.ledger.whole_name}, are "
            "protected by "
            f"{'memory.min' if held else 'memory.low'}: reclaim may not take "
            f"them.{f' {who}.' if who else ''}",
            evidence={
                "min_bytes": held,
                "low_bytes": low,
                "whole_bytes": whole,
                "share_ratio": case.ledger.share(amount),
            },
            advice="Lower memory.min"
            + ("" if case.systemd is False else " (MemoryMin= of the unit)")
            + " to what must stay resident.",
        ),
        cause=Cause(
            tier=Tier.TAKEN,
            text=f"memory.min keeps {case.ledger.percent(held)} {case.of} from reclaim",
            excess_bytes=min(held, evictable),
        )
        if decides
        else None,
    )
