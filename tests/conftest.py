"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatchd.sources.tracefs import ROOTS
from tests.kernel.running import RunningDaemon

# What a background shell or nohup ignores, the programs under test would ignore too.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL)


def corpus_directory() -> Path:
    """Where the recorded kernel logs are: tests/data/corpus, or what OOMWATCHD_CORPUS names."""
    return Path(os.environ.get("OOMWATCHD_CORPUS") or Path(__file__).resolve().parent / "data" / "corpus")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The corpus directory (its README says what is in it)."""
    directory = corpus_directory()
    if not directory.is_dir():
        pytest.fail(f"no corpus at {directory}: OOMWATCHD_CORPUS is wrong")
    return directory


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    """A daemon that runs and is ready, without a journal."""
    running = RunningDaemon(tmp_path, None)
    try:
        running.start()
        yield running
    finally:
        running.kill()


@pytest.fixture
def tracefs() -> Iterator[None]:
    """The trace point of OOM victims, mounted for the test where nobody has."""
    if any((root / "events/oom/mark_victim").exists() for root in ROOTS):
        yield
        return
    mount = ["mount", "-t", "tracefs", "tracefs", str(ROOTS[0])]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this kernel or sandbox has no tracefs: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(ROOTS[0])], check=True)
