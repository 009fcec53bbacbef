"""Compare the headers that the kernel suppressed with the reports without a header in its log.

The rate limit of ``oom_kill_process()`` counts the headers it suppresses, and prints the number with the next
header that passes (lib/ratelimit.c ``___ratelimit()``). Between two such lines the log should hold as many
reports without a header as the second one names.
"""

from __future__ import annotations

from oomwatchd.formats import Section, oom_kill
from oomwatchd.formats.recognise import recognise
from oomwatchd.reports.assemble import OomBlock

#: lines before a header that belong to its report, and the header
HEAD_RECORDS = 5


class Suppression:
    """Takes each report once, in their order."""

    def __init__(self) -> None:
        #: reports without a header since the kernel last said how many there were; None: that time was not
        #: watched from its beginning
        self._headless: int | None = None

    def from_the_first_record(self) -> None:
        """The log was read from its very beginning."""
        self._headless = 0

    def take(self, block: OomBlock) -> int | None:
        """How many reports without a header the log held before this one, where the kernel says with it how
        many there were; else None."""
        head = [found for r in block.records[:HEAD_RECORDS] if (found := recognise(r.text, raw=r.is_whole))]
        if any(form is oom_kill.SUPPRESSED for form, _ in head):
            before, self._headless = self._headless, 0
            return before
        if self._headless is not None and not any(form.section is Section.HEADER for form, _ in head):
            self._headless += 1
        return None
