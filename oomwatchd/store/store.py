"""The store as the daemon and the commands see it: one lock, one file, and memory where the file fails.

The class is longer than others because each operation of the store is a method here: a few lines that take
the lock and call ``database`` or ``news``.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from oomwatchd.delivery.policy import Delivery, News
from oomwatchd.errors import PermissionDeniedError
from oomwatchd.event import OomEvent
from oomwatchd.event.identity import event_id
from oomwatchd.records.capture import OomCapture
from oomwatchd.store.failover import Failover, connected
from oomwatchd.store.files import FILE_NAME, check_kinds, has_whole_log, is_corrupt, move_aside, reason
from oomwatchd.store.news import NewsTable
from oomwatchd.store.rows import Count, EventRow, Limits, Outcome, StoreError, Tally, decoded
from oomwatchd.store.schema import connect, connect_reader, transaction

log = logging.getLogger(__name__)

#: captures kept in memory while the file cannot be written
_FALLBACK_EVENTS = 256
#: captures that are read at once for an export
_EXPORT_ROWS = 16


class Store:
    """The captures of this host. All methods may be called from any thread.

    ``put`` does not fail when the disk does: while the file cannot be written (full, read-only, I/O error, a
    lock that another process holds) captures are kept in memory, a bounded number, and moved to the file with
    the first put or check that succeeds. ``failure`` says what is wrong meanwhile; only the first put waits
    for a lock. If the file is corrupt, removed or cut, what is left of it is moved aside (only the last such
    file is kept), and a new file is made.
    """

    def __init__(self, at: Failover, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        #: the file, or its replacement; for this module and tests
        self.failover = at
        self._path = path
        self._clock = clock
        self._lock = threading.RLock()
        #: captures dropped because memory's bound was reached while the file failed
        self.dropped = 0
        #: the number up to which this host's sinks got the news; saved with the next put
        self.delivered: int | None = None
        #: stored events and the bytes they use, as of the last put
        self.events = 0
        self.bytes = 0
        self._measure()

    @property
    def failure(self) -> str | None:
        """Why the file cannot be written, None while it can."""
        return self.failover.failure

    @property
    def failures(self) -> int:
        """The number of puts that could not be written to the file at once."""
        return self.failover.failures

    @property
    def corrupt(self) -> Path | None:
        """Where a file that could not be used was moved to, by this process."""
        return self.failover.corrupt

    @property
    def last_news(self) -> int:
        """The number of the last news."""
        return self.failover.last_news

    def when_renewed(self, renewed: Callable[[], None]) -> None:
        """Have ``renewed`` called when the file was replaced by a new one, which has no counters."""
        self.failover.on_renewed = renewed

    @classmethod
    def open(
        cls,
        directory: Path | None,
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Store:
        """The store in ``directory`` (made if absent, mode 0700), or one in memory for None.

        Raises StoreError if the directory or the file cannot be used; a corrupt file is replaced instead.
        """
        limits = limits or Limits()
        if directory is None:
            return cls(Failover(connect(":memory:"), None, None, limits, clock), None, clock)
        path = directory / FILE_NAME
        corrupt = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_kinds(path)
            path.touch(mode=0o600)
            if not has_whole_log(path):
                log.error(
                    "the write-ahead log of the store %s is damaged: the newest events are lost; those"
                    " that the kernel log still holds are reported again",
                    path,
                )
            try:
                connection, watch = connected(path, limits.max_bytes)
            except sqlite3.DatabaseError as error:
                if not is_corrupt(error):
                    raise
                corrupt = move_aside(path, f"is corrupt ({error})", clock())
                connection, watch = connected(path, limits.max_bytes)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"cannot open the store {path}: {reason(error)}",
                hint="check the state directory's owner, space and mount options",
            ) from error
        at = Failover(connection, path, watch, limits, clock)
        at.corrupt = corrupt
        return cls(at, path, clock)

    @classmethod
    def open_reader(cls, directory: Path) -> Store:
        """The store for reading only, beside a daemon that writes it. Raises StoreError or
        PermissionDeniedError."""
        path = directory / FILE_NAME
        try:
            # tested without opening it: closing the file would lose this process's locks on it (SQLite)
            if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
                path.stat()  # absent, or out of reach
                raise PermissionError
            check_kinds(path)
            return cls(Failover(connect_reader(path), None, None, Limits(), time.time), path)
        except PermissionError as error:
            raise PermissionDeniedError(
                f"no permission to read the store {path}", hint="run as root or as the daemon's user"
            ) from error
        except FileNotFoundError as error:
            raise StoreError(
                f"no store at {path}", hint="name the daemon's directory with --state-directory, or run it"
            ) from error
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot read the store {path}: {reason(error)}") from error

    def close(self) -> None:
        """Close the file; what was put is already on disk."""
        with self._lock:
            self.failover.close()

    # -- writing -----------------------------------------------------------------------------------

    def put(
        self, capture: OomCapture, event: OomEvent, count: Count | None = None, boot_id: str | None = None
    ) -> Outcome:
        """Store a capture, or a later revision of a stored one; "known": it adds nothing new.

        A later revision may come from another process, which read the ring buffer again after a restart and
        lacks the host's state at the time: parts that only the stored capture has are kept.

        ``event`` is concluded from ``capture``. ``count`` is called at most once, see Count; the counters it
        returns are saved for the capture's boot, or for ``boot_id`` if that is not known.
        """
        tally = Tally(count, event, boot_id)
        with self._lock:
            try:
                outcome = self.failover.write(lambda: self._put(capture, event, tally))
            except sqlite3.Error:
                return self._put_in_memory(capture, event, tally)
            self._measure()
            return outcome

    def _put(self, capture: OomCapture, event: OomEvent, tally: Tally) -> Outcome:
        file, now = self.failover.file, self._clock()
        outcome = file.put(capture, event, tally, None, now)
        if outcome != "known":
            file.prune(self.failover.limits, now)
        self._note(self.failover.news, capture, event, outcome == "new", tally)
        self._save_delivered()
        return outcome

    def _put_in_memory(self, capture: OomCapture, event: OomEvent, tally: Tally) -> Outcome:
        memory = self.failover.begin_memory()
        known = None
        with suppress(sqlite3.Error):
            known = self.failover.file.known(event.id, capture)
        with transaction(memory.connection):
            outcome = memory.put(capture, event, tally, known, self._clock())
            surplus = memory.events - _FALLBACK_EVENTS
            if surplus > 0:
                self.dropped += surplus
                memory.delete_oldest("1", (), surplus)
            self._note(NewsTable(memory.connection), capture, event, outcome == "new", tally)
        return outcome

    def _note(self, news: NewsTable, capture: OomCapture, event: OomEvent, new: bool, tally: Tally) -> None:
        grown = tally.grown and (tally.kills > 0 or (capture.settled and capture.repeats > 0))
        ended = tally.grown and event.near is not None and capture.settled
        if not event.historical and (new or grown or ended):
            self.failover.last_news = news.note(event.id, self._clock())

    def completed(self, capture: OomCapture) -> OomCapture:
        """The capture, completed with what the store has of the same report; the same object if the store has
        nothing to add."""
        with self._lock:
            for database in self.failover.databases():
                with suppress(sqlite3.Error):
                    known = database.known(event_id(capture), capture)
                    if known is not None:
                        return capture if known.capture is None else known.completes(capture)
        return capture

    def check(self) -> None:
        """Check that the file is whole and still the one that was opened; write the captures in memory to it.
        To be called every few seconds: the file is read only if another process wrote to it."""
        with self._lock, suppress(sqlite3.Error):
            self.failover.check()
        self._measure()

    def save_counters(self, boot_id: str, counters: Mapping[str, float]) -> None:
        """Save counters that belong to no event; a failure is noted in ``failure`` as by put."""
        with self._lock, suppress(sqlite3.Error):
            self.failover.write(lambda: self.failover.file.save_counters(boot_id, counters))

    def save_delivery(self, delivery: Delivery) -> None:
        """Save a sink's state, and delete news that every sink has finished. Raises StoreError."""
        with self._reading() as at, at.writing():
            at.news.save_delivery(delivery)

    def forget_deliveries(self, kept: Sequence[str]) -> None:
        """Forget the sinks that are not among ``kept``. Raises StoreError."""
        with self._reading() as at, at.writing():
            at.news.forget_deliveries(kept)

    def save_delivered(self) -> None:
        """Save ``delivered`` without a put. Raises StoreError."""
        with self._reading() as at, at.writing():
            self._save_delivered()

    def _save_delivered(self) -> None:
        if self.delivered is not None:
            self.failover.news.save_delivered(self.delivered)

    # -- reading -----------------------------------------------------------------------------------

    def load_counters(self, boot_id: str) -> dict[str, float]:
        """The counters saved for a boot; empty if none are."""
        return dict(self._of_boot("SELECT name, value FROM counter WHERE boot_id = ?", boot_id))

    def position(self, boot_id: str) -> int | None:
        """The highest sequence number that a stored capture of this boot covers, None if there is none.

        An earlier record may still belong to a report that was not stored (reports interleave). So a reader
        begins at the ring buffer's start again, and stored reports are "known".
        """
        rows = self._of_boot("SELECT last_seq FROM boot WHERE boot_id = ? AND last_seq >= 0", boot_id)
        return int(rows[0][0]) if rows else None

    def last_usec(self, boot_id: str) -> int | None:
        """The log clock's stamp of the newest report of this boot that is or was stored; None if there is
        none. For a source without sequence numbers."""
        rows = self._of_boot(
            "SELECT max(stamp) FROM (SELECT max(first_usec) AS stamp FROM event WHERE boot_id = ?1"
            " UNION ALL SELECT dropped_usec FROM boot WHERE boot_id = ?1 AND dropped_usec >= 0)",
            boot_id,
        )
        return None if not rows or rows[0][0] is None else int(rows[0][0])

    def without_victim(self, boot_id: str, limit: int) -> list[OomCapture]:
        """The newest captures of a boot's reports that killed nobody: their repeats are folded into one."""
        rows = self._of_boot(
            "SELECT id, capture FROM event WHERE boot_id = ? AND kind = 'oom_no_victim'"
            " ORDER BY number DESC LIMIT ?",
            boot_id,
            limit,
        )
        found = []
        for row in rows:
            with suppress(StoreError):
                found.append(decoded(*row))
        return found

    def get(self, event_id: str) -> OomCapture | None:
        """The capture of an event, given its id or a unique beginning of the id.

        Raises StoreError if several ids begin so or the row is damaged.
        """
        with self._reading():
            for database in self.failover.databases():
                if (found := database.get(event_id)) is not None:
                    return found
        return None

    def list(
        self,
        *,
        limit: int = 50,
        since: float | None = None,
        before: float | None = None,
        kind: str | None = None,
        constraint: str | None = None,
        unit: str | None = None,
        container: str | None = None,
        pod: str | None = None,
        namespace: str | None = None,
        cgroup: str | None = None,
        comm: str | None = None,
        host: str | None = None,
        after: tuple[float, int] | None = None,
    ) -> list[EventRow]:
        """Stored events, newest first, with ``since`` <= wall < ``before`` (seconds since the epoch).
        ``after``: only events that follow the one with this (wall, number) in the list. ``kind``,
        ``constraint`` and
        ``host`` must match exactly, the other names by their beginning; ``container`` may also be the
        beginning of the container's id."""
        wanted: dict[str, object] = {
            "wall >= ?": since,
            "wall < ?": before,
            "kind = ?": kind,
            "constraint_name = ?": constraint,
            "host = ?": host,
            _begins("unit"): unit and (unit, unit),
            f"({_begins('container')} OR {_begins('container_id')})": container and (container,) * 4,
            _begins("pod"): pod and (pod, pod),
            _begins("namespace"): namespace and (namespace, namespace),
            _begins("cgroup"): cgroup and (cgroup, cgroup),
            _begins("victim_comm"): comm and (comm, comm),
            "wall <= ?": after and after[0],
            "(wall < ? OR number < ?)": after,
        }
        conditions = {text: value for text, value in wanted.items() if value is not None}
        return [*self._rows(conditions, limit)]

    def beside(self, event_id: str) -> tuple[str | None, str | None]:
        """The ids of the next newer and the next older event, None where there is none."""
        found = self._rows({"id = ?": event_id}, 1)
        if not found:
            return None, None
        here = (found[0].wall, found[0].number)
        newer = self._rows({"wall >= ?": here[0], "(wall > ? OR number > ?)": here}, 1, oldest_first=True)
        older = self._rows({"wall <= ?": here[0], "(wall < ? OR number < ?)": here}, 1)
        return next((row.id for row in newer), None), next((row.id for row in older), None)

    def _rows(
        self, conditions: Mapping[str, object], limit: int, *, oldest_first: bool = False
    ) -> Sequence[EventRow]:
        with self._reading():
            found = [
                row
                for database in self.failover.databases()
                for row in database.list(conditions, limit, oldest_first=oldest_first)
            ]
        found.sort(key=lambda row: (row.wall, row.number), reverse=not oldest_first)
        return found[:limit]

    def export(self, since: float | None = None) -> Iterator[OomCapture]:
        """All captures, oldest first, in the order they were stored. Damaged rows are logged and left out."""
        number = -1
        while True:
            with self._reading() as at:
                rows = at.file.after(number, float("-inf") if since is None else since, _EXPORT_ROWS)
            if not rows:
                return
            for number, name, blob in rows:  # noqa: B007
                try:
                    yield decoded(name, blob)
                except StoreError as error:
                    log.error("%s", error)

    def news(self, position: int, limit: int) -> Sequence[News]:
        """The news after ``position``, oldest first. Each stored event that is not historical is news, and
        again if a later revision has more kills, or is the last revision of a storm. Numbers have no gaps: a
        missing one was given up."""
        with self._reading() as at:
            found = at.news.after(position, limit)
            if at.memory is not None and len(found) < limit:
                found += NewsTable(at.memory.connection).after(position, limit - len(found))
        return found

    def deliveries(self) -> Sequence[Delivery]:
        """The state of each remote sink, with the events that wait for it."""
        with self._reading() as at:
            return at.news.deliveries(at.last_news)

    def undelivered(self, limit: int) -> Sequence[News]:
        """News that this host's sinks had not got when the last daemon ended, oldest first. Empty in a store
        where they never got any. Raises StoreError."""
        with self._reading() as at:
            position = at.news.delivered()
        return () if position is None else self.news(position, limit)

    @contextmanager
    def _reading(self) -> Iterator[Failover]:
        """Turns SQLite's errors into StoreError."""
        with self._lock:
            try:
                yield self.failover
            except sqlite3.Error as error:
                raise StoreError(f"cannot read the store {self._path}: {reason(error)}") from error

    def _of_boot(self, query: str, *values: str | int) -> Sequence[tuple[Any, ...]]:
        """All rows of a query of a starting daemon; a file that proves corrupt is replaced, as by put."""
        with self._reading() as at:
            try:
                return at.file.of_boot(query, *values)
            except sqlite3.Error as error:
                if not at.renewed_for(error):
                    raise
                return []

    def _measure(self) -> None:
        with suppress(sqlite3.Error):
            self.events, self.bytes = self.failover.file.events, self.failover.file.bytes


def _begins(column: str) -> str:
    """A condition that the column begins with a value, which fills both placeholders. LIKE would interpret %
    and _ in it."""
    return f"substr({column}, 1, length(?)) = ?"
