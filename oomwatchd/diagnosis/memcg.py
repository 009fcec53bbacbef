"""A cgroup's statistics by kind, under any name that a kernel version gives them."""

from __future__ import annotations

import msgspec

from oomwatchd.records.report import Memcg, MemcgCounter, OomReport

#: Kind -> names in order of preference: hierarchical v1 sums, v2 names, v1 names.
_NAMES = {
    "anon": ("total_rss", "anon", "rss"),
    "file": ("total_cache", "file", "cache"),
    "shmem": ("total_shmem", "shmem"),
    "kernel": ("kernel",),
    "slab": ("slab",),
    "slab_unreclaimable": ("slab_unreclaimable",),
    "kernel_stack": ("kernel_stack",),
    "pagetables": ("pagetables",),
    "percpu": ("percpu",),
    "vmalloc": ("vmalloc",),
    "sock": ("sock",),
    "zswap": ("zswap",),
    "hugetlb": ("hugetlb",),
    "swapcached": ("swapcached",),
    "unevictable": ("total_unevictable", "unevictable"),
    "dirty": ("total_dirty", "dirty", "file_dirty"),
    "writeback": ("total_writeback", "writeback", "file_writeback"),
}


#: Charges come in batches of up to 64 pages for each CPU, so a cgroup refuses slightly below its limit.
_NEAR = 0.98


def at_limit(counter: MemcgCounter | None, charge_bytes: int) -> bool:
    """Whether a charge of this many bytes exceeds the limit, or nearly does."""
    if counter is None or counter.limit_bytes is None:
        return False
    usage, limit = counter.usage_bytes, counter.limit_bytes
    return usage >= _NEAR * limit or usage + charge_bytes > limit


def charge_bytes(report: OomReport) -> int:
    """The bytes that the request would have been charged."""
    return (report.page_size_bytes or 4096) << max(report.trigger.order or 0, 0)


def limit_hit(report: OomReport) -> tuple[str | None, MemcgCounter | None]:
    """The name and the counter of the limit that was hit: the fullest that can refuse a charge."""
    memcg, unit = report.memcg or Memcg(), charge_bytes(report)
    counters = [("memory", memcg.memory), ("memory+swap", memcg.memory_swap), ("kmem", memcg.kmem)]
    full = [
        (c.usage_bytes / c.limit_bytes, -i, name, c)
        for i, (name, c) in enumerate(counters)
        if c is not None and c.limit_bytes
    ]
    if not full:
        return ("memory", memcg.memory) if memcg.memory is not None else (None, None)
    near = [f for f in full if at_limit(f[3], unit)]
    # among counters at their limit, the first (memory) is the best known; otherwise take the fullest
    best = max(near, key=lambda f: f[1]) if near else max(full, key=lambda f: f[0])
    return best[2], best[3]


class MemcgKinds(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes by kind; None if the kernel printed none. ``file`` includes shmem, as the kernel counts it."""

    anon: int | None = None
    file: int | None = None
    shmem: int | None = None
    kernel: int | None = None
    slab: int | None = None
    slab_unreclaimable: int | None = None
    kernel_stack: int | None = None
    pagetables: int | None = None
    percpu: int | None = None
    vmalloc: int | None = None
    sock: int | None = None
    #: Compressed swap, a part of the kernel's memory (5.19+).
    zswap: int | None = None
    #: Huge pages of a pool, with the mount option memory_hugetlb_accounting (printed since 6.13).
    hugetlb: int | None = None
    #: Pages that are in memory and in swap (5.12+). Those that a process has mapped are in ``anon`` too.
    swapcached: int | None = None
    unevictable: int | None = None
    dirty: int | None = None
    writeback: int | None = None


def kinds(memcg: Memcg) -> MemcgKinds:
    """The kinds of memory in the cgroup. 3.9 to 5.2 print one line for each cgroup of the subtree, without
    its children; the lines are added up."""
    found: dict[str, int] = {}
    parts = [(memcg.stat, memcg.stat_unit_bytes or 1)]
    parts += [(d.stat, d.unit_bytes) for d in memcg.descendants]
    for kind, names in _NAMES.items():
        for name in names:
            holders = [s[name] * unit for s, unit in parts if name in s]
            if holders:
                # a hierarchical sum already includes the children
                found[kind] = holders[0] if name.startswith("total_") else sum(holders)
                break
    tables = sum(s["sec_pagetables"] * unit for s, unit in parts if "sec_pagetables" in s)
    if tables:  # page tables of virtual machines and IOMMUs (6.1+)
        found["pagetables"] = found.get("pagetables", 0) + tables
    if "kernel" not in found and memcg.kmem is not None:
        found["kernel"] = memcg.kmem.usage_bytes
    return MemcgKinds(**found)
