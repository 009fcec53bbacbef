"""The memory cgroup at its limit: the Memcg of a report.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re

from oomwatchd.formats import oom_kill
from oomwatchd.formats.parts import Parts
from oomwatchd.records.report import Memcg

_ELIDED_PATH = re.compile(r"/(?:\.{3}|\u2026)(?:/|$)")


def memcg_of(parts: Parts, summary: oom_kill.Summary | None) -> Memcg | None:
    """The cgroup part; None where the report has nothing of it."""
    lines = parts.memcg
    oom_path = summary.oom_memcg if summary and summary.oom_memcg is not None else lines.oom_path
    task_path = summary.task_memcg if summary and summary.task_memcg is not None else lines.task_path
    if not parts.raw:  # of a path that was shortened by hand nobody knows the whole
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
