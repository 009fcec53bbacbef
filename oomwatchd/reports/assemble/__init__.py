"""Records -> blocks: which records are one OOM report.

A block opens at any line that proves a report (header, summary, lone kill line, task table ...): the head
may be lost, and the kernel limits headers to 10 in 5 s but never limits kill lines.
A block does not end at the first kill line: group kills follow at once, the reaper up to seconds later.

Reports may be interleaved (no common lock up to 4.1; other records come between at any time). Records
that name their caller are told apart by it. Any other line goes to the newest block in which it may come
next, since the kernel prints the parts of a report in one order (``formats.Section``).

:mod:`.assembler` takes the stream: its clock and its gaps. :mod:`.runs` takes many records at once.
:mod:`.placing` finds the block of a line by its form's role. :mod:`.open_reports` holds the open blocks and
says when one is issued; :mod:`.block` is one block.

Core: no clock. Time is the records' own stamps, and what ``tick`` is told.
"""

from __future__ import annotations

from oomwatchd.reports.assemble.assembler import CLOCK_RESTART_USEC, Assembler
from oomwatchd.reports.assemble.block import OomBlock, ReportBegan, Signal, VictimChosen
from oomwatchd.reports.assemble.open_reports import (
    DEADLINE_USEC,
    DRAINED_USEC,
    PAUSE_SECONDS,
    QUIET_USEC,
    SETTLE_USEC,
)

__all__ = [
    "CLOCK_RESTART_USEC",
    "DEADLINE_USEC",
    "DRAINED_USEC",
    "PAUSE_SECONDS",
    "QUIET_USEC",
    "SETTLE_USEC",
    "Assembler",
    "OomBlock",
    "ReportBegan",
    "Signal",
    "VictimChosen",
]
