"""The page fault handler called the OOM killer, not the allocator.

A report with ``gfp_mask=0x0`` at order 0 comes from a page fault that failed with "out of memory" for any
reason. The handler no longer knows what was requested. The machine may have had plenty of memory: usually a
memory cgroup refused a charge (up to 5.15), otherwise a huge page pool or a driver gave up. Since 5.16 the
kernel only retries and prints "Huh VM_FAULT_OOM leaked out".

Look for the limit or the pool that refused. With ``vm.panic_on_oom`` such a false alarm panics the machine.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import size

ID = "page_fault_oom"
TITLE = "A failed page fault called the OOM killer"

#: Share of RAM that is free above the high watermarks. With this much, the machine was not short of memory.
_PLENTY = 0.1


def find(case: Case) -> Claim | None:
    report = case.report
    trigger = report.trigger
    if report.kind == "page_alloc_failure":
        return None  # a page fault of this kind calls the OOM killer; a failed request has a mask of its own
    if report.constraint == "memcg" or trigger.sysrq or trigger.gfp_mask != 0 or trigger.order != 0:
        return None
    above = [z for z in case.zones if (z.bytes_of("free") or 0) > (z.bytes_of("high") or 1 << 62)]
    spare = sum((z.bytes_of("free") or 0) - (z.bytes_of("high") or 0) for z in above)
    plenty = spare >= _PLENTY * (case.ram_bytes or 0) > 0
    state = ""
    if plenty:
        state = f" The machine was not short: {size(spare)} were free above the high watermarks."
    finding = Finding(
        id=ID,
        severity="critical" if plenty else "info",
        title="A failed page fault called the OOM killer, with memory to spare" if plenty else TITLE,
        explanation="The mask of 0 says that the request came from the page fault handler, which no longer "
        f"knew what had been refused: a cgroup's limit, a huge page pool, a driver, or memory itself.{state}",
        evidence={"free_above_high_bytes": spare if case.zones else None, "ram_bytes": case.ram_bytes},
        advice="Look for a memory cgroup at its limit or an empty huge page pool at that moment, and update "
        "the kernel (5.16 and later retry instead)."
        if plenty
        else "",
    )
    if not plenty:
        return Claim(finding=finding)
    return Claim(
        finding=finding,
        refusal=Refusal(text=f"a failed page fault, with {size(spare)} to spare", rank=20, alone=True),
        cause=Cause(tier=Tier.MANNER, text=""),
    )
