"""The whole cgroup was killed together (memory.oom.group).

The OOM killer treats a cgroup with ``memory.oom.group=1`` as a unit: when it chooses a process in it, all
others in it die too, except those with oom_score_adj -1000. systemd sets it with ``OOMPolicy=kill``,
Kubernetes (1.28+, cgroup v2) for every container.

If the rest of the cgroup can live on, set it to 0: ``OOMPolicy=continue``, or the kubelet's
``singleProcessOOMKill``. If it cannot, look at the first victim: it is the one the kernel chose.
"""

from __future__ import annotations

from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Claim, Refusal
from oomwatchd.diagnosis.levers import is_v1
from oomwatchd.records.report import Finding
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import middle_cut, plural

ID = "oom_group_killed"
TITLE = "The whole cgroup was killed together (memory.oom.group)"


def find(case: Case) -> Claim | None:
    memcg = case.report.memcg
    if memcg is None or memcg.group_path is None:
        return None
    path = harmless_name(middle_cut(memcg.group_path, 100))
    others = [v for v in case.report.victims if v.role == "group"]
    owner = owner_of(memcg.group_path)
    knob = f"memory.oom.group of cgroup {path} to 0"
    if owner.pod_uid is not None:
        knob = "the kubelet's singleProcessOOMKill to true"
    elif owner.unit is not None:
        knob = f"OOMPolicy=continue for {harmless_name(middle_cut(owner.unit, 60))}"
    names = ", ".join(sorted({harmless_name(v.comm) for v in others})[:3])
    died = f"{plural(len(others), 'other process')} ({names}) died" if others else "All of it died"
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning" if others else "info",
            title=TITLE,
            explanation=f"memory.oom.group is set for {path}: {died} with the one that was chosen.",
            evidence={"group_path": memcg.group_path, "group_victims": len(others)},
            advice="" if is_v1(memcg) else f"Set {knob} if the others may live on.",
        ),
        refusal=Refusal(text=", and memory.oom.group took the whole cgroup", rank=92, place="behind")
        if others
        else None,
    )
