"""A daemon of its own for bench_footprint: as installed, fed from a pipe, and looked at from outside.

As installed: of the packages in this environment it sees those that the project needs at run time, compiled
before, and nothing of what developers have beside them (an editable install alone costs 2 MiB). The
environment variables are those of the unit. The kernel log is a packet pipe, so that what else happens on
the machine is no part of the figures.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import oomwatchd

UNIT = Path(oomwatchd.__file__).parent.parent / "packaging/systemd/oomwatchd.service"


def _needed(distribution: str, found: set[str]) -> set[str]:
    """What a distribution needs at run time, as far as it is installed, added to ``found``."""
    for line in metadata.requires(distribution) or ():
        matched = re.match(r"[\w.-]+", line)
        if matched is None or "extra ==" in line or matched[0].lower() in found:
            continue
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.distribution(matched[0])
            found.add(matched[0].lower())
            _needed(matched[0], found)
    return found


def install(directory: Path) -> dict[str, str]:
    """The environment of a process that sees the project and what it needs, from ``directory``."""
    site = directory / "site"
    site.mkdir()
    (site / "oomwatchd").symlink_to(Path(oomwatchd.__file__).parent)
    for name in _needed("oomwatchd", set()):
        for file in metadata.files(name) or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(str(metadata.distribution(name).locate_file(top))))
    said = re.search(r"^Environment=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert said is not None
    environ = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    environ |= dict(pair.split("=", 1) for pair in said[1].split())
    return environ | {"PYTHONPATH": str(site), "PYTHONPYCACHEPREFIX": str(directory / "compiled")}


#: -S: no .pth file of the environment, which a host has not
PYTHON = [sys.executable, "-S"]
COMMAND = [*PYTHON, "-m", "oomwatchd"]


class Process:
    """A running process, looked at from outside."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def memory_kib(self) -> dict[str, int]:
        """``/proc/PID/smaps_rollup``: proc(5)."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}

    def _tasks(self) -> Iterator[Path]:
        return Path(f"/proc/{self.pid}/task").iterdir()

    def cpu_seconds(self) -> float:
        """Of all threads that there are: to the nanosecond (``/proc/PID/schedstat``)."""
        return sum(int((task / "schedstat").read_text().split()[0]) for task in self._tasks()) / 1e9

    def wakeups(self) -> dict[str, int]:
        """How often each thread has gone to sleep of its own will."""
        found: dict[str, int] = {}
        for task in self._tasks():
            status = (task / "status").read_text()
            switches = re.search(r"^voluntary_ctxt_switches:\s+(\d+)$", status, re.MULTILINE)
            assert switches is not None
            name = f"{(task / 'comm').read_text().strip()} {task.name}"
            found[name] = int(switches[1])
        return found

    def written_bytes(self) -> tuple[int, int]:
        """What was written to a disk's page cache, and by any ``write()`` at all (``/proc/PID/io``)."""
        io = dict(re.findall(r"^(\w+): (\d+)$", Path(f"/proc/{self.pid}/io").read_text(), re.MULTILINE))
        return int(io["write_bytes"]), int(io["wchar"])


class Running(Process):
    """One run of the daemon."""

    def __init__(self, directory: Path, environ: dict[str, str], config: str) -> None:
        self._log = (directory / "log").open("w+")
        (directory / "config.toml").write_text(config)
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = directory / "notify"
        path.unlink(missing_ok=True)
        notify.bind(str(path))
        notify.settimeout(60)
        reading, self.kmsg = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
        # LISTEN_PID is the daemon's own, which the shell becomes; descriptors are passed from 3 on
        script = 'exec 3<"/proc/self/fd/$1"; shift; LISTEN_PID=$$ exec "$@"'
        command = [*COMMAND, "run", "--config", str(directory / "config.toml")]
        began = time.monotonic()
        self._process = subprocess.Popen(
            ["sh", "-c", script, "sh", str(reading), *command],
            env=environ | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "kmsg", "NOTIFY_SOCKET": str(path)},
            pass_fds=(reading,),
            stderr=self._log,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
        super().__init__(self._process.pid)
        os.close(reading)
        try:
            while b"READY=1" not in notify.recv(4096).split(b"\n"):
                pass
        except TimeoutError:
            raise RuntimeError(f"the daemon does not become ready: {self.log()}") from None
        finally:
            notify.close()
        #: from fork to READY=1
        self.seconds_to_ready = time.monotonic() - began

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def write(self, records: str) -> None:
        """Records as /dev/kmsg gives them, one a line."""
        for line in records.strip().splitlines():
            os.write(self.kmsg, line.encode() + b"\n")

    def modules(self) -> set[str]:
        """Files of shared libraries in its memory."""
        maps = Path(f"/proc/{self.pid}/maps").read_text()
        return {Path(path).name for path in re.findall(r"(/\S+\.so\S*)$", maps, re.MULTILINE)}

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self.kmsg)
        self._log.close()
