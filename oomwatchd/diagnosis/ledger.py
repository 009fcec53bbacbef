"""One account of all memory: of the machine's RAM, or of the limit that a cgroup reached.

Every share in a finding, in the summary line or on a page is a share of this whole. The holders do not
overlap: they add up to the whole, or the rest is a holder of its own ("in no counter"). Each amount is a
bound: the kernel reads its counters one after another, not every kernel prints all of them, and a report may
omit zones. An unknown amount never counts as 0; it makes the rest an upper bound ("at most").

Sources: mm/show_mem.c (show_free_areas(), up to 6.2 mm/page_alloc.c), mm/memcontrol.c (memory_stats[],
mem_cgroup_print_oom_meminfo()), fs/proc/meminfo.c.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from oomwatchd.diagnosis.memcg import MemcgKinds, kinds, limit_hit
from oomwatchd.records.report import Memcg, Memory, OomReport, Zone

Kind = Literal[
    "anon",
    "shmem",
    "file",
    "waiting",
    "unevictable",
    "slab_reclaimable",
    "slab_unreclaimable",
    "slab",
    "pagetables",
    "kernel_stack",
    "percpu",
    "vmalloc",
    "sock",
    "zspages",
    "bounce",
    "hugepages",
    "swapcache",
    "swapped",
    "kernel_rest",
    "reserved",
    "held_back",
    "cma",
    "free",
    "pcp",
    "rest",
]
#: Name of the whole if the report does not give RAM: the sum of its counters, without uncounted memory.
COUNTED = "what the report counts"
#: The names of the holders in a table.
TITLES: Mapping[Kind, str] = {
    "anon": "anonymous",
    "shmem": "shared (tmpfs, shm)",
    "file": "file cache",
    "waiting": "file cache, to be written",
    "unevictable": "unevictable",
    "slab_reclaimable": "slab, reclaimable",
    "slab_unreclaimable": "slab, unreclaimable",
    "slab": "slab, both kinds",
    "pagetables": "page tables",
    "kernel_stack": "kernel stacks",
    "percpu": "per-CPU data",
    "vmalloc": "vmalloc",
    "sock": "sockets",
    "zspages": "compressed swap (zsmalloc)",
    "bounce": "bounce, balloon",
    "hugepages": "huge pages, set aside",
    "swapcache": "swap cache, not mapped",
    "swapped": "in swap",
    "kernel_rest": "kernel, other kinds",
    "reserved": "reserved, in no zone",
    "held_back": "free, held back (min)",
    "cma": "free, in CMA areas",
    "free": "free",
    "pcp": "free, on per-CPU lists",
    "rest": "in no counter (drivers ...)",
}
#: The totals of Mem-Info that add up to a kind (names of 4.8+ and older).
_TOTALS: Mapping[Kind, tuple[str, ...]] = {
    "anon": ("active_anon", "inactive_anon", "isolated_anon"),
    "shmem": ("shmem",),
    "file": ("active_file", "inactive_file", "isolated_file"),
    "unevictable": ("unevictable",),
    "slab_reclaimable": ("slab_reclaimable", "kernel_misc_reclaimable"),
    "slab_unreclaimable": ("slab_unreclaimable",),
    "slab": ("slab",),
    "pagetables": ("pagetables", "sec_pagetables"),
    "kernel_stack": ("kernel_stack",),
    "zspages": ("zspages",),
    "bounce": ("bounce", "Balloon"),
}
#: Counters that must be printed; without them the rest would include memory that has a counter.
_FOR_REST = ("free", "active_anon", "active_file")


class Bound(msgspec.Struct, frozen=True):
    """Bounds of an amount in bytes, and their source. ``most`` None: no more than the whole."""

    least: int
    most: int | None
    source: str


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the whole."""

    kind: Kind
    bound: Bound

    @property
    def bytes(self) -> int:
        """The least amount that it holds."""
        return self.bound.least

    @property
    def title(self) -> str:
        """Its name in a table."""
        return TITLES[self.kind]


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """The whole and its holders; ``whole_bytes`` is None if the report does not tell it."""

    whole_bytes: int | None
    #: "RAM", "the cgroup's limit" or COUNTED. The summary line says "of it" after the cgroup's name.
    whole_name: str
    confined: bool = False
    holders: tuple[Holder, ...] = ()

    def bound(self, kind: Kind) -> Bound | None:
        """The bounds of what a kind holds; None if unknown."""
        for holder in self.holders:
            if holder.kind == kind:
                return holder.bound
        return None

    def held(self, kind: Kind) -> int | None:
        """The least amount that a kind holds; None if unknown."""
        bound = self.bound(kind)
        return None if bound is None else bound.least

    def share(self, amount: int) -> float:
        """The share of the whole, 0.0 to 1.0; 0.0 if the whole is unknown."""
        return min(round(amount / self.whole_bytes, 6), 1.0) if self.whole_bytes else 0.0

    def percent(self, amount: int) -> str:
        """``67 %`` of the whole."""
        return f"{round(100 * self.share(amount))} %"


