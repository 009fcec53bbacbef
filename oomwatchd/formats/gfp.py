"""include/linux/gfp.h, include/trace/events/mmflags.h: allocation flags, as numbers and as names.

From 4.6 on the kernel prints the names itself (``%pGg``) and the numbers are not to be trusted: they
were renumbered many times and depend on the configuration from 6.9 on. Before 4.6 only the number is
printed. The number and other lines of the same report tell which table applies, never a version alone.
"""

from __future__ import annotations

from typing import Literal

Era = Literal["2.6.27", "2.6.31", "3.8", "4.1", "4.4", "4.5"]

_OLD = {
    "__GFP_DMA": 0x1,
    "__GFP_HIGHMEM": 0x2,
    "__GFP_DMA32": 0x4,
    "__GFP_MOVABLE": 0x8,
    "__GFP_WAIT": 0x10,
    "__GFP_HIGH": 0x20,
    "__GFP_IO": 0x40,
    "__GFP_FS": 0x80,
    "__GFP_COLD": 0x100,
    "__GFP_NOWARN": 0x200,
    "__GFP_REPEAT": 0x400,
    "__GFP_NOFAIL": 0x800,
    "__GFP_NORETRY": 0x1000,
    "__GFP_MEMALLOC": 0x2000,
    "__GFP_COMP": 0x4000,
    "__GFP_ZERO": 0x8000,
    "__GFP_NOMEMALLOC": 0x10000,
    "__GFP_HARDWALL": 0x20000,
    "__GFP_THISNODE": 0x40000,
    "__GFP_RECLAIMABLE": 0x80000,
    "__GFP_NOTRACK": 0x200000,
    "__GFP_NO_KSWAPD": 0x400000,
    "__GFP_OTHER_NODE": 0x800000,
    "__GFP_WRITE": 0x1000000,
}
_RECLAIM_SPLIT = {
    **{name: bit for name, bit in _OLD.items() if name not in ("__GFP_WAIT", "__GFP_NO_KSWAPD")},
    "__GFP_RECLAIMABLE": 0x10,
    "__GFP_ATOMIC": 0x80000,
    "__GFP_DIRECT_RECLAIM": 0x400000,
    "__GFP_KSWAPD_RECLAIM": 0x2000000,
}
_BITS: dict[Era, dict[str, int]] = {
    "2.6.27": {
        **{name: bit for name, bit in _OLD.items() if name != "__GFP_NOTRACK"},
        "__GFP_MOVABLE": 0x100000,
    },
    "2.6.31": _OLD,
    "3.8": {**_OLD, "__GFP_KMEMCG": 0x100000},
    "4.1": {**_OLD, "__GFP_NOACCOUNT": 0x100000},
    "4.4": {**_RECLAIM_SPLIT, "__GFP_NOACCOUNT": 0x100000},
    "4.5": {**_RECLAIM_SPLIT, "__GFP_ACCOUNT": 0x100000},
}

_OLD_COMPOSITES = (
    ("GFP_TRANSHUGE", 0x4352DA),
    ("GFP_HIGHUSER_MOVABLE", 0x200DA),
    ("GFP_HIGHUSER", 0x200D2),
    ("GFP_USER", 0x200D0),
    ("GFP_TEMPORARY", 0x800D0),
    ("GFP_KERNEL", 0xD0),
    ("GFP_NOFS", 0x50),
    ("GFP_ATOMIC", 0x20),
    ("GFP_NOIO", 0x10),
)
_NEW_COMPOSITES = (
    ("GFP_TRANSHUGE", 0x4352CA),
    ("GFP_HIGHUSER_MOVABLE", 0x24200CA),
    ("GFP_HIGHUSER", 0x24200C2),
    ("GFP_USER", 0x24200C0),
    ("GFP_TEMPORARY", 0x24000D0),
    ("GFP_KERNEL", 0x24000C0),
    ("GFP_NOFS", 0x2400040),
    ("GFP_ATOMIC", 0x2080020),
    ("GFP_NOIO", 0x2400000),
    ("GFP_NOWAIT", 0x2000000),
)
_COMPOSITES: dict[Era, tuple[tuple[str, int], ...]] = {
    "2.6.27": tuple(
        (name, 0x1200D2 if name == "GFP_HIGHUSER_MOVABLE" else mask)
        for name, mask in _OLD_COMPOSITES
        if name != "GFP_TRANSHUGE"
    ),
    "2.6.31": _OLD_COMPOSITES,
    "3.8": _OLD_COMPOSITES,
    "4.1": _OLD_COMPOSITES,
    "4.4": _NEW_COMPOSITES,
    "4.5": (*_NEW_COMPOSITES[:5], ("GFP_KERNEL_ACCOUNT", 0x25000C0), *_NEW_COMPOSITES[5:]),
}

