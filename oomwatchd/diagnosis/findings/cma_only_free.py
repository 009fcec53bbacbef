"""The free memory belongs to CMA, which this request may not use.

CMA areas are set aside for devices. While the devices do not use them, they hold movable pages only. An
unmovable request (most of the kernel's own) cannot use them: a zone may have much free memory and still have
none for that request.

``cma=`` on the kernel command line, CONFIG_CMA_SIZE_MBYTES or the device tree (reserved-memory, linux,cma)
sets the size. Give CMA only what the devices need.
"""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.diagnosis.allocator import ZoneVerdict, in_lists_alone
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import kib, percent
from oomwatchd.words.text import ratio

ID = "cma_only_free"
TITLE = "The free memory belongs to CMA"

#: Share of the free memory. Below it, CMA only moved the kill by a moment.
_SHARE = 0.5
#: Share of the memory in all allowed zones that a smaller CMA area must give back to be worth advising.
_WORTH_SHARE = 0.05


def find(case: Case) -> Iterator[Claim]:
    yield from _by_blocks(case)
    for verdict in case.verdicts:
        usable, required, free = verdict.usable_bytes, verdict.required_most_bytes, verdict.free_bytes or 0
        if usable is None or required is None or usable + verdict.cma_bytes <= required:
            continue
        # The zone is below its mark, or just above it with nearly all of its free memory in CMA.
        failing = verdict.shortfall_bytes is not None
        low = verdict.record.bytes_of("low") or 0
        mostly = verdict.cma_bytes >= _SHARE * free
        if not failing and (usable > low or not mostly):
            continue
        finding = Finding(
            id=ID,
            severity="critical" if failing and mostly else "warning" if mostly else "info",
            title=f"{verdict.label} zone: "
            + ("what is free belongs to CMA" if mostly else "free CMA pages would have made the difference"),
            explanation=f"Of {kib(free)} free in {verdict.label}, {kib(verdict.cma_bytes)} "
            f"({percent(verdict.cma_bytes, free)}) are in CMA areas. This request is not movable and may not "
            "use them" + ("; with them it would have passed." if failing else ", and little else is free."),
            evidence={
                "zone": verdict.zone,
                "node": verdict.node,
                "free_bytes": free,
                "cma_bytes": verdict.cma_bytes,
                "required_bytes": verdict.required_bytes,
                "cma_share_ratio": ratio(verdict.cma_bytes, free),
            },
            advice="Make the CMA area smaller (cma= on the kernel command line, or linux,cma in the device "
            f"tree) if the devices do not need all of it: {kib(verdict.cma_bytes)} lie idle there."
            if mostly or verdict.cma_bytes >= _WORTH_SHARE * case.allowed_bytes
            else "",
        )
        barred = failing and case.barred(verdict.cma_bytes)
        yield Claim(
            finding=finding,
            refusal=Refusal(
                text=f"what is free in {verdict.label} belongs to CMA",
                rank=47 if _larger_lacks_a_block(case, verdict) else 40,
            )
            if mostly
            else None,
            cause=Cause(tier=Tier.BARRED, text="", excess_bytes=verdict.cma_bytes)
            if barred and finding.advice
            else None,
        )


def _larger_lacks_a_block(case: Case, verdict: ZoneVerdict) -> bool:
    """Whether a larger zone has enough free memory and lacks only a block of the order: that comes first."""
    return any(
        v.allowed
        and v.shortfall_bytes is None
        and v.block_available is False
        and (v.managed_bytes or 0) > (verdict.managed_bytes or 0)
        for v in case.verdicts
    )


def _by_blocks(case: Case) -> Iterator[Claim]:
    """The claim for a log that has the buddy lists but not the zones' lines: the letter C marks CMA."""
    zones = [v.record for v in case.verdicts if v.allowed]
    request = case.request
    if request is None or request.cma or not zones or any("free_bytes" in z.amounts for z in zones):
        return
    free = sum(z.free_blocks_total_bytes or 0 for z in zones)
    cma = sum(in_lists_alone(z, "C") for z in zones)
    if cma < _SHARE * free or not free:
        return
    yield Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation=f"Of {kib(free)} in free blocks, {kib(cma)} ({percent(cma, free)}) are in CMA areas "
            "alone (letter C). This request is not movable and may not use them. The log lacks the marks.",
            evidence={"free_bytes": free, "cma_bytes": cma, "cma_share_ratio": ratio(cma, free)},
            advice="Make the CMA area smaller (cma= on the kernel command line, or linux,cma in the device "
            f"tree) if the devices do not need all of it: {kib(cma)} lie idle there.",
        ),
        refusal=Refusal(text=f"{percent(cma, free)} of what is free belongs to CMA", rank=58),
        cause=Cause(tier=Tier.BARRED, text="", excess_bytes=cma),
    )
