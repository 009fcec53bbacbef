"""A zone had too little free memory for this request.

The page allocator takes memory from a zone only while more than a certain mark stays free: the zone's ``min``
watermark (less for privileged requests) plus its ``lowmem_reserve`` for the kind of request. The reserve
protects low zones from requests that could also use a higher zone. A zone may therefore be above even its
``high`` watermark and still have nothing for this request. Free CMA pages and the high-order atomic reserve
do not count for requests that may not use them.

The evidence gives the sum: ``usable_bytes`` had to be more than ``required_bytes``, and ``shortfall_bytes``
was missing. There is one such finding for each zone that the request was allowed to use, in the order in
which the kernel tried them. A zone that holds less than a tenth of the allowed memory (DMA on most machines)
gives only an ``info``.

The kernel printed the figures shortly after the check. What to change depends on what holds the memory: see
the other findings. If only the reserve made the difference, ``vm.lowmem_reserve_ratio`` decides its size.
"""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.diagnosis.allocator import Request, ZoneVerdict, boost_bytes
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.diagnosis.levers import LASTS
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import kib, size
from oomwatchd.words.escape import harmless

ID = "zone_below_watermark"
TITLE = "A zone has too little free memory for this request"

#: Share of the memory in all allowed zones. A smaller reserve that gains less only delays the kill.
_WORTH_SHARE = 0.05
#: Share of the zone. The summary line mentions a boost of at least this size.
_BOOST = 0.02
#: The default of vm.lowmem_reserve_ratio (sysctl_lowmem_reserve_ratio), zones from low to high.
_RATIOS = {"DMA": 256, "DMA32": 256, "Normal": 32, "HighMem": 1, "Movable": 1}
#: Multiple of the default from which a reserve was set on purpose.
_RAISED = 1.5
#: Multiple of the zone. A reserve this large was not computed from the zone's present size.
_ABSURD = 4.0


def find(case: Case) -> Iterator[Claim]:
    request = case.request
    if request is None:
        return
    for verdict in case.failing:
        minor = case.minor(verdict)
        finding = Finding(
            id=ID,
            severity="info" if minor else "critical",
            title=f"{verdict.label} zone: too little free for {request.called}",
            explanation=_explanation(verdict, request),
            evidence={
                "zone": verdict.zone,
                "node": verdict.node,
                "order": None if request.order_unknown else request.order,
                "class_zone": request.class_zone,
                "free_bytes": verdict.free_bytes,
                "usable_bytes": verdict.usable_bytes,
                "min_bytes": verdict.record.bytes_of("min"),
                "high_bytes": verdict.record.bytes_of("high"),
                "mark_bytes": verdict.mark_bytes,
                "lowmem_reserve_bytes": verdict.reserve_bytes,
                "cma_bytes": verdict.cma_bytes,
                "highatomic_bytes": verdict.highatomic_bytes,
                "required_bytes": verdict.required_bytes,
                "shortfall_bytes": verdict.shortfall_bytes,
            },
            advice="" if minor else _advice(case, verdict),
        )
        refusal = Refusal(text=_short(case, verdict), rank=50) if verdict is case.nearest else None
        # if all failing zones are small, a zone that fits again explains more
        named = refusal is not None and not (minor and any(v.fits for v in case.verdicts))
        reserve = Cause(
            tier=Tier.TOGETHER if request.no_watermarks else Tier.BARRED,
            text="",
            excess_bytes=verdict.reserve_bytes or 0,
        )
        yield Claim(
            finding=finding,
            refusal=refusal if named else None,
            cause=reserve if finding.advice and verdict is case.nearest else None,
        )


def _short(case: Case, verdict: ZoneVerdict) -> str:
    """``node 0 Normal zone 84 kB short for an order-0 request``."""
    short = verdict.shortfall_bytes or 0
    unknown = case.request is not None and case.request.order_unknown
    least = "at least " if verdict.at_least or unknown else ""
    amount = f"zone {least}{kib(short)} short" if short else "zone exactly at its mark, which is not enough"
    has, mark = verdict.managed_bytes, verdict.record.bytes_of("min")
    if case.request is not None and case.request.no_watermarks:
        amount = "zone without one page left, reserves included,"
    elif has and mark is not None and mark >= has:
        amount = f"zone with a min mark of {size(mark)} beyond all of its {size(has)}: too little"
    fits = next((v for v in case.verdicts if v.passes), None)
    now = f", though {harmless(fits.label)} had enough again" if fits is not None else ""
    boost = boost_bytes(verdict.record, case.report.page_size_bytes)
    boosted = boost >= _BOOST * (verdict.managed_bytes or 0) > 0 and case.boosted(verdict)
    how = " (by a watermark boost)" if boosted else ""
    waits = " that may not wait" if case.may_wait is False else ""
    called = case.request.called if case.request is not None else "the request"
    return f"{harmless(verdict.label)} {amount} for {called}{waits}{how}{now}"


