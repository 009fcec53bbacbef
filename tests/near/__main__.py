"""Run loads side by side, each in a cgroup with a limit, under one daemon; say what was warned of and when.

``python -m tests.near [--unseen SEED] [--limit MiB] [NAME ...]``: root, a memory controller, a few minutes.
For each load: whether the kernel killed, how long the growth took, how long before the kill the warning was.
The rules were tuned on the first set of loads; each seed of the second set shows others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from oomwatchd.cgroupfs import Hierarchy, entry
from oomwatchd.observe.hierarchy import memory_hierarchy
from oomwatchd.observe.host import Host
from tests.kernel.running import RunningDaemon

LOAD = Path(__file__).with_name("load.py")
#: no growth that took less is expected to be warned of
COUNTS_SECONDS = 30.0


class Scenario(NamedTuple):
    """``load`` and how long it takes; whether the kernel is expected to kill."""

    name: str
    load: str
    seconds: float
    kills: bool


SCENARIOS = (
    Scenario("slow leak", "leak", 240, True),
    Scenario("leak", "leak", 120, True),
    Scenario("fast leak", "leak", 60, True),
    Scenario("faster leak", "leak", 40, True),
    Scenario("late leak", "late_leak", 90, True),
    Scenario("late fast leak", "late_leak", 50, True),
    Scenario("leak in steps", "stairs", 150, True),
    Scenario("leak in a busy program", "leak_in_noise", 120, True),
    Scenario("fork bomb", "fork_bomb", 60, True),
    Scenario("tmpfs filling", "tmpfs", 80, True),
    Scenario("kernel memory", "kernel_memory", 90, True),
    Scenario("leak beside page cache", "cache_then_leak", 120, True),
    Scenario("start of a virtual machine", "plateau", 15, False),
    Scenario("short start", "short_start", 12, False),
    Scenario("slower start", "plateau", 20, False),
    Scenario("caches fill", "settling", 30, False),
    Scenario("mapped heap fills", "heap_mapped", 60, False),
    Scenario("garbage collector", "collector", 12, False),
    Scenario("batch job", "batch", 18, False),
    Scenario("database at its limit", "database", 200, False),
    Scenario("build with much page cache", "build", 180, False),
    Scenario("compile storm", "compile_storm", 180, False),
    Scenario("build tree in tmpfs", "tmpfs_build", 18, False),
    Scenario("full and calm", "full", 180, False),
)


#: the second set: seconds are changed by the seed, by half and by twice at most
UNSEEN = (
    *(Scenario(name.replace("_", " "), name, seconds, True) for name, seconds in (
        ("exponential", 110), ("quadratic", 100), ("rest_between", 150), ("two_in_turns", 100),
        ("short_children", 100), ("mapped_tmpfs", 80), ("threads", 90), ("pipes", 80), ("slab", 100),
        ("ratchet", 200), ("hidden", 240), ("log_buffer", 100), ("uneven", 120), ("java", 120),
        ("requests", 140), ("group", 90),
    )),
    *(Scenario(name.replace("_", " ", 1), name, seconds, False) for name, seconds in (
        ("calm_postgres", 150), ("calm_java", 90), ("calm_heap", 150), ("calm_node", 200),
        ("calm_packages", 200), ("calm_pytest", 200), ("calm_git", 200), ("calm_copy", 200),
        ("calm_frames", 200), ("calm_tabs", 240),
        ("calm_nightly", 240), ("calm_snapshot", 240), ("calm_index", 150), ("calm_day", 300),
        ("calm_workers", 240), ("calm_cc", 200),
    )),
)  # fmt: skip


class Outcome:
    """What one load did, on CLOCK_MONOTONIC."""

    def __init__(self, scenario: Scenario, cgroup: str) -> None:
        self.scenario = scenario
        self.cgroup = cgroup
        self.began: float | None = None
        self.ended: float | None = None
        self.killed = False
        self.warnings: list[dict[str, Any]] = []
        self.kill_told: dict[str, Any] | None = None

    @property
    def growth(self) -> float:
        """Seconds from the beginning of the growth to the kill."""
        return (self.ended or 0.0) - (self.began or 0.0)

    @property
    def lead(self) -> float:
        """Seconds from the warning to the kill."""
        true = [one["near"]["lead_seconds"] for one in self.warnings if one["near"]["state"] == "came_true"]
        return max(true, default=0.0)

    @property
    def false(self) -> int:
        """Warnings that no kill followed."""
        return sum(one["near"]["state"] != "came_true" for one in self.warnings)


@contextlib.contextmanager
def cgroup(hierarchy: Hierarchy, name: str, limit: int) -> Iterator[Path]:
    """A cgroup with a limit, gone afterwards."""
    directory = Path(hierarchy.mount) / name
    if hierarchy.version == 2:
        (Path(hierarchy.mount) / "cgroup.subtree_control").write_text("+memory")
    directory.mkdir()
    try:
        (directory / hierarchy.files.limit).write_text(str(limit))
        if hierarchy.version == 2:
            (directory / hierarchy.files.swap_limit).write_text("0")
        yield directory
    finally:
        for _ in range(100):
            inner = [path for path in directory.iterdir() if path.is_dir()]
            for pid in [
                pid for one in (directory, *inner) for pid in (one / "cgroup.procs").read_text().split()
            ]:
                with contextlib.suppress(OSError):
                    os.kill(int(pid), 9)
            with contextlib.suppress(OSError):
                for one in (*inner, directory):
                    one.rmdir()
                break
            time.sleep(0.05)


def run(
    scenario: Scenario, hierarchy: Hierarchy, limit: int, outcome: Outcome, files: Path, seed: int | None
) -> None:
    """One load, from its beginning to its end."""
    seconds = scenario.seconds
    script = [str(LOAD if seed is None else LOAD.with_name("unseen.py"))]
    more = []
    if seed is not None:
        drawn = random.Random(f"{scenario.name} {seed}")  # the same in each run
        seconds *= 2 ** drawn.uniform(-1, 1) if scenario.kills else 1
        more = [str(seed)]
    with cgroup(hierarchy, outcome.cgroup.lstrip("/"), limit) as directory:
        process = subprocess.Popen(
            # what takes the processor goes behind others; a leak keeps its pace
            [
                *([] if scenario.kills else ["nice"]),
                sys.executable,
                "-I",
                "-S",
                *script,
                scenario.load,
                str(limit),
                str(seconds),
                *more,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "LOAD_DIRECTORY": str(files), "LOAD_PYTHON": sys.executable},
        )
        assert process.stdin is not None and process.stdout is not None
        (directory / "cgroup.procs").write_text(str(process.pid))
        process.stdin.write("go\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.strip() == "begins":
                outcome.began = time.monotonic()
                break
        while process.poll() is None and not outcome.killed:
            time.sleep(0.1)
            outcome.killed = _kills(directory) > 0
        outcome.killed = outcome.killed or _kills(directory) > 0
        outcome.ended = time.monotonic()
        time.sleep(8)  # a warning of what is gone passes
        process.kill()
        process.wait()


def _kills(directory: Path) -> int:
    """In the cgroup, or (v1 counts where the victim was) in those below it."""
    count = 0
    for one in (directory, *directory.glob("*/")):
        with contextlib.suppress(OSError):
            file = one / "memory.events"
            words = (file if file.exists() else one / "memory.oom_control").read_text().split()
            count += int(words[words.index("oom_kill") + 1])
    return count


def measure(
    names: list[str], limit: int, directory: Path, seed: int | None = None, record: Path | None = None
) -> list[Outcome]:
    """All of them at once."""
    hierarchy = memory_hierarchy(Host())
    assert hierarchy is not None, "no memory controller"
    daemon = RunningDaemon(directory, None)
    daemon.start()
    time.sleep(3)
    outcomes: list[Outcome] = []
    threads = []
    watch = Watch(hierarchy, outcomes)
    if record is not None:
        watch.start()
    for number, scenario in enumerate(SCENARIOS if seed is None else UNSEEN):
        if names and scenario.name not in names:
            continue
        outcome = Outcome(scenario, f"/near-{os.getpid()}-{number}")
        outcomes.append(outcome)
        thread = threading.Thread(target=run, args=(scenario, hierarchy, limit, outcome, directory, seed))
        threads.append(thread)
        thread.start()
        time.sleep(0.7)
    for thread in threads:
        thread.join()
    if record is not None:
        watch.write(record, limit)
    time.sleep(3)
    daemon.stop()
    stored = daemon.stored()
    for outcome in outcomes:
        for event in stored:
            if event["kind"] == "oom_near" and event["near"]["cgroup"] == outcome.cgroup:
                outcome.warnings.append(event)
            elif (event.get("memcg") or {}).get("oom_path") == outcome.cgroup:
                outcome.kill_told = outcome.kill_told or event
    others = [event for event in stored if event["kind"] == "oom_near" and event["near"]["cgroup"] is None]
    print(f"warnings of the machine: {len(others)}")
    print(daemon.log()[-3000:], file=sys.stderr)
    return outcomes


class Watch(threading.Thread):
    """Looks at each load's cgroup, so that rules can be tried on what was seen (tests.near.replay)."""

    def __init__(self, hierarchy: Hierarchy, outcomes: list[Outcome]) -> None:
        super().__init__(daemon=True)
        self._hierarchy = hierarchy
        self._outcomes = outcomes
        self._seen: dict[str, list[list[int]]] = {}

    def run(self) -> None:
        while True:
            self._look()
            time.sleep(0.4)

    def _look(self) -> None:
        files = self._hierarchy.files
        for outcome in list(self._outcomes):
            directory = Path(self._hierarchy.mount) / outcome.cgroup.lstrip("/")
            with contextlib.suppress(OSError):
                usage = int((directory / files.usage).read_text())
                stat = (directory / files.stat).read_bytes()
                cache = sum(entry(stat, name) or 0 for name in files.droppable)
                looked = [int(time.monotonic() * 1e3), usage, cache, *_memory_of(directory)]
                looked.append(entry(stat, files.shmem) or 0)
                self._seen.setdefault(outcome.cgroup, []).append(looked)

    def write(self, to: Path, limit: int) -> None:
        for outcome in self._outcomes:
            found = {
                "name": outcome.scenario.name,
                "limit": limit,
                "began": outcome.began,
                "ended": outcome.ended,
                "killed": outcome.killed,
                "seen": self._seen.get(outcome.cgroup, []),
            }
            to.mkdir(exist_ok=True)
            (to / f"{outcome.scenario.load}-{outcome.scenario.seconds:.0f}.json").write_text(
                json.dumps(found)
            )


