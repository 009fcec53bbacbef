"""The records of one block -> OomReport.

The reader of each line's form writes its figures into the parts of the report (``formats.parts``). A line
that no form matches, or whose figures do not fit, is kept in ``undecoded``. Then one module for each part
builds that part from all its lines.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from oomwatchd.formats import Role, Section, dump_stack, memcontrol
from oomwatchd.formats.parts import Parts
from oomwatchd.formats.recognise import recognise, recognise_row, unknown_count
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import OomReport
from oomwatchd.reports import memcg, memory, outcome, trigger
from oomwatchd.reports.completeness import missing_parts
from oomwatchd.words.deferred import deferred


def decode(
    records: Iterable[KmsgRecord],
    *,
    lost_records: int = 0,
    page_size_bytes: int | None = None,
    kernel: str | None = None,
    arch: str | None = None,
) -> OomReport:
    """Decode one block. Never raises on a record's content.

    ``page_size_bytes``, ``kernel`` and ``arch`` are the host's; they are given only if the records are known
    to be the host's own. Otherwise they are taken from the text, or stay None.
    """
    lines = _Lines(records if isinstance(records, Sequence) else tuple(records))
    lines.read()
    parts, seen = lines.parts, lines.seen
    summary = outcome.summary_of(parts)
    release = parts.dump.release or kernel
    arch = arch or dump_stack.architecture(release, parts.dump.stack)
    page_size = memory.page_size_of(parts, page_size_bytes, arch)
    outcome.check_table(parts, page_size)
    constraint, basis = outcome.constraint_of(parts, summary)
    victims = outcome.victims_of(parts, summary)
    chosen_pid, chosen_comm = outcome.chosen_of(parts, summary)
    missing = missing_parts(parts, seen, constraint)
    return OomReport(
        kind=outcome.kind_of(parts, victims),
        complete=not missing and lost_records == 0,
        missing=missing,
        lost_records=lost_records,
        first_usec=lines.first.usec if lines.first else None,
        kill_usec=lines.kill_usec,
        first_wall=lines.first.wall if lines.first else None,
        kernel=release,
        arch=arch,
        page_size_bytes=page_size,
        trigger=trigger.trigger_of(parts, seen, summary),
        constraint=constraint,
        constraint_basis=basis,
        memcg=memcg.memcg_of(parts, summary),
        memory=memory.memory_of(parts, page_size),
        tasks=parts.table.tasks(page_size),
        slab=tuple(parts.slab.caches),
        allocations=tuple(parts.slab.allocations),
        kills=parts.outcome.kills,
        victims=victims,
        chosen_pid=chosen_pid,
        chosen_comm=chosen_comm,
        allocating_task="oom_kill_allocating_task" in (parts.outcome.message or ""),
        outcome=parts.outcome.outcome,
        suppressed_headers=parts.outcome.suppressed,
        undecoded=(*lines.undecoded, *parts.table.rejected),
    )


#: so many lines are read together
_RUN = 64


class _Lines:
    """Reads the lines of one block in their order; ``seen`` holds the names of the forms found."""

    def __init__(self, records: Sequence[KmsgRecord]) -> None:
        self.first = records[0] if records else None
        self.parts = Parts(raw=self.first is not None and self.first.is_whole)
        self.seen: set[str] = set()
        self.undecoded: list[str] = []
        self.kill_usec: int | None = None
        self._records = records
        self._section = Section.BEFORE
        self._headed = False

    def read(self) -> None:
        """Read the records, the rows of the task table all at once."""
        texts, at = [record.text for record in self._records], 0
        while at < len(texts):
            at += self._take_run(texts, at)
            if at < len(texts):
                self._take(self._records[at])
                at += 1

    def _take_run(self, texts: Sequence[str], at: int) -> int:
        """Read the next lines together where they are rows of the task table, statistics of a cgroup or lines
        of the call trace; return how many were read."""
        section, parts = self._section, self.parts
        if section is Section.TASKS:
            return parts.table.take_rows(texts[at:]) if texts[at][:1] == "[" else 0
        if section is Section.MEMCG:
            some = texts[at : at + _RUN]
            some = some[: memcontrol.stat_count(some)]
            if some := some[: unknown_count(some)]:
                memcontrol.read_stats(parts, "\n".join([text.lstrip(" ") for text in some]))
                self.seen.add(memcontrol.STAT.name)
            return len(some)
        if Section.HEADER <= section <= Section.STACK:
            some = texts[at : at + _RUN]
            some = some[: unknown_count(some)]
            for text in some:
                self._unknown(text)
            return len(some)
        return 0

    def _take(self, record: KmsgRecord) -> None:
        text, parts = record.text, self.parts
        if self._section is Section.TASKS and parts.table.takes(text):
            return
        found = recognise(text, raw=parts.raw) or recognise_row(text, self._section, raw=parts.raw)
        if found is None:
            self._unknown(text)
            return
        form, m = found
        role = form.role
        self._headed = self._headed or role is Role.HEADER
        if (
            role is Role.DUMP
            and self._section > Section.STACK
            and not self._headed
            and not parts.outcome.panic
        ):
            return  # after the summary it belongs to another report, which interrupted this one
        self.seen.add(form.name)
        if not (parts.raw and form.open_ended and role is Role.BODY):
            self._section = max(self._section, form.section)
        try:
            form.reads(parts, m)
        except (ValueError, OverflowError, msgspec.ValidationError):
            self.undecoded.append(text)
        if role is Role.KILL and self.kill_usec is None:
            self.kill_usec = record.usec

    def _unknown(self, text: str) -> None:
        stack = self.parts.dump.stack
        if Section.HEADER <= self._section <= Section.STACK:
            stack.append(text)
        elif text.strip():
            self.undecoded.append(text)
        if not self.parts.raw and _ELISION.match(text) and not _in_stack_dump(stack):
            self.parts.elided = True


def _in_stack_dump(stack: Sequence[str]) -> bool:
    """Whether dots end a stack dump in hex: MIPS prints them itself, so nobody left lines out."""
    return len(stack) > 1 and bool(_HEX_WORDS.search(stack[-2][-80:]))


#: what people write where they left lines out
_ELISION = deferred(
    r"\s*(?!-{3,}\[ cut here)"
    r"(?:[\[<(*~=-]{1,8}\s*"
    r"(?:\.{2,}|\u2026|(?:\w{1,12} ){0,4}(?:snip|cut|trim|skip|omit|truncat|remov)|\u7701\u7565)"
    r"|\.{2,}\s*(?:snip|cut|trim|skip|omit|$)|\u2026|\.{3,})",
    re.IGNORECASE,
)
_HEX_WORDS = deferred(r"(?:\b[0-9a-f]{8,16}\b\s*){2,}$")
