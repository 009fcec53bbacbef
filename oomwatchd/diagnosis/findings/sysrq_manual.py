"""Somebody requested this kill by hand.

Alt+SysRq+F, or ``f`` written to /proc/sysrq-trigger (by earlier earlyoom versions and some watchdogs), makes
the kernel kill the process with the most points, however much memory is free. The memory part of the report
then shows an ordinary state and is no evidence of a shortage. ``kernel.sysrq`` decides who may use the keys.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.records.report import Finding, Zone
from oomwatchd.words.amounts import size

ID = "sysrq_manual"
TITLE = "Somebody requested a kill by hand (SysRq f)"


def find(case: Case) -> Claim | None:
    trigger = case.report.trigger
    if not trigger.sysrq and trigger.order != -1:
        return None
    short = [z for z in case.zones if _below(z)]
    free = case.total("free")
    all_short = bool(short) and len(short) == len(case.zones)
    if all_short:
        state = "All zones were below their low watermarks at that moment: memory was short as well."
    elif free is not None:
        state = f"{size(free)} were free at that moment."
    else:
        state = "By itself it says nothing about a shortage of memory."
    return Claim(
        finding=Finding(
            id=ID,
            severity="info",
            title=TITLE,
            explanation=f"The kill was asked for with SysRq f. {state}",
            evidence={"order": trigger.order, "free_bytes": free},
            advice="Nothing needs to change for the kill itself; kernel.sysrq says who may ask for one.",
        ),
        refusal=Refusal(text="asked for by hand (SysRq f)", rank=10, alone=not all_short),
        cause=Cause(tier=Tier.MANNER, text=""),
    )


def _below(zone: Zone) -> bool:
    free, low = zone.bytes_of("free"), zone.bytes_of("low")
    return free is not None and low is not None and free < low
