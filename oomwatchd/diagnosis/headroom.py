"""How far a host is from running out: the room above each zone's watermark, how broken up its free memory
is, what is available, how long tasks wait, and the room below each cgroup's own limit.

Read from the kernel's files as they stand in a snapshot: /proc/zoneinfo, buddyinfo, meminfo,
pressure/memory (proc(5), Documentation/accounting/psi.rst). What a file does not say is left out.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from oomwatchd.records.capture import Snapshot

#: zones of one host that are looked at; 4 nodes have about 6
MAX_ZONES = 64
_ZONE = re.compile(r"^Node (\d+), zone +(\S+)", re.MULTILINE)
_AMOUNT = re.compile(r"^ +(?:pages )?(free|min|low|high|managed) +(\d+) *$", re.MULTILINE)
_PROTECTION = re.compile(r"^ +protection: \(([\d, ]+)\)", re.MULTILINE)
_BLOCKS = re.compile(r"^Node (\d+), zone +(\S+)((?: +\d+)+) *$", re.MULTILINE)
_MEMINFO = re.compile(r"^(MemTotal|MemAvailable): +(\d+) kB$", re.MULTILINE)
_PRESSURE = re.compile(r"^(some|full) avg10=([\d.]+) avg60=([\d.]+) avg300=([\d.]+) ", re.MULTILINE)


class ZoneDistance(msgspec.Struct, frozen=True, kw_only=True):
    """One zone; amounts in bytes. ``blocks`` are the free blocks of each order."""

    node: int
    zone: str
    managed_bytes: int
    free_bytes: int
    min_bytes: int
    #: kept from requests that could be served by a higher zone (lowmem_reserve); here for the highest
    reserve_bytes: int
    blocks: tuple[int, ...] = ()

    @property
    def headroom_bytes(self) -> int:
        """Free memory above what an order-0 request for movable memory must leave
        (__zone_watermark_ok()); when no zone has any and reclaim finds nothing, the OOM killer comes."""
        return self.free_bytes - self.min_bytes - self.reserve_bytes

    @property
    def largest_free_order(self) -> int:
        """The order of the largest free block, -1 if nothing is free."""
        return max((order for order, count in enumerate(self.blocks) if count), default=-1)

    def unusable_free_ratio(self, order: int) -> float:
        """The share of free memory that is in blocks too small for ``order`` (mm/vmstat.c:
        unusable_free_index()); 0 where nothing is free."""
        free = sum(count << at for at, count in enumerate(self.blocks))
        fits = sum(count << at for at, count in enumerate(self.blocks) if at >= order)
        return (free - fits) / free if free else 0.0


class CgroupDistance(msgspec.Struct, frozen=True, kw_only=True):
    """A cgroup with a limit of its own. ``reclaimable_bytes`` is inactive page cache, which goes first."""

    path: str
    limit_bytes: int
    usage_bytes: int
    reclaimable_bytes: int = 0

    @property
    def headroom_bytes(self) -> int:
        """What it may still be charged before something of it must be killed or swapped."""
        return self.limit_bytes - self.usage_bytes + min(self.reclaimable_bytes, self.usage_bytes)


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """All of it at one moment; None or empty is what the host does not show. ``pressure`` maps
    ("some" or "full", window in seconds) to the share of time that tasks waited for memory."""

    total_bytes: int | None = None
    available_bytes: int | None = None
    pressure: Mapping[tuple[str, int], float] = {}
    zones: tuple[ZoneDistance, ...] = ()
    cgroups: tuple[CgroupDistance, ...] = ()


def distance(snapshot: Snapshot, page_size: int, cgroups: tuple[CgroupDistance, ...] = ()) -> Distance:
    """What a snapshot says. Never raises."""
    memory = {m[1]: int(m[2]) * 1024 for m in _MEMINFO.finditer(snapshot.parts.get("meminfo", ""))}
    pressure = {}
    for m in _PRESSURE.finditer(snapshot.parts.get("pressure_memory", "")):
        for window, value in zip((10, 60, 300), m.groups()[1:], strict=True):
            pressure[m[1], window] = float(value) / 100
    return Distance(
        total_bytes=memory.get("MemTotal"),
        available_bytes=memory.get("MemAvailable"),
        pressure=pressure,
        zones=_zones(snapshot, page_size),
        cgroups=cgroups,
    )


def _zones(snapshot: Snapshot, page_size: int) -> tuple[ZoneDistance, ...]:
    text = snapshot.parts.get("zoneinfo", "")
    blocks = {
        (int(m[1]), m[2]): tuple(map(int, m[3].split()))
        for m in _BLOCKS.finditer(snapshot.parts.get("buddyinfo", ""))
    }
    heads = list(_ZONE.finditer(text))
    zones = []
    for head, following in zip(heads, [*heads[1:], None], strict=True) if heads else ():
        # the page sets of each CPU follow and use some of the same words
        body = text[head.end() : following.start() if following else None].partition("pagesets")[0]
        pages: dict[str, int] = {}
        for m in _AMOUNT.finditer(body):
            pages.setdefault(m[1], int(m[2]))
        if not pages.get("managed") or "free" not in pages or "min" not in pages:
            continue
        node, zone = int(head[1]), head[2]
        protection = _PROTECTION.search(body)
        # one entry for each type of zone that a request may be for, never falling: the last is Movable's
        reserve = max(map(int, protection[1].split(","))) if protection else 0
        zones.append(
            ZoneDistance(
                node=node,
                zone=zone,
                managed_bytes=pages["managed"] * page_size,
                free_bytes=pages["free"] * page_size,
                min_bytes=pages["min"] * page_size,
                reserve_bytes=reserve * page_size,
                blocks=blocks.get((node, zone), ()),
            )
        )
    return tuple(zones[:MAX_ZONES])
