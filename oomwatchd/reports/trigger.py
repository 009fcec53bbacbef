"""The Trigger of a report: who asked for memory, which kind and how much.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Set

from oomwatchd.formats import dump_stack, gfp, oom_kill, rx, show_mem
from oomwatchd.formats.parts import Parts
from oomwatchd.records.report import Trigger
from oomwatchd.words.deferred import deferred

_MASK = rx(r"gfp_mask=(0x[0-9a-f]{1,16}|[0-9a-f]{1,16})(?:\(([^)]*)\)?)?")
#: what ends a flag name; a program that took "|" for a sign of quotation may have removed it
_FLAG_END = deferred(r"\||(?<=[A-Z0-9])(?=__GFP_)")
_SCORE_ADJ = rx(r"oom_score_adj=(-?\d+)")
_OLD_ADJ = rx(r"(?:oom_adj|oomkilladj)=(-?\d+)")
#: forms of kernels that print flag names: if one is seen, a bare number is not decoded
_NAMES_ARE_PRINTED = frozenset({oom_kill.SUMMARY.name, show_mem.NODE.name, oom_kill.TASKS_TITLE.name})


def trigger_of(parts: Parts, seen: Set[str], summary: oom_kill.Summary | None) -> Trigger:
    """The trigger; for cpuset and nodes the summary line goes first."""
    lines = parts.trigger
    mask = _MASK.search(lines.request)
    bits = int(mask[1], 16) if mask else None
    flags = _flags(parts, seen, bits, mask[2] if mask else None)
    adj = _SCORE_ADJ.search(lines.request)
    old_adj = _OLD_ADJ.search(lines.request)
    return Trigger(
        comm=lines.comm,
        pid=lines.pid,
        uid=lines.uid,
        cpu=lines.cpu,
        gfp_mask=bits,
        gfp_flags=flags,
        highest_zone=gfp.highest_zone(flags if flags is not None or bits is None else gfp.zone_flags(bits)),
        order=lines.order,
        oom_score_adj=int(adj[1]) if adj else None,
        oom_adj=int(old_adj[1]) if old_adj else None,
        cpuset=summary.cpuset if summary and summary.cpuset is not None else lines.cpuset,
        mems_allowed=summary.mems_allowed if summary and summary.mems_allowed else lines.mems,
        nodemask=summary.nodemask if summary and summary.nodemask else lines.nodemask,
        call_trace=tuple(
            name for line in parts.dump.stack for name in dump_stack.symbols(line, raw=parts.raw)
        ),
        sysrq=lines.sysrq or lines.order == -1,
        panicked_comm=lines.panicked[0] if lines.panicked else None,
        panicked_pid=lines.panicked[1] if lines.panicked else None,
    )


def _flags(parts: Parts, seen: Set[str], bits: int | None, names: str | None) -> tuple[str, ...] | None:
    """The mask's flags: the printed names, else from the table of the kernel's era; None where unknown."""
    if names is not None:
        flags = tuple(name for name in _FLAG_END.split(re.sub(r"\s", "", names)) if name)
        return None if "..." in flags else flags
    if bits is None or seen & _NAMES_ARE_PRINTED or parts.table.has("pgtables_bytes") or gfp.is_later(bits):
        return None
    era = gfp.era_of(
        bits,
        oomkilladj="oomkilladj=" in parts.trigger.request or oom_kill.BARE_HEADER.name in seen,
        since_4_1="free_pcp" in parts.memory.totals or parts.table.has("nr_pmds"),
        since_4_5=any("shmem-rss" in victim.figures for victim in parts.outcome.victims.values()),
    )
    return gfp.names(bits, era)
