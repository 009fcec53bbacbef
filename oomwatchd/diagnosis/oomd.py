"""Reads the lines about systemd-oomd's kills, from systemd-oomd itself and from the service manager.

systemd-oomd(8) kills whole cgroups before the kernel has to. It reports this only in the journal: one line
with the cgroup and the reason. For its own units, the service manager adds the number of killed processes.
The kernel does not count these as OOM kills.

Sources: systemd ``src/oom/oomd-manager.c`` (the wordings of 248 to 259), ``src/core/unit.c``
(``unit_check_oomd_kill()``).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from oomwatchd.diagnosis.attribution import Owner, owner_of
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless_name

_SPAN = r"[0-9][0-9a-z. ]{0,60}"
#: The reason is anchored at the end of the line, so that a cgroup's name cannot pass for a reason.
_KILLED = deferred(
    r"(?:Killed (?P<old>/.*)|Marked (?P<new>/.*) for killing) due to (?P<reason>"
    r"memory pressure for (?P<watched>/.*) being (?P<pressure>\d+\.\d\d)% > (?P<bound>\d+\.\d\d)% for > "
    rf"{_SPAN} with reclaim activity"
    r"|memory used \((?P<used>\d+)\) / total \((?P<total>\d+)\) and swap used \((?P<swap>\d+)\) / total"
    r" \((?P<swap_total>\d+)\) being more than (?P<share>\d+\.\d\d)%)\Z",
    re.DOTALL,
)
_IN_UNIT = deferred(
    r"(?P<unit>[^ ]{1,255}): systemd-oomd killed (?:(?P<count>\d{1,9})|some) process\(es\) in this unit\.\Z"
)


class OomdKill(Owner, frozen=True, kw_only=True):
    """One kill by systemd-oomd.

    ``reason`` is ``memory_pressure`` or ``swap_used``, or None if only the service manager reported the kill.
    ``said`` is the text of the reason. ``watched_cgroup`` is the cgroup whose pressure was too high,
    ``pressure_ratio`` its avg10 and ``pressure_limit_ratio`` the limit. ``processes`` is the number of killed
    processes, or None if unknown.
    """

    cgroup: str | None = None
    reason: str | None = None
    said: str | None = None
    watched_cgroup: str | None = None
    pressure_ratio: float | None = None
    pressure_limit_ratio: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    swap_used_bytes: int | None = None
    swap_total_bytes: int | None = None
    processes: int | None = None


def counted_unit(text: str) -> str | None:
    """The unit that the service manager names in such a line; None for any other line."""
    found = _IN_UNIT.match(text)
    return found["unit"] if found else None


def killed_cgroup(text: str) -> str | None:
    """The cgroup that systemd-oomd says it killed; None for any other line."""
    found = _KILLED.match(text)
    return (found["old"] or found["new"]) if found else None


def read(records: Iterable[KmsgRecord]) -> OomdKill:
    """The kill that these lines describe (at most one line of each kind)."""
    fields: dict[str, str | float | int | None] = {}
    for record in records:
        if found := _KILLED.match(record.text):
            fields |= _own(found)
        elif named := _IN_UNIT.match(record.text):
            fields.setdefault("unit", named["unit"])
            if named["count"]:
                fields["processes"] = int(named["count"])
    return OomdKill(**fields)  # type: ignore[arg-type]


def summarize(kill: OomdKill) -> str:
    """What was killed and why, in one line that is safe to print."""
    who = harmless_name(kill.unit or kill.cgroup or "")
    if kill.container_id is not None:
        who = f"{kill.container_runtime or 'container'} {harmless_name(kill.container_id[:12])}"
    many = "" if kill.processes is None else f" ({kill.processes} process{'es' * (kill.processes != 1)})"
    return f"systemd-oomd killed {who}{many}: {_why(kill)}"


def _why(kill: OomdKill) -> str:
    if kill.pressure_ratio is not None and kill.pressure_limit_ratio is not None:
        where = harmless_name(kill.watched_cgroup or "")
        return (
            f"memory pressure of {where} {100 * kill.pressure_ratio:.2f} %, above"
            f" {100 * kill.pressure_limit_ratio:.2f} %"
        )
    if kill.swap_total_bytes is not None and kill.memory_total_bytes:
        memory = percent(kill.memory_used_bytes or 0, kill.memory_total_bytes)
        swap = f"{size(kill.swap_used_bytes or 0)} of {size(kill.swap_total_bytes)} swap"
        return f"{memory} of memory used, {swap}"
    return "why is not in the journal"


def _own(found: re.Match[str]) -> dict[str, str | float | int | None]:
    path = found["old"] or found["new"]
    owner = owner_of(path)
    fields: dict[str, str | float | int | None] = {
        name: value for name in Owner.__struct_fields__ if (value := getattr(owner, name)) is not None
    }
    fields |= {"cgroup": path, "said": found["reason"]}
    if found["watched"] is not None:
        return fields | {
            "reason": "memory_pressure",
            "watched_cgroup": found["watched"],
            "pressure_ratio": float(found["pressure"]) / 100,
            "pressure_limit_ratio": float(found["bound"]) / 100,
        }
    return fields | {
        "reason": "swap_used",
        "memory_used_bytes": int(found["used"]),
        "memory_total_bytes": int(found["total"]),
        "swap_used_bytes": int(found["swap"]),
        "swap_total_bytes": int(found["swap_total"]),
    }
