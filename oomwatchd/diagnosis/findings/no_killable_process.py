"""There was nobody left to kill.

Every process that could have been chosen is exempt (oom_score_adj -1000, init, kernel threads), belongs to
another cgroup, or was already killed and has not died yet. For a cgroup the failed charge is simply repeated;
the report may then come hundreds of times a second, and is one event here that counts them. For the whole
machine the kernel panics.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding

ID = "no_killable_process"
TITLE = "There was nobody left to kill"


def find(case: Case) -> Finding | None:
    report = case.report
    outcome = (report.outcome or "").lower()
    if report.victims or not ("no killable" in outcome or "deadlocked" in outcome):
        return None
    exempt = sum(1 for t in report.tasks if t.oom_score_adj == -1000)
    repeats = case.capture.repeats if case.capture is not None else 0
    again = f" The same was reported {repeats} more times." if repeats else ""
    listed = f" Of {len(report.tasks)} listed processes {exempt} are exempt." if report.tasks else ""
    return Finding(
        id=ID,
        severity="critical",
        title=TITLE,
        explanation=f"The kernel found no process that it could kill ({report.outcome}).{listed}{again}",
        evidence={
            "outcome": report.outcome,
            "tasks": len(report.tasks),
            "exempt_tasks": exempt,
            "repeats": repeats,
        },
        advice="Take oom_score_adj -1000 away from what may be killed if need be."
        if exempt and exempt >= len(report.tasks) - 1
        else "",
    )
