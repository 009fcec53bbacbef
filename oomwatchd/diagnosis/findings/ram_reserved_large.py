"""Much of RAM was set aside at boot.

A zone line prints what is ``present`` and what is ``managed``: the difference was taken before the allocator
began and never comes back. A few percent are ordinary (the kernel itself, a description of each page); more
is a crash kernel (``crashkernel=``), reserved regions of the device tree or the firmware, ``memmap=``, or a
debugging kernel (KASAN takes an eighth). Huge pages reserved at boot are not among it.

The first lines of the boot log say it: "Memory: ...K/...K available".
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.text import ratio

ID = "ram_reserved_large"
TITLE = "Much of RAM was set aside at boot"

#: of what is present; less than the second is what the kernel's own image makes on a small machine
_LARGE, _HUGE = 0.25, 0.40


def find(case: Case) -> Finding | None:
    if case.report.constraint == "memcg" or case.report.trigger.sysrq:
        return None
    zones = [(z.bytes_of("present"), z.bytes_of("managed")) for z in case.zones]
    if any(managed is None for _, managed in zones):
        return None
    present = sum(p or 0 for p, _ in zones)
    reserved = present - sum(m or 0 for _, m in zones)
    if not present or reserved < _LARGE * present:
        return None
    return Finding(
        id=ID,
        severity="warning" if reserved >= _HUGE * present else "info",
        title=TITLE,
        explanation=f"Of {size(present)} that are present, {size(reserved)} ({percent(reserved, present)}) "
        "were taken before the kernel's allocator began: nothing else can ever have them.",
        evidence={
            "present_bytes": present,
            "reserved_bytes": reserved,
            "reserved_share_ratio": ratio(reserved, present),
        },
        advice="See the boot log (Memory: ...K available), crashkernel=, memmap= and the device tree's "
        "reserved-memory; a debugging kernel (KASAN) takes an eighth."
        if reserved >= _HUGE * present
        else "",
    )
