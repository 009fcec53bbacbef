"""A passing watermark boost made the difference.

When allocations of different kinds mix within a block of pages the kernel raises the zone's watermarks
for a while (5.0+; ``boost`` on the zone line since 5.16), so that kswapd frees more and fragmentation stays
low. The raise counts for ``min`` too: a zone with enough free memory then refuses ordinary requests. It goes
away as kswapd catches up, but under a heavy load it can be there at the wrong moment.

A boost of less than a fiftieth of the zone is only worth an ``info``: without it the kill would have come a
little later.

``vm.watermark_boost_factor`` sets its size in hundredths of a percent of the high watermark (15000 by
default, 0 switches it off).
"""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.findings._case import Case
from oomwatchd.render.amounts import kib
from oomwatchd.report import Finding

ID = "watermark_boosted"
TITLE = "A passing watermark boost made the difference"

#: of the zone; less is soon used up by whoever fills it
_LARGE = 0.02


def find(case: Case) -> Iterator[Finding]:
    if case.request is None or (case.request.high and not case.request.order):
        return  # the boost does not count for it
    for verdict in case.failing:
        usable, required = verdict.usable_bytes, verdict.required_bytes
        boost = verdict.record.bytes_of("boost") or 0
        if usable is None or required is None or usable <= required - boost:
            continue
        large = boost >= _LARGE * (verdict.managed_bytes or 0)
        yield Finding(
            id=ID,
            severity="warning" if large else "info",
            title=f"{verdict.label} zone: a passing watermark boost made the difference",
            explanation=f"{verdict.label} has {kib(usable)} usable; of the {kib(required)} demanded "
            f"{kib(boost)} are a boost against fragmentation. Without it {kib(required - boost)} would have "
            "been demanded, and the request would have passed.",
            evidence={
                "zone": verdict.zone,
                "node": verdict.node,
                "usable_bytes": usable,
                "required_bytes": required,
                "boost_bytes": boost,
            },
            advice="Set vm.watermark_boost_factor=0 (or lower it) if such kills come back." if large else "",
        )
