"""The page allocator's view of a failed request: what ``__zone_watermark_ok()`` computed, zone by zone.

The kernel walks the zonelist (highest allowed zone of each node first) and takes a zone when

    free - unusable > min (or its reduced form) + lowmem_reserve[class zone]

and, for a request above order 0, a block that large is free in a list that this request may use
(mm/page_alloc.c: get_page_from_freelist(), __zone_watermark_ok(), gfp_to_alloc_flags()).
An OOM kill means that every allowed zone refused the request.

**lowmem_reserve** has one entry for each zone type that the kernel was built with. The kernel prints no names
for the entries, so this module infers which entry counts. Normal and Movable always exist; DMA, DMA32,
HighMem and Device are build options. A layout is possible if it has as many types as there are entries,
contains every zone that the report names, and has only 0 in every zone's entries up to its own (the kernel
never sets those). If all possible layouts give the same amount for the request's class zone, that is the
reserve. If they differ, the reserve is unknown (None) and so is the verdict.

**Rules that changed** are recognised by the report's lines, not by the kernel version. Since 4.4 a request
above order 0 needs one suitable block. Before, the free memory without the lower orders had to exceed half
the mark, a quarter, and so on.

The kernel prints the figures some milliseconds after the check. A zone that fits by then is reported as
fitting.

This module is longer than others because the rules are one computation: each step needs the results of the
steps before it.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from oomwatchd.records.report import OomReport, Trigger, Zone

#: Zone types from lowest to highest (enum zone_type). A request may use its class zone and all zones below.
ZONE_TYPES = ("DMA", "DMA32", "Normal", "HighMem", "Movable", "Device")
_OPTIONAL = ("DMA", "DMA32", "HighMem", "Device")

_RECLAIM = frozenset({"__GFP_DIRECT_RECLAIM", "__GFP_KSWAPD_RECLAIM"})
_KERNEL = _RECLAIM | {"__GFP_IO", "__GFP_FS"}
_MOVABLE = _KERNEL | {"__GFP_HARDWALL", "__GFP_HIGHMEM", "__GFP_MOVABLE"}
#: Composite flag names (include/linux/gfp_types.h) with the single flags that the allocator's checks use.
_COMPOSITES: dict[str, frozenset[str]] = {
    "GFP_ATOMIC": frozenset({"__GFP_HIGH", "__GFP_ATOMIC", "__GFP_KSWAPD_RECLAIM"}),
    "GFP_NOWAIT": frozenset({"__GFP_KSWAPD_RECLAIM"}),
    "GFP_NOIO": _RECLAIM,
    "GFP_NOFS": _RECLAIM | {"__GFP_IO"},
    "GFP_KERNEL": _KERNEL,
    "GFP_KERNEL_ACCOUNT": _KERNEL,
    "GFP_TEMPORARY": _KERNEL,
    "GFP_USER": _KERNEL | {"__GFP_HARDWALL"},
    "GFP_HIGHUSER": _KERNEL | {"__GFP_HARDWALL", "__GFP_HIGHMEM"},
    "GFP_HIGHUSER_MOVABLE": _MOVABLE,
    "GFP_TRANSHUGE": _MOVABLE | {"__GFP_NOMEMALLOC"},
    "GFP_TRANSHUGE_LIGHT": (_MOVABLE - _RECLAIM) | {"__GFP_NOMEMALLOC"},
    "GFP_DMA": frozenset({"__GFP_DMA"}),
    "GFP_DMA32": frozenset({"__GFP_DMA32"}),
    "__GFP_RECLAIM": _RECLAIM,
    # Up to 4.3: the request may reclaim directly, and wakes kswapd unless __GFP_NO_KSWAPD is set.
    "__GFP_WAIT": _RECLAIM,
}
#: __GFP_KSWAPD_RECLAIM of 4.4 to 4.9, a bit that no older kernel uses
_KSWAPD_RECLAIM_4_4 = 0x2000000
#: The smallest page of any processor. Where a report does not tell the size, a block is at least so large.
_LEAST_PAGE = 4096


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request to the page allocator: the properties that its checks depend on."""

    order: int
    #: The highest zone type that it may use.
    class_zone: str
    #: It may take CMA pages (ALLOC_CMA: movable requests).
    cma: bool
    #: __GFP_HIGH: half of min is enough (ALLOC_HIGH, ALLOC_MIN_RESERVE)
    high: bool
    #: atomic: a quarter less again, and the high-order atomic reserve is open (ALLOC_HARDER)
    harder: bool
    #: __GFP_MEMALLOC: no watermark at all (ALLOC_NO_WATERMARKS)
    no_watermarks: bool
    #: Nodes that it may use; None: all printed nodes.
    nodes: frozenset[int] | None
    #: Without __GFP_NOMEMALLOC: the request may use the reserves that its task may use.
    spares: bool = True
    #: The log does not tell the order; 0 stands for it, so that what fails fails for any order.
    order_unknown: bool = False
    #: The requesting task was already killed: half of min is enough, and it may use the high-order atomic
    #: reserve (ALLOC_OOM).
    victim: bool = False

    @property
    def called(self) -> str:
        """``an order-2 request``."""
        return "a request of unknown order" if self.order_unknown else f"an order-{self.order} request"

    @property
    def counts_boost(self) -> bool:
        """Whether the full boost applies. The kernel tries others without it or at a lower mark."""
        return not (self.victim or self.no_watermarks or (self.high and not self.order))

    @property
    def into_reserves(self) -> bool:
        """Whether it may take blocks of the high-order atomic reserve."""
        return self.harder or self.victim


class ZoneVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One zone's answer to a request. Amounts are in bytes; None means that the report does not tell."""

    record: Zone
    #: False: the zone is above the class zone, on a node that the request may not use, or without memory
    #: (and so in no zonelist). The other fields are then None.
    allowed: bool
    excluded_by: Literal["class zone", "nodes", "empty"] | None = None
    #: The high-order atomic reserve, if this request may not use it.
    highatomic_bytes: int = 0
    #: Free CMA pages, if this request may not use them.
    cma_bytes: int = 0
    #: Free memory minus what this request may not use, minus the rest of its own block.
    usable_bytes: int | None = None
    #: The min watermark as reduced for this request.
    mark_bytes: int | None = None
    reserve_bytes: int | None = None
    #: usable_bytes must be more than this: mark + reserve. If the reserve is unknown but each possible amount
    #: gives a no, this is the smallest possible value.
    required_bytes: int | None = None
    #: The largest possible value; equal to required_bytes if the reserve is known.
    required_most_bytes: int | None = None
    #: required - usable, if usable is not above required. A lower bound.
    shortfall_bytes: int | None = None
    #: Whether a free block of at least the order is in a list that this request may use.
    block_available: bool | None = None
    #: The kernel's answer for the printed figures.
    fits: bool | None = None
    #: The shortfall of the last check before a kill, which demands the high mark and counts no CMA page
    #: (__alloc_pages_may_oom(): ALLOC_WMARK_HIGH). None if the check would pass or is unknown.
    last_short_bytes: int | None = None

    @property
    def passes(self) -> bool:
        """Whether the zone fits and the last check before a kill would pass too."""
        return self.fits is True and self.last_short_bytes is None

    @property
    def at_least(self) -> bool:
        """Whether the requirement and the shortfall are lower bounds."""
        return self.required_bytes is not None and self.required_most_bytes != self.required_bytes

    @property
    def node(self) -> int | None:
        """The zone's node; None on kernels without NUMA."""
        return self.record.node

    @property
    def zone(self) -> str:
        """The zone's name."""
        return self.record.zone

    @property
    def free_bytes(self) -> int | None:
        """Free memory as printed."""
        return self.record.bytes_of("free")

    @property
    def managed_bytes(self) -> int | None:
        """The memory that the zone's allocator manages (older kernels: the present memory)."""
        return self.record.managed_bytes

    @property
    def label(self) -> str:
        """The zone's name for texts: "Normal", on NUMA kernels "node 0 Normal"."""
        return self.zone if self.node is None else f"node {self.node} {self.zone}"