def ledger(report: OomReport, meminfo: Mapping[str, int]) -> Ledger:
    """The ledger of a report; ``meminfo`` is /proc/meminfo at that moment, empty offline."""
    if report.constraint == "memcg":
        return _of_cgroup(report.memcg or Memcg(), limit_hit(report)[0])
    return of_machine(report.memory, meminfo)


# the machine


def total(memory: Memory, name: str) -> int | None:
    """A machine-wide counter in bytes ("shmem", "slab_unreclaimable" ...), from the totals or else summed
    over nodes or zones."""
    key = f"{name}_bytes"
    known = memory.totals.get(key)
    if known is not None:
        return known
    for holders in (memory.nodes, memory.zones):
        amounts = [h.amounts[key] for h in holders if key in h.amounts]
        if amounts:
            return sum(amounts)
    return None


def installed_bytes(memory: Memory) -> int | None:
    """RAM in bytes, including what is reserved.

    It is the present memory of all printed zones, else "N pages RAM" (which counts holes on older kernels,
    show_mem() of the architecture), else the managed memory of the zones. None if zones are omitted and no
    line gives the total.
    """
    present, managed = _sum(memory.zones, "present"), _sum(memory.zones, "managed")
    if present and not confined(memory):
        return max(present, managed or 0)
    if memory.ram_bytes:
        return max(memory.ram_bytes, managed or 0)
    return None if confined(memory) else present or managed


def _sum(zones: Iterable[Zone], name: str) -> int | None:
    amounts = [z.bytes_of(name) for z in zones]
    return None if not amounts or None in amounts else sum(a for a in amounts if a is not None)


#: Share of RAM in the printed zones. Some RAM may be in an unprinted zone (ZONE_DEVICE) or be counted by
#: other rules (old ARM).
_WHOLE = 0.9
#: Bytes by which totals may lag because per-CPU counters are not added up yet.
_LAG = 16 << 20


def confined(memory: Memory) -> bool:
    """Whether the report omits zones. The kernel omits those of nodes that the requesting task may not use
    (SHOW_MEM_FILTER_NODES), but counts them in the totals and in "N pages RAM". A log may also have lost a
    zone's line."""
    usable = None if memory.ram_bytes is None else memory.ram_bytes - (memory.reserved_bytes or 0)
    printed = _sum(memory.zones, "managed") or _sum(memory.zones, "present")
    if usable is None:
        # the totals cover the whole machine
        free, shown = memory.totals.get("free_bytes"), _sum(memory.zones, "free")
        return bool(free and shown is not None and shown < _WHOLE * free and free - shown > _LAG)
    return bool(printed and printed < _WHOLE * usable)


def of_machine(memory: Memory | None, meminfo: Mapping[str, int]) -> Ledger:
    """The ledger of the whole machine's RAM."""
    if memory is None:
        return _of_meminfo(meminfo)
    whole, partial = installed_bytes(memory), confined(memory)
    found: dict[Kind, int] = {}
    for kind, names in _TOTALS.items():
        amounts = [total(memory, name) for name in names]
        if any(a is not None for a in amounts):
            found[kind] = sum(a or 0 for a in amounts)
    _overlaps(found, memory)
    if memory.hugepages:
        found["hugepages"] = sum(h.total * h.size_bytes for h in memory.hugepages)
    reserved = _reserved(memory, partial)
    if reserved is not None:
        found["reserved"] = reserved
    free = total(memory, "free")
    if free is not None:
        found |= _free(memory, free)
    holders = [Holder(kind=k, bound=Bound(a, a, "Mem-Info")) for k, a in found.items()]
    name = "RAM"
    if whole is not None:
        holders += _rest(whole, found, memory, meminfo, partial)
    elif not partial and not any(total(memory, name) is None for name in _FOR_REST):
        # the sum of the counters is a lower bound of RAM
        whole, name = sum(found.values()), COUNTED
    return Ledger(
        whole_bytes=whole,
        whole_name=name,
        confined=partial,
        holders=_ordered(holders),
    )


