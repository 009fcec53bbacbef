"""The memory cgroup at its limit: the Memcg of a report.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from oomwatchd.formats import oom_kill
from oomwatchd.formats.parts import Parts
from oomwatchd.records.report import Memcg
from oomwatchd.words.deferred import deferred

_ELIDED_PATH = deferred(r"/(?:\.{3}|\u2026)(?:/|$)")


def paths_of(parts: Parts) -> tuple[str | None, str | None]:
    """The cgroup at its limit and the task's cgroup, from lines that end with a path (up to 4.20).

    Any line with the same beginning would match their forms. So among raw records they count only beside the
    cgroup's usage or statistics, and only if the cgroup at its limit is that of the statistics and the task's
    cgroup is below it.
    """
    claims, lines = parts.memcg.claims, parts.memcg
    if lines.beancounter is not None:
        return lines.beancounter, lines.beancounter
    if not parts.raw:
        oom_paths = [oom for _, oom in claims if oom is not None]
        tasks = [task for task, _ in claims if task is not None]
        return oom_paths[-1] if oom_paths else None, tasks[-1] if tasks else None
    if not lines.counters and not lines.stats:
        return None, None
    printed = {stat.path for stat in lines.stats if stat.path is not None}
    oom_path = next((oom for _, oom in claims if oom is not None and (not printed or oom in printed)), None)
    if oom_path is None:
        return None, None
    tree = oom_path if oom_path.endswith("/") else f"{oom_path}/"
    task_path = next(
        (
            task
            for task, oom in claims
            if task is not None and oom in (None, oom_path) and (task == oom_path or task.startswith(tree))
        ),
        None,
    )
    return oom_path, task_path


def memcg_of(parts: Parts, summary: oom_kill.Summary | None) -> Memcg | None:
    """The cgroup part; None where the report has nothing of it."""
    lines = parts.memcg
    oom_path, task_path = paths_of(parts)
    if summary and summary.oom_memcg is not None:
        oom_path = summary.oom_memcg
    if summary and summary.task_memcg is not None:
        task_path = summary.task_memcg
    if not parts.raw:  # a path that a person shortened is unknown
        oom_path, task_path = (
            None if path is not None and _ELIDED_PATH.search(path) else path for path in (oom_path, task_path)
        )
    own = next((stat for stat in lines.stats if stat.path == oom_path), None)
    own = own or (lines.stats[0] if lines.stats else None)
    if oom_path is None and own is not None and own.path:
        oom_path = own.path
    memcg = Memcg(
        oom_path=oom_path,
        task_path=task_path,
        group_path=lines.group_path,
        memory=lines.counters.get("memory"),
        swap=lines.counters.get("swap"),
        memory_swap=lines.counters.get("memory+swap"),
        kmem=lines.counters.get("kmem"),
        stat=own.stat if own else {},
        stat_unit_bytes=own.unit_bytes if own and own.stat else None,
        descendants=tuple(stat for stat in lines.stats if stat is not own),
        min_protection_bytes=lines.protection[0] if lines.protection else None,
        low_protection_bytes=lines.protection[1] if lines.protection else None,
    )
    return None if memcg == Memcg() else memcg
