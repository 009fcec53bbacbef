"""Part of the report was overwritten before it could be read.

The kernel's ring buffer holds 128 KiB to some MiB. What floods it (a driver, a service that writes to
/dev/kmsg) overwrites reports; figures may then be missing here, and whole kills elsewhere: compare
`oomwatchd_oom_kills_unaccounted`, which is what the kernel counted and its log did not say.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding

ID = "records_lost"
TITLE = "Part of the report was lost"


def find(case: Case) -> Finding | None:
    lost, missing = case.report.lost_records, case.report.missing
    if not lost:
        return None
    absent = f" What is missing: {', '.join(missing)}." if missing else ""
    return Finding(
        id=ID,
        severity="warning",
        title=TITLE,
        explanation=f"{lost} records of the kernel log were overwritten inside this report before they were "
        f"read.{absent} Other reports may be lost whole.",
        evidence={"lost_records": lost, "missing": ", ".join(missing)},
        advice="Boot with a larger log_buf_len= and find what floods the kernel log.",
    )
