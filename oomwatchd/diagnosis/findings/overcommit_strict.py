"""Strict overcommit was on, but memory ran out anyway.

With ``vm.overcommit_memory`` 2 the kernel refuses an allocation that would raise the memory promised to all
processes (``Committed_AS``) above ``CommitLimit``. This does not prevent OOM kills: the limit counts swap and
a share of RAM (``vm.overcommit_ratio``, or ``vm.overcommit_kbytes``), but ignores what the kernel itself
holds and the limits of cgroups.

If the limit is larger than RAM without the kernel's own memory, lower it. If it is not, the kernel's memory
or a cgroup's limit is what ran out.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import LASTS
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size

ID = "overcommit_strict"
TITLE = "Strict overcommit did not prevent the kill"


def find(case: Case) -> Claim | None:
    if case.at is None or case.at.parts.get("overcommit_memory", "").strip() != "2":
        return None
    if case.report.constraint == "memcg":
        return None
    limit, committed = case.meminfo_at.get("CommitLimit"), case.meminfo_at.get("Committed_AS")
    if limit is None or committed is None:
        return None
    room = case.meminfo_at.get("MemTotal", 0) + case.meminfo_at.get("SwapTotal", 0)
    above = room > 0 and limit > 0.9 * room
    finding = Finding(
        id=ID,
        severity="warning" if above else "info",
        title=TITLE,
        explanation=f"vm.overcommit_memory is 2: {size(committed)} of a limit of {size(limit)} were promised "
        f"({percent(committed, limit) if limit else 'no limit'})"
        + (", and that limit leaves the kernel itself less than a tenth of RAM and swap." if above else "."),
        evidence={"commit_limit_bytes": limit, "committed_bytes": committed, "ram_and_swap_bytes": room},
        advice=f"Lower vm.overcommit_ratio ({LASTS}) so that the limit leaves room for the kernel's own "
        "memory: "
        "a program is then refused memory in place of being killed."
        if above
        else "",
    )
    text = f"strict overcommit (vm.overcommit_memory=2) promises {size(limit)} of {size(room)}"
    # A limit that leaves nothing for the kernel permits the shortage, but does not cause it: rank it last.
    cause = Cause(tier=Tier.TAKEN, text=text, excess_bytes=1) if above else None
    return Claim(finding=finding, cause=cause)
