"""The host's memory as metrics and pages show it: read when somebody asks, at most once a second."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

from oomwatchd.cgroupfs import Files, amount, entry
from oomwatchd.diagnosis.headroom import CgroupHeadroom, Headroom, headroom
from oomwatchd.observe.cgroup import Cgroups
from oomwatchd.observe.group import Group
from oomwatchd.observe.host import Host, read_bytes
from oomwatchd.observe.snapshot import Snapshots

#: cgroups shown: those with the least room below their limit
TOP_CGROUPS = 20
FRESH_SECONDS = 1.0


class HostMemory:
    """May be asked from any thread; reads through descriptors of its own."""

    def __init__(
        self, host: Host, cgroups: Cgroups | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``cgroups`` are the flight recorder's: the tree is not walked a second time."""
        self._host = host
        self._clock = clock
        self._snapshots = Snapshots(host)
        self._lock = threading.Lock()
        self._seen: tuple[float, Headroom] | None = None
        self._cgroups = cgroups

    def __call__(self) -> Headroom:
        with self._lock:
            now = self._clock()
            if self._seen is None or now >= self._seen[0] + FRESH_SECONDS:
                self._seen = now, self._read()
            return self._seen[1]

    def _read(self) -> Headroom:
        snapshot = self._snapshots.take(0, 0.0)
        return headroom(snapshot, self._host.page_size_bytes, self._limited())

    def _limited(self) -> tuple[CgroupHeadroom, ...]:
        """The cgroups closest to their limit at the last walk, as they are now. The walk belongs to the
        main thread, which puts a whole new table in place when it is done."""
        if self._cgroups is None or self._cgroups.hierarchy is None:
            return ()
        limited = [group for group in self._cgroups if group.limit is not None and group.usage is not None]
        closest = heapq.nsmallest(
            TOP_CGROUPS, limited, key=lambda group: (group.limit or 0) - (group.usage or 0)
        )
        files = self._cgroups.hierarchy.files
        found = [_look_at(group, files) for group in closest]
        return tuple(one for one in found if one is not None)


def _look_at(group: Group, files: Files) -> CgroupHeadroom | None:
    usage = amount(read_bytes(f"{group.directory}/{files.usage}", 32))
    if usage is None or group.limit is None:
        return None
    stat = read_bytes(f"{group.directory}/{files.stat}", 8192)
    return CgroupHeadroom(
        path=group.path,
        limit_bytes=group.limit,
        usage_bytes=usage,
        reclaimable_bytes=entry(stat, files.inactive_file) or 0,
    )