def expand(flags: Iterable[str]) -> frozenset[str]:
    """Flag names with the composites (GFP_KERNEL ...) expanded into the single flags that matter here."""
    single: set[str] = set()
    for flag in flags:
        single |= _COMPOSITES.get(flag, frozenset({flag}))
    return frozenset(single)


def parse_nodes(text: str | None) -> frozenset[int] | None:
    """Parse a node list of the kernel (``%*pbl``: "0-1,3"); None if nothing or "(null)" was printed."""
    if text is None:
        return None
    nodes: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            return None
        # A node number has at most 10 bits (MAX_NUMNODES). Anything larger is not a node list and may have
        # more digits than int() accepts.
        if max(len(first), len(last)) > 4 or int(last or first) > 1023:
            return None
        nodes.update(range(int(first), int(last or first) + 1))
    return frozenset(nodes)


def class_zone(flags: frozenset[str]) -> str:
    """The highest zone type that single flags allow (gfp_zone())."""
    if "__GFP_DMA" in flags:
        return "DMA"
    if "__GFP_DMA32" in flags:
        return "DMA32"
    if "__GFP_HIGHMEM" in flags:
        return "Movable" if "__GFP_MOVABLE" in flags else "HighMem"
    return "Normal"


def request_of(trigger: Trigger, *, by_cpuset: bool = False) -> Request | None:
    """The request that failed. None if there was none or it is unknown: a manual kill (sysrq, order -1),
    no gfp flags, or a page-fault OOM (mask 0: the fault handler no longer knows the request).

    ``by_cpuset``: the kernel printed that the cpuset confined the request. Otherwise a cpuset binds only
    requests for user memory (__GFP_HARDWALL). The kernel's own requests may use the nodes of the cpusets
    above (cpuset_node_allowed()), atomic requests all nodes (gfp_to_alloc_flags() drops ALLOC_CPUSET).
    """
    if trigger.sysrq or trigger.order is None or trigger.order < 0:
        return None
    if not trigger.gfp_flags or trigger.gfp_mask == 0:
        return None
    flags = expand(trigger.gfp_flags)
    allowed = parse_nodes(trigger.nodemask)
    mems = parse_nodes(trigger.mems_allowed) if by_cpuset or "__GFP_HARDWALL" in flags else None
    if allowed is not None and mems is not None:
        allowed &= mems
    return Request(
        order=trigger.order,
        class_zone=trigger.highest_zone or class_zone(flags),
        cma="__GFP_MOVABLE" in flags,
        high="__GFP_HIGH" in flags,
        harder="__GFP_NOMEMALLOC" not in flags
        and ("__GFP_ATOMIC" in flags or not flags & (_RECLAIM | {"__GFP_NO_KSWAPD"})),
        no_watermarks="__GFP_MEMALLOC" in flags and "__GFP_NOMEMALLOC" not in flags,
        spares="__GFP_NOMEMALLOC" not in flags,
        nodes=allowed if allowed is not None else mems,
    )


def zone_layouts(zones: Sequence[Zone], highmem_bytes: int = 0) -> tuple[tuple[str, ...], ...]:
    """The possible sets of zone types of the kernel, inferred from its zones; see the module docstring.
    Empty if no layout fits. ``highmem_bytes``: what the report counts as HighMem and Movable."""
    entries = [z.lowmem_reserve_bytes for z in zones if z.lowmem_reserve_bytes]
    if not entries or len({len(e) for e in entries}) != 1:
        return ()
    named = {z.zone for z in zones}
    layouts = []
    for options in combinations(_OPTIONAL, max(len(entries[0]) - 2, 0)):
        layout = tuple(t for t in ZONE_TYPES if t in options or t not in _OPTIONAL)
        if len(layout) == len(entries[0]) and named <= set(layout) and _own_entries_are_zero(layout, zones):
            layouts.append(layout)
    with_highmem = [x for x in layouts if highmem_bytes and _highmem_counts(x, zones)]
    return tuple(with_highmem or layouts)


