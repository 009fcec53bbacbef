"""The files of the memory controller: their names in cgroup v1 and v2, and how to read them.

Sources: Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst, cgroups(7).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import msgspec

from oomwatchd.records.kmsg import to_text

#: v1 writes "no limit" as the largest multiple of the page size
_UNLIMITED = 1 << 62


class Files(msgspec.Struct, frozen=True):
    """The names of one version. ``kills`` are the files with the count ``oom_kill``: the first that exists is
    read. ``inactive_file`` is the entry of ``memory.stat`` for the page cache that is dropped first, in the
    cgroup and all below it."""

    usage: str
    limit: str
    kills: tuple[str, ...]
    inactive_file: bytes
    #: swap alone (v2), or memory and swap together (v1)
    swap_usage: str
    swap_limit: str
    #: of ``memory.stat``, with all below it: page cache and the kernel's caches, which are dropped before
    #: anybody is killed, and the pages of tmpfs and shared memory, which are not among them
    droppable: tuple[bytes, ...]
    shmem: bytes
    #: the two swap files also count memory
    swap_with_memory: bool
    stat: str = "memory.stat"
    procs: str = "cgroup.procs"


#: by version; memory.events of v2 (before memory.events.local, 5.2) also counts the kills in cgroups below
FILES = {
    1: Files(
        usage="memory.usage_in_bytes",
        limit="memory.limit_in_bytes",
        kills=("memory.oom_control",),
        inactive_file=b"total_inactive_file",
        swap_usage="memory.memsw.usage_in_bytes",
        swap_limit="memory.memsw.limit_in_bytes",
        droppable=(b"total_inactive_file", b"total_active_file"),
        shmem=b"total_shmem",
        swap_with_memory=True,
    ),
    2: Files(
        usage="memory.current",
        limit="memory.max",
        kills=("memory.events.local", "memory.events"),
        inactive_file=b"inactive_file",
        swap_usage="memory.swap.current",
        swap_limit="memory.swap.max",
        droppable=(b"inactive_file", b"active_file", b"slab_reclaimable"),
        shmem=b"shmem",
        swap_with_memory=False,
    ),
}
#: v1: the slab caches charged to the cgroup, in the format of /proc/slabinfo
SLABINFO = "memory.kmem.slabinfo"
#: the kernel's own memory that is charged to the cgroup and all below it: v1 its file; v2 the entries of
#: memory.stat, the first of them (5.18) or else the sum of the others
KERNEL_USAGE = "memory.kmem.usage_in_bytes"
_KERNEL = (b"kernel", (b"slab", b"kernel_stack", b"pagetables", b"percpu"))
#: v2: memory protected from reclaim, always (min) or as long as unprotected memory is left (low)
PROTECTION = ("memory.min", "memory.low")
#: v2: the file whose counts include the cgroups below
HIERARCHICAL_KILLS = "memory.events"

#: hugetlb controller, by size of page (``hugetlb.2MB``): how often a page was refused at the limit of this
#: cgroup or of one above it, and the limit; v2, then v1 (hugetlb_cgroup.c)
HUGE_PAGES = ((".events.local", ".max"), (".failcnt", ".limit_in_bytes"))


class Hierarchy(msgspec.Struct, frozen=True):
    """Where the memory controller is mounted; ``root`` is the cgroup that is seen at the mount point, as
    the kernel log writes it ("" for the root of all)."""

    mount: str
    root: str
    version: int

    @property
    def files(self) -> Files:
        """The names of its files."""
        return FILES[self.version]

    def directory(self, path: str) -> str | None:
        """The directory of the cgroup with this path; None if it is not below the mount. A path from the log
        is untrusted: it must not lead out of the mount."""
        below = path[len(self.root) :]
        outside = not path.startswith(self.root) or not (below.startswith("/") or not below)
        if outside or ".." in path.split("/") or "\0" in path:
            return None
        return self.mount + below.rstrip("/")


def amount(data: bytes | None) -> int | None:
    """The bytes in a file with one number; None where it says "no limit" or could not be read."""
    word = (data or b"").strip()
    value = int(word) if word.isdigit() else None
    return None if value is None or value >= _UNLIMITED else value


def entry(data: bytes | None, name: bytes) -> int | None:
    """The number after ``name`` in memory.stat, memory.events or memory.oom_control; None if there is
    none."""
    value = (b"\n" + (data or b"")).partition(b"\n" + name + b" ")[2].partition(b"\n")[0]
    return int(value) if value.isdigit() else None


def kernel_bytes(stat: bytes | None) -> int | None:
    """The kernel's own memory in memory.stat of v2; None if it has no such entry."""
    whole, parts = _KERNEL
    found = entry(stat, whole)
    if found is not None:
        return found
    known = [value for name in parts if (value := entry(stat, name)) is not None]
    return sum(known) if known else None


def pids(data: bytes) -> list[int]:
    """The processes that cgroup.procs lists."""
    return [int(pid) for pid in data.split() if pid.isdigit()]


def memory_cgroup(text: bytes, *, exiting: bool = False) -> str | None:
    """The memory cgroup's path from /proc/PID/cgroup: the v1 memory controller's if there is one, else the
    unified hierarchy's (cgroups(7)). A cgroup's name may hold anything except a newline.

    For an exiting process v1 says ``/`` wherever it lived, but the unified hierarchy still tells the path and
    marks a removed cgroup (proc_cgroup_show()). If systemd manages both hierarchies, their paths are equal.
    """
    unified = memory = None
    for line in text.split(b"\n"):
        fields = line.split(b":", 2)
        if len(fields) < 3:
            continue
        if b"memory" in fields[1].split(b","):
            memory = to_text(fields[2])
        if fields[0] == b"0" and not fields[1]:
            unified = to_text(fields[2].removesuffix(b" (deleted)"))
    if memory == "/" and exiting:
        return unified if unified != "/" else None
    return unified if memory is None else memory
