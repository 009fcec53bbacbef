"""The processes that hold most, while memory is short.

One read of ``/proc/PID/statm`` for each process: 2.5 us, where psutil takes 13 to 17 (393 processes, the same
machine), and no object outlives the scan. Name, executable and cgroup are read once, when a process is first
among the largest. Source: proc(5).
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable

from oomwatchd.observe.host import Host, read_bytes
from oomwatchd.observe.process import COMM_BYTES, CommandLine, look_at, start_of
from oomwatchd.records.capture import ProcessFacts
from oomwatchd.records.kmsg import to_text

#: Processes whose facts are kept.
MAX_SEEN = 256
#: A pid that was not among the largest for so long may be another process's.
KNOWN_USEC = 60_000_000


class Seen:
    """A process that was among the largest, last at ``usec``; ``number`` identifies it in samples and is
    never reused."""

    __slots__ = ("facts", "number", "usec")

    def __init__(self, facts: ProcessFacts, number: int, usec: int) -> None:
        self.facts = facts
        self.number = number
        self.usec = usec


class Processes:
    """Sizes of processes, and who the large ones are. Not thread-safe; nothing here raises."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._proc = str(host.proc)
        self._page = host.page_size_bytes
        self._numbers = 0
        self._seen: dict[int, Seen] = {}

    def largest(self, most: int, pids: Iterable[int] | None = None) -> list[int]:
        """The pids with the largest resident sets among these, or among all processes (one scan of all)."""
        if pids is not None:
            names = [str(pid) for pid in pids]
        else:
            try:
                names = os.listdir(self._proc)  # noqa: PTH208  # thousands of names, no objects
            except OSError:
                return []
        found = []
        for name in names:
            if name.isdigit():
                size = self._statm(name)
                if size:
                    found.append((size, int(name)))
        return [pid for _, pid in heapq.nlargest(most, found)]

    def resident(self, pid: int) -> int | None:
        """Resident bytes now; None of a process that is gone, 0 of one without memory (kernel threads)."""
        size = self._statm(str(pid))
        return None if size is None else size * self._page

    def _statm(self, pid: str) -> int | None:
        try:
            descriptor = os.open(f"{self._proc}/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            words = os.read(descriptor, 128).split(b" ", 2)
            return int(words[1])
        except (OSError, ValueError, IndexError):
            return None
        finally:
            os.close(descriptor)

    def see(self, pid: int, command_line: CommandLine, usec: int) -> Seen | None:
        """Who this is: as known, or read now; None of a process that is gone."""
        name = read_bytes(f"{self._proc}/{pid}/comm", COMM_BYTES)
        if name is None:
            return None
        comm = to_text(name.removesuffix(b"\n"))
        known = self._seen.get(pid)
        if (
            known is not None
            and known.facts.comm == comm
            and known.facts.start_usec == start_of(self._host, pid)
        ):
            known.usec = usec
            return known
        facts = look_at(self._host, pid, comm, command_line)
        if facts is None:
            return None
        self._numbers += 1
        self._seen.pop(pid, None)
        seen = self._seen[pid] = Seen(facts, self._numbers, usec)
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        return seen

    def known(self, pid: int, usec: int) -> Seen | None:
        """What was learnt of this process lately."""
        seen = self._seen.get(pid)
        return None if seen is None or usec - seen.usec > KNOWN_USEC else seen
