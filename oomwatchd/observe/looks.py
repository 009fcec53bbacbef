"""What the warning is told of: the machine, and the cgroups that grow towards a limit of their own.

A look costs nothing while nothing grows: the machine's figures are in the flight recorder's sample, a
cgroup's charge was read by its walk. memory.stat is read only of cgroups that grew by a notable share of
their limit or are nearly full, processes and tmpfs mounts only where an end is in sight.

One long class: each reading needs what the looks before it kept.

Sources: Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst, proc(5), statvfs(3).
"""

from __future__ import annotations

import heapq
import os
import re
import time
from collections.abc import Callable, Iterable

import msgspec

from oomwatchd import procfs
from oomwatchd.cgroupfs import Files, amount, entry
from oomwatchd.observe.cgroup import Cgroups
from oomwatchd.observe.group import Group
from oomwatchd.observe.heaps import most_held
from oomwatchd.observe.host import Host, read_bytes
from oomwatchd.observe.hotplug import Tmpfs
from oomwatchd.records.kmsg import to_text
from oomwatchd.records.nearing import Candidate, Passed
from oomwatchd.warning.incidents import Reading

#: A cgroup is looked at closely when it grew by this share of its limit within this time, or holds this
#: share.
_GREW, _WITHIN_USEC, _FULL = 0.015, 120_000_000, 0.8
#: ... and no longer when it did not for so long.
_CALM_USEC = 300_000_000
#: How many at most: those with the least room.
MOST_FOLLOWED = 64
#: Looks at members and mounts: so far apart, and this part of the time that is left; so many kept, so many
#: processes each.
_DEEPER_USEC, _DEEPER_PART, _DEEPER_KEPT, _MEMBERS = 4_000_000, 0.1, 32, 256
#: They may take this share of the CPU, at one time at least and at most so many seconds of it.
_DEEPER_SHARE, _LEAST_DEEPER, _MOST_DEEPER = 0.01, 0.002, 0.02
#: The growth is theirs if they grew by this share of it; it is in what they had mapped before if they mapped
#: less than this share of it anew.
_THEIRS, _MAPPED_ANEW = 0.7, 0.25
#: Command lines are read of processes that hold so much; they are cut there.
_LARGE, _COMMAND_BYTES = 16 << 20, 16384
#: A process computes if it wanted the processor for this share of its life; it is new if it is older than the
#: growth by no more than this.
_COMPUTES, _YOUNG_SECONDS = 0.85, 5.0
#: A growth is a job's if such processes hold this share of it; the kernel's own memory for them is no page of
#: theirs.
_MOSTLY = 0.5
#: memory.high stops a growth, but not one that is beyond it by this factor.
_BEYOND = 1.05
_TICKS = os.sysconf("SC_CLK_TCK")
#: Of a zram device, swapped pages stay in memory, compressed: what it gives is less than what it holds.
_ZRAM_HELPS = 0.6
_FULL_AVG10 = re.compile(rb"^full avg10=(\d+\.\d+)", re.MULTILINE)
#: with all below it (v1: total_); of the machine
_REFAULTS = re.compile(rb"^(total_)?workingset_refault\w* (\d+)$", re.MULTILINE)
_STAT_BYTES = 16384
_CANDIDATES = 64


class Deeper(msgspec.Struct, frozen=True, gc=False):
    """What may bound a growth, at one moment; bytes. ``mapped_left`` are private writable pages that were
    never touched; ``mounts`` maps a tmpfs to what it holds and what it may hold yet; ``heaps`` is what
    processes hold whose runtime bounds them, ``heaps_left`` what they may hold yet."""

    usec: int
    used: int
    resident: int
    mapped: int
    mapped_left: int
    shmem: int
    mounts: dict[str, tuple[int, int]]
    heaps: int = 0
    heaps_left: int = 0


class _Followed:
    """A cgroup that grows."""

    __slots__ = ("deeper", "grew_usec", "group", "most", "once")

    def __init__(self, group: Group, usec: int, once: tuple[int, int] | None) -> None:
        self.group = group
        #: when it was looked at before it grew, and its charge then; None after the first look
        self.once = once
        self.grew_usec = usec
        self.most = group.usage or 0
        self.deeper: list[Deeper] = []


