"""The free memory is held back for atomic requests of high order.

Since 4.4 the kernel keeps a few blocks of each zone for atomic requests above order 0 (network drivers with
jumbo frames and the like): up to 1 % of the zone. All other requests see less free memory than the zone line
prints. The letter H of the buddy line marks these blocks. Up to 4.9 the reserve was not given back before a
kill. Until 6.12 the whole reserve was subtracted, whether it was free or not, so a zone could refuse although
enough was free. No single page comes from the reserve, not even for an atomic request (until 6.12).

Nothing sets the size of the reserve. A newer kernel gives it back (4.10) and counts it correctly (6.12).
``vm.min_free_kbytes`` leaves more beside it.

Source: reserve_highatomic_pageblock(), unreserve_highatomic_pageblock(), __zone_watermark_unusable_free().
"""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.diagnosis.allocator import ZoneVerdict, in_lists_alone
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.diagnosis.levers import LASTS
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import kib
from oomwatchd.words.escape import harmless
from oomwatchd.words.text import ratio

ID = "highatomic_only_free"
TITLE = "The free memory is held back for atomic requests of high order"

#: Share of what is free. With less in the reserve, the zone was nearly empty anyway.
_SHARE = 0.5


def find(case: Case) -> Iterator[Claim]:
    request = case.request
    if request is None or request.no_watermarks:
        return
    for verdict in case.verdicts:
        held = _held(verdict, order=request.order)
        free = verdict.free_bytes or 0
        if held is None or case.minor(verdict) or held < _SHARE * free:
            continue
        unused = _unused(verdict)
        finding = Finding(
            id=ID,
            severity="warning",
            title=f"{verdict.label} zone: what is free is held back for atomic requests of high order",
            explanation=f"Of {kib(free)} free in {verdict.label}, {kib(held)} are in the reserve for atomic "
            f"requests above order 0, which this order-{request.order} request may not use."
            + (
                " No free block has the reserve's letter (H): the kernel counts as reserved what is in use "
                "(before 6.12)."
                if unused
                else ""
            ),
            evidence={
                "zone": verdict.zone,
                "node": verdict.node,
                "free_bytes": free,
                "highatomic_bytes": held,
                "shortfall_bytes": verdict.shortfall_bytes,
                "highatomic_share_ratio": ratio(held, free),
            },
            advice=_advice(case, unused=unused),
        )
        text = f"what is free in {harmless(verdict.label)} zone is held back for high-order atomic requests"
        decides = case.decides(held) and (verdict.shortfall_bytes or 0) < held
        cause = Cause(tier=Tier.BARRED if decides else Tier.TOGETHER, text="", excess_bytes=1)
        yield Claim(finding=finding, refusal=Refusal(text=text, rank=41), cause=cause)


def _held(verdict: ZoneVerdict, *, order: int) -> int | None:
    """What the reserve holds back, if the request would have passed with it; else None."""
    if verdict.block_available is False and order == 0:
        # every free block is in a list that the request may not use, whatever the marks say
        return in_lists_alone(verdict.record, "H") or None
    short = verdict.shortfall_bytes
    return verdict.highatomic_bytes if short is not None and short < verdict.highatomic_bytes else None


def _unused(verdict: ZoneVerdict) -> bool:
    """Whether no free block is in the reserve, by the buddy line's letters."""
    blocks = [b for b in verdict.record.free_blocks or () if b.count]
    return bool(blocks) and all(b.migratetypes is not None and "H" not in b.migratetypes for b in blocks)


def _advice(case: Case, *, unused: bool) -> str:
    more = f"raise vm.min_free_kbytes ({LASTS}), which leaves more beside the reserve"
    if unused:
        return f"Use a kernel from 6.12 on (or its fix), which counts the reserve as it is; else {more}."
    if case.may_wait is False:
        return f"{more[0].upper()}{more[1:]}."
    if case.kernel_at_least(4, 10) is False:
        return f"Use a kernel from 4.10 on, which gives the reserve back before it kills; else {more}."
    return ""
