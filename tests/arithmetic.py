"""A second implementation of the kernel's sums, to compare with the program's.

It is written only from the kernel's sources and chooses by **version**; the program chooses by the wording of
the lines. It does not use the package: it takes an event in the form of the JSON contract (dicts, amounts in
bytes).

* mm/oom_kill.c: ``oom_badness()``, ``constrained_alloc()``; mm/memcontrol.c: ``mem_cgroup_get_limit()``
* mm/page_alloc.c: ``__zone_watermark_ok()``, ``gfp_to_alloc_flags()``; include/linux/gfp.h: ``gfp_zone()``

If a log lacks the version or a term of the sum, all possible results are returned: the program's figure must
be among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any, NamedTuple

Json = dict[str, Any]
Version = tuple[int, int, int]

FIRST: Version = (2, 6, 32)
LAST: Version = (99, 0, 0)

#: a printed name and the versions that print it (show_free_areas(), show_free_areas' node and zone lines)
_ZONE_NAMES: dict[str, tuple[Version, Version]] = {
    "pages_scanned": (FIRST, (4, 7, 99)),
    "isolated(anon)_bytes": (FIRST, (4, 7, 99)),
    "slab_reclaimable_bytes": (FIRST, (4, 12, 99)),
    "kernel_stack_bytes": (FIRST, (5, 8, 99)),
    "pagetables_bytes": (FIRST, (5, 10, 99)),
    "free_cma_bytes": ((3, 7, 0), LAST),
    "managed_bytes": ((3, 8, 0), LAST),
    "free_pcp_bytes": ((4, 1, 0), LAST),
    "writepending_bytes": ((4, 8, 0), LAST),
    "reserved_highatomic_bytes": ((5, 6, 0), LAST),
    "boost_bytes": ((5, 16, 0), LAST),
    "free_highatomic_bytes": ((6, 16, 0), LAST),
}


class Versions(NamedTuple):
    """The first and the last kernel that may have printed a report."""

    first: Version
    last: Version

    def any_from(self, version: Version) -> bool:
        return self.last >= version

    def any_before(self, version: Version) -> bool:
        return self.first < version

    def choices(self, version: Version) -> tuple[bool, ...]:
        """Whether the kernel is of ``version`` or newer: what is possible."""
        return tuple(
            dict.fromkeys(
                [*([True] if self.any_from(version) else []), *([False] if self.any_before(version) else [])]
            )
        )


def versions(event: Json) -> Versions:
    """From the kernel's name and, where that is not printed or a vendor's, from what its lines have.

    A vendor's kernel keeps its number and takes newer code in (2.6.32 and 3.10 of Enterprise Linux): the
    names on the lines win.
    """
    first, last = FIRST, LAST
    for zone in (event.get("memory") or {}).get("zones") or ():
        for name, (begin, end) in _ZONE_NAMES.items():
            if name in zone["amounts"]:
                first, last = max(first, begin), min(last, end)
    for task in event.get("tasks") or ():
        if task.get("pgtables_bytes") is not None:
            first = max(first, (4, 15, 0))
        elif "nr_pmds" in (task.get("extra") or {}):
            first, last = max(first, (4, 0, 0)), min(last, (4, 14, 99))
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", event.get("kernel") or "")
    vendor = re.search(r"\.el\d|\.fc\d|uek|grsec", event.get("kernel") or "")
    if found and not vendor:
        named = (int(found[1]), int(found[2]), int(found[3] or 0))
        if first <= named <= last:
            return Versions(named, named)
    return Versions(first, last)


# ---- oom_badness()


class Weighed(NamedTuple):
    """What oom_badness() can have given each task, by pid; None: exempt."""

    total_pages: int | None
    root_bonus: str
    points: dict[int, int | None]


def _tables(task: Json, page: int) -> int:
    if task.get("pgtables_bytes") is not None:
        return int(task["pgtables_bytes"]) // page
    return (task.get("page_tables") or 0) + ((task.get("extra") or {}).get("nr_pmds") or 0)


def _badness(task: Json, page: int, total: int | None, style: str, bonus: str, *, floor: bool) -> int | None:
    adj = task.get("oom_score_adj")
    if task["pid"] == 1 or adj == -1000:
        return None  # is_global_init(), OOM_SCORE_ADJ_MIN
    root = task.get("uid") == 0
    if style == "2.6.32":
        shift: int = (task.get("extra") or {}).get("oom_adj") or 0
        if shift == -17:
            return None  # OOM_DISABLE
        points: int = (task.get("total_vm_bytes") or 0) // page
        if shift > 0:
            return max(points, 1) << shift
        return points >> -shift
    points = int(task["rss_bytes"]) // page + _tables(task, page) + (task.get("swap_bytes") or 0) // page
    adj = int(adj or 0)
    if style == "2.6.36":
        if not total:
            return points
        points = points * 1000 // total - (30 if root and bonus == "30 of 1000" else 0) + adj
        return min(max(points, 1), 1000)
    if root and bonus == "30 of 1000":
        adj -= 30
    if root and bonus == "3 % of its own":
        points -= points * 3 // 100
    points += adj * ((total or 0) // 1000)
    return max(points, 1) if floor else points


def _memcg_totals(event: Json, page: int, swap: int | None) -> Iterator[int]:
    """mem_cgroup_get_limit(): the limit, and as much swap as the group may use and the machine has. How much
    the machine has, the report of a cgroup does not print."""
    memcg = event.get("memcg") or {}
    limit = (memcg.get("memory") or {}).get("limit_bytes")
    if limit is None:
        return
    yield limit // page  # no swap, or swappiness 0
    for counter, own in (("swap", True), ("memory_swap", False)):
        ceiling = (memcg.get(counter) or {}).get("limit_bytes")
        if ceiling is not None:
            room = ceiling if own else max(ceiling - limit, 0)
            yield (limit + min(room, swap or 0)) // page
            if swap is None:
                yield (limit + room) // page
    yield (limit + (swap or 0)) // page


def _nodes(text: str | None) -> set[int] | None:
    if not text or not re.fullmatch(r"[\d,-]+", text):
        return None
    out: set[int] = set()
    for part in text.split(","):
        low, _, high = part.partition("-")
        out |= set(range(int(low), int(high or low) + 1))
    return out


def totals(event: Json, page: int) -> list[int]:
    """constrained_alloc(): every ``totalpages`` that the printed figures allow, in pages.

    totalram_pages is not printed. It is what the zones manage, or RAM less what is reserved; CMA is part of
    "reserved" in 3.19 to 4.1 and is given to the allocator later.
    """
    memory = event.get("memory") or {}
    swap = (memory.get("swap") or {}).get("total_bytes")
    constraint = event.get("constraint")
    if constraint == "memcg":
        return sorted(set(_memcg_totals(event, page, swap)))
    more = (swap or 0) // page
    zones = memory.get("zones") or []
    found: set[int] = set()
    allowed = None
    trigger = event.get("trigger") or {}
    if constraint in ("memory_policy", "cpuset"):
        allowed = _nodes(trigger.get("nodemask" if constraint == "memory_policy" else "mems_allowed"))
    if allowed is not None:
        present = [z["amounts"].get("present_bytes") for z in zones if z["node"] in allowed]
        if present and None not in present:
            found.add(sum(present) // page + more)
    ram, reserved = memory.get("ram_bytes"), memory.get("reserved_bytes") or 0
    if ram is not None:
        found.add((ram - reserved) // page + more)
        found.add((ram - reserved - (memory.get("cma_reserved_bytes") or 0)) // page + more)
    managed = [z["amounts"].get("managed_bytes", z["amounts"].get("present_bytes")) for z in zones]
    if managed and None not in managed:
        found.add(sum(managed) // page + more)
    return sorted(found)


def weigh(event: Json, floors: Iterable[bool] | None = None) -> list[Weighed]:
    """Every score table that figures and version allow; empty without a table or a page size."""
    page = event.get("page_size_bytes")
    tasks = [t for t in event.get("tasks") or () if t.get("rss_bytes") is not None]
    if not page or not tasks:
        return []
    when = versions(event)
    if all(t.get("oom_score_adj") is None for t in tasks):
        styles = ["2.6.32"]
    elif all(t.get("swap_bytes") is None for t in tasks):
        styles = ["2.6.36"]
    else:
        styles = ["3.6"]
    bonuses = ["none"]  # CAP_SYS_ADMIN is not printed; a container's root has none
    if styles != ["2.6.32"]:
        if when.any_before((3, 14, 0)):
            bonuses.append("30 of 1000")
        if when.any_from((3, 14, 0)) and when.any_before((4, 17, 0)):
            bonuses.append("3 % of its own")
    # "mm, oom: make the calculation of oom badness more accurate" (5.9) lets points be negative; it went into
    # stable kernels, so both are possible from 4.19 on
    floor = tuple(floors or ((True,) if when.last < (4, 19, 0) else (True, False)))
    sums: list[int | None] = [*totals(event, page)]
    return [
        Weighed(total, bonus, {t["pid"]: _badness(t, page, total, style, bonus, floor=low) for t in tasks})
        for style in styles
        for bonus in bonuses
        for low in floor
        for total in (sums or [None])
    ]


# ---- __zone_watermark_ok()

_TYPES = ("DMA", "DMA32", "Normal", "HighMem", "Movable", "Device")
_ALWAYS = {"Normal", "Movable"}
#: what a composite is made of, as far as gfp_to_alloc_flags() looks
_MADE_OF = {
    "GFP_ATOMIC": "__GFP_HIGH __GFP_ATOMIC __GFP_KSWAPD_RECLAIM",
    "GFP_NOWAIT": "__GFP_KSWAPD_RECLAIM",
    "GFP_HIGHUSER_MOVABLE": "GFP_HIGHUSER __GFP_MOVABLE",
    "GFP_HIGHUSER": "GFP_USER __GFP_HIGHMEM",
    "GFP_USER": "GFP_KERNEL __GFP_HARDWALL",
    "GFP_KERNEL_ACCOUNT": "GFP_KERNEL __GFP_ACCOUNT",
    "GFP_TEMPORARY": "GFP_KERNEL __GFP_RECLAIMABLE",
    "GFP_KERNEL": "__GFP_RECLAIM __GFP_IO __GFP_FS",
    "GFP_NOFS": "__GFP_RECLAIM __GFP_IO",
    "GFP_NOIO": "__GFP_RECLAIM",
    "GFP_TRANSHUGE": "GFP_HIGHUSER_MOVABLE __GFP_COMP __GFP_NOMEMALLOC __GFP_NOWARN",
    "GFP_TRANSHUGE_LIGHT": "__GFP_IO __GFP_FS __GFP_HARDWALL __GFP_HIGHMEM __GFP_MOVABLE __GFP_NOMEMALLOC",
    "GFP_DMA": "__GFP_DMA",
    "GFP_DMA32": "__GFP_DMA32",
    "__GFP_WAIT": "__GFP_RECLAIM",
    "__GFP_RECLAIM": "__GFP_DIRECT_RECLAIM __GFP_KSWAPD_RECLAIM",
}


def single(names: Iterable[str]) -> set[str]:
    """Flags without composites."""
    out: set[str] = set()
    open_ = list(names)
    while open_:
        name = open_.pop()
        if name in _MADE_OF:
            open_ += _MADE_OF[name].split()
        else:
            out.add(name)
    return out


class Asked(NamedTuple):
    """A request as gfp_to_alloc_flags() sees it."""

    order: int
    zone: str
    high: bool
    atomic: bool
    no_marks: bool
    movable: bool
    nodes: set[int] | None


def asked(event: Json) -> Asked | None:
    """What failed; None if there was no request or its flags are unknown."""
    trigger = event.get("trigger") or {}
    names, order = trigger.get("gfp_flags"), trigger.get("order")
    if trigger.get("sysrq") or order is None or order < 0 or not names or trigger.get("gfp_mask") == 0:
        return None
    flags = single(names)
    if "__GFP_DMA" in flags:
        zone = "DMA"
    elif "__GFP_DMA32" in flags:
        zone = "DMA32"
    elif "__GFP_HIGHMEM" in flags:
        zone = "Movable" if "__GFP_MOVABLE" in flags else "HighMem"
    else:
        zone = "Normal"
    reclaims = bool(flags & {"__GFP_DIRECT_RECLAIM", "__GFP_NO_KSWAPD", "__GFP_KSWAPD_RECLAIM"})
    waits = reclaims and "__GFP_ATOMIC" not in flags
    nodes = _nodes(trigger.get("nodemask"))
    if event.get("constraint") == "cpuset" or "__GFP_HARDWALL" in flags:
        mems = _nodes(trigger.get("mems_allowed"))
        if mems is not None:
            nodes = mems if nodes is None else nodes & mems
    spares = "__GFP_NOMEMALLOC" not in flags
    return Asked(
        order=order,
        zone=trigger.get("highest_zone") or zone,
        high="__GFP_HIGH" in flags,
        atomic=not waits and spares,
        no_marks="__GFP_MEMALLOC" in flags and spares,
        movable="__GFP_MOVABLE" in flags,
        nodes=nodes,
    )


def _builds(zones: list[Json]) -> list[tuple[str, ...]]:
    """The zone types this kernel may have been built with: as many as lowmem_reserve[] has entries.
    setup_per_zone_lowmem_reserve() leaves a zone's entries up to its own at 0."""
    lengths = {len(z["lowmem_reserve_bytes"]) for z in zones if z.get("lowmem_reserve_bytes")}
    if len(lengths) != 1:
        return []
    (length,) = lengths
    out = []
    for build in combinations(_TYPES, length):
        if not set(build) >= _ALWAYS | {z["zone"] for z in zones}:
            continue
        own = (
            (z["lowmem_reserve_bytes"], build.index(z["zone"]))
            for z in zones
            if z.get("lowmem_reserve_bytes")
        )
        if not any(any(entries[: at + 1]) for entries, at in own):
            out.append(build)
    return out


