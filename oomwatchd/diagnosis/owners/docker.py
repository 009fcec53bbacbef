"""Docker, also for containers of compose, Nomad and others that use Docker (docker-container-update(1))."""

from __future__ import annotations

from oomwatchd.diagnosis.attribution import short_id
from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.escape import harmless_name


def find(place: Place) -> Owned | None:
    owner = place.owner
    if owner.container_runtime != "docker" or owner.pod_uid is not None or not place.is_container:
        return None
    # a task of Amazon ECS is a Docker container in a cgroup of the ECS agent
    if any(segment.startswith("ecstasks") or segment == "ecs" for segment in place.segments):
        return None
    name = place.name or short_id(owner.container_id or "")
    return Owned(
        "container",
        name,
        f"the limit of container {harmless_name(name)}",
        "docker update --memory; compose: mem_limit",
        "docker update --memory-swap and --memory; compose: memswap_limit and mem_limit",
        "docker update --memory-swap",
    )
