"""The min watermarks hold back much memory.

``vm.min_free_kbytes`` is what the kernel keeps free for its own emergencies; ordinary requests may not go
below it. The default is small (4 * sqrt(RAM in kB), at most 256 MiB; transparent huge pages raise it, never
above 5 % of low memory). A much higher value takes memory away from everything else and brings the kill
forward. The low and high watermarks rise with it.
"""

from __future__ import annotations

from oomwatchd.diagnosis.allocator import boost_bytes
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import LASTS
from oomwatchd.records.report import Finding, Zone
from oomwatchd.words.amounts import kib, percent, size
from oomwatchd.words.escape import harmless

ID = "min_free_kbytes_large"
TITLE = "vm.min_free_kbytes is set high"

#: Share of the zones' memory. The kernel's own setting stays below it.
_LARGE = 0.055
#: Largest number of zones that the text names.
_NAMED = 4


def find(case: Case) -> Claim | None:
    if case.in_cgroup:
        return None  # the cgroup ran out, not the machine
    # HighMem and Movable get only a token min; vm.min_free_kbytes is spread over the other zones
    zones = [z for z in case.zones if z.zone not in ("HighMem", "Movable", "Device")]
    page = case.report.page_size_bytes
    minimum = sum((z.bytes_of("min") or 0) - boost_bytes(z, page) for z in zones)
    managed = sum(z.managed_bytes or 0 for z in zones)
    if not managed or minimum < _LARGE * managed:
        return None
    # init_per_zone_wmark_min(): int_sqrt(lowmem_kbytes * 16), at least 128 kB, at most 256 MiB
    default = min(max(int((managed // 1024 * 16) ** 0.5), 128), 256 << 10) * 1024
    if minimum < 2 * default:
        return None
    passed = case.passing_with_min(default / minimum)
    without = (
        "" if passed is None else f" With it the request would have passed, with {size(passed)} to spare."
    )
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation=f"The min watermarks sum up to {kib(minimum)}, {percent(minimum, managed)} of the "
            f"memory ({size(managed)}); the kernel's own choice would be about {kib(default)}."
            f"{_set(case)}{_beyond(zones)}{without}",
            evidence={
                "min_bytes": minimum,
                "managed_bytes": managed,
                "default_bytes": default,
                "share_ratio": case.ledger.share(minimum),
            },
            advice=f"Lower vm.min_free_kbytes to about {default // 1024}, the kernel's own choice ({LASTS}); "
            "min in /proc/zoneinfo falls at once.",
        ),
        cause=Cause(
            tier=Tier.TAKEN,
            text=f"vm.min_free_kbytes holds {size(minimum)} back, {case.ledger.percent(minimum)} {case.of}",
            excess_bytes=minimum - default,
        )
        if case.decides(minimum - default) or (passed or 0) > 0
        else None,
    )


def _beyond(zones: list[Zone]) -> str:
    """Zones whose min mark exceeds their memory. A balloon shrinks a zone, but its mark stays."""
    labels = [
        z.zone if z.node is None else f"node {z.node} {z.zone}"
        for z in zones
        if z.managed_bytes and (z.bytes_of("min") or 0) >= z.managed_bytes
    ]
    named = ", ".join(map(harmless, labels[:_NAMED]))
    return f" In {named} min is beyond all that the zone has: it serves no ordinary request." if named else ""


def _set(case: Case) -> str:
    """Live: the current value of vm.min_free_kbytes."""
    value = case.facts.sysctl.get("vm.min_free_kbytes", "")
    return f" vm.min_free_kbytes is {value}." if value.isdecimal() else ""
