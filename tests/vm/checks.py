"""What must be true of a system's run: claims with the figures that they rest on."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from typing import Any

import msgspec

from tests.vm.full import Result

#: hogs in cgroups of their own, all at once
STORM = 25
VICTIMS = {"greedy", "ravenous", *(f"storm{n}" for n in range(STORM))}
#: MemoryMax= of the unit
MEMORY_MAX_KIB = 96 * 1024
#: with less (small() in guest.sh) there is no room for a second Python nor for dpkg
SMALL_MIB = 256
#: of all threads: the flight recorder, the kernel's own count and the journal are looked at every 10 s each,
#: the first two together as far as they come in time
IDLE_SWITCHES_PER_SECOND = 0.3
#: linux/capability.h
_CAP_SETUID = 7


class Claim(msgspec.Struct, frozen=True):
    """One claim and whether it holds."""

    text: str
    holds: bool


def check(result: Result) -> list[Claim]:
    """All claims. Raises LabError where the machine did not come so far."""
    oom_kills = int(result.one("oom_kills"))
    start, after = result.kib("memory_at_start"), result.kib("memory_after")
    names = _names(result.json_lines("journal_by_id"))
    counted = result.metric("oomwatchd_oom_kills_total")
    claims = [
        Claim("the service is active after boot", result.one("active") == "active"),
        Claim("no unit failed", result.one("failed") == ""),
        Claim("the unit's hog was killed by the kernel", result.one("unit") == "oom-kill"),
        Claim(f"{oom_kills} kills, by the kernel's count", oom_kills >= STORM + 2),
        Claim(f"/metrics: {counted:.0f} kills", counted == oom_kills),
        Claim("/metrics: none unaccounted for", result.metric("oomwatchd_oom_kills_unaccounted") == 0),
        Claim(f"journal by MESSAGE_ID: {len(names)} entries", len(names) == oom_kills),
        Claim("journal: the unit's, the storm's and the global victim", set(names) >= VICTIMS),
        Claim("journal by unit: its one kill", _names(result.json_lines("journal_by_unit")) == ["greedy"]),
        *_of_the_unit(result),
        Claim("the daemon is the same process, never restarted", _survived(result)),
        Claim(f"memory at start: {start['VmRSS']} KiB resident", start["VmSwap"] == 0),
        Claim(
            f"memory after it all: {after['VmRSS']} KiB resident, at most {after['cgroup']} in its cgroup",
            after["VmSwap"] == 0 and after["cgroup"] < MEMORY_MAX_KIB,
        ),
        Claim("the service is active after a panic", result.one("active_after_panic") == "active"),
        Claim("and after a restart", result.one("active_after_restart") == "active"),
        Claim("journal by MESSAGE_ID: the panic, once", len(result.json_lines("journal_of_panic")) == 1),
    ]
    if result.memory_mib >= SMALL_MIB:
        claims += (
            _of_the_store(result, names)
            + _of_secrets(result)
            + _of_the_trace_points(result)
            + _of_the_readme(result)
            + _of_the_package(result)
        )
    if "idle_after" in result.parts:
        claims += _idle(result)
    return claims


def _of_the_store(result: Result, names: list[str]) -> list[Claim]:
    """``oomwatchd events list``, over a panic and a restart."""
    events, later, last = (
        result.json(part) for part in ("events", "events_after_panic", "events_after_restart")
    )
    victims = [victim["comm"] for event in events for victim in event["victims"]]
    return [
        Claim(f"events: {len(victims)} victims, those of the journal", sorted(victims) == sorted(names)),
        Claim("events: those from before the panic are there", _ids(events) < _ids(later)),
        Claim("events: the panic", _panics(later) == 1),
        Claim("events: a restart of the daemon adds nothing", _ids(later) == _ids(last)),
    ]


def _of_the_unit(result: Result) -> list[Claim]:
    """What is said of a unit, where its people look."""
    entries = result.json_lines("unit_journal")
    message = entries[0]["MESSAGE"] if entries else "nothing"
    shown = f": {message}" in result.one("unit_status") and message.startswith("greedy (pid ")
    sender = dict(line.split(":\t") for line in result.one("unit_sender").splitlines())
    bare = "0" not in sender["Uid"].split() and sender["NoNewPrivs"] == "1" and sender["Seccomp"] == "2"
    return [
        Claim("journalctl -u UNIT: its one kill", _names(entries) == ["greedy"]),
        Claim("systemctl status UNIT: who and why", shown),
        Claim(
            "the daemon is not root and has CAP_SETUID alone",
            bare and int(sender["CapEff"], 16) == int(sender["CapBnd"], 16) == 1 << _CAP_SETUID,
        ),
    ]


def _of_secrets(result: Result) -> list[Claim]:
    """A webhook with LoadCredential= under the real service manager."""
    received = result.json_lines("secrets_received")
    signed = [_signature(request) == request["headers"]["webhook-signature"] for request in received]
    tokens = [request["headers"]["x-token"] for request in received]
    victims = [json.loads(request["body"])["data"]["victims"][0]["comm"] for request in received]
    size, *secrets = result.one("secrets_said").split()
    waited = "1 waiting" in result.one("secrets_waiting")
    return [
        Claim("credentials: the kill came after an outage", waited and victims == ["hooked"]),
        Claim("credentials: token and signature", tokens == ["secret-token-of-the-lab"] and all(signed)),
        Claim("credentials: notify-test", result.one("secrets_test").startswith("webhook: ok, ")),
        Claim(
            f"credentials: not in {size} bytes of log, pages, store, properties and environment",
            int(size) > 50_000 and not secrets,
        ),
    ]


def _of_the_trace_points(result: Result) -> list[Claim]:
    """The drop-in trace.conf under the real service manager."""
    user = dict(line.split(":\t") for line in result.one("traced_user").splitlines())
    figures = dict(line.rsplit(" ", 1) for line in result.one("traced_metrics").splitlines())
    marked, unreported = (
        float(figures.get(f"oomwatchd_{name}_victims_total", "-1")) for name in ("marked", "unreported")
    )
    return [
        Claim("trace points: active, not root", result.one("traced") == "active" and user["Uid"][0] != "0"),
        Claim(f"trace points: {marked:.0f} victims marked", marked >= 1 and unreported == 0),
        Claim("trace points: the instance is gone afterwards", result.one("traced_left") == ""),
    ]


def _signature(request: dict[str, Any]) -> str:
    """Standard Webhooks."""
    headers, body = request["headers"], request["body"]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
    digest = hmac.new(b"secret-key-of-the-lab", signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _of_the_readme(result: Result) -> list[Claim]:
    """Every command of it, in order."""
    said = result.one("readme")
    received = result.one("readme_received").splitlines()
    return [
        Claim(
            "README: every command does" if said.endswith("ended with 0") else said, "ended with 0" in said
        ),
        Claim("README: the selftest's kill is seen", "\nok: the OOM kill of process " in said),
        Claim("README: it is in /metrics", "\noomwatchd_oom_kills_total" in said),
        Claim(f"README: the chat got the test and the kill: {len(received)} messages", len(received) >= 2),
    ]


def _of_the_package(result: Result) -> list[Claim]:
    """Upgrade, removal, purge."""
    lost = _ids(result.json("events")) - _ids(result.json("events_after_upgrade"))
    answers = {line.split()[1]: int(line.split()[0]) for line in result.one("scraped").splitlines()}
    told, killed = result.one("told_meanwhile"), int(result.one("killed_meanwhile"))
    running = set(result.one("running_after_remove").split())
    return [
        Claim(f"upgrade: {result.one('upgrade')[-120:]!r}", result.one("upgrade").endswith("\nended with 0")),
        Claim("upgrade: the service is active", result.one("upgraded") == "active"),
        Claim(f"upgrade: the store as before, but for {len(lost)} events", not lost),
        Claim(
            "upgrade: both sockets stay open",
            result.one("sockets_after") == result.one("sockets_before") != "",
        ),
        Claim(f"upgrade: every scrape is answered (curl: {answers})", set(answers) == {"0"}),
        Claim(
            f"upgrade: {killed - int(result.one('oom_kills'))} kills meanwhile, all told",
            killed > int(result.one("oom_kills")) and int(told) == killed,
        ),
        Claim("removal: nothing runs", running <= {"inactive", "unknown", "not-found"}),
        Claim("removal: the store stays", result.one("kept_after_remove") != ""),
        Claim("purge: nothing is left", result.one("left_after_purge") == ""),
    ]


def _names(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["OOM_VICTIM_COMM"] for entry in entries]


def _survived(result: Result) -> bool:
    return result.one("pid") == result.one("pid_after") != "0" and result.one("restarts") == "0"


def _ids(events: list[dict[str, Any]]) -> set[str]:
    return {event["id"] for event in events}


def _panics(events: list[dict[str, Any]]) -> int:
    return sum(event["kind"] == "oom_panic" for event in events)


def _idle(result: Result) -> list[Claim]:
    """What the daemon did while nothing happened, as the kernel counts it."""
    before, after = (_figures(result.one(name)) for name in ("idle_before", "idle_after"))
    seconds, written, switches = (
        after[name] - before[name] for name in ("uptime", "write_bytes", "voluntary_ctxt_switches")
    )
    # the edges of a short time, and the watchdog's keepalive
    most = IDLE_SWITCHES_PER_SECOND * seconds + 5
    return [
        Claim(f"idle for {seconds} s: {written} bytes written to disk", written == 0),
        Claim(
            f"idle for {seconds} s: {switches} voluntary context switches, {switches / seconds:.2f} a second",
            switches <= most,
        ),
    ]


def _figures(text: str) -> dict[str, int]:
    """The sum of each figure over all threads."""
    figures: dict[str, int] = {}
    for name, value in re.findall(r"^(\w+):\s+(\d+)$", text, re.MULTILINE):
        figures[name] = figures.get(name, 0) + int(value)
    return figures
