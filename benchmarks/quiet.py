"""A quiet minute of two commits side by side: ``python -m benchmarks.quiet OLD [NEW] [--minutes N]`` (root).

Both daemons run at the same time, as installed, each in a mount namespace of its own in which nothing ever
happens: ``/proc/meminfo`` and ``/proc/vmstat`` are copies, there are no cgroups and no pressure files. So
other work on the machine makes neither of them wake. It still makes each instruction slower, but for both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_FROZEN = ("/proc/meminfo", "/proc/vmstat")
_HIDDEN = ("/sys/fs/cgroup", "/proc/pressure", "/run/systemd", "/run/log/journal", "/var/log/journal")


def freeze(directory: Path) -> None:
    """Make the machine that this mount namespace shows a calm one."""
    for name in _FROZEN:
        copy = directory / Path(name).name
        copy.write_bytes(Path(name).read_bytes())
        subprocess.run(["mount", "--bind", copy, name], check=True)
    for name in _HIDDEN:
        if Path(name).is_dir():
            subprocess.run(["mount", "-t", "tmpfs", "none", name], check=True)


def watch(seconds: int) -> dict[str, float]:
    """One daemon of the commit whose directory is on the path, after it has settled."""
    from benchmarks import bench_footprint, footprint

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        freeze(directory)
        environ = footprint.install(directory)
        config = bench_footprint.profiles(directory)["default"]
        config = config.replace(str(bench_footprint.PORT), str(20_000 + os.getpid() % 10_000))
        running = footprint.Running(directory, environ, config)
        try:
            bench_footprint.settle(running)
            time.sleep(20)
            memory = running.memory_kib()
            main = Path(f"/proc/{running.pid}/task/{running.pid}/schedstat")
            began = running.cpu_seconds(), int(main.read_text().split()[0]), sum(running.wakeups().values())
            time.sleep(seconds)
            ended = running.cpu_seconds(), int(main.read_text().split()[0]), sum(running.wakeups().values())
            minutes = seconds / 60
            return {
                "all threads, ms of CPU a minute": (ended[0] - began[0]) * 1e3 / minutes,
                "main thread, ms of CPU a minute": (ended[1] - began[1]) / 1e6 / minutes,
                "wakeups a minute": (ended[2] - began[2]) / minutes,
                "anonymous, MiB": memory["Anonymous"] / 1024,
                "private, MiB": bench_footprint.private_mib(memory),
            }
        finally:
            running.stop()


def main() -> int:
    """Print the table."""
    from benchmarks.compare import check_out  # here: watch() runs with the older commit, which lacks it

    parser = argparse.ArgumentParser(prog="python -m benchmarks.quiet", description=__doc__)
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", default="HEAD")
    parser.add_argument("--minutes", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        ran = []
        for commit in (args.old, args.new):
            tree = check_out(commit, Path(name))
            own = ["unshare", "--mount", sys.executable, "-P", __file__, "watch", str(args.minutes * 60)]
            environ = os.environ | {"PYTHONPATH": str(tree)}
            ran.append(subprocess.Popen(own, cwd=tree, env=environ, stdout=subprocess.PIPE, text=True))
        old, new = (json.loads(process.communicate()[0].splitlines()[-1]) for process in ran)
    print(f"{args.minutes} minutes side by side{'':12} {args.old[:10]:>10} {args.new[:10]:>10}   new/old")
    for figure, value in old.items():
        print(f"{figure:36} {value:10.2f} {new[figure]:10.2f} {new[figure] / value if value else 1:9.2f}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["watch"]:
        print(json.dumps(watch(int(sys.argv[2]))))
        sys.exit(0)
    sys.exit(main())
