"""The names that container runtimes give, out of what they leave for others to read.

- ``/var/log/containers`` names each container of Kubernetes by the links that the kubelet makes there, which
  anybody may list.
- Podman and CRI-O keep a ``conmon`` beside each container, whose command line has id and name.
- Docker, containerd and containers/storage have a file for each container, in directories that are root's.

Ids are 64 hexadecimal digits before they become part of a path.

Sources: kubelet ``pkg/kubelet/kuberuntime/legacy.go`` (logSymlink()), ``pkg/kubelet/dockershim/naming.go``;
conmon(8); Docker ``container/container.go`` (config.v2.json); containerd ``pkg/cri/annotations``; nerdctl
``pkg/labels``; CRI-O ``pkg/annotations``; containers/storage ``containers.go``; OCI runtime configuration
(``config.json`` of the bundle).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from oomwatchd.observe.host import read_bytes
from oomwatchd.records.kmsg import to_text

_FILE_BYTES = 1024 * 1024
#: containers/storage's list of all containers
_LIST_BYTES = 16 * 1024 * 1024
_NAME_LENGTH = 256
#: directories and processes looked through
_MOST_NAMESPACES = 64
_MOST_LINKS = 8192
_MOST_PROCESSES = 32768
_COMMAND_BYTES = 16 * 1024
_ID = re.compile(r"[0-9a-f]{64}\Z")

KUBERNETES_LOGS = "var/log/containers"
#: below each a directory for each namespace ("k8s.io", "moby", "default"), in it one for each container
CONTAINERD = (
    "run/containerd/io.containerd.runtime.v2.task",
    "run/k3s/containerd/io.containerd.runtime.v2.task",
    "var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task",
)
DOCKER = ("var/lib/docker/containers", "var/snap/docker/common/var-lib-docker/containers")
#: containers/storage (Podman, CRI-O); the name begins with the storage driver's
STORAGE = tuple(
    f"{directory}/{driver}-containers"
    for directory in ("run/containers/storage", "var/lib/containers/storage")
    for driver in ("overlay", "vfs", "btrfs", "zfs")
)
#: all that is read by container: what the helper is shown (packaging/systemd/oomwatchd-names.service)
DIRECTORIES = (*DOCKER, *CONTAINERD, *STORAGE)

_CONTAINER = ("io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name")
_POD = ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name")
_NAMESPACE = ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace")


class _Config(msgspec.Struct):
    name: str | None = msgspec.field(default=None, name="Name")
    annotations: dict[str, str] = {}


class _Stored(msgspec.Struct):
    id: str
    names: list[str] = []


def is_id(text: str) -> bool:
    """Whether that may be the id of a container that has files of its own."""
    return _ID.match(text) is not None


def name_of(container_id: str, root: Path = Path("/")) -> str | None:
    """``namespace/pod/container`` in Kubernetes, else the container's own name, by the files of its own; None
    if none can be read. Never raises."""
    if not is_id(container_id):
        return None
    for path in _files(container_id, root):
        data = read_bytes(path, _FILE_BYTES)
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
            return _shown(name)
    return _stored_name(container_id, root)


def _files(container_id: str, root: Path) -> Iterator[str]:
    for directory in DOCKER:
        yield f"{root}/{directory}/{container_id}/config.v2.json"
    for directory in CONTAINERD:
        for namespace in _names(f"{root}/{directory}")[:_MOST_NAMESPACES]:
            yield f"{root}/{directory}/{namespace}/{container_id}/config.json"
    for directory in STORAGE:
        yield f"{root}/{directory}/{container_id}/userdata/config.json"


def _stored_name(container_id: str, root: Path) -> str | None:
    for directory in STORAGE:
        for file in ("containers.json", "volatile-containers.json"):
            data = read_bytes(f"{root}/{directory}/{file}", _LIST_BYTES)
            if data is None or container_id.encode() not in data:
                continue
            try:
                stored = msgspec.json.decode(data, type=list[_Stored])
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
            for one in stored:
                if one.id == container_id and one.names:
                    return _shown(one.names[0])
    return None


def kubernetes_names(root: Path = Path("/")) -> dict[str, str]:
    """Id -> ``namespace/pod/container``, of all containers whose log the kubelet links to."""
    found = {}
    for link in _names(f"{root}/{KUBERNETES_LOGS}")[:_MOST_LINKS]:
        # pod_namespace_container-id.log, and no name has an underscore
        head, _, container_id = link.removesuffix(".log").rpartition("-")
        words = head.split("_")
        if is_id(container_id) and len(words) == 3 and all(words):
            found[container_id] = _shown(f"{words[1]}/{words[0]}/{words[2]}")
    return found


def conmon_names(proc: Path, wanted: Iterable[tuple[str, int]]) -> dict[str, str]:
    """Id -> name, of those whose conmon is found. With each id goes the user whose conmon is believed:
    anybody may start a process of that name."""
    users = dict(wanted)
    found: dict[str, str] = {}
    for pid in _names(proc)[:_MOST_PROCESSES]:
        if len(found) == len(users):
            break
        if not pid.isdigit() or read_bytes(f"{proc}/{pid}/comm", 64) != b"conmon\n":
            continue
        command = read_bytes(f"{proc}/{pid}/cmdline", _COMMAND_BYTES) or b""
        words = [to_text(word) for word in command.split(b"\0")]
        container_id, name = _option(words, "-c", "--cid"), _option(words, "-n", "--name")
        if container_id in users and name and _user(f"{proc}/{pid}") == users[container_id]:
            found[container_id] = _shown(name)
    return found


def _option(words: list[str], *names: str) -> str:
    at = next((at for at, word in enumerate(words) if word in names), len(words))
    return words[at + 1] if at + 1 < len(words) else ""


def _user(directory: str) -> int | None:
    try:
        return os.stat(directory).st_uid  # noqa: PTH116 - no Path for each
    except OSError:
        return None


def _shown(name: str) -> str:
    """``k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`` is how the kubelet's containers are called in Docker and
    CRI-O."""
    words = name.split("_")
    if len(words) == 6 and words[0] == "k8s":
        name = f"{words[3]}/{words[2]}/{words[1]}"
    return to_text(name.encode("utf-8", "replace"))[:_NAME_LENGTH]


def _names(directory: Path | str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208  # names, no objects
    except OSError:
        return []
