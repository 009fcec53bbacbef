"""Reports of 30 000 tasks under the unit's memory limit, in a whole Debian 13 with cgroup v2. Its kernel has
no memory controller of v1; ``tests/faults/test_attacks.py`` shows that one where the host has it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.vm import full
from tests.vm.checks import Claim
from tests.vm.lab import LabError

#: resident, with room to the 96 MiB of the unit
MOST_KIB = 64 << 10
REPORTS = 6


def test(image: Path, memory_mib: int, seconds: float) -> list[Claim]:
    """Boot the image and look."""
    result = full.run(image, memory_mib, seconds, "large")
    result.one("end")
    said = result.one("large")
    found = {name: int(figure) for name, figure in re.findall(r"^(\w+) (\d+)", said, re.MULTILINE)}
    if "ended" not in found:
        raise LabError(f"the machine said only: {said}\n{result.console[-2000:]}")
    kind = result.one("version").strip()
    return [
        Claim(f"cgroup v2 ({kind})", kind == "cgroup2fs"),
        Claim(f"{found['kills']} of {REPORTS} kills counted", found["kills"] == REPORTS),
        Claim(f"alive, and ends in good order ({found})", found["alive"] == 1 and found["ended"] == 0),
        Claim(f"resident at most {found['rss_kib']} KiB", found["rss_kib"] <= MOST_KIB),
        Claim(
            f"charged at most {found['peak_bytes'] >> 20} MiB of 96, {found['refused']} charges refused",
            found["peak_bytes"] < 96 << 20 and found["refused"] == 0,
        ),
    ]
