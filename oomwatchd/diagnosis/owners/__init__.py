"""Plug room: who keeps a cgroup and its limit, one owner a module, found by being here.

An owner module has ``find(place)``: an :class:`Owned` for a cgroup that is this owner's, else None. Each
knows how the path of its cgroups looks, what people call what is in it, and the knob of its limit. A path is
one owner's: modules do not claim what another one knows better; one with ``LAST = True`` is asked when no
other did.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from oomwatchd.diagnosis.attribution import Attribution, Owner, names_of, owner_of, place_of
from oomwatchd.plugs import plugs


class Place(msgspec.Struct, frozen=True):
    """One cgroup: its path, the segments of it, what they say of its owner and of that of the cgroup above;
    ``name`` is what its runtime's files call its container, where that is known."""

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
        """The cgroup is the container's own, not one within it."""
        owner = self.owner
        return owner.container_id is not None and owner.container_id != self.above.container_id


class Limit(NamedTuple):
    """The limit that is to be raised: ``above`` is " above AMOUNT" or nothing, ``files`` are the kernel's
    names for it; ``swap``: that of memory and swap together has to be raised, too, ``swap_alone``: it alone.
    """

    above: str = ""
    files: str = "memory.max"
    swap: bool = False
    swap_alone: bool = False


class Owned(msgspec.Struct, frozen=True):
    """What people call a cgroup (``kind`` "container", "pod", "Slurm job" ...; of a unit the name alone is
    enough), and how its limit is raised: ``raise WHAT above HOW MUCH (HOW)``. Without ``how`` the kernel's
    file is named there."""

    kind: str
    name: str
    what: str
    how: str = ""
    #: with ``how`` for a limit of memory and swap together; empty: as ``how``
    how_swap: str = ""
    how_swap_alone: str = ""

    def raised(self, limit: Limit) -> str:
        """The words for that limit."""
        how = self.how
        if limit.swap_alone:
            how = self.how_swap_alone or self.how_swap or how
        elif limit.swap:
            how = self.how_swap or how
        return f"raise {self.what}{limit.above} ({how or limit.files})"


def placed(path: str, names: Mapping[str, str] | None = None) -> Place:
    """``names`` are those of containers by their ids."""
    segments = tuple(segment for segment in path.split("/") if segment)
    owner = owner_of(path)
    above = owner_of("/".join(segments[:-1]))
    return Place(path, segments, owner, above, (names or {}).get(owner.container_id or ""))


def owned(path: str, names: Mapping[str, str] | None = None) -> Owned | None:
    """Who keeps the cgroup of that path; None: nobody that is known here."""
    place = placed(path, names)
    for module in _OWNERS:
        found: Owned | None = module.find(place)
        if found is not None:
            return found
    return None


def called(path: str, names: Mapping[str, str] | None = None) -> tuple[str, str] | None:
    """What a cgroup is ("container", "pod", "unit", "Slurm job" ...) and what people call it; None where
    nobody gave it a name."""
    found = owned(path, names)
    return None if found is None else (found.kind, found.name)


def home_of(whose: Attribution | None) -> str | None:
    """Where a process lived, as people call it: container, else what its owner calls it ("Slurm job 42.0"),
    else unit, else cgroup. Names are not escaped."""
    if whose is None:
        return None
    place = place_of(names_of(whose), container_id=whose.container_id, pod_uid=whose.pod_uid)
    if place is None and whose.cgroup:
        found = called(whose.cgroup)
        place = f"{found[0]} {found[1]}" if found is not None and found[0] != "unit" else None
    return place or whose.unit or whose.cgroup or None


# loaded here and now: under memory pressure nothing new is read from disk
_OWNERS = tuple(sorted(plugs(__name__).values(), key=lambda module: getattr(module, "LAST", False)))
