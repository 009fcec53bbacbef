"""The kernel panicked instead of killing.

With ``vm.panic_on_oom`` 1 the kernel panics when the whole machine runs out of memory, with 2 ("compulsory")
also when a cgroup, a cpuset or a memory policy does. If ``kernel.panic`` is set too, the machine then
restarts. A panic without that setting ("System is deadlocked on memory", up to 4.18 "no killable processes")
means that nobody was left to kill.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.diagnosis.levers import LASTS
from oomwatchd.records.report import Finding

ID = "panic_configured"
TITLE = "The kernel panics on OOM"


def find(case: Case) -> Claim | None:
    if case.report.kind != "oom_panic":
        return None
    outcome = case.report.outcome or ""
    compulsory = "compulsory" in outcome.lower()
    configured = "panic_on_oom" in outcome
    if not configured:
        return None
    finding = Finding(
        id=ID,
        severity="critical",
        title="vm.panic_on_oom is set: the kernel panicked instead of killing",
        explanation="The kernel was set to panic on a shortage of memory "
        + ("of any kind (vm.panic_on_oom=2)." if compulsory else "(vm.panic_on_oom).")
        + " No process was killed.",
        evidence={"outcome": outcome, "compulsory": int(compulsory)},
        advice=f"Set vm.panic_on_oom=0 if a killed process is better than a restart ({LASTS}).",
    )
    # the finding of the holder has its own advice; the panic is only how it ended
    return Claim(
        finding=finding,
        refusal=Refusal(text=", and vm.panic_on_oom is set", rank=90, place="behind"),
        cause=Cause(tier=Tier.MANNER, text=""),
    )
