"""An hour of calm under one daemon with its defaults: ``python -m tests.near.hour [--minutes N]``.

Three cgroups at their limit (PostgreSQL and sqlite with more data than fits, compilers beside page cache) and
cgroups that are made, filled to 70 % and removed again, without end. No warning may come. Root, a memory
controller, PostgreSQL's server and pgbench, sqlite3's module, gcc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from oomwatchd.cgroupfs import Hierarchy
from oomwatchd.observe.hierarchy import memory_hierarchy
from oomwatchd.observe.host import Host
from tests.kernel.running import RunningDaemon
from tests.near.__main__ import LOAD, cgroup

MIB = 1 << 20
_POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path("/usr/bin"))
#: one unit of C that takes a compiler some 50 MiB for a second
_BODY = (
    "int f{n}(int *a, int b) {{ for (int i = 0; i < b; i++) a[i] += a[(i * {n}) % b] ^ {n}; return a[0]; }}"
)
_UNIT = "\n".join(_BODY.format(n=n) for n in range(900))


def inside(group: Path, *words: str, user: str | None = None, wait: bool = True) -> subprocess.Popen[bytes]:
    """A command in a cgroup, nice."""
    script = 'echo $$ > "$0/cgroup.procs"; exec nice "$@"'
    if user is not None:
        words = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *words)
    process = subprocess.Popen(
        ["sh", "-c", script, str(group), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if wait:
        process.wait()
    return process


def postgres(group: Path, directory: Path, until: float) -> None:
    """Shared buffers of a third of the limit, a database of three times the limit, 25 transactions a
    second."""
    data, sockets = directory / "data", directory
    shutil.chown(directory, "postgres")
    run = (str(_POSTGRES / "initdb"), "-D", str(data), "-A", "trust", "-N")
    assert inside(group, *run, user="postgres").returncode == 0
    options: tuple[str, ...] = (
        "-c",
        f"unix_socket_directories={sockets}",
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
    )
    options = (*options, "-c", "shared_buffers=80MB", "-c", "max_connections=20")
    server = inside(
        group, str(_POSTGRES / "postgres"), "-D", str(data), *options, user="postgres", wait=False
    )
    bench = (str(_POSTGRES / "pgbench"), "-h", str(sockets), "-U", "postgres")
    time.sleep(5)
    assert inside(group, *bench, "-i", "-q", "-s", "50", "postgres").returncode == 0
    while (left := until - time.monotonic()) > 1:
        inside(group, *bench, "-c", "4", "-R", "25", "-T", str(int(left)), "postgres")
    server.terminate()
    server.wait()


def sqlite(group: Path, directory: Path, until: float) -> None:
    """A process of its own: a table of three times the limit, a cache of a quarter, random updates."""
    run = (sys.executable, "-m", "tests.near.hour", "--sqlite", str(directory / "base"), str(until))
    inside(group, *run)


def _sqlite(name: str, until: float) -> None:
    drawn = random.Random(4)  # the same in each run
    base = sqlite3.connect(name)
    base.execute("pragma journal_mode=wal")
    base.execute(f"pragma cache_size=-{32 * 1024}")
    base.execute("pragma mmap_size=0")
    base.execute("create table item(id integer primary key, text blob)")
    for at in range(0, 96_000, 500):
        base.executemany("insert into item values (?, ?)", ((at + n, os.urandom(4000)) for n in range(500)))
        base.commit()
    while time.monotonic() < until:
        for _ in range(20):
            key = drawn.randrange(96_000)
            base.execute("select text from item where id = ?", (key,)).fetchone()
        base.execute("update item set text = ? where id = ?", (os.urandom(4000), key))
        base.commit()
        time.sleep(0.05)


def build(group: Path, directory: Path, until: float) -> None:
    """Compilers of a make with three jobs, and a tree of files twice the limit that is read and written."""
    (directory / "unit.c").write_text(_UNIT)
    makefile = f"all: {' '.join(f'{n}.o' for n in range(8))}\n%.o: unit.c\n\tcc -O1 -g -c -o $@ unit.c\n"
    (directory / "Makefile").write_text(makefile)
    tree = directory / "tree"
    tree.mkdir()
    for number in range(24):
        inside(group, "dd", "if=/dev/urandom", f"of={tree / str(number)}", "bs=1M", "count=16")
    number = 0
    while time.monotonic() < until:
        inside(group, "make", "-s", "-B", "-j3", "-C", str(directory))
        inside(group, "sh", "-c", f"cat {tree}/* > /dev/null")
        number = (number + 1) % 24
        inside(group, "cp", str(tree / str(number)), str(directory / f"copy{number % 6}"))
        time.sleep(8)


def churn(hierarchy: Hierarchy, directory: Path, until: float) -> int:
    """Two at a time; each lives for two seconds and a half."""
    count = 0
    lock = threading.Lock()

    def one() -> None:
        nonlocal count
        while time.monotonic() < until:
            with lock:
                count += 1
                name = f"near-churn-{os.getpid()}-{count}"
            with cgroup(hierarchy, name, 32 * MIB) as group:
                inside(
                    group, sys.executable, "-I", "-S", str(LOAD.with_name("fill.py")), str(22 * MIB), "1.5"
                )

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.near.hour", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    args = parser.parse_args()
    hierarchy = memory_hierarchy(Host())
    assert hierarchy is not None, "no memory controller"
    until = time.monotonic() + 60 * args.minutes
    counted: list[int] = []
    loads: dict[str, tuple[int, Callable[[Path, Path, float], object]]] = {
        "postgres": (240, postgres),
        "sqlite": (128, sqlite),
        "build": (192, build),
    }
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="near-hour-")))
        directory.chmod(0o755)
        daemon = RunningDaemon(directory, None)
        daemon.start()
        threads, groups = [], {}
        for name, (limit, load) in loads.items():
            own = directory / name
            own.mkdir()
            groups[name] = stack.enter_context(cgroup(hierarchy, f"near-hour-{name}", limit * MIB))
            threads.append(threading.Thread(target=load, args=(groups[name], own, until), name=name))
        threads.append(threading.Thread(target=lambda: counted.append(churn(hierarchy, directory, until))))
        for thread in threads:
            thread.start()
        most = dict.fromkeys(groups, 0)
        while any(thread.is_alive() for thread in threads):
            for name, group in groups.items():
                used = int((group / hierarchy.files.usage).read_text())
                most[name] = max(most[name], 100 * used // (loads[name][0] * MIB))
            time.sleep(1)
        stat = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
        busy = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        daemon.stop()
        events = daemon.stored()
        print(f"{args.minutes:g} minutes; cgroups made and removed: {sum(counted)}")
        print("held at most, % of the limit:", ", ".join(f"{n} {share}" for n, share in most.items()))
        print(f"the daemon's CPU time: {busy:.1f} s")
        ours = [
            event for event in events if "near-hour" in json.dumps(event) or "near-churn" in json.dumps(event)
        ]
        for event in ours:
            print(event["kind"], event["summary"])
        others = [event for event in events if event["kind"] == "oom_near" and event not in ours]
        print(f"warnings and kills: {len(ours)}; warnings of others on this host: {len(others)}")
        for event in others:
            print("  another's:", event["summary"])
        print(daemon.log()[-2000:], file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--sqlite"]:
        _sqlite(sys.argv[2], float(sys.argv[3]))
    else:
        main()
