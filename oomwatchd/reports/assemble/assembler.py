"""The stream of records, with its clock, its gaps and its callers; the output is signals.

Core: no clock. Time is the records' own stamps, and what ``tick`` is told.
"""

from __future__ import annotations

from collections.abc import Sequence

from oomwatchd.formats import Section, pieces, show_mem
from oomwatchd.formats.recognise import recognise
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord
from oomwatchd.reports.assemble import runs
from oomwatchd.reports.assemble.block import Signal, stamp_of
from oomwatchd.reports.assemble.open_reports import DRAINED_USEC, QUIET_USEC, OpenReports
from oomwatchd.reports.assemble.placing import Placing

#: a stamp this far back is the log clock of another boot, not jitter between CPUs
CLOCK_RESTART_USEC = 2_000_000
#: how often due blocks are looked for, on the log clock
_CHECK_USEC = QUIET_USEC // 2

#: forms of a last line that some kernels print a word at a time
_MAY_GO_ON = (None, show_mem.LOWMEM_RESERVE, show_mem.BUDDY)


class Assembler:
    """Cuts blocks out of a stream of records. Never raises on a record's content.

    ``early`` (live) issues a block as soon as its kill lines are there, and again when more lines followed.
    Without it each block is issued once, when nothing more can come, in the order of the text.
    """

    def __init__(self, *, early: bool = True) -> None:
        self._reports = OpenReports(early=early)
        self._placing = Placing(self._reports)
        self._last_seq: int | None = None
        self._now: int | None = None
        self._restarted = False  # the clock fell back, and no line has shown the reason yet
        self._checked = 0  # when expiry was last looked at
        self._kernel_clock = True
        #: records of a facility other than kern that look like a line of a report
        self.forged_records = 0

    @property
    def idle(self) -> bool:
        """No block is open: lines that belong to no report change nothing."""
        return self._reports.idle and not (self._placing.held or self._placing.ahead)

    @property
    def kill_lines(self) -> int:
        """Lines that said that a process was killed."""
        return self._placing.kill_lines

    @property
    def has_finished(self) -> bool:
        """Some report has its last line (a failed allocation has none) and will be issued again."""
        return self._reports.has_finished

    @property
    def is_empty(self) -> bool:
        """No report is open, and none waits for its last issue."""
        return not self._reports.blocks

    @property
    def unfinished_usec(self) -> int | None:
        """The stamp of the newest record of a report whose end was not read yet; None: there is no such
        report."""
        return self._reports.unfinished_usec

    def feed(self, item: KmsgRecord | KmsgGap, now_usec: int | None = None) -> list[Signal]:
        """Take the next record (or gap) and say what it means."""
        if isinstance(item, KmsgGap):
            if self._last_seq is None:  # with sequence numbers the next record tells
                self._reports.lose(item.lost or 1)
        else:
            self._take(item)
        if now_usec is not None:
            self._reports.expire(now_usec)
        return self._reports.signals() if self._reports.out else []

    def take_run(self, items: Sequence[KmsgRecord | KmsgGap], at: int) -> int:
        """Take the next items together where they only continue the open block: rows of its task table, memcg
        statistics, lines of its call trace. These are most of a report. Returns how many were taken; 0 says
        nothing about the next item."""
        blocks, now = self._reports.blocks, self._now
        if not blocks or blocks[-1].finished or self._restarted or now is None or not self._kernel_clock:
            return 0
        block = blocks[-1]
        if now < self._checked:  # the clock fell back a little: look for due blocks
            return 0
        if self._placing.held and not block.in_table:
            return 0
        last_seq, end = self._last_seq, self._checked + _CHECK_USEC
        taken = runs.take(block, items, at, last_seq=last_seq, begin=now, end=end)
        if taken is None:
            return 0
        count, last = taken
        self._now = last.usec
        self._last_seq = last.seq
        return count

    def tick(self, now_usec: int) -> list[Signal]:
        """Issue what is due at ``now_usec`` (the log clock, microseconds), a moment at which the log was
        drained."""
        self._reports.expire(now_usec, DRAINED_USEC)
        return self._reports.signals()

    def next_deadline(self) -> int | None:
        """When ``tick`` has something to do (log clock, microseconds); None: never."""
        return self._reports.next_deadline()

    def drain(self, now: float) -> list[Signal]:
        """For a saved log that grows: nothing more can be read at ``now`` (seconds, on any clock of the
        caller). Issues each block that got no record for a while by that clock; stamps do not matter."""
        self._reports.drain(now)
        return self._reports.signals()

    def flush(self) -> list[Signal]:
        """The input has ended: issue everything."""
        self._reports.end()
        return self._reports.signals()

    # -- time --------------------------------------------------------------------------------------

    def _advance(self, stamp: int, *, kernel_clock: bool) -> None:
        """Take the record's stamp as the time. A clock that fell back belongs to another boot, unless the
        report continues (then the stamps are damaged): the next line decides."""
        if kernel_clock != self._kernel_clock:
            self._kernel_clock = kernel_clock
            self._reports.restart_clock()
        elif self._now is not None and stamp < self._now - CLOCK_RESTART_USEC:
            self._restarted = True
        if self._reports.blocks and not self._checked <= stamp < self._checked + _CHECK_USEC:
            self._checked = stamp
            self._reports.expire(stamp)
        self._now = stamp

    # -- records -----------------------------------------------------------------------------------

    def _take(self, record: KmsgRecord) -> None:  # noqa: C901 - the hot path: a call costs more than a branch
        seq = record.seq
        if seq is not None:
            last = self._last_seq
            if last is not None and seq > last + 1:
                self._reports.lose(seq - last - 1)
            self._last_seq = seq
        usec = record.usec
        if record.facility:  # neither the kernel's (0) nor unknown
            found = recognise(record.text, raw=True)
            if found and found[0].opens:
                self.forged_records += 1
            # its stamp is the kernel's own: a flood of foreign lines must not delay what is due
            if self._reports.blocks and usec is not None:
                self._advance(usec, kernel_clock=True)
            return
        if usec is not None:
            now = self._now
            if now is not None and self._kernel_clock and now <= usec < self._checked + _CHECK_USEC:
                self._now = usec  # nothing can be due
            else:
                self._advance(usec, kernel_clock=True)
        elif (stamp := stamp_of(record)) is not None:
            self._advance(stamp, kernel_clock=False)
        blocks = self._reports.blocks
        if blocks:
            if blocks[-1].takes_row(record):
                return
            begun = blocks[-1].last_form
            if (
                begun in _MAY_GO_ON
                and record.seq is not None
                and record.text[:1] in pieces.GOES_ON
                and self._placing.goes_on(record)
            ):
                return
        found = recognise(record.text, raw=record.is_whole)
        if self._restarted:
            self._restarted = False
            if found is None or found[0].section <= Section.HEADER:
                self._reports.end_boot()
        if found is not None:
            self._placing.place(record, found)
        elif record.flag not in ("c", "+") or not self._placing.continues(record):
            self._placing.place_unknown(record)
