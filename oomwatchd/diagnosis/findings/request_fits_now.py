"""By the printed figures the request would have passed.

The kernel prints the memory part of a report some milliseconds after the allocator gave up. If a zone fits
the request again by then, memory was freed in between (a process ended, an earlier victim's memory came
back), or the request was refused for a reason that no report prints. The kill was then a close call, not a
sign of lasting shortage.
"""

from __future__ import annotations

from msgspec.structs import replace

from oomwatchd.diagnosis.allocator import ZoneVerdict
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import kib, size
from oomwatchd.words.escape import harmless

ID = "request_fits_now"
TITLE = "Memory came back between the refusal and the report"

#: Share of RAM to spare in one zone. With this much, there was no shortage.
_PLENTY = 0.1
#: Bytes. No machine has only a zone that small (ZONE_DMA of x86 has 16 MiB).
_SMALL = 17 << 20
#: Share of RAM that is free above the high marks, for reports that do not say what was requested.
_MOST = 0.4


def find(case: Case) -> Claim | None:
    fitting = [v for v in case.verdicts if v.fits and v.usable_bytes is not None]
    if case.request is None:
        return _mostly_free(case)
    if all((v.managed_bytes or _SMALL) < _SMALL for v in case.verdicts if v.allowed):
        return None  # the log has a small zone alone: that it fits says nothing of the others
    if not fitting:
        return _perhaps(case)
    # The last check before a kill demands the high mark, without CMA. Most zones that fit fail that check.
    killed = case.report.kind != "page_alloc_failure"
    first = next((v for v in fitting if v.passes or not killed), None)
    zone = first or fitting[0]
    usable, required = zone.usable_bytes or 0, zone.required_bytes or 0
    spare = usable - required
    plenty = first is not None and spare >= _PLENTY * (case.bound_bytes or 1 << 62)
    finding = Finding(
        id=ID,
        severity="warning" if plenty else "info",
        title=TITLE if first is not None else "Above min again, but not above high",
        explanation=f"When the report was printed, {zone.label} had {kib(usable)} usable, more than the "
        f"{kib(required)} that an order-{case.request.order} request demands"
        + (
            ": it would have passed by then. Memory was freed in between (an exiting task), or the kernel "
            "had a "
            "ground that it does not print (a leaked VM_FAULT_OOM, fault injection)."
            if first is not None
            else f". The last check before a kill demands the high mark, without CMA: it was short by "
            f"{kib(zone.last_short_bytes or 0)}."
        ),
        evidence={
            "zone": zone.zone,
            "node": zone.node,
            "usable_bytes": usable,
            "required_bytes": required,
            "last_check_short_bytes": zone.last_short_bytes,
        },
        advice=_ADVICE if plenty else "",
    )
    label = harmless(zone.label)
    if plenty:
        text = f"no shortage when printed: {label} had {size(spare)} to spare"
        full = _bound_to(case, zone)
        if full is not None:
            # up to 4.20 the report does not say what binds the request
            advice = f"Look for what binds it to node {full}: cpuset.mems, numactl --membind, mbind()."
            how = (
                f"{zone.label} had {size(spare)} more than the request demands, and node {full} had nothing "
                f"for it: the request was bound to node {full} (this kernel does not print by what)."
            )
            finding = replace(finding, title="Another node was full", explanation=how, advice=advice)
            text = f"node {full} was full, and {label} had {size(spare)} to spare: bound to node {full}"
        cause = Cause(tier=Tier.MANNER, text="")
        return Claim(finding=finding, refusal=Refusal(text=text, rank=48, alone=True), cause=cause)
    if first is not None:
        text = f"{_before(case)}{label} zone had enough again when printed"
    else:
        short = zone.last_short_bytes or 0
        text = f"{label} zone {kib(short)} short of the high mark that the last check before a kill demands"
    return Claim(finding=finding, refusal=Refusal(text=text, rank=60))


def _bound_to(case: Case, fits: ZoneVerdict) -> int | None:
    """The one node that is full although another has plenty, for kernels that print no constraint."""
    if case.kernel_at_least(5, 0) is not False or case.report.kind == "page_alloc_failure":
        return None
    large = [v for v in case.verdicts if v.allowed and not case.minor(v)]
    full = {v.node for v in large} - {v.node for v in large if v.passes}
    (node,) = full if len(full) == 1 else (None,)
    return node if node is not None and node != fits.node else None


def _before(case: Case) -> str:
    """What the summary line says before "zone X had enough again"."""
    if case.may_wait is False:
        return "a request that may not wait for reclaim, though "
    return "" if case.report.kind == "page_alloc_failure" else "out of memory, though "


