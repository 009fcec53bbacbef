"""The tables, the upgrade of older ones, and how a connection to the file is set up.

Durability: WAL with ``synchronous=FULL``. With ``NORMAL`` a power cut would lose the last commits, and it
loses the ring buffer too, so there would be no second source. Reports are rare and the worker may wait, so an
fsync for each report is affordable.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Literal

from oomwatchd.store.rows import COLUMNS, StoreError

#: seconds that a write waits for another process's lock on the file
PATIENCE_SECONDS = 2.0

#: one script for each schema version; ``PRAGMA user_version`` counts those that ran
MIGRATIONS = (
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
    """
    ALTER TABLE event ADD COLUMN container TEXT;
    ALTER TABLE event ADD COLUMN pod TEXT;
    ALTER TABLE event ADD COLUMN namespace TEXT;
    ALTER TABLE event ADD COLUMN container_id TEXT;
    """,
    """
    ALTER TABLE event ADD COLUMN host TEXT;
    CREATE INDEX event_host ON event (host) WHERE host IS NOT NULL;
    """,
)
#: the version that brought the news; a reader may meet a file that is older
WITH_NEWS = 2
#: columns that came later -> the version that brought them
LATER = {"summary": 4, "container": 5, "pod": 5, "namespace": 5, "container_id": 5, "host": 6}


def connect(path: Path | Literal[":memory:"]) -> sqlite3.Connection:
    """A connection for writing, with the tables of this version. Raises sqlite3.Error or StoreError."""
    connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 1048576")
        # KiB of SQLite's own page cache: the default is 2000, which events would fill for good
        connection.execute("PRAGMA cache_size = -512")
        version = checked_version(connection, path)
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
        _check_tables(connection, path)
        set_patience(connection, PATIENCE_SECONDS)
    except BaseException:
        connection.close()
        raise
    return connection


def bound_log(connection: sqlite3.Connection, max_bytes: int | None) -> None:
    """Limit the write-ahead log to a quarter of the store's bound; SQLite's own limit is 1000 pages, 4 MiB. A
    small log is copied to the file more often."""
    page = scalar(connection, "PRAGMA page_size")
    pages = 1000 if max_bytes is None else min(1000, max(8, max_bytes // 4 // page))
    connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
    connection.execute(f"PRAGMA journal_size_limit = {min(1 << 20, pages * page)}")


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection for reading only, beside a daemon that writes. Raises sqlite3.Error or StoreError."""
    # A write-ahead log needs a file for shared memory. If that is missing and may not be made (a copy on
    # read-only media), no other process writes either.
    failure: sqlite3.Error | None = None
    for options in ("mode=ro", "mode=ro&immutable=1"):
        connection = None
        try:
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?{options}", uri=True, timeout=5, check_same_thread=False
            )
            checked_version(connection, path)
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            failure = error
        else:
            return connection
    assert failure is not None
    raise failure


def set_patience(connection: sqlite3.Connection, seconds: float) -> None:
    """How long a write waits for another process's lock on the file."""
    connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")


def version_of(connection: sqlite3.Connection) -> int:
    """The schema's version."""
    return scalar(connection, "PRAGMA user_version")


def checked_version(connection: sqlite3.Connection, path: Path | str) -> int:
    """The schema's version. Raises StoreError for one that is newer than this program."""
    version = version_of(connection)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the store {path} has schema {version}, this oomwatchd knows {len(MIGRATIONS)}",
            hint="upgrade oomwatchd, or move the file away",
        )
    return version


def _check_tables(connection: sqlite3.Connection, path: Path | str) -> None:
    """Check the tables, because another program's file may have a version number too."""
    try:
        connection.execute(f"SELECT number, {', '.join(COLUMNS)} FROM event LIMIT 0")  # noqa: S608
        connection.execute("SELECT number, event_id, wall FROM news LIMIT 0")
    except sqlite3.OperationalError as error:
        if not str(error).startswith("no such "):
            raise
        raise StoreError(
            f"{path} is the file of another program: {error}", hint="move it away, or name another directory"
        ) from error


def scalar(connection: sqlite3.Connection, query: str) -> int:
    """The one number that a query gives, 0 for none."""
    row = connection.execute(query).fetchone()
    return int(row[0] or 0)


class transaction:  # reads like a statement
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
