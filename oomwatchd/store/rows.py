"""What is stored of an event: its row, what a later capture adds, how much is kept."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from oomwatchd.diagnosis.attribution import Names, names_of, place_of
from oomwatchd.errors import EX_UNAVAILABLE, EX_USAGE, OomwatchdError
from oomwatchd.event import OomEvent
from oomwatchd.records.capture import OomCapture
from oomwatchd.records.merge import merge

Outcome = Literal["new", "updated", "known"]

#: ``count(event, reports, kills, undecoded)`` is called once for each put that is not "known", with the
#: number of reports (a new event is one, and each repeat is one), kill lines and undecoded lines that the put
#: added to the store. It returns the counters to save, NaN for one to forget.
Count = Callable[[OomEvent, int, int, int], Mapping[str, float]]

#: what a store without a file may hold
MEMORY_BYTES = 8 << 20


class StoreError(OomwatchdError):
    """The store cannot be opened or read."""

    exit_status = EX_UNAVAILABLE


class AmbiguousIdError(StoreError):
    """The beginning of an id that several events have."""

    exit_status = EX_USAGE


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept; the oldest is deleted first. ``max_bytes`` counts what the file uses (blobs, rows and
    indexes), ``max_age_seconds`` is by wall clock; None is no limit."""

    max_events: int | None = 10_000
    max_bytes: int | None = 64 << 20
    max_age_seconds: float | None = None

    def in_memory(self) -> Limits:
        """The limits of a store without a file: the daemon's memory is limited."""
        return msgspec.structs.replace(self, max_bytes=min(self.max_bytes or MEMORY_BYTES, MEMORY_BYTES))


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One stored event as found by ``Store.list``; ``wall`` is seconds since the epoch, ``summary`` and the
    container's names None where an older oomwatchd stored it."""

    number: int
    id: str
    boot_id: str | None
    first_seq: int | None
    last_seq: int | None
    revision: int
    settled: bool
    historical: bool
    wall: float
    kind: str
    constraint: str | None
    kills: int
    victim_pid: int | None
    victim_comm: str | None
    cgroup: str | None
    unit: str | None
    summary: str | None
    #: names of the victim's container, pod and namespace, and the container's id
    container: str | None = None
    pod: str | None = None
    namespace: str | None = None
    container_id: str | None = None
    #: the machine whose log is followed, None for this one
    host: str | None = None

    @property
    def place(self) -> str | None:
        """Where the victim lived: its container, else its unit, else its cgroup; before it the host where
        that is another one."""
        names = Names(self.container, self.pod, self.namespace)
        place = place_of(names, container_id=self.container_id) or self.unit or self.cgroup
        return place if self.host is None else f"{self.host}: {place}" if place else self.host


#: the columns of table ``event`` that are written, each with the value it has after a later revision: the new
#: one, the old one, the greater one, or the new one if there is one
COLUMNS: Mapping[str, Literal["new", "old", "greater", "known"]] = {
    "id": "old",
    "boot_id": "old",
    "first_seq": "old",
    "last_seq": "new",
    "revision": "new",
    "settled": "new",
    "historical": "old",
    "wall": "old",
    "kind": "new",
    "constraint_name": "new",
    "kills": "greater",
    "undecoded": "greater",
    "victim_pid": "new",
    "victim_comm": "new",
    "cgroup": "known",
    "unit": "known",
    "capture": "new",
    "first_usec": "old",
    "summary": "new",
    "container": "known",
    "pod": "known",
    "namespace": "known",
    "container_id": "known",
    "host": "old",
}
#: fields of EventRow whose column has another name
_NAMES = {"constraint": "constraint_name"}
SHOWN = tuple(_NAMES.get(name, name) for name in EventRow.__struct_fields__)


