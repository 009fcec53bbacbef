"""OomCapture <-> SQLite: one row for each capture; the event is derived on each reading.

Besides the capture, a row holds the values that lists show and that searches use, as they were when the event
was stored. The event itself is decoded again on each reading, perhaps by a newer decoder. A capture is
``zlib(msgpack)``.

The counters that follow from an event are saved in the transaction that stores it, so that after ``kill -9``
at any point counts and events agree.

``rows`` defines what is stored and what a later capture adds, ``schema`` the tables; ``database`` and
``news`` hold the statements on one connection; ``files`` checks the file, ``failover`` replaces it by memory
or a new file; ``lock`` keeps a second daemon out; ``store`` is the public interface, behind one lock.
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
