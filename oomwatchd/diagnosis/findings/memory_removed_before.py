"""The machine had less memory than shortly before.

``MemTotal`` fell between the first record of the flight recorder and the kill: memory was unplugged or
taken back by the hypervisor's balloon. The shortage was then made from outside. A swap area that was taken
out of use meanwhile counts too: what it held had to go back to RAM.

Look at the hypervisor's balloon target and at hotplug events of that time.
"""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.diagnosis.case import Case
from oomwatchd.procfs import meminfo
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import plural

ID = "memory_removed_before"
TITLE = "Memory was taken from the machine before"

#: of the former total; smaller changes are the kernel's own (init sections freed, huge page metadata)
_SHARE = 0.01


def find(case: Case) -> Iterator[Finding]:
    if case.capture is None:
        return
    yield from _swap(case)
    totals = [t for t in (meminfo(s).get("MemTotal") for s in case.capture.before) if t]
    now = case.meminfo_at.get("MemTotal")
    if not totals or not now:
        return
    most = max(totals)
    gone = most - now
    if gone < _SHARE * most:
        return
    blocks = [m.name for m in case.capture.marks if m.kind == "memory_offline"]
    yield Finding(
        id=ID,
        severity="critical" if gone >= 0.1 * most else "warning",
        title=TITLE,
        explanation=f"The machine had {size(most)} shortly before and {size(now)} at the kill: {size(gone)} "
        f"({percent(gone, most)}) were taken away."
        + (f" {plural(len(blocks), 'memory block')} went offline." if blocks else ""),
        evidence={
            "before_bytes": most,
            "at_bytes": now,
            "removed_bytes": gone,
            "memory_blocks_offline": len(blocks),
        },
        advice="See the hypervisor's balloon target and memory hotplug events of that time.",
    )


def _swap(case: Case) -> Iterator[Finding]:
    assert case.capture is not None
    back = {mark.name: mark.usec for mark in case.capture.marks if mark.kind == "swap_on"}
    for mark in case.capture.marks:
        if mark.kind == "swap_off" and back.get(mark.name, -1) < mark.usec:
            area = f" of {size(mark.before_bytes)}" if mark.before_bytes else ""
            yield Finding(
                id=ID,
                severity="warning",
                title="A swap area was taken out of use before",
                explanation=f"The swap area {harmless_name(mark.name)}{area} went out of use in the minutes "
                "before the kill.",
                evidence={"swap": mark.name, "before_bytes": mark.before_bytes},
                advice="See who ran swapoff, and why.",
            )
