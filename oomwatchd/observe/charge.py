"""What one cgroup is charged now, by its path as the kernel log prints it."""

from __future__ import annotations

from oomwatchd.cgroupfs import Hierarchy, amount
from oomwatchd.observe.host import read_bytes
from oomwatchd.records.capture import CgroupCharge


def charge_of(hierarchy: Hierarchy, path: str) -> CgroupCharge | None:
    """None of a cgroup that is gone, or that is not below what is mounted here. Never raises."""
    directory = hierarchy.directory(path)
    if directory is None:
        return None
    files = hierarchy.files
    usage = amount(read_bytes(f"{directory}/{files.usage}", 64))
    if usage is None:
        return None
    limit = amount(read_bytes(f"{directory}/{files.limit}", 64))
    return CgroupCharge(path=path, usage_bytes=usage, limit_bytes=limit)
