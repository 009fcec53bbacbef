"""Part of the report was overwritten before it could be read.

The kernel's ring buffer holds 128 KiB to a few MiB. A flood of messages (from a driver, or a service that
writes to /dev/kmsg) overwrites reports. Figures of this report may then be missing, and other kills may be
lost completely: compare `oomwatchd_oom_kills_unaccounted`, the kills that the kernel counted but its log did
not report.
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
