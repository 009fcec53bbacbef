"""There was nobody left to kill.

Each process that could have been chosen is exempt (oom_score_adj -1000, init, kernel threads), belongs to
another cgroup, or was already killed but has not died yet. In a cgroup, the failed charge is simply retried.
The kernel may then print the report hundreds of times a second; they become one event, which counts them. If
the whole machine has run out of memory, the kernel panics.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.diagnosis.levers import begin_with, raise_it
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import size

ID = "no_killable_process"
TITLE = "There was nobody left to kill"

#: Share of the whole. If exempt processes hold less, removing the exemption does not help.
_MATTERS = 0.1


def find(case: Case) -> Claim | None:
    report = case.report
    outcome = (report.outcome or "").lower()
    if report.victims or not ("no killable" in outcome or "deadlocked" in outcome):
        return None
    exempt = [t for t in report.tasks if t.oom_score_adj == -1000]
    held = sum(t.rss_bytes or 0 for t in exempt)
    repeats = case.capture.repeats if case.capture is not None else 0
    again = f" The same was reported {repeats} more times." if repeats else ""
    matters = held >= _MATTERS * (case.bound_bytes or 1 << 62)
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical",
            title=TITLE,
            explanation=f"The kernel found no process that it could kill ({report.outcome})."
            f"{_listed(case, len(exempt), held)}{again}",
            evidence={
                "outcome": report.outcome,
                "tasks": len(report.tasks),
                "exempt_tasks": len(exempt),
                "exempt_rss_bytes": held,
                "repeats": repeats,
            },
            advice=_advice(case, held) if exempt and matters else "",
        ),
        refusal=Refusal(text=", and no process that may be killed", rank=91, place="behind"),
        cause=Cause(tier=Tier.MANNER, text="") if exempt and matters else None,
    )


def _advice(case: Case, held: int) -> str:
    less = "take oom_score_adj -1000 away from what may be killed if need be" + (
        "" if case.systemd is False else " (OOMScoreAdjust=)"
    )
    if case.in_cgroup:
        # nothing is killed and nothing goes on: the requesting task retries its charge until there is room
        return (
            f"{raise_it(case)} if the exempt processes need more than the {size(held)} they hold; else "
            f"{less}: it is killed then, where it stands still now.{begin_with(case)}"
        )
    return f"{less[0].upper()}{less[1:]}: the exempt processes hold {size(held)}."


def _listed(case: Case, exempt: int, held: int) -> str:
    tasks = case.report.tasks
    if not tasks:
        return ""
    init = sum(1 for t in tasks if t.pid == 1 and t.oom_score_adj != -1000)
    left = len(tasks) - exempt - init
    parts = [f"{exempt} with oom_score_adj -1000 ({size(held)})"] if exempt else []
    parts += ["init"] if init else []
    # skipped: reaped or dying after an earlier kill (MMF_OOM_SKIP), in vfork(), or without memory
    parts += (
        [f"{left} killed before and not gone yet, or without memory of the kind in question"] if left else []
    )
    of = f"Of {len(tasks)} listed processes" if len(tasks) > 1 else "The one listed process"
    return f" {of}: {', '.join(parts)}." if parts else ""
