"""The machine had less memory than shortly before.

``MemTotal`` fell between the first sample of the flight recorder and the kill: memory was unplugged, or the
hypervisor's balloon took it back. The shortage then came from outside. A swap area that was taken out of use
meanwhile counts too, because its content had to go back to RAM.

Look at the hypervisor's balloon target and at hotplug events of that time.
"""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.procfs import meminfo
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import plural

ID = "memory_removed_before"
TITLE = "Memory was taken from the machine before"

#: Share of the former total. Smaller changes are the kernel's own (freed init sections, huge page metadata).
_SHARE = 0.01


def find(case: Case) -> Iterator[Claim]:
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
    finding = Finding(
        id=ID,
        severity="critical" if gone >= 0.1 * most else "warning",
        title=TITLE,
        explanation=f"The machine had {size(most)} shortly before and {size(now)} at the kill: {size(gone)} "
        f"({percent(gone, most)}) were taken away by a balloon or by hotplug."
        + (f" {plural(len(blocks), 'memory block')} went offline." if blocks else "")
        + case.spare(gone),
        evidence={
            "before_bytes": most,
            "at_bytes": now,
            "removed_bytes": gone,
            "memory_blocks_offline": len(blocks),
        },
        advice="See the hypervisor's balloon target and memory hotplug events of that time.",
    )
    text = f"RAM was {size(most)} before and {size(now)} now (balloon or hotplug)"
    decides = not case.in_cgroup and gone >= case.shortfall_bytes
    cause = Cause(tier=Tier.TAKEN, text=text, excess_bytes=most) if decides else None
    yield Claim(finding=finding, cause=cause)


def _swap(case: Case) -> Iterator[Claim]:
    assert case.capture is not None
    back = {mark.name: mark.usec for mark in case.capture.marks if mark.kind == "swap_on"}
    for mark in case.capture.marks:
        if mark.kind == "swap_off" and back.get(mark.name, -1) < mark.usec:
            area = f" of {size(mark.before_bytes)}" if mark.before_bytes else ""
            name = harmless_name(mark.name)
            finding = Finding(
                id=ID,
                severity="warning",
                title="A swap area was taken out of use before",
                explanation=f"The swap area {name}{area} went out of use in the minutes before the kill: "
                "what "
                "it held had to go back to RAM.",
                evidence={"swap": mark.name, "before_bytes": mark.before_bytes},
                advice=f"See who ran swapoff, and why; swapon {name} brings it back.",
            )
            cause = Cause(
                tier=Tier.TAKEN, text=f"swapoff of {name} before", excess_bytes=mark.before_bytes or 0
            )
            yield Claim(finding=finding, cause=None if case.in_cgroup else cause)
