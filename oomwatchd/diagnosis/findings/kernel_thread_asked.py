"""A kernel thread requested the memory, not a program.

kworker, kswapd, kthreadd and similar threads have no memory of their own. They request memory for the work
they do: a file system that writes back or replays its journal, the network, a driver, a new kernel thread. If
that work pins the memory it allocated, no kill frees it.

The call trace or the ``Workqueue:`` line names the work.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless_name

ID = "kernel_thread_asked"
TITLE = "A kernel thread requested the memory"

#: The line of print_worker_info(): the workqueue, and the function with its module (%ps).
_WORK = deferred(r"Workqueue: \S{1,80} ([A-Za-z_][\w.]{0,100})(?: \[([\w-]{1,60})\])?")


def find(case: Case) -> Claim | None:
    trigger = case.report.trigger
    if not case.kernel_thread or trigger.sysrq or trigger.order == -1:
        return None
    who = harmless_name(trigger.comm) if trigger.comm else "It"
    on = f" of Linux {harmless_name(case.report.kernel)}" if case.report.kernel else ""
    by = f" {case.caller}() called for it." if case.caller else ""
    work = _WORK.search(case.text)
    function, module = (work[1], work[2]) if work is not None else (None, None)
    if function and function != case.caller:
        by += f" Its work is {function}()" + (f" of module {module}." if module else ".")
    what = f"{function}() of module {module}" if module else "file system, network or driver"
    return Claim(
        finding=Finding(
            id=ID,
            severity="info",
            title=TITLE,
            explanation=f"{who} is a thread of the kernel{on}: what it works on asked (a file system, the "
            "network, "
            f"a driver), not a program.{by}",
            evidence={"trigger_comm": trigger.comm, "function": case.caller, "work": function},
        ),
        cause=Cause(tier=Tier.TOGETHER, text=f"the kernel's own work asked ({what})"),
    )
