"""The packaged service names the containers of real engines: its user, its capability, its filters, the
helper's mounts. tests/vm tests what only a service manager does (OpenFile=, the other mounts)."""

from __future__ import annotations

import contextlib
import grp
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.containers.engines import Containerd, Docker, Engine, Podman, missing
from tests.containers.filtered import program
from tests.delivery.receivers import Receiver, receiver
from tests.kernel.running import RunningDaemon, command, wait_for

pytestmark = [pytest.mark.oom, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent.parent
UNITS = ROOT / "packaging/systemd"
NOBODY = 65534
#: for sinks across the network
NETWORK = "oomwatchd.service.d/network.conf"


def setting(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.M)


def unprivileged(unit: str, dropin: str | None = None) -> list[str]:
    """A command line that runs a command as the unit's user, with its groups, capabilities and system call
    filters."""
    names = " ".join(setting(unit, "AmbientCapabilities")).split()
    caps = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in names)])
    groups = [str(grp.getgrnam(name).gr_gid) for name in setting(unit, "SupplementaryGroups")]
    user = NOBODY if setting(unit, "DynamicUser") == ["yes"] else 0
    families = [
        word
        for one in filter(None, (unit, dropin))
        for line in setting(one, "RestrictAddressFamilies")
        for word in line.split()
    ]
    filters = program(setting(unit, "SystemCallFilter"), families)
    return [
        *("setpriv", f"--reuid={user}", f"--regid={user}", "--no-new-privs"),
        *(["--groups", ",".join(groups)] if groups else ["--clear-groups"]),
        *(f"--inh-caps={caps}", f"--ambient-caps={caps}", f"--bounding-set={caps}"),
        *(sys.executable, "-I", str(Path(__file__).with_name("filtered.py")), filters),
    ]


class Service(RunningDaemon):
    """The daemon as its unit starts it: the kernel log is an open descriptor."""

    def spawn(self) -> None:
        script = 'exec 3</dev/kmsg; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=kmsg; exec "$@"'
        program = [*unprivileged("oomwatchd.service", NETWORK), *command("run", "--config", str(self.config))]
        with self.log_file().open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", script, "sh", *program], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )


