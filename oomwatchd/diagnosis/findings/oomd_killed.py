"""systemd-oomd killed the processes of a cgroup.

It acts before the kernel's OOM killer must: when the memory pressure of a monitored cgroup (``full`` avg10 of
memory.pressure) was above a bound for a while, or when memory and swap were used beyond a bound. It then
kills one whole cgroup below the monitored one: the one that reclaimed most, or that holds most swap. The
kernel had not run out of memory yet, so there is no report of its own.

Bounds: ``ManagedOOMMemoryPressureLimit=`` of the monitored unit, ``DefaultMemoryPressureLimit=``,
``DefaultMemoryPressureDurationSec=`` and ``SwapUsedLimit=`` in oomd.conf(5). ``ManagedOOMPreference=avoid``
or ``omit`` (systemd.resource-control(5)) spares a unit. Where the unit is meant to be slow rather than dead,
give it more memory or a higher ``MemoryHigh=``.
"""

from __future__ import annotations

from oomwatchd.diagnosis import oomd
from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding

ID = "oomd_killed"
TITLE = "systemd-oomd killed a cgroup"


def find(case: Case) -> Finding | None:
    if case.capture is None or case.capture.source.form != "oomd":
        return None
    kill = oomd.read(case.capture.records)
    skipped = ("said", "session", "user_uid")
    figures = {name: getattr(kill, name) for name in kill.__struct_fields__ if name not in skipped}
    return Finding(
        id=ID,
        severity="critical",
        title=TITLE,
        explanation=f"{oomd.summarize(kill)}.",
        evidence={name: value for name, value in figures.items() if value is not None},
        advice=_ADVICE.get(kill.reason or "", ""),
    )


_ADVICE = {
    "memory_pressure": "See what reclaims there: more memory or a higher MemoryHigh=; "
    "ManagedOOMMemoryPressureLimit= sets the bound, ManagedOOMPreference=avoid spares a unit.",
    "swap_used": "More swap or memory; SwapUsedLimit= in oomd.conf sets the bound, "
    "ManagedOOMPreference=avoid spares a unit.",
}
