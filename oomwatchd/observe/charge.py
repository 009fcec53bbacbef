"""What one cgroup is charged now, by its path as the kernel log prints it.

Sources: Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst.
"""

from __future__ import annotations

from oomwatchd.observe.cgroup import Hierarchy
from oomwatchd.observe.host import read_bytes
from oomwatchd.records.capture import CgroupCharge

_FILES = {1: ("memory.usage_in_bytes", "memory.limit_in_bytes"), 2: ("memory.current", "memory.max")}
#: v1 writes "no limit" as the largest multiple of the page size
_UNLIMITED = 1 << 62


def charge_of(hierarchy: Hierarchy, path: str) -> CgroupCharge | None:
    """None of a cgroup that is gone, or that is not below what is mounted here. Never raises."""
    if not path.startswith(hierarchy.root) or ".." in path.split("/") or "\0" in path:
        return None
    directory = hierarchy.mount + path[len(hierarchy.root) :].rstrip("/")
    usage, limit = (read_bytes(f"{directory}/{name}", 64) for name in _FILES[hierarchy.version])
    if usage is None or not usage.strip().isdigit():
        return None
    bound = int(limit) if limit is not None and limit.strip().isdigit() else _UNLIMITED
    return CgroupCharge(path=path, usage_bytes=int(usage), limit_bytes=bound if bound < _UNLIMITED else None)