class Helper:
    """oomwatchd-names.socket and its service: an empty root with what the unit mounts there."""

    def __init__(self, host: Path, work: Path) -> None:
        self.started = 0
        self.ended = 0
        self.cpu_seconds = 0.0
        self._host = host
        self._new = work / "names-root"
        self._new.mkdir()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(host / "run/oomwatchd-names.socket"))
        os.chown(host / "run/oomwatchd-names.socket", NOBODY, NOBODY)
        self._listening.listen()
        self._end, self._ended = os.pipe()
        self._thread = threading.Thread(target=self._activate)
        self._thread.start()

    def stop(self) -> None:
        os.write(self._ended, b"x")
        self._thread.join()
        self._listening.close()

    def _activate(self) -> None:
        while True:
            ready, _, _ = select.select([self._listening.fileno(), self._end], [], [])
            if self._end in ready:
                return
            self.started += 1
            listening = self._listening.fileno()
            helper = subprocess.Popen(self._command(), pass_fds=(listening,))
            _, helper.returncode, usage = os.wait4(helper.pid, 0)
            assert helper.returncode == 0
            self.cpu_seconds += usage.ru_utime + usage.ru_stime
            self.ended += 1

    def _command(self) -> list[str]:
        binds = [
            (f"{self._host}{words[0]}", words[0])
            for line in setting("oomwatchd-names.service", "BindReadOnlyPaths")
            if len(words := line.removeprefix("-").split(":")) > 1
        ]
        # Python and the package are elsewhere than in an installed system
        own = {str(ROOT), sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64", "/etc/ld.so.cache"}
        binds += [(path, path) for path in sorted(own) if Path(path).exists()]
        new = self._new
        script = [f"mount -t tmpfs tmpfs {new}"]
        for source, target in binds:
            if Path(source).is_dir():
                script.append(f"mkdir -p {new}{target} && mount --bind {source} {new}{target}")
        # bash, for dash knows descriptors of one digit alone
        script += [f"exec 3<&{self._listening.fileno()}", 'exec chroot "$0" "$@"']
        helper = [*unprivileged("oomwatchd-names.service"), sys.executable, "-Im", "oomwatchd.daemon.namer"]
        return ["unshare", "--mount", "bash", "-ec", "\n".join(script), str(new), *helper]


@pytest.fixture
def place() -> Iterator[Path]:
    """Short and open to all, for sockets and for another user."""
    directory = Path(tempfile.mkdtemp(prefix="o", dir="/var/tmp"))
    directory.chmod(0o755)
    (directory / "h/run").mkdir(parents=True)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def helper(place: Path) -> Iterator[Helper]:
    made = Helper(place / "h", place)
    yield made
    made.stop()


class Journal:
    """journald's native socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        os.chown(path, NOBODY, NOBODY)
        self._socket.setblocking(False)
        self.entries: list[dict[str, str]] = []

    def read(self) -> list[dict[str, str]]:
        """All entries so far; a field of several lines is left out."""
        with contextlib.suppress(BlockingIOError):
            while True:
                lines = self._socket.recv(1 << 20).decode(errors="replace").split("\n")
                self.entries.append(dict(line.split("=", 1) for line in lines if "=" in line))
        return self.entries

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journal(place: Path) -> Iterator[Journal]:
    made = Journal(place / "journal")
    yield made
    made.close()


@pytest.fixture
def service(place: Path, journal: Journal, plain: Receiver) -> Iterator[Service]:
    made = Service(place, None)
    made.write_config(
        f'socket = "{journal.path}"',
        f"""
[capture]
host_root = "{place / "h"}"
[sinks.otlp]
url = "{plain.url}"
encoding = "json"
""",
    )
    made.state.mkdir()
    for path in (made.state, made.jsonl):
        os.chown(path, NOBODY, NOBODY)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def plain() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def told_of(service: Service, container: str) -> dict[str, Any] | None:
    """The first event of a kill in that container."""
    for event in service.lines():
        if container in (victim_of(event).get("cgroup") or ""):
            found: dict[str, Any] = event
            return found
    return None


def victim_of(event: dict[str, Any]) -> dict[str, Any]:
    """Whose the victim was."""
    return next((one for one in event["attribution"] if one["role"] == "victim"), {})


def entry_of(journal: Journal, event_id: str) -> dict[str, str] | None:
    """The one entry of that event, as soon as it is written."""
    found = [one for one in journal.read() if one.get("OOM_EVENT_ID") == event_id]
    assert len(found) <= 1
    return found[0] if found else None


def counted(service: Service, labels: dict[str, str]) -> float:
    """The kills of that container by the metric."""
    samples = service.samples()["oomwatchd_container_oom_kills_total"]
    [value] = [value for found, value in samples if found == labels]
    return value


def by_otlp(plain: Receiver, event_id: str) -> dict[str, str]:
    """The attributes of that event's log record."""
    for request in plain.taken():
        for resource in request.json()["resourceLogs"]:
            for record in resource["scopeLogs"][0]["logRecords"]:
                named = {one["key"]: one["value"].get("stringValue") for one in record["attributes"]}
                if named.get("log.record.uid") == event_id:
                    return named
    return {}


@pytest.mark.parametrize("kind", [Podman, Containerd, Docker])
def test_every_kill_in_a_container_is_told_by_its_name_everywhere(
    kind: type[Engine], place: Path, helper: Helper, service: Service, journal: Journal, plain: Receiver
) -> None:
    if lacks := missing(kind):
        pytest.skip(f"not here: {', '.join(lacks)}")
    engine = kind(place / "h", place / "engine")
    latencies, labels = [], []
    try:
        engine.start()
        for _ in range(3):
            container, name = engine.run(after_seconds=3)
            event = wait_for("the kill to be told", partial(told_of, service, container), 60)
            victim = victim_of(event)
            assert (victim["container_name"], victim["container_id"]) == (name, container), service.log()
            assert name in event["summary"]
            latencies.append(event["time"]["detection_latency_seconds"])
            parts = name.split("/")
            namespace, pod, own = parts if len(parts) == 3 else ("", "", name)

            entry = wait_for("the entry", partial(entry_of, journal, event["id"]))
            assert (entry["OOM_CONTAINER_NAME"], entry["OOM_CONTAINER_ID"]) == (own, container)
            assert (entry.get("OOM_POD_NAMESPACE", ""), entry.get("OOM_POD_NAME", "")) == (namespace, pod)

            labels.append({"namespace": namespace, "pod": pod, "container": own})
            assert counted(service, labels[-1]) == 0.0, "a new series begins at 0"

            sent = wait_for("the record by OTLP", partial(by_otlp, plain, event["id"]))
            assert sent["container.id"] == container
            assert (sent.get("k8s.namespace.name") or "", sent.get("k8s.pod.name") or "") == (namespace, pod)
            assert sent["k8s.container.name" if pod else "container.name"] == own
    finally:
        engine.stop()
    # what was counted before is shown at once
    assert service.stop() == 0
    service.start()
    assert [counted(service, one) for one in labels] == [1.0] * 3
    # Podman's names are in the command line of conmon, which anybody may read while the container lives
    assert helper.started or kind is Podman
    wait_for("the helper to end", lambda: helper.ended == helper.started)
    print(
        f"{kind.__name__}: helper started {helper.started} times, {helper.cpu_seconds:.2f} s of CPU;"
        f" events ready at most {max(latencies):.3f} s after the kill"
    )