def zone_answers(event: Json, zone: Json, request: Asked) -> set[bool | None]:
    """__zone_watermark_ok() on the printed figures, for each version and build that is possible; None stands
    for a zone that the request does not come to."""
    page = event.get("page_size_bytes")
    zones = event["memory"]["zones"]
    wanted = request.zone
    builds = _builds(zones)
    if builds and all(wanted not in build for build in builds):
        wanted = "Normal"
    if zone["zone"] in _TYPES and _TYPES.index(zone["zone"]) > _TYPES.index(wanted):
        return {None}
    if request.nodes is not None and zone["node"] is not None and zone["node"] not in request.nodes:
        return {None}
    amounts = zone["amounts"]
    if amounts.get("managed_bytes", amounts.get("present_bytes")) == 0:
        return {None}
    if page is None or "free_bytes" not in amounts or "min_bytes" not in amounts:
        return {True, False}
    if not builds or not zone.get("lowmem_reserve_bytes"):
        return {True, False}
    when = versions(event)
    answers: set[bool | None] = set()
    for build in builds:
        place = build.index(wanted if wanted in build else "Normal")
        reserve = zone["lowmem_reserve_bytes"][place] // page
        for one_block in when.choices((4, 4, 0)):
            for marks_of_6_2 in when.choices((6, 2, 0)):
                if marks_of_6_2 and not one_block:
                    continue
                answers.add(_ok(zone, request, page, reserve, one_block, marks_of_6_2))
    return answers


