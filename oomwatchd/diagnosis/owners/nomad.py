"""Nomad's exec, java and raw_exec drivers: ``ALLOCATION.TASK.scope`` below ``nomad.slice`` (v2),
``ALLOCATION.TASK`` below ``/nomad`` (v1), by ``client/lib/cgroupslib``."""

from __future__ import annotations

from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless_name

_TASK = deferred(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(.+?)(?:\.scope)?\Z")


def find(place: Place) -> Owned | None:
    m = _TASK.match(place.last)
    if m is None or not {"nomad", "nomad.slice"} & set(place.segments[:-1]):
        return None
    what = f"`memory` (or `memory_max`) in the resources of Nomad task {harmless_name(m[2])}"
    return Owned("Nomad task", f"{m[2]} of {m[1][:8]}", f"{what} (allocation {m[1][:8]})")
