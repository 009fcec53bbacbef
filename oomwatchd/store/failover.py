"""The file while it can be used, memory while it cannot, a new file where the old one is damaged or gone.

Not locked: the store lets one thread at a time in.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from oomwatchd.store.database import Database
from oomwatchd.store.files import FileWatch, check_whole, is_corrupt, move_aside, reason
from oomwatchd.store.news import NewsTable
from oomwatchd.store.rows import Limits, StoreError
from oomwatchd.store.schema import PATIENCE_SECONDS, bound_log, connect, set_patience, transaction

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Failover:
    """Where captures go: ``file`` and ``news``, or ``memory`` while the file fails."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path | None,
        watch: FileWatch | None,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self._use(connection)
        self._path = path
        #: where to create the file, while none could be opened
        self._wanted: Path | None = None
        self._watch = watch
        self._clock = clock
        self.limits = self._limits = limits
        #: captures that were put while the file failed; None: none
        self.memory: Database | None = None
        #: why the file cannot be written, None while it can
        self.failure: str | None = None
        #: times that it could not be written
        self.failures = 0
        #: where a file that could not be used was moved to, by this process
        self.corrupt: Path | None = None
        #: called when the file was replaced by a new one
        self.on_renewed: Callable[[], None] = lambda: None
        #: the number of the last news
        self.last_news = 0
        with suppress(sqlite3.Error):
            self.last_news = self.news.last

    def _use(self, connection: sqlite3.Connection) -> None:
        self.file, self.news = Database(connection), NewsTable(connection)

    def databases(self) -> Iterator[Database]:
        """Where captures are, the newest first."""
        if self.memory is not None:
            yield self.memory
        yield self.file

    def close(self) -> None:
        """Close the file; what memory holds is lost."""
        self._let_go()
        if self.memory is not None:
            self.memory.connection.close()

    def _let_go(self) -> None:
        self.file.connection.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    # -- writing -----------------------------------------------------------------------------------

    def write(self, work: Callable[[], _T]) -> _T:
        """Do ``work`` in a transaction of the file, after what memory holds was written; a file that is
        damaged or gone is replaced. Raises sqlite3.Error, which is noted in ``failure``."""
        self._look()
        try:
            result = self._tried(work)
        except sqlite3.Error as error:
            self._failed(error)
            if not self.renewed_for(error):
                raise
            result = self._tried(work)
        if self.failure is not None and self._path is not None:
            log.warning("the store can be written again")
            self.failure = None
            set_patience(self.file.connection, PATIENCE_SECONDS)
        self._trust()
        return result

    def _tried(self, work: Callable[[], _T]) -> _T:
        last_news = self.last_news
        try:
            with transaction(self.file.connection):
                if self.memory is not None:
                    self.file.take_from(self.memory)
                    self.news.take_from(NewsTable(self.memory.connection))
                result = work()
        except BaseException:
            self.last_news = last_news
            raise
        if self.memory is not None:
            self.memory.connection.close()
            self.memory = None
        return result

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction for data that is never kept in memory. Raises sqlite3.Error."""
        try:
            with transaction(self.file.connection):
                yield
        except sqlite3.Error as error:
            self._lose_patience(error)
            raise
        self._trust()

    def begin_memory(self) -> Database:
        """The database in memory, for captures while the file cannot be written."""
        if self.memory is None:
            self.memory = Database(connect(":memory:"))
            NewsTable(self.memory.connection).go_on_behind(self.last_news)
        return self.memory

    # -- whether the file is well --------------------------------------------------------------------

    def check(self) -> None:
        """Check that the file is whole and still the one that was opened; write the captures in memory to it.
        Raises sqlite3.Error."""
        if self._wanted is not None:
            self._return_to(self._wanted)
        self._look()
        if self._watch is not None and self._watch.is_touched():
            try:
                check_whole(self.file.connection)
                self._watch.trust()
            except sqlite3.Error as error:
                self._failed(error)
                self.renewed_for(error)
        if self.failure is not None or self.memory is not None:
            self.write(lambda: None)

    def _look(self) -> None:
        if self._watch is not None and (fault := self._watch.fault()) is not None:
            self._renew(fault)

    def _trust(self) -> None:
        if self._watch is not None:
            self._watch.trust()

    def _failed(self, error: sqlite3.Error) -> None:
        self.failures += 1
        why = reason(error)
        if self.failure != why:
            log.error("cannot write the store %s: %s; keeping events in memory", self._path, why)
        self.failure = why
        self._lose_patience(error)

    def _lose_patience(self, error: sqlite3.Error) -> None:
        """Stop waiting for the file's lock: a process that held it this long may hold it for hours."""
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            self.failure = self.failure or reason(error)
            with suppress(sqlite3.Error):
                set_patience(self.file.connection, 0)

    def renewed_for(self, error: sqlite3.Error) -> bool:
        """If the error says that the file is damaged, replace it; return whether it was replaced."""
        return is_corrupt(error) and self._renew(f"is corrupt ({error})")

    def _renew(self, why: str) -> bool:
        if self._path is None:
            return False
        self._let_go()
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self.corrupt = move_aside(self._path, why, self._clock())
            connection, self._watch = connected(self._path, self._limits.max_bytes)
        except (OSError, sqlite3.Error, StoreError) as failure:
            self.failure = f"no new store can be begun: {reason(failure)}"
            log.error("%s; events are kept in memory; the store is tried again", self.failure)
            connection = connect(":memory:")
            self._path, self._wanted = None, self._path
            self.limits = self._limits.in_memory()
        self._use(connection)
        self.news.go_on_behind(self.last_news)
        self.on_renewed()
        return True

    def _return_to(self, path: Path) -> None:
        """Try again to create the file that could not be created; the next write moves memory into it."""
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                connection, watch = connected(path, self._limits.max_bytes)
            except sqlite3.Error as error:
                if not is_corrupt(error):
                    raise
                self.corrupt = move_aside(path, f"is corrupt ({error})", self._clock())
                connection, watch = connected(path, self._limits.max_bytes)
        except (OSError, sqlite3.Error, StoreError):
            return
        self.memory, held = self.file, self.memory
        if held is not None:
            held.connection.close()
        self._path, self._wanted, self._watch, self.limits = path, None, watch, self._limits
        self._use(connection)
        with suppress(sqlite3.Error):
            self.news.go_on_behind(self.last_news)
        self.on_renewed()


def connected(path: Path, max_bytes: int | None) -> tuple[sqlite3.Connection, FileWatch]:
    """Open the file (made if absent) and check that it is whole; its write-ahead log is limited to a quarter
    of
    ``max_bytes``. Raises OSError, sqlite3.Error or StoreError."""
    path.touch(mode=0o600)
    connection = connect(path)
    try:
        bound_log(connection, max_bytes)
        check_whole(connection)
        return connection, FileWatch(path)
    except BaseException:
        connection.close()
        raise