class Looks:
    """The readings of one host. Not thread-safe; nothing here raises for what the host shows."""

    def __init__(self, host: Host, cgroups: Cgroups, cpu: Callable[[], float] = time.thread_time) -> None:
        self._host = host
        self._cpu = cpu
        self._cgroups = cgroups
        self._files: Files | None = None if cgroups.hierarchy is None else cgroups.hierarchy.files
        #: by number: since when, and the charge then
        self._base: dict[int, tuple[int, int]] = {}
        self._followed: dict[int, _Followed] = {}
        self._machine: list[Deeper] = []
        self._zram: tuple[int, bool] | None = None
        self._deeper_at = 0
        self._mounts: tuple[int, dict[str, tuple[int, int]]] = (-1, {})

    # -- readings ----------------------------------------------------------------------------------

    def readings(self, parts: tuple[bytes, ...], usec: int) -> list[Reading]:
        """The machine, and each cgroup that is followed, as of a sample (``parts`` as
        :data:`oomwatchd.observe.abridged.PARTS`)."""
        meminfo, vmstat, _, pressure = parts
        free = procfs.amount_of(meminfo, b"SwapFree") or 0
        found = []
        machine = self._of_machine(meminfo, vmstat, pressure, usec)
        if machine is not None:
            found.append(machine)
        if self._files is not None:
            total = procfs.amount_of(meminfo, b"MemTotal") or 0
            self._choose(usec, total)
            for one in self._followed.values():
                reading = self._of_group(one, usec, free)
                if reading is not None:
                    found += [*_before(one, reading), reading]
        return found

    def _of_machine(self, meminfo: bytes, vmstat: bytes, pressure: bytes, usec: int) -> Reading | None:
        names = (b"MemTotal", b"MemAvailable", b"SwapTotal", b"SwapFree", b"AnonPages", b"Shmem")
        total, available, swap, free, anonymous, shmem = (procfs.amount_of(meminfo, n) or 0 for n in names)
        if not total or procfs.amount_of(meminfo, b"MemAvailable") is None:
            return None
        helps = min(free, anonymous + shmem)
        if helps and self._has_zram(swap):
            helps = int(helps * _ZRAM_HELPS)
        used = total - min(total, available) + swap - free
        full = _FULL_AVG10.search(pressure)
        return Reading(
            usec=usec,
            used_bytes=used,
            capacity_bytes=used + available + helps,
            cache_bytes=procfs.amount_of(meminfo, b"Cached") or 0,
            shmem_bytes=shmem,
            swap_left_bytes=free,
            pressure_full_ratio=float(full[1]) / 100 if full else None,
            refaults_bytes=_refaults(vmstat, self._host.page_size_bytes),
        )

    def _has_zram(self, swap: int) -> bool:
        if self._zram is None or self._zram[0] != swap:
            self._zram = swap, b"/zram" in (read_bytes(self._host.proc / "swaps", 4096) or b"")
        return self._zram[1]

    def _choose(self, usec: int, total: int) -> None:
        """Which cgroups are followed from now on."""
        known = self._cgroups.table
        for number, one in list(self._followed.items()):
            charged, most = one.group.usage or 0, one.group.limit or 0
            if charged > one.most:
                one.most, one.grew_usec = charged, usec
            calm = usec - one.grew_usec > _CALM_USEC and charged < _FULL * most
            if known.get(one.group.path) is not one.group or not most or calm:
                del self._followed[number]
                self._base.pop(number, None)
        due = []
        seen = set()
        for group in known.values():
            limit, usage = group.limit, group.usage
            if not limit or usage is None or limit > total or group.number in self._followed:
                continue
            seen.add(group.number)
            since, base = self._base.get(group.number, (usec, usage))
            if usage < base or usec - since > _WITHIN_USEC:
                since, base = usec, usage
            self._base[group.number] = since, base
            if usage - base >= _GREW * limit or usage >= _FULL * limit:
                due.append((limit - usage, group.number, group))
        if len(self._base) > len(seen) + len(self._followed):
            self._base = {n: b for n, b in self._base.items() if n in seen or n in self._followed}
        for _, number, group in heapq.nsmallest(MOST_FOLLOWED - len(self._followed), due):
            self._followed[number] = _Followed(group, usec, self._base.get(number))

    def _of_group(self, one: _Followed, usec: int, swap_free: int) -> Reading | None:
        group, files = one.group, self._files
        if files is None:
            return None
        # the walk reads it now and then only, and a warning asks for a higher one
        limit = read_bytes(f"{group.directory}/{files.limit}", 32)
        group.limit = group.limit if limit is None else amount(limit)
        if not group.limit:
            return None
        usage = amount(read_bytes(f"{group.directory}/{files.usage}", 32))
        stat = read_bytes(f"{group.directory}/{files.stat}", _STAT_BYTES)
        if usage is None or stat is None:
            return None
        group.usage = usage
        cache = sum(entry(stat, name) or 0 for name in files.droppable)
        held = usage - min(usage, cache)
        swapped, helps = self._swap(group, files, usage, swap_free)
        pressure = _FULL_AVG10.search(read_bytes(f"{group.directory}/memory.pressure", 512) or b"")
        return Reading(
            cgroup=group.path,
            usec=usec,
            used_bytes=held + swapped,
            capacity_bytes=group.limit + swapped + helps,
            limit_bytes=group.limit,
            cache_bytes=cache,
            shmem_bytes=entry(stat, files.shmem),
            swap_left_bytes=helps,
            pressure_full_ratio=float(pressure[1]) / 100 if pressure else None,
            refaults_bytes=_refaults(stat, self._host.page_size_bytes),
            kills=self._cgroups.kills(group),
        )

    def _swap(self, group: Group, files: Files, usage: int, free: int) -> tuple[int, int]:
        """What the cgroup has in swap, and how much more it may have there."""
        if not free:
            return 0, 0
        charged = amount(read_bytes(f"{group.directory}/{files.swap_usage}", 32))
        if charged is None:  # no swap accounting: the machine's is free to take
            return 0, free
        limit = amount(read_bytes(f"{group.directory}/{files.swap_limit}", 32))
        if files.swap_with_memory:
            swapped = max(0, charged - usage)
            most = None if limit is None else max(0, limit - (group.limit or 0))
        else:
            swapped, most = charged, limit
        return swapped, free if most is None else min(free, max(0, most - swapped))

    def follow(self, path: str | None, usec: int) -> None:
        """Follow a cgroup whether it grows or not, because a warning of it stands."""
        group = self._cgroups.get(path) if path is not None else None
        if group is not None and group.number not in self._followed:
            self._followed[group.number] = _Followed(group, usec, None)

    def lost(self, path: str | None) -> Passed:
        """Why there is no reading of it any more."""
        group = self._cgroups.get(path) if path is not None else None
        return "gone" if group is None else "stopped" if group.limit else "room"

    # -- what bounds a growth ----------------------------------------------------------------------

    def look_deeper(self, readings: Iterable[tuple[Reading, float]], usec: int) -> None:
        """An end is in sight in so many seconds: note what may bound the growth, now and then. Those that
        waited longest come first, as many as the time since the last look pays for."""
        due: list[tuple[int, int, list[Deeper], Reading]] = []
        for reading, seconds in readings:
            kept = self._deeper_of(reading)
            last = kept[-1].usec if kept else 0
            if kept is not None and usec - last >= max(_DEEPER_USEC, int(seconds * _DEEPER_PART * 1e6)):
                due.append((last, len(due), kept, reading))
        since, self._deeper_at = usec - self._deeper_at, usec
        until = self._cpu() + max(_LEAST_DEEPER, min(_MOST_DEEPER, _DEEPER_SHARE * since / 1e6))
        for _, _, kept, reading in sorted(due, key=lambda one: one[:2]):
            kept.append(self._look_deeper(reading))
            if len(kept) > _DEEPER_KEPT:
                del kept[1::2]
            if self._cpu() >= until:
                break

    def bound(self, reading: Reading) -> int | None:
        """By how much it can grow yet, where that is known: it is slowed down at memory.high, its processes
        grow into what they had mapped before, or it is the files of a tmpfs."""
        kept, high = self._deeper_of(reading), self._below_high(reading)
        bound = bound_of(kept, self._look_deeper(reading)) if kept else None
        return min((one for one in (bound, high) if one is not None), default=None)

    def _below_high(self, reading: Reading) -> int | None:
        """How much is left until the kernel slows its tasks down (cgroup-v2.rst, memory.high); None: it does
        not, or cannot keep it there."""
        group = None if reading.cgroup is None else self._cgroups.get(reading.cgroup)
        high = None if group is None else amount(read_bytes(f"{group.directory}/memory.high", 32))
        return (
            None if high is None or reading.used_bytes > _BEYOND * high else max(0, high - reading.used_bytes)
        )

    def is_job(self, reading: Reading, since: int, grown: int) -> bool:
        """Whether most of a growth is held by processes that are no older than it and that have wanted the
        processor nearly all their life: a compiler, a test run."""
        uptime = (read_bytes(self._host.proc / "uptime", 64) or b"").split()
        oldest = (reading.usec - since) / 1e6 + _YOUNG_SECONDS
        held = 0
        for pid in self.members(reading.cgroup) if uptime else []:
            if _computes(f"{self._host.proc}/{pid}", float(uptime[0]), oldest):
                words = (read_bytes(f"{self._host.proc}/{pid}/statm", 128) or b"").split()
                held += (int(words[1]) - int(words[2])) * self._host.page_size_bytes if words else 0
        return held >= _MOSTLY * grown

    def _deeper_of(self, reading: Reading) -> list[Deeper] | None:
        if reading.cgroup is None:
            return self._machine
        group = self._cgroups.get(reading.cgroup)
        followed = self._followed.get(group.number) if group is not None else None
        return None if followed is None else followed.deeper

    def _look_deeper(self, reading: Reading) -> Deeper:
        page, resident, mapped, left = self._host.page_size_bytes, 0, 0, 0
        heaps = heaps_left = 0
        for pid in self.members(reading.cgroup):
            words = (read_bytes(f"{self._host.proc}/{pid}/statm", 128) or b"").split()
            if len(words) >= 6:
                private = (int(words[1]) - int(words[2])) * page
                resident += private
                mapped += int(words[5]) * page
                left += max(0, int(words[5]) * page - private)
                most = self._most_held(pid, reading.limit_bytes) if private >= _LARGE else None
                if most is not None and most > private:  # beyond it, what grows is not its heap
                    heaps += private
                    heaps_left += most - private
        return Deeper(
            reading.usec,
            reading.used_bytes,
            resident,
            mapped,
            left,
            self._shmem(reading.cgroup),
            self._mounts_at(reading.usec),
            heaps,
            heaps_left,
        )

    def _mounts_at(self, usec: int) -> dict[str, tuple[int, int]]:
        """What each tmpfs holds and may hold yet, read once for all that is looked at in that moment."""
        if self._mounts[0] != usec:
            self._mounts = usec, _mounts(self._host)
        return self._mounts[1]

    def _most_held(self, pid: int, limit: int | None) -> int | None:
        return most_held(read_bytes(f"{self._host.proc}/{pid}/cmdline", _COMMAND_BYTES) or b"", limit)

    def _shmem(self, path: str | None) -> int:
        if path is None:
            return procfs.amount_of(read_bytes(self._host.proc / "meminfo", 8192) or b"", b"Shmem") or 0
        group = self._cgroups.get(path)
        if group is None or self._files is None:
            return 0
        return entry(read_bytes(f"{group.directory}/{self._files.stat}", _STAT_BYTES), self._files.shmem) or 0

    def members(self, path: str | None) -> list[int]:
        """Processes of the cgroup and of those below it, at most so many; of the machine its largest
        cgroups'."""
        if path is None:
            try:
                names = os.listdir(self._host.proc)  # noqa: PTH208  # thousands of names, no objects
            except OSError:
                return []
            return [int(name) for name in names if name.isdigit()][:4096]
        group = self._cgroups.get(path)
        return [] if group is None else self._cgroups.members(group, _MEMBERS)


