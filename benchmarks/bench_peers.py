"""Peers beside us, at rest: ``python -m benchmarks.bench_peers [--quick]``.

What Debian packages of them and this machine has installed (``apt-get install --no-install-recommends
earlyoom prometheus-node-exporter``), with the arguments below, and the daemon as bench_footprint starts it:
memory, and what each does in a calm minute in which nobody scrapes. They do other things than we do: the
figures say what people are used to pay for a daemon on each host.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench_footprint import private_mib, profiles, settle
from benchmarks.footprint import Process, Running, install

#: program -> its arguments: no other port than one that nobody has, nobody killed
PEERS = {
    "prometheus-node-exporter": ["--web.listen-address=127.0.0.1:19100"],
    "earlyoom": ["-r", "3600", "--dryrun"],
}


@contextmanager
def started(program: str, arguments: list[str]) -> Iterator[Process]:
    process = subprocess.Popen(
        [program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(1)
        if process.poll() is not None:
            raise RuntimeError(f"{program} ended with status {process.returncode}")
        yield Process(process.pid)
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def ours(profile: str) -> Iterator[Process]:
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        environ = install(directory)
        config = profiles(directory)[profile]
        Running(directory, environ, config).stop()  # compiles
        running = Running(directory, environ, config)
        try:
            yield running
        finally:
            running.stop()


def row(name: str, process: Process, seconds: int) -> None:
    """One line of the table."""
    settle(process)
    cpu, woken = process.cpu_seconds(), sum(process.wakeups().values())
    seen = []
    for _ in range(3):
        time.sleep(seconds / 3)
        seen.append(process.memory_kib())
    cpu, woken = process.cpu_seconds() - cpu, sum(process.wakeups().values()) - woken
    resident = statistics.median(memory["Rss"] for memory in seen) / 1024
    proportional = statistics.median(memory["Pss"] for memory in seen) / 1024
    private = statistics.median(map(private_mib, seen))
    print(
        f"{name:28}{resident:10.1f}{proportional:14.1f}{private:9.1f}"
        f"{100 * cpu / seconds:12.4f}{woken / seconds:10.2f}",
        flush=True,
    )


def main(*, quick: bool = False) -> int:
    """Print the table. It holds no bound."""
    seconds = 15 if quick else 60
    print(
        f"{'at rest, MiB':28}{'resident':>10}{'proportional':>14}{'private':>9}{'CPU %':>12}{'wakeups/s':>10}"
    )
    for profile in ("default", "minimal"):
        with ours(profile) as process:
            row(f"oomwatchd, {profile}", process, seconds)
    for program, arguments in PEERS.items():
        if shutil.which(program) is None:
            print(f"{program:28}  not installed here")
            continue
        with started(program, arguments) as process:
            row(program, process, seconds)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a shorter calm")
    sys.exit(main(quick=parser.parse_args().quick))
