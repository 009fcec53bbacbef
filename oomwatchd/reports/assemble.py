"""Records -> blocks: which records are one OOM report.

A block opens at any line that proves a report (header, summary, lone kill line, task table ...), for
the head may be lost, and the kernel limits headers to 10 in 5 s while kill lines are never limited.
It does not end at the first kill line: group kills follow at once, the reaper up to seconds later.

Reports may be interleaved (no common lock up to 4.1; other records come between at any time). Records
that name their caller are told apart by it; else a line goes to the newest block in which it may
come next, for the kernel prints the parts of a report in one order (``formats.Section``).

Core: no clock. Time is the records' own stamps, and what ``tick`` is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import cast

import msgspec

from oomwatchd.formats import Form, Proof, Role, Section, dump_stack, memcontrol, oom_kill
from oomwatchd.formats.page_alloc import ALLOC_FAILURE, NOMMU_FAILURE
from oomwatchd.formats.recognise import Recognised, recognise, recognise_row, unknown_count
from oomwatchd.formats.task_table import row_count
from oomwatchd.records.kmsg import FACILITY_KERN, KmsgGap, KmsgRecord

#: a block with its kill lines is issued when the log's next record is later than this: the lines of a group
#: kill follow within microseconds, and what a slow console delays further comes as a revision
QUIET_USEC = 5_000
#: the same where the log holds nothing more: a kill line ends its report unless it is a group's
DRAINED_USEC = 150
#: the reaper waits 2 s since 5.18 and tries for 1 s: later lines are not expected
SETTLE_USEC = 5_000_000
#: a block that still lacks its kill line is given up after this much silence
DEADLINE_USEC = 10_000_000
#: in a saved log nobody waits, and a slow console may have stretched the report
OFFLINE_DEADLINE_USEC = 600_000_000
#: a saved log that still grows: a report has ended when the source brought nothing to it for this long by
#: whoever watches it; one that lacks its kill line waits for ``DEADLINE_USEC``
PAUSE_SECONDS = 0.25
#: an allocation failure has no closing line
FAILURE_USEC = 1_000_000
#: the log clock of another boot, not jitter between CPUs
CLOCK_RESTART_USEC = 2_000_000
#: members of a group are killed in one loop
GROUP_USEC = 1_000_000

MAX_UNFINISHED = 8
MAX_WAITING = 64
MAX_RECORDS = 100_000
MAX_STACK = 600
MAX_UNDECODED = 100
MAX_HELD = 40
#: no record is longer, joined of its pieces or not (PRINTKRB_RECORD_MAX and its predecessors)
MAX_JOINED = 8192
#: records that are taken at once: of a long run, of a short one
MAX_RUN = 256
SHORT_RUN = 48


class ReportBegan(msgspec.Struct, frozen=True, gc=False):
    """The first record of a report was read: time to look at the system."""

    record: KmsgRecord


class VictimChosen(msgspec.Struct, frozen=True, gc=False):
    """The kernel named a process that it kills: it has microseconds to live. ``cgroup`` is its memory cgroup
    where that is printed with it."""

    pid: int
    comm: str
    record: KmsgRecord
    cgroup: str | None = None


class OomBlock(msgspec.Struct, frozen=True, kw_only=True):
    """The records of one report, in their order.

    ``revision`` counts re-issues: a later record (the reaper, a further group member) re-issues the
    whole block with the same first record and a higher revision. ``settled`` says that no further
    revision will come. ``lost_records`` were lost inside the block. ``closed_by`` says what ended it:
    ``kill``, ``outcome`` (panic, no killable process ...), ``deadline``, ``superseded``, ``bound``,
    ``clock`` (a new boot), ``end`` (of the input).
    """

    records: tuple[KmsgRecord, ...]
    lost_records: int = 0
    revision: int = 0
    settled: bool = False
    closed_by: str = "end"


Signal = ReportBegan | VictimChosen | OomBlock

_USEC = attrgetter("usec")
_KEYS = attrgetter("seq", "flag", "facility", "caller")
_ROW_STARTS = frozenset(" 0123456789")
_KILLER_SYMBOLS = frozenset({"dump_header", "oom_kill_process", "out_of_memory"})


class _Run(msgspec.Struct, frozen=True, eq=False):
    """Lines that come one after the other and only go on with a block: ``count`` says how many of the texts
    are such, from the first on; ``form`` is theirs, None where it is nobody's."""

    count: Callable[[Sequence[str]], int]
    form: Form | None
    most: int


