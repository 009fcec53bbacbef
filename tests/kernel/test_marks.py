"""Swap that comes and goes, for real: what the flight recorder marks, and what the reports say of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oomwatchd.cli import throwaway
from tests.kernel.running import RunningDaemon, wait_for
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.oom, pytest.mark.slow]

#: as small as mkswap takes with ease: others on this machine may swap to it meanwhile
AREA = 128 << 10


@contextlib.contextmanager
def swap_area(directory: Path) -> Iterator[Path]:
    """A small swap file, not yet in use; out of use again whatever happens."""
    if os.geteuid() != 0 or shutil.which("mkswap") is None:
        pytest.skip("needs root and mkswap")
    file = directory / "swap area"
    with file.open("wb") as area:
        area.write(bytes(AREA))
    file.chmod(0o600)
    subprocess.run(["mkswap", file], check=True, capture_output=True)
    try:
        yield file
    finally:
        if str(file).encode() in Path("/proc/swaps").read_bytes().replace(b"\\040", b" "):
            wait_for("swapoff", lambda: swapped_off(file))


def swapped_off(file: Path) -> bool:
    """It fails while pages in swap belong to a cgroup at its limit."""
    return subprocess.run(["swapoff", file], check=False, capture_output=True).returncode == 0


def test_a_swap_area_that_came_and_went_is_marked(daemon: RunningDaemon, tmp_path: Path) -> None:
    with swap_area(tmp_path) as file:
        done = subprocess.run(["swapon", file], check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no swap on this file system: {done.stderr.strip()}")
        time.sleep(2)  # for the daemon to see it in use
        wait_for("swapoff", lambda: swapped_off(file))

    def kill() -> dict[str, Any] | None:
        with throwaway.victim() as victim:
            victim.exceed()
            victim.wait(PATIENCE)
        (event,) = wait_for("the event", lambda: daemon.lines_of(victim.comm))
        return event if event["marks"] else None  # the wake up may still be on its way

    event = wait_for("a kill with marks", kill)
    marks = [mark for mark in event["marks"] if mark["name"] == str(file)]
    assert [mark["kind"] for mark in marks] == ["swap_on", "swap_off"]
    size = AREA - os.sysconf("SC_PAGE_SIZE")
    assert (marks[0]["after_bytes"], marks[1]["before_bytes"]) == (size, size)
    assert marks[0]["usec"] <= marks[1]["usec"]
    removed = [f for f in event["findings"] if f["id"] == "memory_removed_before"]
    assert [f["evidence"]["swap"] for f in removed] == [str(file)]
    text = " ".join(daemon.events("show", event["id"]).stdout.split())
    assert "swap area out of use" in text
