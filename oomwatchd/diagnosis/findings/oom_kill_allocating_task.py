"""The process that asked was killed, by a setting.

With ``vm.oom_kill_allocating_task=1`` the kernel does not choose by size. It kills the task whose allocation
failed, however little that task holds. Such a kill often frees little: the process that holds the memory
lives on, and the next task that asks is killed next.

Set it to 0 (the default), so that the kernel chooses the largest.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import HOLDS, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import LASTS
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import size
from oomwatchd.words.escape import harmless_name

ID = "oom_kill_allocating_task"
TITLE = "The requesting process was killed (vm.oom_kill_allocating_task)"


def find(case: Case) -> Claim | None:
    victim = case.victim or next(iter(case.report.victims), None)
    if not case.report.allocating_task or victim is None:
        return None
    largest = case.largest
    other = largest if largest is not None and largest.pid != victim.pid else None
    held = next((p.bytes for p in case.processes if p.pid == victim.pid), None)
    mine = "" if held is None else f" It held {size(held)}."
    more = f" {other.comm} (pid {other.pid}) holds {size(other.bytes)} and lives on." if other else ""
    text = "vm.oom_kill_allocating_task=1 chose who asked"
    if other is not None and other.bytes >= HOLDS * (case.bound_bytes or 1 << 62):
        text += f", not {harmless_name(other.comm)}, which holds {case.ledger.percent(other.bytes)} {case.of}"
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation=f"{victim.comm} (pid {victim.pid}) asked for memory and was killed for it: "
            f"vm.oom_kill_allocating_task is set.{mine}{more}",
            evidence={
                "victim_pid": victim.pid,
                "victim_bytes": held,
                "largest_pid": largest.pid if largest is not None else None,
                "largest_comm": largest.comm if largest is not None else None,
                "largest_bytes": largest.bytes if largest is not None else None,
            },
            advice=f"Set vm.oom_kill_allocating_task=0 ({LASTS}): then the largest process is chosen, not "
            "whoever asks.",
        ),
        cause=Cause(tier=Tier.MANNER, text=text),
    )
