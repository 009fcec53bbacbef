"""Which report a line belongs to: by its form's role, by who printed it, by what may come next.

One long class: each role of a line has one method, and several of these share the ways to find a line's
block.

Core: no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import msgspec

from oomwatchd.formats import Proof, Role, Section, dump_stack, neighbours, oom_kill, pieces
from oomwatchd.formats.recognise import Recognised, recognise, recognise_row
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.reports.assemble.block import MAX_RECORDS, Block, stamp_of
from oomwatchd.reports.assemble.open_reports import OpenReports

#: the kernel kills a group in one loop: all its kill lines come within this time
GROUP_USEC = 1_000_000
#: a report's lines follow each other within this time, except on a slow console, which delays all of them
APART_USEC = 1_000_000
MAX_HELD = 40
MAX_LEADING = 4
#: lines of the Mem-Info part that may stand before the first line that opens a report which lost its head
MAX_AHEAD = 24
#: no record is longer, joined of its pieces or not (PRINTKRB_RECORD_MAX and its predecessors)
MAX_JOINED = 4096

#: rows of the task table that prove a report by themselves; words that make a sentence
PROVING_ROWS, PROSE_WORDS = 3, 4
#: lines that may go on with the lines ahead of a report
_GOES_ON = frozenset({Role.BODY, Role.DUMP, Role.VICTIM, Role.KILL, Role.OUTCOME})
_KILLER_SYMBOLS = frozenset({"dump_header", "oom_kill_process", "out_of_memory"})


class Placing:
    """Puts records into the open reports, and opens them."""

    def __init__(self, reports: OpenReports) -> None:
        self._reports = reports
        #: the lines read so far of a stack dump outside any report
        self.held: list[KmsgRecord] = []
        #: open-ended lines outside any report: they count if a line of a report comes next
        self._leading: list[KmsgRecord] = []
        #: lines of a text that are of a report but open none: the report may have lost its head before them
        self.ahead: list[KmsgRecord] = []
        #: when another killer, which also dumps memory and tasks, announced a kill
        self._other_killer: int | None = None
        #: lines that say that a process was killed
        self.kill_lines = 0

    def place(self, record: KmsgRecord, found: Recognised) -> None:
        """Place a line of a known form."""
        leading, self._leading = self._leading, []
        form = found[0]
        if self.ahead and form.role not in _GOES_ON:
            self.ahead = []
        if form.role is Role.BODY and record.is_whole:
            if form.open_ended:
                self._open_ended(record, found, leading)
                return
            if leading and form.opens and self._fitting(record, found) is None:
                self._begin_with(leading, record.caller)
        self._by_role[found[0].role](self, record, found)

    def place_unknown(self, record: KmsgRecord) -> None:
        """Place a line that no form matches, or that is known only by its place."""
        self._leading = []
        if not self.held:
            self.ahead = []
            if not self._reports.blocks:
                return  # most records of all
        block = self._newest(record.caller)
        if block is not None and not block.apart:
            block.apart = _is_prose(block, record)
        if block is not None and block.in_stack:
            block.add_stack(record)
        elif block is not None and (row := recognise_row(record.text, block.section, raw=record.is_whole)):
            block.add(record, row[0])
        elif self.held and record.caller == self.held[0].caller:
            self._hold(record)
        elif block is not None:
            block.add_unknown(record)

    def _newest(self, caller: str | None) -> Block | None:
        """The newest report under way that takes records of this caller."""
        for block in reversed(self._reports.blocks):
            if not block.finished and block.accepts(caller):
                return block
        return None

    def continues(self, record: KmsgRecord) -> bool:
        """Join a record of flag ``c`` or ``+``, which is no line by itself, to the last one; returns whether
        it was joined."""
        for block in reversed(self._reports.blocks):
            last_proves = block.last_form is not None and block.last_form.proof is Proof.ALONE
            if block.finished and not last_proves:
                continue
            if not block.records or not block.accepts(record.caller) or not record.text.strip():
                continue
            if len(block.records[-1].text) > MAX_JOINED:
                return False
            self._join(block, block.records[-1].text + record.text, record)
            return True
        return False

    def goes_on(self, record: KmsgRecord) -> bool:
        """Join a further word of a line that this kernel prints a word at a time; return whether it was
        one."""
        block = self._newest(record.caller)
        if block is None or not block.records:
            return False
        text = pieces.joined(block.records[-1].text, record.text)
        if text is None:
            return False
        self._join(block, text, record)
        return True

    def _join(self, block: Block, text: str, record: KmsgRecord) -> None:
        """Replace the block's last line by this longer text, whose form may be known only now."""
        last = block.records.pop()
        joined = msgspec.structs.replace(last, text=text, raw=last.raw + b"\n" + record.raw)
        found = recognise(joined.text, raw=True)
        block.add(joined, found[0] if found else None)
        if found and found[0].role is Role.VICTIM:
            self._expect(block, found, joined)

    # -- by role -----------------------------------------------------------------------------------

    def _neighbour(self, record: KmsgRecord, found: Recognised) -> None:
        """A line near a report but not part of it. Dumps after a line of another killer are that killer's."""
        if found[0] is neighbours.LOWMEMORYKILLER:
            self._other_killer = stamp_of(record) or 0

    def _before(self, record: KmsgRecord, found: Recognised) -> None:
        self._reports.keep_before(record)

    def _refused(self, record: KmsgRecord, found: Recognised) -> None:
        """An OOM kill was requested by hand and refused."""
        newest = self._reports.blocks[-1:]
        if not newest or not newest[0].outcome or not newest[0].accepts(record.caller):
            self._outcome(record, found)

    def _header(self, record: KmsgRecord, found: Recognised) -> None:
        form, m = found
        self.held = []
        block = self._reports.open(record)
        block.failure = form.failure
        block.comm = m["comm"]
        if not block.failure:
            self._reports.add_before(block)
        block.add(record, form)

    def _body(self, record: KmsgRecord, found: Recognised) -> None:
        block = self._block_of_body(record, found)
        if block is not None:
            _add(block, record, found)
        elif self.held:
            self._hold(record)
        elif not record.is_whole:
            self.ahead = [*self.ahead[1 - MAX_AHEAD :], record]

    def _add_ahead(self, block: Block, first: KmsgRecord) -> None:
        """Put the lines right before the first line of a report that lost its head at its beginning."""
        ahead, self.ahead = self.ahead, []
        if ahead and not _is_later(first, stamp_of(ahead[-1])):
            for record in ahead:
                block.add(record, None)

    def _dump(self, record: KmsgRecord, found: Recognised) -> None:
        block = self._block_of_body(record, found)
        if block is not None:
            _add(block, record, found)
            return
        self.held = [record]
        # panic() names the kernel; the head of the report may be lost
        newest = self._reports.blocks[-1:]
        if newest and newest[0].last_form is oom_kill.PANIC and newest[0].accepts(record.caller):
            newest[0].add(record, found[0])
            self.held = []

    def _victim(self, record: KmsgRecord, found: Recognised) -> None:
        form = found[0]
        candidates = [
            block
            for block in reversed(self._reports.blocks)
            if not block.finished
            and not block.failure
            and form.name not in block.seen
            and block.accepts(record.caller)
            and not _is_apart(block, record)
        ]
        if len(candidates) > 1:  # interleaved: the task table shows whose victim it is
            pid = _chosen(found)[0]
            candidates.sort(key=lambda block: not block.lists(pid))
        block = candidates[0] if candidates else self._open_at_victim(record)
        block.add(record, form)
        self._expect(block, found, record)

    def _kill(self, record: KmsgRecord, found: Recognised) -> None:
        form, m = found
        pid, comm = int(m["pid"]), m["comm"] or ""
        # up to 2.6.18 both lines begin alike, and this one has no sizes
        block = self._block_of_kill(record, pid, bare=m["message"] is None or m["sizes"] is None)
        if block is None:
            block = self._open_at_victim(record)
        if not block.finished:
            block.close("kill")
        block.add(record, form)
        block.victims.add(pid)
        self.kill_lines += 1
        self._reports.name(block, pid, comm, record, killed=True)

    def _open_at_victim(self, record: KmsgRecord) -> Block:
        """Open a report that lost its head; the sysrq line before it may have been kept."""
        block = self._reports.open(record)
        self._reports.add_before(block, oom_kill.SYSRQ)
        self._add_ahead(block, record)
        return block

    def _outcome(self, record: KmsgRecord, found: Recognised) -> None:
        """A line that ends the report without a kill line."""
        form = found[0]
        block = next(
            (
                block
                for block in reversed(self._reports.blocks)
                if not block.failure
                and not block.victims
                and (not block.finished or (form is oom_kill.PANIC and block.outcome))
                and block.accepts(record.caller)
            ),
            None,
        )
        if block is None:
            block = self._reports.open(record)
            self._reports.add_before(block)
            self._add_ahead(block, record)
        block.add(record, form)
        block.close("outcome")
        block.outcome = True

    def _extra(self, record: KmsgRecord, found: Recognised) -> None:
        """A line beside the kill lines."""
        form = found[0]
        block = next(
            (
                block
                for block in reversed(self._reports.blocks)
                if block.victims and block.accepts(record.caller)
            ),
            None,
        )
        if block is None:
            if not form.opens:
                return
            block = self._reports.open(record)
            block.close("kill")
        block.add(record, form)
        if form is oom_kill.GROUP:
            block.group = True

    def _after(self, record: KmsgRecord, found: Recognised) -> None:
        """A line of the reaper belongs to the report that killed this process."""
        form, m = found
        pid = int(m["pid"])
        for block in reversed(self._reports.blocks):
            if pid in block.victims:
                block.add(record, form)
                return
        if form is oom_kill.REAPED:
            self._reaped_unnamed(record, pid, m["comm"])

    def _reaped_unnamed(self, record: KmsgRecord, pid: int, comm: str) -> None:
        """A reaper line without a kill line: that was rate limited, or a search left it out. After the task
        table the line names the report's victim. Before the table it may be about an earlier kill, so it
        counts only if no kill line follows."""
        for block in reversed(self._reports.blocks):
            if block.finished or block.failure or block.victims or block.reaped or not block.proven:
                continue
            if block.expects not in (None, pid):
                return
            if block.section < Section.TASKS:
                block.reaped = record
            elif oom_kill.TASKS_ROW.name not in block.seen or block.lists(pid):
                block.add(record, oom_kill.REAPED)
                block.close("kill")
                block.victims.add(pid)
                self._reports.name(block, pid, comm, record)
            return

    # -- open-ended lines --------------------------------------------------------------------------

    def _open_ended(self, record: KmsgRecord, found: Recognised, leading: list[KmsgRecord]) -> None:
        """A raw record of which only the beginning is fixed. It is kept where it fits into a report, but it
        neither opens nor proves one and does not show which part of the report was reached."""
        form = found[0]
        block = self._fitting(record, found)
        if block is not None:
            _add(block, record, found, in_place=block.section >= form.section)
        elif self.held:
            self._hold(record)
        elif leading and form is oom_kill.TASKS_ROW:  # a second row right after the first: a cut table
            self._begin_with([*leading, record], record.caller)
        else:
            self._leading = [*leading[1 - MAX_LEADING :], record]

    def _begin_with(self, leading: list[KmsgRecord], caller: str | None) -> None:
        """Open-ended lines right before a report that lost its head belong to it, if the caller is the
        same."""
        if any(record.caller != caller for record in leading):
            return
        block = self._reports.open(leading[0])
        block.led = True
        for record in leading:
            block.add(record, None)

    # -- the block of a line -----------------------------------------------------------------------

    def _block_of_body(self, record: KmsgRecord, found: Recognised) -> Block | None:
        form = found[0]
        comm = found[1]["comm"] if form.repeats_comm else None
        block = self._named_after(record, found) if form.repeats_comm else None
        block = block or self._fitting(record, found, comm if record.is_whole else None)
        return self._open_headless(record) if block is None and form.opens else block

    def _open_headless(self, record: KmsgRecord) -> Block:
        block = self._reports.open(record)
        block.foreign = self._other_killer is not None and not _is_later(record, self._other_killer)
        self._add_ahead(block, record)
        return block

    def _named_after(self, record: KmsgRecord, found: Recognised) -> Block | None:
        """The block whose header names the same task as this line, where several blocks are open."""
        form, m = found
        unfinished = [
            block
            for block in reversed(self._reports.blocks)
            if not block.finished and block.accepts(record.caller)
        ]
        if len(unfinished) < 2:
            return None
        return next(
            (block for block in unfinished if form.name not in block.seen and block.comm == m["comm"]), None
        )

    def _fitting(self, record: KmsgRecord, found: Recognised, comm: str | None = None) -> Block | None:
        """The block in which this line may come next: the block nearest before this line's section, newer
        blocks first. A block that already has the line is left out. ``comm``: only blocks whose header names
        this task or is lost."""
        form, m = found
        best: Block | None = None
        best_cost = 100.0
        newest: Block | None = None
        age = 0.0
        for block in reversed(self._reports.blocks):
            if block.finished or not block.accepts(record.caller):
                continue
            if comm is not None and not dump_stack.is_named(block.comm, comm):
                continue
            newest = newest or block
            step = form.section - block.section
            if step >= 0 and not block.repeats(form, m) and step + age < best_cost:
                best, best_cost = block, step + age
            age += 1.5
        if best is not None or newest is None:
            return best
        if form.name not in newest.seen:
            return newest  # out of its order, but this report has not had it yet
        if form.once_by and not _is_later(record, stamp_of(newest.records[-1])):
            return newest  # a line that is printed twice in a row is no other report
        return None

    def _block_of_kill(self, record: KmsgRecord, pid: int, *, bare: bool) -> Block | None:
        candidates = [
            block
            for block in reversed(self._reports.blocks)
            if not block.failure
            and not block.outcome
            and block.accepts(record.caller)
            and not _is_apart(block, record)
        ]
        for block in candidates:
            if block.expects == pid and not block.victims:
                return block
        for block in candidates[:1]:
            # the leader may have exited before its threads: then the kill line names one of them
            if block.last_form is oom_kill.SUMMARY and block.follows_at_once(record):
                return block
            if block.group and _is_group_member(block, record, pid):
                return block
        for block in candidates:
            if block.victims or block.finished:
                continue
            # up to 5.0 a child of the chosen process may die in its place
            if block.expects is None or (bare and oom_kill.INTENT.name in block.seen):
                return block
        return None

    def _hold(self, record: KmsgRecord) -> None:
        """Hold a line of a stack dump outside any report: if the OOM killer is in its call trace, the dump
        belongs to a report that lost its header. In a text it proves the report if dump_header() itself
        dumped the stack; a stall's dump may have the killer in its trace, too."""
        self.held.append(record)
        if not _KILLER_SYMBOLS.isdisjoint(_functions(record)):
            block = self._reports.open(self.held[0])
            block.proven = not record.is_whole and _is_of_header(self.held)
            self._add_ahead(block, self.held[0])
            block.add(self.held[0], dump_stack.CPU)
            for held in self.held[1:]:
                block.add(held, None)
            self.held = []
        elif len(self.held) > MAX_HELD:
            self.held = []

    def _expect(self, block: Block, found: Recognised, record: KmsgRecord) -> None:
        """Note the chosen process that this line names: the kill line must name the same one."""
        pid, comm, cgroup = _chosen(found)
        if pid is not None:
            block.expects = pid
            self._reports.name(block, pid, comm, record, cgroup)

    #: what is done with a line of each role
    _by_role: ClassVar[dict[Role, Callable[[Placing, KmsgRecord, Recognised], None]]] = {
        Role.NEIGHBOUR: _neighbour,
        Role.BEFORE: _before,
        Role.REFUSED: _refused,
        Role.HEADER: _header,
        Role.DUMP: _dump,
        Role.BODY: _body,
        Role.VICTIM: _victim,
        Role.KILL: _kill,
        Role.OUTCOME: _outcome,
        Role.EXTRA: _extra,
        Role.AFTER: _after,
    }


