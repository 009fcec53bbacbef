"""One report under way, and what the assembler says of it.

Core: no clock.
"""

from __future__ import annotations

import msgspec

from oomwatchd.formats import Form, Match, Proof, Section, oom_kill
from oomwatchd.records.capture import RowsLeftOut
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.reports.assemble.largest import LIVE_ROWS, Rows

MAX_RECORDS = 100_000
MAX_STACK = 600
MAX_UNDECODED = 100
_ROW_BEGINS = frozenset(f"[{second}" for second in " 0123456789")
# looked up for each record
_TASKS_ROW = oom_kill.TASKS_ROW
_FIRST_OF_STACK, _LAST_OF_STACK = Section.HEADER, Section.STACK


class ReportBegan(msgspec.Struct, frozen=True, gc=False):
    """The first record of a report was read: time to look at the system."""

    record: KmsgRecord


class VictimChosen(msgspec.Struct, frozen=True, gc=False):
    """The kernel named the process that it kills, microseconds before its death. ``cgroup`` is its memory
    cgroup if the same line names it."""

    pid: int
    comm: str
    record: KmsgRecord
    cgroup: str | None = None
    #: this is a kill line, and no other line shows yet that the kernel printed it
    lone: bool = False


class OomBlock(msgspec.Struct, frozen=True, kw_only=True):
    """The records of one report, in their order.

    ``revision`` counts re-issues: a later record (the reaper, a further group member) re-issues the
    whole block with the same first record and a higher revision. ``settled`` says that no further
    revision will come. ``lost_records`` were lost inside the block. ``closed_by`` says what ended it:
    ``kill``, ``outcome`` (panic, no killable process ...), ``deadline``, ``superseded``, ``bound``,
    ``clock`` (a new boot), ``end`` (of the input). ``lone``: all its lines are of one form; among raw records
    such lines alone prove nothing (``daemon.forgery``).
    """

    records: tuple[KmsgRecord, ...]
    lost_records: int = 0
    revision: int = 0
    settled: bool = False
    closed_by: str = "end"
    lone: bool = False
    #: rows of a task table that was too long
    left_out: RowsLeftOut | None = None


Signal = ReportBegan | VictimChosen | OomBlock


