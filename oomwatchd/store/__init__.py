"""OomCapture <-> SQLite: one row a capture, the event derived anew on each reading.

What a row holds besides the capture is what lists show and events are found by, as it was said when they were
stored: a later decoder, which the event itself is read with, may know better. A capture is ``zlib(msgpack)``.

The counters that follow from an event are saved in the transaction that stores it, so that after ``kill -9``
at any point counts and events agree.

``rows`` says what is stored and what a later capture adds, ``schema`` the tables; ``database`` and ``news``
are the statements on one connection; ``files`` knows the file's damage, ``failover`` has memory and a new
file for it; ``lock`` keeps a second daemon out; ``store`` is what others see, behind one lock.
"""

from oomwatchd.store.files import FILE_NAME
from oomwatchd.store.lock import StateInUseError, StateLock, holder
from oomwatchd.store.rows import (
    MEMORY_BYTES,
    AmbiguousIdError,
    Count,
    EventRow,
    Limits,
    Outcome,
    StoreError,
)
from oomwatchd.store.store import Store

__all__ = [
    "FILE_NAME",
    "MEMORY_BYTES",
    "AmbiguousIdError",
    "Count",
    "EventRow",
    "Limits",
    "Outcome",
    "StateInUseError",
    "StateLock",
    "Store",
    "StoreError",
    "holder",
]
