"""The open reports, and when each is issued: time, lost records, signals.

Core: no clock. Time is what ``expire`` is told, in microseconds of the log clock.
"""

from __future__ import annotations

from oomwatchd.formats import Form
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.reports.assemble.block import Block, ReportBegan, Signal, VictimChosen
from oomwatchd.reports.assemble.largest import LIVE_ROWS, SAVED_ROWS

#: a block with its kill lines is issued when the log's next record is this much later: the lines of a group
#: kill follow within microseconds, and lines that a slow console delays longer come as a revision
QUIET_USEC = 5_000
#: the same when the log holds nothing more: a kill line ends its report unless a group is killed
DRAINED_USEC = 150
#: the reaper waits 2 s since 5.18 and tries for 1 s: later lines are not expected
SETTLE_USEC = 5_000_000
#: a block that still lacks its kill line is given up after this much silence
DEADLINE_USEC = 10_000_000
#: the same in a saved log: nobody waits for it, and a slow console may have stretched the report
OFFLINE_DEADLINE_USEC = 600_000_000
#: in a saved log that still grows, a report has ended when the source brought no line of it for this long on
#: the caller's clock; a report that lacks its kill line waits for ``DEADLINE_USEC``
PAUSE_SECONDS = 0.25
#: an allocation failure has no closing line
FAILURE_USEC = 1_000_000

MAX_UNFINISHED = 8
MAX_WAITING = 64
#: live: the most records that open reports may hold when one more begins, about 4 MiB
MAX_HELD = 8_192
#: lines kept that may announce a report
MAX_BEFORE = 4


class OpenReports:
    """The open blocks, oldest first (``blocks``), and their signals since these were last fetched (``out``).

    ``early`` (live) issues a block as soon as its kill lines are there, and again when more lines followed.
    Without it each block is issued once, when nothing more can come, in the order of the text.
    """

    def __init__(self, *, early: bool) -> None:
        self._early = early
        self.blocks: list[Block] = []
        self.out: list[Signal] = []
        self._before: list[KmsgRecord] = []

    @property
    def idle(self) -> bool:
        """No block is open."""
        return not self._before and all(block.finished for block in self.blocks)

    @property
    def has_finished(self) -> bool:
        """Some report has its last line (a failed allocation has none) and will be issued again."""
        return any((block.finished or block.failure) and block.proven for block in self.blocks)

    @property
    def unfinished_usec(self) -> int | None:
        """The stamp of the newest record of a report whose end was not read yet; None: there is no such
        report."""
        return max(
            (block.last for block in self.blocks if not block.finished and block.last is not None),
            default=None,
        )

    def signals(self) -> list[Signal]:
        """The signals since the last call."""
        out, self.out = self.out, []
        return out

    # -- beginning -------------------------------------------------------------------------------

    def open(self, record: KmsgRecord) -> Block:
        """Begin a block at this record, which is not added to it yet."""
        unfinished = [block for block in self.blocks if not block.finished]
        for block in unfinished[: max(0, len(unfinished) - MAX_UNFINISHED + 1)]:
            block.close("superseded")
        if len(self.blocks) >= MAX_WAITING:
            oldest = self.blocks[0]
            oldest.close("bound")
            if self._early:
                self._retire(oldest)
            else:
                self._settle(1)
        if self._early:
            self._bound_records()
        block = Block(record.caller, LIVE_ROWS if self._early else SAVED_ROWS)
        self.blocks.append(block)
        self.out.append(ReportBegan(record))
        return block

    def _bound_records(self) -> None:
        """Live, a report is held for some seconds after its end; large ones are let go earlier."""
        held = sum(len(block.records) for block in self.blocks)
        for block in [block for block in self.blocks if block.finished]:
            if held <= MAX_HELD:
                break
            held -= len(block.records)
            self._retire(block)

    def keep_before(self, record: KmsgRecord) -> None:
        """Keep a line that announces a report."""
        self._before = [*self._before[1 - MAX_BEFORE :], record]

    def forget_before(self) -> None:
        """Drop the lines that announced a report: none came."""
        self._before.clear()

    def add_before(self, block: Block, only: Form | None = None) -> None:
        """Put the lines that announced this report at its beginning; ``only``: lines of this form alone."""
        for record in self._before:
            if only is None or only.pattern.match(record.text.lstrip()):
                block.add(record, None)
                block.led = True
        self._before.clear()

    def name(
        self,
        block: Block,
        pid: int,
        comm: str,
        record: KmsgRecord,
        cgroup: str | None = None,
        *,
        killed: bool = False,
    ) -> None:
        """Signal once who will be killed, or was killed according to its kill line (``killed``)."""
        if pid not in block.named:
            block.named.add(pid)
            self.out.append(VictimChosen(pid, comm, record, cgroup, killed and block.lone))

    # -- time and gaps ---------------------------------------------------------------------------

    def expire(self, now: int, quiet: int = QUIET_USEC) -> None:
        """Issue what is due at ``now``; ``quiet`` is how long a complete block waits for more."""
        for block in list(self.blocks):
            if block.ready or block.last is None or now - block.last < self._patience(block, quiet):
                continue
            if not block.finished:
                block.close("deadline")
            if now - block.last >= SETTLE_USEC:
                self._retire(block)
            elif self._early and block.dirty and block.proven:
                self.out.append(block.issue(settled=False))

    def next_deadline(self) -> int | None:
        """When ``expire`` has something to do in a log that was read to its end; None: never."""
        due = [
            block.last + self._patience(block, DRAINED_USEC)
            for block in self.blocks
            if block.last is not None
        ]
        return min(due, default=None)

    def lose(self, lost: int) -> None:
        """So many records were lost."""
        for block in self.blocks:
            if not block.finished:
                block.lost += lost

    def restart_clock(self) -> None:
        """From here on the stamps are of another clock and cannot be compared with those before."""
        for block in self.blocks:
            block.last = None

    def end_boot(self) -> None:
        """Another boot's records follow."""
        for block in list(self.blocks):
            block.close("clock")
            self._retire(block)

    def drain(self, now: float) -> None:
        """Issue each block that got no record for a while before ``now`` (seconds, any clock of the caller);
        stamps do not matter."""
        for block in list(self.blocks):
            patience = PAUSE_SECONDS if block.finished or block.failure else DEADLINE_USEC / 1e6
            if block.has_rested(now, patience):
                block.close("deadline")
                self.blocks.remove(block)
                if block.proven:
                    self.out.append(block.issue(settled=True))

    def end(self) -> None:
        """The input has ended: issue everything."""
        for block in self.blocks:
            block.close("end")
        self._settle(len(self.blocks))
        self._before.clear()

    def _patience(self, block: Block, quiet: int) -> int:
        if not block.finished:
            if block.failure:
                return FAILURE_USEC
            return DEADLINE_USEC if self._early else OFFLINE_DEADLINE_USEC
        return quiet if self._early and block.dirty else SETTLE_USEC

    def _retire(self, block: Block) -> None:
        """Nothing more will come for this block: issue it, in the order of the text where order is kept."""
        if self._early:
            self.blocks.remove(block)
            if block.proven:
                self.out.append(block.issue(settled=True))
            return
        block.ready = True
        while self.blocks and self.blocks[0].ready:
            self._settle(1)

    def _settle(self, count: int) -> None:
        ready, self.blocks = self.blocks[:count], self.blocks[count:]
        for block in ready:
            if block.proven:
                self.out.append(block.issue(settled=True))
