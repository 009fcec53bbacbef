"""OomCapture <-> SQLite: one row a capture, the event derived anew on each reading.

What a row holds besides the capture is what lists show and events are found by, as it was said when they were
stored: a later decoder, which the event itself is read with, may know better. A capture is ``zlib(msgpack)``.

Durability: WAL with ``synchronous=FULL``. ``NORMAL`` would lose the last commits with the power, and
with the power the ring buffer goes too: there is no second source. A report is rare and the store is
served by the patient half, so an fsync a report is affordable.

The event-derived counters are saved in the transaction that stores the event, so that after ``kill -9``
at any point counts and events agree.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from oomwatchd.delivery.policy import Delivery, News
from oomwatchd.errors import EX_UNAVAILABLE, EX_USAGE, OomwatchdError, PermissionDeniedError
from oomwatchd.event import OomEvent
from oomwatchd.event import event_id as identity
from oomwatchd.records.capture import OomCapture
from oomwatchd.records.merge import merge

log = logging.getLogger(__name__)

FILE_NAME = "events.sqlite"
Outcome = Literal["new", "updated", "known"]

#: SQLite counts rows by visiting them (0.6 ms a 100 000): the writer keeps their number, in a table of its
#: connection that follows each insert, delete and rollback
_COUNTED = """
    PRAGMA temp_store = MEMORY;
    CREATE TEMP TABLE stored (events INTEGER NOT NULL);
    INSERT INTO stored SELECT count(*) FROM event;
    CREATE TEMP TRIGGER stored_more AFTER INSERT ON main.event
    BEGIN UPDATE stored SET events = events + 1; END;
    CREATE TEMP TRIGGER stored_less AFTER DELETE ON main.event
    BEGIN UPDATE stored SET events = events - 1; END;
