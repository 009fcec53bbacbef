"""The outcome: the constraint, who was chosen, who was killed.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from typing import Literal

from oomwatchd.formats import dump_stack, oom_kill
from oomwatchd.formats.parts import Parts, VictimLines
from oomwatchd.records.report import Constraint, Kind, Victim
from oomwatchd.reports.memcg import paths_of

_CONSTRAINTS: dict[str, Constraint] = {
    "CONSTRAINT_NONE": "none",
    "CONSTRAINT_CPUSET": "cpuset",
    "CONSTRAINT_MEMORY_POLICY": "memory_policy",
    "CONSTRAINT_MEMCG": "memcg",
}
#: outcomes of a global OOM; a "compulsory" panic_on_oom (2) takes place under any constraint
_SYSTEM_WIDE = ("no killable processes", "deadlocked on memory", "system-wide", "panic_on_oom is selected")
#: functions that charge a cgroup and can find it at its limit
_CHARGING = frozenset({
    "mem_cgroup_oom_synchronize", "mem_cgroup_handle_oom", "__mem_cgroup_try_charge", "try_charge",
    "try_charge_memcg",
})  # fmt: skip

Basis = Literal["line", "text", "inferred", "trace"]


def summary_of(parts: Parts) -> oom_kill.Summary | None:
    """The summary line's fields, split with the help of the victim's name from the kill line or the task
    table."""
    if parts.outcome.summary is None:
        return None
    constraint, rest = parts.outcome.summary
    summary = oom_kill.parse_summary(constraint, rest)
    known = None
    if summary.pid in parts.outcome.victims:
        known = parts.outcome.victims[summary.pid].comm
    elif summary.pid is not None:
        listed = dict(zip(parts.table.pids, parts.table.names, strict=True))
        known = listed.get(summary.pid)
    return oom_kill.parse_summary(constraint, rest, known) if known is not None else summary


def check_table(parts: Parts, page_size: int | None) -> None:
    """Check the task table against the kill lines, whose figures have names."""
    for victim in parts.outcome.victims.values():
        total_vm_kb = victim.figures.get("total-vm", victim.figures.get("vsz"))
        if total_vm_kb and page_size:
            parts.table.contradicts(victim.pid, total_vm_kb * 1024 // page_size)


def constraint_of(parts: Parts, summary: oom_kill.Summary | None) -> tuple[Constraint | None, Basis | None]:
    """The constraint and how it is known. An unknown constant (BPF policies print their own) is ignored, and
    the other lines of the report decide."""
    if parts.outcome.failure:
        return None, None
    message = parts.outcome.message or ""
    in_memcg = (
        message.startswith("Memory cgroup")
        or bool(parts.memcg.counters)
        or bool(parts.memcg.stats)
        or paths_of(parts)[0] is not None
        or (bool(parts.memcg.claims) and not parts.raw)
    )
    if summary:
        printed = _CONSTRAINTS.get(summary.constraint)
        if printed == "none" and (in_memcg or summary.oom_memcg is not None) and not summary.global_oom:
            return "memcg", "text"  # 5.2-mm and 5.3-rc printed NONE for a cgroup at its limit
        if printed:
            return printed, "line"
        if summary.oom_memcg is not None:
            return "memcg", "text"
    if in_memcg:
        return "memcg", "text"
    if "MPOL_BIND" in message:
        return "memory_policy", "text"
    if "cpuset" in message:
        return "cpuset", "text"
    if message.startswith(("Out of memory", "Out of Memory")):
        return "none", "inferred"
    if any(words in (parts.outcome.outcome or "") for words in _SYSTEM_WIDE):
        return "none", "inferred"
    return ("memcg", "trace") if _is_charged(parts) else (None, None)


def _is_charged(parts: Parts) -> bool:
    """Whether the call trace shows that memory was charged to a cgroup when the OOM killer was called."""
    trace = [line for line in parts.dump.stack if not parts.raw or dump_stack.is_trace(line)]
    if any("mem_cgroup_out_of_memory" in line for line in trace):
        return True
    called = {name for line in trace for name in dump_stack.symbols(line)}
    if not called:
        # without frame pointers all are marked as unsure, and leftovers of earlier calls are among them; but
        # up to 4.7 only a cgroup's limit kills without out_of_memory()
        unsure = {name for line in trace for name in dump_stack.symbols(line, unsure=True)}
        called = unsure if "oom_kill_process" in unsure and "out_of_memory" not in unsure else called
    return not _CHARGING.isdisjoint(called)


def kind_of(parts: Parts, victims: tuple[Victim, ...]) -> Kind:
    """The kind of event."""
    if parts.outcome.failure:
        return "page_alloc_failure"
    if victims:
        return "oom_kill"
    return "oom_panic" if parts.outcome.panic else "oom_no_victim"


def chosen_of(parts: Parts, summary: oom_kill.Summary | None) -> tuple[int | None, str | None]:
    """Pid and name of the process that the kernel chose; another may have died in its place."""
    if parts.outcome.chosen:
        return parts.outcome.chosen[:2]
    if summary and summary.pid is not None:
        return summary.pid, summary.task
    return None, None


def victims_of(parts: Parts, summary: oom_kill.Summary | None) -> tuple[Victim, ...]:
    """The victims; in a text that ends before the kill line, the chosen process."""
    lines = parts.outcome
    if not lines.victims and lines.outcome is None and not parts.raw:
        pid, comm = chosen_of(parts, summary)
        if pid is not None:
            lines.victim(pid, comm or "", "selected")
    return tuple(_victim(parts, victim, summary) for victim in lines.victims.values())


def _victim(parts: Parts, lines: VictimLines, summary: oom_kill.Summary | None) -> Victim:
    kb = lines.figures

    def in_bytes(*names: str) -> int | None:
        return next((kb[name] * 1024 for name in names if name in kb), None)

    pgtables = in_bytes("pgtables")
    if pgtables and parts.table.figure(lines.pid, "pgtables_bytes") == kb["pgtables"]:
        pgtables = kb["pgtables"]  # 5.4.0 printed bytes as kB
    uid = lines.uid
    if uid is None and summary and summary.pid == lines.pid:
        uid = summary.uid
    chosen = parts.outcome.chosen
    score = chosen[2] if chosen and chosen[0] == lines.pid else None
    if parts.outcome.outcome == "already exiting":
        score = None
    return Victim(
        pid=lines.pid,
        comm=lines.comm,
        uid=uid,
        score=score,
        total_vm_bytes=in_bytes("total-vm", "vsz", "vm"),
        anon_rss_bytes=in_bytes("anon-rss"),
        file_rss_bytes=in_bytes("file-rss"),
        shmem_rss_bytes=in_bytes("shmem-rss"),
        rss_bytes=in_bytes("rss"),
        swap_bytes=in_bytes("swap"),
        pgtables_bytes=pgtables,
        oom_score_adj=kb.get("oom_score_adj"),
        role=lines.role,
        kills=lines.kills,
        reaped=lines.reaped,
    )
