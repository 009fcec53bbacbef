"""From the kernel log to captures, in the main thread, which never waits.

It reads records, has them cut into reports, looks at the machine when a report begins and at the victim
when it is named, and hands the capture over. Time and roots are arguments.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from operator import attrgetter

from oomwatchd.daemon.captures import Captures
from oomwatchd.daemon.clocks import Times
from oomwatchd.daemon.cutter import Cutter
from oomwatchd.daemon.evidence import Evidence
from oomwatchd.daemon.forgery import Forgery
from oomwatchd.daemon.log import OncePerKind
from oomwatchd.metrics import Metrics
from oomwatchd.observe.history import Before
from oomwatchd.observe.host import Host
from oomwatchd.observe.process import CommandLine
from oomwatchd.observe.recorder import Recorder
from oomwatchd.observe.snapshot import Snapshots
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord
from oomwatchd.reports.assemble import QUIET_USEC, OomBlock, ReportBegan, Signal, VictimChosen
from oomwatchd.reports.storms import Covered, Fold, Folded
from oomwatchd.sources.journal import JournalSource
from oomwatchd.sources.kmsg import KmsgSource, LogClock

log = logging.getLogger(__name__)

#: For a record older than this nothing is read from /proc: memory has changed, and the pid may be another's.
FRESH_USEC = 10_000_000

_SEQ, _USEC = attrgetter("seq"), attrgetter("usec")


class Watch:
    """Records in, captures out: ``submit`` gets each capture, the moment its first victim was named, and a
    function that formats the samples before it, for the worker.

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
        self._source = source
        kind = source.kind
        #: ``KmsgRecord.number`` of what this source gives
        self._number_of: Callable[[KmsgRecord], int | None] = _SEQ if kind == "kmsg" else _USEC
        self._snapshots = snapshots
        self._metrics = metrics
        self._submit = submit
        self._now = now
        self._position = position
        self._cutter = Cutter(self._failed)
        self._fold = Fold(covered=covered)
        self._on_report = on_report
        self._clock = LogClock()
        self._evidence = Evidence(
            host,
            snapshots,
            metrics,
            now,
            command_line=command_line,
            recorder=recorder,
            on_victim=on_victim,
            failed=self._failed,
        )
        records = Source(kind=kind, form=kind, boot_id=host.boot_id)
        self._captures = Captures(records, host, self._evidence, self._clock, now, recorder)
        self._forgery = Forgery(snapshots.oom_kills)
        self._failures = OncePerKind(log)
        self._empty_at: int | None = None
        self._oldest: int | None = None
        self._newest = -1  # number of the newest record read
        self._read_usec = 0  # when the newest record was read
        self.began_seq = began_seq
        #: the log was read to its end once
        self.caught_up = False

    # -- what the loop calls -----------------------------------------------------------------------

    def read(self) -> bool:
        """Read one batch of the log; returns whether it is drained. Raises UnavailableError when the log
        ended."""
        before = self._now().monotonic_usec
        passed = self._source.passed
        items, drained = self._source.read(idle=self._cutter.idle)
        if items:
            self._read_usec = self._now().monotonic_usec
        records = [item for item in items if isinstance(item, KmsgRecord)]
        stamps = [usec for usec in map(_USEC, records) if usec is not None]
        if stamps and self._source.kind == "kmsg":  # journald stamps nothing, and is late
            self._clock.saw(min(stamps), max(stamps), self._empty_at, self._now().monotonic_usec)
        self._empty_at = before if drained else None
        if self._newest < 0 and records and records[0].seq == 0:
            self._captures.suppression.from_the_first_record()
        numbers = map(self._number_of, records)
        self._newest = max([self._newest, *(number for number in numbers if number is not None)])
        # all of them first: who was named has the least time left, and is looked at before anything else
        signals = list(self._cutter.feed(items))
        kill_lines = self._cutter.new_kill_lines()
        if self._source.kind == "kmsg":  # the journal is late, and does not say what it lost
            signals = self._forgery.confirmed(signals, kill_lines)
        self._follow_each(signal for signal in signals if isinstance(signal, VictimChosen))
        self._follow_each(signal for signal in signals if not isinstance(signal, VictimChosen))
        self._evidence.attribute()
        if drained and self.caught_up:
            self.tick()
        self._evidence.attribute(beforehand=True)
        forged = self._cutter.newly_forged()
        if items:
            lost = sum(item.lost or 1 for item in items if isinstance(item, KmsgGap))
            self._metrics.records(len(records) + self._source.passed - passed, lost=lost, forged=forged)
        return drained

    def foresee(self, pid: int, comm: str | None) -> None:
        """The trace point says that the log will name this process (``comm``: None where it does not say its
        name): look at it now."""
        self._evidence.foresee(pid, comm)

    def catch_up_done(self) -> None:
        """The ring was read as it stood, or for as long as allowed: records from now on are new."""
        if self.began_seq is None:
            self.began_seq = self._newest
        self.caught_up = True
        if self._empty_at is not None:  # else old reports would end in the midst of what is still to be read
            self.tick()

    def tick(self) -> None:
        """Issue what is due."""
        now = self._log_now()
        self._follow_each(self._cutter.tick(now))
        self._hand_over_each(self._fold.tick(now))

    def rest(self) -> None:
        """No report is open, and none was for a while."""
        self._forgery.rest()

    def flush(self) -> None:
        """The watch ends: issue what is there."""
        self._follow_each(self._cutter.flush())
        self._hand_over_each(self._fold.flush())

    # -- what the loop asks ------------------------------------------------------------------------

    @property
    def command_line(self) -> CommandLine:
        """What is taken of a victim's arguments."""
        return self._evidence.command_line

    @command_line.setter
    def command_line(self, chosen: CommandLine) -> None:
        self._evidence.command_line = chosen

    def seconds_until_due(self) -> float | None:
        """How long until ``tick`` has something to do; None: nothing is under way."""
        deadlines = (self._cutter.next_deadline(), self._fold.next_deadline())
        due = min((deadline for deadline in deadlines if deadline is not None), default=None)
        return None if due is None else max(0.0, (due - self._log_now()) / 1e6)

    @property
    def newest(self) -> int:
        """The number of the newest record that was read, -1 if there was none."""
        return self._newest

    @property
    def behind(self) -> bool:
        """The last batch did not drain the log. Not every source's descriptor stays readable then."""
        return self._empty_at is None

    def is_in_report(self, within_usec: int) -> bool:
        """The rest of a report is awaited, and its last line is not older than this."""
        newest = self._cutter.unfinished_usec
        return newest is not None and self._log_now() - newest < within_usec

    @property
    def usec_since_kill(self) -> int:
        """How long ago the last kill line was read."""
        return self._evidence.usec_since_kill

    @property
    def quiet(self) -> bool:
        """No report is open, and every kill that was read is handed over."""
        return self._cutter.idle and self.usec_since_kill > 2 * QUIET_USEC

    # -- signals -----------------------------------------------------------------------------------

    def _follow_each(self, signals: Iterable[Signal]) -> None:
        """What follows from signals; an error costs that one."""
        for signal in signals:
            try:
                self._follow(signal)
            except Exception as error:
                self._failed(error)

    def _follow(self, signal: Signal) -> None:
        if isinstance(signal, ReportBegan):
            self._look_around(signal.record)
        elif isinstance(signal, VictimChosen):
            self._look_at_victim(signal)
        elif self._source.kind == "kmsg" and self._forgery.is_forged(signal):
            if signal.revision == 0:
                self._metrics.records(forged=len(signal.records))
                self._forgery.say(signal.records[0])
        elif not self._is_stump(signal):
            self._hand_over_each(self._fold.take(signal, self._is_news(signal.records[0].number)))

    def _look_around(self, record: KmsgRecord) -> None:
        if record.number is not None and self._is_fresh(record):
            self._on_report(self._evidence.see_machine(record.number).usec)

    def _look_at_victim(self, victim: VictimChosen) -> None:
        number, usec = victim.record.number, victim.record.usec
        if number is None or usec is None or not self.caught_up:
            return
        named_at = (usec - self._clock.skew_usec) / 1e6
        self._evidence.see_victim(victim, number, named_at, fresh=self._is_fresh(victim.record))

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
        historical = not self._is_news(numbers[0])
        made = self._captures.make(folded, numbers, historical=historical)
        if self.caught_up and not historical and block.revision == 0:
            # before the kills are counted: the kernel's count must never seem to lag behind ours
            at = made.capture.at
            seen = at if at is not None and at.usec >= self._read_usec else None
            self._metrics.kernel_kills(self._snapshots.oom_kills(seen))
        self._submit(made.capture, made.named_at, made.before)

    # -- helpers -----------------------------------------------------------------------------------

    def _is_stump(self, block: OomBlock) -> bool:
        """The oldest report in the ring may be the rest of one whose beginning was overwritten, and the store
        would take it for another one. It is left out if the store covers it."""
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

    def _failed(self, error: Exception) -> None:
        self._metrics.internal_error()
        self._failures.failed("the watch", error)
