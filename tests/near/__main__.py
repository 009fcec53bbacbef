"""Run loads side by side, each in a cgroup with a limit, under one daemon; say what was warned of and when.

``python -m tests.near [--limit MiB] [NAME ...]``: root, a memory controller, a few minutes. For each load:
whether the kernel killed, how long the growth took, how long before the kill the warning was."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from oomwatchd.cgroupfs import Hierarchy
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
            for pid in (directory / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    os.kill(int(pid), 9)
            with contextlib.suppress(OSError):
                directory.rmdir()
                break
            time.sleep(0.05)


def run(scenario: Scenario, hierarchy: Hierarchy, limit: int, outcome: Outcome, files: Path) -> None:
    """One load, from its beginning to its end."""
    with cgroup(hierarchy, outcome.cgroup.lstrip("/"), limit) as directory:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LOAD), scenario.load, str(limit), str(scenario.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LOAD_DIRECTORY": str(files)},
        )
        assert process.stdin is not None and process.stdout is not None
        (directory / "cgroup.procs").write_text(str(process.pid))
        process.stdin.write("go\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.strip() == "begins":
                outcome.began = time.monotonic()
                break
        count = directory / ("memory.events" if hierarchy.version == 2 else "memory.oom_control")
        while process.poll() is None and not outcome.killed:
            time.sleep(0.1)
            outcome.killed = _kills(count) > 0
        outcome.killed = outcome.killed or _kills(count) > 0
        outcome.ended = time.monotonic()
        time.sleep(8)  # a warning of what is gone passes
        process.kill()
        process.wait()


def _kills(file: Path) -> int:
    words = file.read_text().split()
    return int(words[words.index("oom_kill") + 1])


def measure(names: list[str], limit: int, directory: Path) -> list[Outcome]:
    """All of them at once."""
    hierarchy = memory_hierarchy(Host())
    assert hierarchy is not None, "no memory controller"
    daemon = RunningDaemon(directory, None)
    daemon.start()
    time.sleep(3)
    outcomes, threads = [], []
    for number, scenario in enumerate(SCENARIOS):
        if names and scenario.name not in names:
            continue
        outcome = Outcome(scenario, f"/near-{os.getpid()}-{number}")
        outcomes.append(outcome)
        thread = threading.Thread(target=run, args=(scenario, hierarchy, limit, outcome, directory))
        threads.append(thread)
        thread.start()
        time.sleep(0.7)
    for thread in threads:
        thread.join()
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
    parser.add_argument("--json", type=Path, help="a file for the events of the warnings")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="near-") as directory:
        outcomes = measure(args.names, args.limit << 20, Path(directory))
    report(outcomes)
    if args.json is not None:
        args.json.write_text(json.dumps([event for one in outcomes for event in one.warnings], indent=1))


if __name__ == "__main__":
    main()
