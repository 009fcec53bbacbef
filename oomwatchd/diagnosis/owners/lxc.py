"""LXC and its users: Incus and LXD (``lxc.payload.NAME``), Proxmox VE (``/lxc/NUMBER``)."""

from __future__ import annotations

from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.escape import harmless_name

#: Cgroups that LXC creates inside a container's cgroup.
_INNER = ("ns", ".lxc")


def find(place: Place) -> Owned | None:
    owner = place.owner
    if owner.container_runtime != "lxc" or owner.container_id is None:
        return None
    if not place.is_container and place.last not in _INNER:
        return None
    name = harmless_name(owner.container_id)
    if "lxc" in place.segments and owner.container_id.isdigit():
        how = f"Proxmox VE: pct set {name} --memory MEGABYTES; LXC: the limit in its configuration"
    else:
        how = f"Incus, LXD: incus or lxc config set {name} limits.memory; LXC: the limit in its configuration"
    return Owned("container", owner.container_id, f"the memory of LXC container {name}", how)
