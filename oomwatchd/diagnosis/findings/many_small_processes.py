"""Many small processes together hold the memory.

They share a name or a cgroup. None of them stands out, so killing one frees little and the next kill follows.
Usual causes are a fork bomb, a worker pool without a limit, and jobs that pile up because they no longer
finish.

The cgroup of a process in the table is known in two cases: a cgroup was at its limit (every listed process is
in or below it), or the daemon read it from /proc just after the kill.

Limit the number: ``TasksMax=`` of the unit, ``pids.max``, the pool's own settings (MaxRequestWorkers,
pm.max_children, concurrency of cron jobs).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.diagnosis.case import HOLDS, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import raised_first, setting
from oomwatchd.records.report import Finding, Task
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import middle_cut, ratio

ID = "many_small_processes"
TITLE = "Many small processes together hold the memory"

#: Least number of processes, their least share of all resident memory, and the largest share of one of them.
_COUNT, _SHARE, _LARGEST = 20, 0.5, 0.1
#: The first kill of a fork bomb looks like that of a pool that is a little too large.
_THEN = " If they fill that, too, bound how many run."
#: Kills within this time are of one crowd, not of a crowd that grew again.
_LATER_USEC = 10_000_000


class _Group(NamedTuple):
    name: str
    tasks: list[Task]
    together: int


def _group(name: str, tasks: list[Task]) -> _Group:
    return _Group(name, tasks, sum([task.rss_bytes or 0 for task in tasks]))


def find(case: Case) -> Claim | None:
    sized = [task for task in case.report.tasks if task.rss_bytes is not None]
    if len(sized) < _COUNT:
        return None
    whole = sum([task.rss_bytes or 0 for task in sized])
    named = _largest(_by_name(sized), whole)
    placed = _largest(_by_cgroup(case, sized), whole)
    if named is not None:
        pids = {task.pid for task in named.tasks}
        within = placed is not None and pids <= {task.pid for task in placed.tasks}
        return _told(case, named, whole, comm=named.name, cgroup=placed.name if placed and within else None)
    return None if placed is None else _told(case, placed, whole, comm=None, cgroup=placed.name)


def _by_name(sized: list[Task]) -> Iterator[_Group]:
    """The groups by name; none where no name has enough processes."""
    by_name: dict[str, list[Task]] = defaultdict(list)
    for task in sized:
        by_name[task.comm].append(task)
    if max(map(len, by_name.values())) >= _COUNT:
        for name, tasks in by_name.items():
            yield _group(name, tasks)


def _by_cgroup(case: Case, sized: list[Task]) -> Iterator[_Group]:
    memcg = case.report.memcg
    if case.in_cgroup and memcg is not None and memcg.oom_path is not None:
        yield _group(memcg.oom_path, sized)
    for crowd in case.capture.crowds if case.capture is not None else ():
        if crowd.cgroup == "/":
            continue  # everything else that runs on the host: no bound would be for these
        pids = set(crowd.pids)
        yield _group(crowd.cgroup, [task for task in sized if task.pid in pids])


def _largest(groups: Iterable[_Group], whole: int) -> _Group | None:
    """The group that holds most, if it consists of many small processes. Among equals, the later (narrower)
    group is taken."""
    group = max(reversed(list(groups)), key=lambda one: one.together, default=None)
    if group is None or not whole or len(group.tasks) < _COUNT:
        return None
    small = max(task.rss_bytes or 0 for task in group.tasks) <= _LARGEST * group.together
    return group if group.together >= _SHARE * whole and small else None


def _multiplies(case: Case) -> bool:
    """Whether processes of the victim's name were killed again and again in this cgroup: they fill any
    limit. Kills in another cgroup were of another load, or of the same one that began anew."""
    victim, end, memcg = case.victim, case.report.first_usec, case.report.memcg
    earlier = case.capture.earlier if case.capture is not None else ()
    if victim is None or end is None:
        return False
    here = {None} if memcg is None else {None, memcg.task_path}
    return (
        sum(k.comm == victim.comm and k.usec <= end - _LATER_USEC and k.cgroup in here for k in earlier)
        >= _COUNT
    )


def _told(case: Case, group: _Group, whole: int, *, comm: str | None, cgroup: str | None) -> Claim:
    tasks, together = group.tasks, group.together
    largest = max(task.rss_bytes or 0 for task in tasks)
    unit = owner_of(cgroup).unit if cgroup is not None else None
    where = "" if cgroup is None else f" in {harmless_name(unit or middle_cut(cgroup, 60))}"
    who = "" if comm is None else f" named {harmless_name(comm)}"
    bound = (
        f"many {harmless_name(comm)} may run: its own settings"
        if comm is not None
        else f"many may run{where}"
    )
    limit = (
        f"TasksMax= of {harmless_name(unit)} (pids.max)"
        if unit
        else setting(case, "TasksMax=", "pids.max of its cgroup")
    )
    finding = Finding(
        id=ID,
        severity="critical" if comm is not None else "warning",
        title=TITLE,
        explanation=f"{len(tasks)} processes{who}{where} hold {size(together)} together, "
        f"{percent(together, whole)} of all resident memory; the largest of them only {size(largest)}.",
        evidence={
            **({"comm": comm} if comm is not None else {}),
            **({"cgroup": cgroup} if cgroup is not None else {}),
            **({"unit": unit} if unit is not None else {}),
            "processes": len(tasks),
            "rss_bytes": together,
            "rss_total_bytes": whole,
            "share_ratio": case.ledger.share(together) if case.bound_bytes else ratio(together, whole),
            "largest_rss_bytes": largest,
            "bound_bytes": case.bound_bytes,
        },
        advice=raised_first(case, f"bound how {bound}, or {limit}", needed="all are needed") + _THEN
        if case.in_cgroup and not _multiplies(case)
        else f"Bound how {bound}, or {limit}.",
    )
    name = harmless_name(comm) if comm is not None else "small"
    # rss counts shared pages once for each process
    own = sum(t.rss_anon_bytes if t.rss_anon_bytes is not None else t.rss_bytes or 0 for t in tasks)
    anon, shmem = case.ledger.held("anon"), case.ledger.held("shmem")
    held = own if anon is None else min(own, anon + (shmem or 0))
    text = f"{len(tasks)} {name} processes hold {case.ledger.percent(held)} {case.of}"
    cause = Cause(tier=Tier.HELD, text=text, excess_bytes=held)
    return Claim(finding=finding, cause=cause if held >= HOLDS * (case.bound_bytes or 1 << 62) else None)
