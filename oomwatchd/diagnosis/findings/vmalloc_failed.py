"""A vmalloc failed although memory was free.

vmalloc() takes single pages and maps them to addresses in a row. If it fails with memory to spare, one of
three things is short. On a 32-bit kernel the addresses are few (128 to 240 MiB, VmallocTotal in
/proc/meminfo). A task that has been killed gets no more pages. For a task in a memory cgroup, the pages are
charged (kernel stacks, BPF maps), and the cgroup may be at its limit.

Source: __vmalloc_area_node(), alloc_vmap_area(), warn_alloc().
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import size
from oomwatchd.words.escape import harmless_name

ID = "vmalloc_failed"
TITLE = "A vmalloc failed although memory was free"

#: Share of RAM that is free, so that pages were not short.
_PLENTY = 0.05


def find(case: Case) -> Claim | None:
    report = case.report
    if report.kind != "page_alloc_failure" or "vmalloc" not in (report.outcome or ""):
        return None
    free, whole = case.total("free"), case.ledger.whole_bytes
    plenty = free is not None and whole is not None and free >= _PLENTY * whole
    if free is not None and whole is not None and not plenty:
        return None  # short of pages: other findings say why
    who = harmless_name(report.trigger.comm) if report.trigger.comm else "who asked"
    state = f" {size(free or 0)} were free." if plenty else ""
    advice = (
        "Raise vmalloc= on the kernel's command line (boot loader); /proc/vmallocinfo shows who has the "
        "addresses."
        if case.has_32_bit
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
            + (" A 32-bit kernel has few addresses for it." if case.has_32_bit else ""),
            evidence={"free_bytes": free, "whole_bytes": whole},
            advice=advice,
        ),
        refusal=Refusal(text=f"a vmalloc failed with {size(free or 0)} free", rank=40) if plenty else None,
        cause=Cause(tier=Tier.BARRED, text="", excess_bytes=1),
    )
