"""Amazon ECS: ``/ecs/TASK/CONTAINER`` (v1), ``ecstasks.slice/ecstasks-TASK.slice`` (v2), by the ECS agent
(``agent/taskresource/cgroup``)."""

from __future__ import annotations

from oomwatchd.diagnosis.attribution import short_id
from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless_name

_TASK = deferred(r"(?:ecstasks-)?([0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.slice)?\Z")
_ROOTS = ("ecs", "ecstasks.slice")


def find(place: Place) -> Owned | None:
    if "ecs" not in place.path:
        return None
    roots = [at for at, segment in enumerate(place.segments) if segment in _ROOTS]
    below = place.segments[roots[-1] + 1 :] if roots else ()
    task = next((m[1] for segment in below[:2] if (m := _TASK.match(segment))), None)
    if task is None:
        return None
    if place.is_container:
        name = place.name or short_id(place.owner.container_id or "")
        what = f"`memory` of container {harmless_name(name)} in the task definition (task {task})"
        return Owned("container", name, what)
    if _TASK.match(place.last):
        return Owned("ECS task", task, f"`memory` of the task definition of ECS task {task}")
    return None