def _ok(zone: Json, request: Asked, page: int, reserve: int, one_block: bool, newer: bool) -> bool:
    amounts = zone["amounts"]
    free = amounts["free_bytes"] // page
    least = amounts["min_bytes"] // page
    if request.high and not request.order:
        least -= (amounts.get("boost_bytes") or 0) // page  # zone_watermark_fast()
    if request.no_marks:
        return True
    if request.high:
        least -= least // 2
    if request.atomic and (request.high or not newer):
        least -= least // 4
    usable = free - ((1 << request.order) - 1)
    cma = 0 if request.movable else (amounts.get("free_cma_bytes") or 0) // page
    reserves_open = request.atomic or (newer and request.high)
    held = 0
    if one_block and not reserves_open:
        held = amounts.get("free_highatomic_bytes", amounts.get("reserved_highatomic_bytes", 0)) // page
    if usable - cma - held <= least + reserve:
        return False
    if request.order == 0:
        return True
    blocks = zone.get("free_blocks")
    if blocks is None:
        return True
    letters = "UMER" + ("C" if request.movable else "") + ("H" if request.atomic else "")
    suitable = any(
        b["count"]
        and b["order"] >= request.order
        and (b.get("migratetypes") is None or set(b["migratetypes"]) & set(letters))
        for b in blocks
    )
    if one_block or not suitable:
        return suitable
    counts = {b["order"]: b["count"] for b in blocks}
    for order in range(request.order):
        usable -= counts.get(order, 0) << order
        least >>= 1
        if usable <= least:
            return False
    return True
