"""The memory files of /proc as a snapshot holds them. What was not read is empty, or None.

Sources: proc(5), Documentation/filesystems/proc.rst, Documentation/accounting/psi.rst.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re

import msgspec

from oomwatchd.records.capture import Snapshot
from oomwatchd.words.deferred import deferred

_MEMINFO = deferred(r"^([A-Za-z][\w()]*):\s+(\d+)( kB)?\s*$", re.MULTILINE)
_ZONE = deferred(r"^Node (\d+), zone\s+(\S+)\s*$", re.MULTILINE)
_ZONE_AMOUNT = deferred(r"^\s+(?:pages )?(free|min|low|high|managed)\s+(\d+)\s*$", re.MULTILINE)
_PROTECTION = deferred(r"^ +protection: \(([\d, ]+)\)", re.MULTILINE)
_BLOCKS = deferred(r"^Node (\d+), zone +(\S+)((?: +\d+)+) *$", re.MULTILINE)
_PRESSURE = deferred(r"^(some|full) avg10=([\d.]+) avg60=([\d.]+) avg300=([\d.]+) ", re.MULTILINE)
_OOM_KILL = deferred(r"^oom_kill ([0-9]{1,18})$", re.MULTILINE)


class HostZone(msgspec.Struct, frozen=True, kw_only=True):
    """One zone of /proc/zoneinfo; ``pages`` maps free, min, low, high, managed to pages. ``protection`` are
    the pages kept from requests that a higher zone could serve (lowmem_reserve), an entry for each type of
    zone that a request may be for."""

    node: int
    zone: str
    pages: dict[str, int]
    protection: tuple[int, ...] = ()


def meminfo(snapshot: Snapshot) -> dict[str, int]:
    """/proc/meminfo: name -> bytes (HugePages_Total and the like: as counted)."""
    return {
        m[1]: int(m[2]) * (1024 if m[3] else 1) for m in _MEMINFO.finditer(snapshot.parts.get("meminfo", ""))
    }


def zoneinfo(snapshot: Snapshot) -> tuple[HostZone, ...]:
    """/proc/zoneinfo's zones."""
    text = snapshot.parts.get("zoneinfo", "")
    heads = list(_ZONE.finditer(text))
    ends = [*(m.start() for m in heads), len(text)][1:]
    zones = []
    for head, end in zip(heads, ends, strict=True):
        # the per-CPU page sets follow and use some of the same words
        body = text[head.end() : end].partition("pagesets")[0]
        pages: dict[str, int] = {}
        for m in _ZONE_AMOUNT.finditer(body):
            pages.setdefault(m[1], int(m[2]))
        kept = _PROTECTION.search(body)
        protection = tuple(map(int, re.findall(r"\d+", kept[1]))) if kept else ()
        zones.append(HostZone(node=int(head[1]), zone=head[2], pages=pages, protection=protection))
    return tuple(zones)


def buddyinfo(snapshot: Snapshot) -> dict[tuple[int, str], tuple[int, ...]]:
    """/proc/buddyinfo: (node, zone) -> the free blocks of each order."""
    return {
        (int(m[1]), m[2]): tuple(map(int, m[3].split()))
        for m in _BLOCKS.finditer(snapshot.parts.get("buddyinfo", ""))
    }


def memory_pressure(snapshot: Snapshot) -> dict[tuple[str, int], float]:
    """/proc/pressure/memory: ("some" or "full", window in seconds) -> the share of time (0 to 1) that tasks
    waited for memory."""
    return {
        (m[1], window): float(value) / 100
        for m in _PRESSURE.finditer(snapshot.parts.get("pressure_memory", ""))
        for window, value in zip((10, 60, 300), m.groups()[1:], strict=True)
    }


def oom_kills(vmstat: str) -> int | None:
    """The kernel's own count of OOM kills since boot (``oom_kill`` in /proc/vmstat, 4.13+); None where there
    is none."""
    found = _OOM_KILL.search(vmstat)
    return int(found[1]) if found else None


def amount_of(meminfo: bytes, name: bytes) -> int | None:
    """One amount of /proc/meminfo in bytes, for frequent reading; None without that line."""
    value = (b"\n" + meminfo).partition(b"\n" + name + b":")[2].partition(b"kB")[0].strip()
    return int(value) * 1024 if value.isdigit() else None
