"""Group events that repeat: a crash loop is one group, however often it repeats.

Two events belong together when they are of the same kind and limit, in the same place (container by its
name, else cgroup), killed a process of the same name for the same reason, and no more than six hours lie
between one and the next. A container that is started again under the same name, or in the same pod, is the
same place.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.diagnosis.owners import home_of
from oomwatchd.event import OomEvent
from oomwatchd.words.deferred import deferred

#: between one event of a group and the next
GAP_SECONDS = 6 * 3600.0
#: a random id that a runtime or the service manager makes for each start
_DRAWN = deferred(r"[0-9a-f]{32,}|(?<=container )[0-9a-f]{12}\b")
_NUMBER = deferred(r"\d+(?:\.\d+)?")


class Row(Protocol):
    """The fields of an event that are needed here; ``wall`` in seconds since the epoch."""

    @property
    def wall(self) -> float: ...
    @property
    def kind(self) -> str: ...
    @property
    def constraint(self) -> str | None: ...
    @property
    def kills(self) -> int: ...
    @property
    def victim_comm(self) -> str | None: ...
    @property
    def cgroup(self) -> str | None: ...
    @property
    def unit(self) -> str | None: ...
    @property
    def container(self) -> str | None: ...
    @property
    def host(self) -> str | None: ...
    @property
    def place(self) -> str | None: ...
    @property
    def summary(self) -> str | None: ...


R = TypeVar("R", bound=Row)


class Group(Generic[R]):
    """Events that belong together, newest first; never empty."""

    def __init__(self, newest: R) -> None:
        self.rows = [newest]

    @property
    def newest(self) -> R:
        """The newest event, which stands for all."""
        return self.rows[0]

    @property
    def first(self) -> float:
        """When the oldest happened."""
        return self.rows[-1].wall

    @property
    def last(self) -> float:
        """When the newest happened."""
        return self.rows[0].wall

    @property
    def kills(self) -> int:
        """The kills of all events."""
        return sum(row.kills for row in self.rows)


Key = tuple[str | None, ...]


def key_of(row: Row) -> Key:
    """The group's key, equal for events that belong together: kind, limit, place, name and reason. Figures in
    the reason and ids of containers are ignored."""
    place = row.place if row.container is not None else _kept(row.cgroup) or row.unit
    return (row.host, row.kind, row.constraint, place, row.victim_comm, _reason(row.summary))


def key_of_event(event: OomEvent) -> Key:
    """The same key for a whole event."""
    victim = event.victims[0] if event.victims else None
    whose = next((a for a in event.attribution if victim and a.pid == victim.pid), None)
    if whose is not None and whose.container_name is not None:
        place = home_of(whose)
    else:
        paths = (
            whose and whose.cgroup,
            event.memcg and event.memcg.oom_path,
            event.oomd and event.oomd.cgroup,
        )
        place = _kept(next((path for path in paths if path), None)) or (whose.unit if whose else None)
    host = event.host.name if event.host is not None else None
    return (
        host,
        event.kind,
        event.constraint,
        place,
        victim.comm if victim else None,
        _reason(event.summary),
    )


def _kept(cgroup: str | None) -> str | None:
    """The path without the id of a container in a pod: after a restart in the pod it has another one."""
    return _DRAWN.sub("#", cgroup) if cgroup and owner_of(cgroup).pod_uid is not None else cgroup


def _reason(summary: str | None) -> str:
    return _NUMBER.sub("#", _DRAWN.sub("#", summary or ""))


def grouped(rows: Iterable[R], most: int) -> tuple[Sequence[Group[R]], bool]:
    """The first ``most`` groups of ``rows`` (newest first), and whether there was no room for another group.
    Then it stops before the row that would begin that group; later rows may belong to the groups returned."""
    groups: list[Group[R]] = []
    open_groups: dict[Key, Group[R]] = {}
    for row in rows:
        key = key_of(row)
        group = open_groups.get(key)
        if group is not None and group.first - row.wall <= GAP_SECONDS:
            group.rows.append(row)
            continue
        if len(groups) == most:
            return groups, True
        group = open_groups[key] = Group(row)
        groups.append(group)
    return groups, False
