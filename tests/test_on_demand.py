"""The daemon that a kill starts and that ends: what it counts, what it leaves for node_exporter, who starts
it without systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from oomwatchd.cli import main
from oomwatchd.config import parse
from oomwatchd.daemon.on_demand import OnDemand
from oomwatchd.daemon.textfile import Textfile
from oomwatchd.errors import ConfigError
from oomwatchd.metrics import Metrics
from tests import samples
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "packaging/ondemand/oomwatchd-ondemand"
SHELLS = [[name] for name in ("dash", "bash") if shutil.which(name)]
SHELLS += [["busybox", "sh"]] if shutil.which("busybox") else []


def lines(path: Path) -> dict[str, float]:
    pairs = [line.rpartition(" ") for line in path.read_text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


# -- the file --------------------------------------------------------------------------------------


def test_the_file_is_written_when_something_was_counted_and_not_else(tmp_path: Path) -> None:
    metrics = Metrics()
    path = tmp_path / "oomwatchd.prom"
    textfile = Textfile(path, metrics, alone=True)
    textfile.write()
    first = path.stat()
    assert first.st_mode & 0o777 == 0o644
    assert lines(path)['oomwatchd_oom_kills_total{constraint="memcg"}'] == 0
    metrics.records(100)  # the kernel's log goes on, which is not worth a write
    for _ in range(3):
        textfile.write()
    assert path.stat().st_ino == first.st_ino
    metrics.count(samples.event(), 1, 1, 0)
    textfile.write()
    assert path.stat().st_ino != first.st_ino
    found = lines(path)
    assert sum(value for name, value in found.items() if name.startswith("oomwatchd_oom_kills_total")) == 1
    assert not any("zone_headroom" in name for name in found)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_directory_that_is_not_there_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    textfile = Textfile(tmp_path / "later" / "oomwatchd.prom", metrics, alone=True)
    for _ in range(3):
        textfile.write()
    assert len(caplog.records) == 1
    (tmp_path / "later").mkdir()
    textfile.write()
    assert (tmp_path / "later" / "oomwatchd.prom").exists()


@pytest.mark.parametrize("path", ["oomwatchd.prom", "/run/oomwatchd.txt"])
def test_a_name_that_node_exporter_does_not_read_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.textfile"):
        parse({"metrics": {"textfile": path}}, "x")


# -- when it ends ----------------------------------------------------------------------------------


def test_it_ends_when_nothing_was_under_way_for_so_long() -> None:
    reading, writing = os.pipe()
    try:
        one = OnDemand(10, [reading], 0.0)
        assert not one.expired(False, 9.0)
        assert not one.expired(True, 9.5)
        assert not one.expired(False, 19.0)
        assert one.seconds_left(19.0) == 0.5
        assert one.expired(False, 19.5)
        os.write(writing, b"kill\n" * 10_000)
        one.drain()
        assert os.get_blocking(reading), "a shell that reads it next must wait in it"
        os.set_blocking(reading, False)
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)
    finally:
        os.close(reading)
        os.close(writing)


RECORDS = (
    "6,0,1000,-;Linux version 6.1.0\n",
    "3,{seq},{usec},-;Out of memory: Killed process {pid} (app) total-vm:104000kB, anon-rss:90000kB,"
    " file-rss:10000kB, shmem-rss:0kB, UID:0 pgtables:220kB oom_score_adj:0\n",
)


def run_once(directory: Path, pids: Sequence[int]) -> dict[str, float]:
    """A start with a kill in the ring, until it ends by itself; the metrics that it leaves."""
    config = directory / "config.toml"
    config.write_text(
        f'state_directory = "{directory}/state"\nexit_after_idle_seconds = 1\n[http]\nlisten = ""\n'
        f'[metrics]\ntextfile = "{directory}/oomwatchd.prom"\n[recorder]\nenabled = false\n'
        "[sinks.journal]\nenabled = false\n"
    )
    reading, writing = os.pipe2(os.O_DIRECT)
    trigger, fired = os.pipe()
    os.write(fired, b"mark_victim: pid=1\n")
    os.write(writing, RECORDS[0].encode())
    for pid in pids:
        os.write(writing, RECORDS[1].format(seq=pid, usec=1000 * pid + 1000, pid=pid).encode())
    script = (
        f"import os, sys\nos.dup2({reading}, 3)\nos.dup2({trigger}, 4)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='kmsg:trigger')\n"
        "from oomwatchd.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, "run", "--config", str(config)],
            pass_fds=(reading, trigger),
            capture_output=True,
            text=True,
            timeout=60,
        )
        os.set_blocking(trigger, False)
        with pytest.raises(BlockingIOError):
            os.read(trigger, 1)
    finally:
        for descriptor in (reading, writing, trigger, fired):
            os.close(descriptor)
    assert done.returncode == 0, done.stderr
    assert "ending" in done.stderr
    return lines(directory / "oomwatchd.prom")


def test_what_the_ring_held_at_the_first_start_is_counted_and_never_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kills(found: dict[str, float]) -> float:
        return sum(value for name, value in found.items() if name.startswith("oomwatchd_oom_kills_total"))

    assert kills(run_once(tmp_path, [5, 6])) == 2
    assert kills(run_once(tmp_path, [5, 6, 7])) == 3
    assert main(["events", "--state-directory", str(tmp_path / "state"), "list", "--each"]) == 0
    assert capsys.readouterr().out.count("(7)") == 1


# -- who starts it without systemd -----------------------------------------------------------------


@pytest.fixture
def tracing(tmp_path: Path) -> Path:
    """Files as tracefs has them; the pipe is one that the test writes to."""
    root = tmp_path / "tracing"
    instance = root / "instances/oomwatchd-ondemand"
    for directory in (root, instance):
        (directory / "events/oom/mark_victim").mkdir(parents=True)
        (directory / "events/oom/mark_victim/enable").write_text("0\n")
    (instance / "buffer_percent").write_text("50\n")
    (root / "buffer_size_kb").write_text("7 (expanded: 1408)\n")
    os.mkfifo(instance / "trace_pipe")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 65536 kB\nMemFree: 100 kB\nMemAvailable: 50000 kB\n")
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 0\n")
    return root


def started(tmp_path: Path, shell: list[str], tracing: Path, **more: str) -> subprocess.Popen[bytes]:
    daemon = tmp_path / "daemon"
    told = '"$LISTEN_FDS $LISTEN_FDNAMES $([ "$LISTEN_PID" = $$ ] && echo own)"'
    daemon.write_text(f"#!/bin/sh\necho {told} >>{tmp_path}/runs\n")
    daemon.chmod(0o755)
    environ = {
        **os.environ,
        "TRACING": str(tracing),
        "PROC": str(tmp_path / "proc"),
        "OOMWATCHD": str(daemon),
        "POLL": "0.1",
        **more,
    }
    return subprocess.Popen([*shell, str(SCRIPT)], env=environ, stderr=subprocess.PIPE)


def until(path: Path, count: int) -> list[str]:
    end = time.monotonic() + PATIENCE
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < end
        time.sleep(0.02)
    return path.read_text().splitlines()


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_script_blocks_until_a_victim_is_marked(tmp_path: Path, tracing: Path, shell: list[str]) -> None:
    process = started(tmp_path, shell, tracing)
    try:
        pipe = (tracing / "instances/oomwatchd-ondemand/trace_pipe").open("wb", buffering=0)
        assert until(tmp_path / "runs", 1) == ["1 trigger own"]
        time.sleep(0.3)
        switches = Path(f"/proc/{process.pid}/status").read_text()
        time.sleep(0.5)
        after = Path(f"/proc/{process.pid}/status").read_text()

        def given_up(text: str) -> str:
            return next(line for line in text.splitlines() if line.startswith("voluntary"))

        assert given_up(switches) == given_up(after)
        memory = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        private = sum(int(line.split()[1]) for line in memory.splitlines() if line.startswith("Anonymous:"))
        assert private < 2048
        pipe.write(b"  app-42 [000] 1.5: mark_victim: pid=42\n")
        assert len(until(tmp_path / "runs", 2)) == 2
        assert (tracing / "instances/oomwatchd-ondemand/events/oom/mark_victim/enable").read_text() == "1\n"
        assert (tracing / "instances/oomwatchd-ondemand/buffer_percent").read_text() == "0\n"
        assert (tracing / "buffer_size_kb").read_text() == "7\n"
        pipe.close()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_without_tracing_the_kernels_count_is_compared(
    tmp_path: Path, tracing: Path, shell: list[str]
) -> None:
    process = started(tmp_path, shell, tmp_path / "absent")
    try:
        until(tmp_path / "runs", 1)
        (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 3\n")
        assert len(until(tmp_path / "runs", 2)) == 2
        time.sleep(0.5)
        assert len((tmp_path / "runs").read_text().splitlines()) == 2
    finally:
        process.kill()
        process.communicate()


def test_the_script_waits_for_memory_but_not_for_ever(tmp_path: Path, tracing: Path) -> None:
    (tmp_path / "proc/meminfo").write_text("MemAvailable: 100 kB\n")
    process = started(tmp_path, ["sh"], tmp_path / "absent", START_SECONDS="1")
    began = time.monotonic()
    try:
        until(tmp_path / "runs", 1)
        assert time.monotonic() - began >= 1.0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_the_script_is_plain_posix() -> None:
    done = subprocess.run(["shellcheck", "-s", "sh", str(SCRIPT)], capture_output=True, text=True)
    assert done.stdout == ""
