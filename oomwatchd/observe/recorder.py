"""The flight recorder: a bounded ring of what memory looked like in the minutes before.

While all is calm it takes a sample every ``interval`` seconds: the lines of /proc/meminfo, vmstat, zoneinfo
and pressure/memory that tell of memory, and what each of the larger cgroups is charged. Under pressure it
takes one every second, with the largest processes too: for ten seconds after a PSI trigger (tasks waited for
memory), and while MemAvailable is low. Without PSI, direct reclaim since the last sample is the sign.

It hurries near a limit, too: where a cgroup would reach its own limit within 80 s at its growth rate, or the
machine would have nothing available, the next sample comes after an eighth of the time left and has the
largest processes of that cgroup. The same holds for the seconds after a cgroup got its limit. So a leak that
lasts two calm intervals has samples of its last seconds. One that begins late and lasts less than one
interval may have none: the kernel offers no event without privilege that would wake us earlier: pressure
triggers of cgroups (v2) need write access, and memory.events tells when the limit is reached.

Cost is bounded by design: a walk of the cgroups or a scan of the processes that took d seconds of CPU is
repeated after 1000 d (calm) or 100 d (under pressure) at the earliest, so that each takes 0.1 % or 1 % of
one CPU at most, however many there are.

Memory is bounded too: samples of the last minute are kept as they are, older ones ``interval`` apart, all
of them in RING_BYTES.

Sources: proc(5), Documentation/accounting/psi.rst, Documentation/admin-guide/cgroup-v2.rst.

The class is longer than others because one sample is one decision over all of its parts: what is due, how
soon, how much of it fits.
"""

from __future__ import annotations

import os
import re
import time
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

import msgspec

from oomwatchd import procfs
from oomwatchd.observe.abridged import Abridged
from oomwatchd.observe.cgroup import Cgroups
from oomwatchd.observe.group import Group
from oomwatchd.observe.growth import GrowthRate
from oomwatchd.observe.history import Before, History, Name
from oomwatchd.observe.host import Host, sees_kernel_pids
from oomwatchd.observe.hotplug import Devices, Swaps, Tmpfs
from oomwatchd.observe.kills import Kills
from oomwatchd.observe.limits import IN_SIGHT_SECONDS
from oomwatchd.observe.pressure import Exceptional, pressure_trigger, swap_changes
from oomwatchd.observe.process import CommandLine
from oomwatchd.observe.processes import Processes, Seen
from oomwatchd.observe.samples import Ring, Sample
from oomwatchd.records.capture import Mark, ProcessFacts
from oomwatchd.records.kmsg import to_text

#: Between samples under pressure.
HURRIED_USEC = 1_000_000
#: Pressure lasts for so long after the last sign of it.
PRESSURE_USEC = 10_000_000
#: MemAvailable below this share of MemTotal is a sign of pressure.
LOW_RATIO = 0.10
#: Changes in the tree of cgroups are read together after so long.
_CHANGES_USEC = 50_000
#: CPU time of that, times this, is the time until it is done again.
_CHANGES_SPACING = 50
#: Samples in the time that is left until a near limit is reached.
_LOOKS = 8
#: MemAvailable that falls by less than this share of MemTotal a second is ignored.
_FALLING = 0.0005
#: CPU time of a walk or scan, times this, is the time until the next one.
_CALM_SPACING, _HURRIED_SPACING = 1000, 100
#: Tracked in each sample.
TOP_PROCESSES = 10
TOP_GROUPS = 24
#: Cgroups whose limit is in sight, processes of each that are compared and tracked.
_WATCHED_GROUPS = 6
_WATCHED_MEMBERS = 256
_TOP_MEMBERS = 6
_TOP_TMPFS = 4
#: The table of mounts is long on container hosts.
_MOUNTS_USEC = 60_000_000
#: Names and marks kept.
_MAX_NAMES = 1024
_MAX_MARKS = 64
#: MemTotal moves by less on its own.
_TOTAL_RATIO = 0.001
_STALLS = re.compile(rb"^(?:allocstall\w*|pgscan_direct) (\d+)$", re.MULTILINE)


