"""Kubernetes: pods and their containers, by the kubelet's cgroups (``pkg/kubelet/cm``)."""

from __future__ import annotations

from oomwatchd.diagnosis.attribution import short_id
from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.escape import harmless_name


def find(place: Place) -> Owned | None:
    uid = place.owner.pod_uid
    if uid is None:
        return None
    limit = "resources.limits.memory of"
    # NAMESPACE/POD/CONTAINER
    parts = (place.name or "").split("/")
    pod = harmless_name("/".join(parts[:2])) if len(parts) == 3 else uid
    if place.is_container:
        name = place.name or short_id(place.owner.container_id or "")
        container = harmless_name(parts[2]) if len(parts) == 3 else harmless_name(name)
        return Owned("container", name, f"{limit} container {container} of pod {pod}")
    if uid != place.above.pod_uid:
        return Owned("pod", uid, f"{limit} the containers of pod {uid}")
    return None
