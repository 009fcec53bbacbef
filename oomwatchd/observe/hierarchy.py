"""Where the cgroups of the memory controller are on this host."""

from __future__ import annotations

import os
from collections.abc import Iterator

from oomwatchd.cgroupfs import Hierarchy, memory_cgroup, pids
from oomwatchd.observe.host import Host, read_bytes, read_whole
from oomwatchd.procfs.mounts import mounts
from oomwatchd.records.kmsg import to_text

#: cgroups that are looked through for our own
_MOST_CGROUPS = 8192


def memory_hierarchy(host: Host) -> Hierarchy | None:
    """The mounted hierarchy with the memory controller; None if there is none."""
    for mount in mounts(read_whole(host.proc / "self/mountinfo", 1024 * 1024)):
        point = os.fsdecode(mount.point)
        # within a cgroup namespace a cgroup outside of it begins with "/.."
        root = "" if mount.root == b"/" or mount.root.startswith(b"/..") else to_text(mount.root)
        if mount.kind == b"cgroup" and b"memory" in mount.options.split(b","):
            return Hierarchy(point, root, 1)
        if mount.kind == b"cgroup2":
            controllers = read_bytes(f"{point}/cgroup.controllers", 4096) or b""
            if b"memory" in controllers.split():
                return Hierarchy(point, root, 2)
    return None


def cgroup_namespace(host: Host) -> str:
    """The cgroup that /proc calls "/" here, "" for the root of all. Asked where the whole hierarchy is
    mounted within a cgroup namespace (a container with the host's /sys/fs/cgroup): there only the cgroup that
    lists us says where we are."""
    within = any(
        mount.kind in (b"cgroup", b"cgroup2") and mount.root.startswith(b"/..")
        for mount in mounts(read_whole(host.proc / "self/mountinfo", 1024 * 1024))
    )
    hierarchy = memory_hierarchy(host) if within else None
    own = memory_cgroup(read_bytes(host.proc / "self/cgroup", 16 * 1024) or b"")
    if hierarchy is None or own is None:
        return ""
    path = next(_with(os.getpid(), hierarchy.mount), "")
    return path.removesuffix(own.rstrip("/")).rstrip("/")


def _with(pid: int, mount: str) -> Iterator[str]:
    """The cgroup whose member the process is."""
    for looked, (directory, below, _) in enumerate(os.walk(mount)):
        if pid in pids(read_whole(f"{directory}/cgroup.procs", 1024 * 1024)):
            yield to_text(os.fsencode(directory[len(mount) :]))
        if looked == _MOST_CGROUPS:
            below.clear()
            return
