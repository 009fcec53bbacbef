"""The victim's memory could not be taken back.

The OOM reaper (4.6+) unmaps a victim's memory if the victim does not exit by itself. "unable to reap" means
that the reaper could not get the victim's mmap lock for a second. A thread of the victim holds that lock and
usually sleeps in the kernel (D state: a dead disk, a hung network file system). The memory stays in use and
the kernel chooses the next victim. If the reaper reports remaining memory, it found pages that it may not
unmap (locked, shared, huge).

On a live system the finding also covers a victim that was still there when the report had settled, five
seconds after its last line.

Fix what the victim waits for; /proc/PID/stack and the dump after the line name it.
"""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding, Victim
from oomwatchd.words.escape import harmless_name

ID = "victim_did_not_die"
TITLE = "The victim's memory could not be taken back"


def find(case: Case) -> Iterator[Finding]:
    for victim in case.report.victims:
        if victim.reaped is not False:
            yield from _still_there(case, victim)
            continue
        yield Finding(
            id=ID,
            severity="critical",
            title=TITLE,
            explanation=f"The OOM reaper gave up on {victim.comm} (pid {victim.pid}): a thread of it holds "
            "the mmap lock, most likely asleep in the kernel. Its memory stays taken.",
            evidence={"pid": victim.pid, "comm": victim.comm, "anon_rss_bytes": victim.anon_rss_bytes},
            advice=f"See what pid {victim.pid} waits for (/proc/{victim.pid}/stack, the task dump after the "
            "reaper's line): a hung disk or network file system is the usual cause.",
        )


def _still_there(case: Case, victim: Victim) -> Iterator[Finding]:
    facts = case.capture.processes if case.capture is not None else ()
    seen = next((f for f in facts if f.pid == victim.pid and f.alive_after), None)
    if seen is None:
        return
    asleep = seen.state_after == "D"
    yield Finding(
        id=ID,
        severity="warning" if victim.reaped else "critical",
        title="The victim was still there seconds after the kill",
        explanation=f"{harmless_name(victim.comm)} (pid {victim.pid}) had not ended five seconds after the "
        "report"
        + (", asleep in the kernel (state D)" if asleep else "")
        + (". The reaper had taken its memory back." if victim.reaped else ". Its memory stays taken."),
        evidence={
            "pid": victim.pid,
            "comm": victim.comm,
            "state": seen.state_after or "unknown",
            "anon_rss_bytes": victim.anon_rss_bytes,
        },
        advice=f"See what pid {victim.pid} waits for (/proc/{victim.pid}/stack): a hung disk or network file "
        "system is the usual cause.",
    )
