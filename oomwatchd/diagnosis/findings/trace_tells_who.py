"""The call trace says what the memory was for.

The functions between the system call and the page allocator often name the work: an initramfs that is
unpacked and does not fit, a core dump, a new thread's stack, a network driver's buffer. If the kernel itself
does the work, the process that the report names has little to do with it.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.works import work_of
from oomwatchd.records.report import Finding
from oomwatchd.words.escape import harmless_name

ID = "trace_tells_who"
TITLE = "The call trace says what the memory was for"


def find(case: Case) -> Claim | None:
    found = work_of(case.report.trigger.call_trace)
    if found is None:
        return None
    work, function = found
    asker = case.report.trigger.comm
    who = f"{harmless_name(asker)} asked" if asker else "The request came"
    finding = Finding(
        id=ID,
        severity="warning" if work.decides else "info",
        title=TITLE,
        explanation=f"{who} for {work.words}, by the call trace."
        if not work.decides
        else f"By the call trace {work.words}.",
        evidence={"function": function},
        advice=work.advice,
    )
    cause = Cause(tier=Tier.MANNER, text=work.words) if work.decides and not case.in_cgroup else None
    return Claim(finding=finding, cause=cause)