_ROWS = _Run(row_count, oom_kill.TASKS_ROW, MAX_RUN)
_STATS = _Run(memcontrol.stat_count, memcontrol.STAT, SHORT_RUN)
_TRACE = _Run(unknown_count, None, SHORT_RUN)


class _Block:
    """One report under way."""

    __slots__ = (
        "caller", "closed_by", "comm", "dirty", "expects", "failure", "finished", "group", "in_table", "last",
        "last_form", "last_proves", "listed", "looked_at", "lost", "named", "outcome", "proven", "ready",
        "records", "rested", "revision", "section", "seen", "stack", "undecoded", "victims", "weighed",
    )  # fmt: skip

    def __init__(self, caller: str | None) -> None:
        self.records: list[KmsgRecord] = []
        self.caller = caller
        self.comm: str | None = None  # the task that the header names
        self.section = Section.BEFORE
        self.seen: set[str] = set()
        self.last_form = ""
        self.last_proves = False
        self.last: int | None = None  # stamp of the newest record
        self.lost = 0
        self.stack = 0
        self.undecoded = 0
        self.expects: int | None = None  # the pid that the kill line must name
        self.named: set[int] = set()  # pids announced as victims
        self.victims: set[int] = set()  # pids of kill lines
        self.in_table = False  # its task table is being read: header and a row were seen
        self.group = False
        self.listed: set[str] = set()  # pids of the task table, as printed
        self.looked_at = 0  # records whose pids are in it
        self.failure = False
        self.proven = False
        self.finished = False
        self.ready = False  # nothing more will come; waits for older blocks (text order)
        self.outcome = False  # no killable process, a panic, a victim that exits by itself
        self.closed_by = ""
        self.revision = 0
        self.dirty = True  # has records that no issue held
        self.rested = 0.0  # since when it has the records that it has (whoever watches a growing log tells)
        self.weighed = 0  # how many those are

    def add(self, record: KmsgRecord, form: Form | None) -> None:
        self.records.append(record)
        self.dirty = True
        stamp = _stamp(record)
        if stamp is not None:
            self.last = stamp
        self.last_form = form.name if form else ""
        self.last_proves = form is not None and form.proof is Proof.ALONE
        if form:
            self.seen.add(form.name)
            self.in_table = form is oom_kill.TASKS_ROW and oom_kill.TASKS_HEADER.name in self.seen
            self.section = max(self.section, form.section)
            self.proven = self.proven or form.proof >= (Proof.IN_TEXT if record.seq is None else Proof.ALONE)

    def accepts(self, caller: str | None) -> bool:
        return caller is None or self.caller is None or caller == self.caller

    def takes_row(self, record: KmsgRecord) -> bool:
        """Most lines of a long report are rows of its task table: the short way for them."""
        text = record.text
        if (
            not self.in_table
            or text[:1] != "["
            or text[1:2] not in _ROW_STARTS
            or record.flag != "-"
            or not (record.caller is None or self.accepts(record.caller))
            or len(self.records) >= MAX_RECORDS
        ):
            return False
        self.records.append(record)
        self.dirty = True
        if record.usec is not None:
            self.last = record.usec
        return True

    def follows_at_once(self, record: KmsgRecord) -> bool:
        """No record stood between this one and the block's last, as far as numbers tell."""
        last = self.records[-1].seq
        return record.seq is None or last is None or record.seq == last + 1

    def lists(self, pid: int | None) -> bool:
        """The task table has a row of this process."""
        for record in self.records[self.looked_at :]:
            if record.text[:1] == "[":
                self.listed.add(record.text[1:22].partition("]")[0].strip())
        self.looked_at = len(self.records)
        return str(pid) in self.listed

    def issue(self, *, settled: bool) -> OomBlock:
        block = OomBlock(
            records=tuple(self.records),
            lost_records=self.lost,
            revision=self.revision,
            settled=settled,
            closed_by=self.closed_by or "end",
        )
        self.revision += 1
        self.dirty = False
        return block


