"""What cannot be read a second time: the records of a report and the state of the host around it.

A capture is what the store keeps. Report, findings and event are derived from it on reading, so an
old capture gains every improvement of the decoder.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.nearing import Nearing, Warned

#: ``recorder``: nothing was logged, the host's own figures say it
SourceKind = Literal["kmsg", "journal", "file", "recorder"]
SourceForm = Literal[
    "kmsg",
    "dmesg",
    "dmesg-T",
    "journal",
    "journal-json",
    "syslog",
    "console",
    "oomd",
    "earlyoom",
    "nohang",
    "near",
    "other",
]


#: how the log of another machine comes (``oomwatchd follow``)
Via = Literal["serial", "file", "pipe", "command", "netconsole", "syslog"]


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """Another machine, whose log is followed: ``name`` is what it is called here, ``address`` where its
    datagrams or connections come from, None where it has none. Nothing proves that its kernel wrote it.

    ``mended_lines``: lines of the report that lost bytes on a serial line and were put right.
    """

    name: str
    via: Via
    address: str | None = None
    mended_lines: int = 0


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the records came from. ``name`` is a file's name for people, None live; ``followed`` the machine
    that they are of, None for this host and for a text that is analyzed."""

    kind: SourceKind
    form: SourceForm
    boot_id: str | None = None
    name: str | None = None
    followed: Followed | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The host's own files at one moment, as text that nobody parsed yet: ``meminfo``, ``zoneinfo``,
    ``buddyinfo``, ``vmstat``, ``pressure_memory`` ... The flight recorder's (``before``) are abridged to
    the lines that it follows, one blank between words.

    ``usec`` is CLOCK_MONOTONIC in microseconds, ``wall`` seconds since the epoch. A file that could
    not be read is absent from ``parts``.
    """

    usec: int
    wall: float
    parts: dict[str, str] = {}


class ProcessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What /proc said of one process before it was gone. ``learnt`` says how: ``proc`` (read at
    once), ``recorder`` (from the flight recorder's cache), ``events`` (which cgroup's counter grew).

    ``container_name`` is what its runtime's own files call its container. ``alive_after``: whether that same
    process was still there when the report had settled, and ``state_after`` its state then (proc(5): "D" is
    uninterruptible sleep, "Z" a zombie); None where it could not be read.
    """

    pid: int
    comm: str | None = None
    cgroup: str | None = None
    executable: str | None = None
    command_line: str | None = None
    parent_pid: int | None = None
    start_usec: int | None = None
    learnt: str = "proc"
    container_name: str | None = None
    alive_after: bool | None = None
    state_after: str | None = None


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """How much memory one holder had in the minutes before: a process (``pid``, resident), a cgroup
    (what it is charged) or a tmpfs mount (its files).

    ``name`` is the process's name, the cgroup's path or the mount point; ``points`` are (CLOCK_MONOTONIC in
    microseconds, bytes), the oldest first; ``limit_bytes`` is the cgroup's own limit.
    """

    kind: Literal["process", "cgroup", "tmpfs"]
    name: str
    pid: int | None = None
    cgroup: str | None = None
    limit_bytes: int | None = None
    points: tuple[tuple[int, int], ...] = ()


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the machine's memory: a memory block or a swap area was added or removed, or MemTotal
    changed. ``name`` is the device's usual name; amounts are None where unknown."""

    usec: int
    wall: float
    kind: Literal[
        "memory_online",
        "memory_offline",
        "swap_on",
        "swap_off",
        "device_added",
        "device_removed",
        "mem_total",
    ]
    name: str
    before_bytes: int | None = None
    after_bytes: int | None = None


class EarlierKill(msgspec.Struct, frozen=True, kw_only=True):
    """A kill that this daemon saw before this report: ``usec`` is the kernel's stamp on the log clock."""

    usec: int
    comm: str
    cgroup: str | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Who requested memory in a later report of the same exhaustion, and by which functions."""

    usec: int
    comm: str
    pid: int | None = None
    call_trace: tuple[str, ...] = ()


class UnitEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What the service manager said of a unit in the journal (systemd.journal-fields(7), sd-messages.h).

    ``usec`` is CLOCK_MONOTONIC in microseconds and ``wall`` seconds since the epoch when journald took it.
    ``step``: ``oom_kill`` (the unit's cgroup counted a kill), ``oomd_kill`` (systemd-oomd killed in it),
    ``exited`` (a process of it), ``failed`` (with ``result``: "oom-kill", "signal" ...),
    ``restart_scheduled`` (``restarts``: how many so far), ``started``, ``start_failed``.
    """

    usec: int
    wall: float
    unit: str
    step: Literal["oom_kill", "oomd_kill", "exited", "failed", "restart_scheduled", "started", "start_failed"]
    text: str
    result: str | None = None
    restarts: int | None = None


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Processes of the report's task table that were in one cgroup just after the kill."""

    cgroup: str
    pids: tuple[int, ...]


class CgroupCharge(msgspec.Struct, frozen=True, kw_only=True):
    """What a cgroup is charged; ``limit_bytes`` None is "no limit"."""

    path: str
    usage_bytes: int
    limit_bytes: int | None = None