#: bit 25 is __GFP_KSWAPD_RECLAIM in 4.4 to 4.9; no kernel before uses a bit above 24
_KSWAPD_RECLAIM_44 = 0x2000000
#: bit 20 changed its meaning five times
_AMBIGUOUS = 0x100000


def era_of(mask: int, *, oomkilladj: bool = False, since_4_1: bool = False, since_4_5: bool = False) -> Era:
    """The era whose table decodes a bare mask.

    ``oomkilladj``: the header has that key (up to 2.6.31). ``since_4_1``: the report has lines that
    came with 4.0 or 4.1 (nr_pmds, free_pcp). ``since_4_5``: its kill line has shmem-rss.
    """
    if mask & _KSWAPD_RECLAIM_44:
        return "4.5" if since_4_5 else "4.4"
    if oomkilladj and mask & _AMBIGUOUS:
        return "2.6.27"
    if since_4_1:
        return "4.1"
    return "3.8" if mask & _AMBIGUOUS else "2.6.31"


def is_later(mask: int) -> bool:
    """Whether a bare mask comes from a kernel that prints the names (4.6 and later): the copy left them out.

    Up to 4.3 a mask that allows I/O also allows waiting (0x10). In 4.4 and 4.5 reclaim has bit 25, and REPEAT
    and NOFAIL (0xc00) exclude each other. Later 0x10 is another flag and 0xc00 is reclaim.
    """
    if mask & _KSWAPD_RECLAIM_44:
        return False
    return mask & 0xC00 == 0xC00 or (mask & 0xC0 != 0 and not mask & 0x10)


def zone_flags(mask: int) -> tuple[str, ...]:
    """The flags of a mask that choose the zone; they have kept their numbers since 2.6.31."""
    return tuple(
        name for name in ("__GFP_DMA", "__GFP_HIGHMEM", "__GFP_DMA32", "__GFP_MOVABLE") if mask & _OLD[name]
    )


def names(mask: int, era: Era) -> tuple[str, ...]:
    """The flags of a bare mask: the largest composite, then single flags, then unknown bits in hex."""
    found: list[str] = []
    rest = mask
    for name, bits in _COMPOSITES[era]:
        if bits and rest & bits == bits:
            found.append(name)
            rest &= ~bits
            break
    for name, bit in _BITS[era].items():
        if rest & bit:
            found.append(name)
            rest &= ~bit
    if rest:
        found.append(hex(rest))
    return tuple(found)


def highest_zone(flags: tuple[str, ...] | None) -> str | None:
    """gfp_zone(): the highest zone the flags allow; None where they are unknown.

    DMA and DMA32 name their zone; HIGHMEM with MOVABLE allows Movable; HIGHMEM alone HighMem; else
    Normal. Zones that a machine lacks are simply not in its zone list.
    """
    if flags is None:
        return None
    have = set(flags)
    if have & {"__GFP_DMA", "GFP_DMA"}:
        return "DMA"
    if have & {"__GFP_DMA32", "GFP_DMA32"}:
        return "DMA32"
    if have & {"GFP_HIGHUSER_MOVABLE", "GFP_TRANSHUGE", "GFP_TRANSHUGE_LIGHT"}:
        return "Movable"
    if "GFP_HIGHUSER" in have or "__GFP_HIGHMEM" in have:
        return "Movable" if "__GFP_MOVABLE" in have else "HighMem"
    return "Normal"