class Assembler:
    """Cuts blocks out of a stream of records. Never raises on a record's content.

    ``early`` issues a block as soon as its kill lines are there and again when more followed (live);
    without it each block is issued once, when it is complete for good, in the order of the text.
    """

    def __init__(self, *, early: bool = True) -> None:
        self._early = early
        self._blocks: list[_Block] = []
        self._before: list[KmsgRecord] = []
        self._held: list[KmsgRecord] = []
        self._last_seq: int | None = None
        self._now: int | None = None
        self._restarted = False  # the clock fell back, and no line has told yet why
        self._checked = 0  # when expiry was last looked at
        self._kernel_clock = True
        self._out: list[Signal] = []
        #: records of a facility other than kern that look like a line of a report
        self.forged_records = 0

    @property
    def idle(self) -> bool:
        """No block is under way: a stretch of lines without a word of a report changes nothing."""
        return not self._before and not self._held and all(block.finished for block in self._blocks)

    @property
    def has_finished(self) -> bool:
        """Some report has its end (that of a failed allocation has none) and was not issued for good."""
        return any((block.finished or block.failure) and block.proven for block in self._blocks)

    @property
    def is_empty(self) -> bool:
        """No report is under way, none waits to be issued for good."""
        return not self._blocks

    @property
    def unfinished_usec(self) -> int | None:
        """The stamp of the newest record of a report whose end was not read; None: there is none."""
        return max(
            (block.last for block in self._blocks if not block.finished and block.last is not None),
            default=None,
        )

    def feed(self, item: KmsgRecord | KmsgGap, now_usec: int | None = None) -> list[Signal]:
        """Take the next record (or gap) and say what it means."""
        if isinstance(item, KmsgGap):
            if self._last_seq is None:  # with sequence numbers the next record tells
                self._lose(item.lost or 1)
        else:
            self._take(item)
        if now_usec is not None:
            self._expire(now_usec)
        out, self._out = self._out, []
        return out

    def take_run(self, items: Sequence[KmsgRecord | KmsgGap], at: int) -> int:
        """Take at once what comes next in ``items`` and only goes on with the block under way: rows of its
        task table, memcg statistics, lines of its call trace; most of a report. How many there were; 0 says
        nothing of what the next item is."""
        block = self._blocks[-1] if self._blocks else None
        now = self._now
        if block is None or block.finished or self._restarted or now is None or not self._kernel_clock:
            return 0
        if now < self._checked:  # the clock fell back a little: what is due must be looked at
            return 0
        run = _run_of(block) if not self._held or block.in_table else None
        first = items[at]
        if run is None or isinstance(first, KmsgGap) or not run.count([first.text]):
            return 0
        records = _records(items[at : at + run.most])
        del records[run.count([record.text for record in records]) :]
        stamps = list(map(_USEC, records))
        if None in stamps or min(stamps) < now:
            return 0
        soon = self._checked + QUIET_USEC // 2  # then something may be due
        if max(stamps) >= soon:
            del records[next(n for n, stamp in enumerate(stamps) if stamp >= soon) :]
            if not records:
                return 0
        seqs, *rest = zip(*map(_KEYS, records), strict=True)
        flags, facilities, callers = map(set, rest)
        count = len(records)
        if (
            first.seq is None
            or seqs != tuple(range(first.seq, first.seq + count))
            or (self._last_seq is not None and first.seq != self._last_seq + 1)
            or flags != {"-"}
            or any(facilities)
            or not all(map(block.accepts, callers))
            or len(block.records) + count > MAX_RECORDS
        ):
            return 0
        if run is _TRACE:
            if block.stack + count > MAX_STACK:
                return 0
            block.stack += count
        block.records += records[:-1]
        block.add(records[-1], run.form)
        self._now = records[-1].usec
        self._last_seq = records[-1].seq
        return count

    def tick(self, now_usec: int) -> list[Signal]:
        """Issue what is due at ``now_usec`` (the log clock, microseconds), a moment at which the log was
        drained."""
        self._expire(now_usec, DRAINED_USEC)
        out, self._out = self._out, []
        return out

    def next_deadline(self) -> int | None:
        """When ``tick`` has something to do (log clock, microseconds); None: never."""
        due = [
            block.last + self._patience(block, DRAINED_USEC)
            for block in self._blocks
            if block.last is not None
        ]
        return min(due, default=None)

    def drain(self, now: float) -> list[Signal]:
        """The log holds nothing more at ``now`` (seconds, any clock of the reader's): issue what got nothing
        new for a while, by that clock, whatever the stamps say. For a saved log that grows."""
        for block in list(self._blocks):
            if block.weighed != len(block.records):
                block.weighed, block.rested = len(block.records), now
            patience = PAUSE_SECONDS if block.finished or block.failure else DEADLINE_USEC / 1e6
            if now - block.rested < patience:
                continue
            self._close(block, "deadline")
            self._blocks.remove(block)
            if block.proven:
                self._out.append(block.issue(settled=True))
        out, self._out = self._out, []
        return out

    def flush(self) -> list[Signal]:
        """The input has ended: issue everything."""
        for block in self._blocks:
            block.closed_by = block.closed_by or "end"
        self._settle(len(self._blocks))
        self._before.clear()
        out, self._out = self._out, []
        return out

    # -- time --------------------------------------------------------------------------------------

    def _patience(self, block: _Block, quiet: int) -> int:
        if not block.finished:
            if block.failure:
                return FAILURE_USEC
            return DEADLINE_USEC if self._early else OFFLINE_DEADLINE_USEC
        return quiet if self._early and block.dirty else SETTLE_USEC

    def _expire(self, now: int, quiet: int = QUIET_USEC) -> None:
        for block in list(self._blocks):
            if block.ready or block.last is None or now - block.last < self._patience(block, quiet):
                continue
            if not block.finished:
                self._close(block, "deadline")
            if now - block.last >= SETTLE_USEC:
                self._retire(block)
            elif self._early and block.dirty and block.proven:
                self._out.append(block.issue(settled=False))

    def _close(self, block: _Block, why: str) -> None:
        block.finished = True
        block.in_table = False
        block.closed_by = block.closed_by or why

    def _retire(self, block: _Block) -> None:
        """No more will come to this block: issue it, in the order of the text where order is kept."""
        if self._early:
            self._blocks.remove(block)
            if block.proven:
                self._out.append(block.issue(settled=True))
            return
        block.ready = True
        while self._blocks and self._blocks[0].ready:
            self._settle(1)

    def _settle(self, count: int) -> None:
        ready, self._blocks = self._blocks[:count], self._blocks[count:]
        for block in ready:
            if block.proven:
                self._out.append(block.issue(settled=True))

    def _lose(self, lost: int) -> None:
        for block in self._blocks:
            if not block.finished:
                block.lost += lost

    def _is_due(self, usec: int) -> bool:
        """Whether the log clock's new time changes anything; the short way for most records."""
        now = self._now
        if now is None or not self._kernel_clock or not now <= usec < self._checked + QUIET_USEC // 2:
            return True
        self._now = usec
        return False

    def _advance(self, stamp: int, *, kernel_clock: bool) -> None:
        """The record's stamp is the time. A clock that fell back is another boot's, unless the report
        goes on as if nothing had happened (damaged stamps): the next line tells."""
        if kernel_clock != self._kernel_clock:  # the two clocks cannot be compared
            self._kernel_clock = kernel_clock
            for block in self._blocks:
                block.last = None
        elif self._now is not None and stamp < self._now - CLOCK_RESTART_USEC:
            self._restarted = True
        if self._blocks and not self._checked <= stamp < self._checked + QUIET_USEC // 2:
            self._checked = stamp
            self._expire(stamp)
        self._now = stamp

    # -- records -----------------------------------------------------------------------------------

    def _take(self, record: KmsgRecord) -> None:
        if record.seq is not None:
            if self._last_seq is not None and record.seq > self._last_seq + 1:
                self._lose(record.seq - self._last_seq - 1)
            self._last_seq = record.seq
        if record.facility is not None and record.facility != FACILITY_KERN:
            found = recognise(record.text, raw=True)
            if found and found[0].opens:
                self.forged_records += 1
            # its stamp is the kernel's own: who floods the log must not hold up what is due
            if self._blocks and record.usec is not None and self._is_due(record.usec):
                self._advance(record.usec, kernel_clock=True)
            return
        usec = record.usec
        if usec is not None and self._is_due(usec):
            self._advance(usec, kernel_clock=True)
        elif usec is None and (stamp := _stamp(record)) is not None:
            self._advance(stamp, kernel_clock=False)
        if self._blocks and self._blocks[-1].takes_row(record):
            return
        found = recognise(record.text, raw=record.is_whole)
        if self._restarted:
            self._restarted = False
            if found is None or found[0].section <= Section.HEADER:
                for block in list(self._blocks):
                    self._close(block, "clock")
                    self._retire(block)
        if found is None and record.flag in ("c", "+") and self._continue(record):
            return
        if found is None:
            self._unrecognised(record)
        else:
            self._place(record, found)

    def _continue(self, record: KmsgRecord) -> bool:
        """A record of flag ``c`` or ``+`` that is no line by itself is the rest of the last one."""
        for block in reversed(self._blocks):
            if block.finished and not block.last_proves:
                continue
            if not block.records or not block.accepts(record.caller) or not record.text.strip():
                continue
            if len(block.records[-1].text) > MAX_JOINED:
                return False
            last = block.records.pop()
            joined = msgspec.structs.replace(
                last, text=last.text + record.text, raw=last.raw + b"\n" + record.raw
            )
            found = recognise(joined.text, raw=True)
            block.add(joined, found[0] if found else None)
            if found and found[0].role is Role.VICTIM:
                self._expect(block, found, joined)
            return True
        return False

    def _unrecognised(self, record: KmsgRecord) -> None:
        if self._held:
            self._hold(record)
            return
        for block in reversed(self._blocks):
            if block.finished or not block.accepts(record.caller):
                continue
            if Section.HEADER <= block.section <= Section.STACK:
                block.stack += 1
                if block.stack <= MAX_STACK:
                    block.add(record, None)
                return
            if row := recognise_row(record.text, block.section):
                block.add(record, row[0])
                return
            block.undecoded += 1
            if block.undecoded <= MAX_UNDECODED and record.text.strip():
                block.add(record, None)
            return

    def _place(self, record: KmsgRecord, found: Recognised) -> None:
        form = found[0]
        match form.role:
            case Role.NEIGHBOUR:
                pass
            case Role.BEFORE:
                self._before = [*self._before[-3:], record]
            case Role.REFUSED:
                self._before.clear()
            case Role.HEADER:
                self._header(record, found)
            case Role.BODY | Role.DUMP:
                self._body(record, found)
            case Role.VICTIM:
                self._victim_line(record, found)
            case Role.KILL:
                self._killed(record, found)
            case Role.OUTCOME:
                self._outcome(record, form)
            case Role.EXTRA:
                self._extra(record, form)
            case Role.AFTER:
                self._after(record, form, int(found[1]["pid"]))

    def _open(self, record: KmsgRecord) -> _Block:
        unfinished = [block for block in self._blocks if not block.finished]
        for block in unfinished[: max(0, len(unfinished) - MAX_UNFINISHED + 1)]:
            self._close(block, "superseded")
        if len(self._blocks) >= MAX_WAITING:
            oldest = self._blocks[0]
            self._close(oldest, "bound")
            if self._early:
                self._retire(oldest)
            else:
                self._settle(1)
        block = _Block(record.caller)
        self._blocks.append(block)
        self._out.append(ReportBegan(record))
        return block

    def _header(self, record: KmsgRecord, found: Recognised) -> None:
        form, m = found
        self._held = []
        block = self._open(record)
        block.failure = form in (ALLOC_FAILURE, NOMMU_FAILURE)
        block.comm = m["comm"]
        if not block.failure:
            self._add_before(block)
        block.add(record, form)

    def _add_before(self, block: _Block) -> None:
        for before in self._before:
            block.add(before, None)
        self._before.clear()

    def _body(self, record: KmsgRecord, found: Recognised) -> None:
        form = found[0]
        block = self._named_after(record, found) if form.repeats_comm else None
        block = block or self._fitting(record, form)
        if block is None and form.opens:
            block = self._open(record)
        if block is None:
            if form.role is Role.DUMP:
                self._held = [record]
                self._panic_dump(record, form)
            elif self._held:
                self._hold(record)
            return
        if len(block.records) >= MAX_RECORDS:
            self._close(block, "bound")
            return
        block.add(record, form)

    def _panic_dump(self, record: KmsgRecord, form: Form) -> None:
        """panic() says on which kernel it happened; the head of the report may be lost."""
        block = self._blocks[-1] if self._blocks else None
        if block is not None and block.last_form == oom_kill.PANIC.name and block.accepts(record.caller):
            block.add(record, form)
            self._held = []

    def _hold(self, record: KmsgRecord) -> None:
        """A stack dump outside of any report: it is one whose header was lost when the OOM killer
        stands in its call trace."""
        self._held.append(record)
        if not _KILLER_SYMBOLS.isdisjoint(dump_stack.symbols(record.text)):
            block = self._open(self._held[0])
            block.add(self._held[0], dump_stack.CPU)
            for held in self._held[1:]:
                block.add(held, None)
            self._held = []
        elif len(self._held) > MAX_HELD:
            self._held = []

    def _named_after(self, record: KmsgRecord, found: Recognised) -> _Block | None:
        """The block whose header names the task that this line names, where several are under way."""
        form, m = found
        unfinished = [
            block for block in reversed(self._blocks) if not block.finished and block.accepts(record.caller)
        ]
        if len(unfinished) < 2:
            return None
        return next(
            (block for block in unfinished if form.name not in block.seen and block.comm == m["comm"]), None
        )

    def _fitting(self, record: KmsgRecord, form: Form) -> _Block | None:
        """The block in which this line may come next: the least step forward, newer before older."""
        best: _Block | None = None
        best_cost = 100.0
        newest: _Block | None = None
        age = 0.0
        for block in reversed(self._blocks):
            if block.finished or not block.accepts(record.caller):
                continue
            newest = newest or block
            step = form.section - block.section
            repeated = form.once and form.name in block.seen
            if step >= 0 and not repeated and step + age < best_cost:
                best, best_cost = block, step + age
            age += 1.5
        if best is None and newest is not None and form.name not in newest.seen:
            return newest  # out of its order, but this report has not had it yet
        return best

    def _victim_line(self, record: KmsgRecord, found: Recognised) -> None:
        form = found[0]
        candidates = [
            block
            for block in reversed(self._blocks)
            if not block.finished
            and not block.failure
            and form.name not in block.seen
            and block.accepts(record.caller)
        ]
        if len(candidates) > 1:  # interleaved: the task table tells whose victim it is
            pid = self._named_pid(found)
            candidates.sort(key=lambda block: not block.lists(pid))
        block = candidates[0] if candidates else self._open(record)
        block.add(record, form)
        self._expect(block, found, record)

    def _named_pid(self, found: Recognised) -> int | None:
        form, m = found
        if form is oom_kill.INTENT:
            return int(m["pid"])
        return oom_kill.parse_summary(m["constraint"], m["rest"]).pid

    def _expect(self, block: _Block, found: Recognised, record: KmsgRecord) -> None:
        form, m = found
        cgroup = None
        if form is oom_kill.INTENT:
            pid, comm = int(m["pid"]), m["comm"]
        else:
            summary = oom_kill.parse_summary(m["constraint"], m["rest"])
            if summary.pid is None:
                return
            pid, comm, cgroup = summary.pid, summary.task or "", summary.task_memcg
        block.expects = pid
        self._name(block, pid, comm, record, cgroup)

    def _name(
        self, block: _Block, pid: int, comm: str, record: KmsgRecord, cgroup: str | None = None
    ) -> None:
        if pid not in block.named:
            block.named.add(pid)
            self._out.append(VictimChosen(pid, comm, record, cgroup))

    def _killed(self, record: KmsgRecord, found: Recognised) -> None:
        form, m = found
        pid, comm = int(m["pid"]), m["comm"]
        # up to 2.6.18 both lines begin alike, and this one tells no sizes
        block = self._block_of_kill(record, pid, bare=m["message"] is None or m["sizes"] is None)
        if block is None:
            block = self._open(record)
        if not block.finished:
            self._close(block, "kill")
        block.add(record, form)
        block.victims.add(pid)
        self._name(block, pid, comm, record)

    def _block_of_kill(self, record: KmsgRecord, pid: int, *, bare: bool) -> _Block | None:
        candidates = [
            block
            for block in reversed(self._blocks)
            if not block.failure and not block.outcome and block.accepts(record.caller)
        ]
        for block in candidates:
            if block.expects == pid and not block.victims:
                return block
        for block in candidates[:1]:
            # the leader may have gone before its threads: then the kill line names one of them
            if block.last_form == oom_kill.SUMMARY.name and block.follows_at_once(record):
                return block
            if block.group and self._is_group_member(block, record, pid):
                return block
        for block in candidates:
            if block.victims or block.finished:
                continue
            # up to 5.0 a child of the chosen process may die in its place
            if block.expects is None or (bare and oom_kill.INTENT.name in block.seen):
                return block
        return None

    def _is_group_member(self, block: _Block, record: KmsgRecord, pid: int) -> bool:
        stamp = _stamp(record)
        if stamp is not None and block.last is not None and stamp - block.last > GROUP_USEC:
            return False
        return oom_kill.TASKS_ROW.name not in block.seen or block.lists(pid)

    def _outcome(self, record: KmsgRecord, form: Form) -> None:
        """A line that ends the report without a kill line."""
        block = next(
            (
                block
                for block in reversed(self._blocks)
                if not block.failure
                and not block.victims
                and (not block.finished or (form is oom_kill.PANIC and block.outcome))
                and block.accepts(record.caller)
            ),
            None,
        )
        if block is None:
            block = self._open(record)
            self._add_before(block)
        block.add(record, form)
        self._close(block, "outcome")
        block.outcome = True

    def _extra(self, record: KmsgRecord, form: Form) -> None:
        """A line beside the kill lines."""
        block = next(
            (block for block in reversed(self._blocks) if block.victims and block.accepts(record.caller)),
            None,
        )
        if block is None:
            if not form.opens:
                return
            block = self._open(record)
            self._close(block, "kill")
        block.add(record, form)
        if form is oom_kill.GROUP:
            block.group = True

    def _after(self, record: KmsgRecord, form: Form, pid: int) -> None:
        """The reaper's word belongs to the report that killed this process."""
        for block in reversed(self._blocks):
            if pid in block.victims:
                block.add(record, form)
                return


def _records(items: Sequence[KmsgRecord | KmsgGap]) -> list[KmsgRecord]:
    """Those before the first gap."""
    records, kinds = cast("list[KmsgRecord]", list(items)), list(map(type, items))
    if KmsgGap in kinds:
        del records[kinds.index(KmsgGap) :]
    return records


def _run_of(block: _Block) -> _Run | None:
    """What most likely comes next in the block."""
    if block.in_table:
        return _ROWS
    if block.section is Section.MEMCG:
        return _STATS
    return _TRACE if Section.HEADER <= block.section <= Section.STACK else None


def _stamp(record: KmsgRecord) -> int | None:
    """The log clock, else wall-clock time, in microseconds."""
    if record.usec is not None:
        return record.usec
    return int(record.wall * 1_000_000) if record.wall is not None else None
