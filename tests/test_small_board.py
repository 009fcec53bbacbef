"""The real daemon as boards have it: a clock that begins in 1970, a root that is read-only, a log on tmpfs, a
store of 256 KiB. (``python -m tests.vm small`` shows the same on a kernel of its own.)"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE

CONFIG = Path(__file__).parent / "vm/small.toml"
#: the clock that the daemon sees is the machine's, shifted by what a file says
CODE = """\
import os, sys, time
os.dup2({reading}, 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="kmsg")
real = time.time
time.time = lambda: real() + float(open({shift!r}).read() or 0)
from oomwatchd.cli import main
sys.exit(main(["run", "--config", {config!r}]))
"""
KILL = (
    "3,{seq},{usec},-;Out of memory: Killed process {pid} (app) total-vm:104000kB, anon-rss:90000kB,"
    " file-rss:10000kB, shmem-rss:0kB, UID:0 pgtables:220kB oom_score_adj:0\n"
)


class Board:
    """A daemon whose kernel log is a pipe of packets."""

    def __init__(self, log: Path, process: subprocess.Popen[str], kernel: int) -> None:
        self.process, self._kernel = process, kernel
        self.log = log
        self.said = ""

    def kill(self, pid: int) -> None:
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        os.write(self._kernel, KILL.format(seq=pid, usec=usec, pid=pid).encode())

    def told(self, count: int) -> list[dict[str, Any]]:
        """The events, once there are so many."""
        end = time.monotonic() + PATIENCE
        while not self.log.exists() or len(lines := self.log.read_text().splitlines()) < count:
            assert time.monotonic() < end and self.process.poll() is None, self.said
            time.sleep(0.02)
        return [json.loads(line) for line in lines]

    def written(self) -> int:
        """Bytes that it had written to a disk."""
        io = Path(f"/proc/{self.process.pid}/io").read_text()
        return next(int(line.split()[1]) for line in io.splitlines() if line.startswith("write_bytes:"))


@contextmanager
def running(
    directory: Path, *wrap: str, state: Path | None = None, log: Path | None = None
) -> Iterator[Board]:
    config = directory / "config.toml"
    state, log = state or directory / "state", log or directory / "events.jsonl"
    config.write_text(CONFIG.read_text().replace("@STATE@", str(state)).replace("@LOG@", str(log)))
    reading, writing = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    code = CODE.format(reading=reading, shift=str(directory / "shift"), config=str(config))
    with subprocess.Popen(
        [*wrap, sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, pass_fds=(reading,)
    ) as process:
        os.close(reading)
        board = Board(log, process, writing)
        os.write(writing, b"6,0,1000,-;Linux version 6.1.0\n")
        assert process.stderr is not None
        while "watching since" not in board.said:
            line = process.stderr.readline()
            assert line, board.said
            board.said += line
        try:
            yield board
        finally:
            process.send_signal(signal.SIGTERM)
            board.said += process.stderr.read()
            process.wait(20)
            os.close(writing)


def test_a_clock_that_begins_in_1970_and_is_set(tmp_path: Path) -> None:
    shift = tmp_path / "shift"
    shift.write_text(str(60 - time.time()))
    with running(tmp_path) as board:
        board.kill(1)
        board.told(1)
        shift.write_text("0")  # NTP has the time
        board.kill(2)
        first, second = board.told(2)
    assert first["time"]["wall"].startswith("1970-01-01T00:01")
    assert second["time"]["wall"][:2] == "20"
    assert 0 <= second["time"]["detection_latency_seconds"] < 20
    with running(tmp_path) as board:  # what is 56 years old is neither deleted nor told again
        board.kill(3)
        assert [event["victims"][0]["pid"] for event in board.told(3)] == [1, 2, 3]
    command = [sys.executable, "-m", "oomwatchd", "events", "--state-directory", str(tmp_path / "state")]
    exported = subprocess.run([*command, "export"], capture_output=True, text=True, check=True).stdout
    assert sorted(json.loads(line)["victims"][0]["pid"] for line in exported.splitlines()) == [1, 2, 3]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_root_that_is_read_only_and_a_log_on_tmpfs(tmp_path: Path) -> None:
    (tmp_path / "shift").touch()
    log = tmp_path / "log"
    log.mkdir()
    script = f'mount -t tmpfs -o size=1M log {log} && mount -o remount,bind,ro / && exec "$@"'
    wrap = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh")
    probe = subprocess.run([*wrap, "touch", "/etc/no"], capture_output=True, text=True, check=False)
    if "Read-only" not in probe.stderr:
        pytest.skip(f"no read-only root can be had here: {probe.stderr}")
    state = Path("/var/lib/oomwatchd-board/state")
    with running(tmp_path, *wrap, state=state, log=log / "events.jsonl") as board:
        board.log = Path(f"/proc/{board.process.pid}/root{log}/events.jsonl")
        board.kill(7)
        (event,) = board.told(1)
    assert event["victims"][0]["pid"] == 7
    assert "in memory" in board.said
    assert not state.parent.exists() and not (log / "events.jsonl").exists()


def test_a_store_of_256_kib_stays_small_and_wears_no_flash(tmp_path: Path) -> None:
    (tmp_path / "shift").touch()
    with running(tmp_path) as board:
        for pid in range(1, 41):
            board.kill(pid)
            board.told(pid)
        before = board.written()
        time.sleep(0.3)
        assert board.written() == before  # nothing happens, nothing is written
        each = before / 40
    size = sum(path.stat().st_size for path in (tmp_path / "state").iterdir())
    assert size <= 400 << 10, size
    assert each <= 200 << 10, each
    print(f"{size} bytes on disk, {each:.0f} bytes written for each event")
