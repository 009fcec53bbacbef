"""Many real OOM kills, fast: one memory cgroup with a small limit, one child after another that exceeds it.

Run as a script, so that its fork is small: ``python storm.py DIRECTORY COUNT PAUSE [NAME]``. Each child is
named NAME (hexadecimal), else after the directory, with its number. Prints "ready", then the number of
children that the kernel killed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LIMIT_BYTES = 4 << 20
BOUND_BYTES = 16 << 20
SURVIVED = 3


def token(directory: Path) -> str:
    """What the names of a cgroup's children begin with: it tells them from those of another storm."""
    return directory.name[-8:]


def child(directory: Path, name: bytes) -> None:
    """Allocate until killed; never more than BOUND_BYTES."""
    (directory / "cgroup.procs").write_text("0")
    Path("/proc/self/oom_score_adj").write_text("1000")
    Path("/proc/self/comm").write_bytes(name)
    memory = mmap.mmap(-1, BOUND_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, BOUND_BYTES, mmap.PAGESIZE):
        memory[offset] = 1


def main(directory: Path, count: int, pause: float, name: bytes | None = None) -> None:
    print("ready", flush=True)
    killed = 0
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                child(directory, name or f"{token(directory)}.{number}".encode())
            finally:
                os._exit(SURVIVED)
        killed += os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        time.sleep(pause)
    print(killed, flush=True)


class Storm:
    """The running script."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def finish(self, seconds: float) -> int:
        """Wait for its end; how many the kernel killed."""
        out, _ = self._process.communicate(timeout=seconds)
        return int(out)


@contextlib.contextmanager
def storm(directory: Path, count: int, pause: float = 0.0, name: bytes | None = None) -> Iterator[Storm]:
    """A storm of ``count`` kills in the cgroup ``directory``, which must have a limit."""
    command = [sys.executable, "-I", "-S", __file__, str(directory), str(count), str(pause)]
    command += [name.hex()] if name else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Storm(process)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), *map(bytes.fromhex, sys.argv[4:]))
