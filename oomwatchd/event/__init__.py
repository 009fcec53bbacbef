"""OomCapture -> OomEvent: one JSON object per OOM invocation, the contract of docs/event.md.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeVar

import msgspec

from oomwatchd.diagnosis import oomd, user_killers
from oomwatchd.diagnosis.attribution import Attribution, attribute
from oomwatchd.diagnosis.findings import Case, Diagnosis, diagnose, diagnose_case, memory_nearly_exhausted
from oomwatchd.diagnosis.oomd import OomdKill
from oomwatchd.diagnosis.user_killers import UserKill
from oomwatchd.event.aftermath import Aftermath, aftermath
from oomwatchd.event.bare import bare_report, bare_summary
from oomwatchd.event.identity import event_id
from oomwatchd.records.capture import Mark, OomCapture, RowsLeftOut, Track, Unseen, Via
from oomwatchd.records.near import Near
from oomwatchd.records.nearing import Nearing, Warned
from oomwatchd.records.report import (
    Allocation,
    Constraint,
    Finding,
    Kind,
    Memcg,
    Memory,
    OomReport,
    Part,
    SlabCache,
    Task,
    TasksLeftOut,
    Trigger,
    Victim,
)
from oomwatchd.reports.decode import decode
from oomwatchd.reports.quoted import standing
from oomwatchd.words.escape import harmless

SCHEMA = "oomwatchd.event.v1"

#: ``test``: nothing has happened, ``oomwatchd notify-test`` made it
EventKind = Literal[Kind, "test"]


class EventSource(Part, frozen=True, kw_only=True):
    kind: str
    form: str
    boot_id: str | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    name: str | None = None


class EventHost(Part, frozen=True, kw_only=True):
    """The other machine that the event is about, whose log is followed here."""

    name: str
    via: Via
    address: str | None = None
    #: whether that machine's kernel certainly wrote it: never, over a serial line or a network
    trusted: bool = False
    #: lines of the report that lost bytes on a serial line and got the letters of their wording back
    mended_lines: int = 0


class EventTime(Part, frozen=True, kw_only=True):
    #: the log clock of the first record, seconds since boot
    kernel_seconds: float | None = None
    #: RFC 3339 with zone
    wall: str | None = None
    #: of the last report that ``repeats`` counts
    last_kernel_seconds: float | None = None
    last_wall: str | None = None
    detected: str | None = None
    detection_latency_seconds: float | None = None


class OomEvent(Part, frozen=True, kw_only=True):
    """The whole event; see docs/event.md for the meaning of each field."""

    schema: str = SCHEMA
    id: str
    kind: EventKind
    #: who and why in one line
    summary: str
    complete: bool
    missing: tuple[str, ...]
    lost_records: int
    #: revision of this id: 0 when first issued; later ones have more kills or repeats
    revision: int = 0
    #: how many more reports without a victim, of the same trigger and cgroup, this event stands for
    repeats: int = 0
    historical: bool = False
    source: EventSource
    #: another machine, whose log is followed from here; None: this one, or a text that was analyzed
    host: EventHost | None = None
    time: EventTime
    kernel: str | None
    arch: str | None
    page_size_bytes: int | None
    trigger: Trigger
    constraint: Constraint | None
    constraint_basis: str | None = None
    memcg: Memcg | None
    memory: Memory | None
    tasks: tuple[Task, ...]
    slab: tuple[SlabCache, ...]
    allocations: tuple[Allocation, ...]
    kills: int
    victims: tuple[Victim, ...]
    chosen_pid: int | None = None
    chosen_comm: str | None = None
    outcome: str | None = None
    suppressed_headers: int | None = None
    findings: tuple[Finding, ...] = ()
    snapshots: dict[str, object] | None = None
    #: who held how much memory in the minutes before, live only
    tracks: tuple[Track, ...] = ()
    #: memory and swap that came or went in the minutes before, live only
    marks: tuple[Mark, ...] = ()
    attribution: tuple[Attribution, ...] = ()
    undecoded: tuple[str, ...] = ()
    #: for a text: why this may not be a real report, in words; None: no doubt
    doubt: str | None = None
    #: kills that the kernel counted and its log did not report; such an event has no ``kills`` of its own
    unseen: Unseen | None = None
    #: memory, victims and units after the report, live only
    aftermath: Aftermath | None = None
    #: the smallest of the listed tasks, where the kernel listed more than are kept
    tasks_left_out: TasksLeftOut | None = None
    #: kind ``oomd_kill`` only: the kernel killed nobody
    oomd: OomdKill | None = None
    #: kind ``user_kill`` only: the kernel killed nobody
    user_kill: UserKill | None = None
    #: kind ``oom_near`` only: nobody was killed yet
    near: Near | None = None
    #: the warning that came before this kill, live only
    warned: Warned | None = None


def rfc3339(seconds: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC, to the millisecond."""
    if seconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Conclusion(NamedTuple):
    """An event, and what failed while it was made: ``error`` is None, or the first fault."""

    event: OomEvent
    error: Exception | None = None


