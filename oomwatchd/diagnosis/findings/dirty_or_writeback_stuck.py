"""Most of the page cache waits to be written.

Dirty pages and pages under writeback cannot be dropped until they are on disk. When they make up most of the
file pages, reclaim waits for the device: a slow USB stick, a network file system that hangs, a cgroup whose
limit is small against its writes.

``vm.dirty_bytes`` and ``vm.dirty_background_bytes`` bound how much may wait.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.text import ratio

ID = "dirty_or_writeback_stuck"
TITLE = "Most of the page cache waits to be written"

#: of the file pages, and (so that it matters) of RAM or of the cgroup's usage
_OF_FILE, _OF_WHOLE = 0.50, 0.05


def find(case: Case) -> Finding | None:
    memcg = case.report.memcg
    if case.report.constraint == "memcg" and memcg is not None and memcg.memory is not None:
        parts = kinds(memcg)
        dirty, writeback, whole = parts.dirty, parts.writeback, memcg.memory.usage_bytes
        file = None if parts.file is None else parts.file - (parts.shmem or 0)
    else:
        dirty, writeback, whole = case.total("dirty"), case.total("writeback"), case.ram_bytes or 0
        if writeback is not None:
            # written to an NFS server that has not made it safe yet (up to 5.8)
            writeback += case.total("unstable") or 0
        files = [case.total(n) for n in ("active_file", "inactive_file", "isolated_file")]
        file = None if files[0] is None else sum(f or 0 for f in files)
    if dirty is None or file is None or not whole:
        return None
    waiting = dirty + (writeback or 0)
    if waiting < _OF_WHOLE * whole or waiting < _OF_FILE * file:
        return None
    return Finding(
        id=ID,
        severity="warning",
        title=TITLE,
        explanation=f"{size(waiting)} wait to be written ({size(writeback or 0)} of it on its way), "
        f"{percent(waiting, file)} of the file pages: reclaim had to wait for the device.",
        evidence={
            "dirty_bytes": dirty,
            "writeback_bytes": writeback,
            "file_bytes": file,
            "waiting_share_ratio": ratio(waiting, file),
            "share_ratio": ratio(waiting, whole),
        },
        advice="See whether the device or file system behind it keeps up; let less wait (vm.dirty_ratio and "
        "vm.dirty_background_ratio, of which a cgroup gets its part; v1 gets none), or raise the limit."
        if case.report.constraint == "memcg"
        else "Bound what may wait with vm.dirty_bytes and vm.dirty_background_bytes, and see whether the "
        "device or file system behind it keeps up.",
    )
