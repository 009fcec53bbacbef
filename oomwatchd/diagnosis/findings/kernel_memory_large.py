"""The kernel's own memory fills the cgroup.

What the kernel keeps for the processes of a cgroup is charged to it: slab (inodes, open files), kernel stacks
(threads), page tables, per-CPU data, vmalloc. The rest has no name in memory.stat: buffers of pipes and unix
sockets, BPF maps, io_uring, message queues. A kill frees it only as far as the descriptors behind it are
closed. cgroup v1 prints one sum for all kinds (``kmem``).

``kernel_rest_bytes`` is the sum less the named kinds. What the sockets of a network hold is counted beside it
in version 2 (``sock``).
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import HOLDS, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.ledger import Kind
from oomwatchd.diagnosis.levers import is_v1, raise_it
from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.diagnosis.suspects import by_count
from oomwatchd.records.report import Finding, Memcg
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name

ID = "kernel_memory_large"
TITLE = "The kernel's own memory fills the cgroup"

#: of the kernel's own: one kind explains it
_MOSTLY = 0.5
#: threads: fewer have no stacks that matter
_MANY = 500
_ANY = "slab (inodes, open files), threads, page tables, pipes, sockets or BPF"
_SHORT = "slab, threads, pipes, sockets or BPF: cgroup v1 does not say"
#: what memory.stat names and a finding of its own tells
_NAMED: tuple[Kind, ...] = ("slab_unreclaimable", "kernel_stack", "pagetables")
_UNNAMED = "pipe or unix socket buffers, BPF maps, io_uring"


def find(case: Case) -> Claim | None:
    memcg, whole = case.report.memcg or Memcg(), case.ledger.whole_bytes
    kernel, rest = kinds(memcg).kernel, case.ledger.held("kernel_rest")
    if not case.in_cgroup or not whole or kernel is None or kernel < HOLDS * whole:
        return None
    old = is_v1(memcg) is True
    unnamed = rest is not None and rest >= _MOSTLY * kernel
    # of the processes in the cgroup alone: the table lists them
    within: set[int | str] = {task.pid for task in case.report.tasks}
    within |= {task.comm for task in case.report.tasks}
    opened = by_count(case, within)
    who = opened.text if opened is not None else _many_threads(case, within)
    what = who or (_SHORT if old else _UNNAMED if unnamed else None)
    # a kind that has a name has a finding of its own, nearer to the cause
    named = max((case.ledger.held(kind) or 0 for kind in _NAMED), default=0)
    held = rest if unnamed and rest is not None and not old else kernel
    tail = f" ({what})" if what else ""
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical" if kernel >= _MOSTLY * whole else "warning",
            title=TITLE,
            explanation=f"The kernel holds {size(kernel)} for the cgroup, {percent(kernel, whole)} of its "
            "limit"
            + (
                f"; {size(rest or 0)} of it has no name in memory.stat: {_UNNAMED}."
                if unnamed and not old
                else "."
            )
            + (f" cgroup v1 does not say which kind: {_ANY}." if old else "")
            + " A kill frees it as far as what stands behind it is closed."
            + (f" {who[0].upper()}{who[1:]}." if who else ""),
            evidence={
                "kernel_bytes": kernel,
                "kernel_rest_bytes": rest,
                "whole_bytes": whole,
                "share_ratio": case.ledger.share(kernel),
            },
            advice=f"{raise_it(case)} if the load needs it; else {opened.lever}."
            if opened is not None
            else f"{raise_it(case)} if the load needs it, or have it hold less: count its descriptors "
            f"({'ls /proc/PID/fd' if not old else 'ls /proc/PID/fd; memory.kmem.slabinfo; Threads in status'}"
            f"{'; memlock in fdinfo of BPF maps' if unnamed else ''}). If it leaks, more only postpones the "
            "next kill.",
        ),
        cause=Cause(
            tier=Tier.HELD,
            text=f"the kernel's own memory holds {case.ledger.percent(held)} of it{tail}",
            excess_bytes=held,
        )
        if named < HOLDS * whole
        else None,
    )


def _many_threads(case: Case, within: set[int | str]) -> str | None:
    """Live: a process of the cgroup with so many threads that their stacks matter."""
    most = next(
        (h for h in case.facts.threads if (h.pid in within or h.name in within) and h.amount >= _MANY), None
    )
    return None if most is None else f"{harmless_name(most.name)} has {most.amount} threads"