class Block:
    """One report under way."""

    __slots__ = (
        "apart", "caller", "closed_by", "comm", "dirty", "expects", "failure", "finished", "foreign",
        "group", "had", "in_table", "last", "last_form", "led", "listed", "looked_at", "lost", "named",
        "outcome", "proven", "ready", "reaped", "records", "rested", "revision", "rows", "section",
        "seen", "stack", "tasks", "undecoded", "victims", "weighed",
    )  # fmt: skip

    def __init__(self, caller: str | None, kept_rows: int = LIVE_ROWS) -> None:
        self.records: list[KmsgRecord] = []
        self.rows = Rows(kept_rows)
        self.caller = caller
        self.comm: str | None = None  # the task that the header names
        self.section = Section.BEFORE
        self.seen: set[str] = set()
        self.led = False  # lines that announce it came before its first line
        self.last_form: Form | None = None
        self.last: int | None = None  # stamp of the newest record
        self.lost = 0
        self.stack = 0
        self.undecoded = 0
        self.expects: int | None = None  # the pid that the kill line must name
        self.named: set[int] = set()  # pids announced as victims
        self.victims: set[int] = set()  # pids of kill lines
        self.in_table = False  # its task table is being read: header and a row were seen
        self.group = False
        self.reaped: KmsgRecord | None = None  # a line of the reaper, while no kill line names its process
        self.foreign = False  # it began after a line of another killer: it must prove that it is a report
        self.had: set[tuple[str, ...]] = set()  # lines seen that a report has only once with the same values
        self.listed: set[str] = set()  # pids of the task table, as printed
        self.looked_at = 0  # records whose pids are in it
        self.apart = False  # an author's words stand behind it
        self.tasks = 0  # rows that are of a task table beyond doubt, while nothing else proves a report
        self.failure = False
        self.proven = False
        self.finished = False
        self.ready = False  # nothing more will come; waits for older blocks (text order)
        self.outcome = False  # no killable process, a panic, a victim that exits by itself
        self.closed_by = ""
        self.revision = 0
        self.dirty = True  # has records that no issue held
        self.rested = 0.0  # since when it got no record, on the clock of whoever reads a growing log
        self.weighed = 0  # how many those are

    def add(self, record: KmsgRecord, form: Form | None) -> None:
        """The next record; None: no form knows it."""
        self.records.append(record)
        self.dirty = True
        stamp = record.usec if record.usec is not None else stamp_of(record)
        if stamp is not None:
            self.last = stamp
        self.last_form = form
        if form is not None:
            self.seen.add(form.name)
            self.in_table = form is _TASKS_ROW and oom_kill.TASKS_HEADER.name in self.seen
            if form is _TASKS_ROW:
                self.count_rows(1)
            if form.section > self.section:
                self.section = form.section
            if form.proof and not self.proven:
                in_text = not record.is_whole and not self.foreign
                self.proven = form.proof >= (Proof.IN_TEXT if in_text else Proof.ALONE)

    def note(self, form: Form, m: Match) -> None:
        """Remember a line that a report has only once with the same values."""
        if form.once_by:
            self.had.add(_values(form, m))

    def repeats(self, form: Form, m: Match) -> bool:
        """Whether it has this line already: a second one belongs to another report."""
        if form.once_by:
            return _values(form, m) in self.had
        return form.once and form.name in self.seen

    def add_unknown(self, record: KmsgRecord) -> None:
        """A record that no form matches: some are kept, to be listed as undecoded."""
        self.undecoded += 1
        if self.undecoded <= MAX_UNDECODED and record.text.strip():
            self.add(record, None)

    def add_stack(self, record: KmsgRecord) -> None:
        """A line of the stack dump."""
        self.stack += 1
        if self.stack <= MAX_STACK:
            self.add(record, None)

    @property
    def lone(self) -> bool:
        """Its lines are of one form."""
        return len(self.seen) <= 1 and not self.led

    @property
    def in_stack(self) -> bool:
        """Whether a line that no form matches belongs to its stack dump."""
        return _FIRST_OF_STACK <= self.section <= _LAST_OF_STACK

    def accepts(self, caller: str | None) -> bool:
        """Whether a record of this caller may be this report's."""
        return caller is None or self.caller is None or caller == self.caller

    def takes_row(self, record: KmsgRecord) -> bool:
        """Add the record if it is a row of the task table, and return whether it was: the short way for most
        lines of a long report."""
        records = self.records
        if (
            not self.in_table
            or record.text[:2] not in _ROW_BEGINS
            or record.flag != "-"
            or not (record.caller is None or self.accepts(record.caller))
            or len(records) >= MAX_RECORDS
        ):
            return False
        records.append(record)
        self.dirty = True
        usec = record.usec
        if usec is not None:
            self.last = usec
        rows = self.rows
        rows.count = count = rows.count + 1
        if count >= rows.most:
            self._let_go()
        return True

    def count_rows(self, count: int) -> None:
        """Note that ``count`` rows of the task table were added; if there are too many, drop the smallest."""
        self.rows.count += count
        if self.rows.count >= self.rows.most:
            self._let_go()

    def _let_go(self) -> None:
        self.records = self.rows.let_go(self.records)
        self.listed.clear()  # built again from the rows that stay; needed only where reports interleave
        self.looked_at = 0

    def follows_at_once(self, record: KmsgRecord) -> bool:
        """Whether no record came between the block's last and this one, as far as sequence numbers tell."""
        last = self.records[-1].seq
        return record.seq is None or last is None or record.seq == last + 1

    def lists(self, pid: int | None) -> bool:
        """Whether the task table has a row of this process."""
        self.listed.update(filter(None, map(_pid_text, self.records[self.looked_at :])))
        self.looked_at = len(self.records)
        return str(pid) in self.listed or self.rows.was_listed(pid)

    def close(self, why: str) -> None:
        """Its end was read or is no longer waited for; ``why`` is one of ``OomBlock.closed_by``."""
        self.finished = True
        self.in_table = False
        self.closed_by = self.closed_by or why

    def has_rested(self, now: float, patience: float) -> bool:
        """Whether it got no record for ``patience`` seconds, by the clock of the caller, who asks
        repeatedly."""
        if self.weighed != len(self.records):
            self.weighed, self.rested = len(self.records), now
        return now - self.rested >= patience

    def issue(self, *, settled: bool) -> OomBlock:
        """The block as it is now."""
        if self.reaped is not None and self.finished and not self.victims and not self.outcome:
            self.add(self.reaped, oom_kill.REAPED)
            self.reaped = None
        block = OomBlock(
            records=tuple(self.records),
            lost_records=self.lost,
            revision=self.revision,
            settled=settled,
            closed_by=self.closed_by or "end",
            lone=self.lone,
            left_out=self.rows.left_out,
        )
        self.revision += 1
        self.dirty = False
        return block


def _values(form: Form, m: Match) -> tuple[str, ...]:
    return (form.name, *(m[group] or "" for group in form.once_by))


def _pid_text(record: KmsgRecord) -> str:
    """The pid of a row of the task table as printed, empty for other lines."""
    return record.text[1:22].partition("]")[0].strip() if record.text[:1] == "[" else ""


def stamp_of(record: KmsgRecord) -> int | None:
    """The log clock, else wall-clock time, in microseconds."""
    if record.usec is not None:
        return record.usec
    return int(record.wall * 1_000_000) if record.wall is not None else None
