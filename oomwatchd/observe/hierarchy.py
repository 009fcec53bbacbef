"""Where the cgroups of the memory controller are on this host."""

from __future__ import annotations

import os

from oomwatchd.cgroupfs import Hierarchy
from oomwatchd.observe.host import Host, read_bytes, read_whole
from oomwatchd.procfs.mounts import mounts
from oomwatchd.records.kmsg import to_text


def memory_hierarchy(host: Host) -> Hierarchy | None:
    """The mounted hierarchy with the memory controller; None if there is none."""
    for mount in mounts(read_whole(host.proc / "self/mountinfo", 1024 * 1024)):
        point = os.fsdecode(mount.point)
        # "/.." is seen from within a cgroup namespace of a cgroup outside it
        root = "" if mount.root == b"/" or mount.root.startswith(b"/..") else to_text(mount.root)
        if mount.kind == b"cgroup" and b"memory" in mount.options.split(b","):
            return Hierarchy(point, root, 1)
        if mount.kind == b"cgroup2":
            controllers = read_bytes(f"{point}/cgroup.controllers", 4096) or b""
            if b"memory" in controllers.split():
                return Hierarchy(point, root, 2)
    return None
