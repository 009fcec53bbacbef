"""The victim is not the process that holds most; here is why.

The kernel kills the process with the most points: resident memory, swap and page tables, plus
``oom_score_adj`` thousandths of all memory. The score table repeats that sum. If the victim is not the
largest process, or not the first of the table, ``reason`` in the evidence is one of these:

* ``oom_score_adj``: an adjustment raised the victim, or lowered the larger process; ``exempt``: the larger
  process could not be chosen at all (-1000, init).
* ``floor`` (up to 5.8): a negative ``oom_score_adj`` took all scores below 0, and each counts as 1. Among
  equal scores the order of the list decides.
* ``page_size_unknown``: the table counts pages, and the report does not give the page size.
* ``root_bonus`` (up to 4.16): the kernel lowers the score of root's processes a little.
* ``child_sacrificed`` (up to 5.0): the kernel chose a process and killed one of its children instead.
* ``allocating_task``: ``vm.oom_kill_allocating_task`` is set, so the requesting task is killed.
* ``thread``: up to 4.18 the printed pid could be a thread's; the table lists its process under another pid.
* ``stale_counters``: the scores are so close that the inaccuracy of the kernel's counters (kept for each
  thread or CPU and read approximately) decides.
* ``not_in_table``: the victim has no row: the table is cut, or it changed while it was printed.
* ``not_printed``: the formula of old kernels needs figures that are not printed (children and run time up
  to 2.6.35, swap and page tables up to 3.5).
* ``skipped``: the kernel skipped the first process of the table for a reason that it does not print: the
  process was already dying or reaped, was in vfork(), or could not use the nodes in question.
"""

from __future__ import annotations

from oomwatchd.diagnosis.badness import ScoreTable, TaskScore
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Claim, Refusal
from oomwatchd.records.report import Finding, OomReport, Victim
from oomwatchd.words.amounts import size
from oomwatchd.words.escape import harmless_name

ID = "victim_not_largest"
TITLE = "The victim is not the largest process"

#: How stale a counter may be: this many pages, or this share of the larger figure. With SPLIT_RSS_COUNTING
#: (up to 6.1) a thread counts up to 64 page faults locally. Since 6.2 the per-CPU counters may be off by a
#: batch of 32 or more for each CPU. The table does not give the number of threads or CPUs.
_STALE_PAGES, _STALE_SHARE = 1024, 0.02
#: Share of all memory. A process this large should have been the victim.
_GIANT = 0.2


def find(case: Case) -> Finding | Claim | None:
    table, victim = case.scores, case.victim
    if victim is not None and case.report.chosen_pid not in (None, victim.pid):
        return _child(case, victim)
    if victim is None or not case.report.tasks:
        return None
    if table is None:
        return _unsized(case.report, victim)
    row = table.of_pid(victim.pid)
    largest = max(table.rows, key=lambda r: r.footprint_bytes)
    first = table.rows[0]
    if row is not None and table.rank(row) == 1 and row.footprint_bytes >= largest.footprint_bytes:
        return None
    reason, why = _reason(case, table, victim, row, largest, first)
    if row is None:
        title = "The victim is not in the task table"
    elif row.footprint_bytes < largest.footprint_bytes:
        title = TITLE
    else:
        title = "The victim is not the first of the score table"
    # the process that holds the memory lives on: the next kill will free as little
    grave = reason == "skipped" and first.footprint_bytes >= _GIANT * (case.bound_bytes or 0)
    return Finding(
        id=ID,
        severity="warning" if grave and case.bound_bytes else "info",
        title=title,
        explanation=why,
        evidence={
            "reason": reason,
            "victim_pid": victim.pid,
            "victim_rank": table.rank(row) if row is not None else None,
            "victim_points": row.points if row is not None else None,
            "victim_footprint_bytes": row.footprint_bytes if row is not None else None,
            "victim_oom_score_adj": row.task.oom_score_adj if row is not None else None,
            "largest_pid": largest.task.pid,
            "largest_comm": largest.task.comm,
            "largest_footprint_bytes": largest.footprint_bytes,
            "largest_oom_score_adj": largest.task.oom_score_adj,
            "first_pid": first.task.pid,
            "first_points": first.points,
        },
    )


