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

Its parts: ``danger`` (is memory short), ``tracked`` (the largest processes), ``cgroup`` (their usage and
limits), ``samples`` (the ring).
"""

from __future__ import annotations

import os
import time
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

import msgspec

from oomwatchd.observe.abridged import Abridged
from oomwatchd.observe.cgroup import Cgroups
from oomwatchd.observe.danger import PRESSURE_USEC, Danger
from oomwatchd.observe.group import Group
from oomwatchd.observe.history import Before, History
from oomwatchd.observe.host import Host, sees_kernel_pids
from oomwatchd.observe.hotplug import Devices, Swaps, Tmpfs
from oomwatchd.observe.kills import Kills
from oomwatchd.observe.numbered import Numbered
from oomwatchd.observe.pressure import Exceptional, pressure_trigger, swap_changes
from oomwatchd.observe.process import CommandLine
from oomwatchd.observe.processes import Processes
from oomwatchd.observe.samples import Ring, Sample
from oomwatchd.observe.tracked import Tracked, charged
from oomwatchd.records.capture import Mark, ProcessFacts

#: Between samples under pressure.
HURRIED_USEC = 1_000_000
#: Changes in the tree of cgroups are read together after so long.
_CHANGES_USEC = 50_000
#: CPU time of that, times this, is the time until it is done again.
_CHANGES_SPACING = 50
#: Samples in the time that is left until a near limit is reached.
_LOOKS = 8
#: CPU time of a walk, times this, is the time until the next one.
_CALM_SPACING, _HURRIED_SPACING = 1000, 100
#: In each sample.
TOP_GROUPS = 24
_TOP_TMPFS = 4
#: Cgroups whose limit is in sight.
_WATCHED_GROUPS = 6
#: The table of mounts is long on container hosts.
_MOUNTS_USEC = 60_000_000
#: Marks kept.
_MAX_MARKS = 64


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
        self._interval = options.interval_seconds * 1_000_000
        self._ring = Ring(self._interval, options.minutes * 60_000_000)
        self._files = Abridged(host)
        #: grows while it runs
        self.obstacles: list[str] = []
        self._said_exhausted = False
        self.cgroups = Cgroups(host)
        self.kills = Kills(self.cgroups, self._files.oom_kills, cpu)
        self._processes = Processes(host)
        self._same_pids = sees_kernel_pids(host.proc)
        self._devices = Devices()
        self._swaps = Swaps(host, self._devices)
        self._tmpfs = Tmpfs(host)
        self._trigger = pressure_trigger(host)
        self._swap_changes = swap_changes(host)
        self.obstacles += _obstacles(
            host, self._files.absent, self._trigger, self._swap_changes, self.cgroups, self._devices
        )
        self._danger = Danger(has_trigger=isinstance(self._trigger, Exceptional))
        self._names = Numbered()
        self._tracked = Tracked(self._processes, self.cgroups, self._names, command_line, cpu)
        self._marks: deque[Mark] = deque(maxlen=_MAX_MARKS)
        self._top_groups: list[Group] = []
        self._watched: list[Group] = []
        self._pace_usec = self._interval
        self._sampled: tuple[int, tuple[bytes, ...]] | None = None
        #: until then the machine's processes are compared, for an end of its memory is expected
        self._expected_until = -1
        self._next_usec = 0
        #: when changed cgroups are looked at; None: none was
        self._changes_usec: int | None = None
        self._next_changes_usec = 0
        self._walk_usec = self._mounts_usec = 0
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
        self._danger.sign(usec)
        if calm:
            self._tracked.scan_now()
            self._next_usec = min(self._next_usec, usec)

    def under_pressure(self, usec: int) -> bool:
        return self._danger.under_pressure(usec)

    def parts(self, usec: int) -> tuple[bytes, ...] | None:
        """The files of the sample that was taken at that moment; None if none was."""
        return self._sampled[1] if self._sampled is not None and self._sampled[0] == usec else None

    def use_command_line(self, command_line: CommandLine) -> None:
        """Keep so much of processes' command lines from now on."""
        self._tracked.command_line = command_line

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
        return self._short(usec) or bool(self._watched)

    def _short(self, usec: int) -> bool:
        """Memory of the machine is short, or will be."""
        return self.under_pressure(usec) or self._danger.left_seconds is not None

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
        return History(self._ring.samples, self._names.names, limits, self.cgroups.table, marks, self._told)

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
        mark = self._danger.judge(parts[0], parts[1], usec, wall)
        if mark is not None:
            self._marks.append(mark)
        self._walk(usec)
        if usec >= self._mounts_usec:
            self._tmpfs.find()
            self._mounts_usec = usec + _MOUNTS_USEC
        pairs = array("q")
        for mount, used in self._tmpfs.used()[:_TOP_TMPFS]:
            pairs.extend((self._names.number("tmpfs", mount), used))
        sample = Sample(
            usec,
            wall,
            parts,
            processes=self._tracked.sizes(
                usec, self._watched, everywhere=usec < self._expected_until or self._short(usec)
            ),
            groups=charged((*self._top_groups, *self._watched), self._names),
            tmpfs=pairs.tobytes(),
        )
        self._ring.keep(sample)
        self._sampled = usec, parts
        self._pace_usec = self._pace(usec)
        self._next_usec = usec + self._pace_usec

    def _pace(self, usec: int) -> int:
        """Time until the next sample. The pace slows down by steps, because memory grows in steps."""
        if self.under_pressure(usec):
            return HURRIED_USEC
        left = [self._danger.left_seconds, *(group.left_seconds for group in self._watched)]
        shortest = min((seconds for seconds in left if seconds is not None), default=float("inf"))
        wanted = max(HURRIED_USEC / 1e6, shortest / _LOOKS) * 1e6
        return int(min(self._interval, wanted, 2 * self._pace_usec))

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


def _obstacles(
    host: Host,
    absent: Sequence[str],
    trigger: Exceptional | str,
    swaps: Exceptional | str,
    cgroups: Cgroups,
    devices: Devices,
) -> Iterator[str]:
    """A line for each thing that the recorder does without."""
    if absent:
        yield f"flight recorder: works without {', '.join(absent)}"
    if isinstance(trigger, str):
        yield f"flight recorder: no pressure trigger ({trigger}); pressure is seen at the next sample"
    if cgroups.hierarchy is None:
        yield (
            "flight recorder: no cgroup hierarchy with the memory controller; victims of reports that "
            "do not print their cgroup have none"
        )
    elif cgroups.changes.obstacle is not None:
        yield (
            f"flight recorder: no word of new cgroups ({cgroups.changes.obstacle}); they are seen "
            "at the next sample"
        )
    if not sees_kernel_pids(host.proc):
        yield (
            "flight recorder: this pid namespace numbers processes otherwise than the kernel log; "
            "victims are known by the log and by their cgroups' counts of kills only"
        )
    elif f"{host.proc}/meminfo" not in absent and not os.access(host.proc / "1/statm", os.R_OK):
        yield (
            "flight recorder: other users' processes are hidden (hidepid); the largest are not known "
            "(CAP_SYS_PTRACE mends it)"
        )
    if devices.obstacle is not None:
        yield f"flight recorder: no word of memory hotplug and zram devices ({devices.obstacle})"
    if isinstance(swaps, str):
        yield f"flight recorder: no word of swap areas ({swaps})"