def _highmem_counts(layout: tuple[str, ...], zones: Sequence[Zone]) -> bool:
    """Whether every zone reserves more against requests for HighMem or Movable than against Normal. The
    reserve is a share of all memory above the zone (setup_per_zone_lowmem_reserve()), unless it is 0."""
    normal = layout.index("Normal")
    above = [i for i, name in enumerate(layout) if name in ("HighMem", "Movable")]
    rows = [z.lowmem_reserve_bytes or () for z in zones if _rank(z.zone) <= _rank("Normal")]
    return all(max(row[i] for i in above) > row[normal] for row in rows if any(row))


def _own_entries_are_zero(layout: tuple[str, ...], zones: Sequence[Zone]) -> bool:
    return not any(any((z.lowmem_reserve_bytes or ())[: layout.index(z.zone) + 1]) for z in zones)


def _in_layout(zone_type: str, layout: tuple[str, ...]) -> str:
    """A zone type that the kernel lacks means Normal (OPT_ZONE_DMA, OPT_ZONE_DMA32, OPT_ZONE_HIGHMEM)."""
    return zone_type if zone_type in layout else "Normal"


def reserve_for(zone: Zone, wanted: str, layouts: tuple[tuple[str, ...], ...]) -> int | None:
    """``zone``'s lowmem_reserve against a request of class zone ``wanted``, in bytes; None if unknown."""
    amounts = _reserves(zone, wanted, layouts)
    return amounts.pop() if len(amounts) == 1 else None


def _reserves(zone: Zone, wanted: str, layouts: tuple[tuple[str, ...], ...]) -> set[int]:
    entries = zone.lowmem_reserve_bytes
    return {entries[x.index(_in_layout(wanted, x))] for x in layouts} if entries else set()


def zone_verdicts(report: OomReport, request: Request) -> tuple[ZoneVerdict, ...]:
    """The answer of each printed zone to ``request``, in zonelist order: the highest zone of a node first.

    The order of the nodes depends on distances that no report prints, so nodes are sorted by number.
    """
    if report.memory is None:
        return ()
    zones = report.memory.zones
    layouts = zone_layouts(zones, report.memory.highmem_bytes or 0)
    wanted = request.class_zone
    if layouts and all(wanted not in layout for layout in layouts):
        wanted = "Normal"
    one_block = _needs_one_block(report)
    known = _reserves_of_top_zones(zones)
    zones = tuple(
        replace(z, lowmem_reserve_bytes=known[z.zone])
        if z.lowmem_reserve_bytes is None and z.zone in known
        else z
        for z in zones
    )
    order = sorted(zones, key=lambda z: (z.node or 0, -_rank(z.zone)))
    return tuple(_verdict(z, request, wanted, layouts, report.page_size_bytes, one_block) for z in order)


def _reserves_of_top_zones(zones: Sequence[Zone]) -> dict[str, tuple[int, ...]]:
    """The lowmem_reserve of the kinds of zones that have none above them on any node, by the printed lines. A
    zone whose line was lost has that of the same zone of other nodes."""
    printed: dict[str, tuple[int, ...]] = {}
    some: set[str] = set()
    for zone in zones:
        if entries := zone.lowmem_reserve_bytes:
            printed.setdefault(zone.zone, entries)
            if any(entries):
                some.add(zone.zone)
    return {kind: entries for kind, entries in printed.items() if kind not in some}


def _rank(zone_type: str) -> int:
    return ZONE_TYPES.index(zone_type) if zone_type in ZONE_TYPES else len(ZONE_TYPES)


def _needs_one_block(report: OomReport) -> bool | None:
    """Whether a request above order 0 needs one suitable block (4.4+). False: the older rule of halves
    applies. None: the lines do not tell."""
    memory = report.memory
    if memory is None:
        return None
    letters = {c for z in memory.zones for b in z.free_blocks or () for c in b.migratetypes or ""}
    if memory.nodes or "H" in letters or (report.trigger.gfp_mask or 0) & _KSWAPD_RECLAIM_4_4:
        return True  # node lines: 4.8+
    if "R" in letters or not any("free_pcp_bytes" in z.amounts for z in memory.zones):
        return False  # 4.4 removed the reserve type, 4.1 added free_pcp
    return None


