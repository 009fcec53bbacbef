"""The profile without a process of ours, in a whole Debian 13: kills start the daemon."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from tests.vm import full
from tests.vm.checks import Claim


def test(image: Path, memory_mib: int, seconds: float) -> list[Claim]:
    """Boot the image and look."""
    result = full.run(image, memory_mib, seconds, "ondemand")
    result.one("end")

    def figures(name: str) -> dict[str, int]:
        return {key: int(value) for key, value in re.findall(r"(\w+) (\d+)", result.one(name))}

    events = [one for one in result.json_lines("export") if one["kills"]]
    delays = sorted(
        (datetime.fromisoformat(one["time"]["detected"]) - datetime.fromisoformat(one["time"]["wall"]))
        .total_seconds()
        for one in events
        if one["time"]["detected"] and one["time"]["wall"]
    )  # fmt: skip
    storm, last = figures("storm"), figures("before_the_end")
    claims = [
        Claim(
            "nothing of ours runs while nothing happens", result.one("idle").splitlines() == ["0", "active"]
        ),
        Claim(
            f"one start each ({figures('one_by_one')})",
            figures("one_by_one")["starts"] == figures("at_boot")["starts"] + 3,
        ),
        Claim(f"a storm is one start or two ({storm})", 1 <= storm["starts"] <= 2),
        Claim(f"all kills are told and counted ({last})", last["told"] == last["kernel"]),
        Claim("no event is historical", not any(one["historical"] for one in events)),
        Claim(f"each is stored once ({len(events)})", sum(one["kills"] for one in events) == last["kernel"]),
        Claim(f"it ended by itself ({last})", last["processes"] == 0),
        Claim(f"an instance takes {result.one('instance_kib')} KiB", int(result.one("instance_kib")) < 512),
        Claim(
            f"from kill to event: {delays[:1]} to {delays[-1:]} s, median {delays[len(delays) // 2 :][:1]}",
            bool(delays) and delays[-1] < 60,
        ),
    ]
    return claims
