"""The kernel's own objects hold much memory and cannot be dropped.

Unreclaimable slab is kernel data: network buffers, file descriptors, inotify watches, cgroup structures,
a leak in a driver or filter. The kernel lists the caches by itself (4.15+) when unreclaimable slab is
larger than all user pages together. Named are the largest caches, as printed.

``slabtop -s c`` and /proc/slabinfo show who grows. A cache that only grows is a kernel leak
(CONFIG_DEBUG_KMEMLEAK, slab_debug, memory allocation profiling from 6.10 on).
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.text import ratio

ID = "slab_unreclaimable_large"
TITLE = "Unreclaimable slab is large"

#: of RAM or of the cgroup's usage: beyond what busy servers have in ordinary operation
_LARGE, _HUGE = 0.15, 0.40


#: what stands behind a cache of that name, where it is one thing
_MEANS = {
    "kmemleak_object": "records of the kernel's own leak detector",
    "filp": "open files",
    "dentry": "names of files",
    "task_struct": "threads",
    "signal_cache": "processes",
    "vm_area_struct": "memory mappings",
    "anon_vma": "memory mappings",
    "anon_vma_chain": "memory mappings",
    "nf_conntrack": "tracked connections",
    "skbuff_head_cache": "network packets",
    "skbuff_fclone_cache": "network packets",
    "skbuff_small_head": "network packets",
    "sock_inode_cache": "sockets",
    "TCP": "sockets",
    "TCPv6": "sockets",
    "UDP": "sockets",
    "UNIX": "sockets",
    "inotify_inode_mark": "inotify watches",
    "fsnotify_mark_connector": "inotify watches",
    "kernfs_node_cache": "entries of sysfs and cgroups",
    "eventpoll_epi": "epoll entries",
    "Acpi-Operand": "firmware tables",
    "Acpi-Namespace": "firmware tables",
    "net_namespace": "network namespaces",
    "ext4_extent_status": "file extents",
    "bio-0": "requests to disks",
}


def _meaning(cache: str) -> str:
    means = _MEANS.get(cache)
    return f" ({means})" if means else ""


def find(case: Case) -> Finding | None:
    slab, ram, of = case.measure("slab_unreclaimable", "slab_unreclaimable")
    if slab is None or not ram:
        return None
    share = slab / ram
    if share < _LARGE:
        return None
    caches = sorted(case.report.slab, key=lambda c: -c.total_bytes)[:3]
    named = ", ".join(f"{c.name} {size(c.total_bytes)}{_meaning(c.name)}" for c in caches)
    evidence: dict[str, int | float | str | None] = {
        "slab_unreclaimable_bytes": slab,
        case.whole_name: ram,
        "share_ratio": ratio(slab, ram),
    }
    evidence |= {f"cache:{c.name}_bytes": c.total_bytes for c in caches}
    return Finding(
        id=ID,
        severity="critical" if share >= _HUGE else "warning",
        title=TITLE,
        explanation=f"Unreclaimable slab holds {size(slab)}, {percent(slab, ram)} of {of}."
        + (f" The largest caches: {named}." if named else " The report does not list the caches."),
        evidence=evidence,
        advice="See which cache grows (slabtop -s c): a kill does not free the kernel's own objects, and a "
        "cache that only grows is a kernel leak.",
    )
