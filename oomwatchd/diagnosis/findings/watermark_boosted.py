"""A temporary watermark boost made the difference.

When allocations of different kinds mix in one block of pages, the kernel raises the zone's watermarks for a
while (5.0+). kswapd then frees more, which keeps fragmentation low. Since 5.16 the zone line prints the raise
as ``boost``. Before that, the finding derives a lower bound: without a boost, ``low`` is a quarter of ``min``
above ``min``. The boost also raises ``min``, so a zone with enough free memory then refuses ordinary
requests. It ends when kswapd catches up, but under heavy load it can be active at the wrong moment.

A boost of less than a fiftieth of the zone gives only an ``info``: without it the kill would have come a
little later.

``vm.watermark_boost_factor`` sets its size in hundredths of a percent of the high watermark (15000 by
default, 0 switches it off).
"""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.diagnosis.allocator import boost_bytes
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import LASTS
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import kib

ID = "watermark_boosted"
TITLE = "A passing watermark boost made the difference"

#: Share of the zone. A smaller amount would have been used up soon anyway.
_LARGE = 0.02


def find(case: Case) -> Iterator[Claim]:
    if case.request is None or not case.request.counts_boost:
        return
    for verdict in case.failing:
        usable, required = verdict.usable_bytes, verdict.required_bytes
        boost = boost_bytes(verdict.record, case.report.page_size_bytes)
        known = verdict.record.bytes_of("boost") is not None
        if usable is None or required is None or usable <= required - boost:
            continue
        large = boost >= _LARGE * (verdict.managed_bytes or 0) and not case.minor(verdict)
        least = "" if known else "at least "
        how = "" if known else " (shown by low, which lies too near to min; this kernel does not print it)"
        finding = Finding(
            id=ID,
            severity="warning" if large else "info",
            title=f"{verdict.label} zone: a passing watermark boost made the difference",
            explanation=f"{verdict.label} has {kib(usable)} usable; of the {kib(required)} demanded {least}"
            f"{kib(boost)} are a boost against fragmentation{how}. Without it {kib(required - boost)} would "
            "have been demanded, and the request would have passed.",
            evidence={
                "zone": verdict.zone,
                "node": verdict.node,
                "usable_bytes": usable,
                "required_bytes": required,
                "boost_bytes": boost,
                "boost_printed": int(known),
            },
            advice=f"Set vm.watermark_boost_factor=0 (or lower it; {LASTS}) if such kills come back."
            if large
            else "",
        )
        # what grows takes the boost in a moment: it comes after whoever holds the memory
        cause = Cause(tier=Tier.TOGETHER, text="", excess_bytes=usable - required + boost)
        yield Claim(finding=finding, cause=cause if large else None)
