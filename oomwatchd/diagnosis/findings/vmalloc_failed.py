"""A vmalloc failed although memory was free.

vmalloc() takes single pages and maps them to addresses in a row. If it fails with memory to spare, one of
three things is short. On a 32-bit kernel the addresses are few (128 to 240 MiB, VmallocTotal in
/proc/meminfo). A task that has been killed gets no more pages. For a task in a memory cgroup, the pages are
charged (kernel stacks, BPF maps), and the cgroup may be at its limit.

Up to 4.9 the kernel prints such a failure like one of the page allocator ("page allocation failure:
order:0"). It is told by the call trace: warn_alloc() was called by vmalloc's own functions. Without a trace,
it is told by the figures: a request of order 0 that may wait does not fail while much is free.

At boot, a table that the kernel sizes by RAM (inodes, names, sockets: alloc_large_system_hash()) can be
larger than what is left of it, in a crash kernel above all.

Source: __vmalloc_area_node(), __vmalloc_node_range(), alloc_vmap_area(), warn_alloc() (up to 4.9:
warn_alloc_failed()).
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import size
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless_name

ID = "vmalloc_failed"
TITLE = "A vmalloc failed although memory was free"

#: Share of RAM that is free, so that pages were not short; and to tell a vmalloc by it.
_PLENTY, _MOSTLY = 0.05, 0.4
#: What calls warn_alloc() if the pages or the addresses of a vmalloc could not be had.
_WARNED = deferred(r"(?:dump_|show_|warn_alloc)\w*")
_VMALLOC = deferred(r"_*vmalloc_\w+|_*vmalloc|module_alloc")
#: The kernel parameters for the size of a table, by the function that makes it.
_TABLES = (
    ("inode_init", "ihash_entries="),
    ("dcache_init", "dhash_entries="),
    ("mnt_init", "mhash_entries="),
    ("inet_initpeers", "thash_entries="),
    ("tcp_init", "thash_entries="),
    ("udp_table_init", "uhash_entries="),
)


def find(case: Case) -> Claim | None:
    report = case.report
    free, whole = case.total("free"), case.ledger.whole_bytes
    if report.kind != "page_alloc_failure" or not (_said(case) or _mostly_free(case, free, whole)):
        return None
    plenty = free is not None and whole is not None and free >= _PLENTY * whole
    if free is not None and whole is not None and not plenty:
        return None  # short of pages: other findings say why
    who = harmless_name(report.trigger.comm) if report.trigger.comm else "who asked"
    state = f" {size(free or 0)} were free." if plenty else ""
    table = _table(case)
    advice = table or (
        "Raise vmalloc= on the kernel's command line (boot loader); /proc/vmallocinfo shows who has the "
        "addresses."
        if case.has_32_bit or not _said(case)
        else f"Look for a kill of {who} just before, and for its memory cgroup at its limit (memory.events; "
        "cgroup v1: memory.kmem.failcnt)."
    )
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE if plenty else "A vmalloc failed",
            explanation="vmalloc() takes single pages, so no block was too large."
            + state
            + (" A 32-bit kernel has few addresses for it." if case.has_32_bit else "")
            + (_BY_FIGURES if not _said(case) else "")
            + (" The kernel makes a table whose size it takes from all RAM." if table else ""),
            evidence={"free_bytes": free, "whole_bytes": whole},
            advice=advice,
        ),
        refusal=Refusal(text=_text(case, free if plenty else None, table), rank=40, alone=True)
        if plenty or table
        else None,
        cause=Cause(tier=Tier.MANNER if table or not _said(case) else Tier.BARRED, text="", excess_bytes=1),
    )


_BY_FIGURES = (
    " The log does not say that it was a vmalloc; up to 4.9 a request of order 0 that may wait fails with so "
    "much free only for want of addresses (a module's text, a vmalloc)."
)


def _said(case: Case) -> bool:
    """Whether the log says that it was a vmalloc: in the header, or because one called warn_alloc()."""
    if "vmalloc" in (case.report.outcome or ""):
        return True
    after = next((f for f in case.functions if not _WARNED.match(f)), None)
    return after is not None and _VMALLOC.fullmatch(after) is not None


def _mostly_free(case: Case, free: int | None, whole: int | None) -> bool:
    """Whether the figures exclude the page allocator."""
    old = case.kernel_at_least(4, 10) is not True and not case.functions
    small = case.report.trigger.order == 0 and case.may_wait is True
    return old and small and whole is not None and (free or 0) >= _MOSTLY * whole and not case.failing


def _table(case: Case) -> str:
    """What to do about a hash table that the kernel makes at boot; empty if it was none."""
    if "alloc_large_system_hash" not in case.functions:
        return ""
    named = [parameter for function, parameter in _TABLES if function in case.functions]
    return (
        f"Make the table smaller: {named[0] if named else 'ihash_entries= or dhash_entries='} on the "
        "kernel's command line (boot loader); for a crash kernel (crashkernel=, fadump) else reserve more, "
        "or take a newer kernel."
    )


def _text(case: Case, free: int | None, table: str) -> str:
    amount = f" with {size(free)} free" if free is not None else ""
    if table:
        return f"a boot-time hash table (vmalloc) is larger than what memory is left{amount}"
    return f"a vmalloc failed{amount}" + ("" if _said(case) else " (addresses ran out, not memory)")
