"""The host's memory as metrics and pages show it: read when somebody asks, at most once a second."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

from oomwatchd.diagnosis.headroom import CgroupDistance, Distance, distance
from oomwatchd.observe.cgroup import Cgroups, Group
from oomwatchd.observe.host import Host, read_bytes
from oomwatchd.observe.snapshot import Snapshots

#: cgroups shown: those with the least room below their limit
TOP_CGROUPS = 20
FRESH_SECONDS = 1.0


class HostView:
    """May be asked from any thread; reads through descriptors of its own."""

    def __init__(
        self, host: Host, cgroups: Cgroups | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``cgroups`` are the flight recorder's: the tree is not walked a second time."""
        self._host = host
        self._clock = clock
        self._snapshots = Snapshots(host)
        self._lock = threading.Lock()
        self._seen: tuple[float, Distance] | None = None
        self._cgroups = cgroups

    def __call__(self) -> Distance:
        with self._lock:
            now = self._clock()
            if self._seen is None or now >= self._seen[0] + FRESH_SECONDS:
                self._seen = now, self._read()
            return self._seen[1]

    def _read(self) -> Distance:
        snapshot = self._snapshots.take(0, 0.0)
        return distance(snapshot, self._host.page_size_bytes, self._limited())

    def _limited(self) -> tuple[CgroupDistance, ...]:
        """The cgroups closest to their limit at the last walk, as they are now. The walk belongs to the
        main thread, which puts a whole new table in place when it is done."""
        if self._cgroups is None or self._cgroups.hierarchy is None:
            return ()
        limited = [group for group in self._cgroups if group.limit is not None and group.usage is not None]
        closest = heapq.nsmallest(
            TOP_CGROUPS, limited, key=lambda group: (group.limit or 0) - (group.usage or 0)
        )
        v1 = self._cgroups.hierarchy.version == 1
        found = [_look_at(group, v1) for group in closest]
        return tuple(one for one in found if one is not None)


def _look_at(group: Group, v1: bool) -> CgroupDistance | None:
    usage = (
        read_bytes(f"{group.directory}/memory.{'usage_in_bytes' if v1 else 'current'}", 32) or b""
    ).strip()
    if not usage.isdigit() or group.limit is None:
        return None
    stat = b"\n" + (read_bytes(f"{group.directory}/memory.stat", 8192) or b"")
    inactive = stat.partition(b"\ntotal_inactive_file " if v1 else b"\ninactive_file ")[2].partition(b"\n")[0]
    return CgroupDistance(
        path=group.path,
        limit_bytes=group.limit,
        usage_bytes=int(usage),
        reclaimable_bytes=int(inactive) if inactive.isdigit() else 0,
    )
