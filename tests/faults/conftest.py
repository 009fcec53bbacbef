"""A daemon under test, a cgroup to kill in, and what must hold at the end of every fault."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatchd.cli import throwaway
from tests.faults.storm import LIMIT_BYTES
from tests.kernel.running import RunningDaemon, kernel_oom_kills


def number(name: str, default: int) -> int:
    """A size of a test that the environment may raise."""
    return int(os.environ.get(name, default))


@pytest.fixture
def cage() -> Iterator[Path]:
    """A memory cgroup with a limit of LIMIT_BYTES."""
    with throwaway._directory(f"oomwatchd-fault-{secrets.token_hex(4)}") as directory:
        hierarchy = throwaway.memory_hierarchy()
        (directory / hierarchy.files.limit).write_text(str(LIMIT_BYTES))
        yield directory


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    """A daemon that is not started yet."""
    running = RunningDaemon(tmp_path, None)
    yield running
    running.kill()


@contextlib.contextmanager
def tmpfs(directory: Path, options: str) -> Iterator[Path]:
    """A small file system of its own."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


class Ledger:
    """The kernel's count of kills since now, against what the daemon counted and stored."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self._daemon = daemon
        self.began = kernel_oom_kills()
        self.counted = daemon.metric("oomwatchd_oom_kills_total")
        self.before = {event["id"] for event in daemon.stored()}

    def balance(self) -> int:
        """Kernel counter, metrics and store agree, and no id is there twice; how many kills it were."""
        self._daemon.settled()
        kernel = kernel_oom_kills() - self.began
        assert self._daemon.metric("oomwatchd_oom_kills_total") - self.counted == kernel
        stored = self._daemon.stored()
        ids = [event["id"] for event in stored]
        assert len(ids) == len(set(ids)), "an id twice"
        # what was in the ring before the first start is stored, too, in its own time
        new = [event for event in stored if event["id"] not in self.before and not event["historical"]]
        assert sum(event["kills"] for event in new) == kernel
        return kernel
