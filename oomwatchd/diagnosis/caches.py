"""The meaning of a kernel slab cache, by its name, and what reduces its objects.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.levers import setting
from oomwatchd.diagnosis.suspects import modules, unload
from oomwatchd.words.amounts import size
from oomwatchd.words.escape import harmless_name

#: The meaning of each cache name that has only one.
MEANS = {
    "kmemleak_object": "records of the kernel's own leak detector",
    "ebitmap_node": "SELinux policy data",
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
    "ip_fib_alias": "routes",
    "ip_fib_trie": "routes",
    "fib6_nodes": "routes",
    "ip6_dst_cache": "routes",
    "shmem_inode_cache": "files of tmpfs, or watches on them",
    "nft_set_elem": "elements of nftables sets",
    "radix_tree_node": "the index of the page cache",
    "pid": "processes",
    "files_cache": "processes",
    "kernel_memcg": "cgroups",
    "ext4_extent_status": "file extents",
    "bio-0": "requests to disks",
}


def _meant(cache: str) -> str | None:
    if cache in MEANS or not cache.endswith("inode_cache"):
        return MEANS.get(cache)
    return "inodes, kept by open files, inotify watches or the cache"


def meaning(cache: str) -> str:
    """`` (open files)``; empty if the name has no known meaning."""
    means = _meant(cache)
    return f" ({means})" if means else ""


#: What limits the objects of a cache, by their meaning (MEANS).
_BOUNDS = {
    "records of the kernel's own leak detector": "Boot with kmemleak=off: the kernel's own leak detector "
    "keeps a record of each object.",
    "SELinux policy data": "Update the kernel: SELinux policy data that only grows is a leak.",
    "names of files": "Have fewer files looked up at once, or raise vm.vfs_cache_pressure.",
    "processes": "Bound the number of processes: pids.max of their cgroup (TasksMax=).",
    "tracked connections": "Lower net.netfilter.nf_conntrack_max or its timeouts (conntrack -L).",
    "network packets": "Find whose queue grows (ss -tumpa, ss -xm), and have it read or bound it.",
    "sockets": "Find who has so many sockets open (ss -s, ss -ap), and close or bound them (ulimit -n).",
    "inotify watches": "Bound the inotify watches: lower fs.inotify.max_user_watches, or end who has them "
    "(grep -c inotify /proc/*/fdinfo/*).",
    "epoll entries": "Lower fs.epoll.max_user_watches, or end who has so many.",
    "entries of sysfs and cgroups": "Remove cgroups that are not used (/proc/cgroups counts them).",
    "cgroups": "Remove cgroups that are not used (/proc/cgroups counts them).",
    "network namespaces": "Remove network namespaces that nobody needs (lsns -t net; ip netns), or end who "
    "keeps them open.",
    "routes": "Have fewer routes: ip route show table all | wc -l; bound what the routing daemon installs.",
    "files of tmpfs, or watches on them": "Remove files of tmpfs that nobody needs (df -i -t tmpfs; the "
    "mount's nr_inodes= bounds them), or inotify watches on them (fs.inotify.max_user_watches).",
    "elements of nftables sets": "Make the nftables sets smaller (nft list sets; size and timeout of a set).",
    "memory mappings": "Lower vm.max_map_count, or end who has so many mappings (wc -l /proc/*/maps).",
}


#: Caches of all who ask for memory by its size; since 5.14 with "cg" what is charged to processes
#: (slab_common.c: kmalloc_info).
_BY_SIZE = ("kmalloc-", "size-")
#: Share of the slab.
_MOST = 0.4


#: What processes often ask for by its size.
_CHARGED = "message queues (ipcs -q), nftables sets (nft list sets)"


def often(cache: str) -> str:
    """What the objects of a cache that is charged to processes often are; starts with a space."""
    if not cache.startswith("kmalloc-cg-"):
        return ""
    return f" {harmless_name(cache)} often has {_CHARGED}, keys or watches."


def _by_size(case: Case, cache: str) -> str:
    """How to find who has the objects of a cache that is shared by their size."""
    name = harmless_name(cache)
    charged = (
        f"what processes ask for: {_CHARGED}, keys, watches; "
        if "-cg-" in name
        else "message queues (ipcs -q), nftables sets (nft list sets), drivers; "
    )
    old = case.kernel_at_least(5, 15) is False
    traced = f"/sys/kernel/slab/{name}/alloc_calls" if old else f"/sys/kernel/debug/slab/{name}/alloc_traces"
    return f"Find what takes {name}: {charged}slub_debug=U,{name} at boot names who allocates ({traced})."


def queued(case: Case, slab: int) -> str:
    """Live: the message queues of the host, if most of ``slab`` is in them; else empty."""
    held = sum(h.amount for h in case.facts.messages)
    return f"SysV message queues hold {size(held)}" if held >= _MOST * slab else ""


def lever_for(case: Case, cache: str) -> str:
    """What reduces the objects of this cache; empty if unknown."""
    means, own = _meant(cache), modules(case)
    sender = next(iter(case.facts.messages), None)
    if sender is not None and queued(case, case.ledger.held("slab_unreclaimable") or 0):
        who = "" if sender.name == "?" else f" of {harmless_name(sender.name)} (pid {sender.pid})"
        return (
            f"Have the message queues{who} read, or remove them (ipcs -q; ipcrm -q ID): {queued(case, 0)}; "
            "kernel.msgmni and kernel.msgmnb bound them."
        )
    opened = case.facts.descriptors.get("file")
    if means == "open files":
        bounds = f"{setting(case, 'LimitNOFILE=', 'ulimit -n')} and fs.file-max bound them"
        if opened is None:
            return f"Find who has so many files open (ls /proc/*/fd | wc -l), and close them; {bounds}."
        # before 6.2 this figure is the table size: cap it at the number of open files
        total = case.facts.sysctl.get("fs.file-nr", "").split()[:1]
        count = min([opened.amount, *(int(word) for word in total if word.isdecimal())])
        return (
            f"End {harmless_name(opened.name)} (pid {opened.pid}) or have it open less: it has "
            f"{count} files open (ls -l /proc/{opened.pid}/fd); {bounds}."
        )
    if means == "threads":
        most = next(iter(case.facts.threads), None)
        whose = f": {harmless_name(most.name)} (pid {most.pid}) has {most.amount}" if most is not None else ""
        return f"Bound the number of threads{whose}; pids.max of its cgroup, or the program's own pool."
    if means in _BOUNDS:
        return _BOUNDS[means]
    if means is not None:
        return ""
    if not own:
        return _by_size(case, cache) if cache.startswith(_BY_SIZE) else ""
    mine = next((m for m in own if cache.startswith((m, m.replace("_", "-")))), None)
    if mine is not None:
        return f"{unload((mine,))}: the cache {harmless_name(cache)} is its own."
    return (
        f"{unload(own)}, and see whether {harmless_name(cache)} shrinks or stops growing; else slub_debug=U,"
        f"{harmless_name(cache)} at boot names who allocates (/sys/kernel/debug/slab, alloc_traces)."
    )
