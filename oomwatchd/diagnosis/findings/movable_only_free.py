"""The free memory is in zone Movable, which the kernel's own data may not use.

``kernelcore=``, ``movablecore=`` and ``movable_node`` reserve a part of RAM as zone Movable. Memory that was
hot-added as movable is in this zone too. Only user pages may be there. When the kernel's own data (slab, page
tables, network) fills the other zones, a kernel allocation fails and the OOM killer kills, no matter how much
memory is free in Movable.

Give the kernel's zones more memory (a larger ``kernelcore=``, or neither parameter), or make the kernel hold
less.
"""

from __future__ import annotations

from oomwatchd.diagnosis.allocator import Request, ZoneVerdict, reserve_for, zone_layouts
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import size
from oomwatchd.words.escape import harmless

ID = "movable_only_free"
TITLE = "The free memory is in zone Movable"


def find(case: Case) -> Claim | None:
    low, request = case.nearest, case.request
    if low is None or request is None or any(v.fits for v in case.verdicts):
        return None
    movable = [v for v in case.verdicts if v.zone == "Movable" and v.excluded_by == "class zone"]
    managed: int | None = None
    if movable:
        # only what is above the high watermark, which any reclaim restores
        free = sum(max((v.free_bytes or 0) - (v.record.bytes_of("high") or 0), 0) for v in movable)
        managed = sum(v.managed_bytes or 0 for v in movable)
    elif _not_printed(case, low, request):
        free = case.free_elsewhere or 0
    else:
        return None
    if not case.barred(free):
        return None
    line = case.facts.command_line
    set_by = ", ".join(
        f"{n}={harmless(line[n])}" if line[n] else n
        for n in ("kernelcore", "movablecore", "movable_node")
        if n in line
    )
    of = "" if managed is None else f" ({size(managed)})"
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical",
            title=TITLE,
            explanation=f"The request is the kernel's own (class {request.class_zone}). {low.label} is "
            f"{case.short(low)}, while zone Movable{of} has {size(free)} free "
            "above "
            "for user pages only. kernelcore=, movablecore=, movable_node or memory "
            "that was "
            f"added as movable make that zone{f': the command line has {set_by}' if set_by else ''}."
            f"{case.spare(free)}",
            evidence={
                "zone": low.zone,
                "shortfall_bytes": low.shortfall_bytes,
                "movable_free_bytes": free,
                "movable_managed_bytes": managed,
            },
            advice=f"Take {set_by or 'kernelcore= or movablecore='} away from the kernel's command line "
            "(boot "
            "loader), or leave the kernel's zones more; memory that was hot-added: online it as "
            "online_kernel.",
        ),
        cause=Cause(
            tier=Tier.BARRED,
            text=f"zone Movable (kernelcore=, movablecore=) has {size(free)} free, not for the kernel's "
            "own data",
            excess_bytes=free,
        ),
    )


def _not_printed(case: Case, low: ZoneVerdict, request: Request) -> bool:
    """Whether there is a zone Movable that the report does not print.

    Since 6.1 a report omits the zones above the request's own (show_free_areas(): max_zone_idx). Such a zone
    exists if a lower zone keeps a reserve against requests for it.
    """
    memory = case.report.memory
    if memory is None or memory.highmem_bytes or request.class_zone not in ("DMA", "DMA32", "Normal"):
        return False
    layouts = zone_layouts(case.zones)
    # compare with Normal, not with the request's own zone: DMA32 and Normal are above DMA too
    above, normal = (reserve_for(low.record, zone, layouts) for zone in ("Movable", "Normal"))
    return above is not None and normal is not None and above > normal