def values_of(capture: OomCapture, event: OomEvent, now: float) -> tuple[Any, ...]:
    """The values of COLUMNS; ``event`` is the one concluded from ``capture``, ``now`` (seconds since the
    epoch) stands for a time that is not known."""
    victim = event.victims[0] if event.victims else None
    whose = next((a for a in event.attribution if victim and a.pid == victim.pid), None)
    # the kernel's line goes first: for an exiting process /proc may have said "/"
    paths = (
        event.memcg and event.memcg.task_path,
        whose and whose.cgroup,
        event.memcg and event.memcg.oom_path,
        event.oomd and event.oomd.cgroup,
    )
    wall = capture.detected
    if capture.wall_offset is not None and capture.records and capture.records[0].usec is not None:
        wall = capture.wall_offset + capture.records[0].usec / 1e6
    called = names_of(whose)
    about = event.oomd or event.near
    values = {
        "id": event.id,
        "boot_id": capture.source.boot_id,
        "first_seq": capture.first_seq,
        "last_seq": capture.last_seq,
        "revision": capture.revision,
        "settled": capture.settled,
        "historical": capture.historical,
        "wall": now if wall is None else wall,
        "kind": event.kind,
        "constraint_name": event.constraint,
        "kills": event.kills,
        "undecoded": len(event.undecoded),
        "victim_pid": victim.pid if victim else None,
        "victim_comm": victim.comm if victim else None,
        "cgroup": next((path for path in paths if path), None),
        "unit": whose.unit if whose else about.unit if about else None,
        "capture": zlib.compress(msgspec.msgpack.encode(capture)),
        "first_usec": first_usec(capture),
        "summary": event.summary,
        "container": called.container,
        "pod": called.pod,
        "namespace": called.namespace,
        "container_id": whose.container_id if whose else about.container_id if about else None,
        "host": event.host.name if event.host else None,
    }
    return tuple(values[name] for name in COLUMNS)


def first_usec(capture: OomCapture) -> int | None:
    """The log clock's stamp of the first record."""
    return capture.records[0].usec if capture.records else None


def decoded(event_id: str, blob: bytes) -> OomCapture:
    """A stored capture. Raises StoreError if it is damaged."""
    try:
        return msgspec.msgpack.decode(zlib.decompress(blob), type=OomCapture)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise StoreError(f"the stored capture of event {event_id!r} is damaged: {error}") from error


class Known(msgspec.Struct, frozen=True):
    """What is already stored of an event; ``capture`` is None where that is damaged."""

    capture: OomCapture | None
    kills: int
    undecoded: int
    #: one of the two captures was read from the journal and the other from the ring buffer
    other_source: bool = False

    def covers(self, capture: OomCapture) -> bool:
        """Whether a capture of the same report adds nothing. Each process counts revisions from 0, so the
        contents are compared first."""
        if self.capture is None:
            return False
        return _extent(capture) <= _extent(self.capture)

    def completes(self, capture: OomCapture) -> OomCapture:
        """The capture, completed with what is stored of the same report."""
        if self.capture is None or self.other_source or self.covers(capture):
            return capture
        return merge(capture, self.capture)


def _extent(capture: OomCapture) -> tuple[int, int, bool, int]:
    last = -1 if capture.last_seq is None else capture.last_seq
    return last, len(capture.records), capture.settled, capture.revision


class Tally:
    """Calls ``count`` once, however often storing is tried, and remembers what it returned."""

    def __init__(self, count: Count | None, event: OomEvent, boot_id: str | None = None) -> None:
        self._count = count
        #: the boot to which the counters belong, if the event names none
        self.boot_id = boot_id
        self._event = event
        self._counters: Mapping[str, float] | None = None
        #: whether the store took it, and by how many kill lines the event grew
        self.grown = False
        self.kills = 0

    def __call__(self, reports: int, kills: int, undecoded: int) -> Mapping[str, float]:
        """The counters to save."""
        self.grown = True
        if self._counters is None:
            self.kills = kills
            grown = (reports, kills, undecoded)
            self._counters = {} if self._count is None else self._count(self._event, *grown)
        return self._counters
