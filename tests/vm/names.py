"""Names of containers and what of the kernel is root's, under the packaged units and a real manager."""

from __future__ import annotations

import json
from pathlib import Path

from tests.vm import full
from tests.vm.checks import Claim

NAME = "shop-db"


def test(image: Path, memory_mib: int, seconds: float) -> list[Claim]:
    """Boot the image and look."""
    result = full.run(image, memory_mib, seconds, "names")
    result.one("end")
    event = json.loads(result.one("event"))
    owners = [one for one in event["attribution"] if one["role"] == "victim"]
    parts = event["snapshots"]["at"]["parts"]
    parts = parts if isinstance(parts, dict) else {}
    before, after = result.one("helper_before"), result.one("helper_after")
    return [
        Claim("the service is active", result.one("active") == "active"),
        Claim("no unit failed", result.one("failed") == ""),
        Claim("the service manager knows every line", result.one("ignored") == ""),
        Claim(f"not root: {result.one('user')}", "Uid:\t0" not in result.one("user")),
        Claim("the helper was not started before there was a container", before == "0"),
        Claim(f"it was for the container ({result.one('helper_log')})", int(after or 0) > 0),
        Claim(f"and saw of /etc: {result.one('helper_root')}", result.one("helper_root") == "ld.so.cache"),
        Claim(f"and ended by itself: {result.one('helper_idle')}", result.one("helper_idle") == "inactive"),
        Claim(f"the victim's container: {owners}", [o["container_name"] for o in owners] == [NAME]),
        Claim(f"the line: {event['summary']}", f"container {NAME}" in event["summary"]),
        Claim("slab caches are known", " " in parts.get("slabinfo", "")),
        Claim("callers of vmalloc are known", "+0x" in parts.get("vmallocinfo", "")),
        Claim(
            f"the segment is known: {parts.get('sysv')}",
            f"{4 << 20} {result.one('segment')} " in parts.get("sysv", ""),
        ),
        Claim("settings are known", "vm.min_free_kbytes = " in parts.get("sysctl", "")),
    ]
