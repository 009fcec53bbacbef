"""What was seen on the host of the reports under way: the machine as each began, and who its victims were.

A victim is looked at before anything else: its /proc entry is gone a moment later. All of it is
bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from oomwatchd.daemon.clocks import Times
from oomwatchd.metrics import Metrics
from oomwatchd.observe.host import Host
from oomwatchd.observe.process import CommandLine, look_after, look_at
from oomwatchd.observe.recorder import Recorder
from oomwatchd.observe.snapshot import Snapshots
from oomwatchd.records.capture import ProcessFacts, Snapshot
from oomwatchd.reports.assemble import VictimChosen

_V = TypeVar("_V")

#: In a storm one look at the machine serves all reports that begin within this time.
SHARED_USEC = 50_000
#: The log names a victim at once after the trace point did, or, on a slow console, a little later.
FORESEEN_USEC = 2_000_000
#: Bound for each kind of what was seen, for reports that never come to their end.
KEPT = 256


class Evidence:
    """Snapshots, processes and moments, each by the number of the record that it belongs to.

    ``on_victim`` is called with the pid and the moment (CLOCK_MONOTONIC) of each victim that the log names;
    ``failed`` with an error that cost one look.
    """

    def __init__(
        self,
        host: Host,
        snapshots: Snapshots,
        metrics: Metrics,
        now: Callable[[], Times],
        *,
        command_line: CommandLine,
        recorder: Recorder | None,
        on_victim: Callable[[int, int], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._host = host
        self._snapshots = snapshots
        self._metrics = metrics
        self._now = now
        self._recorder = recorder
        self._on_victim = on_victim
        self._failed = failed
        self._at: dict[int, Snapshot] = {}
        self._facts: dict[int, ProcessFacts] = {}
        self._named: dict[int, float] = {}
        #: victims that were looked at before the log named them, and when
        self._foreseen: dict[int, tuple[ProcessFacts, int]] = {}
        self._last_named_usec = 0
        self.command_line = command_line

    @property
    def usec_since_kill(self) -> int:
        """How long ago the last kill line was read."""
        return self._now().monotonic_usec - self._last_named_usec

    # -- looking -----------------------------------------------------------------------------------

    def foresee(self, pid: int, comm: str | None) -> None:
        """The trace point says that the log will name this process (``comm``: None where it does not say its
        name): look at it now."""
        try:
            facts = look_at(self._host, pid, comm, self.command_line)
        except Exception as error:
            self._failed(error)
            return
        if facts is not None:
            _keep(self._foreseen, pid, (facts, self._now().monotonic_usec))

    def see_machine(self, number: int) -> Snapshot:
        """A report begins with this record: how the machine stands."""
        snapshot = self.snapshot()
        _keep(self._at, number, snapshot)
        return snapshot

    def see_victim(self, victim: VictimChosen, number: int, named_at: float, *, fresh: bool) -> None:
        """The log names a victim in this record, at ``named_at`` (CLOCK_MONOTONIC, seconds). ``fresh``: its
        pid is still its own."""
        facts = self._identify(victim) if fresh else None
        if facts is not None:
            _keep(self._facts, number, facts)
        if self._recorder is not None:
            path = victim.cgroup or (facts.cgroup if facts is not None else None)
            # long after, its number may be another's
            self._recorder.kills.named(number, victim.pid if fresh else -1, path, self._now().monotonic_usec)
        self._last_named_usec = self._now().monotonic_usec
        self._on_victim(victim.pid, self._last_named_usec)
        _keep(self._named, number, named_at)

    def attribute(self, *, beforehand: bool = False) -> None:
        """Find the cgroups of kill lines that came without one, of all that were read together; or, when
        nothing else hurries, see who is where for those that may follow."""
        if self._recorder is None or not (beforehand or self._recorder.kills.waiting):
            return
        try:
            resolved = self._recorder.kills.resolve(self._now().monotonic_usec)
        except Exception as error:
            self._failed(error)
            return
        for found in resolved:
            facts = self._facts.get(found.number)
            if facts is not None and facts.cgroup is None:
                self._facts[found.number] = msgspec.structs.replace(
                    facts, cgroup=found.path, learnt=found.learnt
                )

    def snapshot(self) -> Snapshot:
        """The machine now, or a moment ago in a storm."""
        now = self._now()
        newest = next(reversed(self._at.values()), None)
        if newest is not None and now.monotonic_usec - newest.usec <= SHARED_USEC:
            return newest
        return self._snapshots.take(now.monotonic_usec, now.wall)

    def _identify(self, victim: VictimChosen) -> ProcessFacts:
        """Who that was: from /proc if it is still there, else from what the recorder saw before."""
        facts, usec = self._foreseen.pop(victim.pid, (None, 0))
        # the same number long ago was another process
        if facts is None or facts.comm != victim.comm or self._now().monotonic_usec - usec > FORESEEN_USEC:
            facts = look_at(self._host, victim.pid, victim.comm, self.command_line)
        self._metrics.looked_at(readable=facts is not None)
        if self._recorder is None:
            return facts or ProcessFacts(pid=victim.pid, comm=victim.comm)
        known = self._recorder.facts(victim.pid, victim.comm)
        if facts is None:
            facts = known or ProcessFacts(pid=victim.pid, comm=victim.comm, learnt="recorder")
        elif known is not None and known.start_usec == facts.start_usec:
            # a process that exits has no executable and no arguments any more
            facts = msgspec.structs.replace(
                facts,
                executable=facts.executable or known.executable,
                command_line=facts.command_line or known.command_line,
            )
        return facts

    # -- what was seen of one report, by the numbers of its records ----------------------------------

    def machine(self, numbers: set[int]) -> Snapshot | None:
        """How the machine stood as the report began."""
        return next((snapshot for number, snapshot in self._at.items() if number in numbers), None)

    def victims(self, numbers: set[int]) -> tuple[ProcessFacts, ...]:
        """Its victims, in the order of the log."""
        return tuple(facts for number, facts in sorted(self._facts.items()) if number in numbers)

    def named_at(self, numbers: set[int]) -> float | None:
        """When its first victim was named (CLOCK_MONOTONIC, seconds)."""
        return min((moment for number, moment in self._named.items() if number in numbers), default=None)

    def settle(self, numbers: set[int], victims: tuple[ProcessFacts, ...]) -> tuple[ProcessFacts, ...]:
        """The report has ended: look whether its victims are gone, and forget what was seen of it."""
        victims = tuple(look_after(self._host, facts) for facts in victims)
        for kept in (self._at, self._facts, self._named):
            for number in numbers.intersection(kept):
                del kept[number]
        return victims


def _keep(kept: dict[int, _V], key: int, value: _V) -> None:
    """Add to a bounded dictionary; the oldest goes."""
    kept[key] = value
    if len(kept) > KEPT:
        del kept[next(iter(kept))]
