"""systemd-oomd killed the processes of a cgroup.

It acts before the kernel's OOM killer has to. It kills when the memory pressure of a monitored cgroup
(``full`` avg10 of memory.pressure) stays above a limit for a while, or when the use of memory and swap
exceeds a limit. It then kills one whole cgroup below the monitored one: the one with the most reclaim
activity, or with the most swap. The kernel had not run out of memory yet, so it printed no report.

Limits: ``ManagedOOMMemoryPressureLimit=`` of the monitored unit, ``DefaultMemoryPressureLimit=``,
``DefaultMemoryPressureDurationSec=`` and ``SwapUsedLimit=`` in oomd.conf(5). ``ManagedOOMPreference=avoid``
or ``omit`` (systemd.resource-control(5)) spares a unit. If the unit should become slow instead of being
killed, give it more memory or a higher ``MemoryHigh=``.
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
