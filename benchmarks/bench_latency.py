"""From the kernel's stamp to the event: ``python -m benchmarks.bench_latency [--quick]`` (root).

The daemon as it is installed, with notes (``benchmarks.watched``), sees real kills in throw-away cgroups:
reports with everything (the kernel prints ten in five seconds at most) and lone kill lines (the rest), once
with the machine at rest, once with four busy processes a CPU, one of them in a cgroup that thrashes; at rest
with and without the trace point as a second witness (``[witness] mark_victim``), where tracefs is mounted.

The console is silent meanwhile. "At rest" the daemon and the reader run before all else (SCHED_FIFO), for a
machine is seldom at rest.

The stamps of the kernel log are ``local_clock()``; its difference to CLOCK_MONOTONIC is measured with marked
lines before and after each round. ``journalled`` is the moment at which a receiver on the journal's socket
has the entry. ``wakeup`` is a second reader, in a process of its own, that does nothing but wait for the log
with poll(2) and note when it had the kill line: nobody whom the log alone wakes can be faster, for printk
wakes its readers with the timer tick (``wake_up_klogd_work``, IRQ_WORK_LAZY, kernel/printk/printk.c).
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from oomwatchd.cli.throwaway import _directory
from oomwatchd.records.kmsg import parse_record

#: (station, of which condition) -> bounds in ms: the median, the 99th part of a hundred
BOUNDS = {
    ("marked", "queued"): (1.0, 5.0),
    ("marked", "journalled"): (10.0, None),
    ("marked", "snapshot"): (2.0, None),
    ("marked", "victim"): (1.0, None),
    ("loaded", "queued"): (None, 100.0),
}
LIMIT_BYTES = 4 << 20
#: between reports with everything: a little slower than the kernel's limit of ten in five seconds
PACE_SECONDS = 0.52
#: about the weight that the unit has against other services (CPUWeight=500; kernel/sched/core.c,
#: sched_prio_to_weight[])
UNIT_NICE = -7
#: tells our kills from others on the same machine
COMM = f"oomb{os.getpid()}"
STATIONS = ("wakeup", "snapshot", "victim", "queued", "stored", "journalled")


def log_skew_usec() -> int:
    """The kernel log's clock minus CLOCK_MONOTONIC, microseconds: the tightest of some marked lines."""
    best, width = 0, 1 << 60
    with open("/dev/kmsg", "rb+", buffering=0) as log:
        os.set_blocking(log.fileno(), False)
        log.seek(0, os.SEEK_END)
        for n in range(50):
            mark = f"oomwatchd-benchmark {n}".encode()
            before = time.monotonic_ns() // 1000
            os.write(log.fileno(), b"<15>" + mark + b"\n")  # without its newline it could be continued
            after = time.monotonic_ns() // 1000
            while True:
                try:
                    record = parse_record(os.read(log.fileno(), 8192))
                except BlockingIOError:
                    break
                if record is not None and record.usec is not None and record.text.encode() == mark:
                    if after - before < width:
                        best, width = record.usec - (before + after) // 2, after - before
                    break
    return best


def _reader(notes: int) -> None:
    """The least that can be done: wait, read, look for the kill line, note the moment."""
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(log, 0, os.SEEK_END)
    poll = select.poll()
    poll.register(log, select.POLLIN)
    while True:
        poll.poll()
        while True:
            try:
                data = os.read(log, 8192)
            except BlockingIOError:
                break
            except OSError:
                continue
            if b"Killed process" in data:
                head, _, text = data.partition(b";")
                moment = time.monotonic_ns() // 1000
                said = text[:120].decode("ascii", "replace").strip()
                note = ["wakeup", int(head.split(b",")[2]), moment, said]
                os.write(notes, json.dumps(note).encode() + b"\n")


@contextmanager
def forked(work: object, *arguments: object) -> Iterator[int]:
    """A process that does this until the end."""
    pid = os.fork()
    if pid == 0:
        try:
            work(*arguments)  # type: ignore[operator]
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextmanager
def silent_console() -> Iterator[None]:
    """No kernel messages on the console (console_loglevel 1): a serial one takes milliseconds for the
    kill line, under the victim's task lock (__oom_kill_process()), and readers are woken after it."""
    setting = Path("/proc/sys/kernel/printk")
    before = setting.read_text()
    setting.write_text("1")
    try:
        yield
    finally:
        setting.write_text(before)


def go_ahead(pid: int) -> None:
    """Before whatever else runs on this machine (SCHED_FIFO): as if it were at rest."""
    os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))


def kill_one(cgroup: Path) -> int:
    """One real OOM kill in this cgroup; the victim's pid."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(20)
            Path("/proc/self/comm").write_text(COMM)
            Path("/proc/self/oom_score_adj").write_text("1000")
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))
            memory = mmap.mmap(-1, 8 * LIMIT_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for offset in range(0, len(memory), mmap.PAGESIZE):
                memory[offset] = 1
        finally:
            os._exit(3)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        raise RuntimeError(f"the child was not killed (status {status})")
    return pid


def _spin() -> None:
    while True:
        pass


def _thrash(cgroup: Path, file: Path) -> None:
    """Read a file that does not fit the cgroup, again and again: reclaim without an end."""
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    data = bytearray(1 << 16)
    with file.open("rb", buffering=0) as stream:
        while True:
            stream.seek(0)
            while stream.readinto(data):
                pass


@contextmanager
def load(directory: Path) -> Iterator[None]:
    """Four busy processes a CPU, one of them a cgroup's that thrashes."""
    with ExitStack() as stack:
        cgroup = stack.enter_context(_directory(f"oomwatchd-bench-thrash-{os.getpid()}"))
        limit(cgroup)
        file = directory / "thrash"
        with file.open("wb") as out:
            for _ in range(64):
                out.write(os.urandom(1 << 20))
        stack.enter_context(forked(_thrash, cgroup, file))
        for _ in range(4 * (os.cpu_count() or 1) - 1):
            stack.enter_context(forked(_spin))
        yield


