"""After the kill: what the cgroup is charged, what became of the units; and systemd-oomd's kills.

A thread of its own reads the journal in small batches, because libsystemd maps files and may wait for a disk.
It hands what it finds to the worker, which alone keeps state. An event whose units are followed is stored
again as a later revision when the service manager reports on them, and once more when the time is over.

systemd-oomd's line and the service manager's count of the same kill become one event. They are matched by
unit and time. Where both are there the line comes first, so that every start of the daemon makes the same
event, which the store then recognises.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec

from oomwatchd.cgroupfs import Hierarchy
from oomwatchd.diagnosis import oomd
from oomwatchd.diagnosis.attribution import Attribution, owner_of
from oomwatchd.diagnosis.user_killers import Kills
from oomwatchd.errors import OomwatchdError
from oomwatchd.event import OomEvent
from oomwatchd.observe.charge import charge_of
from oomwatchd.records.capture import OomCapture, Source, SourceForm, UnitEntry, weight
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.sources.manager import KillerLine, ManagerJournal, OomdLine, Said

log = logging.getLogger(__name__)

#: For how long the journal is followed after a report.
LISTEN_USEC = 60_000_000
#: Of the two entries of one oomd kill the later one comes within this time.
PAIR_USEC = 10_000_000
#: For so long an entry waits for the other one before it becomes an event alone.
HOLD_USEC = 3_000_000
#: An event is stored again this much later at the earliest, times the number of events that are followed.
STORE_USEC = 1_000_000
#: An entry's stamp is journald's, a report's the kernel's: they may disagree by so much.
_SLACK_USEC = 50_000
#: How often the journal is read: while a unit is followed, and otherwise. With the recorder that makes 0.2
#: wakeups a second while all is calm, which is the bound (docs/footprint.md).
HURRIED_SECONDS, CALM_SECONDS = 1.0, 10.0
#: Between batches, and until a journal that could not be read is tried again.
BITE_PAUSE_SECONDS, RETRY_SECONDS = 0.05, 60.0
#: Batches that wait for the worker.
MOST_WAITING = 4
#: Events that are followed, units and entries of each, entries kept for reports that are not settled yet.
MOST_EVENTS, MOST_UNITS, MOST_ENTRIES, KEPT_ENTRIES = 64, 8, 16, 256
#: oomd kills under way
MOST_KILLS = 64
#: what the followed reports may hold together, in bytes
MOST_BYTES = 8 << 20
_TEXT_LENGTH = 512


class _Listening:
    """An event whose units are followed until ``until``."""

    __slots__ = ("capture", "changed", "since", "stored", "units", "until")

    def __init__(self, capture: OomCapture, units: frozenset[str], since: int) -> None:
        self.capture = capture
        self.units = units
        self.since = since
        self.until = since + LISTEN_USEC
        self.changed = False
        self.stored = 0

    def take(self, entry: UnitEntry) -> None:
        log_ = self.capture.unit_log
        if entry.unit in self.units and self.since <= entry.usec <= self.until and len(log_) < MOST_ENTRIES:
            cut = msgspec.structs.replace(entry, text=entry.text[:_TEXT_LENGTH])
            self.capture = msgspec.structs.replace(self.capture, unit_log=(*log_, cut))
            self.changed = True


class _Kill:
    """What the journal said of one oomd kill so far."""

    __slots__ = ("line", "result", "revision", "unit", "usec")

    def __init__(self, unit: str | None, usec: int) -> None:
        self.unit = unit
        self.usec = usec
        self.line: OomdLine | None = None
        self.result: UnitEntry | None = None
        self.revision = -1  # nothing is issued yet


class UnitWatch:
    """All but :meth:`watch` and :meth:`stop` belongs to the worker's thread.

    ``began_usec`` is CLOCK_MONOTONIC when this boot was first watched: an oomd kill before it is historical.
    """

    def __init__(
        self,
        hierarchy: Hierarchy | None,
        serve: Callable[[OomCapture], None],
        *,
        boot_id: str | None,
        began_usec: int,
        clock: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        self._hierarchy = hierarchy
        self._serve = serve
        self._boot_id = boot_id
        self._began = began_usec
        self._clock = clock
        self._listening: dict[str, _Listening] = {}
        self._recent: deque[UnitEntry] = deque(maxlen=KEPT_ENTRIES)
        self._kills: list[_Kill] = []
        self._user_kills = Kills()
        self._ended = threading.Event()
        self._newest = -1
        # each written by one thread: batches handed to the worker, and those that it has taken
        self._handed = self._taken = 0
        #: somebody reads the journal for this
        self.listens = False

    # -- the journal's thread ----------------------------------------------------------------------

    def watch(
        self, open_journal: Callable[[], ManagerJournal], later: Callable[[Callable[[], None]], None]
    ) -> None:
        """Read the journal until :meth:`stop`, in a thread of its own. A failure is logged once, and tried
        again from time to time."""
        said = False
        while not self._ended.is_set():
            try:
                self._follow(open_journal(), later)
            except Exception as error:
                reason = (
                    error.message if isinstance(error, OomwatchdError) else f"{type(error).__name__}: {error}"
                )
                if not said:
                    what = "what becomes of units, and kills by systemd-oomd, are not known"
                    log.info("%s: %s", what, reason)
                said = True
            self.listens = False
            self._hand_over(later, self.tick)
            self._ended.wait(RETRY_SECONDS)

    def _follow(self, journal: ManagerJournal, later: Callable[[Callable[[], None]], None]) -> None:
        try:
            self.listens = True
            while not self._ended.is_set():
                if self._handed - self._taken >= MOST_WAITING:
                    self._ended.wait(HURRIED_SECONDS)
                    continue
                entries, drained = journal.read()
                # a journal that was opened anew is read from its beginning
                entries = [entry for entry in entries if entry.usec > self._newest]
                if entries:
                    self._newest = entries[-1].usec
                    self._hand_over(later, partial(self.take, entries, drained))
                elif self.busy:
                    self._hand_over(later, self.tick)
                pause = BITE_PAUSE_SECONDS if not drained else HURRIED_SECONDS if self.busy else CALM_SECONDS
                self._ended.wait(pause)
        finally:
            journal.close()

    def _hand_over(self, later: Callable[[Callable[[], None]], None], task: Callable[[], None]) -> None:
        def run() -> None:
            try:
                task()
            finally:
                self._taken += 1

        self._handed += 1
        later(run)

    def stop(self) -> None:
        self._ended.set()

    @property
    def busy(self) -> bool:
        """An event or a kill waits for entries of the journal."""
        return bool(self._listening or self._kills or self._user_kills.under_way)

    # -- the worker's ------------------------------------------------------------------------------

    def settled(self, capture: OomCapture, event: OomEvent) -> tuple[OomCapture, OomEvent]:
        """The same, with what the cgroup at its limit is charged now."""
        path = event.memcg.oom_path if event.memcg is not None and event.constraint == "memcg" else None
        charge = charge_of(self._hierarchy, path) if self._hierarchy is not None and path else None
        if charge is None or event.aftermath is None:
            return capture, event
        aftermath = msgspec.structs.replace(event.aftermath, cgroup=charge)
        return (
            msgspec.structs.replace(capture, charge_after=charge),
            msgspec.structs.replace(event, aftermath=aftermath),
        )

    def listen(self, capture: OomCapture, event: OomEvent) -> None:
        """Follow the units of a settled event, which is stored already."""
        units = frozenset(
            sorted({a.unit for a in event.attribution if a.unit and _is_managers(a)})[:MOST_UNITS]
        )
        since = _since(capture)
        if not self.listens or not units or since is None or event.kind != "oom_kill":
            return
        waiting = self._listening[event.id] = _Listening(capture, units, since)
        for entry in self._recent:
            waiting.take(entry)
        while len(self._listening) > 1 and (
            len(self._listening) > MOST_EVENTS
            or sum(weight(one.capture) for one in self._listening.values()) > MOST_BYTES
        ):
            self._end(next(iter(self._listening)))
        self.tick()

    def take(self, entries: list[Said], drained: bool = True) -> None:
        """What the journal said, in its order; until it is drained, it is as late as its last entry."""
        for entry in entries:
            if isinstance(entry, OomdLine):
                self._line(entry)
                continue
            if isinstance(entry, KillerLine):
                record = _record(entry)
                self._issue_user_kill(entry.program, self._user_kills.feed(entry.program, record))
                continue
            self._recent.append(entry)
            for waiting in self._listening.values():
                waiting.take(entry)
            if entry.step == "oomd_kill":
                self._keep_result(entry)
        self.tick(None if drained else entries[-1].usec)

    def tick(self, now: int | None = None) -> None:
        """Store what changed, end what is over; ``now`` is CLOCK_MONOTONIC in microseconds."""
        now = self._clock() if now is None else now
        for event_id, waiting in list(self._listening.items()):
            if now >= waiting.until or not self.listens:
                self._end(event_id)
            # each time is a write to the disk, which the next kill waits for: one a second, of all together
            elif waiting.changed and now >= waiting.stored + STORE_USEC * len(self._listening):
                waiting.stored = now
                self._again(waiting)
        for kill in list(self._kills):
            if kill.revision < 0 and now >= kill.usec + HOLD_USEC:
                self._issue(kill)
            if now >= kill.usec + PAIR_USEC:
                self._kills.remove(kill)

        for program, last in self._user_kills.under_way:
            if now >= (last.usec or 0) + HOLD_USEC:
                self._issue_user_kill(program, self._user_kills.end(program))

    def _again(self, waiting: _Listening) -> None:
        waiting.changed = False
        waiting.capture = msgspec.structs.replace(waiting.capture, revision=waiting.capture.revision + 1)
        self._serve(waiting.capture)

    def _end(self, event_id: str) -> None:
        waiting = self._listening.pop(event_id)
        heard = max(0, min(self._clock(), waiting.until) - waiting.since)
        waiting.capture = msgspec.structs.replace(waiting.capture, unit_watch_seconds=round(heard / 1e6, 3))
        self._again(waiting)

    # -- systemd-oomd ------------------------------------------------------------------------------

    def _line(self, line: OomdLine) -> None:
        path = oomd.killed_cgroup(line.text)
        owner = owner_of(path) if path is not None else None
        kill = self._of(owner.unit if owner else None, line.usec, lambda one: one.line is None)
        kill.line = line
        self._changed(kill)

    def _keep_result(self, entry: UnitEntry) -> None:
        kill = self._of(entry.unit, entry.usec, lambda one: one.result is None)
        kill.result = entry
        self._changed(kill)

    def _of(self, unit: str | None, usec: int, lacks: Callable[[_Kill], bool]) -> _Kill:
        """The kill that an entry belongs to."""
        for kill in self._kills:
            if unit is not None and kill.unit == unit and abs(usec - kill.usec) < PAIR_USEC and lacks(kill):
                return kill
        kill = _Kill(unit, usec)
        self._kills.append(kill)
        if len(self._kills) > MOST_KILLS:
            first = self._kills.pop(0)
            if first.revision < 0:
                self._issue(first)
        return kill

    def _changed(self, kill: _Kill) -> None:
        if kill.revision >= 0 or (kill.line is not None and kill.result is not None):
            self._issue(kill)

    def _issue(self, kill: _Kill) -> None:
        entries = [entry for entry in (kill.line, kill.result) if entry is not None]
        kill.revision += 1
        self._issue_of("oomd", [_record(entry) for entry in entries], kill.revision)

    def _issue_user_kill(self, program: str, records: list[KmsgRecord]) -> None:
        if records:
            self._issue_of("earlyoom" if program == "earlyoom" else "nohang", records, 0)

    def _issue_of(self, form: SourceForm, records: list[KmsgRecord], revision: int) -> None:
        usec, wall = records[0].usec or 0, records[0].wall or 0.0
        self._serve(
            OomCapture(
                source=Source(kind="journal", form=form, boot_id=self._boot_id),
                records=tuple(records),
                revision=revision,
                settled=True,
                historical=usec < self._began,
                wall_offset=wall - usec / 1e6,
                detected=time.time() if usec >= self._began else None,
            )
        )


def _record(entry: Said) -> KmsgRecord:
    return KmsgRecord(
        text=entry.text, usec=entry.usec, wall=entry.wall, raw=entry.text.encode("utf-8", "replace")
    )


def _is_managers(whose: Attribution) -> bool:
    """A unit of process 1's: below a user's manager the names are that manager's."""
    return whose.role == "victim" and (whose.user_uid is None or whose.session is not None)


def _since(capture: OomCapture) -> int | None:
    """When the first record was printed, on CLOCK_MONOTONIC."""
    first = next((record.usec for record in capture.records if record.usec is not None), None)
    if capture.at is None or capture.wall_offset is None or first is None:
        return None
    ago = capture.at.wall - (capture.wall_offset + first / 1e6)
    # if the clock was set in between, its wall time says nothing
    return capture.at.usec - max(0, min(int(ago * 1e6), 10_000_000)) - _SLACK_USEC
