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
from oomwatchd.records.report import Finding, Memcg
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name

ID = "kernel_memory_large"
TITLE = "The kernel's own memory fills the cgroup"

#: of the kernel's own: one kind explains it
_MOSTLY = 0.5
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
    what = _SHORT if old else _UNNAMED if unnamed else None
    # a kind that has a name has a finding of its own, nearer to the cause
    named = max((case.ledger.held(kind) or 0 for kind in _NAMED), default=0)
    whose = _whose(case)
    held = rest if unnamed and rest is not None and not old else kernel
    tail = f" ({what}{whose})" if what else ""
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
            + f" A kill frees it as far as what stands behind it is closed.{whose.replace('; ', ' ', 1)}",
            evidence={
                "kernel_bytes": kernel,
                "kernel_rest_bytes": rest,
                "whole_bytes": whole,
                "share_ratio": case.ledger.share(kernel),
            },
            advice=f"{raise_it(case)} if the load needs it, or have it hold less: count its descriptors "
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


def _whose(case: Case) -> str:
    """Live: who has many pipes or sockets open."""
    held = [h for kind in ("pipe", "socket", "bpf") if (h := case.facts.descriptors.get(kind)) is not None]
    most = max(held, key=lambda h: h.amount, default=None)
    if most is None or most.amount < 100:
        return ""
    kind = next(k for k, h in case.facts.descriptors.items() if h is most)
    return f"; {harmless_name(most.name)} has {most.amount} of {kind} open"
