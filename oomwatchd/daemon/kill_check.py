"""Whether every kill was seen: the kernel's own count and its trace point against the log.

The log may lose lines, and what others write may push a report out of it; the count loses nothing. What the
count has more is stored as an event of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from oomwatchd.daemon.clocks import now
from oomwatchd.daemon.crosscheck import LASTING_USEC, Balance, Totals, Witness
from oomwatchd.daemon.watch import Watch
from oomwatchd.daemon.worker import Worker
from oomwatchd.errors import UnavailableError
from oomwatchd.metrics import Metrics
from oomwatchd.observe.host import Host
from oomwatchd.observe.recorder import Recorder
from oomwatchd.records.capture import OomCapture, Source, Unseen

if TYPE_CHECKING:
    from oomwatchd.sources.tracefs import MarkedVictims

log = logging.getLogger(__name__)

#: The rest of a report that began is waited for so long without sleeping: a slow console takes longer.
AT_ONCE_USEC = 2_000


class KillCheck:
    """``kind``: the log that is watched. ``marks``: whether the trace point is read too; a host that lacks it
    is said once."""

    def __init__(
        self,
        kind: Literal["kmsg", "journal"],
        host: Host,
        metrics: Metrics,
        worker: Worker,
        recorder: Recorder | None,
        *,
        marks: bool,
    ) -> None:
        self._kind = kind
        self._host = host
        self._metrics = metrics
        self._worker = worker
        self._recorder = recorder
        self._witness = Witness()
        self._marks = _open_marks() if marks else None
        self._overrun = False
        self._balance = Balance(metrics.told_unseen, self._count_in_cgroups, LASTING_USEC[kind])

    @property
    def on_victim(self) -> Callable[[int, int], None]:
        """To be called with the pid and the moment (CLOCK_MONOTONIC) of each victim that the log names."""
        return _nothing if self._marks is None else self._witness.named

    def descriptors(self) -> Sequence[int]:
        """Those of the trace point: readable when it says something."""
        return () if self._marks is None else self._marks.descriptors()

    def on_mark(self, pipe: int, watch: Watch) -> None:
        """A report begins, or a victim was marked: the rest comes now. The log itself would wake us with the
        timer tick only (irq_work, lazy, in kernel/printk/printk.c), up to 10 ms later."""
        if self._marks is None:
            return
        usec = now().monotonic_usec
        since, until = usec - AT_ONCE_USEC, usec + AT_ONCE_USEC
        while True:
            for victim in self._witness.marked(self._marks.read(pipe)):
                watch.foresee(victim.pid, victim.comm)
            watch.read()
            awaited = self._witness.awaits(since) or watch.is_in_report(AT_ONCE_USEC)
            if not awaited or now().monotonic_usec >= until:
                break

    def agree(self, kernel_kills: float) -> None:
        """What was counted so far is accounted for."""
        self._balance.agree(self._totals(kernel_kills))

    def compare_marks(self) -> None:
        """Say which victims of the trace point the log did not name in time."""
        marks = self._marks
        if marks is None:
            return
        self._witness.marked(marks.read())
        if marks.overruns and not self._overrun:
            self._overrun = True
            log.warning("the trace point's buffer was overwritten before it was read: victims may be missing")
        missing = self._witness.missing(now().monotonic_usec)
        self._balance.marked(missing)
        for victim in missing:
            log.warning(
                "marked as an OOM victim, but not killed according to the log: %s (pid %d)",
                victim.comm,
                victim.pid,
            )
        self._metrics.witness(self._witness.victims, self._witness.unreported)

    def weigh(self) -> None:
        """Store kills that the kernel counted and its log does not show, at a moment when all that was read
        is counted."""
        kernel_kills, _, unaccounted = self._metrics.kills_now()
        if kernel_kills is None or unaccounted is None:
            return
        unseen = self._balance.weigh(self._totals(kernel_kills), unaccounted, now().monotonic_usec)
        if unseen is not None:
            capture = self._capture_of(unseen)
            self._worker.later(lambda: self._worker.take([capture]))

    def close(self) -> None:
        """Leave the trace point."""
        if self._marks is not None:
            self._marks.close()

    def _totals(self, kernel_kills: float) -> Totals:
        return Totals(
            kernel_kills=kernel_kills,
            reported_kills=self._metrics.kills_now()[1],
            lost_records=self._metrics.lost_records,
            dropped_reports=self._worker.dropped,
        )

    def _capture_of(self, unseen: Unseen) -> OomCapture:
        return OomCapture(
            source=Source(kind=self._kind, form=self._kind, boot_id=self._host.boot_id),
            records=(),
            settled=True,
            detected=now().wall,
            page_size_bytes=self._host.page_size_bytes,
            kernel=self._host.kernel,
            arch=self._host.machine,
            unseen=unseen,
        )

    def _count_in_cgroups(self) -> dict[str, int]:
        """The kernel's own counts of kills; a cgroup that came after the last walk is not among them."""
        if self._recorder is None:
            return {}
        cgroups = self._recorder.cgroups
        return {group.path: kills for group in cgroups if (kills := cgroups.kills(group))}


def _open_marks() -> MarkedVictims | None:
    try:
        from oomwatchd.sources.tracefs import MarkedVictims

        return MarkedVictims.open()
    except UnavailableError as error:
        log.warning("works without the trace point: %s", error)
        return None


def _nothing(_pid: int, _usec: int) -> None:
    """Nobody compares."""
