"""Reports that killed a daemon: the next one reads on behind them.

Which large report is worked at is saved before the work. The ring buffer may hold it still at each start of
this boot, so a report that a daemon died at is remembered for good.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from oomwatchd.store import Store, StoreError

log = logging.getLogger(__name__)

#: the counter that holds the report (``KmsgRecord.number``) that is worked at, -1 for none
_AT_WORK = "at_work_number"
#: begins the names of counters, one for each report that a daemon died at
_DIED_AT = "died_at_number_"


class OwnDeaths:
    """What the store says of them, and the note that is made before the work."""

    def __init__(self, store: Store, boot_id: str | None) -> None:
        self._store = store
        self._boot_id = boot_id
        counters: dict[str, float] = {}
        if boot_id is not None:
            with suppress(StoreError):
                counters = store.load_counters(boot_id)
        self._numbers = {int(name.removeprefix(_DIED_AT)) for name in counters if name.startswith(_DIED_AT)}
        number = int(counters.get(_AT_WORK, -1))
        if number < 0 or boot_id is None:
            return
        log.warning(
            "the last daemon died while it worked at the report of record %d: only the lines that name its"
            " victims are read",
            number,
        )
        self._numbers.add(number)
        store.save_counters(boot_id, {f"{_DIED_AT}{number}": 1, _AT_WORK: -1})

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

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
