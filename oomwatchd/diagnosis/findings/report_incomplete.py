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
    said = (report.victims, report.tasks, report.outcome, report.trigger.comm, case.zones)
    if report.complete or report.kind in ("oomd_kill", "user_kill") or not any(said):
        return None
    if report.trigger.sysrq or (case.capture is not None and case.capture.unseen) or _told(case):
        return None
    victim = case.victim or next(iter(report.victims), None)
    sizes = [] if victim is None else [victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes]
    held = sum(s or 0 for s in sizes) if any(s is not None for s in sizes) else None
    machine = (
        report.constraint in ("none", "cpuset", "memory_policy") and report.constraint_basis != "inferred"
    )
    told = []
    if machine:
        told.append("The machine ran out, not a container's limit.")
    if victim is not None and held is not None:
        told.append(f"{victim.comm} (pid {victim.pid}) held {size(held)} resident.")
    cause = Cause(tier=Tier.UNSEEN, text="the log lacks the figures that say who held it")
    if victim is not None and held:
        cause = Cause(
            tier=Tier.TOGETHER, text=f"{harmless_name(victim.comm)} held {size(held)}", excess_bytes=1
        )
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
        cause=cause,
    )


def _told(case: Case) -> bool:
    """The report has figures enough to say who held what of the whole."""
    memcg = case.report.memcg
    counters = memcg is not None and (memcg.memory is not None or memcg.stat)
    account = case.ledger.whole_bytes is not None and case.ledger.bound("anon") is not None
    return bool(counters or account)


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
