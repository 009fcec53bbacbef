"""The time before a report, from the flight recorder's samples."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping

import msgspec

from oomwatchd.observe.abridged import PARTS
from oomwatchd.observe.group import Group
from oomwatchd.observe.samples import Sample
from oomwatchd.records.capture import Mark, OomCapture, Snapshot, Track
from oomwatchd.records.kmsg import to_text

#: Tracks in one capture, of each kind, besides those that the report is about.
_SHOWN = {"process": 6, "cgroup": 6, "tmpfs": 3}


class Before(msgspec.Struct, frozen=True, gc=False):
    """What the recorder adds to a capture."""

    samples: tuple[Snapshot, ...] = ()
    tracks: tuple[Track, ...] = ()
    marks: tuple[Mark, ...] = ()

    def added_to(self, capture: OomCapture) -> OomCapture:
        return msgspec.structs.replace(capture, before=self.samples, tracks=self.tracks, marks=self.marks)


class Name(msgspec.Struct, frozen=True, gc=False):
    """Whose amounts a number in a sample identifies."""

    kind: str
    name: str
    pid: int | None = None
    cgroup: str | None = None


class History:
    """What the recorder knew at one moment, not yet formatted; any one thread may do that later. ``limits``
    are those of the largest cgroups by number, ``table`` has the others by path; ``shared`` keeps what was
    formatted last."""

    def __init__(
        self,
        samples: tuple[Sample, ...],
        names: Mapping[int, Name],
        limits: Mapping[int, int | None],
        table: Mapping[str, Group],
        marks: tuple[Mark, ...],
        shared: list[tuple[History, Before]],
    ) -> None:
        self._samples = samples
        self._names = names
        self._limits = limits
        self._table = table
        self._marks = marks
        self._shared = shared

    def before(
        self, pids: Iterable[int] = (), paths: Iterable[str] = (), *, most: int | None = None
    ) -> Before:
        """The newest samples (at most ``most``), the tracks of the largest and of these processes and
        cgroups, and the marks."""
        if not self._shared or self._shared[0][0] is not self:
            self._shared[:] = [(self, self._tell())]
        latest = self._shared[0][1]
        samples = latest.samples if most is None else latest.samples[-most:]
        return Before(samples, _chosen(latest.tracks, set(pids), set(paths)), latest.marks)

    def _tell(self) -> Before:
        points: dict[int, list[tuple[int, int]]] = {}
        for sample in self._samples:
            for packed in (sample.processes, sample.groups, sample.tmpfs):
                pairs = array("q", packed)
                for at in range(0, len(pairs), 2):
                    points.setdefault(pairs[at], []).append((sample.usec, pairs[at + 1]))
        tracks = []
        for number, found in points.items():
            name = self._names.get(number)
            if name is None:
                continue
            tracks.append(
                Track(
                    kind=name.kind,  # type: ignore[arg-type]
                    name=name.name,
                    pid=name.pid,
                    cgroup=name.cgroup,
                    limit_bytes=self._limit(number, name),
                    points=tuple(found),
                )
            )
        tracks.sort(key=lambda track: -track.points[-1][1])
        return Before(tuple(map(_snapshot, self._samples)), tuple(tracks), self._marks)

    def _limit(self, number: int, name: Name) -> int | None:
        if number in self._limits or name.kind != "cgroup":
            return self._limits.get(number)
        group = self._table.get(name.name)
        return group.limit if group is not None else None


def _snapshot(sample: Sample) -> Snapshot:
    parts = {name: to_text(part) for name, part in zip(PARTS, sample.parts, strict=True) if part}
    return Snapshot(usec=sample.usec, wall=sample.wall, parts=parts)


def _chosen(tracks: tuple[Track, ...], pids: set[int], paths: set[str]) -> tuple[Track, ...]:
    """The largest of each kind, and all that the report is about; ``tracks`` come by size."""
    left = dict(_SHOWN)
    chosen = []
    for track in tracks:
        wanted = track.pid in pids if track.kind == "process" else track.name in paths
        if wanted or left[track.kind] > 0:
            left[track.kind] -= not wanted
            chosen.append(track)
    return tuple(chosen)
