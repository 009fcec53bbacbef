"""A separate daemon whose kernel log is one end of a socket pair: the test decides what it reads."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.test_daemon import Running


class Attacked(Running):
    """``send`` writes records of the kernel; ``report`` a whole OOM report."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        super().__init__(directory, port)
        self.seq = 1000
        self.log_end: socket.socket

    def begin(self, before: str = "") -> None:
        """Run it, and wait until it is ready."""
        self.run(before)
        self.until(self.ready)

    def run(self, before: str = "") -> None:
        """Run it; ``before`` is Python that runs first in its process."""
        self.log_end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.log_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        passed = (
            f"import os; os.dup2({theirs.fileno()}, 3)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='kmsg')\n"
        )
        self.start(before + passed, {"MALLOC_ARENA_MAX": "1"}, (theirs.fileno(),))
        theirs.close()

    def send(self, text: str) -> None:
        """One record, stamped now."""
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.log_end.send(f"6,{self.seq},{usec},-;{text}\n".encode())
        self.seq += 1

    def report(self, pid: int, cgroup: str = "/a.service", rows: int = 5, comm: str = "victim") -> None:
        """A report of a memory cgroup at its limit with ``rows`` tasks, the victim the largest."""
        self.send(f"{comm} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0")
        self.send(f"CPU: 0 UID: 0 PID: {pid} Comm: {comm} Not tainted 6.18.44 #1")
        self.send("memory: usage 16384kB, limit 16384kB, failcnt 26")
        self.send(f"Memory cgroup stats for {cgroup}:")
        self.send("anon 16000000")
        self.send("Tasks state (memory values in pages):")
        self.send(
            "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents"
            " oom_score_adj name"
        )
        for n in range(rows):
            name, rss = (comm, 4000) if n == rows // 2 else (f"task{n}", n % 3000)
            task = pid if n == rows // 2 else pid + 1 + n
            self.send(
                f"[{task:7d}]     0 {task:5d}     5000 {rss:8d} {rss:8d}        0         0    57344        0"
                f"             0 {name}"
            )
        self.send(
            f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg={cgroup},"
            f"task_memcg={cgroup},task={comm},pid={pid},uid=0"
        )
        self.send(
            f"Memory cgroup out of memory: Killed process {pid} ({comm}) total-vm:20000kB, anon-rss:16000kB,"
            " file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:56kB oom_score_adj:0"
        )

    @property
    def kills(self) -> float:
        """Kills of memory cgroups that it counted."""
        return self.metric('oomwatchd_oom_kills_total{constraint="memcg"}')

    def told_of(self, pid: int) -> bool:
        """Its log has the event's line."""
        return f"({pid})" in self.said() or f"pid {pid})" in self.said()

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def memory(self, name: str = "VmRSS") -> int:
        """A line of /proc/PID/status, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) << 10

    def stop(self) -> int:
        """End it in good order; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(20)
        self.log_end.close()
        return status


@contextmanager
def attacked(directory: Path, port: int | None = None) -> Iterator[Attacked]:
    """Not started yet; always ended."""
    directory.mkdir(exist_ok=True)
    one = Attacked(directory, port)
    try:
        yield one
    finally:
        if hasattr(one, "process") and one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def pids() -> Iterator[int]:
    """Process ids that cannot be real ones here."""
    number = int(Path("/proc/sys/kernel/pid_max").read_text())
    while True:
        number += 1000
        yield number