def limit(cgroup: Path) -> None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        if (cgroup / name).exists():
            (cgroup / name).write_text(str(LIMIT_BYTES))


class Journald:
    """A receiver on a socket like journald's: when it had which event."""

    def __init__(self, path: Path) -> None:
        self.notes: list[tuple[int, int]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            data = self._socket.recv(1 << 20)
            moment = time.monotonic_ns() // 1000
            for line in data.split(b"\n"):
                if line.startswith(b"OOM_VICTIM_PID="):
                    self.notes.append((int(line[15:]), moment))


def measure(kills: int, condition: str, *, paced: bool) -> dict[str, list[float]]:
    """Milliseconds at each station, for so many kills."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config, notes = directory / "config.toml", directory / "notes"
        config.write_text(
            f'state_directory = "{directory}/state"\nlog_level = "error"\n[http]\nlisten = ""\n'
            f'[sinks.journal]\nsocket = "{directory}/journal"\n'
            f"[witness]\nmark_victim = {str(condition != 'rest').lower()}\n"
        )
        journald = Journald(directory / "journal")
        cgroup = stack.enter_context(_directory(f"oomwatchd-bench-{os.getpid()}"))
        limit(cgroup)
        reading, writing = os.pipe()
        reader = stack.enter_context(forked(_reader, writing))
        daemon = subprocess.Popen([sys.executable, "-m", "benchmarks.watched", str(config), str(notes)])
        stack.callback(daemon.kill)
        if condition == "loaded":
            os.setpriority(os.PRIO_PROCESS, daemon.pid, UNIT_NICE)
        else:
            go_ahead(daemon.pid)
            go_ahead(reader)
        time.sleep(2.5)
        if condition == "loaded":
            stack.enter_context(load(directory))
            time.sleep(0.5)
        pids = set()
        skews = [log_skew_usec()]
        began_usec = time.monotonic_ns() // 1000 + skews[0]
        for _ in range(kills):
            began = time.monotonic()
            pids.add(kill_one(cgroup))
            pause = PACE_SECONDS - (time.monotonic() - began) if paced else 0.05
            time.sleep(max(0.0, pause) + random.random() * 0.02)  # off the beat of the timer tick
        skews.append(log_skew_usec())
        time.sleep(1)
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
        os.set_blocking(reading, False)
        seen = os.read(reading, 1 << 20)
        taken = json.loads(notes.read_text()) + [json.loads(line) for line in seen.splitlines()]
        os.close(reading)
        os.close(writing)
    taken = [note for note in taken if COMM in note[3] and note[1] >= began_usec]
    return _delays(taken, journald.notes, pids, skews)


def _delays(
    taken: Sequence[Sequence[object]],
    journalled: Sequence[tuple[int, int]],
    pids: set[int],
    skews: Sequence[int],
) -> dict[str, list[float]]:
    skew = round(statistics.mean(skews))
    found: dict[str, list[float]] = {station: [] for station in STATIONS}
    seen: set[tuple[object, object]] = set()
    killed_at: dict[int, int] = {}
    for station, stamp, moment, text in taken:
        assert isinstance(station, str) and isinstance(stamp, int) and isinstance(moment, int)
        if (station, stamp) in seen:
            continue  # a later revision
        seen.add((station, stamp))
        found[station].append((moment + skew - stamp) / 1000)
        if station == "queued":
            killed_at[int(str(text).partition("Killed process ")[2].split()[0])] = stamp
    queued = set(killed_at)
    for pid, moment in journalled:
        if pid in killed_at:
            found["journalled"].append((moment + skew - killed_at.pop(pid)) / 1000)
    if not pids <= queued:
        raise RuntimeError(f"{len(pids - queued)} kills of {len(pids)} were not seen")
    print(f"    log clock minus CLOCK_MONOTONIC: {skews[0]} us before, {skews[-1]} us after", file=sys.stderr)
    return found


def p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, round(0.99 * len(values)))]


def main(*, quick: bool = False) -> int:
    """Print the table; 1 if a bound is broken."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    rounds = (
        ("rest", "whole reports", 40 if quick else 110, True),
        ("rest", "lone kill lines", 60 if quick else 110, False),
        ("marked", "whole reports", 40 if quick else 110, True),
        ("marked", "lone kill lines", 60 if quick else 110, False),
        ("loaded", "both", 60 if quick else 200, False),
    )
    with silent_console():
        return _all(rounds)


def _all(rounds: Sequence[tuple[str, str, int, bool]]) -> int:
    broken = False
    print(f"{'milliseconds':34}{'least':>9}{'median':>9}{'p99':>9}{'most':>9}")
    for condition, what, kills, paced in rounds:
        found = measure(kills, condition, paced=paced)
        for station in STATIONS:
            values = found[station]
            if not values:
                continue
            median, high = statistics.median(values), p99(values)
            bounds = BOUNDS.get((condition, station), (None, None))
            said = " ".join(f"bound {b:g}" for b in bounds if b is not None)
            broken |= any(b is not None and v > b for b, v in zip(bounds, (median, high), strict=True))
            name = f"{condition}, {what}: {station}"
            row = "".join(f"{v:9.2f}" for v in (min(values), median, high, max(values)))
            print(f"{name:34}{row}  n={len(values)} {said}")
    return int(broken)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer kills")
    sys.exit(main(quick=parser.parse_args().quick))
