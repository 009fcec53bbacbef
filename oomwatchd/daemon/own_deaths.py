"""Deaths of the daemon itself: the next one reads on behind a report that killed it, and says it where the
kernel chose it.

The number of a large report is saved before it is worked at. The ring buffer may still hold it at each start
in this boot, so a report that a daemon died of is remembered for the whole boot. Whose number the daemon
had, and since when, is saved at its start and taken back at its end: a kill of that number in between was
its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from oomwatchd.event import OomEvent
from oomwatchd.records.capture import OomCapture
from oomwatchd.store import Store, StoreError

log = logging.getLogger(__name__)

#: the counter that holds the report (``KmsgRecord.number``) that is worked at, -1 for none
_AT_WORK = "at_work_number"
#: begins the names of counters, one for each report that a daemon died at
_DIED_AT = "died_at_number_"
#: the log's clock is not CLOCK_MONOTONIC: so far apart they may be
_DRIFT_USEC = 5_000_000
#: the counters that say which number the daemon at work has, -1 for none, and since when (CLOCK_MONOTONIC,
#: microseconds)
_PID, _BEGAN = "own_pid", "own_began_usec"


class OwnDeaths:
    """What the store says of them, and the note that is made before the work."""

    def __init__(self, store: Store, boot_id: str | None, usec: int = 0, pid: int | None = None) -> None:
        """``usec``: now (CLOCK_MONOTONIC). ``pid``: the daemon's number as the kernel prints it, None where
        that is not known."""
        self._store = store
        self._boot_id = boot_id
        #: the last daemon: its number, and when it was there
        self._last, self._from_usec, self._to_usec = -1, 0, usec
        counters: dict[str, float] = {}
        if boot_id is not None:
            with suppress(StoreError):
                counters = store.load_counters(boot_id)
            self._last, self._from_usec = int(counters.get(_PID, -1)), int(counters.get(_BEGAN, 0))
            with suppress(StoreError):
                store.save_counters(boot_id, {_PID: -1 if pid is None else pid, _BEGAN: usec})
        self._numbers = {int(name.removeprefix(_DIED_AT)) for name in counters if name.startswith(_DIED_AT)}
        number = int(counters.get(_AT_WORK, -1))
        if number < 0 or boot_id is None:
            return
        log.warning(
            "the last daemon died while it handled the report at record %d: only the lines that name"
            " its victims are read now",
            number,
        )
        self._numbers.add(number)
        store.save_counters(boot_id, {f"{_DIED_AT}{number}": 1, _AT_WORK: -1})

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def reported(self, capture: OomCapture, event: OomEvent) -> None:
        """Say it if the last daemon is among the victims of an event."""
        usec = next((record.usec for record in reversed(capture.records) if record.usec is not None), None)
        if usec is None or not self._from_usec - _DRIFT_USEC <= usec <= self._to_usec + _DRIFT_USEC:
            return
        if any(victim.pid == self._last for victim in event.victims):
            log.warning(
                "the kernel killed the last daemon (pid %d); its report was read afterwards, without the"
                " state of the host at that moment: %s",
                self._last,
                event.summary,
            )
            self._last = -1

    def ended(self) -> None:
        """The daemon ends by itself: its number may become another's."""
        if self._boot_id is not None:
            with suppress(StoreError):
                self._store.save_counters(self._boot_id, {_PID: -1})

    @contextmanager
    def noted(self, number: int) -> Iterator[None]:
        """This report is worked at meanwhile; two writes to the disk."""
        if self._boot_id is None:
            yield
            return
        self._store.save_counters(self._boot_id, {_AT_WORK: number})
        try:
            yield
        finally:
            self._store.save_counters(self._boot_id, {_AT_WORK: -1})
