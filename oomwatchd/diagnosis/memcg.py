"""A cgroup's statistics by kind, whatever the kernel called them."""

from __future__ import annotations

import msgspec

from oomwatchd.records.report import Memcg, MemcgCounter, OomReport

#: kind -> names in order of preference: hierarchical v1 sums, v2 names, v1 names
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
    "unevictable": ("total_unevictable", "unevictable"),
    "dirty": ("total_dirty", "dirty", "file_dirty"),
    "writeback": ("total_writeback", "writeback", "file_writeback"),
}


#: charges come in batches of up to 64 pages for each CPU: a cgroup refuses a little below its limit
_NEAR = 0.98


def at_limit(counter: MemcgCounter | None, charge_bytes: int) -> bool:
    """Whether a charge of so much is, or all but is, too much for it."""
    if counter is None or counter.limit_bytes is None:
        return False
    usage, limit = counter.usage_bytes, counter.limit_bytes
    return usage >= _NEAR * limit or usage + charge_bytes > limit


def charge_bytes(report: OomReport) -> int:
    """What the request would have been charged."""
    return (report.page_size_bytes or 4096) << max(report.trigger.order or 0, 0)


def limit_hit(report: OomReport) -> tuple[str | None, MemcgCounter | None]:
    """The fullest counter among those that can refuse a charge, and its name."""
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
    # of those at their limit the first (memory) is what a reader knows; else the fullest
    best = max(near, key=lambda f: f[1]) if near else max(full, key=lambda f: f[0])
    return best[2], best[3]


class MemcgKinds(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes by kind; None where the kernel printed none. ``file`` includes shmem, as the kernel counts."""

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
    #: compressed swap, of the kernel's own (5.19+)
    zswap: int | None = None
    #: huge pages of a pool, with the mount option memory_hugetlb_accounting (named from 6.13 on)
    hugetlb: int | None = None
    unevictable: int | None = None
    dirty: int | None = None
    writeback: int | None = None


def kinds(memcg: Memcg) -> MemcgKinds:
    """What the cgroup's memory consists of. 3.9 to 5.2 print one line for each cgroup of the subtree, each
    without its children: they are added up."""
    found: dict[str, int] = {}
    parts = [(memcg.stat, memcg.stat_unit_bytes or 1)]
    parts += [(d.stat, d.unit_bytes) for d in memcg.descendants]
    for kind, names in _NAMES.items():
        for name in names:
            holders = [s[name] * unit for s, unit in parts if name in s]
            if holders:
                # a hierarchical sum already has the children
                found[kind] = holders[0] if name.startswith("total_") else sum(holders)
                break
    tables = sum(s["sec_pagetables"] * unit for s, unit in parts if "sec_pagetables" in s)
    if tables:  # of virtual machines and IOMMUs (6.1+)
        found["pagetables"] = found.get("pagetables", 0) + tables
    if "kernel" not in found and memcg.kmem is not None:
        found["kernel"] = memcg.kmem.usage_bytes
    return MemcgKinds(**found)
