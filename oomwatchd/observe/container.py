"""What people call a container: the name in its runtime's own files, where those can be read.

One file a container, read by the patient half: these lie on disks. Ids are 64 hexadecimal digits before they
become part of a path.

Sources: Docker ``container/container.go`` (config.v2.json); containerd ``pkg/cri/annotations``; CRI-O
``pkg/annotations``. The OCI runtime configuration is ``config.json`` of the bundle.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.observe.host import read_bytes
from oomwatchd.records.capture import OomCapture, ProcessFacts
from oomwatchd.records.kmsg import to_text

_FILE_BYTES = 1024 * 1024
_NAME_LENGTH = 256
_ID = re.compile(r"[0-9a-f]{64}\Z")
_FILES = (
    "var/lib/docker/containers/{}/config.v2.json",
    "run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json",
    "run/containers/storage/overlay-containers/{}/userdata/config.json",
    "var/lib/containers/storage/overlay-containers/{}/userdata/config.json",
)
_CONTAINER = ("io.kubernetes.cri.container-name", "io.kubernetes.container.name")
_POD = ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name")
_NAMESPACE = ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace")


class _Config(msgspec.Struct):
    name: str | None = msgspec.field(default=None, name="Name")
    annotations: dict[str, str] = {}


def container_name(container_id: str, root: Path = Path("/")) -> str | None:
    """``namespace/pod/container`` in Kubernetes, else the container's own name; None if nobody tells."""
    if not _ID.match(container_id):
        return None
    for pattern in _FILES:
        data = read_bytes(root / pattern.format(container_id), _FILE_BYTES)
        if data is None:
            continue
        try:
            config = msgspec.json.decode(data, type=_Config)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        notes = config.annotations
        parts = [
            next((notes[key] for key in keys if key in notes), None)
            for keys in (_NAMESPACE, _POD, _CONTAINER)
        ]
        name = "/".join(filter(None, parts)) or (config.name or "").lstrip("/")
        if name:
            return to_text(name.encode("utf-8", "replace"))[:_NAME_LENGTH]
    return None


def with_container_names(capture: OomCapture, root: Path = Path("/")) -> OomCapture:
    """The same capture, its processes told by the names of their containers."""
    named = tuple(_named(facts, root) for facts in capture.processes)
    return capture if named == capture.processes else msgspec.structs.replace(capture, processes=named)


def _named(facts: ProcessFacts, root: Path) -> ProcessFacts:
    owner = owner_of(facts.cgroup) if facts.cgroup else None
    if owner is None or owner.container_id is None or facts.container_name is not None:
        return facts
    return msgspec.structs.replace(facts, container_name=container_name(owner.container_id, root))
