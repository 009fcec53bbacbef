"""What must be true after trouble.sh: its claims rest on the store that the machine left on its disk."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from pathlib import Path

from oomwatchd.event import OomEvent
from tests.vm import full
from tests.vm.checks import SMALL_MIB, Claim
from tests.vm.full import Result

#: cgroups whose processes wait for the storm, and such that come and go with it
CGROUPS = 40
#: with less there may be no block of memory that nothing of the kernel's lies in
LARGE_MIB = 1024
#: the least share of their kills that is attributed to the right one
ATTRIBUTED = 0.95
#: the same of kills whose processes lived for milliseconds: an emulated machine beside other work looks late
IN_A_BURST = 0.85
#: a ring for all reports of the cgroup of which nobody may be killed; memory that can be taken out of use,
#: since what is in it can be moved
_KERNEL_LARGE = "log_buf_len=8M movablecore=512M"
#: a small machine has no room for these
_KERNEL_SMALL = "log_buf_len=1M"
#: how far the wall-clock time of a kill may lie outside of the seconds in which it was provoked: the guest's
#: clock is read by a process that has to be started first
_SLACK_SECONDS = 5.0
#: from a global kill until it is told: the machine is emulated, beside whatever else runs (docs/vm-lab.md has
#: what was measured)
_LATENCY_SECONDS = 5.0


def test(image: Path, directory: Path, memory_mib: int, seconds: float) -> list[Claim]:
    """Run the script and look at what the daemon stored."""
    disk = full.copy(image, directory / "disk")
    drive = full.writable(disk)
    kernel = _KERNEL_LARGE if memory_mib >= LARGE_MIB else _KERNEL_SMALL
    result = full.run(image, memory_mib, seconds, "trouble", kernel=kernel, drive=drive)
    result.one("end")
    return check(result, full.events(disk, directory / "store"))


def check(result: Result, found: list[OomEvent]) -> list[Claim]:
    """All claims about what the machine said and stored; what is missing altogether fails its own alone."""
    claims = [Claim(f"{result.seconds:.0f} s", True)]
    for part in (_counts, _attributed, _folded, _clock, _phoenix, _oomd, _marks, _latencies):
        try:
            claims += part(result, found)
        except LookupError as error:
            claims.append(Claim(f"{part.__name__}: {error}", False))
    return claims


def victims(found: list[OomEvent]) -> Counter[str]:
    """How often each name was killed."""
    return Counter(str(victim.comm) for event in found for victim in event.victims)


def of(found: list[OomEvent], comm: str) -> OomEvent:
    """The first event with a victim of this name. Raises LookupError if there is none."""
    for event in found:
        if any(victim.comm == comm for victim in event.victims):
            return event
    raise LookupError(f"no event of {comm}, only of {sorted(victims(found))}")


def _counts(result: Result, found: list[OomEvent]) -> list[Claim]:
    kills = int(result.one("oom_kills"))
    stored = sum(event.kills for event in found)
    ids = Counter(event.id for event in found)
    doubled = [name for name, count in (ids | victims(found)).items() if count > 1]
    told = [entry["OOM_VICTIM_COMM"] for entry in result.json_lines("journal_by_id")]
    unaccounted = result.metric("oomwatchd_oom_kills_unaccounted")
    memory = result.kib("memory_after")
    return [
        Claim(f"{kills} kills by the kernel's count, {stored} stored", stored == kills),
        Claim(f"no event and no victim twice: {doubled or len(found)}", not doubled),
        Claim(f"journal by MESSAGE_ID: {len(told)} entries", Counter(told) == victims(found)),
        Claim(f"/metrics: {unaccounted:.0f} unaccounted for", unaccounted == 0),
        Claim(
            f"the daemon was never restarted but by the lab: {result.one('restarts')}",
            result.one("restarts") == "0",
        ),
        Claim(f"at most {memory['cgroup']} KiB in the daemon's cgroup", memory["VmSwap"] == 0),
    ]


def _attributed(_: Result, found: list[OomEvent]) -> list[Claim]:
    return [_attributed_to(found, "storm", ATTRIBUTED), _attributed_to(found, "burst", IN_A_BURST)]


def _attributed_to(found: list[OomEvent], name: str, share: float) -> Claim:
    right, wrong = Counter[str](), []
    for number in range(CGROUPS):
        comm = f"{name}{number}"
        event = of(found, comm)
        pid = next(victim.pid for victim in event.victims if victim.comm == comm)
        whose = [a for a in event.attribution if a.role == "victim" and a.pid == pid]
        if [a.cgroup for a in whose] == [f"/lab/{comm}"]:
            right[str(whose[0].learnt)] += 1
        else:
            wrong.append(f"{comm}: {[(a.cgroup, a.learnt) for a in whose]}")
    return Claim(
        f"{name}: {right.total()} of {CGROUPS} kills attributed to their cgroup,"
        f" learnt {dict(right)}; not {wrong}",
        right.total() / CGROUPS >= share,
    )


def _folded(result: Result, found: list[OomEvent]) -> list[Claim]:
    """Reports without a victim, against the kernel's own count of them."""
    said = result.one("unkillable")
    counted, told, lost = (_number(rf"^{name} (\d+)$", said) for name in ("oom", "told", "lost"))
    folded = [event for event in found if event.kind == "oom_no_victim"]
    stored = sum(1 + event.repeats for event in folded)
    entries = len(result.json_lines("journal_without_victim"))
    # what the ring lost cannot be told; the last report may be cut off by the end of the process
    near = told <= counted and (counted - told <= 1 or lost > 0)
    return [
        Claim(
            f"nobody may be killed: {counted} reports by the kernel's count, /metrics {told}, {lost} lost",
            near,
        ),
        Claim(
            f"nobody may be killed: {len(folded)} events for {stored} reports",
            (len(folded) == 1 and stored == told) or lost > 0,
        ),
        Claim(
            f"nobody may be killed: {entries} journal entries", entries >= 1 and (entries <= 2 or lost > 0)
        ),
    ]


