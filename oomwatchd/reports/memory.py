"""Nodes, zones, swap, page counts: the Memory of a report, and the page size they are counted in.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from oomwatchd.formats.parts import MemoryLines, Parts, ZoneLines
from oomwatchd.records.report import Memory, Swap, Zone

_PAGE_SIZES_KB = (4, 8, 16, 32, 64, 256)


def page_size_of(parts: Parts, given: int | None) -> int | None:
    """Bytes: the buddy list's order 0 block; else a victim's total-vm in kB against its row in pages;
    else ``given``, the host's own."""
    if parts.memory.buddy_page_size:
        return parts.memory.buddy_page_size
    for victim in parts.outcome.victims.values():
        kb = victim.figures.get("total-vm", victim.figures.get("vsz"))
        pages = parts.table.figure(victim.pid, "total_vm")
        if kb and pages and kb % pages == 0 and kb // pages in _PAGE_SIZES_KB:
            return kb // pages * 1024
    return given


def memory_of(parts: Parts, page_size: int | None) -> Memory | None:
    """The Mem-Info part; None where the report has nothing of it. Amounts printed in pages are None where
    the page size is unknown."""
    lines = parts.memory
    if not (lines.totals or lines.zones or lines.nodes or lines.pages or lines.swap_kb):
        return None

    def in_bytes(name: str) -> int | None:
        pages = lines.pages.get(name)
        return None if pages is None or page_size is None else pages * page_size

    return Memory(
        totals={
            f"{name}_bytes": None if page_size is None else pages * page_size
            for name, pages in lines.totals.items()
        },
        nodes=tuple(lines.nodes.values()),
        zones=tuple(_zone(zone, page_size) for zone in lines.zones.values()),
        swap=_swap(lines, in_bytes("swap_cache")),
        pagecache_bytes=in_bytes("pagecache"),
        ram_bytes=in_bytes("ram"),
        highmem_bytes=in_bytes("highmem"),
        reserved_bytes=in_bytes("reserved"),
        cma_reserved_bytes=in_bytes("cma_reserved"),
        hwpoisoned_bytes=in_bytes("hwpoisoned"),
        hugepages=tuple(lines.hugepages),
        other_pages=lines.other_pages,
    )


def _swap(lines: MemoryLines, cache_bytes: int | None) -> Swap | None:
    if not lines.swap_kb and "swap_cache" not in lines.pages:
        return None
    free, total = lines.swap_kb.get("Free"), lines.swap_kb.get("Total")
    return Swap(
        free_bytes=None if free is None else free * 1024,
        total_bytes=None if total is None else total * 1024,
        cache_bytes=cache_bytes,
    )


def _zone(lines: ZoneLines, page_size: int | None) -> Zone:
    reserve = None
    if lines.reserve is not None and page_size is not None:
        reserve = tuple(pages * page_size for pages in lines.reserve)
    return Zone(
        node=lines.node,
        zone=lines.zone,
        amounts=lines.amounts,
        lowmem_reserve_bytes=reserve,
        free_blocks=lines.blocks,
        free_blocks_total_bytes=lines.blocks_total,
    )
