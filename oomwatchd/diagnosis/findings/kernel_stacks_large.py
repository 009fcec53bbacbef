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
from oomwatchd.words.text import plural

ID = "kernel_stacks_large"
TITLE = "Kernel stacks are large: very many threads"

#: Shares of RAM. A thousand threads use 0.4 % of 4 GiB.
_LARGE, _HUGE = 0.02, 0.10
#: Stacks of 16 KiB. Even a small machine has up to this many threads.
_MANY = 1000
#: The largest stack of a thread (64-bit PowerPC, KASAN), and threads that any process may have.
_STACK, _PER_PROCESS = 64 << 10, 8


def find(case: Case) -> Claim | None:
    whole, stacks = case.ledger.whole_bytes, case.ledger.held("kernel_stack")
    if stacks is None or not whole or stacks < _LARGE * whole:
        return None
    if stacks < _HUGE * whole and stacks >> 14 < _MANY:
        return None
    if case.in_cgroup and stacks < 2 * _HUGE * whole:
        return None  # the cgroup is tiny
    if _ended(case, stacks):
        return _leaked(case, stacks, whole)
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


def _ended(case: Case, stacks: int) -> bool:
    """Whether the stacks cannot be those of the listed processes: a thread has at least a page of its own
    mapped, and a whole table maps fewer pages than there are stacks of the largest size (64 KiB)."""
    tasks = case.report.tasks
    if case.in_cgroup or not tasks or {"tasks", "elided"} & set(case.report.missing):
        return False
    mapped = [t.total_vm_bytes for t in tasks]
    known = [m for m in mapped if m is not None]
    page = case.report.page_size_bytes or 4096
    return len(known) == len(mapped) and stacks // _STACK > max(sum(known) // page, len(tasks) * _PER_PROCESS)


def _leaked(case: Case, stacks: int, whole: int) -> Claim:
    """The claim for stacks of tasks that have ended."""
    ended = f"at least {stacks // _STACK} tasks that have ended"
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical",
            title="Tasks that have ended are not freed",
            explanation=f"Kernel stacks hold {size(stacks)}, {percent(stacks, whole)} of RAM, those of "
            f"{ended}: {plural(len(case.report.tasks), 'listed process')} cannot have so many threads. What "
            "else a task has (slab) is not freed either. The kernel frees a task after an RCU grace period, "
            "and when nobody refers to it.",
            evidence={
                "kernel_stack_bytes": stacks,
                "whole_bytes": whole,
                "share_ratio": case.ledger.share(stacks),
            },
            advice="Look for an RCU stall earlier in the log (rcu: INFO: ... detected stalls), a CPU that "
            "hangs or a task that is stuck: what waits for it is freed later. Else it is a leak of the "
            "kernel: update it.",
        ),
        cause=Cause(
            tier=Tier.TAKEN,
            text=f"kernel stacks hold {case.ledger.percent(stacks)} {case.of}, of tasks that have ended",
            # their other data is in slab
            excess_bytes=stacks + (case.ledger.held("slab_unreclaimable") or 0),
        )
        if stacks >= _HUGE * whole
        else None,
    )
