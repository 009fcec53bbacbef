"""Cgroups of the memory controller: who is in them, what they are charged, and in which one the kernel
killed.

The tree is walked at the flight recorder's pace: a directory whose link count is unchanged has the
subdirectories it had (kernfs counts them), so that a calm walk costs three system calls and two short reads
for each cgroup. Members come from ``cgroup.procs``: one read for each cgroup, not one for each process.

One long class: the walk, the limits and the counts of kills are kept by cgroup in the one table.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress

from oomwatchd.cgroupfs import FILES, HIERARCHICAL_KILLS, amount, entry, pids
from oomwatchd.observe.group import Group
from oomwatchd.observe.growth import GrowthRate
from oomwatchd.observe.hierarchy import memory_hierarchy
from oomwatchd.observe.host import Host, read_bytes, sees_kernel_pids
from oomwatchd.observe.inotify import Changes
from oomwatchd.observe.limits import WATCHED_USEC, judge
from oomwatchd.records.kmsg import to_text

#: Bounds of what is known at once: about 600 bytes a cgroup, 120 a process.
MAX_GROUPS = 2048
MAX_MEMBERS = 32768
#: of one cgroup.procs
_MEMBERS_BYTES = 256 * 1024
#: The kernel ends one read of a sequence file where the next line would not fit its page.
_SHORT_READ = 4096 - 16
#: Directories read again in one walk because a cgroup vanished meanwhile.
_RELISTED = 64
#: Walks between two readings of a limit, unless the cgroup grew by so many bytes.
_LIMITS_EVERY = 6
_NOTABLE_BYTES = 1 << 20
#: Cgroups below one that are read for its members.
_MEMBER_GROUPS = 64


class Cgroups:
    """The tree as it was at the last walk. Not thread-safe. Nothing here raises for what the host shows."""

    def __init__(self, host: Host) -> None:
        self.hierarchy = memory_hierarchy(host)
        #: members are known by the numbers that kill lines print
        self._same_pids = sees_kernel_pids(host.proc)
        self._files = FILES[2] if self.hierarchy is None else self.hierarchy.files
        self._numbers = 0
        self._walks = 0
        self._root: Group | None = None
        self._count = 0
        self._by_path: dict[str, Group] = {}
        self._members: dict[int, Group] = {}
        #: members at the walk before: the kill line of a process that died just before a walk is read after
        #: it
        self._were: dict[int, Group] = {}
        #: cgroups beyond MAX_GROUPS were left out of the last walk
        self.truncated = False
        #: counts of kills hold those of the cgroups below (v2 before 5.2)
        self.hierarchical_counts = False
        #: when the last walk began
        self._walked_usec = -1
        self.changes = Changes()
        self._watches: dict[int, Group] = {}
        if self.hierarchy is not None:
            self._root = self._new(self.hierarchy.mount, self.hierarchy.root or "/")

    def __iter__(self) -> Iterator[Group]:
        return iter(self._by_path.values())

    def __len__(self) -> int:
        return len(self._by_path)

    def get(self, path: str) -> Group | None:
        """The cgroup of that path, as of the last walk."""
        return self._by_path.get(path)

    @property
    def made(self) -> int:
        """How many cgroups were ever seen; a larger number means that there are new ones."""
        return self._numbers

    @property
    def table(self) -> Mapping[str, Group]:
        """The present cgroups by path; each walk makes a new table."""
        return self._by_path

    def of(self, pid: int) -> Group | None:
        """The cgroup that the process was in at the last walk."""
        return (self._members.get(pid) or self._were.get(pid)) if self._same_pids else None

    def members(self, group: Group, most: int) -> list[int]:
        """Processes in the cgroup and those below it now, at most ``most``; the cgroups that are charged
        most come first."""
        found: list[int] = []
        waiting = [group]
        for _ in range(_MEMBER_GROUPS):
            if not waiting or len(found) >= most:
                break
            one = waiting.pop()
            found += self.see_members(one)
            waiting += sorted(one.children.values(), key=lambda child: child.usage or 0)
        return found[:most]

    # -- walks -------------------------------------------------------------------------------------

    def walk(self, usec: int) -> None:
        """Look at every cgroup: new ones, removed ones, members, usage, limits."""
        if self._root is None:
            return
        first, limits = self._walks == 0, self._walks % _LIMITS_EVERY == 0
        since, self._walked_usec = self._walked_usec, usec
        self._walks += 1
        members: dict[int, Group] = {}
        for group, new in self.visit():
            for pid in self._pids(group):
                if len(members) < MAX_MEMBERS:
                    members[pid] = group
            before, now = group.usage, self._number(group, self._files.usage)
            if limits or new or (now or 0) - (before or 0) >= _NOTABLE_BYTES:
                group.limit = self._number(group, self._files.limit)
            if new and not first and group.limit:
                group.growth = GrowthRate(since, 0)  # it was not there at the walk before
            judge(group, self._files, usec, now)
        self._were, self._members = self._members, members
        for number, group in [*self._watches.items()]:
            if self._by_path.get(group.path) is not group:
                self.changes.unwatch(number)
                group.watch = None
                del self._watches[number]

    def look_at_changes(self, usec: int) -> bool:
        """Look at the cgroups that were made, got processes or a limit since; False if more was changed than
        is known: a walk finds it."""
        changed, overflow = self.changes.read()
        made: dict[str, Group] = {}
        # no recursion: the owner of a delegated cgroup may nest as many as PATH_MAX allows
        waiting = [
            (group, children)
            for number, children in changed.items()
            if (group := self._watches.get(number)) is not None
        ]
        while waiting:
            group, children = waiting.pop()
            self._look_at_change(group, usec)
            if children:
                waiting += self._made_in(group, made)
        if made:
            # another thread may still read the old table
            self._by_path = {**self._by_path, **made}
        return not overflow

    def _look_at_change(self, group: Group, usec: int) -> None:
        self.see_members(group)
        before, group.limit = group.limit, self._number(group, self._files.limit)
        if group.limit is not None and group.limit != before:
            group.watched_until = usec + WATCHED_USEC  # what just began may fill it in no time
        self.refresh(group, usec)

    def _made_in(self, group: Group, made: dict[str, Group]) -> list[tuple[Group, bool]]:
        """Cgroups below this one that are new, each with whether there may be others below it."""
        self._list(group, len(group.children) + MAX_GROUPS - len(self._by_path) - len(made))
        found = []
        for child in group.children.values():
            if child.inode:
                continue
            self._watch(child)  # first: what comes after the look is told
            try:
                status = os.stat(child.directory)  # noqa: PTH116 - no Path for each
            except OSError:
                continue
            child.inode = status.st_ino
            made[child.path] = child
            found.append((child, status.st_nlink != 2))
        return found

    def _watch(self, group: Group) -> None:
        group.watch = self.changes.watch(group.directory)
        if group.watch is not None:
            self._watches[group.watch] = group

    def see_members(self, group: Group) -> list[int]:
        """Read who is in the cgroup now; earlier members stay known."""
        pids = self._pids(group)
        for pid in pids:
            if len(self._members) < MAX_MEMBERS or pid in self._members:
                self._members[pid] = group
        return pids

    def visit(self) -> Iterator[tuple[Group, bool]]:
        """Every cgroup there is, each before its children, and whether it is seen for the first time."""
        if self._root is None:
            return
        relisted, self.truncated = 0, False
        waiting: list[tuple[Group, Group | None]] = [(self._root, None)]
        by_path: dict[str, Group] = {}

        def room() -> int:
            return MAX_GROUPS - len(by_path) - len(waiting)

        while waiting:
            group, parent = waiting.pop()
            try:
                status = os.stat(group.directory)  # noqa: PTH116  # a third of the price
            except OSError:
                if parent is not None and relisted < _RELISTED:
                    relisted += 1
                    # another may have replaced it, which leaves the parent's link count unchanged
                    known = set(parent.children.values())
                    self._list(parent, len(known) + room())
                    parent.children = {n: g for n, g in parent.children.items() if g is not group}
                    waiting += ((child, parent) for child in parent.children.values() if child not in known)
                continue
            new = group.inode != status.st_ino
            if new and group.inode:  # removed and made again
                group = self._replace(group)
            group.inode = status.st_ino
            by_path[group.path] = group
            # file systems that do not count directories give 1
            if group.watch is None:
                self._watch(group)
            if new or status.st_nlink != group.links or status.st_nlink < 2:
                group.links = status.st_nlink
                self._list(group, room())
            elif len(group.children) > room():
                self._leave_out(group, room())
            waiting += ((child, group) for child in group.children.values())
            yield group, new
        self._by_path = by_path

    def _list(self, group: Group, room: int) -> None:
        """Read which cgroups are below this one, at most so many."""
        known, group.children = group.children, {}
        try:
            entries = os.scandir(group.directory)
        except OSError:  # it is gone (the next walk sees that), or memory or descriptors are short just now
            group.links, group.children = -1, dict(list(known.items())[: max(0, room)])
            return
        with suppress(OSError), entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    continue
                if len(group.children) >= room:
                    self._leave_out(group, room)
                    break
                old = known.get(entry.name)
                path = f"{group.path.rstrip('/')}/{to_text(os.fsencode(entry.name))}"
                group.children[entry.name] = old or self._new(entry.path, path)
                group.parent_of_some = True

    def _leave_out(self, group: Group, room: int) -> None:
        """There are more cgroups than are kept: drop those of this one that are too many, and read it again
        at the next walk."""
        self.truncated = True
        group.links = -1
        group.children = dict(list(group.children.items())[: max(0, room)])

    def _new(self, directory: str, path: str) -> Group:
        self._numbers += 1
        return Group(directory, path, self._numbers)

    def _replace(self, group: Group) -> Group:
        """A new cgroup has the name of an old one."""
        new = self._new(group.directory, group.path)
        parent = self._by_path.get(group.path.rpartition("/")[0] or "/")
        name = os.path.basename(group.directory)  # noqa: PTH119
        if parent is not None and name in parent.children:
            parent.children[name] = new
        return new

    # -- files -------------------------------------------------------------------------------------

    def _pids(self, group: Group) -> list[int]:
        try:
            descriptor = os.open(f"{group.directory}/{self._files.procs}", os.O_RDONLY | os.O_CLOEXEC)
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
        return pids(data)

    def _number(self, group: Group, file: str) -> int | None:
        return amount(read_bytes(f"{group.directory}/{file}", 32))

    def kills(self, group: Group) -> int | None:
        """The kernel's count of kills in this cgroup; None where it has none."""
        for file in self._files.kills:
            count = entry(read_bytes(f"{group.directory}/{file}", 1024), b"oom_kill")
            if count is not None:
                self.hierarchical_counts = file == HIERARCHICAL_KILLS
                return count
        return None

    def counting(self, group: Group) -> Group | None:
        """The cgroup that counts the kills of this one: itself, else the nearest above that has the memory
        controller (v2); None of one that was removed, or replaced by another of its name."""
        if not _is_still(group):
            return None
        found: Group | None = group
        while found is not None and self.kills(found) is None:
            found = self._by_path.get(found.path.rpartition("/")[0] or "/") if found.path != "/" else None
        return found

    def refresh(self, group: Group, usec: int) -> None:
        """What the cgroup is charged now, and how long until its limit."""
        judge(group, self._files, usec, self._number(group, self._files.usage))

    def largest(self, most: int) -> list[Group]:
        """The cgroups that are charged most."""
        charged = [group for group in self._by_path.values() if group.usage is not None]
        return heapq.nlargest(most, charged, key=lambda group: group.usage or 0)

    def watched(self, most: int, usec: int) -> list[Group]:
        """Cgroups that are near their limit or just got one, the nearest first."""
        found = [group for group in self._by_path.values() if group.watched_until > usec]
        never = float("inf")
        return heapq.nsmallest(most, found, key=lambda g: never if g.left_seconds is None else g.left_seconds)


def _is_still(group: Group) -> bool:
    try:
        return os.stat(group.directory).st_ino == group.inode  # noqa: PTH116 - no Path for each
    except OSError:
        return False
