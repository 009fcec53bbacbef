"""One process holds most of the memory that processes hold.

The share is relative to what all listed processes (of the cgroup, in a cgroup's report) hold, resident and in
swap. Shared pages count in each process that maps them. The finding is not given if even that process holds
little of the whole memory, because then something else holds it. It is not given either if the process is
largest only because the table is cut, which the kernel's own count of anonymous memory shows.

Limit the process: ``MemoryMax=`` in its unit, a container limit, its own settings (heap size, cache size,
worker memory). If its ``rss`` rises over days without a rising load, it leaks. If the flight recorder shows
that it did not grow before the kill, and another process asked, the machine is too small for both: swap or
RAM comes first then.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import HOLDS, Case, Process
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.growth import still_seconds
from oomwatchd.diagnosis.levers import bound_process, duration, make_room, setting
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import plural, ratio

ID = "single_process_dominates"
TITLE = "One process holds most of the memory"

#: Least share of what the listed processes hold, and least share of all memory.
_SHARE, _MATTERS = 0.5, 0.2
#: Bytes, if the memory's size is unknown: whoever holds less fills no machine.
_LEAST = 4 << 20
#: Share of the machine's anonymous memory. A table that accounts for less is cut.
_LISTED = 0.5
#: Share of the process's memory that is in transparent huge pages.
_THP = 0.8


def find(case: Case) -> Claim | None:
    processes, largest = case.processes, case.largest
    whole = case.held_bytes
    if largest is None or not whole:
        return None
    bound, held = case.bound_bytes or 0, largest.bytes
    if held < (_MATTERS * bound or _LEAST) or largest.rss_bytes < _SHARE * _unlisted(case, whole):
        return None
    if held < _SHARE * whole:
        return None
    if len(processes) < 2 and (not bound or held < _SHARE * bound):
        return None  # the only listed process, and not known to be large
    resident = case.resident_bytes
    page = case.report.page_size_bytes
    pages = f" ({largest.rss_bytes // page} of {whole // page} pages)" if page and resident == whole else ""
    swapped = f" resident and {size(largest.swap_bytes)} in swap" if largest.swap_bytes else ""
    rest = (
        f"the rest is in {plural(len(processes) - 1, 'other process')}"
        if len(processes) > 1
        else "no other is listed"
    )
    thp = _huge(case, largest.rss_bytes)
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation=f"{largest.comm} (pid {largest.pid}) holds "
            f"{size(largest.rss_bytes)}{swapped}{pages}, "
            f"{percent(held, whole)} of what all listed processes hold; {rest}.{thp[1]}",
            evidence={
                "pid": largest.pid,
                "comm": largest.comm,
                "rss_bytes": largest.rss_bytes,
                "swap_bytes": largest.swap_bytes,
                "rss_total_bytes": resident,
                "held_total_bytes": whole,
                "share_ratio": case.ledger.share(largest.rss_bytes) if bound else ratio(held, whole),
                "bound_bytes": bound or None,
                "tasks": len(processes),
            },
            advice="" if case.in_cgroup else _advice(case, largest, thp[2]),
        ),
        cause=_cause(case, largest, thp[0]),
    )


def _cause(case: Case, largest: Process, thp: str) -> Cause | None:
    """The cause. rss also counts shared pages and pages charged elsewhere, so the amount is limited to the
    anonymous and shared memory of the whole."""
    anon, shmem = case.ledger.held("anon"), case.ledger.held("shmem")
    swapped = case.ledger.held("swapped") or 0
    held = largest.rss_bytes + min(largest.swap_bytes, swapped)
    if anon is not None:
        # the kernel's counters lag: a process with 98 % of the limit holds all of it
        held = min(held, anon + (shmem or 0) + (case.ledger.held("unevictable") or 0) + swapped)
    bound, listed = case.bound_bytes or 1 << 62, case.resident_bytes
    if listed > bound and not swapped:
        held = min(held, bound * largest.rss_bytes // listed)
    if held < HOLDS * bound:
        return None
    name = harmless_name(largest.comm)
    dead = any(victim.pid == largest.pid for victim in case.report.victims[:1])
    exempt = case.scores.of_pid(largest.pid) if case.scores is not None else None
    tail = ", and is exempt" if exempt is not None and exempt.excluded_by is not None else ""
    text = f"{name} {'held' if dead else 'holds'} {case.ledger.percent(held)} {case.of}{thp}{tail}"
    return Cause(tier=Tier.HELD, text=text, excess_bytes=held)


def _advice(case: Case, largest: Process, thp: str) -> str:
    """Bound it; but what did not grow is no leak, and whoever asked beside it needs room."""
    bound = bound_process(case, largest.comm, largest.pid) + thp + _spared(case, largest)
    if largest.pid == 1 or case.early:
        return bound
    still, room = still_seconds(case, largest), make_room(case)
    if not still:
        # a leak, or a load too large: one moment does not tell
        return f"{bound} If it needs more than the {size(largest.bytes)} it had, {room[0].lower()}{room[1:]}."
    asker = harmless_name(case.report.trigger.comm or "what asked")
    return (
        f"{room}: {harmless_name(largest.comm)} did not grow in the {duration(still)} before, and "
        f"{asker} has no room beside it. Else {bound[0].lower()}{bound[1:]}"
    )


def _spared(case: Case, largest: Process) -> str:
    """The advice for a process that may not be chosen, although it holds most: others die in its place."""
    score = case.scores.of_pid(largest.pid) if case.scores is not None else None
    if score is None or score.excluded_by not in ("oom_score_adj", "oom_adj"):
        return ""
    old = score.excluded_by == "oom_adj"
    knob = setting(case, "OOMScoreAdjust=", f"/proc/{largest.pid}/{score.excluded_by}")
    least = "oom_adj above -17" if old else "oom_score_adj above -1000"
    return f" Or give it an {least} ({knob}): then it is killed, and not others."


def _huge(case: Case, rss: int) -> tuple[str, str, str]:
    """Texts on transparent huge pages, which hold memory that a process may never have touched: for the
    summary line, the explanation and the advice."""
    thp = case.total("anon_thp") or 0
    memcg = case.report.memcg
    if case.in_cgroup and memcg is not None:
        thp = memcg.stat.get("anon_thp", memcg.stat.get("total_rss_huge", 0))
    if not rss or thp < _THP * rss:
        return "", "", ""
    share = min(round(100 * thp / rss), 100)
    return (
        f" ({share} % huge pages)",
        f" {size(thp)} of the anonymous memory are transparent huge pages: a program that touches little of "
        "each holds much more than it uses.",
        " If it touches little of its huge pages, madvise in /sys/kernel/mm/transparent_hugepage/enabled "
        "frees the rest.",
    )


def _unlisted(case: Case, whole: int) -> int:
    """The machine's anonymous memory if the listed processes account for less than half of it, else 0."""
    if case.in_cgroup:
        return 0
    anon = (case.total("active_anon") or 0) + (case.total("inactive_anon") or 0) - (case.total("shmem") or 0)
    return anon if whole < _LISTED * anon else 0
