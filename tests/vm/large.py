"""Reports of 30 000 tasks under the unit's memory limit, in a whole Debian 13: cgroup v2 and v1."""

from __future__ import annotations

import re
from pathlib import Path

from tests.vm import full
from tests.vm.checks import Claim

#: systemd 257 still runs on the old hierarchy if it is told twice
KERNELS = {
    "v2": "",
    "v1": "systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
}
#: resident, with room to the 96 MiB of the unit
MOST_KIB = 64 << 10


def test(image: Path, version: str, memory_mib: int, seconds: float) -> list[Claim]:
    """Boot the image and look."""
    result = full.run(image, memory_mib, seconds, "large", kernel=KERNELS[version])
    result.one("end")
    found = {
        name: int(figure) for name, figure in re.findall(r"^(\w+) (\d+)", result.one("large"), re.MULTILINE)
    }
    kind = result.one("version").strip()
    return [
        Claim(f"cgroup {version} ({kind})", kind == ("cgroup2fs" if version == "v2" else "tmpfs")),
        Claim(f"every kill is counted ({found['kills']})", found["kills"] == 6),
        Claim(f"alive, and ends in good order ({found})", found["alive"] == 1 and found["ended"] == 0),
        Claim(f"resident at most {found['rss_kib']} KiB", found["rss_kib"] <= MOST_KIB),
        Claim(f"charged at most {found['peak_bytes'] >> 20} MiB of 96", found["peak_bytes"] < 96 << 20),
    ]
