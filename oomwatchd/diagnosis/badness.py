"""The score table: the points that ``oom_badness()`` gave each task, and whether they explain the choice.

Three formulas (mm/oom_kill.c), told apart by the columns of the task table:

* up to 2.6.35 (no ``oom_score_adj``): total_vm, plus half of each child's, divided by run times and for
  root, shifted by oom_adj. Children and run times are not printed: the points here are total_vm shifted
  by oom_adj, an approximation, and ``exact`` is False.
* 2.6.36 to 3.5 (no swap column): permille of the allowed memory, (rss + page tables + swap) * 1000 /
  total, less 30 for root, plus oom_score_adj. Page tables and swap are not printed, so not exact.
* 3.6 and later: pages, rss + swap + page tables, plus oom_score_adj * (total / 1000). Root is spared
  30 permille of total (up to 3.13) or 3 % of its own points (3.14 to 4.16).

``total`` is all memory that the task may use (constrained_alloc()): RAM and swap, or a cgroup's limit and its
swap, or the memory of the allowed nodes and swap. If the kernel printed the victim's score (up to 5.0), the
total and the root rule that reproduce it are used.

The kernel prints the table after the choice. Up to 6.1 each thread counts up to 64 page faults locally, so a
row may differ from what the kernel compared by some pages for each thread. 6.2 to 6.19 read per-CPU counters
approximately.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Literal

import msgspec

from oomwatchd.diagnosis.allocator import parse_nodes
from oomwatchd.records.report import OomReport, Task, Victim

OOM_SCORE_ADJ_MIN = -1000
OOM_DISABLE = -17
#: Limits at or above this mean "no limit" (v1 prints the counter's largest value).
_UNLIMITED = 1 << 52

Formula = Literal["total_vm", "permille", "pages"]
RootRule = Literal["none", "three_percent", "thirty_permille"]


class TaskScore(msgspec.Struct, frozen=True, gc=False):
    """One task's score. ``points`` are pages (permille in the ``permille`` formula); None: not eligible."""

    task: Task
    points: int | None
    #: Bytes that killing it would free by the kernel's count: rss + swap + page tables.
    footprint_bytes: int
    #: Points in thousandths of all usable memory, the scale of the printed score and of /proc/PID/oom_score.
    permille: int | None = None
    excluded_by: Literal["oom_score_adj", "oom_adj", "init"] | None = None


class ScoreTable(msgspec.Struct, frozen=True, kw_only=True):
    """All tasks: the eligible ones by falling points (equal points in the table's order), then the exempt."""

    rows: tuple[TaskScore, ...]
    formula: Formula
    #: Whether the report printed all terms of the formula.
    exact: bool
    #: What the kernel took as "all memory"; None if the report does not say.
    total_bytes: int | None
    root_rule: RootRule
    #: Points of 0 and below count as 1 (up to 5.8), so strongly negative adjustments make tasks equal.
    floored: bool
    #: The score that the kernel printed for the chosen process, and the score that this table gives it.
    printed_score: int | None = None
    computed_score: int | None = None

    def of_pid(self, pid: int | None) -> TaskScore | None:
        """The row of ``pid``."""
        return next((r for r in self.rows if r.task.pid == pid), None)

    def rank(self, row: TaskScore) -> int | None:
        """The rank, from 1; equal points share a rank. None for an exempt task."""
        if row.points is None:
            return None
        points = row.points
        return 1 + sum(1 for r in self.rows if r.points is not None and r.points > points)


