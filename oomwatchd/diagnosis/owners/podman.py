"""Podman (podman-update(1)). The limit of a quadlet's container is in the quadlet's unit file."""

from __future__ import annotations

from oomwatchd.diagnosis.attribution import short_id
from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.escape import harmless_name


def find(place: Place) -> Owned | None:
    owner = place.owner
    if owner.container_runtime != "podman" or owner.pod_uid is not None or not place.is_container:
        return None
    name = place.name or short_id(owner.container_id or "")
    return Owned(
        "container",
        name,
        f"the limit of container {harmless_name(name)}",
        "podman update --memory",
        "podman update --memory-swap and --memory",
        "podman update --memory-swap",
    )
