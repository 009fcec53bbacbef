"""``python -m benchmarks.bench_on_demand``: what a start on demand takes, from the trigger to the told event.

Runs the daemon as whoever holds the trigger starts it (``LISTEN_FDS``, a kernel log in which a kill
stands), with the settings of ``packaging/ondemand/ondemand.toml``. Prints wall time until the event's line is
out, processor time until the daemon's end, and the most memory it held: the smallest and the median of some
starts. On a busy machine the smallest and the processor time count.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

REPORT = (
    "6,0,1000,-;Linux version 6.12.0\n"
    "4,1,2000,-;app invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
    "6,2,2001,-;Tasks state (memory values in pages):\n"
    "6,3,2002,-;[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name\n"
    "6,4,2003,-;[     17]     0    17    26000    25000   220000        0             0 app\n"
    "6,5,2004,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,"
    "task_memcg=/a,task=app,pid=17,uid=0\n"
    "3,6,2005,-;Memory cgroup out of memory: Killed process 17 (app) total-vm:104000kB, anon-rss:90000kB,"
    " file-rss:10000kB, shmem-rss:0kB, UID:0 pgtables:220kB oom_score_adj:0\n"
)
CONFIG = """\
state_directory = "{0}/state"
exit_after_idle_seconds = 1
[http]
listen = ""
[metrics]
textfile = "{0}/oomwatchd.prom"
[recorder]
enabled = false
[sinks.journal]
enabled = false
[sinks.jsonl]
path = "-"
"""


def once(directory: Path, options: list[str]) -> tuple[float, float, int]:
    """Seconds until the event is out, seconds of processor time, most KiB resident."""
    config = directory / "config.toml"
    config.write_text(CONFIG.format(directory))
    reading, writing = os.pipe2(os.O_DIRECT)
    for line in REPORT.splitlines(keepends=True):
        os.write(writing, line.encode())
    trigger, fired = os.pipe()
    out, told = os.pipe()
    command = [sys.executable, *options, "-m", "oomwatchd", "run", "--config", str(config)]
    code = (
        f"import os\nos.dup2({reading}, 3)\nos.dup2({trigger}, 4)\nos.dup2({told}, 1)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='kmsg:trigger')\n"
        f"os.execv({sys.executable!r}, {command!r})"
    )
    for descriptor in (reading, trigger, told):
        os.set_inheritable(descriptor, True)
    began = time.monotonic()
    os.write(fired, b"mark_victim: pid=17\n")
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-S", "-E", "-c", code],
        {**os.environ, "LC_ALL": "C", "MALLOC_ARENA_MAX": "1"},
    )
    os.close(told)
    seen = b""
    while b"\n" not in seen:
        part = os.read(out, 65536)
        if not part:
            raise SystemExit("no event came")
        seen += part
    took = time.monotonic() - began
    time.sleep(0.5)  # the textfile is written, the store is closed after that
    peak = next(
        int(line.split()[1])
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"ended with {os.waitstatus_to_exitcode(status)}")
    for descriptor in (reading, writing, trigger, fired, out):
        os.close(descriptor)
    return took, usage.ru_utime + usage.ru_stime, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=15, metavar="N")
    parser.add_argument("option", nargs="*", help="the interpreter's, as -E or -s")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    runs = []
    for _ in range(args.starts):
        with tempfile.TemporaryDirectory() as directory:
            runs.append(once(Path(directory), args.option))
    for name, unit, values in zip(
        ("until the event is out", "processor time", "most resident"),
        ("s", "s", "KiB"),
        zip(*runs, strict=True),
        strict=True,
    ):
        print(f"{name}: {min(values):.3f} {unit}, median {statistics.median(values):.3f} {unit}")


if __name__ == "__main__":
    main()