def _add(block: Block, record: KmsgRecord, found: Recognised, *, in_place: bool = True) -> None:
    if len(block.records) >= MAX_RECORDS:
        block.close("bound")
    else:
        block.add(record, found[0] if in_place else None)
        if found[0].once_by:
            block.note(*found)
        if found[0] is oom_kill.TASKS_ROW and not (block.proven or block.foreign) and _is_task(record, found):
            block.tasks += 1
            block.proven = block.tasks >= PROVING_ROWS


def _is_task(record: KmsgRecord, found: Recognised) -> bool:
    """Whether it is a row of the task table beyond doubt: a log's prefix before it, a name behind its
    figures. In a text, where the rest may be lost, some of them prove a report."""
    return not record.is_whole and not _is_bare(record) and any(map(str.isalpha, found[1]["comm"]))


def _is_prose(block: Block, record: KmsgRecord) -> bool:
    """Whether an unknown line without a prefix stands behind a report whose lines have one: an author's
    words."""
    words = [word for word in record.text.split() if len(word) > 2 and word.isalpha()]
    return (
        not record.is_whole
        and len(words) >= PROSE_WORDS
        and not dump_stack.is_dumped(record.text)
        and _is_bare(record)
        and not _is_bare(block.records[0])
    )


def _is_apart(block: Block, record: KmsgRecord) -> bool:
    """Whether an author's words stand between the report, whose lines have a prefix, and this line without
    one: then it is of another log."""
    return block.apart and not record.is_whole and _is_bare(record)


