"""Which cgroups the processes of a task table are in: one short read of ``/proc/PID/cgroup`` each.

For the worker, which has the table decoded. The kernel's table names no cgroups; of many processes most are
still alive just after one was killed. Source: proc(5), cgroups(7).
"""

from __future__ import annotations

from collections.abc import Iterable

from oomwatchd.cgroupfs import memory_cgroup
from oomwatchd.observe.host import Host, read_bytes
from oomwatchd.observe.process import CGROUP_BYTES
from oomwatchd.records.capture import Crowd

#: Processes that are read, cgroups that are named, and the least members of each.
MOST_ASKED, MOST_CROWDS, LEAST = 4096, 8, 20


def crowds(host: Host, pids: Iterable[int]) -> tuple[Crowd, ...]:
    """The cgroups with most of these processes, the largest first. Never raises."""
    found: dict[str, list[int]] = {}
    for pid in list(pids)[:MOST_ASKED]:
        text = read_bytes(f"{host.proc}/{pid}/cgroup", CGROUP_BYTES)
        path = host.whole(memory_cgroup(text)) if text else None
        if path is not None:
            found.setdefault(path, []).append(pid)
    many = sorted(found.items(), key=lambda pair: -len(pair[1]))[:MOST_CROWDS]
    return tuple(Crowd(cgroup=path, pids=tuple(members)) for path, members in many if len(members) >= LEAST)