"""
_EVENTS = "SELECT events FROM temp.stored"

#: one script a schema version; ``PRAGMA user_version`` counts those that ran
_MIGRATIONS = (
    """
    CREATE TABLE event (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        boot_id TEXT,
        first_seq INTEGER,
        last_seq INTEGER,
        revision INTEGER NOT NULL,
        settled INTEGER NOT NULL,
        historical INTEGER NOT NULL,
        wall REAL NOT NULL,
        kind TEXT NOT NULL,
        constraint_name TEXT,
        kills INTEGER NOT NULL,
        undecoded INTEGER NOT NULL,
        victim_pid INTEGER,
        victim_comm TEXT,
        cgroup TEXT,
        unit TEXT,
        capture BLOB NOT NULL
    );
    CREATE UNIQUE INDEX event_position ON event (boot_id, first_seq) WHERE first_seq IS NOT NULL;
    CREATE INDEX event_wall ON event (wall);
    CREATE TABLE boot (
        boot_id TEXT PRIMARY KEY,
        last_seq INTEGER NOT NULL,
        dropped_seq INTEGER NOT NULL DEFAULT -1
    ) WITHOUT ROWID;
    CREATE TABLE counter (
        boot_id TEXT NOT NULL,
        name TEXT NOT NULL,
        value REAL NOT NULL,
        PRIMARY KEY (boot_id, name)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE news (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        event_id TEXT NOT NULL,
        wall REAL NOT NULL
    );
    CREATE TABLE delivery (
        sink TEXT PRIMARY KEY,
        position INTEGER NOT NULL,
        delivered INTEGER NOT NULL,
        left_out INTEGER NOT NULL,
        dropped INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        last_delivered REAL,
        failed_since REAL,
        next_attempt REAL,
        last_error TEXT
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE event ADD COLUMN first_usec INTEGER;
    CREATE INDEX event_moment ON event (boot_id, first_usec);
    ALTER TABLE boot ADD COLUMN dropped_usec INTEGER NOT NULL DEFAULT -1;
    """,
    """
    ALTER TABLE event ADD COLUMN summary TEXT;
    """,
)

#: deletions are done this many rows at a time and this many times at most for one stored capture
_PRUNE_ROWS = 32
_PRUNE_ROUNDS = 8
#: what a store without a file may hold
MEMORY_BYTES = 8 << 20
#: captures kept in memory while the file takes none
_FALLBACK_EVENTS = 256
#: news that wait for a sink; what is older is dropped
_NEWS = 10_000
#: the place of all sinks of this host among those of the sinks that fetch
_LOCAL = ""
#: boots whose position and counters are kept
_BOOTS = 16
#: a wall clock before 2020 is one that was never set: age says nothing
_CLOCK_UNSET = 1_577_836_800.0


class StoreError(OomwatchdError):
    """The store cannot be opened or read."""

    exit_status = EX_UNAVAILABLE


class AmbiguousIdError(StoreError):
    """The beginning of an id that several events have."""

    exit_status = EX_USAGE


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept; the oldest goes first. ``max_bytes`` counts what the file uses (blobs, rows and
    indexes), ``max_age_seconds`` is by wall clock; None is no limit."""

    max_events: int | None = 10_000
    max_bytes: int | None = 64 << 20
    max_age_seconds: float | None = None

    def in_memory(self) -> Limits:
        """The same for a store without a file: memory is dearer, and the daemon's own is limited."""
        return msgspec.structs.replace(self, max_bytes=min(self.max_bytes or MEMORY_BYTES, MEMORY_BYTES))


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One stored event as found by :meth:`Store.list`; ``wall`` is seconds since the epoch, ``summary`` None
    where an older oomwatchd stored it."""

    number: int
    id: str
    boot_id: str | None
    first_seq: int | None
    last_seq: int | None
    revision: int
    settled: bool
    historical: bool
    wall: float
    kind: str
    constraint: str | None
    kills: int
    victim_pid: int | None
    victim_comm: str | None
    cgroup: str | None
    unit: str | None
    summary: str | None


#: ``count(event, reports, kills, undecoded)``: is called once for each put that is not "known", with by how
#: many reports (a new event is one, and each repeat is one), kill lines and undecoded lines the store grew;
#: returns the counters to save.
Count = Callable[[OomEvent, int, int, int], Mapping[str, float]]

#: what is saved of a sink's state; the rest is counted on reading
_DELIVERY = tuple(name for name in Delivery.__struct_fields__ if name not in ("waiting", "oldest_waiting"))
_COLUMNS = ", ".join(EventRow.__struct_fields__).replace("constraint", "constraint_name AS 'constraint'")


class Store:
    """The captures of this host. All methods may be called from any thread.

    ``put`` never fails for the disk's sake: while the file cannot be written (full, read-only, I/O error)
    captures are kept in memory, a bounded number, and moved to the file with the first put that succeeds.
    ``failure`` says what is wrong meanwhile. A corrupt file is moved aside (the last one is kept) and a new
    one begun.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path | None,
        limits: Limits,
        clock: Callable[[], float],
        *,
        reads: bool = False,
    ) -> None:
        self._connection = connection
        self._reads = reads
        self._path = path
        self._limits = limits
        self._clock = clock
        self._lock = threading.RLock()
        self._memory: sqlite3.Connection | None = None
        #: what keeps the file from being written, None while all is well
        self.failure: str | None = None
        #: puts that could not be written to the file when they came
        self.failures = 0
        #: captures given up because memory's bound was reached while the file took none
        self.dropped = 0
        #: where a corrupt file was moved to, by this process
        self.corrupt: Path | None = None
        #: is called when a corrupt file was replaced by a new one, which knows nothing of what was counted
        self.on_renewed: Callable[[], None] = lambda: None
        #: up to which news the sinks of this host were told; it is saved with the next put
        self.told: int | None = None
        #: the number of the last news
        self.last_news = 0
        with suppress(sqlite3.Error):
            self.last_news = _scalar(connection, "SELECT max(seq) FROM sqlite_sequence WHERE name = 'news'")
        #: stored events and the bytes they use, as of the last put
        self.events = 0
        self.bytes = 0
        self._measure()

    @classmethod
    def open(
        cls,
        directory: Path | None,
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Store:
        """The store in ``directory`` (made if absent, mode 0700), or one in memory for None.

        Raises StoreError when the directory or the file cannot be used; a corrupt file is none of these.
        """
        limits = limits or Limits()
        if directory is None:
            return cls(_connect(":memory:"), None, limits, clock)
        path = directory / FILE_NAME
        corrupt = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            if not _has_whole_log(path):
                log.error(
                    "the write-ahead log of the store %s is damaged: what was stored last is lost, and what"
                    " the kernel log still holds of it is told again",
                    path,
                )
            try:
                connection = _connect(path)
                _check_whole(connection)
            except sqlite3.DatabaseError as error:
                if not _is_corrupt(error):
                    raise
                corrupt = _move_aside(path, error, clock())
                path.touch(mode=0o600)
                connection = _connect(path)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"cannot open the store {path}: {_reason(error)}",
                mend="check the state directory's owner, space and mount options",
            ) from error
        store = cls(connection, path, limits, clock)
        store.corrupt = corrupt
        return store

    @classmethod
    def open_reader(cls, directory: Path) -> Store:
        """The store for reading only, beside a daemon that writes it. Raises StoreError or
        PermissionDeniedError."""
        path = directory / FILE_NAME
        try:
            # not by opening it: closing a file gives up the locks that this process has on it (SQLite)
            if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
                path.stat()  # absent, or out of reach
                raise PermissionError
        except PermissionError as error:
            raise PermissionDeniedError(
                f"no permission to read the store {path}", mend="run as root or as the daemon's user"
            ) from error
        except OSError as error:
            raise StoreError(
                f"no store at {path}", mend="name the daemon's directory with --state-directory, or run it"
            ) from error
        # A write-ahead log needs a file for shared memory. Without it (and without the right to make it,
        # which is the case for a copy on read-only media) nobody writes either.
        for options in ("mode=ro", "mode=ro&immutable=1"):
            connection = None
            try:
                connection = sqlite3.connect(
                    f"{path.absolute().as_uri()}?{options}", uri=True, timeout=5, check_same_thread=False
                )
                _check_version(connection, path)
                return cls(connection, path, Limits(), time.time, reads=True)
            except sqlite3.Error as error:
                if connection is not None:
                    connection.close()
                failure = error
        raise StoreError(f"cannot read the store {path}: {_reason(failure)}") from failure

    def close(self) -> None:
        """Close the file; what was put is already on disk."""
        with self._lock:
            self._connection.close()
            if self._memory is not None:
                self._memory.close()

    def put(self, capture: OomCapture, event: OomEvent, count: Count | None = None) -> Outcome:
        """Store a capture, or a later revision of a stored one; "known": it brings nothing new.

        A later revision may come from another process, which read the ring again after a restart and knows
        nothing of the host at the time: what only the stored capture has is kept.

        ``event`` is the one concluded from ``capture``. ``count`` is called at most once, see Count.
        """
        tally = _Tally(count, event)
        with self._lock:
            for _ in range(2):
                try:
                    outcome = self._put_in_file(capture, event, tally)
                except sqlite3.Error as error:
                    self._failed(error)
                    if _is_corrupt(error) and self._renew(error):
                        continue
                    return self._put_in_memory(capture, event, tally)
                if self.failure is not None and self._path is not None:
                    log.warning("the store can be written again")
                    self.failure = None
                self._measure()
                return outcome
            return self._put_in_memory(capture, event, tally)

    def completed(self, capture: OomCapture) -> OomCapture:
        """The capture with what the store knows of the same report besides; the same object where it knows
        nothing, or all of it."""
        with self._lock:
            for connection in self._connections():
                with suppress(sqlite3.Error):
                    known = _known(connection, identity(capture), capture)
                    if known is not None:
                        return capture if known.capture is None else known.completes(capture)
        return capture

    def save_counters(self, boot_id: str, counters: Mapping[str, float]) -> None:
        """Save counters that no event brings; a failure is kept in ``failure`` like put's."""
        with self._lock:
            try:
                with _transaction(self._connection):
                    _save_counters(self._connection, boot_id, counters)
            except sqlite3.Error as error:
                self._failed(error)

    def load_counters(self, boot_id: str) -> dict[str, float]:
        """The counters saved for a boot; empty if none are."""
        return dict(self._of_boot("SELECT name, value FROM counter WHERE boot_id = ?", boot_id))

    def position(self, boot_id: str) -> int | None:
        """The highest sequence number that a stored capture of this boot covers, None if there is none.

        An earlier record may still belong to a report that was not stored (reports interleave): who
        reads the ring again begins at its start and is told "known".
        """
        rows = self._of_boot("SELECT last_seq FROM boot WHERE boot_id = ? AND last_seq >= 0", boot_id)
        return int(rows[0][0]) if rows else None

    def last_usec(self, boot_id: str) -> int | None:
        """The log clock's stamp of the newest report of this boot that is or was stored, None if there is
        none; for a source without numbers."""
        rows = self._of_boot(
            "SELECT max(stamp) FROM (SELECT max(first_usec) AS stamp FROM event WHERE boot_id = ?1"
            " UNION ALL SELECT dropped_usec FROM boot WHERE boot_id = ?1 AND dropped_usec >= 0)",
            boot_id,
        )
        return None if not rows or rows[0][0] is None else int(rows[0][0])

    def without_victim(self, boot_id: str, limit: int) -> list[OomCapture]:
        """The newest captures of a boot's reports that killed nobody, for who folds their repeats."""
        rows = self._of_boot(
            "SELECT id, capture FROM event WHERE boot_id = ? AND kind = 'oom_no_victim'"
            " ORDER BY number DESC LIMIT ?",
            boot_id,
            limit,
        )
        found = []
        for row in rows:
            with suppress(StoreError):
                found.append(_decode(*row))
        return found

    def get(self, event_id: str) -> OomCapture | None:
        """The capture of an event, named by its id or by a beginning of it that only one has.

        Raises StoreError if several have it or the row is damaged.
        """
        with self._lock, _reading(self._path):
            for connection in self._connections():
                rows = connection.execute(
                    "SELECT id, capture FROM event WHERE id = ?1"
                    " OR (id > ?1 AND substr(id, 1, length(?1)) = ?1) ORDER BY id LIMIT 2",
                    (event_id,),
                ).fetchall()
                if len(rows) == 2 and rows[0][0] != event_id:
                    raise AmbiguousIdError(
                        f"several events begin with {event_id!r}", mend="give more of the id"
                    )
                if rows:
                    return _decode(*rows[0])
        return None

    def list(
        self,
        *,
        limit: int = 50,
        since: float | None = None,
        before: float | None = None,
        kind: str | None = None,
        unit: str | None = None,
        cgroup: str | None = None,
        constraint: str | None = None,
        comm: str | None = None,
        after: tuple[float, int] | None = None,
    ) -> list[EventRow]:
        """Stored events, newest first; ``since`` <= wall < ``before``, seconds since the epoch; those that
        come after the one with this (wall, number) in that order."""
        wanted: dict[str, object] = {
            "wall >= ?": since,
            "wall < ?": before,
            "kind = ?": kind,
            "unit = ?": unit,
            "cgroup = ?": cgroup,
            "constraint_name = ?": constraint,
            "victim_comm = ?": comm,
            "wall <= ?": after and after[0],
            "(wall < ? OR number < ?)": after,
        }
        conditions = {text: value for text, value in wanted.items() if value is not None}
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        values = [
            v for value in conditions.values() for v in (value if isinstance(value, tuple) else (value,))
        ]
        # The statement is put together from the constants above alone; values are bound.
        query = f"SELECT {{}} FROM event {where} ORDER BY wall DESC, number DESC LIMIT ?"  # noqa: S608
        found: list[EventRow] = []
        with self._lock, _reading(self._path):
            old = _scalar(self._connection, "PRAGMA user_version") < 4  # and nobody but the daemon mends that
            query = query.format(_COLUMNS.replace("summary", "NULL AS summary") if old else _COLUMNS)
            for connection in self._connections():
                for row in connection.execute(query, (*values, limit)):
                    fields = dict(zip(EventRow.__struct_fields__, row, strict=True))
                    found.append(msgspec.convert(fields, EventRow, strict=False))
        found.sort(key=lambda row: (row.wall, row.number), reverse=True)
        return found[:limit]

    def export(self, since: float | None = None) -> Iterator[OomCapture]:
        """All captures, oldest first, in the order they were stored. Damaged rows are logged and left out."""
        number = -1
        while True:
            with self._lock, _reading(self._path):
                rows = self._connection.execute(
                    "SELECT number, id, capture FROM event WHERE number > ? AND wall >= ?"
                    " ORDER BY number LIMIT 16",
                    (number, float("-inf") if since is None else since),
                ).fetchall()
            if not rows:
                return
            for number, name, blob in rows:  # noqa: B007
                try:
                    yield _decode(name, blob)
                except StoreError as error:
                    log.error("%s", error)

    def news(self, position: int, limit: int) -> Sequence[News]:
        """What came after ``position``, oldest first: each stored event that is not historical, and again
        when a later revision has more kills, or is the last of one that stands for many. Numbers have no
        gaps: one that is missing was given up."""
        query = "SELECT number, event_id, wall FROM news WHERE number > ? ORDER BY number LIMIT ?"
        found: list[News] = []
        with self._lock, _reading(self._path):
            for connection in (self._connection, self._memory):
                if connection is not None and len(found) < limit:
                    rows = connection.execute(query, (position, limit - len(found)))
                    found += [News(number=number, event_id=name, wall=wall) for number, name, wall in rows]
        return found

    def deliveries(self) -> Sequence[Delivery]:
        """How far each sink that fetches has come, with what waits for it."""
        query = f"""
            SELECT {", ".join(_DELIVERY)}, (SELECT min(wall) FROM news WHERE number > position)
            FROM delivery WHERE sink != '{_LOCAL}' ORDER BY sink
        """  # noqa: S608
        with self._lock, _reading(self._path):
            if _scalar(self._connection, "PRAGMA user_version") < 2:  # nobody but the daemon mends that
                return ()
            rows = self._connection.execute(query).fetchall()
        found = []
        for *values, oldest in rows:
            delivery = Delivery(**dict(zip(_DELIVERY, values, strict=True)))
            waiting = max(0, self.last_news - delivery.position)
            found.append(msgspec.structs.replace(delivery, waiting=waiting, oldest_waiting=oldest))
        return found

    def save_delivery(self, delivery: Delivery) -> None:
        """Save how far a sink has come, and forget news that every sink is done with. Raises StoreError."""
        query = f"""
            INSERT INTO delivery ({", ".join(_DELIVERY)}) VALUES ({", ".join("?" * len(_DELIVERY))})
            ON CONFLICT DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _DELIVERY)}
        """  # noqa: S608
        with self._lock, _reading(self._path), _transaction(self._connection):
            self._connection.execute(query, [getattr(delivery, name) for name in _DELIVERY])
            self._forget_news()

    def forget_deliveries(self, kept: Sequence[str]) -> None:
        """Forget the sinks that are not among ``kept``. Raises StoreError."""
        kept = (_LOCAL, *kept)
        marks = ", ".join("?" * len(kept))
        with self._lock, _reading(self._path), _transaction(self._connection):
            self._connection.execute(f"DELETE FROM delivery WHERE sink NOT IN ({marks})", kept)  # noqa: S608
            self._forget_news()

    def untold(self, limit: int) -> Sequence[News]:
        """News that the sinks of this host were not told of when the last daemon ended, oldest first. None
        in a store where they never were told of any. Raises StoreError."""
        with self._lock, _reading(self._path):
            row = self._connection.execute(
                "SELECT position FROM delivery WHERE sink = ?", (_LOCAL,)
            ).fetchone()
        return () if row is None else self.news(row[0], limit)

    def save_told(self) -> None:
        """Save ``told`` without a put. Raises StoreError."""
        with self._lock, _reading(self._path), _transaction(self._connection):
            self._save_told()

    def _save_told(self) -> None:
        if self.told is None:
            return
        self._connection.execute(
            "INSERT INTO delivery (sink, position, delivered, left_out, dropped, failures)"
            " VALUES (?, ?, 0, 0, 0, 0) ON CONFLICT DO UPDATE SET position = excluded.position",
            (_LOCAL, self.told),
        )
        self._forget_news()

    def _forget_news(self) -> None:
        self._connection.execute(
            "DELETE FROM news WHERE number <= (SELECT coalesce(min(position), 0) FROM delivery)"
        )

    def _noted(
        self, connection: sqlite3.Connection, capture: OomCapture, event: OomEvent, new: bool, tally: _Tally
    ) -> int:
        """Note what is news, within a transaction; the number of the last news afterwards."""
        grown = tally.grown and (tally.kills > 0 or (capture.settled and capture.repeats > 0))
        if event.historical or not (new or grown):
            return self.last_news
        row = (event.id, self._clock())
        number = connection.execute("INSERT INTO news (event_id, wall) VALUES (?, ?)", row).lastrowid or 0
        connection.execute("DELETE FROM news WHERE number <= ?", (number - _NEWS,))
        return number

    def _count_news_on(self, connection: sqlite3.Connection) -> None:
        """Numbers go on where they were: sinks go by them."""
        if self.last_news:
            connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES ('news', ?)", (self.last_news,)
            )

    def _of_boot(self, query: str, *values: str | int) -> Sequence[tuple[Any, ...]]:
        """What a starting daemon asks; a file found corrupt by it is replaced like one found by put."""
        with self._lock, _reading(self._path):
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                if not _is_corrupt(error) or not self._renew(error):
                    raise
                return []

    def _connections(self) -> Iterator[sqlite3.Connection]:
        if self._memory is not None:
            yield self._memory
        yield self._connection

    def _put_in_file(self, capture: OomCapture, event: OomEvent, tally: _Tally) -> Outcome:
        with _transaction(self._connection):
            moved = self._move_memory()
            outcome = _put(self._connection, capture, event, tally, None, self._clock())
            if outcome != "known":
                self._prune(self._connection, self._limits)
            last_news = self._noted(self._connection, capture, event, outcome == "new", tally)
            self._save_told()
        self.last_news = last_news
        if moved and self._memory is not None:
            self._memory.close()
            self._memory = None
        return outcome

    def _put_in_memory(self, capture: OomCapture, event: OomEvent, tally: _Tally) -> Outcome:
        if self._memory is None:
            self._memory = _connect(":memory:")
            self._count_news_on(self._memory)
        known = None
        with suppress(sqlite3.Error):
            known = _known(self._connection, event.id, capture)
        with _transaction(self._memory):
            outcome = _put(self._memory, capture, event, tally, known, self._clock())
            surplus = _scalar(self._memory, _EVENTS) - _FALLBACK_EVENTS
            if surplus > 0:
                self.dropped += surplus
                _delete(self._memory, "1", (), surplus)
            last_news = self._noted(self._memory, capture, event, outcome == "new", tally)
        self.last_news = last_news
        return outcome

    def _move_memory(self) -> bool:
        """Copy what memory holds to the file, within its transaction."""
        if self._memory is None:
            return False
        columns = "id, boot_id, first_seq, last_seq, revision, settled, historical, wall, kind,"
        columns += " constraint_name, kills, undecoded, victim_pid, victim_comm, cgroup, unit, capture,"
        columns += " first_usec, summary"
        marks = ", ".join("?" * 19)
        for row in self._memory.execute(f"SELECT {columns} FROM event ORDER BY number"):  # noqa: S608
            self._connection.execute(
                f"INSERT OR REPLACE INTO event ({columns}) VALUES ({marks})",  # noqa: S608
                row,
            )
        for row in self._memory.execute("SELECT number, event_id, wall FROM news"):
            self._connection.execute(
                "INSERT OR REPLACE INTO news (number, event_id, wall) VALUES (?, ?, ?)", row
            )
        for boot_id, last_seq in self._memory.execute("SELECT boot_id, last_seq FROM boot"):
            _save_position(self._connection, boot_id, last_seq)
        for boot_id, name, value in self._memory.execute("SELECT boot_id, name, value FROM counter"):
            _save_counters(self._connection, boot_id, {name: value})
        return True

    def _prune(self, connection: sqlite3.Connection, limits: Limits) -> None:
        """Delete the oldest until the limits hold, or until this put has done its share; never the last."""
        newest = _scalar(connection, "SELECT max(number) FROM event")
        for _ in range(_PRUNE_ROUNDS):
            surplus = 0
            if limits.max_events is not None:
                surplus = _scalar(connection, _EVENTS) - limits.max_events
            if surplus <= 0 and limits.max_bytes is not None and _used(connection) > limits.max_bytes:
                surplus = 1
            if surplus <= 0:
                break
            if not _delete(connection, "number < ?", (newest,), min(surplus, _PRUNE_ROWS)):
                break
        if limits.max_age_seconds is not None:
            condition = "wall < ? AND wall > ? AND number < ?"
            oldest = self._clock() - limits.max_age_seconds
            _delete(connection, condition, (oldest, _CLOCK_UNSET, newest), _PRUNE_ROWS)

    def _failed(self, error: sqlite3.Error) -> None:
        self.failures += 1
        reason = _reason(error)
        if self.failure != reason:
            log.error("cannot write the store %s: %s; keeping events in memory", self._path, reason)
        self.failure = reason

    def _renew(self, error: sqlite3.Error) -> bool:
        """Put the corrupt file aside and begin a new one."""
        if self._path is None:
            return False
        try:
            self._connection.close()
            self.corrupt = _move_aside(self._path, error, self._clock())
            self._path.touch(mode=0o600)
            self._connection = _connect(self._path)
            self._count_news_on(self._connection)
        except (OSError, sqlite3.Error) as failure:
            self.failure = f"no new store can be begun: {_reason(failure)}"
            log.error("%s; events are kept in memory only, until the daemon ends", self.failure)
            self._connection.close()
            self._connection = _connect(":memory:")
            self._path, self._limits = None, self._limits.in_memory()
            self._count_news_on(self._connection)
        self.on_renewed()
        return True

    def _measure(self) -> None:
        with suppress(sqlite3.Error):
            self.events = _scalar(self._connection, "SELECT count(*) FROM event" if self._reads else _EVENTS)
            self.bytes = _used(self._connection)


