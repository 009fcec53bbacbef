"""The kernel counted kills that its log did not report.

`oom_kill` in /proc/vmstat counts each kill. If it grows by more than the number of kill lines, and the
difference stays, the daemon reports the difference once, as an event without a report. Either the ring
buffer was overwritten before it was read (a flood of messages, a stopped daemon), or the daemon's own queue
was full. The event's `kills` is 0, because it has no kill line; `unseen` is the number of missing kills.

Other sources show where to look: the cgroups whose own kill counters grew in that time and, if
`[witness] mark_victim` is on, the names of the processes that the kernel marked as victims.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.capture import Unseen
from oomwatchd.records.report import Finding
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import middle_cut, plural

ID = "kills_unseen"
TITLE = "Kills that the kernel log does not show"


def find(case: Case) -> Claim | None:
    unseen = case.capture.unseen if case.capture is not None else None
    if unseen is None:
        return None
    finding = Finding(
        id=ID,
        severity="warning",
        title=TITLE,
        explanation=" ".join((_counts(unseen), *_why(unseen), *_where(unseen))),
        evidence={
            "unseen_kills": unseen.kills,
            "kernel_kills": unseen.kernel_kills,
            "reported_kills": unseen.reported_kills,
            "unaccounted_kills": unseen.unaccounted_kills,
            "lost_records": unseen.lost_records,
            "dropped_reports": unseen.dropped_reports,
            **{f"cgroup_{n}": path for n, (path, _) in enumerate(unseen.cgroups, 1)},
            **{f"cgroup_{n}_kills": kills for n, (_, kills) in enumerate(unseen.cgroups, 1)},
            **{f"marked_{n}_pid": pid for n, (pid, _) in enumerate(unseen.marked, 1)},
            **{f"marked_{n}_comm": comm for n, (_, comm) in enumerate(unseen.marked, 1)},
        },
        advice="Boot with a larger log_buf_len= and find what floods the kernel log; `[witness] mark_victim "
        "= true` names victims whatever becomes of the log.",
    )
    line = f"{plural(unseen.kills, 'kill')} that the kernel counted and its log does not show"
    return Claim(finding=finding, headline=line, cause=Cause(tier=Tier.MANNER, text=""))


def _counts(unseen: Unseen) -> str:
    return (
        f"The kernel's own count of kills grew by {unseen.kernel_kills}, and the log reported "
        f"{unseen.reported_kills} in that time: {plural(unseen.kills, 'kill')} cannot be explained."
    )


def _why(unseen: Unseen) -> list[str]:
    why = []
    if unseen.lost_records:
        why.append(f"{plural(unseen.lost_records, 'record')} of the log were overwritten before being read.")
    if unseen.dropped_reports:
        why.append(
            f"{plural(unseen.dropped_reports, 'report')} found the daemon's queue full; until the log "
            "overwrites them a restart of the daemon finds them again."
        )
    return why


def _where(unseen: Unseen) -> list[str]:
    where = []
    if unseen.cgroups:
        each = (f"{middle_cut(harmless_name(path), 80)} ({kills})" for path, kills in unseen.cgroups)
        where.append(f"Cgroups whose own counts of kills grew: {', '.join(each)}.")
    if unseen.marked:
        names = (f"{harmless_name(comm or '?')} (pid {pid})" for pid, comm in unseen.marked)
        where.append(f"Marked as victims and not in the log: {', '.join(names)}.")
    return where