def _clock(result: Result, found: list[OomEvent]) -> list[Claim]:
    claims = []
    said = "".join(result.parts.values())
    for name, begun, ended in re.findall(r"^killed (\S+) (\d+) (\d+)$", said, re.MULTILINE):
        wall = _wall(of(found, name))
        off = max(int(begun) - wall, wall - int(ended), 0.0)
        claims.append(Claim(f"clock {name}: {off:.1f} s off", off <= _SLACK_SECONDS))
    begun, ended = (_number(rf"^flipped (?:\d+ )?{n}", said) for n in (r"(\d+) ", r"(\d+)$"))
    walls = [_wall(of(found, f"flip{n}")) for n in range(10)]
    sane = begun - 3600 - _SLACK_SECONDS <= min(walls) and max(walls) <= ended + _SLACK_SECONDS
    return [
        *claims,
        Claim(f"clock: {len(claims)} kills between jumps", len(claims) == 4),
        Claim("clock: the daemon restarts while it is wrong", result.one("clock_restart") == "active"),
        Claim("clock: kills while it jumps are within its range", sane),
    ]


def _phoenix(result: Result, found: list[OomEvent]) -> list[Claim]:
    event = of(found, "phoenix")
    steps = [step.step for step in event.aftermath.units] if event.aftermath else []
    unit = next((a.unit for a in event.attribution if a.role == "victim"), None)
    return [
        Claim("restart: the unit is back", "ActiveState=active" in result.one("phoenix")),
        Claim(f"restart: the victim's unit is {unit}", unit == "phoenix.service"),
        Claim(f"restart: seen after the kill: {steps}", {"restart_scheduled", "started"} <= set(steps)),
    ]


def _oomd(result: Result, found: list[OomEvent]) -> list[Claim]:
    """systemd-oomd's kill is an event of the journal, and not one of the kernel's."""
    if result.memory_mib < SMALL_MIB:
        return []
    killed = "Result=oom-kill" in result.one("oomd")
    events = [event for event in found if event.kind == "oomd_kill"]
    units = [event.oomd.unit for event in events if event.oomd]
    told = len(result.json_lines("journal_of_oomd"))
    return [
        Claim(f"systemd-oomd killed the unit: {result.one('oomd')!r}, {told} entries", killed),
        Claim(f"systemd-oomd: events {units}", units == ["pressed.service"]),
        Claim("systemd-oomd: no kill of the kernel's", all(event.kills == 0 for event in events)),
        Claim("systemd-oomd: source journal", all(event.source.kind == "journal" for event in events)),
    ]


def _marks(result: Result, found: list[OomEvent]) -> list[Claim]:
    event = of(found, "bereft")
    marks = [(mark.kind, mark.name) for mark in event.marks]
    removed = [dict(f.evidence) for f in event.findings if f.id == "memory_removed_before"]
    claims = [
        Claim(f"swap: marks {marks}", {("swap_on", "/lab/swap"), ("swap_off", "/lab/swap")} <= set(marks)),
        Claim(f"swap: told with the kill: {removed}", any(e.get("swap") == "/lab/swap" for e in removed)),
    ]
    offline = re.search(r"^offline (memory\d+)$", result.one("memory_block"), re.MULTILINE)
    if result.memory_mib >= LARGE_MIB:
        claims += [
            Claim(
                f"memory block: {result.one('memory_block')!r} is a mark",
                offline is not None and ("memory_offline", offline[1]) in marks,
            ),
            Claim(
                "memory block: the machine had more before",
                any(e.get("memory_blocks_offline") == 1 for e in removed),
            ),
        ]
    return claims


def _latencies(result: Result, found: list[OomEvent]) -> list[Claim]:
    """From the kernel's stamp of the kill until the event was ready to be stored, and in the journal."""
    event = of(found, "bereft")
    ready = event.time.detection_latency_seconds
    (entry,) = [e for e in result.json_lines("journal_by_id") if e["OOM_VICTIM_COMM"] == "bereft"][:1] or [{}]
    begun = int(entry["OOM_KERNEL_MONOTONIC_USEC"]) / 1e6
    told = int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6 - begun
    pressure = re.findall(r"^full avg10=(\S+)", result.one("thrash"), re.MULTILINE)
    return [
        Claim(
            f"all of memory: ready {ready} s after the kill, in the journal {told:.3f} s after the report"
            f" began (pressure, full: {' %, '.join(pressure)} %)",
            ready is not None and ready < _LATENCY_SECONDS and told < _LATENCY_SECONDS,
        )
    ]


def _wall(event: OomEvent) -> float:
    return datetime.fromisoformat(str(event.time.wall)).timestamp()


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found else -1