def score_table(report: OomReport, *, swap_total_bytes: int | None = None) -> ScoreTable | None:
    """The scores of a report's task table, or None without one.

    ``swap_total_bytes`` is the host's SwapTotal if a snapshot gave it. A cgroup's report does not print it,
    but the kernel adds the swap that the cgroup may use.
    """
    tasks = [t for t in report.tasks if t.rss_bytes is not None]
    page = report.page_size_bytes
    if not tasks or page is None:
        return None
    formula = _formula(report)
    chosen = chosen_victim(report)
    chosen_pid = report.chosen_pid if report.chosen_pid is not None else chosen.pid if chosen else None
    printed = next((v.score for v in report.victims if v.score is not None), None)
    totals = list(_totals(report, swap_total_bytes))
    certain = bool(totals) and not _swap_room_unknown(report, swap_total_bytes)
    candidate = next((t for t in tasks if t.pid == chosen_pid), None)
    best: tuple[int, int | None, RootRule, int | None] | None = None
    for total, rule in _hypotheses(report, formula, totals):
        computed = None
        if candidate is not None and total is not None:
            footprint = footprint_bytes(candidate, page)
            points = _points(candidate, footprint, formula, total, rule, page)
            computed = _permille(points, formula, total)
        distance = abs(computed - printed) if computed is not None and printed is not None else 0
        if best is None or distance < best[0]:
            best = (distance, total, rule, computed)
    _, total, rule, computed = best or (0, None, "none", None)
    rows = [_row(t, formula, total, rule, page) for t in tasks]
    if not certain and (printed is None or computed != printed):
        # without the cgroup's swap the total is too small: shares of it could exceed 1000
        rows = [TaskScore(r.task, r.points, r.footprint_bytes, None, r.excluded_by) for r in rows]
    # Kernels that print a score or counts of page tables are older than 5.9 and have the floor. For others,
    # the choice of the victim shows whether the floor applied.
    old = printed is not None or any(t.page_tables is not None for t in tasks)
    floored = formula != "total_vm" and (old or _floor_explains(rows, chosen_pid))
    if floored:
        rows = [
            r if r.points is None or r.points >= 1 else msgspec.structs.replace(r, points=1) for r in rows
        ]
    eligible = sorted([r for r in rows if r.points is not None], key=attrgetter("points"), reverse=True)
    exempt = [r for r in rows if r.points is None]
    exempt.sort(key=attrgetter("footprint_bytes"), reverse=True)
    # if all tasks have the same adjustment, the order does not depend on the total
    exact = formula == "pages" and (certain or len({t.oom_score_adj for t in tasks}) == 1)
    return ScoreTable(
        rows=(*eligible, *exempt),
        formula=formula,
        exact=exact,
        total_bytes=total * page if total is not None else None,
        root_rule=rule,
        floored=floored,
        printed_score=printed,
        computed_score=computed,
    )


def chosen_victim(report: OomReport) -> Victim | None:
    """The selected victim; the other victims died with it."""
    return next((v for v in report.victims if v.role == "selected"), None)


def footprint_bytes(task: Task, page_size: int) -> int:
    """The memory that oom_badness() counts for a task, in bytes: rss + swap + page tables."""
    tables = task.pgtables_bytes
    if tables is None:
        pages = task.page_tables or 0
        if task.extra:
            pages += task.extra.get("nr_pmds") or 0
        tables = pages * page_size
    return (task.rss_bytes or 0) + (task.swap_bytes or 0) + tables


def _floor_explains(rows: list[TaskScore], chosen_pid: int | None) -> bool:
    """Whether no task has more than 0 points, but the chosen task is not the first."""
    points = {r.task.pid: r.points for r in rows if r.points is not None}
    mine = points.get(chosen_pid) if chosen_pid is not None else None
    return mine is not None and mine < max(points.values()) <= 0


def _formula(report: OomReport) -> Formula:
    if all(t.oom_score_adj is None for t in report.tasks):
        return "total_vm"
    return "permille" if all(t.swap_bytes is None for t in report.tasks) else "pages"


def _hypotheses(
    report: OomReport, formula: Formula, totals: list[int]
) -> Iterator[tuple[int | None, RootRule]]:
    """Pairs of total in pages and root rule, the most likely first."""
    rules: tuple[RootRule, ...]
    if formula == "total_vm":
        rules = ("none",)
    elif formula == "permille":
        rules = ("thirty_permille", "none")
    elif any(t.pgtables_bytes is not None for t in report.tasks):
        rules = ("none", "three_percent")  # 4.15 and 4.16 have both the column and the rule
    elif any("nr_pmds" in (t.extra or {}) for t in report.tasks):
        rules = ("three_percent", "none")  # none: root without CAP_SYS_ADMIN, as in a container
    else:
        rules = ("thirty_permille", "three_percent", "none")
    if not totals:
        yield None, rules[0]
    for total in totals:
        for rule in rules:
            yield total, rule