class _Check(NamedTuple):
    """Whether the usable memory is above what is required (None: unknown), and the amounts in bytes."""

    above: bool | None = None
    required: int | None = None
    most: int | None = None
    shortfall: int | None = None


def _check(
    request: Request, usable: int | None, mark: int | None, reserve: int | None, possible: set[int]
) -> _Check:
    """The comparison with mark and reserve. An unknown ``reserve`` is one of ``possible``, if any is."""
    if mark is not None and reserve is not None:
        required = 0 if request.no_watermarks else mark + reserve
        if usable is None:
            return _Check(None, required, required)
        # without a mark, at least one page must be free
        above = usable > required or (request.no_watermarks and request.order > 0)
        return _Check(above, required, required, None if above else required - usable)
    if usable is None or mark is None:
        return _Check()
    # all possible amounts may give the same answer
    if (request.no_watermarks and usable > 0) or (possible and usable > mark + max(possible)):
        return _Check(above=True)
    least = mark + min(possible, default=0)
    if usable > least:
        return _Check()
    return _Check(False, least, mark + max(possible) if possible else None, least - usable)


def _verdict(
    zone: Zone,
    request: Request,
    wanted: str,
    layouts: tuple[tuple[str, ...], ...],
    page_size: int | None,
    one_block: bool | None,
) -> ZoneVerdict:
    if _rank(zone.zone) > _rank(wanted):
        return ZoneVerdict(record=zone, allowed=False, excluded_by="class zone")
    if zone.node is not None and request.nodes is not None and zone.node not in request.nodes:
        return ZoneVerdict(record=zone, allowed=False, excluded_by="nodes")
    if zone.managed_bytes == 0:
        return ZoneVerdict(record=zone, allowed=False, excluded_by="empty")
    free, minimum = zone.bytes_of("free"), zone.bytes_of("min")
    unit = page_size or 1
    highatomic = 0 if request.into_reserves else _highatomic(zone)
    cma = 0 if request.cma else zone.bytes_of("free_cma") or 0
    rest_of_block = ((1 << request.order) - 1) * (page_size or _LEAST_PAGE)
    reserve = reserve_for(zone, wanted, layouts)
    usable = mark = None
    if free is not None:
        usable = free - highatomic - cma - rest_of_block
    if minimum is not None:
        if request.high and not request.order:
            # zone_watermark_fast() retries such a request without the boost (5.9+)
            minimum -= zone.bytes_of("boost") or 0
        mark = _reduced(minimum // unit, request) * unit
    possible = _reserves(zone, wanted, layouts) if reserve is None else set()
    check = _check(request, usable, mark, reserve, possible)
    if page_size is None and request.order:
        # the block was taken for the smallest possible: if it is larger, less is usable; only a no is sure
        check = check._replace(most=None) if check.above is False else check._replace(above=None)
        usable = usable if check.above is False else None
    block = _block_available(zone, request, one_block, mark, page_size)
    return ZoneVerdict(
        record=zone,
        allowed=True,
        highatomic_bytes=highatomic,
        cma_bytes=cma,
        usable_bytes=usable,
        mark_bytes=mark,
        reserve_bytes=reserve,
        required_bytes=check.required,
        required_most_bytes=check.most,
        shortfall_bytes=check.shortfall,
        block_available=block,
        fits=None if request.order_unknown and check.above else _both(check.above, block),
        last_short_bytes=_last_short(zone, request, free, highatomic + rest_of_block, reserve),
    )


def _last_short(zone: Zone, request: Request, free: int | None, less: int, reserve: int | None) -> int | None:
    """The shortfall in the kernel's last check, made under the OOM lock just before it kills."""
    high, cma = zone.bytes_of("high"), zone.bytes_of("free_cma") or 0
    if free is None or high is None or reserve is None or request.no_watermarks:
        return None
    short = high + reserve - (free - less - cma)
    return short if short >= 0 else None


def _both(first: bool | None, second: bool | None) -> bool | None:
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


def _highatomic(zone: Zone) -> int:
    """The reserve for high-order atomic requests: its free part if printed (6.16+; the kernel counts it since
    6.12), else the whole reserve (5.6+), else at least what is free in its lists alone (4.4 to 5.5 have a
    reserve but do not print it)."""
    for name in ("free_highatomic", "reserved_highatomic"):
        printed = zone.bytes_of(name)
        if printed is not None:
            return printed
    return in_lists_alone(zone, "H")


def in_lists_alone(zone: Zone, letters: str) -> int:
    """The bytes of free blocks that are in lists of these migrate types alone, by the buddy line's letters: a
    lower bound of what is free there, for one letter may stand for a part of the blocks of an order."""
    blocks, unit = zone.free_blocks or (), zone.free_blocks_total_bytes or 0
    pages = sum(b.count << b.order for b in blocks)
    alone = sum(b.count << b.order for b in blocks if b.migratetypes and set(b.migratetypes) <= set(letters))
    return unit * alone // pages if pages else 0


def _reduced(pages: int, request: Request) -> int:
    """min in pages as __zone_watermark_ok() reduces it for privileged requests (integer arithmetic)."""
    if request.high:
        pages -= pages // 2
    if request.victim:
        pages -= pages // 2  # instead of a quarter
    elif request.harder:
        pages -= pages // 4
    return pages


def suits(order: int, migratetypes: str | None, request: Request) -> bool:
    """Whether a free block of ``order`` in these lists (the buddy line's letters) can serve ``request``."""
    if order < request.order:
        return False
    if migratetypes is None:
        return True  # up to 3.7 no letters are printed
    # before 6.12 no single page comes from the high-order atomic reserve, not even for atomic requests
    reserve = request.into_reserves and (request.order > 0 or request.victim)
    usable = "UMER" + ("C" if request.cma else "") + ("H" if reserve else "")
    return any(letter in usable for letter in migratetypes)


def _block_available(
    zone: Zone, request: Request, one_block: bool | None, mark: int | None, page_size: int | None
) -> bool | None:
    blocks = zone.free_blocks
    if blocks is None or not any(b.count for b in blocks):
        return True if request.order == 0 else None if blocks is None else False
    if not any(b.count and suits(b.order, b.migratetypes, request) for b in blocks):
        # 6.16+ (free_highatomic): a single page may come from the reserve, too
        return request.order == 0 and "free_highatomic_bytes" in zone.amounts and request.into_reserves
    if one_block or request.order == 0:
        return True
    free = zone.bytes_of("free")
    if one_block is None or free is None or mark is None or page_size is None:
        return None
    pages, needed = free // page_size - ((1 << request.order) - 1), mark // page_size
    count = {b.order: b.count for b in blocks}
    for order in range(request.order):
        pages -= count.get(order, 0) << order
        needed >>= 1
        if pages <= needed:
            return False
    return True


def boost_bytes(zone: Zone, page_size: int | None) -> int:
    """The watermark boost that ``min`` includes (5.0+): as printed (5.16+), else a lower bound.

    low is above min by at least a quarter of min (__setup_per_zone_wmarks()), and the boost raises both by
    the same amount. So the part of min above four times their distance is a boost, apart from rounding.
    """
    printed = zone.bytes_of("boost")
    if printed is not None:
        return printed
    minimum, low = zone.bytes_of("min"), zone.bytes_of("low")
    if minimum is None or low is None or page_size is None or low <= minimum:
        return 0
    return max(minimum - 4 * (low - minimum) - 3 * page_size, 0)


def unusable_free_index(zone: Zone, order: int) -> float | None:
    """The share of a zone's free memory that cannot serve a request of ``order``, 0.0 to 1.0
    (mm/vmstat.c: unusable_free_index()); None without a buddy line or without free memory."""
    if not zone.free_blocks:
        return None
    total = sum(b.count << b.order for b in zone.free_blocks)
    large = sum(b.count << b.order for b in zone.free_blocks if b.order >= order)
    return (total - large) / total if total else None