def _is_bare(record: KmsgRecord) -> bool:
    """Whether nothing stands before the kernel's text in its line."""
    # the line may have been broken, and blanks lost
    begin, text = (b"".join(part.split())[:16] for part in (record.raw[:256], record.text[:64].encode()))
    return begin == text


def _functions(record: KmsgRecord) -> list[str]:
    """The functions that a line of a call trace names, without what the compiler appended."""
    return [name.partition(".")[0] for name in dump_stack.symbols(record.text, raw=record.is_whole)]


def _is_of_header(dump: list[KmsgRecord]) -> bool:
    """Whether the last functions of a stack dump are those with which a report begins."""
    called = [name for record in dump for name in _functions(record)]
    return any(
        callee.startswith("dump_stack") and caller == "dump_header" for callee, caller in pairwise(called)
    )


def _is_later(record: KmsgRecord, stamp: int | None) -> bool:
    """Whether a record is later than ``stamp`` by more than two lines of one report lie apart."""
    later = stamp_of(record)
    return later is not None and stamp is not None and later - stamp > APART_USEC


def _chosen(found: Recognised) -> tuple[int | None, str, str | None]:
    """Pid, name and cgroup of the chosen process, as far as the line names them."""
    form, m = found
    if form is oom_kill.SUMMARY:
        summary = oom_kill.parse_summary(m["constraint"], m["rest"])
        return summary.pid, summary.task or "", summary.task_memcg
    return int(m["pid"]), m["comm"], None


def _is_group_member(block: Block, record: KmsgRecord, pid: int) -> bool:
    stamp = stamp_of(record)
    if stamp is not None and block.last is not None and stamp - block.last > GROUP_USEC:
        return False
    return oom_kill.TASKS_ROW.name not in block.seen or block.lists(pid)
