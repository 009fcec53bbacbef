"""How fast the text source is: skipping a log without reports, reading the common forms, hostile text.

``python -m benchmarks.bench_text [MEGABYTES]``: figures are ratios taken in one run, for machines differ.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from oomwatchd.sources.text import TextReader, open_log, records
from tests.text_hostile import HOSTILE

_TAGS = ("systemd[1]", "sshd[2231]", "kernel", "CRON[8812]", "dockerd[991]", "NetworkManager[700]")
_MESSAGES = (
    "Started Session 18107 of user root.",
    "Accepted publickey for deploy from 10.0.3.17 port 51544 ssh2: RSA SHA256:abcdef",
    "[ 1234.567890] IPv6: ADDRCONF(NETDEV_CHANGE): veth1a2b: link becomes ready",
    "(root) CMD (   cd / && run-parts --report /etc/cron.hourly)",
    'time="2024-05-01T10:00:00Z" level=info msg="ignoring event" container=deadbeef',
    "Killing process 123 still running after stop",
    "Failed to allocate, the process will be restarted; memory is low",
)
_ROW = "[  %d]     0   103      899       23       5        0             0 sh"
_FORMS: dict[str, Callable[[int], str]] = {
    "raw kmsg": lambda n: f"6,{n},{n * 97},-;{_ROW % n}",
    "dmesg": lambda n: f"[{n:5}.{n % 1000:06}] {_ROW % n}",
    "dmesg, caller": lambda n: f"[{n:5}.{n % 1000:06}][ T{n}] {_ROW % n}",
    "dmesg -T": lambda n: f"[Wed May  1 10:00:00 2024] {_ROW % n}",
    "dmesg -x": lambda n: f"kern  :info  : [{n:5}.{n % 1000:06}] {_ROW % n}",
    "syslog": lambda n: f"May  1 10:00:00 host kernel: [{n:5}.{n % 1000:06}] {_ROW % n}",
    "syslog, ISO": lambda n: (
        f"2024-05-01T10:00:00.{n % 10**6:06}+02:00 host kernel: [{n:5}.000000] {_ROW % n}"
    ),
    "journal": lambda n: f"May 01 10:00:00 host kernel: {_ROW % n}",
    "no prefix": lambda n: _ROW % n,
}


def _log_without_reports(path: Path, megabytes: int) -> None:
    chance = random.Random(1)
    lines = [
        f"May  1 {chance.randrange(24):02}:{chance.randrange(60):02}:{chance.randrange(60):02} host-1 "
        f"{chance.choice(_TAGS)}: {chance.choice(_MESSAGES)}\n"
        for _ in range(80_000)
    ]
    block = "".join(lines).encode()
    with path.open("wb") as out:
        for _ in range(megabytes * 1_000_000 // len(block)):
            out.write(block)


def _time(work: Callable[[], object], rounds: int = 3) -> float:
    best = 1e9
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def _skip(path: Path) -> None:
    with open_log(path) as stream:
        for _ in records(stream):
            pass


def _read(data: bytes) -> int:
    reader = TextReader()
    count = 0
    for at in range(0, len(data), 1 << 20):
        count += len(reader.feed(data[at : at + (1 << 20)]))
    return count + len(reader.flush())


def main(megabytes: int) -> int:
    """Print the figures; 1 if a bound of the project is broken."""
    broken = False
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log"
        _log_without_reports(path, megabytes)
        grep = _time(
            lambda: subprocess.run(["grep", "-c", "oom-kill", path], stdout=subprocess.DEVNULL, check=False)
        )
        ours = _time(lambda: _skip(path))
        print(f"skip {megabytes} MB: {ours:.3f} s, grep -c {grep:.3f} s, ratio {ours / grep:.2f} (bound 2)")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"peak memory of the benchmark: {peak / 1024:.0f} MiB")
        broken = broken or ours > 2 * grep
    for name, line in _FORMS.items():
        count = 100_000
        data = "\n".join(line(n) for n in range(count)).encode()
        print(f"{name:14} {_time(lambda data=data: _read(data)) * 1e6 / count:6.2f} us a line")  # type: ignore[misc]
    worst, which = 0.0, ""
    for name, data in HOSTILE.items():
        once = _time(lambda data=data: _read(data))  # type: ignore[misc]
        twice = _time(lambda data=data: _read(data * 2))  # type: ignore[misc]
        if once > 0.01 and twice / once > worst:
            worst, which = twice / once, name
    print(f"hostile text doubled: at worst {worst:.2f} times the time ({which})")
    return int(broken or worst > 3)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