def _before(one: _Followed, reading: Reading) -> list[Reading]:
    """The look before the first: what it held then if page cache and swap were the same."""
    once, one.once = one.once, None
    if once is None or once[0] >= reading.usec:
        return []
    used = max(0, reading.used_bytes + once[1] - (one.group.usage or 0))
    return [
        Reading(cgroup=reading.cgroup, usec=once[0], used_bytes=used, capacity_bytes=reading.capacity_bytes)
    ]


def bound_of(kept: Iterable[Deeper], now: Deeper) -> int | None:
    """The most bytes by which it can grow yet, as the deeper looks ``kept`` until now show; None: unknown."""
    bounds = []
    for before in kept:
        grown = now.used - before.used
        if grown <= 0 or now.usec - before.usec < _DEEPER_USEC:
            continue
        resident = now.resident - before.resident
        if resident >= _THEIRS * grown and now.mapped - before.mapped <= _MAPPED_ANEW * resident:
            bounds.append(now.mapped_left)
        if now.heaps - before.heaps >= _THEIRS * grown:
            bounds.append(now.heaps_left)
        files = now.shmem - before.shmem
        grew = [
            (held - before.mounts[name][0], left)
            for name, (held, left) in now.mounts.items()
            if name in before.mounts and held > before.mounts[name][0]
        ]
        if files >= _THEIRS * grown and sum(more for more, _ in grew) >= _THEIRS * files:
            bounds.append(sum(left for _, left in grew))
        break
    return min(bounds, default=None)


