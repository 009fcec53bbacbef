"""What earlier daemons of this boot left in the store, so that this one goes on where they ended."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from oomwatchd.reports.storms import MAX_COVERED, Covered, storm_key
from oomwatchd.store import Store, StoreError


class Earlier:
    """Questions to the store about one boot. A store that cannot be read knows of nothing."""

    def __init__(self, store: Store, boot_id: str | None) -> None:
        """``boot_id`` None: it is not known which boot this is, so nothing is known of it."""
        self._store = store
        self._boot_id = boot_id

    def position(self) -> int | None:
        """The highest sequence number that the store knows of this boot."""
        with suppress(StoreError):
            return self._store.position(self._boot_id) if self._boot_id else None
        return None

    def last_usec(self) -> int | None:
        """The log clock's stamp of the newest report of this boot that is or was stored."""
        with suppress(StoreError):
            return self._store.last_usec(self._boot_id) if self._boot_id else None
        return None

    def covered(self) -> list[Covered]:
        """The runs of repeated reports that are stored and counted, oldest first."""
        found: list[Covered] = []
        with suppress(StoreError):
            stored = self._store.without_victim(self._boot_id, MAX_COVERED) if self._boot_id else []
            for capture in reversed(stored):
                key = storm_key(capture.records)
                if key is not None and capture.first_seq is not None and capture.last_seq is not None:
                    found.append(Covered(key, capture.first_seq, capture.last_seq))
        return found

    def counters(self) -> dict[str, float]:
        """What an earlier daemon of this boot saved."""
        with suppress(StoreError):
            return self._store.load_counters(self._boot_id) if self._boot_id else {}
        return {}

    def save_counters(self, counters: Mapping[str, float]) -> None:
        """Save counters that no event changes. Raises StoreError."""
        if self._boot_id:
            self._store.save_counters(self._boot_id, counters)
