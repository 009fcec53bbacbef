"""Allocation sites: a kernel with memory allocation profiling (6.10+) lists the code that allocated most.

A site is where memory was asked for: ``kmalloc()`` of a driver counts there, not in mm/slub.c. The list does
not say whether it is slab or whole pages, so a site belongs to an amount only if it fits into it.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.ledger import Kind
from oomwatchd.diagnosis.purpose import purpose
from oomwatchd.diagnosis.suspects import modules, unload
from oomwatchd.records.report import Allocation
from oomwatchd.words.amounts import size
from oomwatchd.words.escape import harmless_name

#: Pages that these allocate are in a named counter, or are asked for by another site (slab).
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
#: Least share of an amount, and how much more than it a site may have: figures of one report are not of one
#: moment, and counters of other CPUs lag.
_MOST, _LAG = 0.4, 1.1


def within(case: Case, amount: int) -> list[Allocation]:
    """The sites that may have ``amount`` bytes or a part of it, the largest first."""
    fitting = (
        a for a in case.report.allocations if not a.location.startswith(_COUNTED) and a.bytes <= _LAG * amount
    )
    return sorted(fitting, key=lambda a: -a.bytes)


def site_of(case: Case, amount: int, *kinds: Kind) -> Allocation | None:
    """The site that has most of ``amount`` bytes; None if none stands out, or if it may as well be in one of
    the other ``kinds``."""
    first = next(iter(within(case, amount)), None)
    other = max((case.ledger.held(kind) or 0 for kind in kinds), default=0)
    return first if first is not None and first.bytes >= max(_MOST * amount, other) else None


def said(site: Allocation) -> str:
    """``nft_set_elem_init (net/netfilter/nf_tables_api.c:6410)``, and what that is for, if known."""
    known = purpose((site.function,))
    what = f": {known.holds}" if known is not None else ""
    return f"{harmless_name(site.function)} ({harmless_name(site.location)}){what}"


def lever_of(case: Case, site: Allocation) -> str:
    """What reduces the memory that a site allocated."""
    known, name = purpose((site.function,)), harmless_name(site.function)
    if known is not None:
        return f"Have less of what {name} allocates, {known.holds} ({size(site.bytes)}): {known.look}."
    if site.module and site.module in (modules(case) or ()):
        return f"{unload((harmless_name(site.module),))}: its {name} allocated {size(site.bytes)}."
    of = f" of the module {harmless_name(site.module)}" if site.module else ""
    return (
        f"Find why {name}{of} holds {size(site.bytes)}: the kernel's profile names the code that allocated "
        f"it ({harmless_name(site.location)}; /proc/allocinfo shows whether it grows)."
    )
