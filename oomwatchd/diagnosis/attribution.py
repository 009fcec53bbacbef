"""The owner of a process: cgroup path -> systemd unit, slice, user session, container, pod.

Paths are read by segments. The host's unit is the outermost one. The names below it come from the unit
itself, a container's own manager, or a delegate, and must not pass for a unit of the host. The container and
the pod are the innermost ones. An attacker can choose names: a segment that only looks like part of another
form is ignored.

Sources: systemd.resource-control(5), ``src/basic/cgroup-util.c`` (``cg_path_get_unit()``,
``cg_path_get_user_unit()``); runc and crun ``cgroupsPath``; kubelet ``pkg/kubelet/cm`` (names of pods and
QoS classes for both drivers); containerd CRI, CRI-O, libpod, LXC and systemd-nspawn naming.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from oomwatchd.records.capture import ProcessFacts
from oomwatchd.records.report import OomReport, Part
from oomwatchd.words.deferred import deferred


class Owner(Part, frozen=True, kw_only=True):
    """The owner that the segments of one cgroup path give.

    ``unit`` is the host's systemd unit, or below a user's manager (``user@UID.service``) that user's unit.
    ``slice`` is the slice of the unit. ``user_uid`` and ``session`` (the number in ``loginctl``) belong to a
    logged in user. ``container_runtime`` is None if the path does not tell it.
    """

    unit: str | None = None
    slice: str | None = None
    user_uid: int | None = None
    session: str | None = None
    container_runtime: str | None = None
    container_id: str | None = None
    pod_uid: str | None = None


class Attribution(Owner, frozen=True, kw_only=True):
    """The cgroup, unit and container of a process. ``learnt`` is the source: ``report`` (the kernel printed
    it), ``proc`` (read from /proc in time), ``recorder`` (the flight recorder had seen the process there),
    ``events`` (the kill counter of that cgroup grew)."""

    pid: int
    role: Literal["trigger", "victim"]
    cgroup: str | None = None
    container_name: str | None = None
    #: Why the container's name is unknown; live only.
    container_unnamed: str | None = None
    executable: str | None = None
    command_line: str | None = None
    learnt: str | None = None


class Names(NamedTuple):
    """The names of a container: its own and, in Kubernetes, those of its pod and the pod's namespace."""

    container: str | None = None
    pod: str | None = None
    namespace: str | None = None


_ID = deferred(r"[0-9a-f]{64}\Z")
#: Prefixes that runtimes put before the id in the name of a container's cgroup: a scope with the systemd
#: driver, a plain directory with the cgroupfs driver.
_PREFIXES = {
    "docker-": "docker",
    "cri-containerd-": "containerd",
    "nerdctl-": "containerd",
    "crio-": "cri-o",
    "libpod-payload-": "podman",
    "libpod-": "podman",
}
#: Parent directories of a plain container id with the cgroupfs driver.
_PARENTS = {"docker": "docker", "libpod_parent": "podman", "actions_job": "docker"}
_POD = deferred(
    r"(?:(?:kubelet-)?kubepods(?:-burstable|-besteffort)?-)?"
    r"pod([0-9a-f]{8}([-_])[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?\Z"
)
#: Cgroups above the pods. On kind's nodes the kubelet's own prefix precedes them.
_PODS = ("kubepods", "kubepods.slice")
_USER_SLICE = deferred(r"user-(\d{1,10})\.slice\Z")
_USER_MANAGER = deferred(r"user@(\d{1,10})\.service\Z")
_SESSION = deferred(r"session-([0-9A-Za-z]{1,20})\.scope\Z")
#: systemd.unit(5), "String Escaping for Inclusion in Unit Names"
_ESCAPE = deferred(r"\\x([0-9a-f]{2})")


def short_id(container_id: str) -> str:
    """A container's id as its tools list it: the first 12 of 64 digits, or the whole name (LXC, nspawn)."""
    return container_id[:12] if _ID.match(container_id) else container_id


