"""Somebody asked for this kill by hand.

Alt+SysRq+F, or ``f`` written to /proc/sysrq-trigger (earlier earlyoom versions and some watchdogs do that),
makes the kernel kill the process with the most points, however much memory is free. The memory part then
shows an ordinary state and proves nothing. ``kernel.sysrq`` decides who may use the keys.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding

ID = "sysrq_manual"
TITLE = "Asked for by hand (SysRq f)"


def find(case: Case) -> Finding | None:
    trigger = case.report.trigger
    if not trigger.sysrq and trigger.order != -1:
        return None
    return Finding(
        id=ID,
        severity="info",
        title=TITLE,
        explanation="The kill was asked for with SysRq f; it says nothing about a shortage of memory.",
        evidence={"order": trigger.order, "free_bytes": case.total("free")},
    )
