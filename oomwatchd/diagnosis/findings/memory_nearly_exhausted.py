"""A machine or a cgroup is about to run out of memory; nobody has been killed yet.

The warning comes in two cases. Either the memory that cannot be dropped has grown steadily for a while and
will use up everything within the horizon (``[warning] horizon_seconds``) at that rate. Or almost nothing is
left and tasks wait while the kernel reads back what it has just reclaimed. Page cache does not count, because
the kernel drops it first; swap counts as far as it may be used. ``soonest_seconds`` and ``latest_seconds``
are the range in which memory will run out. docs/warnings.md describes how this is decided.

The first of the listed tasks is the one that the kernel would kill now (``oom_badness()`` in mm/oom_kill.c).

Before memory runs out, stop or restart what grows, as its owner would want it, or raise the limit of the
cgroup if the machine has the memory. On a whole machine, stop what matters least, or add swap. For a unit
that may fill its limit (a batch job), ``[warning] quiet`` turns the warning off.
"""

from __future__ import annotations

from collections.abc import Callable

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.owners import Limit, owned
from oomwatchd.records.near import Grower, Near
from oomwatchd.records.report import Finding

ID = "memory_nearly_exhausted"
TITLE = "Memory is about to be exhausted"
#: by whether several grow, and whether that is over
_GROWS = {(False, False): "grows", (True, False): "grow", (False, True): "grew", (True, True): "grew"}


def find(case: Case) -> Finding | None:
    if case.capture is None or case.capture.nearing is None:
        return None
    from oomwatchd.diagnosis import nearing  # a daemon without warnings never loads it

    told = nearing.near_of(case.capture, case.capture.nearing, None)
    said = [f"{nearing.place(told)}: {nearing.became_said(told)}."]
    holder = nearing.holder(told, case.report.tasks)
    grow = "; ".join(nearing.grower_said(one) for one in told.growers)
    stands = told.state == "near"
    if grow:
        several, grew = len(told.growers) > 1, not stands
        said.append(f"{'These' if several else 'It'} {_GROWS[several, grew]}: {grow}.")
    elif holder is not None:
        said.append(f"{nearing.who_said(told, case.report.tasks)}.")
    first = case.scores.rows[0] if case.scores is not None and case.scores.rows else None
    if first is not None and first.points is not None:
        would = "would kill" if stands else "would have killed"
        said.append(f"The kernel {would} {nearing.task_called(first.task)} {'now' if stands else 'then'}.")
    figures = {
        name: getattr(told, name)
        for name in (
            *("limit_bytes", "capacity_bytes", "used_bytes", "left_bytes", "cache_bytes", "swap_left_bytes"),
            *("grown_bytes", "growing_seconds", "soonest_seconds", "latest_seconds", "pressure_full_ratio"),
        )
    }
    return Finding(
        id=ID,
        severity="warning",
        title=TITLE,
        explanation=" ".join(said),
        evidence={name: value for name, value in figures.items() if value is not None},
        advice=_advice(told, None if holder is None else nearing.task_called(holder), nearing.grower_called),
    )


def _advice(told: Near, holder: str | None, called: Callable[[Grower], str]) -> str:
    if told.state == "passed":
        return "Nothing now. If this comes back and is no danger, name it in [warning] quiet."
    if told.state == "came_true" and told.kill_id is not None:
        return f"What the event of the kill says ({told.kill_id})."
    grower = told.growers[0] if told.growers else None
    what = f"Stop or restart {holder or 'what grows'}"
    if grower is not None:
        who = called(grower)
        what = f"Remove files from {who}" if grower.kind == "tmpfs" else f"Stop or restart {who}"
    if told.cgroup is None:
        return f"{what}, or stop what matters least; add swap if there is little."
    limit = Limit(files="memory.max or memory.limit_in_bytes")
    keeper = owned(told.cgroup, {told.container_id or "": told.container_name or ""})
    raised = f"raise its limit ({limit.files})" if keeper is None else keeper.raised(limit)
    return f"{what}, or {raised}."
