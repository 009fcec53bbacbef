"""No process is large: the memory is somewhere else.

Up to 5.0 the kernel prints the victim's score: its share of RAM and swap in permille. The victim has the
highest score of all processes that may be killed. A score of 0 or 1 therefore shows, even without a task
table, that no process holds more than 0.1 or 0.2 %. A complete table with small sizes shows the same. The
memory is then in drivers, a graphics card's buffers, tmpfs files or the kernel itself, and kills free none of
it.

For a cgroup whose statistics are not in the log, its limit minus what its processes (and, on cgroup v1, the
kernel) hold is page cache or tmpfs.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.ledger import Kind
from oomwatchd.diagnosis.levers import is_v1, raised_first
from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.records.report import Finding, Memcg
from oomwatchd.words.amounts import size

ID = "processes_hold_little"
TITLE = "No process is large: the memory is somewhere else"

#: Largest score in permille, and largest share of the whole that all listed processes hold together.
_SCORE, _ALL = 10, 0.1
_SPARE: tuple[Kind, ...] = ("free", "cma", "file")
_MOST_SPARE = 0.4
#: Share of a cgroup's limit that is in no process.
_REST = 0.5


def find(case: Case) -> Claim | None:
    report, whole = case.report, case.ledger.whole_bytes
    if case.in_cgroup:
        return _of_cgroup(case)
    if report.trigger.sysrq or report.kind == "page_alloc_failure":
        return None
    victim = case.victim or next(iter(report.victims), None)
    score = victim.score if victim is not None else None
    held = case.held_bytes
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


def _of_cgroup(case: Case) -> Claim | None:
    """The claim for a cgroup whose statistics are not in the log: its limit minus its processes."""
    report, whole, kernel = case.report, case.ledger.whole_bytes, kinds(case.report.memcg or Memcg()).kernel
    if not whole or case.ledger.held("anon") is not None or case.ledger.held("file") is not None:
        return None
    whole_table = report.tasks and not {"tasks", "elided"} & set(report.missing)
    if not whole_table or len(case.processes) != len(report.tasks):
        return None
    held = case.held_bytes
    rest = whole - held - (kernel or 0)
    if rest < _REST * whole:
        return None
    words = "page cache or tmpfs" if kernel is not None else "page cache, tmpfs or the kernel's own"
    both = "" if kernel is None else f", the kernel {case.ledger.percent(kernel)}"
    text = f"its processes hold {case.ledger.percent(held)} of it{both}; the rest is {words}"
    names = "cache, shmem and dirty" if is_v1(report.memcg or Memcg()) else "file, shmem and file_dirty"
    less = f"see {names} in its memory.stat: what waits to be written, or lies in a tmpfs, cannot be dropped"
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation=f"The processes of the cgroup hold {size(held)} of {size(whole)} together. The log "
            f"lacks the cgroup's statistics; what remains is {words}.",
            evidence={"held_bytes": held, "whole_bytes": whole, "rest_bytes": rest},
            advice=raised_first(case, less),
        ),
        cause=Cause(tier=Tier.HELD, text=text, excess_bytes=rest),
    )