class Options(Protocol):
    """``[recorder]`` of the configuration."""

    @property
    def interval_seconds(self) -> int: ...
    @property
    def minutes(self) -> int: ...


class Recorder:
    """Takes samples when :meth:`run` is called and one is due. Not thread-safe; never raises for what the
    host shows. ``obstacles`` are the lines that say what it does without."""

    def __init__(
        self,
        host: Host,
        options: Options,
        *,
        command_line: CommandLine = "executable",
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._host = host
        self._cpu = cpu
        self.command_line = command_line
        self._interval = options.interval_seconds * 1_000_000
        self._ring = Ring(self._interval, options.minutes * 60_000_000)
        self._files = Abridged(host)
        #: grows while it runs
        self.obstacles: list[str] = []
        self._said_exhausted = False
        self.cgroups = Cgroups(host)
        self.kills = Kills(self.cgroups, self._oom_kills, cpu)
        self._processes = Processes(host)
        self._same_pids = sees_kernel_pids(host.proc)
        self._devices = Devices()
        self._swaps = Swaps(host, self._devices)
        self._tmpfs = Tmpfs(host)
        self._trigger = pressure_trigger(host)
        self._swap_changes = swap_changes(host)
        self._explain()
        self._names: dict[int, Name] = {}
        self._numbers: dict[str, int] = {}
        self._mounts_numbered = 0
        self._marks: deque[Mark] = deque(maxlen=_MAX_MARKS)
        self._top: list[Seen] = []
        self._top_groups: list[Group] = []
        self._watched: list[Group] = []
        self._scanned_for: set[int] = set()
        self._available: GrowthRate | None = None
        #: until nothing is available, if MemAvailable goes on falling like this
        self._left_seconds: float | None = None
        self._pace_usec = self._interval
        self._sampled: tuple[int, tuple[bytes, ...]] | None = None
        #: until then the machine's processes are compared, for an end of its memory is expected
        self._expected_until = -1
        self._next_usec = 0
        self._pressure_until = -1
        #: when changed cgroups are looked at; None: none was
        self._changes_usec: int | None = None
        self._next_changes_usec = 0
        self._walk_usec = self._scan_usec = self._mounts_usec = 0
        self._total: int | None = None
        self._stalls: int | None = None
        self._made: tuple[int, History] | None = None
        self._told: list[tuple[History, Before]] = []

    # -- the loop's --------------------------------------------------------------------------------

    def descriptors(self) -> Iterator[tuple[int, Callable[[int, float], None]]]:
        """What to wait for, and what to call with the time when it is readable."""
        if isinstance(self._trigger, Exceptional):
            yield self._trigger.fileno(), self.pressure
        if isinstance(self._swap_changes, Exceptional):
            yield self._swap_changes.fileno(), self._swaps_changed
        if self.cgroups.hierarchy is not None and self.cgroups.changes.obstacle is None:
            yield self.cgroups.changes.fileno(), self._cgroups_changed
        if self._devices.obstacle is None:
            yield self._devices.fileno(), self._devices_changed

    def seconds_until_due(self, usec: int) -> float:
        due = self._next_usec if self._changes_usec is None else min(self._next_usec, self._changes_usec)
        return max(0.0, (due - usec) / 1e6)

    def run(self, usec: int, wall: float) -> None:
        """Take a sample if one is due, and look at changed cgroups."""
        if self._changes_usec is not None and usec >= self._changes_usec:
            self._look_at_changes(usec)
        if usec >= self._next_usec:
            self._next_usec = usec + self._interval  # also if this one fails
            self._sample(usec, wall)

    def pressure(self, usec: int, wall: float) -> None:
        """Tasks wait for memory: sample more often from now on."""
        calm = not self.under_pressure(usec)
        self._pressure_until = usec + PRESSURE_USEC
        if calm:
            self._scan_usec = 0
            self._next_usec = min(self._next_usec, usec)

    def under_pressure(self, usec: int) -> bool:
        return usec < self._pressure_until

    def parts(self, usec: int) -> tuple[bytes, ...] | None:
        """The files of the sample that was taken at that moment; None if none was."""
        return self._sampled[1] if self._sampled is not None and self._sampled[0] == usec else None

    def look_within(self, usec: int, seconds: float) -> None:
        """Take the next sample after so long at most."""
        self._next_usec = min(self._next_usec, usec + int(seconds * 1e6))

    def expect(self, cgroups: Collection[str | None], usec: int) -> None:
        """Memory of these (None: of the machine) is about to end: look who holds it."""
        if None in cgroups:
            self._expected_until = usec + PRESSURE_USEC
        for path in cgroups:
            group = self.cgroups.get(path) if path is not None else None
            if group is not None:
                group.watched_until = max(group.watched_until, usec + PRESSURE_USEC)

    @property
    def newest_usec(self) -> int:
        """When the newest sample was taken."""
        return self._ring.newest_usec

    def hurried(self, usec: int) -> bool:
        """Memory is short, or a limit is near."""
        return self.under_pressure(usec) or self._left_seconds is not None or bool(self._watched)

    def close(self) -> None:
        self._files.close()
        for waited in (self._trigger, self._swap_changes):
            if isinstance(waited, Exceptional):
                waited.close()
        self._devices.close()
        self.cgroups.changes.close()

    @property
    def samples(self) -> int:
        """Samples in the ring."""
        return len(self._ring)

    @property
    def size_bytes(self) -> int:
        """What they take; at most RING_BYTES."""
        return self._ring.size_bytes

    # -- for a capture -----------------------------------------------------------------------------

    def history(self, usec: int) -> History:
        """The time before, as of now. Reports within a second share one reading of the ring."""
        if self._made is None or usec - self._made[0] > HURRIED_USEC:
            self._made = usec, self._history()
        return self._made[1]

    def _history(self) -> History:
        limits = {group.number: group.limit for group in (*self._top_groups, *self._watched)}
        marks = tuple(self._marks)
        return History(self._ring.samples, dict(self._names), limits, self.cgroups.table, marks, self._told)

    def facts(self, pid: int, comm: str) -> ProcessFacts | None:
        """The facts of a process from earlier samples, if it had this name."""
        # the newest sample is one interval old at most
        seen = self._processes.known(pid, self._ring.newest_usec)
        if seen is None or seen.facts.comm != comm or not self._same_pids:
            return None
        return msgspec.structs.replace(seen.facts, learnt="recorder")

    # -- one sample --------------------------------------------------------------------------------

    def _sample(self, usec: int, wall: float) -> None:
        self._made = None
        parts = self._files.read()
        self._judge(parts[0], parts[1], usec, wall)
        self._walk(usec)
        tmpfs = b""
        if usec >= self._mounts_usec:
            self._tmpfs.find()
            self._mounts_usec = usec + _MOUNTS_USEC
        pairs = array("q")
        for mount, used in self._tmpfs.used()[:_TOP_TMPFS]:
            pairs.extend((self._number("tmpfs", mount), used))
        tmpfs = pairs.tobytes()
        sample = Sample(
            usec,
            wall,
            parts,
            processes=self._process_sizes(usec),
            groups=self._group_sizes(),
            tmpfs=tmpfs,
        )
        self._ring.keep(sample)
        self._sampled = usec, parts
        self._pace_usec = self._pace(usec)
        self._next_usec = usec + self._pace_usec

    def _pace(self, usec: int) -> int:
        """Time until the next sample. The pace slows down by steps, because memory grows in steps."""
        if self.under_pressure(usec):
            return HURRIED_USEC
        left = [self._left_seconds, *(group.left_seconds for group in self._watched)]
        shortest = min((seconds for seconds in left if seconds is not None), default=float("inf"))
        wanted = max(HURRIED_USEC / 1e6, shortest / _LOOKS) * 1e6
        return int(min(self._interval, wanted, 2 * self._pace_usec))

    def _judge(self, meminfo: bytes, vmstat: bytes, usec: int, wall: float) -> None:
        """Signs of pressure in the figures, and a changed MemTotal."""
        total, available = procfs.amount_of(meminfo, b"MemTotal"), procfs.amount_of(meminfo, b"MemAvailable")
        if total and available is not None and available < LOW_RATIO * total:
            self._pressure_until = usec + PRESSURE_USEC
        self._left_seconds = self._until_nothing(total, available, usec)
        if not isinstance(self._trigger, Exceptional):
            stalls = sum(int(m[1]) for m in _STALLS.finditer(vmstat))
            if self._stalls is not None and stalls > self._stalls:
                self._pressure_until = usec + PRESSURE_USEC
            self._stalls = stalls
        if total and self._total and abs(total - self._total) > _TOTAL_RATIO * self._total:
            self._marks.append(
                Mark(
                    usec=usec,
                    wall=wall,
                    kind="mem_total",
                    name="MemTotal",
                    before_bytes=self._total,
                    after_bytes=total,
                )
            )
            self._total = total
        elif self._total is None:
            self._total = total

    def _until_nothing(self, total: int | None, available: int | None, usec: int) -> float | None:
        if not total or available is None:
            return None
        if self._available is None:
            self._available = GrowthRate(usec, available)
        falls = -self._available.rate(usec, available)
        if falls < _FALLING * total or available > falls * IN_SIGHT_SECONDS:
            return None
        return available / falls

    def _walk(self, usec: int) -> None:
        """Walk the cgroups when that is due and affordable; else only those that matter are asked."""
        if usec >= self._walk_usec:
            began = self._cpu()
            self.cgroups.walk(usec)
            self.kills.close_books(usec)
            self._top_groups = self.cgroups.largest(TOP_GROUPS)
            self._say_if_exhausted()
            cost = int((self._cpu() - began) * 1e6)
            hurried = self.under_pressure(usec)
            least = HURRIED_USEC if hurried else self._interval
            self._walk_usec = usec + max(least, cost * (_HURRIED_SPACING if hurried else _CALM_SPACING))
        else:
            for group in dict.fromkeys((*self._top_groups, *self._watched)):
                self.cgroups.refresh(group, usec)
        self._watched = self.cgroups.watched(_WATCHED_GROUPS, usec)

    def _say_if_exhausted(self) -> None:
        if self.cgroups.changes.exhausted and not self._said_exhausted:
            self._said_exhausted = True
            self.obstacles.append(
                "flight recorder: no word of what is new in some cgroups (no more inotify watches: raise "
                "fs.inotify.max_user_watches); it is seen at the next sample"
            )

    def _group_sizes(self) -> bytes:
        pairs = array("q")
        for group in dict.fromkeys((*self._top_groups, *self._watched)):
            if group.usage is not None:
                if group.number not in self._names:
                    self._name(group.number, Name("cgroup", group.path))
                pairs.extend((group.number, group.usage))
        return pairs.tobytes()

    def _process_sizes(self, usec: int) -> bytes:
        """The largest processes, found anew when a scan is due: of the machine while memory is short, and of
        the cgroups whose limit is in sight."""
        expected = usec < self._expected_until
        everywhere = expected or self.under_pressure(usec) or self._left_seconds is not None
        if not everywhere and not self._watched:
            self._top, self._scanned_for = [], set()
            return b""
        # 0 is no cgroup's number
        scope = {group.number for group in self._watched} | ({0} if everywhere else set())
        if usec >= self._scan_usec or not scope <= self._scanned_for:
            began = self._cpu()
            pids = self._processes.largest(TOP_PROCESSES) if everywhere else []
            for group in self._watched:
                members = self.cgroups.members(group, _WATCHED_MEMBERS)
                pids += self._processes.largest(_TOP_MEMBERS, members)
            seen = (self._processes.see(pid, self.command_line, usec) for pid in dict.fromkeys(pids))
            self._top = [one for one in seen if one is not None]
            self._scanned_for = scope
            cost = int((self._cpu() - began) * 1e6)
            self._scan_usec = usec + max(HURRIED_USEC, cost * _HURRIED_SPACING)
        pairs = array("q")
        for one in self._top:
            size = self._processes.resident(one.facts.pid)
            if size:
                number = -one.number  # cgroups count upward
                if number not in self._names:
                    facts = one.facts
                    self._name(number, Name("process", facts.comm or "", facts.pid, facts.cgroup))
                pairs.extend((number, size))
        return pairs.tobytes()

    def _number(self, kind: str, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            self._mounts_numbered += 1
            number = self._numbers[name] = (1 << 62) + self._mounts_numbered
            if len(self._numbers) > _MAX_NAMES:
                del self._numbers[next(iter(self._numbers))]
        if number not in self._names:
            self._name(number, Name(kind, name))
        return number

    def _name(self, number: int, name: Name) -> None:
        self._names[number] = name
        if len(self._names) > _MAX_NAMES:
            del self._names[next(iter(self._names))]

    # -- what is told ------------------------------------------------------------------------------

    def _swaps_changed(self, usec: int, wall: float) -> None:
        self._marks.extend(self._swaps.changes(usec, wall))

    def _cgroups_changed(self, usec: int, _wall: float) -> None:
        self.cgroups.changes.quiet()
        self._changes_usec = max(usec + _CHANGES_USEC, self._next_changes_usec)

    def _look_at_changes(self, usec: int) -> None:
        self._changes_usec = None
        began = self._cpu()
        watched = self._watched
        if not self.cgroups.look_at_changes(usec):
            self._walk_usec = 0
        self._watched = self.cgroups.watched(_WATCHED_GROUPS, usec)
        if not set(self._watched) <= set(watched):
            # begins with one second and slows down while nothing grows
            self._pace_usec = HURRIED_USEC // 2
            self._next_usec = min(self._next_usec, usec + HURRIED_USEC)
        self._next_changes_usec = usec + int((self._cpu() - began) * 1e6) * _CHANGES_SPACING

    def _devices_changed(self, usec: int, wall: float) -> None:
        self._marks.extend(self._devices.read(usec, wall))

    # -- files -------------------------------------------------------------------------------------

    def _oom_kills(self) -> int | None:
        """The kernel's count of all kills."""
        return procfs.oom_kills(to_text(self._files.vmstat()))

    def _explain(self) -> None:
        if self._files.absent:
            self.obstacles.append(f"flight recorder: works without {', '.join(self._files.absent)}")
        if isinstance(self._trigger, str):
            self.obstacles.append(
                f"flight recorder: no pressure trigger ({self._trigger}); pressure is seen at the next sample"
            )
        if self.cgroups.hierarchy is None:
            self.obstacles.append(
                "flight recorder: no cgroup hierarchy with the memory controller; victims of reports that "
                "do not print their cgroup have none"
            )
        elif self.cgroups.changes.obstacle is not None:
            self.obstacles.append(
                f"flight recorder: no word of new cgroups ({self.cgroups.changes.obstacle}); they are seen "
                "at the next sample"
            )
        if not self._same_pids:
            self.obstacles.append(
                "flight recorder: this pid namespace numbers processes otherwise than the kernel log; "
                "victims are known by the log and by their cgroups' counts of kills only"
            )
        elif f"{self._host.proc}/meminfo" not in self._files.absent and not os.access(
            self._host.proc / "1/statm", os.R_OK
        ):
            self.obstacles.append(
                "flight recorder: other users' processes are hidden (hidepid); the largest are not known "
                "(CAP_SYS_PTRACE mends it)"
            )
        if self._devices.obstacle is not None:
            self.obstacles.append(
                f"flight recorder: no word of memory hotplug and zram devices ({self._devices.obstacle})"
            )
        if isinstance(self._swap_changes, str):
            self.obstacles.append(f"flight recorder: no word of swap areas ({self._swap_changes})")