def _memory_of(directory: Path) -> tuple[int, int, int]:
    """Private resident, mapped writable, and mapped but untouched bytes of all processes."""
    page = os.sysconf("SC_PAGE_SIZE")
    resident = mapped = left = 0
    for procs in (directory / "cgroup.procs", *directory.glob("*/cgroup.procs")):
        for pid in procs.read_text().split():
            with contextlib.suppress(OSError, IndexError):
                words = Path(f"/proc/{pid}/statm").read_text().split()
                private = int(words[1]) - int(words[2])
                resident += private * page
                mapped += int(words[5]) * page
                left += max(0, int(words[5]) - private) * page
    return resident, mapped, left


def report(outcomes: list[Outcome]) -> None:
    print("| load | killed | growth, s | lead, s | share | passed | first warning |")
    print("|---|---|--:|--:|--:|--:|---|")
    for one in outcomes:
        first = min(
            (event["near"] for event in one.warnings), key=lambda near: near["soonest_seconds"], default=None
        )
        said = ""
        if first is not None:
            said = f"at {100 * first['used_bytes'] / first['capacity_bytes']:.0f} %"
            said += f", {first['soonest_seconds']} to {first['latest_seconds']} s, "
            said += first["passed"] or first["state"]
        share = f"{100 * one.lead / one.growth:.0f} %" if one.killed else ""
        lead = f"{one.lead:.0f}" if one.killed else ""
        print(
            f"| {one.scenario.name} | {'yes' if one.killed else 'no'} | {one.growth:.0f} | {lead} | {share} |"
            f" {one.false} | {said} |"
        )
    killed = [one for one in outcomes if one.killed and one.growth > COUNTS_SECONDS]
    told = [one for one in killed if one.lead > 0]
    true, false = sum(one.lead > 0 for one in outcomes), sum(one.false for one in outcomes)
    print(f"\nrecall {len(told)} of {len(killed)} exhaustions that took longer than {COUNTS_SECONDS:.0f} s")
    if killed:
        print(f"median lead {100 * median(one.lead / one.growth for one in killed):.0f} % of the growth")
    if true + false:
        print(f"precision {true} of {true + false} warnings")
    for one in told:
        if one.kill_told is None or one.kill_told.get("warned") is None:
            print(f"no link: {one.scenario.name}: {(one.kill_told or {}).get('summary')}")
    linked = sum(one.kill_told is not None and one.kill_told.get("warned") is not None for one in told)
    print(f"kills that link to their warning: {linked} of {len(told)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.near", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of loads; none: all")
    parser.add_argument("--limit", type=int, default=192, help="of each cgroup, MiB")
    parser.add_argument("--unseen", type=int, metavar="SEED", help="the second set of loads")
    parser.add_argument("--record", type=Path, help="a directory for what was seen of each load")
    parser.add_argument("--json", type=Path, help="a file for the events of the warnings")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="near-") as directory:
        Path(directory).chmod(0o755)
        outcomes = measure(args.names, args.limit << 20, Path(directory), args.unseen, args.record)
    report(outcomes)
    if args.json is not None:
        args.json.write_text(json.dumps([event for one in outcomes for event in one.warnings], indent=1))


if __name__ == "__main__":
    main()