def _overlaps(found: dict[Kind, int], memory: Memory) -> None:
    """Remove double counts. Shared memory is on the anonymous lists, or on the unevictable list if it is
    locked. Pages that wait to be written are on the file lists."""
    if "anon" in found and "shmem" in found:
        on_anon = min(found["shmem"], found["anon"])
        locked = min(found["shmem"] - on_anon, found.get("unevictable", 0))
        found["anon"] -= on_anon
        found["shmem"] = on_anon + locked
        if locked:
            found["unevictable"] -= locked
    waiting = [total(memory, n) for n in ("dirty", "writeback", "unstable")]
    if "file" in found and waiting[0] is not None:
        found["waiting"] = min(sum(w or 0 for w in waiting), found["file"])
        found["file"] -= found["waiting"]


def _reserved(memory: Memory, partial: bool) -> int | None:
    """Memory that the page allocator does not have: reserved at boot, taken later by a balloon, or not handed
    over yet (deferred initialisation)."""
    present, managed = _sum(memory.zones, "present"), _sum(memory.zones, "managed")
    if not partial and present is not None and managed is not None:
        return max(present - managed, 0)
    if partial or present is None:
        return memory.reserved_bytes
    # up to 3.8: what is reserved of all page frames, of which some are in no zone
    if memory.reserved_bytes is None or memory.ram_bytes is None:
        return None
    return max(memory.reserved_bytes - max(memory.ram_bytes - present, 0), 0) or None


def _free(memory: Memory, free: int) -> dict[Kind, int]:
    """Free memory by kind: below the min watermarks it is for privileged requests only, and CMA is for
    movable pages only."""
    back = cma = 0
    for zone in memory.zones:
        has, cma_free = zone.bytes_of("free") or 0, zone.bytes_of("free_cma") or 0
        cma += min(cma_free, has)
        back += min(zone.bytes_of("min") or 0, max(has - cma_free, 0))
    cma = min(cma, free)
    back = min(back, free - cma)
    split: dict[Kind, int] = {"held_back": back, "cma": cma}
    split["free"] = free - back - cma
    if pcp := total(memory, "free_pcp"):
        split["pcp"] = pcp
    return split


def _rest(
    whole: int, found: dict[Kind, int], memory: Memory, meminfo: Mapping[str, int], partial: bool
) -> list[Holder]:
    """The memory that no counter of the report names. On a live system /proc/meminfo names a part of it."""
    rest = whole - sum(found.values())
    slab = any(total(memory, name) is not None for name in ("slab_unreclaimable", "slab"))
    if partial or rest <= 0 or not slab or any(total(memory, name) is None for name in _FOR_REST):
        return []
    holders = []
    for kind, name in (("percpu", "Percpu"), ("vmalloc", "VmallocUsed")):
        amount = meminfo.get(name, 0)
        # with CONFIG_VMAP_STACK, vmalloc includes the kernel stacks, which are already counted above
        if name == "VmallocUsed":
            amount = max(amount - found.get("kernel_stack", 0), 0)
        amount = min(amount, rest)
        if amount:
            holders.append(Holder(kind=kind, bound=Bound(amount, amount, "/proc/meminfo")))  # type: ignore[arg-type]
            rest -= amount
    holders.append(Holder(kind="rest", bound=Bound(rest, rest, "the rest of RAM")))
    return holders


def _of_meminfo(meminfo: Mapping[str, int]) -> Ledger:
    """The ledger from /proc/meminfo, for a report without a memory part."""
    names: Mapping[Kind, tuple[str, ...]] = {
        "anon": ("Active(anon)", "Inactive(anon)"),
        "shmem": ("Shmem",),
        "file": ("Active(file)", "Inactive(file)"),
        "unevictable": ("Unevictable",),
        "slab_reclaimable": ("SReclaimable",),
        "slab_unreclaimable": ("SUnreclaim",),
        "pagetables": ("PageTables",),
        "kernel_stack": ("KernelStack",),
        "hugepages": ("Hugetlb",),
        "free": ("MemFree",),
    }
    found = {k: sum(meminfo.get(n, 0) for n in ns) for k, ns in names.items() if ns[0] in meminfo}
    if "anon" in found and "shmem" in found:
        found["shmem"] = min(found["shmem"], found["anon"])
        found["anon"] -= found["shmem"]
    holders = [Holder(kind=k, bound=Bound(a, a, "/proc/meminfo")) for k, a in found.items()]
    return Ledger(whole_bytes=meminfo.get("MemTotal"), whole_name="RAM", holders=_ordered(holders))


