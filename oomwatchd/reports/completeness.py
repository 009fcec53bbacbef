"""Which parts a report lacks.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Set

from oomwatchd.formats import Role, dump_stack, oom_kill, show_mem
from oomwatchd.formats.parts import Parts
from oomwatchd.formats.recognise import ALL
from oomwatchd.records.report import Constraint

_HEADERS = frozenset(form.name for form in ALL if form.role is Role.HEADER)


def missing_parts(parts: Parts, seen: Set[str], constraint: Constraint | None) -> tuple[str, ...]:
    """The parts that a report of this kind should have and this one lacks.

    A report without any of the task table is complete if the parts around the table are there: then
    vm.oom_dump_tasks is 0. A call trace follows every header.
    """
    missing = ["elided"] if parts.elided else []
    header = bool(seen & _HEADERS)
    if not header:
        missing.append("header")
    elif oom_kill.BARE_HEADER.name not in seen and not any(map(dump_stack.is_dumped, parts.dump.stack)):
        missing.append("stack")
    if constraint == "memcg":
        if not _is_memcg_whole(parts):
            missing.append("memcg")
    elif not _is_mem_info_whole(parts, seen):
        missing.append("mem_info")
    if parts.outcome.failure:
        return tuple(missing)
    if _is_table_cut(parts, seen, header):
        missing.append("tasks")
    if not (parts.outcome.kills or parts.outcome.outcome):
        missing.append("kill")
    if parts.outcome.summary is None and _summary_expected(parts, header):
        missing.append("constraint")
    return tuple(missing)


def _is_memcg_whole(parts: Parts) -> bool:
    """Whether the cgroup part is whole: up to 3.8 a cgroup's report has the zones, from 3.9 on the cgroup's
    statistics in their place."""
    return bool(parts.memory.zones) or bool(parts.memcg.counters and parts.memcg.stats)


def _is_mem_info_whole(parts: Parts, seen: Set[str]) -> bool:
    """Whether the Mem-Info part is whole: each zone is printed twice, its amounts, then its free blocks."""
    zones = parts.memory.zones
    return (
        bool(zones)
        and bool(parts.memory.totals or show_mem.MEM_INFO.name in seen)
        and all(zone.amounts and zone.blocks for zone in zones.values())
    )


def _is_table_cut(parts: Parts, seen: Set[str], header: bool) -> bool:
    """Whether the table lacks its header or rows: the victim's row is always printed."""
    has_head = oom_kill.TASKS_HEADER.name in seen
    if not parts.table:
        if not has_head:
            return not header
        return not parts.raw and parts.outcome.outcome is None  # it is empty where no task is eligible
    if parts.table.unsure:
        return True
    listed, names = set(parts.table.pids), set(parts.table.names)
    return not has_head or any(
        victim.pid not in listed and victim.comm not in names  # the kill line may name a thread
        for victim in parts.outcome.victims.values()
        if victim.role == "selected"
    )


def _summary_expected(parts: Parts, header: bool) -> bool:
    """Whether there should be a summary line: 5.4 and later print one with every header; a lone kill line has
    lost both."""
    if any("pgtables" in victim.figures for victim in parts.outcome.victims.values()):
        return True
    return not header and parts.outcome.kills > 0 and parts.outcome.chosen is None
