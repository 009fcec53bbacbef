"""What the warning costs a calm host: ``python -m tests.near.idle [--minutes N]``.

Two daemons as installed run side by side, one with warnings, one without. Forty cgroups have limits; three of
them are nearly full, so that they are followed. What else happens on the machine is hidden from both: they
see only these cgroups, no kernel log, and pressure and vmstat as they were at the beginning. Root, a memory
controller. What it mounts is mounted in a namespace of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.footprint import Running, install
from oomwatchd.observe.hierarchy import memory_hierarchy
from oomwatchd.observe.host import Host
from tests.near.__main__ import LOAD, cgroup
from tests.near.hour import MIB, inside

_STILL = ("/proc/pressure/memory", "/proc/vmstat")
_GROUPS, _FULL = 40, 3
#: set in the run that has mounts of its own
_APART = "NEAR_IDLE_APART"


def _mount(what: Path, at: str) -> None:
    subprocess.run(["mount", "--bind", str(what), at], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.near.idle", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    seconds = 60 * parser.parse_args().minutes
    if _APART not in os.environ:
        os.environ[_APART] = "1"
        again = ["unshare", "--mount", sys.executable, "-m", "tests.near.idle", *sys.argv[1:]]
        os.execvp(again[0], again)  # noqa: S606 - no shell is wanted
    hierarchy = memory_hierarchy(Host())
    assert hierarchy is not None, "no memory controller"
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="near-idle-")))
        top = stack.enter_context(cgroup(hierarchy, "near-idle", 1 << 40))
        for number in range(_GROUPS):
            group = stack.enter_context(cgroup(hierarchy, f"near-idle/{number}", 64 * MIB))
            full = number < _FULL
            size, life = (54 if full else 2) * MIB, seconds + 120
            inside(
                group,
                *(sys.executable, "-I", "-S", str(LOAD.with_name("fill.py")), str(size), str(life)),
                wait=False,
            )
        time.sleep(5)
        for number, name in enumerate(_STILL):
            copy = directory / f"still{number}"
            copy.write_bytes(Path(name).read_bytes())
            _mount(copy, name)
        _mount(top, str(hierarchy.mount))
        environ = install(directory)
        daemons = {}
        for name, words in (("with", "true"), ("without", "false")):
            own = directory / name
            own.mkdir()
            config = f'state_directory = "{own / "state"}"\n[warning]\nenabled = {words}\n'
            daemons[name] = Running(own, environ, config)
            stack.callback(daemons[name].stop)
        time.sleep(60)  # a beginning is not calm
        before = {name: _figures(one) for name, one in daemons.items()}
        time.sleep(seconds)
        for name, one in daemons.items():
            cpu, woken, disk, written = (b - a for a, b in zip(before[name], _figures(one), strict=True))
            print(
                f"{name} warnings: {100 * cpu / seconds:.4f} % of a core, {woken / seconds:.3f} wakeups a"
                f" second, {disk:.0f} bytes written to disks, {written:.0f} by write()"
            )
        subprocess.run(["umount", str(hierarchy.mount)], check=True)


def _figures(daemon: Running) -> tuple[float, ...]:
    return daemon.cpu_seconds(), sum(daemon.wakeups().values()), *daemon.written_bytes()


if __name__ == "__main__":
    main()
