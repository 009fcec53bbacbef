"""How far a host is from running out of memory.

The figures are the room above each zone's watermark, the fragmentation of its free memory, the available
memory, the time that tasks wait, and the room below each cgroup's own limit.

It is computed from the kernel's files in a snapshot. Figures that no file gives are omitted.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from oomwatchd.procfs import buddyinfo, meminfo, memory_pressure, zoneinfo
from oomwatchd.records.capture import Snapshot

#: Largest number of zones of one host that are read; 4 nodes have about 6.
MAX_ZONES = 64


class ZoneHeadroom(msgspec.Struct, frozen=True, kw_only=True):
    """One zone; amounts in bytes. ``blocks`` are the free blocks of each order."""

    node: int
    zone: str
    managed_bytes: int
    free_bytes: int
    min_bytes: int
    #: The reserve against requests that could use a higher zone (lowmem_reserve), for the highest class zone.
    reserve_bytes: int
    blocks: tuple[int, ...] = ()

    @property
    def headroom_bytes(self) -> int:
        """Free memory above what an order-0 request for movable memory must leave (__zone_watermark_ok()).
        When no zone has any and reclaim finds nothing, the OOM killer runs."""
        return self.free_bytes - self.min_bytes - self.reserve_bytes

    @property
    def largest_free_order(self) -> int:
        """The order of the largest free block; -1 if nothing is free."""
        return max((order for order, count in enumerate(self.blocks) if count), default=-1)

    def unusable_free_ratio(self, order: int) -> float:
        """The share of free memory that is in blocks too small for ``order`` (mm/vmstat.c:
        unusable_free_index()); 0 if nothing is free."""
        free = sum(count << at for at, count in enumerate(self.blocks))
        fits = sum(count << at for at, count in enumerate(self.blocks) if at >= order)
        return (free - fits) / free if free else 0.0


class CgroupHeadroom(msgspec.Struct, frozen=True, kw_only=True):
    """A cgroup with its own limit. ``reclaimable_bytes`` is inactive page cache, which goes first."""

    path: str
    limit_bytes: int
    usage_bytes: int
    reclaimable_bytes: int = 0

    @property
    def headroom_bytes(self) -> int:
        """Bytes that it may still be charged before the kernel must swap or kill."""
        return self.limit_bytes - self.usage_bytes + min(self.reclaimable_bytes, self.usage_bytes)


class Headroom(msgspec.Struct, frozen=True, kw_only=True):
    """The headroom at one moment. None or empty means that the host does not show the figure. ``pressure``
    maps ("some" or "full", window in seconds) to the share of time that tasks waited for memory."""

    total_bytes: int | None = None
    available_bytes: int | None = None
    pressure: Mapping[tuple[str, int], float] = {}
    zones: tuple[ZoneHeadroom, ...] = ()
    cgroups: tuple[CgroupHeadroom, ...] = ()


def headroom(snapshot: Snapshot, page_size: int, cgroups: tuple[CgroupHeadroom, ...] = ()) -> Headroom:
    """The headroom in a snapshot. Never raises."""
    memory = meminfo(snapshot)
    return Headroom(
        total_bytes=memory.get("MemTotal"),
        available_bytes=memory.get("MemAvailable"),
        pressure=memory_pressure(snapshot),
        zones=_zones(snapshot, page_size),
        cgroups=cgroups,
    )


def _zones(snapshot: Snapshot, page_size: int) -> tuple[ZoneHeadroom, ...]:
    blocks = buddyinfo(snapshot)
    zones = []
    for zone in zoneinfo(snapshot):
        pages = zone.pages
        if not pages.get("managed") or "free" not in pages or "min" not in pages:
            continue
        zones.append(
            ZoneHeadroom(
                node=zone.node,
                zone=zone.zone,
                managed_bytes=pages["managed"] * page_size,
                free_bytes=pages["free"] * page_size,
                min_bytes=pages["min"] * page_size,
                # the entries never decrease, so the largest is the one for movable memory
                reserve_bytes=max(zone.protection, default=0) * page_size,
                blocks=blocks.get((zone.node, zone.zone), ()),
            )
        )
    return tuple(zones[:MAX_ZONES])