def names_of(whose: Attribution | None) -> Names:
    """The names within ``container_name``."""
    return names_in(whose.container_name if whose is not None else None)


def names_in(name: str | None) -> Names:
    """The names within a container's: ``namespace/pod/container`` in Kubernetes, ``k8s_CONTAINER_POD_
    NAMESPACE_UID_ATTEMPT`` if Docker runs the container (cri-dockerd ``core/naming.go``), else only the
    container's."""
    if not name:
        return Names()
    parts = name.split("/")
    if len(parts) == 3 and all(parts):
        return Names(parts[2], parts[1], parts[0])
    words = name.split("_")
    if len(words) == 6 and words[0] == "k8s" and all(words[1:4]):
        return Names(words[1], words[2], words[3])
    return Names(name)


def has_name(owner: Owner) -> bool:
    """Whether it is a container with a random id, which also has a name."""
    return owner.container_id is not None and _ID.match(owner.container_id) is not None


def place_of(names: Names, *, container_id: str | None = None, pod_uid: str | None = None) -> str | None:
    """The usual name of a container; None if there is no container. Names are not escaped."""
    if names.pod is not None:
        return "/".join(name for name in (names.namespace, names.pod, names.container) if name)
    if names.container is not None:
        return f"container {names.container}"
    if container_id is None:
        return None
    short = f"container {short_id(container_id)}"
    return f"{short}, pod {pod_uid}" if pod_uid is not None else short


#: OpenVZ's name for the resources of a container (formats.oom_kill).
_BEANCOUNTER = deferred(r"UB (\d{1,10})\Z")


def owner_of(path: str) -> Owner:
    """The unit, slice, session, container and pod that a cgroup path names."""
    if beancounter := _BEANCOUNTER.match(path):
        return Owner(container_runtime="openvz", container_id=beancounter[1])
    segments = [segment for segment in path.split("/") if segment]
    fields: dict[str, str | int] = {}
    _units(segments, fields)
    pods = False
    for at, segment in enumerate(segments):
        pods = pods or segment in _PODS or segment.startswith(("kubepods-", "kubelet-kubepods"))
        if (found := _container(segments, at)) is not None:
            runtime, fields["container_id"] = found
            fields.pop("container_runtime", None)
            if runtime:
                fields["container_runtime"] = runtime
        # names of the systemd driver in a tree that systemd does not manage: slice:prefix:name
        elif segment.count(":") == 2:
            parent, prefix, name = segment.split(":")
            if _ID.match(name) and (m := _POD.match(parent)):
                fields["container_id"], fields["pod_uid"] = name, m[1].replace("_", "-")
                if runtime := _PREFIXES.get(f"{prefix}-"):
                    fields["container_runtime"] = runtime
        if pods and (m := _POD.match(segment)):
            fields["pod_uid"] = m[1].replace("_", "-")
    return Owner(**fields)  # type: ignore[arg-type]


def unit_name(segment: str) -> str:
    """A unit's name with its ASCII escapes decoded."""
    return _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if int(m[1], 16) < 0x80 else m[0], segment)


def _units(segments: list[str], fields: dict[str, str | int]) -> None:
    """Read slices, then the unit. Below a user's manager, read both again for the user's own unit."""
    manager = False
    for at, segment in enumerate(segments):
        if segment.endswith(".slice"):
            fields["slice"] = segment
            if not manager and (m := _USER_SLICE.match(segment)) and segments[:at] == ["user.slice"]:
                fields["user_uid"] = int(m[1])
        elif segment.endswith((".service", ".scope")):
            fields["unit"] = segment
            if m := _SESSION.match(segment):
                if "user_uid" in fields and not manager:
                    fields["session"] = m[1]
                return
            if manager or "user_uid" not in fields or not _USER_MANAGER.match(segment):
                return
            manager = True
        else:
            return  # no longer systemd's names


