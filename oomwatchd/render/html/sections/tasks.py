"""Tasks by score as bars, the task table, and who died."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from oomwatchd.diagnosis.badness import TaskScore
from oomwatchd.diagnosis.findings import Case
from oomwatchd.event import OomEvent
from oomwatchd.records.report import Task
from oomwatchd.render import fields
from oomwatchd.render.fields import amount
from oomwatchd.render.html import figures
from oomwatchd.render.html.figures import Bar
from oomwatchd.render.html.sections.shown import MOST_ROWS, Head, Row, Table, cell, kb, yes
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import plural

#: bars of the task chart, and how many of the killed follow them
_TOP_TASKS, _TOP_DIED = 12, 3


def ranked(case: Case) -> tuple[TaskScore, ...]:
    """Tasks, the highest score first; without scores (no page size) as printed."""
    scores = case.scores
    if scores is not None:
        return scores.rows
    return tuple(TaskScore(task=t, points=None, footprint_bytes=0) for t in case.report.tasks)


def top_tasks(event: OomEvent, ranked: Sequence[TaskScore]) -> Iterator[Bar]:
    died = {v.pid for v in event.victims}
    sized = [r.task for r in ranked if r.task.rss_bytes is not None]
    sized.sort(key=lambda t: -_held(t))
    shown = sized[:_TOP_TASKS]
    shown += [t for t in sized[_TOP_TASKS:] if t.pid in died][:_TOP_DIED]
    whole = _held(sized[0]) if sized else 0
    for task in shown:
        swap = f", swap {amount(task.swap_bytes)}" if task.swap_bytes else ""
        yield Bar(
            label=f"{harmless_name(task.comm)} ({task.pid})" + (", killed" if task.pid in died else ""),
            value=f"{amount(task.rss_bytes)}{swap}",
            tone="bad" if task.pid in died else "",
            segments=figures.segments(
                [("killed" if task.pid in died else "rss", task.rss_bytes), ("swap", task.swap_bytes)], whole
            ),
        )


def _held(task: Task) -> int:
    return (task.rss_bytes or 0) + (task.swap_bytes or 0)


def tasks_note(event: OomEvent) -> str:
    sized = [t for t in event.tasks if t.rss_bytes is not None]
    if not sized:
        return ""
    swap = sum(t.swap_bytes or 0 for t in sized)
    swapped = f" and {amount(swap)} in swap" if swap else ""
    note = (
        f"The table's {plural(len(sized), 'task')} together: {amount(sum(t.rss_bytes or 0 for t in sized))} "
        f"resident{swapped}; what they share is counted for each."
    )
    return note if event.tasks_left_out is None else f"{note} {fields.left_out(event.tasks_left_out)}."


#: title, field, amount in bytes (shown in kB), what it is
_TASK_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("rss kB", "rss_bytes", "resident in RAM"),
    ("anon kB", "rss_anon_bytes", "resident, anonymous"),
    ("file kB", "rss_file_bytes", "resident, of files"),
    ("shmem kB", "rss_shmem_bytes", "resident, shared memory"),
    ("swap kB", "swap_bytes", "in swap"),
    ("tables kB", "pgtables_bytes", "page tables"),
    ("vm kB", "total_vm_bytes", "address space"),
    ("page tables", "page_tables", "pages of page tables"),
    ("adj", "oom_score_adj", "oom_score_adj"),
    ("uid", "uid", "user"),
    ("tgid", "tgid", "thread group"),
)


def task_table(event: OomEvent, ranked: Sequence[TaskScore]) -> Table | None:
    if not event.tasks:
        return None
    died = {v.pid for v in event.victims}
    columns = [c for c in _TASK_COLUMNS if any(getattr(r.task, c[1]) is not None for r in ranked)]
    extra = sorted({name for r in ranked for name in r.task.extra or {}})
    scored = any(r.points is not None for r in ranked)
    heads = [Head("name", numeric=False), Head("pid")]
    heads += [Head("score", help="per mille of the memory that may be used")] if scored else []
    heads += [Head(title, help=meaning) for title, _, meaning in columns]
    heads += [Head(name) for name in extra]
    rows = []
    for row in ranked[:MOST_ROWS]:
        task = row.task
        cells = [harmless_name(task.comm), str(task.pid)]
        cells += [fields.score(row)] if scored else []
        for _, name, _ in columns:
            value = getattr(task, name)
            cells.append("" if value is None else str(value // 1024 if name.endswith("_bytes") else value))
        cells += [str((task.extra or {}).get(name, "")) for name in extra]
        rows.append(Row(tuple(cells), "bad" if task.pid in died else ""))
    return Table(
        caption=plural(len(ranked), "task") + (", the highest score first" if scored else ""),
        heads=tuple(heads),
        rows=tuple(rows),
        left_out=len(ranked) - len(rows),
    )


def victims(event: OomEvent) -> Table | None:
    """The victims; None where the first screen has all of it."""
    owners = {a.pid: a for a in event.attribution if a.role == "victim"}
    if len(event.victims) < 2 and not owners:
        return None
    lists: tuple[tuple[Head, Callable[[int], object]], ...] = (
        (Head("name", numeric=False), lambda n: harmless_name(event.victims[n].comm)),
        (Head("pid"), lambda n: event.victims[n].pid),
        (Head("resident kB"), lambda n: kb(fields.resident(event.victims[n]))),
        (Head("vm kB"), lambda n: kb(event.victims[n].total_vm_bytes)),
        (Head("adj"), lambda n: event.victims[n].oom_score_adj),
        (Head("score"), lambda n: event.victims[n].score),
        (Head("uid"), lambda n: event.victims[n].uid),
        (Head("why", numeric=False), lambda n: event.victims[n].role.replace("_", " ")),
        (Head("kills"), lambda n: event.victims[n].kills),
        (Head("reaped", numeric=False), lambda n: yes(event.victims[n].reaped)),
    )
    whose: tuple[tuple[str, str], ...] = (
        ("unit", "unit"),
        ("container", "container_name"),
        ("container id", "container_id"),
        ("pod", "pod_uid"),
        ("cgroup", "cgroup"),
        ("command line", "command_line"),
    )
    pids = [v.pid for v in event.victims]
    kept = [(head, [cell(say(n)) for n in range(len(pids))]) for head, say in lists]
    for title, name in whose:
        kept.append((Head(title, numeric=False), [cell(getattr(owners.get(p), name, None)) for p in pids]))
    kept = [(head, cells) for head, cells in kept if any(cells)]
    rows = [Row(tuple(cells[n] for _, cells in kept)) for n in range(min(len(pids), MOST_ROWS))]
    return Table(
        caption=f"{len(pids)} victims" if len(pids) > 1 else "The victim",
        heads=tuple(head for head, _ in kept),
        rows=tuple(rows),
        left_out=len(pids) - len(rows),
    )
