"""Read one cgroup's own files now, by the path that the kernel log prints."""

from __future__ import annotations

from oomwatchd.cgroupfs import SLABINFO, Hierarchy, amount
from oomwatchd.observe.host import read_bytes, read_whole
from oomwatchd.procfs.holders import largest, slab_caches
from oomwatchd.records.capture import CgroupCharge
from oomwatchd.records.kmsg import to_text

_STAT_BYTES = 8192
_SLAB_BYTES = 256 * 1024


def charge_of(hierarchy: Hierarchy, path: str) -> CgroupCharge | None:
    """What the cgroup is charged; None where it is gone, or not below what is mounted here. Never raises."""
    directory = hierarchy.directory(path)
    if directory is None:
        return None
    files = hierarchy.files
    usage = amount(read_bytes(f"{directory}/{files.usage}", 64))
    if usage is None:
        return None
    limit = amount(read_bytes(f"{directory}/{files.limit}", 64))
    return CgroupCharge(path=path, usage_bytes=usage, limit_bytes=limit)


def contents_of(hierarchy: Hierarchy, path: str, page_size: int) -> dict[str, str]:
    """Parts of a snapshot that say what the cgroup's memory is: ``memcg_stat`` (memory.stat),
    ``memcg_slabinfo`` (v1: the largest slab caches), ``memcg_swap`` (limit and usage of its swap; v1: of
    memory and swap). Never raises."""
    directory = hierarchy.directory(path)
    if directory is None:
        return {}
    files = hierarchy.files
    stat = to_text((read_bytes(f"{directory}/{files.stat}", _STAT_BYTES) or b"").strip())
    usage = amount(read_bytes(f"{directory}/{files.swap_usage}", 32))
    limit = amount(read_bytes(f"{directory}/{files.swap_limit}", 32))
    slab = read_whole(f"{directory}/{SLABINFO}", _SLAB_BYTES) if hierarchy.version == 1 else b""
    parts = {
        "memcg_stat": stat,
        "memcg_swap": "" if usage is None else f"{'max' if limit is None else limit} {usage}",
        "memcg_slabinfo": largest(slab_caches(slab, page_size)),
    }
    return {name: text for name, text in parts.items() if text}