class _Tally:
    """Calls ``count`` once, however often the storing is tried, and remembers what it returned."""

    def __init__(self, count: Count | None, event: OomEvent) -> None:
        self._count = count
        self._event = event
        self._counters: Mapping[str, float] | None = None
        #: whether the store took it, and by how many kill lines the event grew
        self.grown = False
        self.kills = 0

    def __call__(self, reports: int, kills: int, undecoded: int) -> Mapping[str, float]:
        self.grown = True
        if self._counters is None:
            self.kills = kills
            grown = (reports, kills, undecoded)
            self._counters = {} if self._count is None else self._count(self._event, *grown)
        return self._counters


class _Known(msgspec.Struct, frozen=True):
    """What is already stored of an event."""

    capture: OomCapture | None
    kills: int
    undecoded: int
    #: from the ring buffer, where this one is from the journal, or the other way round
    elsewhence: bool = False

    def covers(self, capture: OomCapture) -> bool:
        """Whether a capture of the same report brings nothing. Revisions count anew in each process, so
        what it holds is compared first."""
        if self.capture is None:  # damaged
            return False
        return _extent(capture) <= _extent(self.capture)

    def completes(self, capture: OomCapture) -> OomCapture:
        """The capture with what is stored of it, if it brings anything at all."""
        if self.capture is None or self.elsewhence or self.covers(capture):
            return capture
        return merge(capture, self.capture)


