"""Lines that only look like the kernel's: anybody who may write to the kernel log can print one.

The kernel prints many lines of a report, and counts its kills. A line that stands alone is a report's only
where its count says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from oomwatchd.daemon.crosscheck import Counted
from oomwatchd.formats import Role
from oomwatchd.formats.recognise import recognise
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.reports.assemble import OomBlock, Signal, VictimChosen
from oomwatchd.words.escape import harmless

log = logging.getLogger(__name__)

#: Denied kill lines that are remembered until their block is issued.
KEPT = 256


class Forgery:
    """Tells lone lines of others from the kernel's. ``oom_kills`` reads the kernel's count."""

    def __init__(self, oom_kills: Callable[[], int | None]) -> None:
        self._counted = Counted(oom_kills)
        #: lone kill lines that the kernel's count denies, by the number of their record
        self._denied: dict[int, None] = {}
        self._said = False

    def rest(self) -> None:
        """Nothing is under way, and nothing was for long."""
        self._counted.rest()

    def confirmed(self, signals: list[Signal], kill_lines: int) -> list[Signal]:
        """Without the victims of kill lines that stand alone and that the kernel's count denies;
        ``kill_lines`` were read with these signals."""
        if not kill_lines:
            return signals
        lone = [signal for signal in signals if isinstance(signal, VictimChosen) and signal.lone]
        if self._counted.confirms(kill_lines, len(lone)):
            return signals
        for victim in lone:
            if victim.record.number is not None:
                self._denied[victim.record.number] = None
                if len(self._denied) > KEPT:
                    del self._denied[next(iter(self._denied))]
        return [signal for signal in signals if not (isinstance(signal, VictimChosen) and signal.lone)]

    def is_forged(self, block: OomBlock) -> bool:
        """One line, or several of one form, alone: the kernel prints more of each report. Kill lines are
        confirmed or denied by its count."""
        if not block.lone or block.lost_records:
            return False
        numbers = [record.number for record in block.records]
        if any(number in self._denied for number in numbers):
            return True
        return not any(_is_kill_line(record) for record in block.records)

    def say(self, record: KmsgRecord) -> None:
        """Once: which line is ignored."""
        if not self._said:
            self._said = True
            log.warning(
                "a single line of the kernel log looks like part of an OOM report, but neither other lines"
                " nor the kernel's count confirm it; it and others like it are ignored: %s",
                harmless(record.text),
            )


def _is_kill_line(record: KmsgRecord) -> bool:
    found = recognise(record.text, raw=True)
    return found is not None and found[0].role is Role.KILL
