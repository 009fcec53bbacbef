"""What the flight recorder costs: CPU of one core while calm and under pressure, memory of its ring, size in
a capture; with 300 and 3000 processes. And what a new cgroup costs, which is looked at when it is made.

Processes are real ones (asleep); under root they are spread over cgroups of their own, ten each. Time is
simulated for the recorder, CPU is measured (CLOCK_THREAD_CPUTIME_ID).

    python -m benchmarks.bench_recorder [PROCESSES ...]
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
from oomwatchd.observe.hierarchy import memory_hierarchy
from oomwatchd.observe.host import read_host
from oomwatchd.observe.recorder import Recorder
from oomwatchd.observe.samples import RING_BYTES

S = 1_000_000
#: shares of one core: with so many processes at most so much while calm; under pressure
CALM = ((600, 0.001), (4000, 0.003), (sys.maxsize, 1.0))
HURRIED = 0.02
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


def new_cgroups(recorder: Recorder, count: int) -> float | None:
    """CPU seconds for each new cgroup with a process in it, all of them told together; None without the right
    to make any."""
    hierarchy = recorder.cgroups.hierarchy
    if hierarchy is None or recorder.cgroups.changes.obstacle is not None:
        return None
    made: list[Path] = []
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        try:
            for number in range(count):
                directory = Path(hierarchy.mount, f"oomwatchd-bench-new-{number}")
                directory.mkdir()
                made.append(directory)
                (directory / "cgroup.procs").write_text(str(sleeper.pid))
            began = time.thread_time()
            recorder.cgroups.look_at_changes(6000 * S)
            return (time.thread_time() - began) / count
        except OSError:
            return None
        finally:
            sleeper.kill()
            sleeper.wait()
            for directory in made:
                directory.rmdir()


def measure(count: int) -> bool:
    """Whether the bounds hold."""
    with processes(count) as cgroups:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        recorder = Recorder(read_host(), RecorderSection())
        recorder.run(0, 0.0)
        calm = cpu_share(recorder, 10 * S, 3600, hurried=False)
        hurried = cpu_share(recorder, 4000 * S, 300, hurried=True)
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
        began = time.thread_time()
        captured = recorder.history(5000 * S).before()
        made = time.thread_time() - began
        packed = len(zlib.compress(msgspec.msgpack.encode(captured)))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        new = new_cgroups(recorder, 40)
        print(
            f"{len(pids):5} processes, {cgroups:3} cgroups more: calm {100 * calm:.4f} % of a core, "
            f"under pressure {100 * hurried:.3f} %, ring {recorder.size_bytes / 1024:.0f} of "
            f"{RING_BYTES / 1024:.0f} KiB ({recorder.samples} samples), RSS +{grown} KiB, "
            f"capture {packed / 1024:.1f} KiB compressed, made in {1000 * made:.1f} ms"
            + (f", {1e6 * new:.0f} us a new cgroup" if new is not None else "")
        )
        recorder.close()
    allowed = next(share for most, share in CALM if len(pids) <= most)
    broken = [
        f"{what}: {100 * share:.4f} %, at most {100 * bound:g} %"
        for what, share, bound in (("calm", calm, allowed), ("under pressure", hurried, HURRIED))
        if share > bound
    ]
    if recorder.size_bytes > RING_BYTES:
        broken.append(f"ring: {recorder.size_bytes} bytes")
    for line in broken:
        print(f"bound broken: {line}")
    return not broken


def main(counts: list[int]) -> int:
    """Exit status 1 if a bound is broken."""
    held = [measure(count) for count in counts]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main([int(argument) for argument in sys.argv[1:]] or [300, 3000]))
