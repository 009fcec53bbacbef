"""No process is large: the memory is somewhere else.

Up to 5.0 the kernel prints the victim's score: its share of RAM and swap in permille. The victim has the
highest score of all processes that may be killed. A score of 0 or 1 therefore shows, even without a task
table, that no process holds more than 0.1 or 0.2 %. A complete table with small sizes shows the same. The
memory is then in drivers, a graphics card's buffers, tmpfs files or the kernel itself, and kills free none of
it.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.ledger import Kind
from oomwatchd.records.report import Finding

ID = "processes_hold_little"
TITLE = "No process is large: the memory is somewhere else"

#: Largest score in permille, and largest share of the whole that all listed processes hold together.
_SCORE, _ALL = 10, 0.1
_SPARE: tuple[Kind, ...] = ("free", "cma", "file")
_MOST_SPARE = 0.4


def find(case: Case) -> Claim | None:
    report, whole = case.report, case.ledger.whole_bytes
    if case.in_cgroup or report.trigger.sysrq or report.kind == "page_alloc_failure":
        return None
    victim = case.victim or next(iter(report.victims), None)
    score = victim.score if victim is not None else None
    held = sum(p.bytes for p in case.processes)
    # a log that lost other parts may have lost table rows too
    whole_table = report.tasks and not {"tasks", "header", "mem_info", "elided"} & set(report.missing)
    listed = bool(whole_table) and len(case.processes) == len(report.tasks)
    by_table = listed and whole is not None and held < _ALL * whole
    row = next((t for t in report.tasks if victim is not None and t.pid == victim.pid), None)
    adjusted = (victim.oom_score_adj if victim is not None else None) or (row.oom_score_adj if row else None)
    # a positive adjustment raises the score, so the memory share is even smaller
    by_score = score is not None and score <= _SCORE and not (adjusted or 0) < 0 and not report.tasks
    # other findings explain free memory and page cache that the request could not use
    spare = sum(case.ledger.held(kind) or 0 for kind in _SPARE)
    if not (by_table or by_score) or case.early or (whole and spare >= _MOST_SPARE * whole):
        return None
    most = (score or 0) + 1
    said = (
        f"All listed processes hold {case.ledger.percent(held)} {case.of} together"
        if by_table
        else f"The victim's score is {score}: no process that may be killed holds more than {most / 10:g} "
        "% of "
        "RAM and swap"
    )
    text = (
        f"processes hold {case.ledger.percent(held)} {case.of} only"
        if by_table
        else f"no process holds more than {most / 10:g} % of RAM and swap"
    )
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation=f"{said}: the memory is in drivers, a graphics card's buffers, tmpfs files or the "
            "kernel itself, and a kill frees none of it.",
            evidence={"score": score, "held_bytes": held if by_table else None, "whole_bytes": whole},
            advice="See what holds memory outside processes: /proc/meminfo (Shmem, Slab, HugePages_Total, "
            "VmallocUsed; the "
            "rest of MemTotal is in drivers), df -t tmpfs, slabtop -s c.",
        ),
        cause=Cause(tier=Tier.TOGETHER, text=text, excess_bytes=2),
    )
