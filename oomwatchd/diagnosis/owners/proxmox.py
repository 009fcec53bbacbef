"""Virtual machines of Proxmox VE: ``/qemu.slice/NUMBER.scope`` (pve ``qemu-server``, PVE/QemuServer.pm)."""

from __future__ import annotations

from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.deferred import deferred

_SCOPE = deferred(r"(\d{1,10})\.scope\Z")


def find(place: Place) -> Owned | None:
    if place.segments[:1] != ("qemu.slice",) or len(place.segments) < 2:
        return None
    m = _SCOPE.match(place.segments[1])
    if m is None:
        return None
    return Owned(
        "virtual machine",
        m[1],
        f"MemoryMax= of {m[0]} beyond the RAM of virtual machine {m[1]} and what QEMU itself needs",
        f"systemctl set-property {m[0]} MemoryMax=; or give the guest less: qm set {m[1]} --memory",
    )
