"""The profile without a process of ours in a whole Debian 13, beside the resident daemon: the same kills for
both."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.vm import full
from tests.vm.checks import Claim
from tests.vm.full import Result

PHASES = ("resident", "ondemand")


def test(image: Path, memory_mib: int, seconds: float, phases: tuple[str, ...] = PHASES) -> list[Claim]:
    """Boot the image once for each phase and look."""
    claims: list[Claim] = []
    for phase in phases:
        result = full.run(image, memory_mib, seconds, "ondemand", kernel=f"lab.phase={phase}")
        result.one("end")
        claims += claims_of(phase, result)
    return claims


def claims_of(phase: str, result: Result) -> list[Claim]:
    return (_of_the_resident if phase == "resident" else _on_demand)(result)


def figures(result: Result, name: str) -> dict[str, int]:
    """``name 5, other 7`` and ``name: 5`` -> figures by name."""
    return {key: int(value) for key, value in re.findall(r"(\w+):? +(\d+)", result.one(name))}


def _kills(result: Result) -> list[dict[str, Any]]:
    return [one for one in result.json_lines("export") if one["kills"]]


def _delay(kill: dict[str, Any]) -> float:
    """Seconds from the first kill until the event was ready to be stored."""
    detected, wall = (datetime.fromisoformat(kill["time"][name]) for name in ("detected", "wall"))
    return (detected - wall).total_seconds()


def _share(kills: list[dict[str, Any]], when: str) -> str:
    """How many events have a snapshot of the host then."""
    return f"{sum(bool((one['snapshots'] or {}).get(when)) for one in kills)} of {len(kills)}"


def _of_both(who: str, result: Result) -> list[Claim]:
    kills = _kills(result)
    told = figures(result, "resident_told" if who == "resident" else "before_the_end")
    late = sorted(map(_delay, kills))
    return [
        Claim(f"{who}: all kills are told and counted ({told})", told["told"] == told["kernel"]),
        Claim(f"{who}: each is stored once ({len(kills)} events)",
              sum(one["kills"] for one in kills) == told["kernel"]),
        Claim(f"{who}: from kill to event {late[0]:.2f} to {late[-1]:.2f} s, median"
            f" {late[len(late) // 2]:.2f} s",
              late[-1] < 60),
        Claim(
            f"{who}: snapshots of the moment: {_share(kills, 'at')}; before: {_share(kills, 'before')}", True
        ),
        Claim(f"{who}: none is historical", not any(one["historical"] for one in kills)),
    ]  # fmt: skip


def _of_the_resident(result: Result) -> list[Claim]:
    held, without = figures(result, "resident_held"), figures(result, "without_held")
    memory = result.kib("resident_memory_after")
    return [
        *_of_both("resident", result),
        Claim(
            f"resident: {memory['VmRSS']} KiB, most in its cgroup {memory['cgroup']}; without it"
            f" {without['MemFree'] - held['MemFree']} KiB more are free",
            memory["cgroup"] < 96 << 10,
        ),
    ]


def _on_demand(result: Result) -> list[Claim]:
    before, idle = figures(result, "before_held"), figures(result, "idle_held")
    quiet, last = figures(result, "quiet"), figures(result, "before_the_end")
    starts = _starts(result)
    singles = starts("at_boot", "ondemand_one_by_one")
    storm = starts("ondemand_one_by_one", "ondemand_storm")
    peaks = re.findall(r"([\d.]+M) memory peak", result.one("log"))
    return [
        *_of_both("on demand", result),
        Claim("on demand: nothing runs meanwhile", result.one("idle").splitlines() == ["0", "active"]),
        Claim(f"on demand: one start for each kill ({singles} for 2)", singles == 2),
        Claim(f"on demand: a storm of ten is one start or two ({storm})", 1 <= storm <= 2),
        Claim(f"on demand: it ended by itself ({last})", last["processes"] == 0),
        Claim(
            f"on demand: waiting takes {before['MemFree'] - idle['MemFree']} KiB, of it"
            f" {idle['Slab'] - before['Slab']} slab",
            before["MemFree"] - idle["MemFree"] < 2048,
        ),
        Claim(f"on demand: the manager woke {quiet['manager']} times in {quiet['seconds']} s",
            quiet["manager"] <= 5),
        Claim(f"on demand: most in its cgroup at work {peaks}", True),
    ]  # fmt: skip


def _starts(result: Result) -> Callable[[str, str], int]:
    """How often the daemon was started between two parts."""
    began = [
        float(one) for one in re.findall(r"^\[ *([\d.]+)\].*watching since", result.one("log"), re.MULTILINE)
    ]

    def at(name: str) -> float:
        found = re.search(r"uptime ([\d.]+)", result.one(name))
        assert found is not None
        return float(found[1])

    return lambda first, last: sum(at(first) < one <= at(last) for one in began)
