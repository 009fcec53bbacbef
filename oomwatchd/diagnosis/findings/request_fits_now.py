"""By the printed figures the request would have passed.

The memory part of a report is printed some milliseconds after the allocator gave up. If by then a zone
fits again, memory was freed in between (a process ended, an earlier victim's memory came back), or the
request was refused on a ground that no report prints. The kill was then a close call rather than a sign
of lasting shortage.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import kib

ID = "request_fits_now"
TITLE = "Memory came back between the refusal and the report"


def find(case: Case) -> Finding | None:
    fitting = next((v for v in case.verdicts if v.fits), None)
    if case.request is None or fitting is None or fitting.usable_bytes is None:
        return None
    required = fitting.required_bytes or 0
    return Finding(
        id=ID,
        severity="info",
        title=TITLE,
        explanation=f"When the report was printed, {fitting.label} had {kib(fitting.usable_bytes)} usable, "
        f"more than the {kib(required)} that an order-{case.request.order} request demands: it would have "
        "passed by then. Memory was freed in between, or the kernel had a ground that it does not print.",
        evidence={
            "zone": fitting.zone,
            "node": fitting.node,
            "usable_bytes": fitting.usable_bytes,
            "required_bytes": required,
        },
    )
