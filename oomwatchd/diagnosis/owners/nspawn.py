"""systemd-nspawn and other users of systemd-machined: the limit is that of the unit."""

from __future__ import annotations

from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.escape import harmless_name


def find(place: Place) -> Owned | None:
    owner = place.owner
    if owner.container_runtime not in ("systemd-nspawn", "libvirt-lxc") or not place.is_container:
        return None
    unit = harmless_name(owner.unit or place.last)
    return Owned(
        "container",
        owner.container_id or "",
        f"MemoryMax= of {unit}",
        f"systemctl set-property {unit} MemoryMax=",
    )
