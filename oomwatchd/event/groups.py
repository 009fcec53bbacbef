"""Events that say the same of the same: a crash loop is one group, however often it goes round.

Two events belong together when they are of the same kind and limit, in the same place (container by its
name, else cgroup), killed a process of the same name for the same reason, and no more than six hours lie
between one and the next. A container that is started again under the same name, or in the same pod, is the
same place.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from oomwatchd.diagnosis.attribution import owner_of

#: between one event of a group and the next
GAP_SECONDS = 6 * 3600.0
#: an id that a runtime or the service manager draws anew for each start
_DRAWN = re.compile(r"[0-9a-f]{32,}|(?<=container )[0-9a-f]{12}\b")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Row(Protocol):
    """What is asked of an event; ``wall`` in seconds since the epoch."""

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
    def place(self) -> str | None: ...
    @property
    def summary(self) -> str | None: ...


R = TypeVar("R", bound=Row)


class Group(Generic[R]):
    """Events that say the same, the newest first; never empty."""

    def __init__(self, newest: R) -> None:
        self.rows = [newest]

    @property
    def newest(self) -> R:
        """The one that speaks for all."""
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
        """Of all of them."""
        return sum(row.kills for row in self.rows)


def key_of(row: Row) -> tuple[str | None, ...]:
    """Equal for events that say the same of the same: kind, limit, place, name and reason. The reason's
    figures and the ids of containers do not count."""
    if row.container is not None:
        place = row.place
    elif row.cgroup is not None:
        # started again in the same pod it has another id
        place = _DRAWN.sub("#", row.cgroup) if owner_of(row.cgroup).pod_uid is not None else row.cgroup
    else:
        place = row.unit
    reason = _NUMBER.sub("#", _DRAWN.sub("#", row.summary or ""))
    return (row.kind, row.constraint, place, row.victim_comm, reason)


def grouped(rows: Iterable[R], most: int) -> tuple[Sequence[Group[R]], bool]:
    """The first ``most`` groups of ``rows`` (newest first), and whether there was no room for another. Then
    it ends before the row that would begin it; what follows may hold more of the same."""
    groups: list[Group[R]] = []
    open_groups: dict[tuple[str | None, ...], Group[R]] = {}
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
