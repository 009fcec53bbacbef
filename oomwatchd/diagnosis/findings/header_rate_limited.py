"""The kernel left out the first part of the report.

The kernel prints header, memory and task table at most ten times in five seconds, but always prints the kill
lines. In a burst of kills some kill lines therefore stand alone, without a reason. The reports just before
and after them, from the same burst, give the reason.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding

ID = "header_rate_limited"
TITLE = "The kernel left out the report (rate limit)"


def find(case: Case) -> Finding | None:
    report, capture = case.report, case.capture
    if report.suppressed_headers:
        return Finding(
            id=ID,
            severity="info",
            title="Reports before this one were left out (rate limit)",
            explanation=f"Before this report the kernel left out {report.suppressed_headers} header(s); the "
            "kills they belong to stand alone in the log.",
            evidence={"suppressed_headers": report.suppressed_headers},
        )
    # A pasted text may begin in the middle of a report. The ring buffer, read without loss, does not.
    live = capture is not None and capture.source.kind == "kmsg" and not capture.historical
    if not live or "header" not in report.missing or not report.kills or report.lost_records:
        return None
    return Finding(
        id=ID,
        severity="info",
        title=TITLE,
        explanation="The kill stands alone: the kernel prints at most ten reports in five seconds, and no "
        "record was lost. See the reports just before for the reason.",
        evidence={"suppressed_headers": None},
    )
