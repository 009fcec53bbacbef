"""The kernel suppressed more report headers than the log has reports without a header.

'oom_kill_process: N callbacks suppressed' gives the number of reports that were printed without their first
part since the last such line. The log should hold as many reports without a header. If it holds fewer, the
others were lost completely, or (before 5.1) their victims were already exiting and these kernels printed
nothing. On kernels that do not count kills (before 4.13) this is the only sign of lost reports.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding
from oomwatchd.words.text import plural

ID = "suppressed_unseen"
TITLE = "Reports before this one are missing"


def find(case: Case) -> Finding | None:
    suppressed = case.report.suppressed_headers
    read = case.capture.headless_before if case.capture is not None else None
    if suppressed is None or read is None or suppressed <= read:
        return None
    missing = suppressed - read
    return Finding(
        id=ID,
        severity="info",
        title=TITLE,
        explanation=f"The kernel says that it left out {plural(suppressed, 'header')} before this report; "
        f"its log held {plural(read, 'report')} without one. Of {missing} more nothing was read.",
        evidence={"suppressed_headers": suppressed, "headless_reports": read, "missing_reports": missing},
    )
