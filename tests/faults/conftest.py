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
from tests.faults.storm import LIMIT_BYTES, token
from tests.kernel.running import Bracket, RunningDaemon, kills_in, wait_for


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
    """The kernel's count of kills in the cage since now, against what the daemon stored of it; and its count
    of all kills of the machine, against what the daemon counted."""

    def __init__(self, daemon: RunningDaemon, cage: Path) -> None:
        self._daemon = daemon
        self._cage = cage
        self.began = kills_in(cage)
        self.before = self.stored_of_cage()
        self._all = Bracket(daemon)

    def stored_of_cage(self) -> int:
        """Kills of this cage that are stored; no id is there twice."""
        events = self._daemon.stored()
        ids = [event["id"] for event in events]
        assert len(ids) == len(set(ids)), "an id twice"
        # what was in the ring before the first start is stored, too, in its own time
        named = [v for event in events if not event["historical"] for v in event["victims"]]
        return sum(victim["kills"] for victim in named if victim["comm"].startswith(token(self._cage)))

    def balance(self) -> int:
        """Checks that the cage's own count equals its stored kills and that the daemon's count equals the
        kernel's. Returns the number of the cage's kills."""
        self._all.close()
        kernel = kills_in(self._cage) - self.began
        wait_for(
            f"the cage's {kernel} kills in the store",
            lambda: self.stored_of_cage() - self.before >= kernel,
        )
        assert self.stored_of_cage() - self.before == kernel
        return kernel
