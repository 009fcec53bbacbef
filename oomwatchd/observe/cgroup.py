"""Cgroups of the memory controller: who is in them, what they are charged, and in which one the kernel
killed.

The tree is walked at the flight recorder's pace: a directory whose link count is unchanged has the
subdirectories it had (kernfs counts them), so that a calm walk costs three system calls and two short reads
a cgroup. Which process is where comes from ``cgroup.procs``, one read a cgroup, not one a process.

The kernel counts each kill in the victim's own cgroup before it prints the kill line
(``__oom_kill_process()``): v1 ``oom_kill`` in memory.oom_control (4.13), v2 ``oom_kill`` in
memory.events.local (5.2), before that in memory.events of all ancestors too. A counter that grew thus names
the cgroup of a victim that nobody saw alive; two that grew name nobody.

Sources: Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst, cgroups(7), proc(5).
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from oomwatchd.kmsg import to_text
from oomwatchd.observe.host import Host, read_bytes, sees_kernel_pids

#: Bounds of what is known at once: about 600 bytes a cgroup, 120 a process.
MAX_GROUPS = 2048
MAX_MEMBERS = 32768
#: of one cgroup.procs
_MEMBERS_BYTES = 256 * 1024
#: The kernel ends one read of a sequence file where the next line would not fit its page.
_SHORT_READ = 4096 - 16
#: Directories read again in one walk because a cgroup vanished meanwhile.
_RELISTED = 64
#: Growth that no kill line claimed within this time belongs to none that will come.
CLAIM_USEC = 5_000_000
#: Walks between two readings of the limits.
_LIMITS_EVERY = 6
#: From this share of its limit on (inactive file pages not counted) a cgroup is short of memory.
NEAR_LIMIT = 0.8
#: Below this share it is not, however fast it grows.
_FAR = 0.4
#: It must grow by this share of its limit from one walk to the next.
_GROWING = 0.005
#: v1 writes "no limit" as the largest multiple of the page size
_UNLIMITED = 1 << 62


class Hierarchy(msgspec.Struct, frozen=True):
    """Where the memory controller is mounted; ``root`` is the cgroup that is seen at the mount point, as
    the kernel log writes it."""

    mount: str
    root: str
    version: int


def memory_hierarchy(host: Host) -> Hierarchy | None:
    """The mounted hierarchy with the memory controller (proc_pid_mountinfo(5)); None if there is none."""
    text = read_bytes(host.proc / "self/mountinfo", 1024 * 1024) or b""
    for line in text.decode(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        where, what = before.split(" "), after.split(" ")
        if len(where) < 5 or len(what) < 3:
            continue
        root, mount = where[3], where[4]
        root = "" if root == "/" or root.startswith("/..") else root
        if what[0] == "cgroup" and "memory" in what[2].split(","):
            return Hierarchy(mount, root, 1)
        if what[0] == "cgroup2":
            controllers = read_bytes(f"{mount}/cgroup.controllers", 4096) or b""
            if b"memory" in controllers.split():
                return Hierarchy(mount, root, 2)
    return None


class Group:
    """One cgroup. ``path`` is the kernel's; ``number`` stands for it in samples and is never given again;
    amounts are bytes, None where the kernel shows none."""

    __slots__ = (
        *("children", "directory", "grew_usec", "inode", "kills", "limit", "links", "near", "number"),
        *("path", "unclaimed", "usage"),
    )

    def __init__(self, directory: str, path: str, number: int) -> None:
        self.directory = directory
        self.path = path
        self.number = number
        self.children: dict[str, Group] = {}
        self.inode = 0
        self.links = 0
        self.usage: int | None = None
        self.limit: int | None = None
        #: short of memory under its own limit
        self.near = False
        #: the kernel's count of kills at the last reading
        self.kills: int | None = None
        #: kills it has more than kill lines were put to it; below 0 while the count was not read again. Good
        #: for CLAIM_USEC after grew_usec
        self.unclaimed = 0
        self.grew_usec = 0


class _Files(msgspec.Struct, frozen=True):
    usage: str
    limit: str
    kills: tuple[str, ...]
    inactive: bytes


_V1 = _Files(
    "memory.usage_in_bytes", "memory.limit_in_bytes", ("memory.oom_control",), b"\ntotal_inactive_file "
)
_V2 = _Files("memory.current", "memory.max", ("memory.events.local", "memory.events"), b"\ninactive_file ")


class Cgroups:
    """The tree as it was at the last walk. Not thread-safe. Nothing here raises for what the host shows."""

    def __init__(self, host: Host) -> None:
        self.hierarchy = memory_hierarchy(host)
        #: members are known by the numbers that kill lines print
        self._same_pids = sees_kernel_pids(host.proc)
        self._files = _V1 if self.hierarchy is not None and self.hierarchy.version == 1 else _V2
        self._numbers = 0
        self._walks = 0
        self._root: Group | None = None
        self._count = 0
        self._by_path: dict[str, Group] = {}
        self._members: dict[int, Group] = {}
        #: as of the walk before: who died just before a walk is in its kill line only after it
        self._were: dict[int, Group] = {}
        #: kills put to cgroups that no walk has seen yet
        self._ahead: dict[str, int] = {}
        self._counted_usec = -1
        #: cgroups beyond MAX_GROUPS were left out of the last walk
        self.truncated = False
        if self.hierarchy is not None:
            self._root = self._new(self.hierarchy.mount, self.hierarchy.root or "/")

    def __iter__(self) -> Iterator[Group]:
        return iter(self._by_path.values())

    def __len__(self) -> int:
        return len(self._by_path)

    def get(self, path: str) -> Group | None:
        """The cgroup of that path, as of the last walk."""
        return self._by_path.get(path)

    def of(self, pid: int) -> Group | None:
        """The cgroup that the process was in at the last walk."""
        return (self._members.get(pid) or self._were.get(pid)) if self._same_pids else None

    def members(self, group: Group, most: int) -> list[int]:
        """Processes in the cgroup now, at most so many."""
        return self._pids(group)[:most]

    # -- walks -------------------------------------------------------------------------------------

    def walk(self, usec: int, *, count: bool) -> None:
        """Look at every cgroup: new ones, removed ones, members, usage; with ``count`` also at the
        kernel's counts of kills. The first walk takes these as they are: older kills are not asked for."""
        if self._root is None:
            return
        first, limits = self._walks == 0, self._walks % _LIMITS_EVERY == 0
        self._walks += 1
        members: dict[int, Group] = {}
        for group, new in self._visit():
            for pid in self._pids(group):
                if len(members) < MAX_MEMBERS:
                    members[pid] = group
            if limits or new:
                group.limit = self._number(group, self._files.limit)
            before, now = group.usage, self.refresh(group)
            group.near = now is not None and before is not None and self._is_near(group, now, now - before)
            if first:
                group.kills = self.kills(group)
            elif count or new:
                self._grow(group, usec, new=new)
        self._were, self._members = self._members, members
        self._ahead.clear()

    def _count_kills(self, usec: int) -> None:
        """Read every count of kills, growth is open to be claimed, and who else may be next."""
        for group, new in self._visit():
            for pid in self._pids(group):
                if len(self._members) < MAX_MEMBERS or pid in self._members:
                    self._members[pid] = group
            self._grow(group, usec, new=new)

    def _grow(self, group: Group, usec: int, *, new: bool = False) -> None:
        kills = self.kills(group)
        if kills is None:
            return
        if new or group.kills is None:
            group.kills = 0 if new else kills
            group.unclaimed -= self._ahead.pop(group.path, 0)
        if usec - group.grew_usec > CLAIM_USEC:
            group.unclaimed = 0
        if kills > group.kills:
            group.unclaimed += kills - group.kills
            group.kills, group.grew_usec = kills, usec

    def _visit(self) -> Iterator[tuple[Group, bool]]:
        """Every cgroup there is, each before its children, and whether it is seen for the first time."""
        if self._root is None:
            return
        relisted, self.truncated = 0, False
        waiting: list[tuple[Group, Group | None]] = [(self._root, None)]
        by_path: dict[str, Group] = {}
        while waiting:
            group, parent = waiting.pop()
            try:
                status = os.stat(group.directory)  # noqa: PTH116  # a third of the price
            except OSError:
                if parent is not None and relisted < _RELISTED:
                    relisted += 1
                    # another may have come in its place, which leaves the parent's count as it was
                    known = set(parent.children.values())
                    self._list(parent)
                    parent.children = {n: g for n, g in parent.children.items() if g is not group}
                    waiting += ((child, parent) for child in parent.children.values() if child not in known)
                continue
            new = group.inode != status.st_ino
            if new and group.inode:  # removed and made again
                group = self._replace(group)
            group.inode = status.st_ino
            if len(by_path) >= MAX_GROUPS:
                self.truncated = True
                break
            by_path[group.path] = group
            # file systems that do not count directories say 1
            if new or status.st_nlink != group.links or status.st_nlink < 2:
                group.links = status.st_nlink
                self._list(group)
            waiting += ((child, group) for child in group.children.values())
            yield group, new
        self._by_path = by_path

    def _list(self, group: Group) -> None:
        known, group.children = group.children, {}
        with suppress(OSError), os.scandir(group.directory) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False) or len(group.children) >= MAX_GROUPS:
                    continue
                old = known.get(entry.name)
                path = f"{group.path.rstrip('/')}/{to_text(os.fsencode(entry.name))}"
                group.children[entry.name] = old or self._new(entry.path, path)

    def _new(self, directory: str, path: str) -> Group:
        self._numbers += 1
        return Group(directory, path, self._numbers)

    def _replace(self, group: Group) -> Group:
        """A new cgroup under an old one's name."""
        new = self._new(group.directory, group.path)
        parent = self._by_path.get(group.path.rpartition("/")[0] or "/")
        name = os.path.basename(group.directory)  # noqa: PTH119
        if parent is not None and name in parent.children:
            parent.children[name] = new
        return new

    # -- whose kill --------------------------------------------------------------------------------

    def claim(self, path: str, usec: int) -> None:
        """A kill is known to have been in this cgroup: its count's growth is accounted for."""
        group = self._by_path.get(path)
        if group is not None:
            group.unclaimed -= 1
            group.grew_usec = usec
        elif len(self._ahead) < MAX_GROUPS:
            self._ahead[path] = self._ahead.get(path, 0) + 1

    def of_victim(self, pid: int, usec: int, stamp_usec: int) -> tuple[str, str] | None:
        """The cgroup of a victim and how that is known, ``recorder`` or ``events``; None if it is not.

        ``stamp_usec`` is when its kill line was printed, ``usec`` now, on the same clock. Counts that were
        read after the line was printed hold its kill; they are not read again for it.
        """
        group = self.of(pid)
        if group is not None and self._confirms(group, usec):
            group.unclaimed -= 1
            return group.path, "recorder"
        if self._counted_usec < stamp_usec:
            self._counted_usec = usec
            self._count_kills(usec)
            fresh = self.of(pid)
            if fresh is not None and fresh is not group and self._confirms(fresh, usec):
                fresh.unclaimed -= 1
                return fresh.path, "recorder"
        return self.only_claimant()

    def only_claimant(self) -> tuple[str, str] | None:
        """The one cgroup with a kill that no kill line was put to."""
        grown = [group for group in self._by_path.values() if group.unclaimed > 0]
        # where only the hierarchical count exists, ancestors grow too
        leaves = [
            group
            for group in grown
            if not any(other is not group and _is_below(other.path, group.path) for other in grown)
        ]
        if len(leaves) != 1:
            return None
        for group in grown:
            group.unclaimed -= 1
        return leaves[0].path, "events"

    def _confirms(self, group: Group, usec: int) -> bool:
        """Whether that cgroup has a kill to give; one that is gone cannot deny it."""
        if group.unclaimed > 0:
            return True
        self._grow(group, usec)
        return group.unclaimed > 0 or self.kills(group) is None

    # -- files -------------------------------------------------------------------------------------

    def _pids(self, group: Group) -> list[int]:
        try:
            descriptor = os.open(f"{group.directory}/cgroup.procs", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return []
        data = b""
        try:
            while len(data) < _MEMBERS_BYTES:
                piece = os.read(descriptor, 65536)
                data += piece
                if len(piece) < _SHORT_READ:
                    break
        except OSError:
            pass  # threaded cgroups of v2 list none
        finally:
            os.close(descriptor)
        return [int(pid) for pid in data.split() if pid.isdigit()]

    def _number(self, group: Group, file: str) -> int | None:
        data = (read_bytes(f"{group.directory}/{file}", 32) or b"").strip()
        value = int(data) if data.isdigit() else None
        return None if value is None or value >= _UNLIMITED else value

    def kills(self, group: Group) -> int | None:
        for file in self._files.kills:
            for line in (read_bytes(f"{group.directory}/{file}", 1024) or b"").split(b"\n"):
                name, _, value = line.partition(b" ")
                if name == b"oom_kill" and value.isdigit():
                    return int(value)
        return None

    def _is_near(self, group: Group, usage: int, growth: int) -> bool:
        """Whether the cgroup will be short of memory soon: it grows and is close to its limit, or would
        reach that within two more walks. One that stays as it is does not hurry anybody."""
        limit = group.limit
        if not limit or growth < _GROWING * limit:
            return False
        least = max(_FAR * limit, min(NEAR_LIMIT * limit, limit - 2 * growth))
        if usage < least:
            return False
        text = read_bytes(f"{group.directory}/memory.stat", 8192) or b""
        _, found, rest = text.partition(self._files.inactive)
        value = rest.partition(b"\n")[0]
        usage -= int(value) if found and value.isdigit() else 0
        return usage >= least

    def refresh(self, group: Group) -> int | None:
        """What the cgroup is charged now."""
        group.usage = self._number(group, self._files.usage)
        return group.usage

    def largest(self, most: int) -> list[Group]:
        """The cgroups that are charged most, and those that are short under their own limit."""
        charged = [group for group in self._by_path.values() if group.usage is not None]
        found = heapq.nlargest(most, charged, key=lambda group: group.usage or 0)
        found += [group for group in charged if group.near and group not in found][:most]
        return found


def _is_below(path: str, ancestor: str) -> bool:
    return path != ancestor and path.startswith(ancestor.rstrip("/") + "/")
