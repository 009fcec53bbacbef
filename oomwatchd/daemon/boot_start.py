"""From which record on this boot is watched: what was in the log before is historical.

It is a counter of the store, so that every later daemon of this boot counts from the same record.
"""

from __future__ import annotations

from oomwatchd.daemon.worker import Worker
from oomwatchd.metrics import Metrics
from oomwatchd.sources.journal import JournalSource
from oomwatchd.sources.kmsg import KmsgSource

#: So much of the journal before the newest stored report is read again: as long as a run of repeats may last,
#: and what the log clock may lag behind CLOCK_MONOTONIC.
JOURNAL_AGAIN_USEC = 1_200_000_000


class BootStart:
    """Reads the counters of this boot; the metrics go on from there."""

    def __init__(self, kind: str, worker: Worker, metrics: Metrics, boot_id: str | None) -> None:
        self._earlier = worker.earlier(boot_id)
        self._metrics = metrics
        self._key = f"began_{'seq' if kind == 'kmsg' else 'usec'}"
        counters = self._earlier.counters()
        metrics.load(counters)
        self._number = counters.get(self._key)

    @property
    def number(self) -> int | None:
        """The newest record (``KmsgRecord.number``) before the watch began; None in a boot that was not
        watched yet."""
        return None if self._number is None else int(self._number)

    def set_before_all(self, number: float) -> None:
        """A daemon that a kill started: all that the log holds counts, unless this boot was
        watched before."""
        if self._number is None:
            self._number = number
            self._metrics.kernel_kills(0)

    def skip_known(self, source: KmsgSource | JournalSource) -> None:
        """Do not read again what of the journal is stored; the ring buffer is always read from its oldest
        record."""
        if isinstance(source, JournalSource) and self._number is not None:
            stored = self._earlier.last_usec()
            if stored is not None:
                source.skip_to(stored - JOURNAL_AGAIN_USEC)

    def save(self, number: int) -> None:
        """Save it with the counters: this record and those before it are counted or historical."""
        self._earlier.save_counters({**self._metrics.saved(), self._key: float(number)})