def _mostly_free(case: Case) -> Claim | None:
    """The claim for a log without the request: with this much free above the high marks, no ordinary request
    fails."""
    report, whole = case.report, case.bound_bytes
    trigger = report.trigger
    known = report.kind != "page_alloc_failure" and not trigger.sysrq and trigger.order != -1
    if case.in_cgroup or not known or trigger.gfp_mask == 0 or report.constraint != "none" or not whole:
        return None
    spare = sum(
        max((z.bytes_of("free") or 0) - (z.bytes_of("free_cma") or 0) - (z.bytes_of("high") or 1 << 62), 0)
        for z in case.zones
        if z.zone not in ("HighMem", "Movable")
    )
    if spare < _MOST * whole:
        return None
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title="Most memory was free",
            explanation=f"{size(spare)} of {size(whole)} were free above the high watermarks when the "
            "report was "
            "printed: no shortage by these figures. A request that no zone may serve, a large or broken "
            "one, or a "
            "leaked VM_FAULT_OOM calls the OOM killer all the same.",
            evidence={"free_above_high_bytes": spare, "whole_bytes": whole},
            advice=_ADVICE,
        ),
        refusal=Refusal(text=f"no shortage: {size(spare)} of {size(whole)} were free", rank=48, alone=True),
        cause=Cause(tier=Tier.MANNER, text=""),
    )


def _perhaps(case: Case) -> Claim | None:
    """The claim for a log without lowmem_reserve, if a zone is above its high mark and has a large block."""
    open_ = [v for v in case.verdicts if v.allowed and v.fits is None and v.block_available]
    if len(open_) != len([v for v in case.verdicts if v.allowed]):
        return None
    for verdict in open_:
        high = verdict.record.bytes_of("high")
        usable = verdict.usable_bytes
        if high is not None and usable is not None and verdict.reserve_bytes is None and usable > high:
            order = case.request.order if case.request else 0
            label = harmless(verdict.label)
            block = f", with a block of order {order}," if order else ""
            finding = Finding(
                id=ID,
                severity="info",
                title="Above the high mark when the report was printed",
                explanation=f"{verdict.label} had {kib(usable)} usable, above its high mark of {kib(high)}"
                f"{block} when the report was printed. The log lacks the zone's lowmem_reserve; unless that "
                "is larger, the request raced with an exiting task that freed memory meanwhile.",
                evidence={
                    "zone": verdict.zone,
                    "node": verdict.node,
                    "usable_bytes": usable,
                    "high_bytes": high,
                },
                advice="Nothing for one such kill. If they come back, look for what ends at that moment, and "
                "try a newer kernel.",
            )
            text = f"{_before(case)}{label} zone was above its high mark{block} when printed"
            nothing = Cause(tier=Tier.TOGETHER, text="", excess_bytes=1)
            return Claim(finding=finding, refusal=Refusal(text=text, rank=60, alone=True), cause=nothing)
    return _between(case, open_)


def _between(case: Case, zones: list[ZoneVerdict]) -> Claim | None:
    """The claim for a log without lowmem_reserve, if each zone is above min but not above high."""
    short = []
    for v in zones:
        high = v.record.bytes_of("high")
        if high is not None and v.usable_bytes is not None and (v.mark_bytes or high) < v.usable_bytes:
            short.append((high - v.usable_bytes, v))
    if not short or len(short) != len(zones) or case.report.kind == "page_alloc_failure":
        return None
    least, nearest = min(short, key=lambda pair: pair[0])
    label, usable = harmless(nearest.label), nearest.usable_bytes or 0
    finding = Finding(
        id=ID,
        severity="info",
        title="Above min, but not above high",
        explanation=f"When the report was printed, {nearest.label} had {kib(usable)} usable, more than the "
        f"min mark of {kib(nearest.mark_bytes or 0)}. The last check before a kill demands the high mark: it "
        f"was short by {kib(least)} at least (the log lacks the zone's lowmem_reserve).",
        evidence={"zone": nearest.zone, "node": nearest.node, "last_check_short_bytes": least},
    )
    text = (
        f"{label} zone at least {kib(least)} short of the high mark that the last check before a kill demands"
    )
    return Claim(finding=finding, refusal=Refusal(text=text, rank=60))


_ADVICE = (
    "Look for what freed memory just then (a large task that ended) and, if it comes back, for a driver "
    "whose "
    "page fault fails (VM_FAULT_OOM) or fault injection: the figures show no shortage."
)
