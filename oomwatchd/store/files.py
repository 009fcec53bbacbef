"""Checks of the store's file on the disk: that it is whole, and still the one that was opened.

A process that opens and closes a file loses all its POSIX locks on that file (fcntl(2)), SQLite's too. So the
checks here run before SQLite opens the file, or through a descriptor that stays open as long as the
connection.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import time
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

FILE_NAME = "events.sqlite"
_MAGIC = b"SQLite format 3\0"


class FileWatch:
    """Notices that another process removed, replaced, cut or overwrote the file. A check costs two system
    calls."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = 0
        self._stamp = 0
        self.trust()

    def close(self) -> None:
        """Close the descriptor. Call it after the connection was closed, see the module."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def trust(self) -> None:
        """Note the file's present state as good: SQLite has just written it. Never raises."""
        with suppress(OSError):
            status = os.fstat(self._descriptor)
            self._size, self._stamp = status.st_size, status.st_mtime_ns

    def fault(self) -> str | None:
        """What is wrong with the file; None if no fault shows. Never raises."""
        try:
            return self._fault()
        except (FileNotFoundError, NotADirectoryError):
            return "was removed"
        except OSError:
            return None  # EIO or out of memory: SQLite fails too, and captures go to memory

    def _fault(self) -> str | None:
        named, opened = self._path.stat(), os.fstat(self._descriptor)
        if not os.path.samestat(named, opened):
            return "was replaced by another file"
        if opened.st_size < self._size:
            return f"was cut from {self._size} to {opened.st_size} bytes"
        if opened.st_size and os.pread(self._descriptor, len(_MAGIC), 0) != _MAGIC:
            return "has no header of a database any more"
        return None

    def is_touched(self) -> bool:
        """Whether another process wrote to it, so that its pages must be checked. Never raises."""
        with suppress(OSError):
            return os.fstat(self._descriptor).st_mtime_ns != self._stamp
        return False


def check_kinds(path: Path) -> None:
    """Refuse a FIFO or a device in place of one of the files: opening it would block. Raises OSError."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            name = path.with_name(path.name + suffix)
            if not stat.S_ISREG(name.stat().st_mode):
                raise OSError(None, f"{name.name} is not a regular file")


def has_whole_log(path: Path) -> bool:
    """Whether SQLite will read the write-ahead log beside ``path``: if the log's header is damaged, SQLite
    silently takes it for empty (https://www.sqlite.org/fileformat2.html#the_write_ahead_log). The header
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


def check_whole(connection: sqlite3.Connection) -> None:
    """Read the whole file (60 MB in 0.06 s from the page cache). Damage found later could lose counters and
    keep events, or the other way round. Raises sqlite3.DatabaseError."""
    (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        found = sqlite3.DatabaseError(said)
        found.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise found


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether the error says that the file is damaged, or not an SQLite file."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def move_aside(path: Path, why: str, now: float) -> Path:
    """Move a file that cannot be used aside; only the last such file is kept. Raises OSError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    for older in path.parent.glob(f"{path.name}.corrupt-*"):
        older.unlink()
    kept = False
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
            kept = kept or not suffix
    log.error("the store %s %s: %sa new one begun", path, why, f"moved to {aside.name}, " if kept else "")
    return aside


def reason(error: BaseException) -> str:
    """The error's message without numbers and names."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
