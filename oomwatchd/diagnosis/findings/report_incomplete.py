"""The figures that say why are not in this log.

Container platforms and log shippers often pass on a line or two of a report: the head, the kill line, the
summary. What they say is told: whose limit (``oom_memcg``), or that the whole machine ran out
(``global_oom``), who was killed and how large that was. Who held the rest, and what was short, stands in the
lines that are missing.

The kernel's own log has them: ``dmesg -T`` or ``journalctl -k`` on the host, not in the container.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import size
from oomwatchd.words.escape import harmless_name

ID = "report_incomplete"
TITLE = "The figures that say why are not in this log"

_REST = "See the whole report: dmesg -T or journalctl -k on the host, around that time"


def find(case: Case) -> Claim | None:
    report = case.report
    if report.kind == "oomd_kill" or report.trigger.sysrq or (case.capture and case.capture.unseen):
        return None
    zones = any(zone.bytes_of("free") is not None for zone in case.zones)
    counters = report.memcg is not None and (report.memcg.memory is not None or report.memcg.stat)
    if not (report.kills or report.trigger.comm or report.trigger.gfp_mask is not None or case.zones):
        return None
    if report.complete or zones or counters or (report.memory is not None and report.memory.totals):
        return None
    victim = case.victim or next(iter(report.victims), None)
    sizes = [] if victim is None else [victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes]
    held = sum(s or 0 for s in sizes) if any(s is not None for s in sizes) else None
    machine = report.constraint in ("none", "cpuset", "memory_policy") and report.constraint_basis == "line"
    told = []
    if machine:
        told.append("The machine ran out, not a container's limit (global_oom).")
    if victim is not None and held is not None:
        told.append(f"{victim.comm} (pid {victim.pid}) held {size(held)} resident.")
    text = "" if victim is None or not held else f"{harmless_name(victim.comm)} held {size(held)}"
    return Claim(
        finding=Finding(
            id=ID,
            severity="info",
            title=TITLE,
            explanation=" ".join((*told, f"What is missing: {', '.join(report.missing) or 'figures'}.")),
            evidence={"missing": ", ".join(report.missing), "victim_rss_bytes": held},
            advice=_advice(case, held, machine=machine),
        ),
        refusal=Refusal(text="the machine ran out of memory", rank=70) if machine else None,
        cause=Cause(tier=Tier.TOGETHER, text=text, excess_bytes=1),
    )


def _advice(case: Case, held: int | None, *, machine: bool) -> str:
    if machine:
        return (
            f"{_REST}; more RAM or less work on the machine helps, a larger limit of the container does not."
        )
    if case.in_cgroup:
        grow = (
            ""
            if not held
            else f" If {size(held)} are what it needs, raise the limit above that and what else runs in it."
        )
        return f"{_REST}, and memory.events and memory.stat of the cgroup.{grow}"
    return f"{_REST}."