class Unseen(msgspec.Struct, frozen=True, kw_only=True):
    """Kills that the kernel counted (``oom_kill`` of /proc/vmstat) and that its log did not report.

    ``kills`` were not in an earlier event; ``kernel_kills`` is by how much the kernel's count grew since
    it last agreed with the log, ``reported_kills`` how many kill lines were read in that time, and
    ``unaccounted_kills`` how many are missing in this boot, those of earlier events included.
    ``lost_records`` were overwritten before they were read, ``dropped_reports`` were dropped because the
    daemon's queue was full.

    ``cgroups`` are those whose own count of kills grew in that time, reported kills included, and by how
    much;
    ``marked`` the processes (pid, name where known) that the trace point oom:mark_victim named and the log
    did not. Both are bounded.
    """

    kills: int
    kernel_kills: int
    reported_kills: int
    unaccounted_kills: int
    lost_records: int = 0
    dropped_reports: int = 0
    cgroups: tuple[tuple[str, int], ...] = ()
    marked: tuple[tuple[int, str | None], ...] = ()


class RowsLeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of those rows of a task table that were not kept, because it was too long: all of them are
    smaller than those that were. Amounts as printed: pages, and bytes of page tables (of 4 KiB a table where
    the kernel counts tables)."""

    rows: int
    rss_pages: int
    swap_pages: int
    page_tables_bytes: int


class OomCapture(msgspec.Struct, frozen=True, kw_only=True):
    """One report with its surroundings. Each record keeps the bytes it was read from (``raw``).

    With ``unseen`` it has no records: it stands for kills that no record reports; with ``nearing`` for a
    warning."""

    source: Source
    records: tuple[KmsgRecord, ...]
    first_seq: int | None = None
    last_seq: int | None = None
    lost_records: int = 0
    revision: int = 0
    settled: bool = False
    #: how many more reports of the same trigger and cgroup, each without a victim, this one stands for,
    #: and the stamp of the last of them: log clock (microseconds) or wall clock (seconds since the epoch)
    repeats: int = 0
    last_usec: int | None = None
    last_wall: float | None = None
    #: rows of its task table that were not kept
    left_out: RowsLeftOut | None = None
    #: it was in the ring buffer before the daemon began to watch
    historical: bool = False
    #: seconds since the epoch minus the log clock, measured at reading; None where unknown
    wall_offset: float | None = None
    #: when the daemon had read the block (seconds since the epoch)
    detected: float | None = None
    #: seconds from the kernel's stamp of the first kill line until the capture was ready to store
    detection_latency_seconds: float | None = None
    #: the host's page size, release and machine; None for text from elsewhere
    page_size_bytes: int | None = None
    kernel: str | None = None
    arch: str | None = None
    before: tuple[Snapshot, ...] = ()
    at: Snapshot | None = None
    after: Snapshot | None = None
    processes: tuple[ProcessFacts, ...] = ()
    #: the largest users of memory, and those that the report is about, over the time of ``before``
    tracks: tuple[Track, ...] = ()
    marks: tuple[Mark, ...] = ()
    #: earlier kills of the last hour, the oldest first, bounded
    earlier: tuple[EarlierKill, ...] = ()
    #: the requests of the reports that followed within seconds, bounded
    later: tuple[Asked, ...] = ()
    #: reports without a header that the log held since the kernel last said how many it had suppressed; None
    #: where this report does not say so again, or that time was not watched whole
    headless_before: int | None = None
    unseen: Unseen | None = None
    #: cgroups with many of the task table's processes, the largest first
    crowds: tuple[Crowd, ...] = ()
    #: container ids with what their runtimes call them, of containers whose processes nobody saw alive
    container_names: tuple[tuple[str, str], ...] = ()
    #: why the name of one of its containers is not known; None where all are, or there is none
    names_obstacle: str | None = None
    #: what the cgroup at its limit was charged when the report had settled; None where it was gone by then
    charge_after: CgroupCharge | None = None
    #: what the service manager said of the victims' units afterwards, the oldest first, bounded
    unit_log: tuple[UnitEntry, ...] = ()
    #: for how long the journal was followed for it; None while it still is, or where there is no journal
    unit_watch_seconds: float | None = None
    #: a warning, which has no records
    nearing: Nearing | None = None
    #: the warning that came before this kill
    warned: Warned | None = None


#: what a record costs besides the text, which is there twice (KmsgRecord.raw)
_RECORD_BYTES = 250


def weight(capture: OomCapture) -> int:
    """About how many bytes of memory a capture holds. It is quick: it looks at the first and the middle
    record only."""
    count = len(capture.records)
    some = [capture.records[at] for at in {0, count // 2} if at < count]
    each = max((len(record.text) + len(record.raw) + _RECORD_BYTES for record in some), default=0)
    snapshots = (*capture.before, *(one for one in (capture.at, capture.after) if one is not None))
    return count * each + sum(len(text) for one in snapshots for text in one.parts.values())
