"""The real daemon as a process of its own, and the questions that its users would ask it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from tests.waiting import PATIENCE

T = TypeVar("T")


def wait_for(what: str, ask: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """The first true answer; asks again and again until the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}; last answer: {answer!r}"
        time.sleep(0.02)


def kernel_oom_kills() -> int:
    """The kernel's own counter."""
    words = Path("/proc/vmstat").read_text().split()
    return int(words[words.index("oom_kill") + 1])


def kills_in(cgroup: Path) -> int:
    """The kernel's count of kills in one cgroup: what a neighbour's kills are not in."""
    for name in ("memory.events", "memory.oom_control"):
        if (cgroup / name).exists():
            words = (cgroup / name).read_text().split()
            return int(words[words.index("oom_kill") + 1])
    raise AssertionError(f"{cgroup} is no memory cgroup")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "oomwatchd", *arguments]


class RunningDaemon:
    """``oomwatchd run`` with a configuration, a state directory and a port of its own."""

    def __init__(self, directory: Path, journal_socket: Path | None) -> None:
        self.config = directory / "config.toml"
        self.state = directory / "state"
        self.jsonl = directory / "events.jsonl"
        self._log = directory / "log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        journal = f'socket = "{journal_socket}"' if journal_socket else "enabled = false"
        self.write_config(journal)
        self.jsonl.touch()
        self._process: subprocess.Popen[bytes] | None = None

    def write_config(self, journal: str, more: str = "") -> None:
        self.config.write_text(
            f"""
state_directory = "{self.state}"
{more}
[http]
listen = "127.0.0.1:{self.port}"
[sinks.journal]
{journal}
[sinks.jsonl]
path = "{self.jsonl}"
"""
        )

    # -- its life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when it is ready."""
        self.spawn()
        wait_for("/-/ready", self._is_ready)

    def spawn(self) -> None:
        """Returns at once."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command("run", "--config", str(self.config)), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, f"the daemon ended:\n{self.log()}"
        try:
            return self.get("/-/ready")[0] == 200
        except OSError:
            return False

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def log_file(self) -> Path:
        """Where its standard error goes."""
        return self._log

    # -- what it says ------------------------------------------------------------------------------

    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def samples(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """/metrics: each sample's labels and value, by name."""
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def metric(self, name: str) -> int:
        """Sum over all labels."""
        return int(sum(value for _, value in self.samples()[name]))

    def settled(self) -> None:
        """Returns when nothing that the kernel has counted by now is unaccounted for."""
        kernel = kernel_oom_kills()
        wait_for(
            "oomwatchd_kernel_oom_kills_total to be the kernel's and oomwatchd_oom_kills_unaccounted to be 0",
            lambda: (
                self.metric("oomwatchd_kernel_oom_kills_total") >= kernel
                and self.metric("oomwatchd_oom_kills_unaccounted") == 0
            ),
        )

    def lines(self) -> list[dict[str, Any]]:
        """The events in the JSON Lines file; a line that is being written is none yet."""
        whole, _, _ = self.jsonl.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def lines_of(self, comm: str) -> list[dict[str, Any]]:
        """Those that name this victim."""
        return [line for line in self.lines() if any(v["comm"] == comm for v in line["victims"])]

    def stored(self) -> list[dict[str, Any]]:
        """All events in the store, as ``oomwatchd events export`` gives them."""
        done = self.events("export")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def events(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``oomwatchd events`` beside the running daemon."""
        return oomwatchd("events", "--config", str(self.config), *arguments)

    def stored_of(self, comm: str) -> list[dict[str, Any]]:
        return [event for event in self.stored() if any(v["comm"] == comm for v in event["victims"])]


#: beside a storm of others the daemon counts a kill later than the kernel does, by less than this
LAG_SECONDS = 1.0


class Bracket:
    """Compares the daemon's count from now on with the kernel's count for the whole machine. A neighbour may
    change the kernel's count at any moment, so it is read before and after each reading of ours, and ours
    must lie between."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self._daemon = daemon
        self._low = kernel_oom_kills()
        time.sleep(LAG_SECONDS)
        self._counted = daemon.metric("oomwatchd_oom_kills_total")
        self._high = kernel_oom_kills()

    def agrees(self) -> bool:
        """The daemon has counted what the kernel has."""
        low = kernel_oom_kills() - self._high
        ours = self._daemon.metric("oomwatchd_oom_kills_total") - self._counted
        assert ours <= kernel_oom_kills() - self._low, "more kills than the kernel has counted"
        return ours >= low

    def close(self) -> None:
        """Wait until they agree."""
        wait_for("the daemon's count to be the kernel's", self.agrees)


def oomwatchd(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """A command beside the daemon, which must end with ``status``."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
    return done