def conclude(capture: OomCapture) -> Conclusion:
    """Decode, diagnose and attribute one capture.

    Never raises: a fault of ours loses only the part of the explanation in which it happened, not the event.
    The caller decides where to report ``error``.
    """
    return conclude_case(capture)[0]


def conclude_case(capture: OomCapture) -> tuple[Conclusion, Case | None]:
    """The same, and the case of a kernel report with all that was computed of it, for who prints it."""
    case: Case | None = None
    attempt = _Attempt()
    if capture.source.form in ("earlyoom", "nohang"):
        event = attempt(lambda: _user_kill_event(capture), lambda: _bare(capture))
    elif capture.source.form == "oomd":
        event = attempt(lambda: _oomd_event(capture), lambda: _bare(capture))
    elif capture.nearing is not None:
        warning = capture.nearing
        event = attempt(lambda: _near_event(capture, warning), lambda: _bare(capture))
    else:
        event, case = _kernel_event(capture, attempt)
    if event.host is not None:
        event = msgspec.structs.replace(event, summary=f"{harmless(event.host.name)}: {event.summary}")
    if attempt.error is not None:
        words = f"{event.summary}; not all of it could be explained ({type(attempt.error).__name__})"
        event = msgspec.structs.replace(event, summary=words)
    return Conclusion(event, attempt.error), case


def unexplained(error: Exception) -> str:
    """For a log or a terminal: what an event's ``error`` means."""
    return f"not all of the report could be explained: {type(error).__name__}: {error} (a fault of oomwatchd)"


_T = TypeVar("_T")


