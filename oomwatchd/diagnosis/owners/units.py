"""systemd's units and slices. This module is asked last, for other owners' cgroups are often in a unit."""

from __future__ import annotations

from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import middle_cut

LAST = True


def find(place: Place) -> Owned | None:
    if not place.last or place.last not in (place.owner.unit, place.owner.slice):
        return None
    return Owned("unit", place.last, f"MemoryMax= of {harmless_name(middle_cut(place.last, 60))}")
