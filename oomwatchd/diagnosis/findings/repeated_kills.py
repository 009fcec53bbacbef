"""The same service or program is killed again and again.

The daemon remembers the kills of the last hour (at most 64). The finding counts those in the same systemd
unit, in any cgroup below it. Without a unit it counts those in the same cgroup, and if no cgroup is known,
those with the same name. Typical are a service that is restarted into the same shortage and a pool of workers
that are killed one by one.

Each kill alone looks like an accident. Together they show that the limit does not fit, or that the process
should be restarted after a longer delay.
"""

from __future__ import annotations

from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.diagnosis.case import Case
from oomwatchd.records.capture import EarlierKill
from oomwatchd.records.report import Finding
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import middle_cut

ID = "repeated_kills"
TITLE = "The same service or program was killed before"

#: Numbers of earlier kills.
_SEVERAL, _MANY = 2, 10


def find(case: Case) -> Finding | None:
    victim = case.victim or next(iter(case.report.victims), None)
    if case.capture is None or victim is None:
        return None
    memcg = case.report.memcg
    known = next((f for f in case.capture.processes if f.pid == victim.pid), None)
    cgroup = (memcg.task_path if memcg is not None else None) or (known.cgroup if known is not None else None)
    same = [kill for kill in case.capture.earlier if _alike(kill, victim.comm, cgroup)]
    end = case.report.first_usec
    if len(same) < _SEVERAL or end is None:
        return None
    seconds = (end - same[0].usec) / 1e6
    by_cgroup = cgroup not in (None, "/")
    unit = _unit(cgroup)[0]
    where = unit or f"cgroup {middle_cut(harmless_name(cgroup or ''), 60)}"
    what = f"Processes of {where}" if by_cgroup else f"Processes called {harmless_name(victim.comm)}"
    return Finding(
        id=ID,
        severity="warning" if len(same) >= _MANY else "info",
        title=TITLE,
        explanation=f"{what} were killed {len(same)} times in the {seconds:.0f} seconds before this kill.",
        evidence={
            "earlier_kills": len(same),
            "seconds": round(seconds, 3),
            **({"unit": unit} if unit else {}),
            **({"cgroup": cgroup} if by_cgroup and cgroup else {}),
        },
        advice="Raise the limit or lower the load: killing and restarting does not help."
        if case.in_cgroup
        else "Run less or add RAM: killing and restarting does not help.",
    )


def _alike(kill: EarlierKill, comm: str, cgroup: str | None) -> bool:
    if cgroup is not None and kill.cgroup is not None and cgroup != "/":
        unit = _unit(cgroup)
        return kill.cgroup == cgroup or (unit[0] is not None and _unit(kill.cgroup) == unit)
    return kill.comm == comm


def _unit(cgroup: str | None) -> tuple[str | None, int | None]:
    """The unit and the uid of its user: units of different users may have the same name."""
    if cgroup is None:
        return None, None
    owner = owner_of(cgroup)
    return owner.unit, owner.user_uid
