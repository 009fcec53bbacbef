"""Podman, containerd and Docker with all their files below one directory, and containers that are killed.

No image comes from a registry: busybox is packed into one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.kernel.running import wait_for

LIMIT = 20 * 1024 * 1024
#: of a container; a limit of the test's own user may be lower than what the engines ask for
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")
_OPEN = ("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined")


def root_filesystem(directory: Path) -> Path:
    """A directory with busybox in it."""
    (directory / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", directory / "bin/busybox")
    for name in ("sh", "sleep", "tail"):
        (directory / "bin" / name).symlink_to("busybox")
    for name in ("dev", "etc", "proc", "sys", "tmp"):
        (directory / name).mkdir()
    return directory


def grows(after_seconds: float) -> list[str]:
    """What a container runs: it takes memory without end."""
    return ["/bin/sh", "-c", f"sleep {after_seconds:g}; tail /dev/zero"]


class Engine:
    """One engine; ``host`` is the root below which its files are."""

    programs: tuple[str, ...] = ()

    def __init__(self, host: Path, work: Path) -> None:
        self.host = host
        self.work = work
        work.mkdir(parents=True)
        self.root = root_filesystem(work / "root")
        self._servers: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Whatever has to run."""

    def run(self, after_seconds: float) -> tuple[str, str]:
        """Start a container that is killed; its id, and the name by which people know it."""
        raise NotImplementedError

    def stop(self) -> None:
        for server in reversed(self._servers):
            server.terminate()
            server.wait(30)

    def _serve(self, *command: str, ready: Path) -> None:
        log = (self.work / f"{Path(command[0]).name}.log").open("wb")
        self._servers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        wait_for(f"{command[0]} to listen", ready.exists, 60)

    def _image(self) -> Path:
        image = self.work / "root.tar"
        if not image.exists():
            with tarfile.open(image, "w") as archive:
                archive.add(self.root, ".")
        return image


def _run(*command: str, directory: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=directory)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout.strip().rpartition("\n")[2]


def missing(kind: type[Engine]) -> list[str]:
    """What this host lacks to run that engine."""
    root = [] if os.geteuid() == 0 else ["root"]
    return root + [name for name in kind.programs if shutil.which(name) is None]


class Podman(Engine):
    programs = ("podman", "/usr/sbin/runc", "/bin/busybox")

    def _podman(self, *arguments: str) -> str:
        storage = "containers/storage"
        return _run(
            *(
                "podman",
                "--root",
                f"{self.host}/var/lib/{storage}",
                "--runroot",
                f"{self.host}/run/{storage}",
            ),
            *("--cgroup-manager", "cgroupfs", "--storage-driver", "vfs", "--runtime", "/usr/sbin/runc"),
            *arguments,
            directory=self.work,  # where conmon notes that its container was killed
        )

    def start(self) -> None:
        self._podman("import", str(self._image()), "busybox")

    def run(self, after_seconds: float) -> tuple[str, str]:
        name = f"shop-{secrets.token_hex(3)}"
        started = self._podman(
            *(
                "run",
                "--detach",
                "--name",
                name,
                "--network",
                "none",
                "--memory",
                str(LIMIT),
                "--pull",
                "never",
            ),
            *(*LIMITS, *_OPEN, "busybox", *grows(after_seconds)),
        )
        return started, name

    def stop(self) -> None:
        self._podman("rm", "--all", "--force")


class Containerd(Engine):
    """As the kubelet has it run the containers of a pod: by annotations and cgroup."""

    programs = ("containerd", "ctr", "runc", "/bin/busybox")
    #: of each pod
    UID = "7d1c2c0e-8a53-4a3f-9d5b-2f1d6a7b8c9d"

    def __init__(self, host: Path, work: Path) -> None:
        super().__init__(host, work)
        self._started: list[str] = []

    def start(self) -> None:
        self.socket = self.work / "containerd.socket"
        self._serve(
            *("containerd", "--root", str(self.work / "data"), "--state", f"{self.host}/run/containerd"),
            *("--address", str(self.socket)),
            ready=self.socket,
        )

    def _ctr(self, *arguments: str) -> str:
        return _run("ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments)

    def run(self, after_seconds: float) -> tuple[str, str]:
        container, pod = secrets.token_hex(32), f"web-{secrets.token_hex(3)}"
        notes = {"container-name": "app", "sandbox-name": pod, "sandbox-namespace": "shop"}
        annotations = [
            word for k, v in notes.items() for word in ("--annotation", f"io.kubernetes.cri.{k}={v}")
        ]
        self._ctr(
            *("run", "--rootfs", "--detach", "--memory-limit", str(LIMIT), *annotations),
            *("--cgroup", f"/kubepods/burstable/pod{self.UID}/{container}"),
            *(str(self.root), container, *grows(after_seconds)),
        )
        self._started.append(container)
        return container, f"shop/{pod}/app"

    def stop(self) -> None:
        for container in self._started:
            for command in (("task", "kill", "-s", "9"), ("task", "rm", "--force"), ("container", "rm")):
                with_address = ("ctr", "--address", str(self.socket), "--namespace", "k8s.io")
                subprocess.run((*with_address, *command, container), capture_output=True, check=False)
        super().stop()


class Docker(Engine):
    # Debian 13 has the command in a package of its own
    programs = ("containerd", "dockerd", "/usr/bin/docker", "runc", "/bin/busybox")

    def start(self) -> None:
        containerd = self.work / "containerd.socket"
        self._serve(
            *("containerd", "--root", str(self.work / "data"), "--state", f"{self.host}/run/containerd"),
            *("--address", str(containerd)),
            ready=containerd,
        )
        self.socket = self.work / "docker.socket"
        self._serve(
            *(
                "dockerd",
                "--data-root",
                f"{self.host}/var/lib/docker",
                "--exec-root",
                str(self.work / "exec"),
            ),
            *("--host", f"unix://{self.socket}", "--pidfile", str(self.work / "pid"), "--bridge", "none"),
            *("--iptables=false", "--ip6tables=false", "--storage-driver", "vfs"),
            *("--containerd", str(containerd), "--exec-opt", "native.cgroupdriver=cgroupfs"),
            ready=self.socket,
        )
        self._docker("import", str(self._image()), "busybox")

    def _docker(self, *arguments: str) -> str:
        return _run("/usr/bin/docker", "--host", f"unix://{self.socket}", *arguments)

    def run(self, after_seconds: float) -> tuple[str, str]:
        name = f"shop-{secrets.token_hex(3)}"
        started = self._docker(
            *("run", "--detach", "--name", name, "--network", "none", "--memory", str(LIMIT)),
            *(*LIMITS, *_OPEN, "busybox", *grows(after_seconds)),
        )
        return started, name
