"""Names of containers and what of the kernel is root's, under the packaged units and a real manager."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.vm import full
from tests.vm.checks import Claim

NAME = "shop-db"
PODMAN = "shop-cache"


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
        *_podman(result),
    ]


def _podman(result: full.Result) -> list[Claim]:
    """Each kill in a container of Podman's, in all that is told."""
    listed = [one for one in result.json("events") if one["container"] == PODMAN]
    journal = [one for one in result.json_lines("journal") if one.get("OOM_CONTAINER_NAME") == PODMAN]
    series = f'oomwatchd_container_oom_kills_total{{container="{PODMAN}",namespace="",pod=""}}'
    counted = {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in result.one("podman_metrics").splitlines())
    }
    sent = [_attributes(record) for record in _records(result)]
    named = [one.get("container.name") for one in sent if one.get("container.runtime.name") == "podman"]
    return [
        Claim(
            f"Podman: killed three times ({result.one('podman_status')!r})",
            result.one("podman_status").split() == ["137"] * 3,
        ),
        Claim(f"Podman: {len(listed)} events by its name", len(listed) == 3),
        Claim(f"Podman: {len(journal)} journal entries by its name", len(journal) == 3),
        Claim(
            f"Podman: in the line: {[one['MESSAGE'] for one in journal]}",
            all(_in_line(one) for one in journal),
        ),
        Claim(f"Podman: metric {counted}", counted.get(series) == 3),
        Claim(f"Podman: OTLP {named}", named == [PODMAN] * 3),
    ]


def _in_line(entry: dict[str, Any]) -> bool:
    return f"container {PODMAN}" in entry["MESSAGE"]


def _records(result: full.Result) -> list[dict[str, Any]]:
    """The log records of all OTLP requests."""
    bodies = [json.loads(request["body"]) for request in result.json_lines("podman_otlp")]
    return [
        record
        for body in bodies
        for resource in body["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]


def _attributes(record: dict[str, Any]) -> dict[str, Any]:
    return {pair["key"]: pair["value"].get("stringValue") for pair in record["attributes"]}
