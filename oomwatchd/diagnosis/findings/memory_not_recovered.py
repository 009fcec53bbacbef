"""The kill gave little memory back.

The finding compares ``MemAvailable`` on detection with ``MemAvailable`` when the report had settled, five
seconds after its last line. The increase is measured against what the victims held by the kill line
(anonymous and shared memory, resident). If less than a quarter of that came back, the kill did not help: the
victim has not ended, its memory is shared or locked, or something else took it at once.

This finding covers shortages of the whole machine only. For a cgroup at its limit, the report shows what the
cgroup is charged afterwards.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.procfs import meminfo
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import size
from oomwatchd.words.text import ratio

ID = "memory_not_recovered"
TITLE = "The kill gave little memory back"

#: Share of the victims' memory that must come back, and the least share of RAM that they must have held.
_BACK, _WORTH = 0.25, 0.02


def find(case: Case) -> Finding | None:
    if case.capture is None or case.capture.after is None or case.report.constraint != "none":
        return None
    before, after = case.meminfo_at, meminfo(case.capture.after)
    total = before.get("MemTotal")
    available = before.get("MemAvailable"), after.get("MemAvailable")
    if not total or available[0] is None or available[1] is None:
        return None
    held = sum((v.anon_rss_bytes or 0) + (v.shmem_rss_bytes or 0) for v in case.report.victims)
    back = available[1] - available[0]
    if held < _WORTH * total or back >= _BACK * held:
        return None
    seconds = (case.capture.after.usec - case.capture.at.usec) / 1e6 if case.capture.at else 0.0
    gained = f"{size(back)} more" if back > 0 else f"{size(-back)} less" if back else "no more"
    return Finding(
        id=ID,
        severity="warning",
        title=TITLE,
        explanation=f"The killed held {size(held)}, but {seconds:.0f} seconds later {gained} was available "
        f"({size(available[0])} then, {size(available[1])} now): something else took it, or the victim has "
        "not "
        "ended. The next kill may follow.",
        evidence={
            "held_bytes": held,
            "available_before_bytes": available[0],
            "available_after_bytes": available[1],
            "recovered_ratio": ratio(max(back, 0), held),
            "seconds": round(seconds, 3),
        },
    )