class _Attempt:
    """Runs the parts of an explanation; the first that fails is remembered."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __call__(self, part: Callable[[], _T], otherwise: Callable[[], _T]) -> _T:
        try:
            return part()
        except Exception as error:
            self.error = self.error or error
            return otherwise()


def _kernel_event(capture: OomCapture, attempt: _Attempt) -> tuple[OomEvent, Case]:
    report = attempt(lambda: _report(capture), lambda: bare_report(capture))
    diagnosis = Diagnosis(findings=(), summary=bare_summary(report))
    case = Case(report, capture)
    if attempt.error is None:  # else findings would take unread parts for missing ones
        diagnosis = attempt(lambda: diagnose_case(case), lambda: diagnosis)
    event = msgspec.structs.replace(
        _event_of(capture, report, diagnosis.summary),
        findings=diagnosis.findings,
        snapshots=attempt(lambda: _snapshots(capture), lambda: None),
        attribution=attempt(
            lambda: attribute(
                report, capture.processes, dict(capture.container_names), capture.names_obstacle
            ),
            tuple,
        ),
        aftermath=attempt(lambda: aftermath(capture), lambda: None),
    )
    return event, case


def _report(capture: OomCapture) -> OomReport:
    report = decode(
        capture.records,
        lost_records=capture.lost_records,
        page_size_bytes=capture.page_size_bytes,
        kernel=capture.kernel,
        arch=capture.arch,
    )
    if capture.unseen is not None:
        report = msgspec.structs.replace(report, kind="oom_kill")
    if capture.left_out is not None:
        report = msgspec.structs.replace(
            report,
            complete=False,
            missing=tuple(dict.fromkeys((*report.missing, "tasks"))),
            tasks_left_out=_left_out(capture.left_out, report.page_size_bytes),
        )
    return report


def _left_out(rows: RowsLeftOut, page_size: int | None) -> TasksLeftOut:
    return TasksLeftOut(
        count=rows.rows,
        rss_bytes=None if page_size is None else rows.rss_pages * page_size,
        swap_bytes=None if page_size is None else rows.swap_pages * page_size,
        pgtables_bytes=rows.page_tables_bytes,
    )


def _event_of(capture: OomCapture, report: OomReport, summary: str) -> OomEvent:
    """The event with only what report and capture say themselves, without conclusions."""
    wall = report.first_wall
    if capture.wall_offset is not None and report.first_usec is not None:
        wall = report.first_usec / 1e6 + capture.wall_offset
    if capture.unseen is not None:
        wall = capture.detected
    return OomEvent(
        id=event_id(capture),
        kind=report.kind,
        summary=summary,
        complete=report.complete,
        missing=report.missing,
        lost_records=report.lost_records,
        revision=capture.revision,
        repeats=capture.repeats,
        historical=capture.historical,
        source=EventSource(
            kind=capture.source.kind,
            form=capture.source.form,
            boot_id=capture.source.boot_id,
            first_seq=capture.first_seq,
            last_seq=capture.last_seq,
            name=capture.source.name,
        ),
        host=_host(capture),
        time=EventTime(
            kernel_seconds=None if report.first_usec is None else report.first_usec / 1e6,
            wall=rfc3339(wall),
            last_kernel_seconds=None if capture.last_usec is None else capture.last_usec / 1e6,
            last_wall=rfc3339(_last_wall(capture)),
            detected=rfc3339(capture.detected),
            detection_latency_seconds=capture.detection_latency_seconds,
        ),
        kernel=report.kernel,
        arch=report.arch,
        page_size_bytes=report.page_size_bytes,
        trigger=report.trigger,
        constraint=report.constraint,
        constraint_basis=report.constraint_basis,
        memcg=report.memcg,
        memory=report.memory,
        tasks=report.tasks,
        tasks_left_out=report.tasks_left_out,
        slab=report.slab,
        allocations=report.allocations,
        kills=report.kills,
        victims=report.victims,
        chosen_pid=report.chosen_pid,
        chosen_comm=report.chosen_comm,
        outcome=report.outcome,
        suppressed_headers=report.suppressed_headers,
        tracks=capture.tracks,
        marks=capture.marks,
        undecoded=report.undecoded,
        doubt=_doubt(capture),
        unseen=capture.unseen,
        warned=capture.warned,
    )


def _host(capture: OomCapture) -> EventHost | None:
    followed = capture.source.followed
    if followed is None:
        return None
    return EventHost(
        name=followed.name,
        via=followed.via,
        address=followed.address,
        mended_lines=followed.mended_lines,
    )


def _oomd_event(capture: OomCapture) -> OomEvent:
    """The event of a kill by systemd-oomd, from its journal entries: the kernel neither reports nor counts
    it."""
    kill = oomd.read(capture.records)
    report = OomReport(
        kind="oomd_kill",
        complete=kill.cgroup is not None,
        missing=() if kill.cgroup is not None else ("oomd",),
        first_usec=capture.records[0].usec,
        first_wall=capture.records[0].wall,
        kernel=capture.kernel,
        arch=capture.arch,
        page_size_bytes=capture.page_size_bytes,
    )
    event = _event_of(capture, report, oomd.summarize(kill))
    return msgspec.structs.replace(event, findings=diagnose(report, capture).findings, oomd=kill)


def _user_kill_event(capture: OomCapture) -> OomEvent:
    """The event of a kill by earlyoom or nohang, from their own lines: the kernel does not report it."""
    kill = user_killers.read(capture.source.form, capture.records)
    report = OomReport(
        kind="user_kill",
        complete=kill.pid is not None,
        missing=() if kill.pid is not None else ("victim",),
        first_usec=capture.records[0].usec,
        first_wall=capture.records[0].wall,
    )
    return msgspec.structs.replace(_event_of(capture, report, user_killers.summarize(kill)), user_kill=kill)


def _near_event(capture: OomCapture, warning: Nearing) -> OomEvent:
    """The event of a warning: there is no kernel report, and nothing was killed yet."""
    from oomwatchd.diagnosis import nearing  # a daemon that gives no warnings does without

    report = nearing.report_of(capture, warning)
    near = nearing.near_of(capture, warning, rfc3339(warning.ended_wall))
    found = memory_nearly_exhausted.find(Case(report, capture))
    return msgspec.structs.replace(
        _event_of(capture, report, nearing.summarize(near, report.tasks)),
        findings=() if found is None else (found,),
        snapshots=_snapshots(capture),
        near=near,
    )


def _bare(capture: OomCapture) -> OomEvent:
    report = bare_report(capture)
    return _event_of(capture, report, bare_summary(report))


_OTHER_KILLERS = ("oomd", "earlyoom", "nohang")
_DOUBTS = {
    "unstamped": "without a time and without any other line of a report: it may be a sample, not a log",
    "told": "between sentences and without any other line of a report: it may be a sample, not a log",
}


def _doubt(capture: OomCapture) -> str | None:
    if capture.source.kind != "file" or capture.source.form in _OTHER_KILLERS:
        return None
    return _DOUBTS.get(standing(capture.records))


def _last_wall(capture: OomCapture) -> float | None:
    if capture.wall_offset is not None and capture.last_usec is not None:
        return capture.wall_offset + capture.last_usec / 1e6
    return capture.last_wall


def _snapshots(capture: OomCapture) -> dict[str, object] | None:
    """The host's files around the report as the kernel printed them, live only."""
    moments: dict[str, object] = {}
    if capture.before:
        moments["before"] = [msgspec.to_builtins(snapshot) for snapshot in capture.before]
    if capture.at:
        moments["at"] = msgspec.to_builtins(capture.at)
    if capture.after:
        moments["after"] = msgspec.to_builtins(capture.after)
    return moments or None