# a cgroup


def _of_cgroup(memcg: Memcg, hit: str | None) -> Ledger:
    """The ledger of a cgroup's limit. ``hit`` is the limit that was reached: that of memory and swap together
    (v1) counts what is in swap, too."""
    parts = kinds(memcg)
    found = _cgroup_kinds(parts)
    counter = memcg.memory
    usage = None if counter is None else counter.usage_bytes
    whole = None if counter is None else counter.limit_bytes or usage
    holders = [Holder(kind=k, bound=Bound(a, a, "memory.stat")) for k, a in found.items()]
    if usage is not None and whole is not None:
        left = usage - sum(found.values())
        # of the swap cache, what is in no other counter: no process has it mapped
        unmapped = min(parts.swapcached or 0, max(left, 0))
        if unmapped:
            holders.append(Holder(kind="swapcache", bound=Bound(unmapped, unmapped, "memory.stat")))
            left -= unmapped
        if left > 0:
            # with printed kinds, the rest is pre-charged stock of the CPUs; without, it is all memory
            holders.append(Holder(kind="rest", bound=Bound(left, left, "the rest of the usage")))
        both = memcg.memory_swap
        if hit == "memory+swap" and both is not None and both.limit_bytes and usage < whole:
            swapped, whole = max(both.usage_bytes - usage, 0), both.limit_bytes
            holders.append(Holder(kind="swapped", bound=Bound(swapped, swapped, "memory+swap")))
            usage += swapped
        if whole > usage:
            holders.append(Holder(kind="free", bound=Bound(whole - usage, whole - usage, "the limit")))
    elif found:
        # kinds without a usage line: their sum is a lower bound
        whole = sum(found.values())
    return Ledger(whole_bytes=whole, whole_name="the cgroup's limit", holders=_ordered(holders))


def _cgroup_kinds(parts: MemcgKinds) -> dict[Kind, int]:
    found: dict[Kind, int] = {}
    if parts.anon is not None:
        found["anon"] = parts.anon
    if parts.file is not None:
        shmem = min(parts.shmem or 0, parts.file)
        waiting = min((parts.dirty or 0) + (parts.writeback or 0), parts.file - shmem)
        if parts.shmem is not None:
            found["shmem"] = shmem
        if parts.dirty is not None:
            found["waiting"] = waiting
        found["file"] = parts.file - shmem - waiting
    elif parts.shmem is not None:
        found["shmem"] = parts.shmem
    named: dict[Kind, int] = {}
    if parts.slab_unreclaimable is not None:
        named["slab_unreclaimable"] = parts.slab_unreclaimable
        if parts.slab is not None:
            named["slab_reclaimable"] = max(parts.slab - parts.slab_unreclaimable, 0)
    others: tuple[tuple[Kind, int | None], ...] = (
        ("kernel_stack", parts.kernel_stack),
        ("pagetables", parts.pagetables),
        ("percpu", parts.percpu),
        ("vmalloc", parts.vmalloc),
        ("zspages", parts.zswap),
    )
    named |= {kind: amount for kind, amount in others if amount is not None}
    if parts.kernel is not None:
        # v1 and kernels up to 5.17 print no sum. Its unnamed part: pipes, sockets' buffers, BPF ...
        named["kernel_rest"] = max(parts.kernel - sum(named.values()), 0)
    found |= named
    if parts.sock is not None:
        found["sock"] = parts.sock  # charged beside the kernel's (mem_cgroup_charge_skmem())
    if parts.hugetlb is not None:
        found["hugepages"] = parts.hugetlb
    return found


def _ordered(holders: list[Holder]) -> tuple[Holder, ...]:
    order = list(TITLES)
    return tuple(sorted((h for h in holders if h.bytes > 0), key=lambda h: order.index(h.kind)))
