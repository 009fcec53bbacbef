"""The kernel had given up reclaiming.

``all_unreclaimable? yes`` means that kswapd scanned again and again and freed nothing: on a zone (up to
4.7) after scanning six times its reclaimable pages, on a node (4.8+) after 16 fruitless rounds. If all zones
or nodes are marked and little page cache is left, the kill was not premature: nothing was left to drop.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import size

ID = "reclaim_gave_up"
TITLE = "The kernel had given up reclaiming"

#: Share of RAM in page cache. With this much, something was left to drop.
_LEFT = 0.1


def find(case: Case) -> Finding | None:
    memory = case.report.memory
    if memory is None or case.report.constraint == "memcg" or case.report.trigger.sysrq:
        return None
    holders = [(f"node {n.node}", n.amounts) for n in memory.nodes]
    holders += [(z.zone if z.node is None else f"node {z.node} {z.zone}", z.amounts) for z in memory.zones]
    holders = [(name, amounts) for name, amounts in holders if "all_unreclaimable" in amounts]
    given_up = [(name, amounts) for name, amounts in holders if amounts["all_unreclaimable"]]
    if not given_up:
        return None
    names = ", ".join(name for name, _ in given_up)
    cache = (case.total("active_file") or 0) + (case.total("inactive_file") or 0)
    left = cache >= _LEFT * (case.ram_bytes or 0) > 0
    scanned = sum(int(amounts.get("pages_scanned") or 0) for _, amounts in given_up)
    counted = any("pages_scanned" in amounts for _, amounts in given_up)
    anon = sum(case.total(name) or 0 for name in ("active_anon", "inactive_anon"))
    if scanned == 0 and cache + anon == 0:
        said = "there was nothing on its lists to scan."
    elif counted and scanned == 0:
        said = "nothing was scanned since the last page was freed."
    else:
        said = "repeated scans had freed nothing."
    if len(given_up) < len(holders):
        said += f" {len(holders) - len(given_up)} of {len(holders)} were not given up."
    elif left:
        said += f" Yet {size(cache)} of page cache were left."
    elif case.report.kills and (scanned or not counted) and cache + anon:
        said += " The kill was not premature."
    return Finding(
        id=ID,
        severity="info",
        title=TITLE,
        explanation=f"{names}: marked all_unreclaimable, {said}",
        evidence={
            "given_up": len(given_up),
            "of": len(holders),
            "pages_scanned": scanned,
            "reclaimable_file_bytes": cache,
        },
    )
