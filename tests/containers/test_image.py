"""The daemon in the container that packaging/container makes: as Kubernetes and Podman run it, and when the
kernel log is refused."""

from __future__ import annotations

import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("kubernetes_validate")

from tests.containers.engines import LIMITS, Containerd, Podman, missing
from tests.delivery.api_server import ApiServer
from tests.delivery.receivers import certificate, receiver
from tests.kernel.running import RunningDaemon, wait_for
from tests.vm import full
from tests.vm.lab import ROOT, cache_directory, command

pytestmark = [
    pytest.mark.oom,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing(Podman)), reason=f"not here: {', '.join(missing(Podman))}"),
]

PACKAGING = ROOT / "packaging/container"
NOBODY = 65532
#: what the daemon needs of the host, whoever runs it
SEES = ("--pid", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:ro,rslave")
#: as packaging/kubernetes has it
LEAST = ("--cap-drop", "all", "--cap-add", "SYSLOG", "--security-opt", "no-new-privileges", "--read-only")
DEVICE = ("--device", "/dev/kmsg:/dev/kmsg:r")


class Image:
    """The image, in a storage of its own."""

    def __init__(self, directory: Path) -> None:
        self._storage = directory / "storage"
        deb = full.package(cache_directory(), directory)
        began = time.monotonic()
        # what the first stage of the recipe does, without a whole Debian to do it in
        (directory / "build").mkdir()
        command("sh", PACKAGING / "root.sh", deb, directory / "build/image")
        context = directory / "context"
        context.mkdir()
        self.podman(
            *("build", "--quiet", "--layers=false", "--isolation", "chroot", "--tag", "oomwatchd"),
            *("--build-context", f"build={directory / 'build'}", "--file", f"{PACKAGING}/Containerfile"),
            str(context),
        )
        size = int(self.podman("image", "inspect", "--format", "{{.Size}}", "oomwatchd"))
        print(f"image: {size / 1e6:.1f} MB, made in {time.monotonic() - began:.0f} s")
        assert size < 100e6

    def podman(self, *arguments: str) -> str:
        return command(*self._command(*arguments)).strip()

    def refused(self, *options: str) -> tuple[int, str]:
        """Run the daemon where it does not start: exit status, and what it says."""
        run = self._command("run", "--rm", "--network", "none", *LIMITS, *options)
        done = subprocess.run([*run, "oomwatchd"], capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stderr

    def _command(self, *arguments: str) -> list[str]:
        storage = ("--root", f"{self._storage}/root", "--runroot", f"{self._storage}/run")
        how = ("--cgroup-manager", "cgroupfs", "--storage-driver", "vfs", "--runtime", "/usr/sbin/runc")
        return ["podman", *storage, "--tmpdir", f"{self._storage}/pause", *how, *arguments]


class Contained(RunningDaemon):
    """The daemon in a container; its directory is seen at the same place there."""

    def __init__(self, directory: Path, image: Image, *options: str) -> None:
        super().__init__(directory, None)
        self._image = image
        self._options = (*options, "--volume", f"{directory}:{directory}")
        self._name = f"oomwatchd-{secrets.token_hex(3)}"
        self._directory = directory

    def spawn(self) -> None:
        run = ("run", "--name", self._name, "--network", "host", *LIMITS)
        words = self._image._command(*run, *self._options, "oomwatchd", "run", "--config", str(self.config))
        with self.log_file().open("ab") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def remove(self) -> None:
        self._image.podman("rm", "--force", "--time", "5", self._name)
        if self._process is not None:
            self._process.wait(30)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with tempfile.TemporaryDirectory(prefix="o", dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        made = Image(Path(directory))
        yield made
        made.podman("rmi", "--all", "--force")


@pytest.fixture
def place() -> Iterator[Path]:
    """Short and open to all, for sockets and for another user."""
    with tempfile.TemporaryDirectory(prefix="o", dir="/var/tmp", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o777)
        yield Path(directory)


@pytest.mark.parametrize(
    ("user", "namespace"), [("0:0", "private"), (f"{NOBODY}:{NOBODY}", "host")], ids=["root", "not-root"]
)
def test_a_kill_in_a_pod_is_told_from_a_container(
    image: Image, place: Path, user: str, namespace: str
) -> None:
    host = place / "h"
    (host / "var/log/containers").mkdir(parents=True)
    (place / "account").mkdir()
    ca_file, context = certificate(place / "account")
    with receiver(context) as at:
        server = ApiServer(at, place / "account", ca_file)
        options = ("--user", user, "--cgroupns", namespace, "--env", "NODE_NAME=node-7")
        daemon = Contained(place, image, *SEES, *LEAST, *DEVICE, *options)
        daemon.write_config(
            "enabled = false",
            f"""
[capture]
host_root = "{host}"
[sinks.kubernetes]
enabled = true
url = "{at.url}"
token_file = "{place}/account/token"
ca_file = "{ca_file}"
""",
        )
        engine = Containerd(host, place / "engine")
        daemon.jsonl.chmod(0o666)
        try:
            daemon.start()
            engine.start()
            container, name = engine.run(after_seconds=4)
            namespace_name, pod, called = name.split("/")
            link = f"{pod}_{namespace_name}_{called}-{container}.log"
            (host / "var/log/containers" / link).symlink_to("/var/log/pods/not/mounted")
            told = wait_for(
                "the Event on the pod",
                lambda: [one for one in server.events.values() if one["involvedObject"]["name"] == pod],
                60,
            )
        finally:
            engine.stop()
            daemon.remove()
        [made] = told
        assert made["involvedObject"]["uid"] == engine.UID
        assert made["source"]["host"] == "node-7" and f"{namespace_name}/{pod}/{called}" in made["message"]
        [event] = [one for one in daemon.lines() if container in str(one["attribution"])]
        [victim] = [one for one in event["attribution"] if one["role"] == "victim"]
        assert (victim["container_name"], victim["pod_uid"]) == (name, engine.UID)
        assert victim["cgroup"] == f"/kubepods/burstable/pod{engine.UID}/{container}"


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        # a mount, hostPath too, gives no right to the device
        (
            ("--cap-add", "SYSLOG", "--volume", "/dev/kmsg:/dev/kmsg:ro"),
            77,
            "the device cgroup of this",
        ),
        (DEVICE, 77, "--cap-add SYSLOG"),
        (("--cap-add", "SYSLOG"), 69, "start it with --device /dev/kmsg"),
    ],
    ids=["mount", "no-capability", "no-device"],
)
def test_what_is_refused_is_said_with_its_mend(
    image: Image, options: tuple[str, ...], status: int, says: str
) -> None:
    got, said = image.refused("--user", "0:0", "--cap-drop", "all", *options)
    assert (got, says in said) == (status, True), said


def test_privileged_it_needs_no_device_named(image: Image, place: Path) -> None:
    daemon = Contained(place, image, *SEES, "--privileged", "--read-only", "--user", "0:0")
    try:
        daemon.start()
    finally:
        daemon.remove()
