"""The figures that say why are not in this log.

Container platforms and log shippers often pass on only a line or two of a report: the head, the kill line,
the summary. The finding tells what these lines say: whose limit it was (``oom_memcg``) or that the whole
machine ran out (``global_oom``), who was killed, and how large the victim was. What held the rest, and what
ran short, is in the missing lines.

The kernel's own log has them: ``dmesg -T`` or ``journalctl -k`` on the host, not in the container.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.diagnosis.levers import bound_process, raise_it
from oomwatchd.records.report import Finding, Victim
from oomwatchd.words.amounts import size
from oomwatchd.words.escape import harmless_name

ID = "report_incomplete"
TITLE = "The figures that say why are not in this log"

#: Bytes. A smaller victim is not named as the cause.
_LARGE = 16 << 20
#: Bytes. If nothing says what ran out, and of how much, only such a victim is large on an ordinary machine.
_GIANT = 1 << 30
_FEWER = "Run less at once on this machine, bound what is large, or add RAM. "
_REST = "See the whole report: dmesg -T or journalctl -k on the host, around that time"


def find(case: Case) -> Claim | None:
    report = case.report
    said = (report.victims, report.tasks, report.outcome, report.trigger.comm, case.zones)
    if report.complete or report.kind in ("oomd_kill", "user_kill"):
        return None
    if not any(said) and report.trigger.gfp_mask is None and not report.missing:
        return None
    if report.trigger.sysrq or (case.capture is not None and case.capture.unseen) or _told(case):
        return None
    victim = case.victim or next(iter(report.victims), None)
    sizes = [] if victim is None else [victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes]
    held = sum(s or 0 for s in sizes) if any(s is not None for s in sizes) else None
    tables = (victim.pgtables_bytes or 0) if victim is not None else 0
    machine = report.constraint in ("none", "cpuset", "memory_policy")
    known = []
    if machine:
        known.append("The machine ran out, not a container's limit.")
    if victim is not None and held is not None:
        known.append(f"{victim.comm} (pid {victim.pid}) held {size(held)} resident.")
    if tables > (held or 0):
        known.append(f"Its page tables hold {size(tables)}.")
    cause = Cause(tier=Tier.UNSEEN, text="the log lacks the figures that say who held it")
    filled = _filled(case)
    if filled is not None:
        name, anon, share = filled
        known.append(f"Anonymous memory of the processes is {size(anon)} in {name}.")
        cause = Cause(tier=Tier.TOGETHER, text=f"the processes' own memory is {share} of {name}")
    if victim is not None and held:
        # for a cgroup, the advice is that of its limit
        cause = Cause(
            tier=Tier.UNSEEN if case.in_cgroup else Tier.TOGETHER,
            text=f"{harmless_name(victim.comm)} held {size(held)}"
            + (f" and {size(tables)} of page tables" if tables > held else ""),
            excess_bytes=1,
        )
    return Claim(
        finding=Finding(
            id=ID,
            severity="info",
            title=TITLE,
            explanation=" ".join((*known, f"What is missing: {', '.join(report.missing) or 'figures'}.")),
            evidence={"missing": ", ".join(report.missing), "victim_rss_bytes": held},
            advice=_advice_for_tables(victim, tables)
            if victim is not None and tables > (held or 0) and tables >= _LARGE
            else (_FEWER if filled is not None and not held else "")
            + _advice(case, victim, held, machine=machine),
        ),
        refusal=Refusal(text="the machine ran out of memory", rank=70) if machine else None,
        cause=cause,
    )


def _advice_for_tables(victim: Victim, tables: int) -> str:
    return (
        f"Have {harmless_name(victim.comm)} map less, or with huge pages: its page tables alone take "
        f"{size(tables)}; ulimit -v (LimitAS=) bounds what it maps. {_REST}."
    )


def _filled(case: Case) -> tuple[str, int, str] | None:
    """The anonymous memory of the printed zones, if it is most of them: where, in bytes, and its share. The
    log may lack other zones, but it was these that were short."""
    own, most = case.of_processes
    if case.in_cgroup or case.report.kind == "page_alloc_failure" or not most:
        return None
    labels = [harmless_name(v.label) for v in case.verdicts if not case.minor(v)]
    return f"{labels[0]} zone" if len(labels) == 1 else "the zones in the log", own, case.ledger.percent(own)


def _told(case: Case) -> bool:
    """Whether the report has enough figures to say what held the memory."""
    memcg = case.report.memcg
    counters = memcg is not None and (memcg.memory is not None or memcg.stat)
    account = case.ledger.whole_bytes is not None and case.ledger.bound("anon") is not None
    # some zones alone say what is short, but not of how much
    memory = case.report.memory
    whole = bool(case.report.tasks or (memory is not None and memory.totals) or case.meminfo_at)
    return bool(counters or (account and whole))


def _advice(case: Case, victim: Victim | None, held: int | None, *, machine: bool) -> str:
    if not machine:
        stat = ", and memory.events and memory.stat of the cgroup" if case.in_cgroup else ""
        lever = ""
        named = case.report.memcg is not None and case.report.memcg.oom_path
        if case.in_cgroup and not named and held is not None and held >= _LARGE:
            lever = f"{raise_it(case)}, if the {size(held)} that the victim held are what it needs. "
        elif not case.in_cgroup and victim is not None and held is not None and held >= _GIANT:
            bound = bound_process(case, victim.comm, victim.pid).removesuffix(".")
            lever = f"{bound}, if {size(held)} are more than it should have; else give it more. "
        return f"{lever}{_REST}{stat}."
    if victim is None or held is None or held < _LARGE:
        return (
            f"{_REST}; more RAM or less work on the machine helps, a larger limit of the container does not."
        )
    bound = bound_process(case, victim.comm, victim.pid).removesuffix(".")
    return (
        f"{bound}, if {size(held)} are more than it should have; else more RAM or less work helps, a larger "
        f"limit of the container does not. {_REST}: it tells who held the rest."
    )
