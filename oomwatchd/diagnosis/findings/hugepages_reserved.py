"""Memory is set aside for huge pages.

Pages of the hugetlb pool (``vm.nr_hugepages``, ``hugepages=`` at boot) belong to the pool, used or not;
nothing else can have them, and no kill brings them back. Surplus pages are given back when freed, the
others are not. A free page may still be promised to a process that has mapped and not yet touched it
(``HugePages_Rsvd``), which reports do not print.

Make the pool as large as its users (a database, a hypervisor, DPDK) need and no larger.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.text import ratio

ID = "hugepages_reserved"
TITLE = "Memory is set aside for huge pages"

#: of RAM: unused pages of the pool, or the whole pool
_UNUSED, _POOL = 0.05, 0.50


def find(case: Case) -> Finding | None:
    if case.report.constraint == "memcg":
        return None  # the machine's memory is not what ran out
    memory, ram = case.report.memory, case.ram_bytes
    if memory is None or not memory.hugepages or not ram:
        return None
    pool = sum(h.total * h.size_bytes for h in memory.hugepages)
    unused = sum(h.free * h.size_bytes for h in memory.hugepages)
    if unused < _UNUSED * ram and pool < _POOL * ram:
        return None
    return Finding(
        id=ID,
        severity="critical" if unused >= 0.20 * ram else "warning",
        title=TITLE,
        explanation=f"The huge page pool holds {size(pool)}, {percent(pool, ram)} of RAM; {size(unused)} of "
        "it are unused and still out of everybody else's reach.",
        evidence={
            "hugepages_bytes": pool,
            "hugepages_free_bytes": unused,
            "ram_bytes": ram,
            "share_ratio": ratio(pool, ram),
        },
        advice=f"Lower vm.nr_hugepages (or hugepages= at boot): {size(unused)} are not used (less what "
        "HugePages_Rsvd in /proc/meminfo promises)."
        if unused >= _UNUSED * ram
        else "",
    )