def _swap_room_unknown(report: OomReport, swap_total: int | None) -> bool:
    """Whether the usable swap of a cgroup is unknown. The kernel adds it to "all memory", up to the host's
    total. It is known only with the host's figure, or if the cgroup may use no swap."""
    if report.constraint != "memcg" or swap_total is not None or report.memcg is None:
        return False
    memcg = report.memcg
    if memcg.swap is not None:
        return memcg.swap.limit_bytes != 0
    if memcg.memory_swap is None or memcg.memory is None:
        return False
    return memcg.memory_swap.limit_bytes != memcg.memory.limit_bytes


def _totals(report: OomReport, swap_total: int | None) -> Iterator[int]:  # noqa: C901 - one branch for each kernel's rule
    page = report.page_size_bytes or 1
    memory, memcg = report.memory, report.memcg
    if memory is not None and memory.swap is not None and memory.swap.total_bytes is not None:
        swap_total = memory.swap.total_bytes
    swap_pages = (swap_total or 0) // page
    if report.constraint == "memcg":
        if memcg is None or memcg.memory is None or memcg.memory.limit_bytes is None:
            return
        limit = memcg.memory.limit_bytes
        if memcg.swap is not None and memcg.swap.limit_bytes is not None:
            room = memcg.swap.limit_bytes
        elif memcg.memory_swap is not None and memcg.memory_swap.limit_bytes is not None:
            room = max(memcg.memory_swap.limit_bytes - limit, 0)
        else:
            room = _UNLIMITED
        yield (limit + min(room, swap_total or 0)) // page
        if swap_total is None and room < _UNLIMITED:
            yield (limit + room) // page
        return
    if memory is None:
        return
    nodes = None
    if report.constraint == "memory_policy":
        nodes = parse_nodes(report.trigger.nodemask)
    elif report.constraint == "cpuset":
        nodes = parse_nodes(report.trigger.mems_allowed)
    if nodes is not None:
        # node_present_pages() of each allowed node
        present = [z.bytes_of("present") for z in memory.zones if z.node in nodes]
        if present and None not in present:
            yield sum(p for p in present if p is not None) // page + swap_pages
    if memory.ram_bytes is not None:
        not_ram = (memory.reserved_bytes or 0) + (memory.cma_reserved_bytes or 0)
        yield (memory.ram_bytes - (memory.reserved_bytes or 0)) // page + swap_pages
        yield (memory.ram_bytes - not_ram) // page + swap_pages
    managed = [z.managed_bytes for z in memory.zones]
    if managed and None not in managed:
        yield sum(m for m in managed if m is not None) // page + swap_pages


def _exclusion(task: Task) -> Literal["oom_score_adj", "oom_adj", "init"] | None:
    if task.pid == 1:
        return "init"
    if task.oom_score_adj == OOM_SCORE_ADJ_MIN:
        return "oom_score_adj"
    if task.oom_score_adj is None and task.extra and task.extra.get("oom_adj") == OOM_DISABLE:
        return "oom_adj"
    return None


def _row(task: Task, formula: Formula, total: int | None, rule: RootRule, page: int) -> TaskScore:
    why = _exclusion(task)
    footprint = footprint_bytes(task, page)
    if why is not None:
        return TaskScore(task, None, footprint, None, why)
    points = _points(task, footprint, formula, total, rule, page)
    return TaskScore(task, points, footprint, None if total is None else _permille(points, formula, total))


def _points(
    task: Task, footprint: int, formula: Formula, total: int | None, rule: RootRule, page: int
) -> int:
    """oom_badness() of one task. Without ``total`` an adjustment cannot be converted and is ignored."""
    if formula == "total_vm":
        points = (task.total_vm_bytes or 0) // page
        shift = (task.extra or {}).get("oom_adj") or 0
        return max(points, 1) << min(shift, 15) if shift > 0 else points >> min(-shift, 17)
    pages = footprint // page
    adjust = task.oom_score_adj or 0
    if formula == "permille":
        points = pages * 1000 // total if total else pages
        if total:
            points += adjust - (30 if task.uid == 0 and rule == "thirty_permille" else 0)
        return min(max(points, 1), 1000) if total else points
    if task.uid == 0 and rule == "three_percent":
        pages -= pages * 3 // 100
    if task.uid == 0 and rule == "thirty_permille":
        adjust -= 30
    return pages + adjust * ((total or 0) // 1000)


def _permille(points: int, formula: Formula, total: int) -> int:
    if formula != "pages":
        return points
    return max(points, 1) * 1000 // total if total else 0
