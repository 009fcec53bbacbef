"""The hurried half: from the kernel log to captures, in the main thread, without waiting for anything.

It reads records, has them cut into reports, looks at the machine when a report begins and at the victim
when it is named, and hands the capture over. Time and roots are arguments.

The class is longer than others because its steps share the one state that must not be waited for: what is
open, what was looked at, what is due.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import TypeVar

import msgspec

from oomwatchd.daemon.crosscheck import Counted
from oomwatchd.daemon.log import OncePerKind
from oomwatchd.daemon.suppression import Suppression
from oomwatchd.formats import Role, Section, oom_kill
from oomwatchd.formats.recognise import recognise
from oomwatchd.metrics import Metrics
from oomwatchd.observe.history import Before, History
from oomwatchd.observe.host import Host
from oomwatchd.observe.process import CommandLine, look_after, look_at
from oomwatchd.observe.recorder import Recorder
from oomwatchd.observe.snapshot import Snapshots
from oomwatchd.records.capture import EarlierKill, OomCapture, ProcessFacts, Snapshot, Source
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord
from oomwatchd.reports.assemble import QUIET_USEC, Assembler, OomBlock, ReportBegan, Signal, VictimChosen
from oomwatchd.reports.storms import Covered, Fold, Folded
from oomwatchd.sources.journal import JournalSource
from oomwatchd.sources.kmsg import KmsgSource, LogClock
from oomwatchd.words.escape import harmless

_V = TypeVar("_V")

log = logging.getLogger(__name__)

#: A record older than this is not looked around for: the machine is another by now, the pid perhaps too.
FRESH_USEC = 10_000_000
#: In a storm one look at the machine serves all reports that begin within this time.
SHARED_USEC = 50_000
#: The log names a victim at once after another witness did, or, on a slow console, a little later.
FORESEEN_USEC = 2_000_000
#: What was seen for reports under way: bounds, for a report that never comes to its end.
KEPT = 256
#: Kills remembered for later reports: how many, and how long.
EARLIER_KILLS = 64
EARLIER_USEC = 3600 * 1_000_000
#: In a storm the first report brings the whole time before, those after it what came since, at least so
#: many samples.
BRIEF_USEC = 10_000_000
BRIEF_SAMPLES = 6


_SEQ, _USEC = attrgetter("seq"), attrgetter("usec")


class Times(msgspec.Struct, frozen=True, gc=False):
    """One moment on two clocks: CLOCK_MONOTONIC in microseconds, wall time in seconds since the epoch."""

    monotonic_usec: int
    wall: float


class Issued(msgspec.Struct, frozen=True, gc=False):
    """What the first issue of a report fixed for its later revisions."""

    detected: float | None
    named_at: float | None
    wall_offset: float
    before: Callable[[], Before] | None = None
    earlier: tuple[EarlierKill, ...] = ()
    headless_before: int | None = None


class Watch:
    """Records in, captures out (``submit``, with the moment its first victim was named and with what tells,
    for whoever is not in a hurry, the time before).

    ``position``: the highest sequence number that the store covers. ``began_seq``: the number of the newest
    record (``KmsgRecord.number``) that was in the log when the watch of this boot first began; what is not
    newer is historical. None until the log was read once.
    """

    def __init__(
        self,
        source: KmsgSource | JournalSource,
        host: Host,
        snapshots: Snapshots,
        metrics: Metrics,
        submit: Callable[[OomCapture, float | None, Callable[[], Before] | None], None],
        now: Callable[[], Times],
        *,
        command_line: CommandLine = "executable",
        position: int | None = None,
        began_seq: int | None = None,
        covered: Iterable[Covered] = (),
        on_victim: Callable[[int, int], None] = lambda _pid, _usec: None,
        on_report: Callable[[int], None] = lambda _usec: None,
        recorder: Recorder | None = None,
    ) -> None:
        self._recorder = recorder
        self._source = source
        kind = source.kind
        self._source_of_records = Source(kind=kind, form=kind, boot_id=host.boot_id)
        #: ``KmsgRecord.number`` of what this source gives
        self._number_of: Callable[[KmsgRecord], int | None] = _SEQ if kind == "kmsg" else _USEC
        self._host = host
        self._snapshots = snapshots
        self._metrics = metrics
        self._submit = submit
        self._now = now
        self._position = position
        self._assembler = Assembler()
        self._fold = Fold(covered=covered)
        self._on_victim = on_victim
        self._on_report = on_report
        self._clock = LogClock()
        self._failures = OncePerKind(log)
        self._empty_at: int | None = None
        self._forged = self._kill_lines = 0
        self._counted = Counted(snapshots.oom_kills)
        #: lone kill lines that the kernel's count denies, by the number of their record
        self._denied: dict[int, None] = {}
        self._forged_said = False
        self._oldest: int | None = None
        self._newest = -1  # number of the newest record read
        self._last_named_usec = 0
        self._read_usec = 0  # when the newest record was read
        self._at: dict[int, Snapshot] = {}
        self._facts: dict[int, ProcessFacts] = {}
        self._named: dict[int, float] = {}
        self._issued: dict[int, Issued] = {}
        #: victims that were looked at before the log named them, and when
        self._foreseen: dict[int, tuple[ProcessFacts, int]] = {}
        self._earlier: deque[EarlierKill] = deque(maxlen=EARLIER_KILLS)
        self._suppression = Suppression()
        self._told_usec = -BRIEF_USEC
        self.command_line = command_line
        self.began_seq = began_seq
        #: the log was read to its end once
        self.caught_up = False

    # -- what the loop calls -----------------------------------------------------------------------

    def read(self) -> bool:
        """Take one bite of the log; whether it is drained. Raises UnavailableError when the log ended."""
        before = self._now().monotonic_usec
        passed = self._source.passed
        items, drained = self._source.read(idle=self._assembler.idle)
        if items:
            self._read_usec = self._now().monotonic_usec
        records = [item for item in items if isinstance(item, KmsgRecord)]
        stamps = [usec for usec in map(_USEC, records) if usec is not None]
        if stamps and self._source.kind == "kmsg":  # journald stamps nothing, and is late
            self._clock.saw(min(stamps), max(stamps), self._empty_at, self._now().monotonic_usec)
        self._empty_at = before if drained else None
        if self._newest < 0 and records and records[0].seq == 0:
            self._suppression.from_the_first_record()
        numbers = map(self._number_of, records)
        self._newest = max([self._newest, *(number for number in numbers if number is not None)])
        # all of them first: who was named has the least time left, and is looked at before anything else
        signals = self._confirmed(list(self._feed(items)))
        self._follow_each(signal for signal in signals if isinstance(signal, VictimChosen))
        self._follow_each(signal for signal in signals if not isinstance(signal, VictimChosen))
        self._attribute()
        if drained and self.caught_up:
            self.tick()
        self._attribute(beforehand=True)
        lost = sum(item.lost or 1 for item in items if isinstance(item, KmsgGap))
        forged, self._forged = self._assembler.forged_records - self._forged, self._assembler.forged_records
        if items:
            self._metrics.records(len(records) + self._source.passed - passed, lost=lost, forged=forged)
        return drained

    def foresee(self, pid: int, comm: str | None) -> None:
        """Another witness says that the log will name this process (``comm``: None where it does not say its
        name): look at it now."""
        try:
            facts = look_at(self._host, pid, comm, self.command_line)
        except Exception as error:
            self._failed(error)
            return
        if facts is not None:
            _keep(self._foreseen, pid, (facts, self._now().monotonic_usec))

    def catch_up_done(self) -> None:
        """The ring was read as it stood, or for as long as that may take: from now on records are news."""
        if self.began_seq is None:
            self.began_seq = self._newest
        self.caught_up = True
        if self._empty_at is not None:  # else old reports would end in the midst of what is still to be read
            self.tick()

    def tick(self) -> None:
        """Issue what is due."""
        now = self._log_now()
        self._follow_each(self._step(lambda assembler: assembler.tick(now)))
        self._hand_over_each(self._fold.tick(now))

    def seconds_until_due(self) -> float | None:
        """How long until ``tick`` has something to do; None: nothing is under way."""
        deadlines = (self._assembler.next_deadline(), self._fold.next_deadline())
        due = min((deadline for deadline in deadlines if deadline is not None), default=None)
        return None if due is None else max(0.0, (due - self._log_now()) / 1e6)

    @property
    def newest(self) -> int:
        """The number of the newest record that was read, -1 if there was none."""
        return self._newest

    @property
    def behind(self) -> bool:
        """The last bite did not drain the log. Not every source's descriptor says so by being readable."""
        return self._empty_at is None

    def is_in_report(self, within_usec: int) -> bool:
        """The rest of a report is awaited, and its last line is not older than this."""
        newest = self._assembler.unfinished_usec
        return newest is not None and self._log_now() - newest < within_usec

    @property
    def usec_since_kill(self) -> int:
        """How long ago the last kill line was read."""
        return self._now().monotonic_usec - self._last_named_usec

    @property
    def quiet(self) -> bool:
        """Every kill that was read is handed over, too."""
        return self._assembler.idle and self.usec_since_kill > 2 * QUIET_USEC

    def rest(self) -> None:
        """Nothing is under way, and nothing was for long."""
        self._counted.rest()

    def flush(self) -> None:
        """The watch ends: issue what is there."""
        self._follow_each(self._step(Assembler.flush))
        self._hand_over_each(self._fold.flush())

    # -- signals -----------------------------------------------------------------------------------

    def _feed(self, items: Sequence[KmsgRecord | KmsgGap]) -> Iterator[Signal]:
        at = 0
        while at < len(items):
            taken = 0
            try:
                taken = self._assembler.take_run(items, at)
            except Exception as error:
                self._failed(error)
                yield from self._begin_anew()
            if taken:
                at += taken
                continue
            yield from self._step(partial(Assembler.feed, item=items[at]))
            at += 1

    def _step(self, step: Callable[[Assembler], list[Signal]]) -> list[Signal]:
        """One step of the assembler. An error costs that step, not the watch: the record stays in the ring,
        and a daemon that ends on it would end on it again after its restart."""
        try:
            return step(self._assembler)
        except Exception as error:
            self._failed(error)
            return self._begin_anew()

    def _follow_each(self, signals: Iterable[Signal]) -> None:
        """What follows from signals; an error costs that one."""
        for signal in signals:
            try:
                self._follow(signal)
            except Exception as error:
                self._failed(error)

    def _begin_anew(self) -> list[Signal]:
        """Another assembler: the state of one that failed cannot be trusted, and its next step might fail
        like this one. What it had is issued if it still can."""
        failed, self._assembler = self._assembler, Assembler()
        self._forged = self._kill_lines = 0
        try:
            return failed.flush()
        except Exception as error:
            self._failed(error)
            return []

    def _failed(self, error: Exception) -> None:
        self._metrics.internal_error()
        self._failures.failed("the watch", error)

    def _follow(self, signal: Signal) -> None:
        if isinstance(signal, ReportBegan):
            self._look_around(signal.record)
        elif isinstance(signal, VictimChosen):
            self._look_at_victim(signal)
        elif self._is_forged(signal):
            if signal.revision == 0:
                self._metrics.records(forged=len(signal.records))
                self._say_forged(signal.records[0])
        elif not self._is_stump(signal):
            self._hand_over_each(self._fold.take(signal, self._is_news(signal.records[0].number)))

    def _look_around(self, record: KmsgRecord) -> None:
        if record.number is not None and self._is_fresh(record):
            snapshot = self._snapshot()
            _keep(self._at, record.number, snapshot)
            self._on_report(snapshot.usec)

    def _look_at_victim(self, victim: VictimChosen) -> None:
        number, usec = victim.record.number, victim.record.usec
        if number is None or usec is None or not self.caught_up:
            return
        fresh = self._is_fresh(victim.record)
        facts = self._identify(victim) if fresh else None
        if facts is not None:
            _keep(self._facts, number, facts)
        if self._recorder is not None:
            path = victim.cgroup or (facts.cgroup if facts is not None else None)
            # long after, its number may be another's
            self._recorder.kills.named(number, victim.pid if fresh else -1, path, self._now().monotonic_usec)
        self._last_named_usec = self._now().monotonic_usec
        self._on_victim(victim.pid, self._last_named_usec)
        _keep(self._named, number, (usec - self._clock.skew_usec) / 1e6)

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

    def _attribute(self, *, beforehand: bool = False) -> None:
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

    def _hand_over_each(self, folded: Iterable[Folded]) -> None:
        for each in folded:
            try:
                self._hand_over(each)
            except Exception as error:
                self._failed(error)

    def _hand_over(self, folded: Folded) -> None:
        block = folded.block
        records = block.records if folded.last is None else (*block.records, folded.last)
        numbers = [number for number in map(self._number_of, records) if number is not None]
        if not numbers:
            return
        first, known = numbers[0], set(numbers)
        seqs = [seq for seq in map(_SEQ, records) if seq is not None]
        historical = not self._is_news(first)
        now = self._now()
        at = next((snapshot for number, snapshot in self._at.items() if number in known), None)
        self._attribute()  # later kill lines may have left only one cgroup that it can be
        processes = tuple(facts for number, facts in sorted(self._facts.items()) if number in known)
        issued = self._issued.pop(first, None) or Issued(
            detected=None if historical else now.wall,
            named_at=min((moment for number, moment in self._named.items() if number in known), default=None),
            wall_offset=now.wall - self._clock.log_usec(now.monotonic_usec) / 1e6,
            before=None if historical or at is None else self._before(block, processes),
            earlier=() if historical else self._remember(block, processes),
            headless_before=self._suppression.take(block) if block.revision == 0 else None,
        )
        if block.settled:
            processes = tuple(look_after(self._host, facts) for facts in processes)
            for kept in (self._at, self._facts, self._named):
                for number in known.intersection(kept):
                    del kept[number]
        else:
            _keep(self._issued, first, issued)
        if self.caught_up and not historical and block.revision == 0:
            # before the kills are counted: the kernel's count must never seem to lag behind ours
            seen = at if at is not None and at.usec >= self._read_usec else None
            self._metrics.kernel_kills(self._snapshots.oom_kills(seen))
        self._submit(
            OomCapture(
                source=self._source_of_records,
                records=block.records,
                first_seq=seqs[0] if seqs else None,
                last_seq=max(seqs, default=None),
                lost_records=block.lost_records,
                left_out=block.left_out,
                revision=block.revision,
                settled=block.settled,
                repeats=folded.repeats,
                last_usec=folded.last.usec if folded.last else None,
                historical=historical,
                wall_offset=issued.wall_offset,
                detected=issued.detected,
                page_size_bytes=self._host.page_size_bytes,
                kernel=self._host.kernel,
                arch=self._host.machine,
                at=at,
                after=self._snapshot() if block.settled and at is not None else None,
                processes=processes,
                earlier=issued.earlier,
                headless_before=issued.headless_before,
            ),
            issued.named_at,
            issued.before,
        )

    def _before(self, block: OomBlock, processes: tuple[ProcessFacts, ...]) -> Callable[[], Before] | None:
        if self._recorder is None:
            return None
        usec = self._now().monotonic_usec
        since, self._told_usec = usec - self._told_usec, usec
        most = None if since >= BRIEF_USEC else BRIEF_SAMPLES
        return partial(_tell_before, self._recorder.history(usec), processes, block.records, most)

    def _remember(self, block: OomBlock, processes: tuple[ProcessFacts, ...]) -> tuple[EarlierKill, ...]:
        """The kills before this report; its own are added for those to come."""
        first = next((record.usec for record in block.records if record.usec is not None), None)
        if first is None:
            return ()
        earlier = tuple(kill for kill in self._earlier if first - EARLIER_USEC <= kill.usec < first)
        for facts in processes:
            self._earlier.append(EarlierKill(usec=first, comm=facts.comm or "", cgroup=facts.cgroup))
        return earlier

    # -- helpers -----------------------------------------------------------------------------------

    def _confirmed(self, signals: list[Signal]) -> list[Signal]:
        """Without the victims of kill lines that stand alone and that the kernel's count denies."""
        lines = self._assembler.kill_lines - self._kill_lines
        self._kill_lines += lines
        if not lines or self._source.kind != "kmsg":  # the journal is late, and does not say what it lost
            return signals
        lone = [signal for signal in signals if isinstance(signal, VictimChosen) and signal.lone]
        if self._counted.confirms(lines, len(lone)):
            return signals
        for victim in lone:
            if victim.record.number is not None:
                _keep(self._denied, victim.record.number, None)
        return [signal for signal in signals if not (isinstance(signal, VictimChosen) and signal.lone)]

    def _is_forged(self, block: OomBlock) -> bool:
        """One line, or one and the same form of line, alone: the kernel prints more of each report, so that
        others chose the words of it; but for kill lines, of which its count tells."""
        if not block.lone or block.lost_records or self._source.kind != "kmsg":
            return False
        numbers = [record.number for record in block.records]
        if any(number in self._denied for number in numbers):
            return True
        return not any(_is_kill_line(record) for record in block.records)

    def _say_forged(self, record: KmsgRecord) -> None:
        if not self._forged_said:
            self._forged_said = True
            log.warning(
                "a line of the kernel log looks like one of an OOM report, but neither another line nor the"
                " kernel's count says so; it is ignored, and so are those that follow: %s",
                harmless(record.text),
            )

    def _is_stump(self, block: OomBlock) -> bool:
        """The oldest report in the ring may be the rest of one whose beginning was overwritten; the store
        would take it for another. What the store covers anyway is then left to it."""
        seqs = [record.seq for record in block.records if record.seq is not None]
        if not seqs:
            return False
        if self._oldest is None:
            self._oldest = seqs[0]
        return seqs[0] == self._oldest and self._position is not None and max(seqs) <= self._position

    def _is_news(self, number: int | None) -> bool:
        """Not yet in the log when the watch of this boot began."""
        return self.began_seq is not None and number is not None and number > self.began_seq

    def _is_fresh(self, record: KmsgRecord) -> bool:
        return self.caught_up and record.usec is not None and self._log_now() - record.usec <= FRESH_USEC

    def _log_now(self) -> int:
        return self._clock.log_usec(self._now().monotonic_usec)

    def _snapshot(self) -> Snapshot:
        now = self._now()
        newest = next(reversed(self._at.values()), None)
        if newest is not None and now.monotonic_usec - newest.usec <= SHARED_USEC:
            return newest
        return self._snapshots.take(now.monotonic_usec, now.wall)


def _tell_before(
    history: History,
    processes: Iterable[ProcessFacts],
    records: Iterable[KmsgRecord],
    most: int | None,
) -> Before:
    """The time before, with those that the report is about; in the worker's thread."""
    paths = {path for facts in processes if (path := facts.cgroup)} | cgroups_named(records)
    return history.before({facts.pid for facts in processes}, paths, most=most)


def cgroups_named(records: Iterable[KmsgRecord]) -> set[str]:
    """The cgroups that the summary line of a report names: whose limit was hit, where the victim was."""
    for record in records:
        if record.text.startswith("oom-kill:") and (found := recognise(record.text, raw=True)):
            form, m = found
            if form.section is Section.SUMMARY:
                summary = oom_kill.parse_summary(m["constraint"], m["rest"])
                return {path for path in (summary.oom_memcg, summary.task_memcg) if path}
    return set()


def _is_kill_line(record: KmsgRecord) -> bool:
    found = recognise(record.text, raw=True)
    return found is not None and found[0].role is Role.KILL


def _keep(kept: dict[int, _V], key: int, value: _V) -> None:
    """Add to a bounded dictionary; the oldest goes."""
    kept[key] = value
    if len(kept) > KEPT:
        del kept[next(iter(kept))]
