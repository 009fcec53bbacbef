"""Kernel stacks hold much memory: there are very many threads.

Each thread has a kernel stack (16 KiB on 64-bit, 8 KiB on most 32-bit machines) that cannot be reclaimed.
Two percent of RAM in stacks means tens of thousands of threads on a small server.

Limit the threads: ``TasksMax=`` in the unit, ``pids.max`` in the cgroup, ``kernel.threads-max``, ulimit -u.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import HOLDS, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import raised_first, setting
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name

ID = "kernel_stacks_large"
TITLE = "Kernel stacks are large: very many threads"

#: Shares of RAM. A thousand threads use 0.4 % of 4 GiB.
_LARGE, _HUGE = 0.02, 0.10
#: Stacks of 16 KiB. Even a small machine has up to this many threads.
_MANY = 1000


def find(case: Case) -> Claim | None:
    whole, stacks = case.ledger.whole_bytes, case.ledger.held("kernel_stack")
    if stacks is None or not whole or stacks < _LARGE * whole:
        return None
    if stacks < _HUGE * whole and stacks >> 14 < _MANY:
        return None
    if case.in_cgroup and stacks < 2 * _HUGE * whole:
        return None  # the cgroup is tiny
    most = next(iter(case.facts.threads), None)
    who = f" {harmless_name(most.name)} (pid {most.pid}) has {most.amount} threads." if most else ""
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical" if stacks >= _HUGE * whole else "warning",
            title=TITLE,
            explanation=f"Kernel stacks hold {size(stacks)}, {percent(stacks, whole)} of "
            f"{case.ledger.whole_name}: about {stacks // (16 << 10)} threads of 16 KiB each (twice as many "
            f"where a stack has 8 KiB).{who}{case.spare(stacks)}",
            evidence={
                "kernel_stack_bytes": stacks,
                "whole_bytes": whole,
                "share_ratio": case.ledger.share(stacks),
            },
            advice=_advice(case),
        ),
        cause=Cause(
            tier=Tier.HELD if case.in_cgroup else Tier.TAKEN,
            text=f"kernel stacks hold {case.ledger.percent(stacks)} {case.of}, {stacks >> 14} threads",
            excess_bytes=stacks,
        )
        if stacks >= (HOLDS if case.in_cgroup else _HUGE) * whole
        else None,
    )


def _advice(case: Case) -> str:
    less = (
        f"bound the number of threads: {setting(case, 'TasksMax=', 'pids.max of its cgroup')}, or the "
        "program's own pool"
    )
    return raised_first(case, less) if case.in_cgroup else f"{less[0].upper()}{less[1:]}."
