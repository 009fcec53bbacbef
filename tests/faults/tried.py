"""Surroundings that are hostile by their number: ``python -m tests.faults.tried [NAME ...]``.

Runs a separate daemon whose kernel log is a socket pair, beside thousands of processes, cgroups or device
events. Prints for each how long a report takes from its last line to its event, and the daemon's CPU and
memory.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from oomwatchd.cli import throwaway
from tests.attacked import Attacked, attacked

#: beyond, the machine itself would be in want
MOST_PROCESSES = 20_000
#: bytes that are left on the machine in any case
LEAVE_BYTES = 6 << 30
#: any device's; writing to it makes the kernel tell udev and whoever listens
UEVENT = Path("/sys/class/mem/null/uevent")


class Result(NamedTuple):
    """``made`` of what was asked for; the slowest report; the daemon's share of one CPU, its memory."""

    made: int
    slowest_seconds: float
    cpu_share: float
    resident_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.made} made; slowest of the reports {self.slowest_seconds:.2f} s, "
            f"{100 * self.cpu_share:.0f} % of a CPU, {self.resident_bytes / (1 << 20):.1f} MiB"
        )


def available() -> int:
    """MemAvailable of this machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def processes(count: int, seconds: float) -> Iterator[int]:
    """``count`` real processes that sleep, children of a small shell; they end with the context."""
    loop = (
        f"i=0; end=$(($(date +%s) + {int(seconds)})); "
        f"while [ $i -lt {min(count, MOST_PROCESSES)} ]; do sleep 600 & i=$((i+1)); "
        "[ $((i % 100)) -ne 0 ] || [ $(date +%s) -lt $end ] || break; done; echo $i; wait"
    )
    shell = subprocess.Popen(
        ["busybox", "sh", "-c", loop], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert shell.stdout is not None
    try:
        yield int(shell.stdout.readline())
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        shell.stdout.close()


@contextmanager
def cgroups(count: int, seconds: float) -> Iterator[int]:
    """So many memory cgroups, made within ``seconds``; removed afterwards."""
    top = Path(throwaway.memory_hierarchy().mount) / f"oomwatchd-test-many-{os.getpid()}"
    top.mkdir()
    made = 0
    until = time.monotonic() + seconds
    try:
        while made < count and time.monotonic() < until:
            if made % 100 == 0 and available() < LEAVE_BYTES:
                break
            try:
                (top / str(made)).mkdir()
            except OSError:  # EBUSY: the kernel has 65535 memory cgroups (MEM_CGROUP_ID_MAX)
                break
            made += 1
        yield made
    finally:
        for n in range(made):
            (top / str(n)).rmdir()
        top.rmdir()


@contextmanager
def uevents(count: int, seconds: float) -> Iterator[int]:
    """Device events without end, as fast as the kernel makes them; ``count`` is how many there are before the
    first report."""
    flood = (
        "import sys\nfor n in range(1 << 40):\n"
        f"  open({str(UEVENT)!r}, 'w').write('change')\n  if n == {count}: print(flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", flood], stdout=subprocess.PIPE) as flooding:
        assert flooding.stdout is not None
        try:
            flooding.stdout.readline()
            yield count
        finally:
            flooding.kill()


@contextmanager
def uninterruptible(count: int, seconds: float) -> Iterator[int]:
    """So many processes in state D: the parents of a vfork(2) whose child goes on."""
    held = "import ctypes, time\nif ctypes.CDLL(None).vfork() == 0: time.sleep(600)\n"
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            child = subprocess.Popen([sys.executable, "-c", held], start_new_session=True)
            started.append(child)
            stack.callback(child.wait)
            stack.callback(os.killpg, child.pid, signal.SIGKILL)
        until = time.monotonic() + seconds
        waiting = 0
        while waiting < count and time.monotonic() < until:
            waiting = sum(_state(child.pid) == "D" for child in started)
            time.sleep(0.05)
        yield waiting


def _state(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


#: what makes them, and how many when they are run from the command line
SURROUNDINGS: dict[str, tuple[Callable[[int, float], object], int]] = {
    "processes": (processes, 20_000),
    "cgroups": (cgroups, 1_000_000),
    "uevents": (uevents, 10_000),
    "uninterruptible": (uninterruptible, 50),
}


def tried(directory: Path, name: str, count: int, seconds: float, reports: int = 5) -> Result:
    """Run a daemon beside ``count`` of them; made within ``seconds``."""
    make, _ = SURROUNDINGS[name]
    with attacked(directory) as one:
        one.begin()
        one.report(7000)
        one.until(lambda: one.told_of(7000), 30)
        cpu, began = cpu_seconds(one.process.pid), time.monotonic()
        slowest = 0.0
        with make(count, seconds) as made:  # type: ignore[attr-defined]
            for n in range(1, reports + 1):
                slowest = max(slowest, told(one, 7000 + 100 * n))
                time.sleep(1.0)
            share = (cpu_seconds(one.process.pid) - cpu) / (time.monotonic() - began)
            result = Result(made, slowest, share, one.memory())
        assert one.stop() == 0, one.said()
    return result


def told(one: Attacked, pid: int) -> float:
    """Seconds until a report is an event in its log."""
    one.report(pid, f"/a{pid}")
    began = time.monotonic()
    one.until(lambda: one.told_of(pid), 60)
    return time.monotonic() - began


def main() -> int:
    """Print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.tried", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(SURROUNDINGS)}; default: all"
    )
    parser.add_argument("--count", type=int, help="how many; default: as docs/reliability.md says")
    parser.add_argument("--seconds", type=float, default=60.0, help="to make them; default: 60")
    args = parser.parse_args()
    for name in args.names or SURROUNDINGS:
        with tempfile.TemporaryDirectory() as directory:
            count = args.count or SURROUNDINGS[name][1]
            print(f"{name}: {tried(Path(directory), name, count, args.seconds)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
