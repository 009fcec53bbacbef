"""What the flight recorder costs: CPU of one core while calm and under pressure, memory of its ring, size in
a capture; with 300 and 3000 processes.

Processes are real ones (asleep); under root they are spread over cgroups of their own, ten each. Time is
simulated for the recorder, CPU is measured (CLOCK_THREAD_CPUTIME_ID).

    python benchmarks/bench_recorder.py [PROCESSES ...]
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from oomwatchd.config import RecorderSection
from oomwatchd.observe.cgroup import memory_hierarchy
from oomwatchd.observe.host import read_host
from oomwatchd.observe.recorder import RING_BYTES, Recorder

S = 1_000_000
#: forks at once, so that one interpreter serves all
FORKER = """
import os, sys, time
pids = []
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid: time.sleep(600); os._exit(0)
    pids.append(pid)
print(*pids, flush=True)
sys.stdin.read()
for pid in pids: os.kill(pid, 9)
for pid in pids: os.waitpid(pid, 0)
"""


@contextlib.contextmanager
def processes(count: int) -> Iterator[int]:
    """So many more processes; yields the number of cgroups that they are spread over."""
    forker = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", FORKER, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert forker.stdout is not None and forker.stdin is not None
    pids = forker.stdout.readline().split()
    made: list[Path] = []
    hierarchy = memory_hierarchy(read_host())
    try:
        with contextlib.suppress(OSError):
            for number in range(0, len(pids), 10):
                directory = Path(
                    hierarchy.mount if hierarchy else "/nonexistent", f"oomwatchd-bench-{number}"
                )
                directory.mkdir()
                made.append(directory)
                for pid in pids[number : number + 10]:
                    (directory / "cgroup.procs").write_bytes(pid)
        yield len(made)
    finally:
        forker.stdin.close()
        forker.wait()
        for directory in made:
            with contextlib.suppress(OSError):
                directory.rmdir()


def cpu_share(recorder: Recorder, start: int, seconds: int, *, hurried: bool) -> float:
    """CPU seconds a second of simulated time."""
    usec, began = start, time.thread_time()
    while usec < start + seconds * S:
        if hurried:
            recorder.pressure(usec, usec / S)
        recorder.run(usec, usec / S)
        usec += max(1, int(recorder.seconds_until_due(usec) * S))
    return (time.thread_time() - began) / seconds


def measure(count: int) -> None:
    with processes(count) as cgroups:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        recorder = Recorder(read_host(), RecorderSection())
        recorder.run(0, 0.0)
        calm = cpu_share(recorder, 10 * S, 3600, hurried=False)
        hurried = cpu_share(recorder, 4000 * S, 300, hurried=True)
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
        began = time.thread_time()
        captured = recorder.before(5000 * S)
        made = time.thread_time() - began
        packed = len(zlib.compress(msgspec.msgpack.encode(captured)))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(
            f"{len(pids):5} processes, {cgroups:3} cgroups more: calm {100 * calm:.4f} % of a core, "
            f"under pressure {100 * hurried:.3f} %, ring {recorder.size_bytes / 1024:.0f} of "
            f"{RING_BYTES / 1024:.0f} KiB ({recorder.samples} samples), RSS +{grown} KiB, "
            f"capture {packed / 1024:.1f} KiB compressed, made in {1000 * made:.1f} ms"
        )
        recorder.close()


if __name__ == "__main__":
    for wanted in [int(argument) for argument in sys.argv[1:]] or [300, 3000]:
        measure(wanted)