def _reason(
    case: Case,
    table: ScoreTable,
    victim: Victim,
    row: TaskScore | None,
    largest: TaskScore,
    first: TaskScore,
) -> tuple[str, str]:
    report = case.report
    dead = f"{victim.comm} (pid {victim.pid})"
    rank = table.rank(row) if row is not None else None
    if report.allocating_task:
        return "allocating_task", (
            f"{dead} asked for memory and was killed for it: vm.oom_kill_allocating_task is set."
        )
    if row is None:
        return _without_row(table, victim, dead)
    if rank == 1:
        if table.floored and row.points == 1:
            return "floor", (
                f"{dead} and all others have at most 0 points after oom_score_adj, which kernels up to 5.8 "
                "count as 1: among equals the order of the list decides, not the size."
            )
        return _by_adjustment(row, largest, dead)
    if table.formula == "pages" and _within_reading_error(row, first, report.page_size_bytes or 1):
        return "stale_counters", (
            f"{dead} and {first.task.comm} (pid {first.task.pid}), first of the table, lie so close "
            f"({row.points} and {first.points} points) that the kernel's rough counters decided."
        )
    if table.formula != "pages":
        return "not_printed", (
            f"{dead} is number {rank} by what is printed; the formula of this old kernel also "
            "counts what is not (swap and page tables, or children and run times)."
        )
    if not table.exact:
        return "oom_score_adj", (
            f"{dead} has oom_score_adj {row.task.oom_score_adj}; how much that weighs cannot be computed, as "
            "the report does not say how much memory and swap the kernel counted in all."
        )
    return "skipped", (
        f"{dead} is number {rank} of the table. Those before it, {first.task.comm} "
        f"(pid {first.task.pid}) first with {size(first.footprint_bytes)}, were passed over: killed before "
        "and still dying or already reaped, in vfork(), or not able to use the memory in question. Reports "
        "do not print which."
    )


def _child(case: Case, victim: Victim) -> Claim:
    report = case.report
    dead = f"{victim.comm} (pid {victim.pid})"
    chosen = harmless_name(report.chosen_comm) if report.chosen_comm else f"pid {report.chosen_pid}"
    return Claim(
        finding=Finding(
            id=ID,
            severity="info",
            title="A child was killed in place of the chosen",
            explanation=f"The kernel chose {report.chosen_comm} (pid {report.chosen_pid}) and killed its "
            "child "
            f"{dead} instead, as kernels up to 5.0 do when a child has memory of its own.",
            evidence={
                "reason": "child_sacrificed",
                "victim_pid": victim.pid,
                "chosen_pid": report.chosen_pid,
                "chosen_comm": report.chosen_comm,
            },
        ),
        refusal=Refusal(text=f" (in place of its parent {chosen})", rank=93, place="behind"),
    )


def _unsized(report: OomReport, victim: Victim) -> Finding:
    why = "The task table counts in pages, and the report does not tell their size."
    namesakes = [t.pid for t in report.tasks if t.comm == victim.comm]
    if victim.pid in namesakes:
        reason = "page_size_unknown"
    elif namesakes:
        reason = "thread"
        why += (
            f" {victim.comm} (pid {victim.pid}) has no row; it is most likely a thread of the process "
            f"of that name, pid {namesakes[0]}."
        )
    else:
        reason = "not_in_table"
        why += f" {victim.comm} (pid {victim.pid}) has no row."
    return Finding(
        id=ID,
        severity="info",
        title="The score cannot be computed",
        explanation=why,
        evidence={"reason": reason, "victim_pid": victim.pid},
    )


def _without_row(table: ScoreTable, victim: Victim, dead: str) -> tuple[str, str]:
    process = next(
        (
            r
            for r in table.rows
            if r.task.total_vm_bytes is not None and r.task.total_vm_bytes == victim.total_vm_bytes
        ),
        None,
    )
    if process is not None:
        rank = table.rank(process)
        return "thread", (
            f"{dead} has no row of its own: it is a thread of {process.task.comm} (pid {process.task.pid}), "
            f"which has the same address space and is number {rank} of the table."
        )
    return "not_in_table", (
        f"{dead} is not in the task table: the table is cut, or the process appeared or went while the "
        "report was printed."
    )


def _by_adjustment(row: TaskScore, largest: TaskScore, dead: str) -> tuple[str, str]:
    other = f"{largest.task.comm} (pid {largest.task.pid}) holds {size(largest.footprint_bytes)}"
    mine = f"{dead} holds {size(row.footprint_bytes)}"
    if largest.excluded_by is not None:
        ground = "it is init" if largest.excluded_by == "init" else f"exempt by {largest.excluded_by}"
        return "exempt", f"{other}, more than the victim, but cannot be chosen ({ground}). {mine}."
    if row.task.oom_score_adj == largest.task.oom_score_adj:
        return "root_bonus", f"{other}, {mine}; the kernel spares root's processes a little."
    return "oom_score_adj", (
        f"{other} with oom_score_adj {largest.task.oom_score_adj or 0}; {mine} with oom_score_adj "
        f"{row.task.oom_score_adj or 0}. With the adjustment the victim has more points."
    )


def _within_reading_error(row: TaskScore, first: TaskScore, page: int) -> bool:
    if row.points is None or first.points is None:
        return False
    allowed = max(_STALE_PAGES, int(_STALE_SHARE * first.footprint_bytes / page))
    return first.points - row.points <= allowed
