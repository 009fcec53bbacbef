"""The report says nothing about swap.

Only kernels with CONFIG_SWAP print ``Free swap`` and ``Total swap``, and pasted logs lose lines. Without
these lines the state of swap is unknown; it is not zero. Each conclusion that needs it stays open.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding

ID = "no_swap_reported"
TITLE = "The state of swap is unknown"


def find(case: Case) -> Finding | None:
    memory = case.report.memory
    if memory is None or memory.swap is not None or not memory.zones:
        return None
    live = case.meminfo_at.get("SwapTotal")
    known = "" if live is None else f" /proc/meminfo of that moment says: {live // 1024} kB in total."
    return Finding(
        id=ID,
        severity="info",
        title=TITLE,
        explanation="The report has a memory part without swap lines: the kernel was built without swap, or "
        f"the lines were lost. The state of swap is unknown, not zero.{known}",
        evidence={"swap_total_bytes": live},
    )
