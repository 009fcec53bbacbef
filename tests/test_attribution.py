"""Cgroup paths to units, containers and pods: every runtime, driver and class, and hostile names."""

from __future__ import annotations

import pytest

from oomwatchd.diagnosis.attribution import Owner, owner_of

ID = "9f02d9fa0049eb2655fc83c765f142362b2cb403b57b70ba3185071015ca3b64"
UID = "d11ab7b0-d6db-4a24-a7de-4a2faf1e6980"
OTHER = "a" * 64
STATIC = "0123456789abcdef0123456789abcdef"
UID_ = UID.replace("-", "_")


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/", Owner()),
        ("/system.slice/foo.service", Owner(unit="foo.service", slice="system.slice")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope",
            Owner(unit="app-x.scope", slice="app.slice", user_uid=1000),
        ),
        (
            f"/system.slice/docker-{ID}.scope",
            Owner(
                unit=f"docker-{ID}.scope", slice="system.slice", container_runtime="docker", container_id=ID
            ),
        ),
        (f"/docker/{ID}", Owner(container_runtime="docker", container_id=ID)),
        (
            f"/machine.slice/libpod-{ID}.scope",
            Owner(
                unit=f"libpod-{ID}.scope", slice="machine.slice", container_runtime="podman", container_id=ID
            ),
        ),
        ("/lxc.payload.web", Owner(container_runtime="lxc", container_id="web")),
        (f"/kubepods/burstable/pod{UID}/{ID}", Owner(container_id=ID, pod_uid=UID)),
        (f"/kubepods/besteffort/pod{UID}/{ID}", Owner(container_id=ID, pod_uid=UID)),
        (f"/kubepods/pod{UID}/{ID}", Owner(container_id=ID, pod_uid=UID)),
        *[
            (
                f"/kubepods.slice/{qos}kubepods{infix}-pod{UID_}.slice/{prefix}{ID}.scope",
                Owner(
                    unit=f"{prefix}{ID}.scope",
                    slice=f"kubepods{infix}-pod{UID_}.slice",
                    container_runtime=runtime,
                    container_id=ID,
                    pod_uid=UID,
                ),
            )
            for qos, infix in (
                ("kubepods-burstable.slice/", "-burstable"),
                ("kubepods-besteffort.slice/", "-besteffort"),
                ("", ""),
            )
            for prefix, runtime in (
                ("cri-containerd-", "containerd"),
                ("crio-", "cri-o"),
                ("docker-", "docker"),
            )
        ],
        ("/Killed process 1 (systemd) total-vm:1kB", Owner()),
        (f"/docker-{ID[:-1]}.scope", Owner(unit=f"docker-{ID[:-1]}.scope")),
        ("/podium/x", Owner()),
        # systemd: sessions, users' own managers, templates, nested slices, delegated trees
        (
            "/user.slice/user-1000.slice/session-c3.scope",
            Owner(unit="session-c3.scope", slice="user-1000.slice", user_uid=1000, session="c3"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            Owner(unit="init.scope", slice="user-1000.slice", user_uid=1000),
        ),
        (
            "/user.slice/user-0.slice/user@0.service/session.slice/pipewire.service",
            Owner(unit="pipewire.service", slice="session.slice", user_uid=0),
        ),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            Owner(unit="getty@tty1.service", slice="system-getty.slice"),
        ),
        ("/system.slice/web.service/workers/3", Owner(unit="web.service", slice="system.slice")),
        ("/init.scope", Owner(unit="init.scope")),
        ("/a.slice/a-b.slice", Owner(slice="a-b.slice")),
        # podman: containers inside their unit (quadlets), split payload, pods, rootless, cgroupfs
        (
            f"/machine.slice/libpod-{ID}.scope/container",
            Owner(
                unit=f"libpod-{ID}.scope", slice="machine.slice", container_runtime="podman", container_id=ID
            ),
        ),
        (
            f"/system.slice/web.service/libpod-payload-{ID}",
            Owner(unit="web.service", slice="system.slice", container_runtime="podman", container_id=ID),
        ),
        (
            f"/machine.slice/machine-libpod_pod_{ID}.slice/libpod-{ID}.scope",
            Owner(
                unit=f"libpod-{ID}.scope",
                slice=f"machine-libpod_pod_{ID}.slice",
                container_runtime="podman",
                container_id=ID,
            ),
        ),
        (
            f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
            Owner(
                unit=f"libpod-{ID}.scope",
                slice="user.slice",
                user_uid=1000,
                container_runtime="podman",
                container_id=ID,
            ),
        ),
        (f"/libpod_parent/libpod-{ID}", Owner(container_runtime="podman", container_id=ID)),
        # containerd without Kubernetes; a conmon is not its container
        (
            f"/system.slice/nerdctl-{ID}.scope",
            Owner(
                unit=f"nerdctl-{ID}.scope",
                slice="system.slice",
                container_runtime="containerd",
                container_id=ID,
            ),
        ),
        (
            f"/machine.slice/libpod-conmon-{ID}.scope",
            Owner(unit=f"libpod-conmon-{ID}.scope", slice="machine.slice"),
        ),
        # LXC and systemd-nspawn; a container's own systemd does not name the host's units
        ("/lxc.payload.web/system.slice/nginx.service", Owner(container_runtime="lxc", container_id="web")),
        ("/lxc/101/ns/system.slice/x.service", Owner(container_runtime="lxc", container_id="101")),
        ("/lxc.monitor.web", Owner()),
        (
            "/machine.slice/systemd-nspawn@deb.service/payload/system.slice/x.service",
            Owner(
                unit="systemd-nspawn@deb.service",
                slice="machine.slice",
                container_runtime="systemd-nspawn",
                container_id="deb",
            ),
        ),
        (
            "/machine.slice/machine-my\\x2ddeb.scope/payload",
            Owner(
                unit="machine-my\\x2ddeb.scope",
                slice="machine.slice",
                container_runtime="systemd-nspawn",
                container_id="my-deb",
            ),
        ),
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
            Owner(unit="machine-qemu\\x2d1\\x2dvm.scope", slice="machine.slice"),
        ),
        # Kubernetes: static pods, CRI-O's cgroupfs names, names of the other driver, a cluster in a container
        (
            f"/kubepods/burstable/pod{STATIC}/{ID}",
            Owner(container_id=ID, pod_uid=STATIC),
        ),
        (
            f"/kubepods/besteffort/pod{UID}/crio-{ID}",
            Owner(container_runtime="cri-o", container_id=ID, pod_uid=UID),
        ),
        (
            f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}",
            Owner(
                unit="containerd.service",
                slice="system.slice",
                container_runtime="containerd",
                container_id=ID,
                pod_uid=UID,
            ),
        ),
        (
            f"/docker/{OTHER}/kubelet/kubepods/burstable/pod{UID}/{ID}",
            Owner(container_id=ID, pod_uid=UID),
        ),
        (f"/kubepods/burstable/pod{UID}", Owner(pod_uid=UID)),
        (f"/docker/{OTHER}/docker/{ID}", Owner(container_runtime="docker", container_id=ID)),
        # names that anybody may give to a cgroup of their own
        (f"/pod{UID}/x", Owner()),
        (f"/{ID}", Owner()),
        (f"/docker/{ID}\n", Owner()),
        (f"/docker-{ID}.scope\n", Owner()),
        (f"/kubepods/pod{UID}x/{ID}", Owner()),
        ("/x.service", Owner(unit="x.service")),
        (
            "/user.slice/user-1000.slice/user@1000.service/Killed process 1 (systemd)/ssh.service",
            Owner(unit="user@1000.service", slice="user-1000.slice", user_uid=1000),
        ),
        (
            "/system.slice/a.service/machine.slice/systemd-nspawn@b.service",
            Owner(unit="a.service", slice="system.slice"),
        ),
        (
            "/system.slice/a.service/user.slice/user-7.slice/session-1.scope",
            Owner(unit="a.service", slice="system.slice"),
        ),
        ("/lxc.payload.", Owner()),
        ("/user.slice/user-99999999999.slice", Owner(slice="user-99999999999.slice")),
        ("//..//.scope/", Owner()),
        ("", Owner()),
    ],
)
def test_a_path_by_its_segments(path: str, owner: Owner) -> None:
    assert owner_of(path) == owner
