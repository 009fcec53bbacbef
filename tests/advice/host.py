"""Scenarios in memory cgroups of this host: at most 3 GiB together, in a separate mount namespace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.advice.machine import HERE, causes
from tests.advice.run import Order, Ran, ran, script

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_ALL = str(3 << 30)


def version() -> int | None:
    """Which memory cgroups this host lets us make: 1, 2, None."""
    for number, root in ((1, _V1), (2, _V2)):
        controllers = root / "cgroup.controllers"
        there = root.is_dir() and (
            number == 1 or "memory" in (controllers.read_text() if controllers.exists() else "")
        )
        if there and os.access(root, os.W_OK):
            return number
    return None


def run(order: Order, cache: Path, name: str, daemon: Path | None) -> Ran:
    """Run one scenario. ``daemon``: the configuration of one that watches, None for none."""
    number = version()
    group = f"advice-{os.getpid()}-{name.replace('-', '')}-{time.monotonic_ns() % 10**6}"
    root = (_V1 if number == 1 else _V2) / group
    root.mkdir()
    (root / ("memory.limit_in_bytes" if number == 1 else "memory.max")).write_text(_ALL)
    if number == 2:
        (root / "cgroup.subtree_control").write_text("+memory")
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(log, 0, os.SEEK_END)
    timed_out = False
    try:
        with tempfile.TemporaryDirectory() as directory:
            helper = Path(directory) / "causes"
            helper.symlink_to(causes(cache))
            body = f"""export CGROUPS={root} VERSION={number} PATH={directory}:$PATH
. {HERE}/common.sh
{script(order)}
echo @@START
( work ); echo "@@RESULT rc=$? kills=0"; sleep 0.5
echo @@LOOKS; ( looks ); echo @@LOOKED
"""
            (Path(directory) / "run.sh").write_text(body)
            words = ["unshare", "-m", "bash", f"{directory}/run.sh"]
            try:
                out = subprocess.run(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=order.seconds,
                    check=False,
                ).stdout
            except subprocess.TimeoutExpired as ended:
                out, timed_out = ended.stdout or b"", True
        kmsg = b"".join(_rest(log))
        if daemon is not None:
            time.sleep(7)
    finally:
        os.close(log)
        _empty(root)
    live = [] if daemon is None else stored(daemon)
    return ran(out.decode(errors="replace"), kmsg, live, timed_out=timed_out, group=group)


def _rest(log: int) -> Iterator[bytes]:
    while True:
        try:
            yield os.read(log, 16384)
        except BlockingIOError:
            return
        except BrokenPipeError:
            continue


def _empty(root: Path) -> None:
    """Kill what is left below ``root`` and remove it."""
    groups = [root, *sorted(p for p in root.rglob("*") if p.is_dir())][::-1]
    for _ in range(50):
        left = [int(pid) for group in groups for pid in (group / "cgroup.procs").read_text().split()]
        if not left:
            break
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)
    for group in groups:
        group.rmdir()


@contextmanager
def watching() -> Iterator[Path]:
    """A daemon of this working tree; its configuration."""
    with tempfile.TemporaryDirectory(prefix="advice-daemon-") as directory:
        config = Path(directory) / "oomwatchd.toml"
        config.write_text(f'state_directory = "{directory}/state"\n[http]\nlisten = "127.0.0.1:10997"\n')
        words = [sys.executable, "-m", "oomwatchd", "run", "--config", str(config)]
        with (
            (Path(directory) / "log").open("wb") as log,
            subprocess.Popen(words, stdout=log, stderr=log) as daemon,
        ):
            time.sleep(4)
            try:
                yield config
            finally:
                daemon.terminate()


def stored(config: Path) -> list[str]:
    """What the daemon has stored, one event a line."""
    words = [sys.executable, "-m", "oomwatchd", "events", "export", "--config", str(config)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
