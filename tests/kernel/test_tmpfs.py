"""A tmpfs that fills up until its writer's cgroup is at its limit, for real."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oomwatchd.cli import throwaway
from tests.kernel.running import RunningDaemon, wait_for
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.oom, pytest.mark.slow]

MIB = 1 << 20
LIMIT = 64 * MIB
#: MiB a second
RATE = 10
#: the kernel prints ten reports in five seconds, whoever provokes them
ATTEMPTS = 3
#: a MiB each tenth of a second, by the clock, into a file of the directory that is named
FILL = f"""
import sys, time
open("/proc/self/comm", "w").write(sys.argv[1])
open("/proc/self/oom_score_adj", "w").write("1000")
directory = sys.stdin.readline().rstrip("\\n")
began = time.monotonic()
with open(directory + "/file", "wb", buffering=0) as file:
    for step in range(1, 400):
        file.write(bytes({MIB}))
        time.sleep(max(0.0, began + step / {RATE} - time.monotonic()))
"""


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "fast"
    directory.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128M", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def fill(tmpfs: Path, daemon: RunningDaemon) -> dict[str, Any]:
    """The event of a writer that was killed, called by a name of its own."""
    name = f"fill{secrets.token_hex(4)}"
    with throwaway._directory(f"oomwatchd-{name}") as directory:
        for file in ("memory.limit_in_bytes", "memory.max"):
            if (directory / file).exists():
                (directory / file).write_text(str(LIMIT))
        if (directory / "memory.swap.max").exists():
            (directory / "memory.swap.max").write_text("0")
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", FILL, name], stdin=subprocess.PIPE)
        (directory / "cgroup.procs").write_text(str(child.pid))
        assert child.stdin is not None
        child.stdin.write(f"{tmpfs}\n".encode())
        child.stdin.close()
        child.wait(2 * PATIENCE)
        (event,) = wait_for("the event", lambda: daemon.lines_of(name))
        (tmpfs / "file").unlink()
    return event


def test_the_mount_that_grew_is_named(tmpfs: Path, daemon: RunningDaemon) -> None:
    daemon.write_config("enabled = false", "[recorder]\ninterval_seconds = 1")
    assert daemon.stop() == 0
    daemon.start()
    for _ in range(ATTEMPTS):
        event = fill(tmpfs, daemon)
        if "memcg" not in event["missing"]:
            break
    else:
        pytest.skip("the kernel left the cgroup's part out each time: others kill here, too")
    said = {finding["id"]: finding["evidence"] for finding in event["findings"]}
    assert said["tmpfs_grew"]["mount"] == str(tmpfs)
    # a machine under load writes more slowly, never faster
    assert 60 * MIB < said["tmpfs_grew"]["growth_per_minute_bytes"] < 1.2 * 60 * RATE * MIB
    assert said["tmpfs_grew"]["last_bytes"] > LIMIT / 2
    assert "shmem_large" in said
    (track,) = [t for t in event["tracks"] if t["kind"] == "tmpfs" and t["name"] == str(tmpfs)]
    amounts = [amount for _, amount in track["points"]]
    # earlier attempts stand before it
    climb = amounts[-3:]
    assert climb == sorted(climb) and climb[-1] > climb[0]