def _extent(capture: OomCapture) -> tuple[int, int, bool, int]:
    last = -1 if capture.last_seq is None else capture.last_seq
    return last, len(capture.records), capture.settled, capture.revision


class _transaction:
    """BEGIN IMMEDIATE ... COMMIT; rolled back on any error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._connection.execute("COMMIT")
                return
            except sqlite3.Error:
                self._roll_back()
                raise
        self._roll_back()

    def _roll_back(self) -> None:
        # SQLite has already rolled back by itself after some errors (disk full, I/O)
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")


class _reading:
    """Turns SQLite's errors into StoreError."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise StoreError(f"cannot read the store {self._path}: {_reason(error)}") from error


def _connect(path: Path | Literal[":memory:"]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 1048576")
        # KiB of pages that SQLite keeps besides the kernel: 2000 by default, which events fill for good
        connection.execute("PRAGMA cache_size = -512")
        version = _check_version(connection, path)
        for number, script in enumerate(_MIGRATIONS[version:], version + 1):
            connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
        connection.executescript(_COUNTED)
    except BaseException:
        connection.close()
        raise
    return connection


def _has_whole_log(path: Path) -> bool:
    """Whether SQLite will read the write-ahead log beside ``path``: where its header is damaged, it takes the
    log for empty without a word (https://www.sqlite.org/fileformat2.html#the_write_ahead_log). The header
    begins with 0x377f0682, or ...83 where the checksums are big-endian, and the format's version; a file that
    grew and was not written when the power went is empty."""
    try:
        with path.with_name(f"{path.name}-wal").open("rb") as file:
            header = file.read(32)
    except FileNotFoundError:
        return True
    return len(header.strip(b"\0")) == 0 or header[:8] in (
        b"\x37\x7f\x06\x82\x00\x2d\xe2\x18",
        b"\x37\x7f\x06\x83\x00\x2d\xe2\x18",
    )


def _check_whole(connection: sqlite3.Connection) -> None:
    """Read the whole file (60 MB in 0.06 s from the page cache): damage that is met later would take what
    was counted and leave what was stored, or the other way round. Raises sqlite3.DatabaseError."""
    try:
        (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            found = sqlite3.DatabaseError(said)
            found.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise found
    except BaseException:
        connection.close()
        raise


def _check_version(connection: sqlite3.Connection, path: Path | str) -> int:
    version = _scalar(connection, "PRAGMA user_version")
    if version > len(_MIGRATIONS):
        raise StoreError(
            f"the store {path} has schema {version}, this oomwatchd knows {len(_MIGRATIONS)}",
            mend="upgrade oomwatchd, or move the file away",
        )
    return version


def _scalar(connection: sqlite3.Connection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0] or 0)


def _used(connection: sqlite3.Connection) -> int:
    pages = _scalar(connection, "PRAGMA page_count") - _scalar(connection, "PRAGMA freelist_count")
    return pages * _scalar(connection, "PRAGMA page_size")


def _known(connection: sqlite3.Connection, event_id: str, capture: OomCapture) -> _Known | None:
    row = connection.execute(
        "SELECT id, capture, kills, undecoded FROM event"
        " WHERE id = ? OR (first_seq IS NOT NULL AND boot_id = ? AND first_seq = ?)",
        (event_id, capture.source.boot_id, capture.first_seq),
    ).fetchone()
    if row is None:
        return _known_elsewhence(connection, capture)
    try:
        return _Known(_decode(row[0], row[1]), row[2], row[3])
    except StoreError as error:
        log.error("%s", error)
        return _Known(None, row[2], row[3])


def _known_elsewhence(connection: sqlite3.Connection, capture: OomCapture) -> _Known | None:
    """The same report, read from the other of ring buffer and journal: its first record has the same stamp
    and text in both. A later reading brings nothing, unless it has more kills."""
    rows = connection.execute(
        "SELECT id, capture, kills, undecoded FROM event"
        " WHERE boot_id = ? AND first_usec = ? AND (first_seq IS NULL) <> ? LIMIT 8",
        (capture.source.boot_id, _first_usec(capture), capture.first_seq is None),
    )
    for name, blob, kills, undecoded in rows:
        with suppress(StoreError):
            stored = _decode(name, blob)
            if stored.records[:1] and stored.records[0].text.rstrip() == capture.records[0].text.rstrip():
                return _Known(stored, kills, undecoded, elsewhence=True)
    return None


def _first_usec(capture: OomCapture) -> int | None:
    return capture.records[0].usec if capture.records else None


def _put(
    connection: sqlite3.Connection,
    capture: OomCapture,
    event: OomEvent,
    tally: _Tally,
    elsewhere: _Known | None,
    now: float,
) -> Outcome:
    """Insert or update within a transaction; ``elsewhere`` is what the file knows when this is memory."""
    boot_id = capture.source.boot_id
    known = _known(connection, event.id, capture) or elsewhere
    if known is None:
        if boot_id is not None and capture.first_seq is not None:
            dropped = connection.execute("SELECT dropped_seq FROM boot WHERE boot_id = ?", (boot_id,))
            floor = dropped.fetchone()
            if floor is not None and capture.first_seq <= floor[0]:
                return "known"
        elif boot_id is not None and (first_usec := _first_usec(capture)) is not None:
            dropped = connection.execute("SELECT dropped_usec FROM boot WHERE boot_id = ?", (boot_id,))
            floor = dropped.fetchone()
            if floor is not None and first_usec <= floor[0]:
                return "known"
    elif known.elsewhence:
        if event.kills <= known.kills:
            return "known"
    elif known.covers(capture):
        return "known"
    else:
        capture = known.completes(capture)
    kills = max(0, event.kills - (known.kills if known else 0))
    undecoded = max(0, len(event.undecoded) - (known.undecoded if known else 0))
    reports = 1 + capture.repeats
    if known is not None:
        reports -= 1 + known.capture.repeats if known.capture is not None else reports
    counters = tally(max(0, reports), kills, undecoded)
    victim = event.victims[0] if event.victims else None
    whose = next((a for a in event.attribution if victim and a.pid == victim.pid), None)
    # the kernel's word first: what /proc said of a process that was ending may be "/"
    paths = (
        event.memcg and event.memcg.task_path,
        whose and whose.cgroup,
        event.memcg and event.memcg.oom_path,
        event.oomd and event.oomd.cgroup,
    )
    wall = capture.detected
    if capture.wall_offset is not None and capture.records and capture.records[0].usec is not None:
        wall = capture.wall_offset + capture.records[0].usec / 1e6
    connection.execute(
        """
        INSERT INTO event (id, boot_id, first_seq, last_seq, revision, settled, historical, wall, kind,
            constraint_name, kills, undecoded, victim_pid, victim_comm, cgroup, unit, capture, first_usec,
            summary)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET last_seq = excluded.last_seq, revision = excluded.revision,
            settled = excluded.settled, kind = excluded.kind, constraint_name = excluded.constraint_name,
            kills = max(kills, excluded.kills), undecoded = max(undecoded, excluded.undecoded),
            victim_pid = excluded.victim_pid, victim_comm = excluded.victim_comm,
            cgroup = coalesce(excluded.cgroup, cgroup), unit = coalesce(excluded.unit, unit),
            capture = excluded.capture, summary = excluded.summary
        """,
        (
            event.id,
            boot_id,
            capture.first_seq,
            capture.last_seq,
            capture.revision,
            capture.settled,
            capture.historical,
            now if wall is None else wall,
            event.kind,
            event.constraint,
            event.kills,
            len(event.undecoded),
            victim.pid if victim else None,
            victim.comm if victim else None,
            next((path for path in paths if path), None),
            whose.unit if whose else event.oomd.unit if event.oomd else None,
            zlib.compress(msgspec.msgpack.encode(capture)),
            _first_usec(capture),
            event.summary,
        ),
    )
    if boot_id is not None:
        _save_position(connection, boot_id, -1 if capture.last_seq is None else capture.last_seq)
        _save_counters(connection, boot_id, counters)
    return "updated" if known else "new"


def _save_position(connection: sqlite3.Connection, boot_id: str, last_seq: int) -> None:
    fresh = connection.execute("SELECT 1 FROM boot WHERE boot_id = ?", (boot_id,)).fetchone() is None
    connection.execute(
        "INSERT INTO boot (boot_id, last_seq) VALUES (?, ?)"
        " ON CONFLICT DO UPDATE SET last_seq = max(last_seq, excluded.last_seq)",
        (boot_id, last_seq),
    )
    if fresh:
        # Boots have no order of their own: the newest events name those that matter
        recent = "SELECT boot_id FROM event WHERE boot_id IS NOT NULL GROUP BY boot_id"
        recent += f" ORDER BY max(number) DESC LIMIT {_BOOTS}"
        for table in ("boot", "counter"):
            connection.execute(
                f"DELETE FROM {table} WHERE boot_id <> ? AND boot_id NOT IN ({recent})",  # noqa: S608
                (boot_id,),
            )


def _save_counters(connection: sqlite3.Connection, boot_id: str, counters: Mapping[str, float]) -> None:
    connection.executemany(
        "INSERT INTO counter (boot_id, name, value) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET value = excluded.value",
        [(boot_id, name, value) for name, value in counters.items()],
    )


def _delete(connection: sqlite3.Connection, condition: str, values: tuple[object, ...], limit: int) -> int:
    """Delete up to ``limit`` of the oldest rows; how far a boot's rows went is kept, so that the same
    records read again are "known"."""
    rows = connection.execute(
        f"SELECT number, boot_id, first_seq, first_usec FROM event WHERE {condition}"  # noqa: S608
        " ORDER BY number LIMIT ?",
        (*values, limit),
    ).fetchall()
    for number, boot_id, first_seq, first_usec in rows:
        connection.execute("DELETE FROM event WHERE number = ?", (number,))
        connection.execute(
            "UPDATE boot SET dropped_seq = max(dropped_seq, coalesce(?, -1)),"
            " dropped_usec = max(dropped_usec, coalesce(?, -1)) WHERE boot_id = ?",
            (first_seq, first_usec, boot_id),
        )
    return len(rows)


def _decode(event_id: str, blob: bytes) -> OomCapture:
    try:
        return msgspec.msgpack.decode(zlib.decompress(blob), type=OomCapture)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise StoreError(f"the stored capture of event {event_id!r} is damaged: {error}") from error


def _is_corrupt(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _move_aside(path: Path, error: sqlite3.Error, now: float) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    for older in path.parent.glob(f"{path.name}.corrupt-*"):
        older.unlink()
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    log.error("the store %s is corrupt (%s): moved to %s, a new one begun", path, _reason(error), aside.name)
    return aside


def _reason(error: BaseException) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
