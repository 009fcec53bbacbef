"""Everything outside is slow, full, broken or gone: the daemon goes on, and says what is lost."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatchd.store import FILE_NAME
from tests.faults.conftest import Ledger, tmpfs
from tests.faults.storm import storm
from tests.kernel.running import Bracket, RunningDaemon, kernel_oom_kills, wait_for

pytestmark = [pytest.mark.oom, pytest.mark.slow]

FLOOD_RECORDS = 3000


def kills(cage: Path, count: int) -> None:
    with storm(cage, count) as running:
        assert running.finish(120) == count


def news(daemon: RunningDaemon) -> int:
    """Kills that are stored and were not in the ring before the first start."""
    return sum(event["kills"] for event in daemon.stored() if not event["historical"])


def flood(records: int) -> None:
    """User space writes to the kernel log at full speed. It opens the log again each time, because the kernel
    limits each opener (devkmsg_write())."""
    line = b"<14>" + b"x" * 200
    for _ in range(records):
        descriptor = os.open("/dev/kmsg", os.O_WRONLY)
        os.write(descriptor, line)
        os.close(descriptor)


def test_a_ring_overrun_while_stopped_is_counted_and_survived(daemon: RunningDaemon, cage: Path) -> None:
    daemon.start()
    daemon.settled()
    unseen_from = kernel_oom_kills()
    stored_before = news(daemon)
    daemon.process.send_signal(signal.SIGSTOP)
    kills(cage, 3)
    flood(FLOOD_RECORDS)  # overwrites them
    kills(cage, 2)
    daemon.process.send_signal(signal.SIGCONT)

    def reported() -> bool:
        low = kernel_oom_kills() - unseen_from
        seen = news(daemon) - stored_before
        unaccounted = daemon.metric("oomwatchd_oom_kills_unaccounted")
        return unaccounted >= 3 and low <= seen + unaccounted <= kernel_oom_kills() - unseen_from

    wait_for("the kills that were still in the ring, and a count of those that were not", reported, 40)
    assert daemon.metric("oomwatchd_kmsg_lost_records_total") > 0
    assert daemon.metric("oomwatchd_oom_kills_unaccounted") >= 3  # never silently absorbed
    assert daemon.metric("oomwatchd_kmsg_up") == 1
    events = wait_for("their event", lambda: [e for e in daemon.stored() if e["unseen"] is not None], 60)
    assert sum(e["unseen"]["kills"] for e in events) == daemon.metric("oomwatchd_oom_kills_unaccounted")
    assert [(e["kind"], e["kills"], e["findings"][0]["id"]) for e in events] == [
        ("oom_kill", 0, "kills_unseen")
    ]
    assert events[0]["unseen"]["lost_records"] > 0
    assert any(path.endswith(f"/{cage.name}") for path, _ in events[0]["unseen"]["cgroups"])
    assert events[0]["id"] in {line["id"] for line in daemon.lines()}  # the sinks are told
    before = news(daemon)
    kills(cage, 2)
    wait_for("the watch after the overrun", lambda: news(daemon) >= before + 2)


@pytest.mark.usefixtures("tracefs")
def test_the_trace_point_names_those_whose_lines_were_overwritten(daemon: RunningDaemon, cage: Path) -> None:
    daemon.write_config("enabled = false", "[witness]\nmark_victim = true")
    daemon.start()
    daemon.settled()
    daemon.process.send_signal(signal.SIGSTOP)
    name = f"t{secrets.token_hex(4)}"
    lost = kills_called(cage, name, 3)
    flood(FLOOD_RECORDS)  # overwrites them
    seen = kills_called(cage, f"{name}s", 2)
    daemon.process.send_signal(signal.SIGCONT)
    wait_for("the kills in the ring", lambda: len(told_pids(daemon, f"{name}s")) >= seen)
    events = wait_for(
        "the event of the others", lambda: [e for e in daemon.lines() if e["unseen"] is not None], 60
    )
    named = [comm for event in events for _, comm in event["unseen"]["marked"]]
    assert named.count(name) == lost
    assert f"{name}s" not in named
    assert daemon.metric("oomwatchd_marked_victims_total") >= lost + seen
    assert daemon.metric("oomwatchd_unreported_victims_total") >= lost
    assert daemon.log().count(f"not killed according to the log: {name} (pid ") == lost


def test_a_flood_costs_no_kill_that_was_still_in_the_ring(daemon: RunningDaemon, cage: Path) -> None:
    daemon.start()
    ledger = Ledger(daemon, cage)
    cpu_before = cpu_seconds(daemon.process.pid)
    began = time.monotonic()
    with storm(cage, 20, pause=0.05) as running:
        while running.running:
            flood(50)
        assert running.finish(60) == 20
    assert ledger.balance() >= 20
    used = (cpu_seconds(daemon.process.pid) - cpu_before) / (time.monotonic() - began)
    print(f"{used:.0%} of a CPU during the flood")
    assert used < 1.0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_full_disk_costs_no_kill(daemon: RunningDaemon, cage: Path) -> None:
    with tmpfs(daemon.state, "size=8m"):
        daemon.start()
        ledger = Ledger(daemon, cage)
        kills(cage, 2)
        daemon.settled()
        filler = daemon.state / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        kills(cage, 20)
        wait_for("the store to be down", lambda: daemon.metric("oomwatchd_store_up") == 0)
        daemon.settled()  # counted all the same
        filler.unlink()
        kills(cage, 1)
        wait_for("the store to be up", lambda: daemon.metric("oomwatchd_store_up") == 1)
        assert ledger.balance() >= 23
        assert daemon.metric("oomwatchd_store_failures_total") > 0
        assert "memory" in daemon.log()
        assert daemon.stop() == 0


def test_a_read_only_store_costs_no_kill(daemon: RunningDaemon, cage: Path) -> None:
    with tmpfs(daemon.state, "size=4m,ro"):
        daemon.start()
        daemon.settled()
        bracket = Bracket(daemon)
        kills(cage, 5)
        bracket.close()
        assert daemon.metric("oomwatchd_store_up") == 0
        assert "kept in memory only" in daemon.log()
        wait_for("their events", lambda: len(daemon.lines()) >= 5)
        assert daemon.stop() == 0


@pytest.mark.parametrize("running", [False, True])
def test_a_corrupt_store_is_put_aside_and_said(daemon: RunningDaemon, cage: Path, running: bool) -> None:
    daemon.start()
    kills(cage, 3)
    daemon.settled()
    if not running:
        assert daemon.stop() == 0
    for file in daemon.state.glob(f"{FILE_NAME}*"):
        with file.open("r+b") as data:
            data.write(b"not a database, not a log" * 400)
    if not running:
        daemon.start()
    bracket = Bracket(daemon)
    kills(cage, 3)
    bracket.close()
    assert list(daemon.state.glob(f"{FILE_NAME}.corrupt-*"))
    assert "corrupt" in daemon.log()
    ids = [event["id"] for event in daemon.stored()]
    assert len(ids) == len(set(ids)) >= 3


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("part", ["", "-wal", "-shm"])
def test_each_file_of_the_store_may_be_damaged_alone(
    daemon: RunningDaemon, cage: Path, part: str, running: bool
) -> None:
    """Later kills are told once, and kills while the daemon is down are stored. A file found damaged at the
    start also loses the time since when this boot was watched. A log found damaged loses the last events:
    these are told again, under the same id, and the daemon says so."""
    daemon.start()
    kills(cage, 3)
    wait_for("something to damage", lambda: (daemon.state / f"{FILE_NAME}{part}").stat().st_size)
    if not running:
        daemon.kill()  # the write-ahead log stays behind
    with (daemon.state / f"{FILE_NAME}{part}").open("r+b") as data:
        size = data.seek(0, os.SEEK_END)
        data.seek(0)
        data.write(b"\xa5" * size)
    if not running:
        daemon.start()
    name = f"d{secrets.token_hex(4)}"
    killed = kills_called(cage, name, 20)
    wait_for("the kills", lambda: len(told_pids(daemon, name)) >= killed)
    wait_for("a store", lambda: daemon.metric("oomwatchd_store_up") == 1)
    time.sleep(1)  # until it is saved that the last one was told; else it is told again, as it must be
    daemon.kill()
    killed += kills_called(cage, name, 2)
    daemon.start()
    wait_for("those meanwhile", lambda: len(daemon.stored_of(name)) >= 2)
    assert daemon.stop() == 0
    told = {(line["victims"][0]["pid"], line["id"]) for line in daemon.lines_of(name)}
    pids = told_pids(daemon, name)
    assert killed - 2 <= len(set(pids)) == len(told) <= killed
    assert len(pids) == len(told) or (part == "-wal" and "write-ahead log" in daemon.log())
    assert len({e["victims"][0]["pid"] for e in daemon.stored_of(name)} | set(pids)) == killed
    ids = [event["id"] for event in daemon.stored()]
    assert len(ids) == len(set(ids)) >= 2
    assert "Traceback" not in daemon.log()


def kills_called(cage: Path, name: str, count: int) -> int:
    with storm(cage, count, name=name.encode()) as running:
        return running.finish(120)


def told_pids(daemon: RunningDaemon, name: str) -> list[int]:
    """The pids of victims of this name, one for each time that a sink was told of one."""
    return [victim["pid"] for line in daemon.lines_of(name) for victim in line["victims"]]


def test_a_configuration_read_again_and_again_in_a_storm_costs_no_kill(
    daemon: RunningDaemon, cage: Path
) -> None:
    daemon.start()
    name = f"h{secrets.token_hex(4)}"
    with storm(cage, 200, pause=0.01, name=name.encode()) as running:
        while running.running:
            daemon.process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        killed = running.finish(60)
    wait_for("all in the file", lambda: len(told_pids(daemon, name)) >= killed)
    pids = [victim["pid"] for event in daemon.stored_of(name) for victim in event["victims"]]
    assert len(pids) == len(set(pids)) == killed >= 190
    assert sorted(told_pids(daemon, name)) == sorted(pids)
    assert "Traceback" not in daemon.log()


@contextlib.contextmanager
def deaf_journal(directory: Path) -> Iterator[Path]:
    """A journal whose socket exists and is never read: journald stopped."""
    path = directory / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(path))
        yield path


def test_a_stopped_journal_stalls_nothing(tmp_path: Path, cage: Path) -> None:
    with deaf_journal(tmp_path) as path:
        daemon = RunningDaemon(tmp_path, path)
        try:
            daemon.start()
            ledger = Ledger(daemon, cage)
            kills(cage, 600)  # the socket's queue holds some hundred at most
            assert ledger.balance() >= 600
            assert daemon.metric("oomwatchd_sink_failures_total") > 0
            assert len(daemon.lines()) >= 600  # the other sink
        finally:
            daemon.kill()


def test_a_sink_that_hangs_stalls_nothing(daemon: RunningDaemon, cage: Path) -> None:
    daemon.jsonl.unlink()
    os.mkfifo(daemon.jsonl)
    hung = os.open(daemon.jsonl, os.O_RDONLY | os.O_NONBLOCK)  # opened, never read
    try:
        daemon.start()
        ledger = Ledger(daemon, cage)
        kills(cage, 60)
        daemon.settled()
        assert ledger.balance() >= 60
    finally:
        os.close(hung)


def test_slow_scrapers_stall_neither_the_watch_nor_other_scrapers(daemon: RunningDaemon, cage: Path) -> None:
    daemon.start()
    ledger = Ledger(daemon, cage)
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            with contextlib.suppress(OSError):
                slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        kills(cage, 20)
        wait_for("the kills", lambda: sum(e["kills"] for e in daemon.stored()) >= 20)
        assert daemon.get("/metrics")[0] == 200
    assert ledger.balance() >= 20
