"""OpenVZ and Virtuozzo: ``/machine.slice/ID``, a number or a UUID (``libvzctl``)."""

from __future__ import annotations

from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.deferred import deferred

_ID = deferred(r"(?:\d{1,10}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\Z")


def find(place: Place) -> Owned | None:
    if place.segments[:1] != ("machine.slice",) or len(place.segments) != 2 or not _ID.match(place.last):
        return None
    name = place.last
    how = f"prlctl set {name} --memsize, vzctl set {name} --ram"
    return Owned("container", name, f"the memory of OpenVZ container {name}", how)
