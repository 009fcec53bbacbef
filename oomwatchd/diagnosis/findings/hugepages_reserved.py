"""Memory is reserved for huge pages.

Pages of the hugetlb pool (``vm.nr_hugepages``, ``hugepages=`` at boot) belong to the pool, used or not.
Nothing else can use them, and no kill frees them. Surplus pages return to the system when they are freed; the
others do not. A free page may still be promised to a process that has mapped it but not touched it yet
(``HugePages_Rsvd``, which reports do not print).

Make the pool as large as its users (a database, a hypervisor, DPDK) need, and no larger.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import make_room
from oomwatchd.records.report import Finding, Memory
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name

ID = "hugepages_reserved"
TITLE = "Memory is set aside for huge pages"

#: Shares of RAM: of the pool's unused pages, and of the whole pool. Either one is enough.
_UNUSED, _POOL = 0.05, 0.50


def find(case: Case) -> Claim | None:
    if case.in_cgroup:
        return None  # the machine's memory is not what ran out
    memory, whole = case.report.memory, case.ledger.whole_bytes
    if memory is None or not memory.hugepages or not whole:
        return None
    pool = sum(h.total * h.size_bytes for h in memory.hugepages)
    unused = sum(h.free * h.size_bytes for h in memory.hugepages)
    if unused < _UNUSED * whole and pool < _POOL * whole:
        return None
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical" if unused >= 0.20 * whole else "warning",
            title=TITLE,
            explanation=f"The huge page pool holds {size(pool)}, {percent(pool, whole)} of RAM; "
            f"{size(unused)} "
            f"of it are unused and still out of everybody else's reach.{case.spare(pool)}",
            evidence={
                "hugepages_bytes": pool,
                "hugepages_free_bytes": unused,
                "whole_bytes": whole,
                "share_ratio": case.ledger.share(pool),
            },
            advice=_advice(case, memory, pool, unused),
        ),
        cause=Cause(
            tier=Tier.TAKEN,
            text=f"the huge page pool holds {case.ledger.percent(pool)} {case.of}, "
            f"{size(unused)} of it unused",
            excess_bytes=pool,
        )
        if case.decides(pool)
        else None,
    )


def _advice(case: Case, memory: Memory, pool: int, unused: int) -> str:
    sizes = {h.size_bytes for h in memory.hugepages if h.total}
    in_use = sum(h.total - h.free for h in memory.hugepages)
    now = f" to {in_use}" if len(sizes) == 1 and unused >= _UNUSED * pool else ""
    knob = f"Lower vm.nr_hugepages{now} (or hugepages= at boot; /etc/sysctl.d/ and the boot loader keep it)"
    if unused >= _UNUSED * pool:
        return f"{knob}: {size(unused)} are not used (less what HugePages_Rsvd in /proc/meminfo promises)."
    user = next(iter(case.facts.huge), None)
    whose = (
        "its users take less" if user is None else f"{harmless_name(user.name)} (pid {user.pid}) take less"
    )
    of_it = "" if user is None else f" ({size(user.amount)} by {harmless_name(user.name)})"
    return (
        f"{make_room(case)}: {size(pool - unused)} of the pool are in use{of_it}, and come back only when "
        f"those end. Else {knob[0].lower()}{knob[1:]} and have {whose}."
    )
