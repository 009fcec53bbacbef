"""The summary line for journals and lists: who was killed, why, and what held the memory if it is known.

Its first 80 characters say who and why.

The findings' parts come from their claims (:mod:`oomwatchd.diagnosis.claims`); this module knows no finding.
"""

from __future__ import annotations

from collections.abc import Sequence

from oomwatchd.diagnosis.badness import chosen_victim
from oomwatchd.diagnosis.claims import Claim, ranked
from oomwatchd.records.report import OomReport
from oomwatchd.words.escape import harmless, harmless_name

#: Characters of a line that a list or journal shows, and the least useful length of a cgroup path.
_LINE, _PATH = 80, 25
#: The words around the path, to count their length.
_MEMCG_WORDS = ": cgroup  at its limit of 1.0 GiB"


def summarize(report: OomReport, claims: Sequence[Claim]) -> str:
    """Who was killed (or that nobody was) and why, in one line that is safe to print: names are escaped.

    >>> summarize(report, claims)
    'java (pid 2543) killed: cgroup /system.slice/foo.service at its limit of 512 MiB'
    """
    headline = next((c.headline for c in claims if c.headline is not None), None)
    if headline is not None:
        return headline
    refusals = [c.refusal for c in claims if c.refusal is not None]
    alone = any(r.alone for r in refusals)
    causes = [c.cause.text for c in ranked(claims) if c.cause is not None and c.cause.text]
    cause = f"; {causes[0]}" if causes and not alone else ""
    return f"{who(report)}: {_refused(report, claims)}{cause}"


def room_for_path(report: OomReport) -> int:
    """The number of characters that the line has for a cgroup's path."""
    return max(_LINE - len(who(report)) - len(_MEMCG_WORDS), _PATH)


def who(report: OomReport) -> str:
    """Who was killed, or what else happened."""
    if report.kind == "page_alloc_failure":
        order = "" if report.trigger.order is None else f"order-{report.trigger.order} "
        how = "stalled" if "stall" in (report.outcome or "").lower() else "failed"
        return f"{order}allocation of {_task(report.trigger.comm, report.trigger.pid)} {how}"
    if report.kind == "oom_panic":
        return "kernel panic"
    victim = chosen_victim(report) or next(iter(report.victims), None)
    if victim is None and "kill" in report.missing:
        return f"{_task(report.trigger.comm, report.trigger.pid)} asked for memory, victim not in the log"
    if victim is None:
        return "nobody killed"
    more = len(report.victims) - 1
    fate = (
        "killed" if report.kills or any(v.reaped for v in report.victims) else "chosen, kill not in the log"
    )
    return f"{_task(victim.comm or None, victim.pid)}{f' and {more} more' if more else ''} {fate}"


def _task(comm: str | None, pid: int | None) -> str:
    name = harmless_name(comm) if comm is not None else "a process"
    return name if pid is None else f"{name} (pid {pid})"


def _refused(report: OomReport, claims: Sequence[Claim]) -> str:
    refusals = sorted((c.refusal for c in claims if c.refusal is not None), key=lambda r: r.rank)
    before = [f"{r.text}; " for r in refusals if r.place == "before"]
    first = next((r.text for r in refusals if r.place == "first"), None)
    behind = [r.text for r in refusals if r.place == "behind"]
    if first is None and not behind and report.outcome is not None:
        first = harmless(report.outcome)
    return "".join((*before, first or "out of memory", *behind))
