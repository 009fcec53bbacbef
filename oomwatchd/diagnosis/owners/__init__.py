"""The managers of cgroups and their limits, one owner a module; every module in this package is loaded.

An owner module has ``find(place)``, which returns an :class:`Owned` for its own cgroups and None for others.
It knows the form of its cgroup paths, the usual name of what is in them, and the setting of their limit. Each
path has one owner: a module does not claim a path that another module knows better. A module with
``LAST = True`` is asked only if no other module answered.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from oomwatchd.diagnosis.attribution import Attribution, Owner, names_of, owner_of, place_of
from oomwatchd.plugs import plugs


class Place(msgspec.Struct, frozen=True):
    """One cgroup: its path, the path's segments, its owner and the owner of its parent. ``name`` is the
    container's name in its runtime's files, if known."""

    path: str
    segments: tuple[str, ...]
    owner: Owner
    above: Owner
    name: str | None = None

    @property
    def last(self) -> str:
        return self.segments[-1] if self.segments else ""

    @property
    def is_container(self) -> bool:
        """Whether the cgroup is the container's own, not one inside it."""
        owner = self.owner
        return owner.container_id is not None and owner.container_id != self.above.container_id


class Limit(NamedTuple):
    """The limit to raise. ``above`` is " above AMOUNT" or empty, ``files`` are the kernel's names for it.
    ``swap``: the limit of memory and swap together must be raised too. ``swap_alone``: only that limit.
    """

    above: str = ""
    files: str = "memory.max"
    swap: bool = False
    swap_alone: bool = False


class Owned(msgspec.Struct, frozen=True):
    """The usual name of a cgroup (with ``kind`` "container", "pod", "Slurm job" ...; for a unit the name is
    enough), and how to raise its limit: ``raise WHAT above HOW MUCH (HOW)``. Without ``how`` the kernel's
    file is named."""

    kind: str
    name: str
    what: str
    how: str = ""
    #: Replaces ``how`` for a limit of memory and swap together; empty: the same as ``how``.
    how_swap: str = ""
    how_swap_alone: str = ""

    def raised(self, limit: Limit) -> str:
        """The advice for that limit."""
        how = self.how
        if limit.swap_alone:
            how = self.how_swap_alone or self.how_swap or how
        elif limit.swap:
            how = self.how_swap or how
        return f"raise {self.what}{limit.above} ({how or limit.files})"


def placed(path: str, names: Mapping[str, str] | None = None) -> Place:
    """The place of a cgroup path. ``names`` are the names of containers, by id."""
    segments = tuple(segment for segment in path.split("/") if segment)
    owner = owner_of(path)
    above = owner_of("/".join(segments[:-1]))
    return Place(path, segments, owner, above, (names or {}).get(owner.container_id or ""))


def owned(path: str, names: Mapping[str, str] | None = None) -> Owned | None:
    """The owner of the cgroup path; None if no module knows it."""
    place = placed(path, names)
    for module in _OWNERS:
        found: Owned | None = module.find(place)
        if found is not None:
            return found
    return None


def called(path: str, names: Mapping[str, str] | None = None) -> tuple[str, str] | None:
    """The kind of a cgroup ("container", "pod", "unit", "Slurm job" ...) and its usual name; None if it has
    no name."""
    found = owned(path, names)
    return None if found is None else (found.kind, found.name)


def home_of(whose: Attribution | None) -> str | None:
    """The usual name of the place of a process: its container, else the owner's name ("Slurm job 42.0"), else
    its unit, else its cgroup. Names are not escaped."""
    if whose is None:
        return None
    place = place_of(names_of(whose), container_id=whose.container_id, pod_uid=whose.pod_uid)
    if place is None and whose.cgroup:
        found = called(whose.cgroup)
        place = f"{found[0]} {found[1]}" if found is not None and found[0] != "unit" else None
    return place or whose.unit or whose.cgroup or None


# Loaded at import time: under memory pressure nothing may have to be read from disk.
_OWNERS = tuple(sorted(plugs(__name__).values(), key=lambda module: getattr(module, "LAST", False)))