def candidates(host: Host, pids: Iterable[int]) -> tuple[Candidate, ...]:
    """The processes that hold most, as oom_badness() counts: for whoever is in no hurry."""
    found = []
    for pid in pids:
        text = read_bytes(f"{host.proc}/{pid}/status", 4096)
        if not text or (resident := _kib(text, b"VmRSS")) is None:
            continue
        adjusted = (read_bytes(f"{host.proc}/{pid}/oom_score_adj", 16) or b"0").strip()
        uid = (b"\n" + text).partition(b"\nUid:\t")[2].split(None, 1)[:1]
        found.append(
            Candidate(
                pid=pid,
                comm=to_text((read_bytes(f"{host.proc}/{pid}/comm", 64) or b"").removesuffix(b"\n")),
                rss_bytes=resident,
                swap_bytes=_kib(text, b"VmSwap") or 0,
                pgtables_bytes=_kib(text, b"VmPTE") or 0,
                oom_score_adj=int(adjusted) if adjusted.lstrip(b"-").isdigit() else 0,
                uid=int(uid[0]) if uid and uid[0].isdigit() else None,
            )
        )
    largest = heapq.nlargest(_CANDIDATES, found, key=lambda one: one.rss_bytes + one.swap_bytes)
    return tuple(largest)


def _computes(directory: str, uptime: float, oldest: float) -> bool:
    """Whether the process is not older, and was on the processor or waited for it nearly all its life
    (proc(5): stat; Documentation/scheduler/sched-stats.rst: schedstat, of the first thread)."""
    stat = (read_bytes(f"{directory}/stat", 1024) or b"").rpartition(b")")[2].split()
    if len(stat) < 20:
        return False
    age = uptime - int(stat[19]) / _TICKS
    if not 0 < age <= oldest:
        return False
    run, waited, *_ = *(read_bytes(f"{directory}/schedstat", 128) or b"").split(), b"0", b"0"
    wanted = max((int(stat[11]) + int(stat[12])) / _TICKS, (int(run) + int(waited)) / 1e9)
    return wanted >= _COMPUTES * age


def _kib(text: bytes, name: bytes) -> int | None:
    value = (b"\n" + text).partition(b"\n" + name + b":")[2].partition(b"kB")[0].strip()
    return int(value) * 1024 if value.isdigit() else None


def _refaults(text: bytes, page: int) -> int | None:
    found = _REFAULTS.findall(text)
    total = any(prefix for prefix, _ in found)
    return sum(int(n) for prefix, n in found if bool(prefix) == total) * page if found else None


def _mounts(host: Host) -> dict[str, tuple[int, int]]:
    tmpfs = Tmpfs(host)
    tmpfs.find()
    found = {}
    for mount in tmpfs.mounts:
        try:
            status = os.statvfs(mount)
        except OSError:
            continue
        held = (status.f_blocks - status.f_bfree) * status.f_frsize
        found[mount] = (held, status.f_bfree * status.f_frsize)
    return found