def _explanation(verdict: ZoneVerdict, request: Request) -> str:
    free, usable = verdict.free_bytes or 0, verdict.usable_bytes or 0
    mark, reserve = verdict.mark_bytes or 0, verdict.reserve_bytes or 0
    has = f"{verdict.label} has {kib(free)} free"
    high = verdict.record.bytes_of("high")
    if high is not None and free > high:
        has += f", above its high watermark of {kib(high)}"
    if usable != free:
        has += f". {_not_counted(verdict, free - usable)}, {kib(usable)} remain for this request"
    if request.no_watermarks:
        return (
            f"{has}. No watermark applies to this order-{request.order} request, which may use the last "
            f"page (its task reclaims memory or is a victim), and zones up to {request.class_zone} have none."
        )
    needs = f"min {kib(mark)}"
    if mark != verdict.record.bytes_of("min"):
        needs += " (as lowered for this privileged request)"
    if reserve:
        needs += f" + lowmem_reserve {kib(reserve)} = {kib(mark + reserve)}"
    elif verdict.at_least:
        needs += " + a lowmem_reserve that the report does not tell"
    short = verdict.shortfall_bytes or 0
    least = "at least " if verdict.at_least else ""
    missing = f"short by {least}{kib(short)}" if short else "exactly at the mark, which is not enough"
    return (
        f"{has}. For {request.called} that may use zones up to {request.class_zone} the "
        f"kernel demands more than {needs}: {missing}."
    )


def _not_counted(verdict: ZoneVerdict, less: int) -> str:
    """The free memory that this request may not use."""
    parts = [
        (verdict.cma_bytes, "in CMA areas"),
        (verdict.highatomic_bytes, "reserved for atomic requests of high order"),
    ]
    block = less - verdict.cma_bytes - verdict.highatomic_bytes
    parts.append((block, "for the rest of the block"))
    return "Less " + " and ".join(f"{kib(amount)} {what}" for amount, what in parts if amount)


def _usual_reserve(case: Case, verdict: ZoneVerdict, class_zone: str) -> int | None:
    """The zone's lowmem_reserve with the kernel's default ratios: a share of the higher zones of its node
    (setup_per_zone_lowmem_reserve()). None if these zones are not printed."""
    order = list(_RATIOS)
    if verdict.zone not in order or class_zone not in order:
        return None
    higher = order[order.index(verdict.zone) + 1 : order.index(class_zone) + 1]
    managed = [
        z.bytes_of("managed") or z.bytes_of("present")
        for z in case.zones
        if z.node == verdict.node and z.zone in higher
    ]
    known = [amount for amount in managed if amount]
    return sum(known) // _RATIOS[verdict.zone] if known else None


def _advice(case: Case, verdict: ZoneVerdict) -> str:
    if case.request is not None and case.request.no_watermarks:
        return (
            f"Raise vm.min_free_kbytes ({LASTS}): what lies below the min marks is for those who free memory "
            "(reclaim, swap over zram or the network), and they had used it up."
        )
    usable, mark, reserve = verdict.usable_bytes, verdict.mark_bytes, verdict.reserve_bytes
    if usable is None or mark is None or not reserve or usable - mark < _WORTH_SHARE * case.allowed_bytes:
        return ""
    usual = _usual_reserve(case, verdict, case.request.class_zone) if case.request is not None else None
    if usual is None or reserve < _RAISED * usual:
        return ""  # the default protects low memory for those who need it: no cause
    if mark >= (verdict.managed_bytes or mark + 1) or reserve >= _ABSURD * (verdict.managed_bytes or 0) > 0:
        return ""  # a mark larger than the zone comes from a balloon or a broken figure, not from a reserve
    return (
        f"Raise {verdict.zone}'s number in vm.lowmem_reserve_ratio ({LASTS}; {_RATIOS[verdict.zone]} is the "
        f"default): without the reserve of {kib(reserve)} the request would have passed, with "
        f"{kib(usable - mark)} to spare."
    )