def _container(segments: list[str], at: int) -> tuple[str | None, str] | None:
    """The runtime (if the name tells it) and the id of the container whose cgroup is ``segments[at]``."""
    segment, parent = segments[at], segments[at - 1] if at else ""
    for prefix, runtime in _PREFIXES.items():
        name = segment.removeprefix(prefix)
        if name != segment and _ID.match(name.removesuffix(".scope")):
            return runtime, name.removesuffix(".scope")
    if _ID.match(segment):
        # /ecs/TASK/ID: Docker creates it there for the agent of Amazon ECS
        known = _PARENTS.get(parent) or ("docker" if "ecs" in segments[:at] else None)
        return (known, segment) if known or _POD.match(parent) else None
    if segment.startswith("lxc.payload.") and segment != "lxc.payload.":
        return "lxc", segment.removeprefix("lxc.payload.")
    if at == 1 and parent == "lxc":
        return "lxc", segment
    return _machine(segment) if at == 1 and parent == "machine.slice" else None


def _machine(segment: str) -> tuple[str | None, str] | None:
    """The container in a segment of systemd-machined's slice: systemd-nspawn's and libvirt's names."""
    if segment.startswith("systemd-nspawn@") and segment.endswith(".service"):
        runtime, name = "systemd-nspawn", segment.removeprefix("systemd-nspawn@").removesuffix(".service")
    elif segment.startswith("machine-") and segment.endswith(".scope"):
        runtime, name = "systemd-nspawn", segment.removeprefix("machine-").removesuffix(".scope")
        if name.startswith(("qemu\\x2d", "qemu-")):
            return None  # a virtual machine, not a container
        if name.startswith(("lxc\\x2d", "lxc-")):
            runtime = "libvirt-lxc"
    else:
        return None
    name = unit_name(name)
    return (runtime, name) if name else None


def attribute(
    report: OomReport,
    processes: Iterable[ProcessFacts] = (),
    names: Mapping[str, str] | None = None,
    obstacle: str | None = None,
) -> tuple[Attribution, ...]:
    """The owners of the trigger and of each victim, as far as the report and /proc give them.

    The report comes first: the task_memcg of the summary line is the victim's cgroup. ``names`` are the
    runtimes' names of containers, by id; ``obstacle`` says why some are unknown.
    """
    facts = {process.pid: process for process in processes}
    memcg = report.memcg
    found: list[Attribution] = []

    def add(pid: int, role: Literal["trigger", "victim"], path: str | None, learnt: str) -> None:
        known = facts.get(pid)
        # an exiting task has already moved to the root cgroup and freed its memory
        exiting = known is not None and known.cgroup == "/" and known.executable is None
        if path is None and known is not None and known.cgroup is not None and not exiting:
            path, learnt = known.cgroup, known.learnt
        if path is None and (known is None or exiting):
            return
        owner = owner_of(path) if path is not None else Owner()
        name = known.container_name if known is not None else None
        if name is None and names is not None and owner.container_id is not None:
            name = names.get(owner.container_id)
        found.append(
            Attribution(
                pid=pid,
                role=role,
                cgroup=path,
                unit=owner.unit,
                slice=owner.slice,
                user_uid=owner.user_uid,
                session=owner.session,
                container_runtime=owner.container_runtime,
                container_id=owner.container_id,
                container_name=name,
                container_unnamed=obstacle if name is None and has_name(owner) else None,
                pod_uid=owner.pod_uid,
                executable=known.executable if known else None,
                command_line=known.command_line if known else None,
                learnt=learnt if path is not None else known.learnt if known else None,
            )
        )

    chosen = report.chosen_pid
    if chosen is None:  # only the kill line names it
        chosen = next((victim.pid for victim in report.victims if victim.role == "selected"), None)

    def printed(pid: int) -> str | None:
        return memcg.task_path if memcg and pid == chosen else None

    if report.trigger.pid is not None:
        add(report.trigger.pid, "trigger", printed(report.trigger.pid), "report")
    for victim in report.victims:
        path = printed(victim.pid)
        if path is None and memcg and victim.role == "group":
            path = memcg.group_path
        add(victim.pid, "victim", path, "report")
    return tuple(found)
