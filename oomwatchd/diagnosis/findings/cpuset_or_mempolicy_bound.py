"""The process was confined to NUMA nodes that were full.

A cpuset (``cpuset.mems``) or a memory policy (numactl --membind, mbind(), set_mempolicy()) limits a process
to some nodes. When these nodes are full, the kernel kills, even if other nodes have free memory. It considers
only processes that may use the same nodes.

A node may also have much free memory of the wrong kind. Memory that was hot-added or set aside as zone
Movable holds user pages only, not the kernel's own data (``unsuited_free_bytes``). A container that is bound
to such a node cannot even start.

The report lists only the allowed nodes. The free memory of the other nodes is the machine's total minus what
these nodes print. On a live system it is read from /proc/zoneinfo (free memory above the high watermarks).
``other_nodes_free_bytes`` is null if neither is known.

Widen ``cpuset.mems``, use a preferred policy instead of a binding one (``--preferred``,
MPOL_PREFERRED_MANY), or move work to other nodes.
"""

from __future__ import annotations

from oomwatchd.diagnosis.allocator import ZoneVerdict, parse_nodes
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import size

ID = "cpuset_or_mempolicy_bound"
TITLE = "Confined to NUMA nodes that were full"


def find(case: Case) -> Claim | None:
    report = case.report
    if report.constraint not in ("cpuset", "memory_policy"):
        return None
    by_cpuset = report.constraint == "cpuset"
    text = report.trigger.mems_allowed if by_cpuset else report.trigger.nodemask
    nodes = parse_nodes(text)
    others = _free_elsewhere(case, nodes) if nodes is not None else None
    where = f"node {text}" if nodes is not None else "some nodes"
    cause = f"the cpuset {report.trigger.cpuset or ''}".rstrip() if by_cpuset else "a memory policy"
    unsuited = _unsuited(case, nodes)
    here = "there was no room there"
    if unsuited:
        kinds = ", ".join(sorted({v.zone for v in unsuited}))
        free = sum(v.free_bytes or 0 for v in unsuited)
        here = (
            f"there is no memory of the kind there: the {size(free)} free are in zone {kinds}, which holds "
            "other kinds of pages than the one asked for"
        )
    elsewhere = (
        "What other nodes had is not in the report."
        if others is None
        else f"Other nodes had {size(others)} free."
    )
    knob = "cpuset.mems" if by_cpuset else "the binding policy (numactl --membind, mbind, set_mempolicy)"
    finding = Finding(
        id=ID,
        severity="critical",
        title="Confined to NUMA nodes without memory for this kind of request" if unsuited else TITLE,
        explanation=f"The request was confined to {where} by {cause}, and {here}. {elsewhere}",
        evidence={
            "constraint": report.constraint,
            "nodes": text,
            "cpuset": report.trigger.cpuset,
            "other_nodes_free_bytes": others,
            "unsuited_free_bytes": sum(v.free_bytes or 0 for v in unsuited) if unsuited else None,
        },
        advice=_advice(knob, others, bool(unsuited)),
    )
    whose = "cpuset" if by_cpuset else "memory policy"
    bound = f"confined to {where} by its {whose}"
    if unsuited:
        refusal = Refusal(text=f"{bound}; no memory of the kind asked for there", rank=35)
    elif case.failing or any(v.fits is not None for v in case.verdicts):
        refusal = Refusal(text=bound, rank=35, place="before")
    else:
        refusal = Refusal(text=f"{bound}; no memory there", rank=55)
    claimed = Cause(tier=Tier.BARRED, text="", excess_bytes=others or 0) if finding.advice else None
    return Claim(finding=finding, refusal=refusal, cause=claimed)


def _advice(knob: str, others: int | None, unsuited: bool) -> str:
    if unsuited:
        return f"Add a node that has zone Normal to {knob}: zone Movable alone serves no kernel memory."
    if others is None:
        return f"If other nodes have room (numactl --hardware), widen {knob}."
    return f"Widen {knob}: other nodes had {size(others)} to spare." if others else ""


def _unsuited(case: Case, nodes: frozenset[int] | None) -> list[ZoneVerdict]:
    """The zones of the allowed nodes, if the request may use none of them because of its class zone."""
    here = [v for v in case.verdicts if nodes is None or v.node in nodes]
    return here if here and all(v.excluded_by == "class zone" for v in here) else []


def _free_elsewhere(case: Case, nodes: frozenset[int]) -> int | None:
    """Free bytes above the high watermark on nodes outside ``nodes``; None if unknown."""
    printed = [z for z in case.zones if z.node is not None and z.node not in nodes]
    if printed:
        return sum(max((z.bytes_of("free") or 0) - (z.bytes_of("high") or 0), 0) for z in printed)
    if case.free_elsewhere is not None:
        return case.free_elsewhere
    page = case.report.page_size_bytes
    live = [z for z in case.zoneinfo_at if z.node not in nodes]
    if not live or page is None:
        return None
    return sum(max(z.pages.get("free", 0) - z.pages.get("high", 0), 0) for z in live) * page
