"""The host's own files of a snapshot, read as far as findings need them."""

from __future__ import annotations

import re

import msgspec

from oomwatchd.records.capture import Snapshot

_MEMINFO = re.compile(r"^([A-Za-z][\w()]*):\s+(\d+)( kB)?\s*$", re.MULTILINE)
_ZONE = re.compile(r"^Node (\d+), zone\s+(\S+)\s*$", re.MULTILINE)
_ZONE_AMOUNT = re.compile(r"^\s+(?:pages )?(free|min|low|high|managed)\s+(\d+)\s*$", re.MULTILINE)


class HostZone(msgspec.Struct, frozen=True, kw_only=True):
    """One zone of /proc/zoneinfo; ``pages`` maps free, min, low, high, managed to pages."""

    node: int
    zone: str
    pages: dict[str, int]


def meminfo(snapshot: Snapshot) -> dict[str, int]:
    """/proc/meminfo: name -> bytes (HugePages_Total and the like: as counted). Empty where not read."""
    return {
        m[1]: int(m[2]) * (1024 if m[3] else 1) for m in _MEMINFO.finditer(snapshot.parts.get("meminfo", ""))
    }


def zoneinfo(snapshot: Snapshot) -> tuple[HostZone, ...]:
    """/proc/zoneinfo's zones. Empty where not read."""
    text = snapshot.parts.get("zoneinfo", "")
    heads = list(_ZONE.finditer(text))
    ends = [m.start() for m in heads[1:]] + [len(text)]
    zones = []
    for head, end in zip(heads, ends, strict=True):
        # the per-CPU page sets follow and use some of the same words
        body = text[head.end() : end].partition("pagesets")[0]
        pages: dict[str, int] = {}
        for m in _ZONE_AMOUNT.finditer(body):
            pages.setdefault(m[1], int(m[2]))
        zones.append(HostZone(node=int(head[1]), zone=head[2], pages=pages))
    return tuple(zones)
