"""Repeated reports without a victim -> one report with a count.

While a cgroup is at its limit and none of its tasks may be killed, each failed charge prints a whole report
("Out of memory and no killable processes..."). The kernel does not rate limit these: hundreds come each
second, for minutes. Repeats of one trigger (name and pid) in one cgroup are folded into the first.

A report with a kill line is never folded, whatever else it says: kills are counted one by one.

Core: no clock. Time is the records' own stamps, and what ``tick`` is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence

import msgspec

from oomwatchd.formats import Role, Section, oom_kill
from oomwatchd.formats.recognise import recognise
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.reports.assemble import OomBlock

#: a run of repeats has ended when none came for this long on the log clock
GAP_USEC = 10_000_000
#: while repeats continue the count is issued again this often (live)
UPDATE_USEC = 10_000_000
#: a run is closed after this long; the next report begins another
SPAN_USEC = 600_000_000
#: a stamp this far back is the log clock of another boot, not jitter between CPUs
CLOCK_RESTART_USEC = 2_000_000

#: open runs at one time
MAX_OPEN = 64
#: ended runs whose reports are still recognised as counted
MAX_COVERED = 256
#: where the order of the text is kept: reports that wait for an earlier one to be complete
MAX_WAITING = 256


class StormKey(msgspec.Struct, frozen=True):
    """Whose charge failed, and in which cgroup; None where the report does not say."""

    comm: str | None
    pid: int | None
    cgroup: str | None


class Folded(msgspec.Struct, frozen=True):
    """A report, and how many repeats it stands for; ``last`` is the last record of the last repeat."""

    block: OomBlock
    repeats: int = 0
    last: KmsgRecord | None = None


class Covered(msgspec.Struct, frozen=True):
    """A stored run: the reports of this key that began in this range of sequence numbers are counted."""

    key: StormKey
    first_seq: int
    last_seq: int


def storm_key(records: Sequence[KmsgRecord]) -> StormKey | None:
    """The key of a report that ends without a victim, None for any other."""
    if not records or not oom_kill.NO_KILLABLE.pattern.match(records[-1].text.lstrip()):
        return None
    comm = pid = cgroup = None
    for record in records:
        if record.text[:1] == "[":
            continue  # a row of the task table
        found = recognise(record.text, raw=record.is_whole)
        if found is None:
            continue
        form, m = found
        if form.role is Role.KILL:
            return None
        if form.role is Role.HEADER:
            comm = m["comm"]
        elif form.role is Role.DUMP:
            pid = int(m["pid"])
        elif form.section is Section.MEMCG and "path" in form.pattern.groupindex:
            cgroup = m["path"]
    return StormKey(comm, pid, cgroup)


class _Run:
    """One open run of repeats."""

    __slots__ = ("began", "block", "closed", "issued", "key", "last", "latest", "repeats", "revision", "slot")

    def __init__(self, key: StormKey, slot: Hashable, block: OomBlock) -> None:
        self.key = key
        self.slot = slot
        self.block = block
        self.repeats = 0
        self.last: KmsgRecord | None = None
        self.began = self.latest = self.issued = _stamp(block.records[-1])
        self.revision = 0
        self.closed = False

    def range(self) -> tuple[int, int] | None:
        first, last = self.block.records[0].number, (self.last or self.block.records[-1]).number
        return None if first is None or last is None else (first, last)

    def issue(self, *, settled: bool) -> Folded:
        block = msgspec.structs.replace(self.block, revision=self.revision, settled=settled)
        self.revision += 1
        self.issued = self.latest
        return Folded(block, self.repeats, self.last)


class Fold:
    """Blocks in, blocks with their repeats out. Never raises on a record's content.

    ``early`` (live): the first report of a run is returned at once, again with its growing count from time to
    time, and ``settled`` at the end. Without it each run is returned once, when it has ended, in the order of
    the text. ``covered`` are runs that an earlier process stored: reports of these that are read again are
    dropped.
    """

    def __init__(self, *, early: bool = True, covered: Iterable[Covered] = ()) -> None:
        self._early = early
        self._open: dict[Hashable, _Run] = {}
        self._covered = deque(covered, maxlen=MAX_COVERED)
        self._waiting: deque[Folded | _Run] = deque()
        #: reports that were folded into others
        self.folded = 0

    @property
    def is_empty(self) -> bool:
        """No run is open, and nothing waits for one."""
        return not self._open and not self._waiting

    def take(self, block: OomBlock, scope: Hashable = None) -> list[Folded]:
        """Take the next block. Blocks of different ``scope`` are never folded together."""
        now = _stamp(block.records[-1])
        out = [] if now is None else self._expire(now)
        key = storm_key(block.records)
        if key is None:
            return out + self._pass(Folded(block))
        first = block.records[0].number
        slot = (key, scope)
        run = self._open.get(slot)
        if block.revision and run is not None and run.block.records[0].number == first:
            run.block = block
            return out
        # offline each block comes once, and another boot's numbers begin anew
        if self._early and first is not None and self._is_counted(key, first, run):
            return out
        if block.revision:
            return out + self._pass(Folded(block))
        if run is None:
            return out + self._begin(_Run(key, slot, block))
        run.repeats += 1
        run.last = block.records[-1]
        self.folded += 1
        if now is not None:
            run.latest = now
            if run.began is not None and now - run.began >= SPAN_USEC:
                return out + self._close(run)
            if self._early and run.issued is not None and now - run.issued >= UPDATE_USEC:
                out.append(run.issue(settled=False))
        return out

    def tick(self, now_usec: int) -> list[Folded]:
        """Issue what is due at ``now_usec`` (the log clock, microseconds)."""
        return self._expire(now_usec)

    def next_deadline(self) -> int | None:
        """When ``tick`` has something to do (log clock, microseconds); None: never."""
        due = [run.latest + GAP_USEC for run in self._open.values() if run.latest is not None]
        return min(due, default=None)

    def flush(self) -> list[Folded]:
        """The input has ended: close every run."""
        return [folded for run in list(self._open.values()) for folded in self._close(run)]

    # -- runs --------------------------------------------------------------------------------------

    def _is_counted(self, key: StormKey, first: int, run: _Run | None) -> bool:
        if run is not None and (bounds := run.range()) and bounds[0] <= first <= bounds[1]:
            return True
        return any(run.key == key and run.first_seq <= first <= run.last_seq for run in self._covered)

    def _begin(self, run: _Run) -> list[Folded]:
        out = self._close(next(iter(self._open.values()))) if len(self._open) >= MAX_OPEN else []
        self._open[run.slot] = run
        if self._early:
            return [*out, run.issue(settled=False)]
        self._waiting.append(run)
        return out + self._ready()

    def _close(self, run: _Run) -> list[Folded]:
        del self._open[run.slot]
        run.closed = True
        if bounds := run.range():
            self._covered.append(Covered(run.key, *bounds))
        return [run.issue(settled=True)] if self._early else self._ready()

    def _expire(self, now: int) -> list[Folded]:
        out = []
        for run in list(self._open.values()):
            if run.latest is None:
                continue
            # live, an older report may be issued late; in a text the clock falls back with another boot
            restarted = not self._early and now < run.latest - CLOCK_RESTART_USEC
            if restarted or now - run.latest >= GAP_USEC:
                out += self._close(run)
        return out

    # -- the order of the text ---------------------------------------------------------------------

    def _pass(self, folded: Folded) -> list[Folded]:
        if self._early or not self._waiting:
            return [folded]
        self._waiting.append(folded)
        return self._ready()

    def _ready(self) -> list[Folded]:
        """The reports that need not wait any longer."""
        if len(self._waiting) > MAX_WAITING and isinstance(head := self._waiting[0], _Run):
            del self._open[head.slot]
            head.closed = True
        out = []
        while self._waiting:
            head = self._waiting[0]
            if isinstance(head, _Run):
                if not head.closed:
                    break
                head = head.issue(settled=True)
            out.append(head)
            self._waiting.popleft()
        return out


def _stamp(record: KmsgRecord) -> int | None:
    """The log clock, else wall-clock time, in microseconds."""
    if record.usec is not None:
        return record.usec
    return int(record.wall * 1_000_000) if record.wall is not None else None
