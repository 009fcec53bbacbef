"""Try the rules on what was recorded of loads: ``python -m tests.near.replay DIRECTORY ... [--show NAME]``.

``python -m tests.near --record DIRECTORY`` records. Each load is replayed as if alone and as if in company.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from oomwatchd.observe.looks import Deeper, bound_of
from oomwatchd.records.nearing import Nearing
from oomwatchd.warning.incidents import Incidents, Reading

_CALM, _NEW_SECONDS = 10.0, 60.0


class Replayed:
    """What the rules would have said of one load."""

    def __init__(self, name: str, killed: bool, growth: float) -> None:
        self.name, self.killed, self.growth = name, killed, growth
        self.warnings: list[Nearing] = []

    @property
    def lead(self) -> float:
        return max(
            (one.lead_seconds or 0.0 for one in self.warnings if one.state == "came_true"), default=0.0
        )

    @property
    def false(self) -> int:
        return sum(one.state != "came_true" for one in self.warnings)

    def __str__(self) -> str:
        share = f"{self.lead:4.0f} s {100 * self.lead / self.growth:3.0f} %" if self.killed else ""
        said = "; ".join(
            f"{one.passed or one.state} at {100 * one.used_bytes / one.capacity_bytes:.0f} %,"
            f" {one.soonest_seconds:.0f} to {one.latest_seconds} s"
            for one in self.warnings
        )
        return (
            f"{self.name:24} {'killed' if self.killed else 'calm':6} {self.growth:4.0f} s {share:12} {said}"
        )


def replay(found: dict[str, Any], *, alone: bool) -> Replayed:
    """Look at a recording as the daemon would have done; ``alone``: nothing else hastens it. ``seen`` are
    looks: milliseconds, then bytes charged, of page cache, resident, mapped, mapped and untouched, shared."""
    limit, seen = int(found["limit"]), found["seen"]
    killed = bool(found["killed"])
    result = Replayed(found["name"], killed, float(found["ended"] or 0) - float(found["began"] or 0))
    kept: list[Deeper] = []
    now: list[Deeper] = []

    def bound(_reading: Reading) -> int | None:
        return bound_of(kept, now[0])

    incidents = Incidents(horizon_seconds=1800, bound=bound)
    told: dict[int, Nearing] = {}
    wanted, first = 0.0, seen[0][0] / 1e3 if seen else 0.0
    end = float(found["ended"] or 0)
    for millis, usage, cache, resident, mapped, left, shmem in seen:
        at = millis / 1e3
        if killed and at >= end - 0.3:
            break
        if at < wanted:
            continue
        usec, used = millis * 1000, usage - min(usage, cache)
        now[:] = [Deeper(usec, used, resident, mapped, left, shmem, {})]
        reading = Reading(cgroup="/load", usec=usec, used_bytes=used, capacity_bytes=limit, limit_bytes=limit)
        told |= {one.usec: one for one in incidents.take([reading], usec, at)}
        soonest = incidents.soonest_seconds
        pace = _CALM if alone and at - first > _NEW_SECONDS else 1.0
        if incidents.outlook and incidents.outlook[0].open:
            pace = min(pace, 2.0)
        if soonest is not None:
            pace = min(pace, max(1.0, soonest / 20))
            if soonest < 300 and (not kept or usec - kept[-1].usec >= 4_000_000):
                kept += now
        wanted = at + pace - 0.1
    if killed:
        done = incidents.killed("/load", None, int(end * 1e6), end)
        if done is not None:
            told[done[0].usec] = done[0]
    result.warnings = list(told.values())
    return result


def recordings(directories: list[Path]) -> Iterator[dict[str, Any]]:
    for directory in directories:
        for file in sorted(directory.glob("*.json")):
            yield json.loads(file.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.near.replay", description=__doc__)
    parser.add_argument("directories", nargs="+", type=Path)
    parser.add_argument("--show", help="the recorded figures of this load")
    args = parser.parse_args()
    for alone in (False, True):
        done = []
        for found in recordings(args.directories):
            if args.show and found["name"] != args.show:
                continue
            if args.show and not alone:
                for at in found["seen"][::4]:
                    used = 100 * (at[1] - at[2]) / found["limit"]
                    print(
                        f"{at[0] / 1e3 - found['began']:6.1f} s {used:5.1f} % cache {at[2] >> 20}"
                        f" resident {at[3] >> 20} mapped {at[4] >> 20} left {at[5] >> 20} shmem {at[6] >> 20}"
                    )
            done.append(replay(found, alone=alone))
        for one in sorted(done, key=lambda one: not one.killed):
            print(one)
        long = [one for one in done if one.killed and one.growth > 30]
        true, false = sum(one.lead > 0 for one in done), sum(one.false for one in done)
        if long:
            share = 100 * median(one.lead / one.growth for one in long)
            told = sum(one.lead > 0 for one in long)
            print(f"{'alone' if alone else 'in company'}: recall {told} of {len(long)},")
            print(f"  median lead {share:.0f} %, precision {true} of {true + false},")
            print(f"  calm with warnings {sum(bool(one.warnings) for one in done if not one.killed)}\n")


if __name__ == "__main__":
    main()
