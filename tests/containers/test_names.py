"""The packaged service names the containers of real engines: its user, its capability, the helper's mounts.

What only a service manager can do (system call filters, OpenFile=) is not here.
"""

from __future__ import annotations

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
from tests.kernel.running import RunningDaemon, command, wait_for

pytestmark = [pytest.mark.oom, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent.parent
UNITS = ROOT / "packaging/systemd"
NOBODY = 65534


def setting(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.M)


def unprivileged(unit: str) -> list[str]:
    """A command line that goes on as the unit's user, with its groups and capabilities."""
    names = " ".join(setting(unit, "AmbientCapabilities")).split()
    caps = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in names)])
    groups = [str(grp.getgrnam(name).gr_gid) for name in setting(unit, "SupplementaryGroups")]
    user = NOBODY if setting(unit, "DynamicUser") == ["yes"] else 0
    return [
        *("setpriv", f"--reuid={user}", f"--regid={user}", "--no-new-privs"),
        *(["--groups", ",".join(groups)] if groups else ["--clear-groups"]),
        *(f"--inh-caps={caps}", f"--ambient-caps={caps}", f"--bounding-set={caps}"),
    ]


class Service(RunningDaemon):
    """The daemon as its unit starts it: the kernel log is an open descriptor."""

    def spawn(self) -> None:
        script = 'exec 3</dev/kmsg; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=kmsg; exec "$@"'
        program = [*unprivileged("oomwatchd.service"), *command("run", "--config", str(self.config))]
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


@pytest.fixture
def service(place: Path) -> Iterator[Service]:
    made = Service(place, None)
    made.write_config("enabled = false", f'[capture]\nhost_root = "{place / "h"}"')
    made.state.mkdir()
    for path in (made.state, made.jsonl):
        os.chown(path, NOBODY, NOBODY)
    made.start()
    yield made
    made.kill()


def killed_in(service: Service, container: str) -> dict[str, Any] | None:
    """What the first event of a kill in that container says of its victim."""
    for event in service.lines():
        for owner in event["attribution"]:
            if owner["role"] == "victim" and container in (owner["cgroup"] or ""):
                found: dict[str, Any] = owner
                return found
    return None


@pytest.mark.parametrize("kind", [Podman, Containerd, Docker])
def test_kills_in_a_container_are_told_by_its_name(
    kind: type[Engine], place: Path, helper: Helper, service: Service
) -> None:
    if lacks := missing(kind):
        pytest.skip(f"not here: {', '.join(lacks)}")
    engine = kind(place / "h", place / "engine")
    try:
        engine.start()
        for _ in range(3):
            container, name = engine.run(after_seconds=3)
            told = wait_for("the kill to be told", partial(killed_in, service, container), 60)
            assert (told["container_name"], told["container_id"]) == (name, container), service.log()
    finally:
        engine.stop()
    # Podman's names are in the command line of conmon, which anybody may read
    assert bool(helper.started) == (kind is not Podman)
    wait_for("the helper to end", lambda: helper.ended == helper.started)
    print(f"{kind.__name__}: helper started {helper.started} times, {helper.cpu_seconds:.2f} s of CPU")
