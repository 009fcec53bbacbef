"""Memory that no counter of the report names.

RAM less everything named: free, anonymous and file pages, slab, page tables, kernel stacks, huge pages, CPU
lists. What remains was taken from the page allocator directly: drivers (GPU, network rings, vmalloc), a
balloon that the hypervisor inflated, zram and zswap (until 6.17), percpu data, or a leak of whole pages.

Memory allocation profiling (6.10+) names the code that holds it and the report then lists the largest;
``/proc/vmallocinfo``, ``page_owner`` and the hypervisor's balloon figures are the other places to look.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.text import ratio

ID = "unaccounted_memory"
TITLE = "Much memory is accounted to nobody"

#: of RAM; ordinary systems have a few percent in drivers and percpu data
_LARGE, _HUGE = 0.15, 0.40
_NAMED = (
    "free",
    "free_pcp",
    "active_anon",
    "inactive_anon",
    "isolated_anon",
    "active_file",
    "inactive_file",
    "isolated_file",
    "unevictable",
    "slab_reclaimable",
    "slab_unreclaimable",
    "kernel_misc_reclaimable",
    "pagetables",
    "sec_pagetables",
    "kernel_stack",
    "bounce",
    "zspages",
    "Balloon",
)


#: what these allocate is in one of the counters above: slab, page cache, anonymous memory, page tables
_COUNTED = (
    "mm/slub.c",
    "mm/slab",
    "mm/filemap.c",
    "mm/readahead.c",
    "mm/memory.c",
    "mm/shmem.c",
    "mm/swap_state.c",
    "mm/huge_memory.c",
    "mm/khugepaged.c",
    "mm/migrate.c",
    "mm/hugetlb",
    "mm/zsmalloc.c",
    "kernel/fork.c",
    "include/asm-generic/pgalloc.h",
    "arch/x86/mm/pgtable.c",
)


def find(case: Case) -> Finding | None:
    if case.report.constraint == "memcg":
        return None  # the machine's memory is not what ran out
    memory, ram = case.report.memory, case.ram_bytes
    if memory is None or not ram or case.confined:
        return None
    # without these the sum would miss what the report does not say (a filtered or cut memory part)
    if any(case.total(name) is None for name in ("free", "active_anon", "active_file", "slab_unreclaimable")):
        return None
    named = sum(case.total(name) or 0 for name in _NAMED)
    named += sum(h.total * h.size_bytes for h in memory.hugepages)
    rest = ram - named
    if rest < _LARGE * ram:
        return None
    sites = [a for a in case.report.allocations if not a.location.startswith(_COUNTED)]
    top = sorted(sites, key=lambda a: -a.bytes)[:3]
    who = ", ".join(f"{a.function} ({a.location}) {size(a.bytes)}" for a in top)
    return Finding(
        id=ID,
        severity="critical" if rest >= _HUGE * ram else "warning",
        title=TITLE,
        explanation=f"{size(rest)}, {percent(rest, ram)} of RAM, is in none of the kernel's counters: "
        "drivers, a balloon, vmalloc, compressed swap or a leak of pages."
        + (f" The largest allocation sites: {who}." if who else ""),
        evidence={
            "unaccounted_bytes": rest,
            "named_bytes": named,
            "ram_bytes": ram,
            "share_ratio": ratio(rest, ram),
        },
        advice=f"Ask why {top[0].function} holds so much: the list names the code that allocated it."
        if top
        else "See drivers (GPU, network), /proc/vmallocinfo and the hypervisor's balloon; from 6.10 on "
        "memory allocation profiling names the code (boot with sysctl.vm.mem_profiling=1).",
    )
