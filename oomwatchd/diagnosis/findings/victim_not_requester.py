"""The process that asked for memory is not the one that was killed.

The process in the first line ("invoked oom-killer") only made the last request. It may be any process: a
small daemon, a kernel worker. It is not to blame. The kernel kills the process that holds most.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding

ID = "victim_not_requester"
TITLE = "The process that asked for memory is not the victim"


def find(case: Case) -> Finding | None:
    trigger, victim = case.report.trigger, case.victim
    if case.report.allocating_task:
        return None  # the requesting process was the victim
    if victim is None or trigger.pid is None or trigger.sysrq or trigger.pid == victim.pid:
        return None
    # a thread requests under its own pid, but has its process's name unless it renamed itself
    if trigger.comm == victim.comm:
        return None
    return Finding(
        id=ID,
        severity="info",
        title=TITLE,
        explanation=f"{trigger.comm} (pid {trigger.pid}) asked for memory; {victim.comm} (pid {victim.pid}) "
        "was killed. The one who asks is only the one who came last.",
        evidence={
            "trigger_pid": trigger.pid,
            "trigger_comm": trigger.comm,
            "victim_pid": victim.pid,
            "victim_comm": victim.comm,
        },
    )
