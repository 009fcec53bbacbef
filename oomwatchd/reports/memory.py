"""The Memory of a report (nodes, zones, swap, page counts) and the page size it is counted in.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from math import gcd

from oomwatchd.formats.parts import MemoryLines, Parts, ZoneLines
from oomwatchd.records.report import Memory, Swap, Zone

_PAGE_SIZES_KB = (4, 8, 16, 32, 64, 256)
_SMALLEST = 4096
#: architectures whose kernels have only one page size
_ONE_SIZE = {"x86_64": 4096, "i386": 4096, "i486": 4096, "i586": 4096, "i686": 4096, "s390x": 4096} | {
    "riscv64": 4096,
    "arm": 4096,
    "armv7hl": 4096,
    "sparc64": 8192,
}
#: the fewest pages of a count that is used; how far two amounts may differ that were read almost together,
#: and that were read at different times; how many counters must agree
_PAGES, _SMALL, _LARGE, _AGREE = 64, 0.02, 0.2, 3


def page_size_of(parts: Parts, given: int | None, arch: str | None) -> int | None:
    """The page size in bytes: from the buddy list's order 0 block; else from an amount that is printed both
    in pages and in kB; else the architecture's only page size; else from what page tables consist of; else
    ``given``, the host's own."""
    if parts.memory.buddy_page_size:
        return parts.memory.buddy_page_size
    for victim in parts.outcome.victims.values():
        kb = victim.figures.get("total-vm", victim.figures.get("vsz"))
        pages = parts.table.figure(victim.pid, "total_vm")
        if kb and pages and kb % pages == 0 and kb // pages in _PAGE_SIZES_KB:
            return kb // pages * 1024
    return (
        _of_both_counts(parts.memory)
        or _of_resident(parts)
        or _ONE_SIZE.get(arch or "")
        or (_of_page_tables(parts) if given is None else given)
    )


def _of_both_counts(lines: MemoryLines) -> int | None:
    """The page size from the totals, which are in pages, and the same counters of all nodes (4.8+) or of all
    zones, which are in kB. The kernel reads them one after another, so they differ a little, and nodes may be
    left out: three must agree. A small count says something only if the two agree to the page."""
    found: list[int] = []
    for name, pages in lines.totals.items():
        for amounts in ([n.amounts for n in lines.nodes.values()], [z.amounts for z in lines.zones.values()]):
            held = [int(one[f"{name}_bytes"]) for one in amounts if f"{name}_bytes" in one]
            size = (
                _nearest(sum(held), pages, _SMALL if pages >= _PAGES else 0) if held and pages > 0 else None
            )
            if size is not None:
                found.append(size)
    size = max(set(found), key=found.count, default=None)
    return size if size is not None and found.count(size) >= _AGREE > len(found) - found.count(size) else None


def _of_resident(parts: Parts) -> int | None:
    """The page size from the kill line's resident memory, in kB, and the victim's row, in pages. The process
    may have grown between the two."""
    for victim in parts.outcome.victims.values():
        kinds = [victim.figures.get(kind) for kind in ("anon-rss", "file-rss", "shmem-rss")]
        kb, pages = sum(kind or 0 for kind in kinds), parts.table.figure(victim.pid, "rss")
        if None not in kinds[:2] and pages is not None and pages >= _PAGES:
            return _nearest(kb * 1024, pages, _LARGE)
    return None


def _of_page_tables(parts: Parts) -> int | None:
    """The smallest page size, if page tables consist of pages of it: mm_pgtables_bytes() counts whole tables,
    and these are pages on the machines that have pages of 16 or 64 KiB too, except on POWER, whose tables
    are smaller. So a common measure of several processes that is not larger tells. Without it nothing
    does."""
    sizes = set(parts.table.column("pgtables_bytes")) - {0}
    return _SMALLEST if len(sizes) >= _AGREE and gcd(*sizes) == _SMALLEST else None


def _nearest(amount: int, pages: int, off: float) -> int | None:
    """The page size with which ``pages`` come nearest to ``amount``, within the share ``off`` of it."""
    sizes = (size * 1024 for size in _PAGE_SIZES_KB)
    return next((size for size in sizes if abs(amount - size * pages) <= off * size * pages), None)


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
    if lines.reserve is not None and (page_size is not None or not any(lines.reserve)):
        # no pages are no bytes, however large a page is
        reserve = tuple(pages * (page_size or 0) for pages in lines.reserve)
    return Zone(
        node=lines.node,
        zone=lines.zone,
        amounts=lines.amounts,
        lowmem_reserve_bytes=reserve,
        free_blocks=lines.blocks,
        free_blocks_total_bytes=lines.blocks_total,
    )
