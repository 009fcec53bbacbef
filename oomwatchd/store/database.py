"""The events of one SQLite connection: put, list, get, prune; how far each boot was read, its counters.

Not locked: the owner of a connection lets one thread at a time use it. Methods raise sqlite3.Error; those
that change something must run in a transaction, except :meth:`Database.save_counters`.
"""

from __future__ import annotations

import logging
import math
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from oomwatchd.event import OomEvent
from oomwatchd.records.capture import OomCapture
from oomwatchd.store.rows import (
    COLUMNS,
    SHOWN,
    AmbiguousIdError,
    EventRow,
    Known,
    Limits,
    Outcome,
    StoreError,
    Tally,
    decoded,
    first_usec,
    values_of,
)
from oomwatchd.store.schema import LATER, scalar, version_of

log = logging.getLogger(__name__)

#: rows deleted at a time, and how many times at most for one stored capture
_PRUNE_ROWS = 32
_PRUNE_ROUNDS = 8
#: boots whose position and counters are kept
_BOOTS = 16
#: a wall clock before 2020 was never set: ages are not known
_CLOCK_UNSET = 1_577_836_800.0

_WORDS = re.compile(r"\w+")
_COLUMNS = ", ".join(COLUMNS)
_MARKS = ", ".join("?" * len(COLUMNS))
_LATER = {
    "new": "{0} = excluded.{0}",
    "greater": "{0} = max({0}, excluded.{0})",
    "known": "{0} = coalesce(excluded.{0}, {0})",
}
_PUT = (
    f"INSERT INTO event ({_COLUMNS}) VALUES ({_MARKS}) ON CONFLICT DO UPDATE SET "  # noqa: S608
    + ", ".join(_LATER[rule].format(name) for name, rule in COLUMNS.items() if rule != "old")
)


class Database:
    """The events of one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    # -- events ------------------------------------------------------------------------------------

    def put(
        self, capture: OomCapture, event: OomEvent, tally: Tally, elsewhere: Known | None, now: float
    ) -> Outcome:
        """Insert or update; ``elsewhere`` is what the file knows if this database is in memory."""
        boot_id = capture.source.boot_id
        known = self.known(event.id, capture) or elsewhere
        if known is None:
            if self._was_dropped(capture):
                return "known"
        elif known.other_source:
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
        self.connection.execute(_PUT, values_of(capture, event, now))
        if boot_id is not None:
            self.save_position(boot_id, -1 if capture.last_seq is None else capture.last_seq)
            self.save_counters(boot_id, counters)
        elif counters and tally.boot_id is not None:
            self.save_counters(tally.boot_id, counters)
        return "updated" if known else "new"

    def known(self, event_id: str, capture: OomCapture) -> Known | None:
        """What is already stored of this capture's report."""
        row = self.connection.execute(
            "SELECT id, capture, kills, undecoded FROM event"
            " WHERE id = ? OR (first_seq IS NOT NULL AND boot_id = ? AND first_seq = ?)",
            (event_id, capture.source.boot_id, capture.first_seq),
        ).fetchone()
        if row is None:
            return self._known_of_other_source(capture)
        try:
            return Known(decoded(row[0], row[1]), row[2], row[3])
        except StoreError as error:
            log.error("%s", error)
            return Known(None, row[2], row[3])

    def _known_of_other_source(self, capture: OomCapture) -> Known | None:
        """The same report, read from the other of ring buffer and journal: its first record has the same
        stamp and text in both. The later reading is ignored unless it has more kills."""
        rows = self.connection.execute(
            "SELECT id, capture, kills, undecoded FROM event"
            " WHERE boot_id = ? AND first_usec = ? AND (first_seq IS NULL) <> ? LIMIT 8",
            (capture.source.boot_id, first_usec(capture), capture.first_seq is None),
        )
        for event_id, blob, kills, undecoded in rows:
            with suppress(StoreError):
                stored = decoded(event_id, blob)
                if stored.records[:1] and stored.records[0].text.rstrip() == capture.records[0].text.rstrip():
                    return Known(stored, kills, undecoded, other_source=True)
        return None

    def _was_dropped(self, capture: OomCapture) -> bool:
        """Whether it was stored before and deleted among the oldest."""
        row = self.connection.execute(
            "SELECT dropped_seq, dropped_usec FROM boot WHERE boot_id = ?", (capture.source.boot_id,)
        ).fetchone()
        if row is None:
            return False
        if capture.first_seq is not None:
            return bool(capture.first_seq <= row[0])
        usec = first_usec(capture)
        return usec is not None and bool(usec <= row[1])

    def get(self, event_id: str) -> OomCapture | None:
        """The capture of an event, given its id or a unique beginning of the id. Raises StoreError if several
        ids begin so or the row is damaged."""
        rows = self.connection.execute(
            "SELECT id, capture FROM event WHERE id = ?1"
            " OR (id > ?1 AND substr(id, 1, length(?1)) = ?1) ORDER BY id LIMIT 2",
            (event_id,),
        ).fetchall()
        if len(rows) == 2 and rows[0][0] != event_id:
            raise AmbiguousIdError(f"several events begin with {event_id!r}", hint="give more of the id")
        return decoded(*rows[0]) if rows else None

    def list(
        self, conditions: Mapping[str, object], limit: int, *, oldest_first: bool = False
    ) -> Iterator[EventRow]:
        """Rows, newest first. The keys of ``conditions`` are SQL with one placeholder for the value, or one
        for each value of the tuple."""
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        values = [
            v for value in conditions.values() for v in (value if isinstance(value, tuple) else (value,))
        ]
        version = version_of(self.connection)  # only the daemon upgrades an older file
        columns = ", ".join(name if LATER.get(name, 0) <= version else "NULL" for name in SHOWN)
        if any(LATER.get(name, 0) > version for text in conditions for name in _WORDS.findall(text)):
            return
        # The statement is put together from constants alone; values are bound.
        order = "wall, number" if oldest_first else "wall DESC, number DESC"
        query = f"SELECT {columns} FROM event {where} ORDER BY {order} LIMIT ?"  # noqa: S608
        for row in self.connection.execute(query, (*values, limit)):
            fields = dict(zip(EventRow.__struct_fields__, row, strict=True))
            yield msgspec.convert(fields, EventRow, strict=False)

    def after(self, number: int, since: float, limit: int) -> Sequence[tuple[int, str, bytes]]:
        """Number, id and blob of those stored after ``number``, in the order they were stored."""
        return self.connection.execute(
            "SELECT number, id, capture FROM event WHERE number > ? AND wall >= ? ORDER BY number LIMIT ?",
            (number, since, limit),
        ).fetchall()

    # -- how much is kept --------------------------------------------------------------------------

    @property
    def events(self) -> int:
        """How many are stored. SQLite visits an index for it: 4 us of 10 000 rows, 0.25 ms of 100 000."""
        return scalar(self.connection, "SELECT count(*) FROM event")

    @property
    def bytes(self) -> int:
        """Bytes used in the file."""
        connection = self.connection
        pages = scalar(connection, "PRAGMA page_count") - scalar(connection, "PRAGMA freelist_count")
        return pages * scalar(connection, "PRAGMA page_size")

    def prune(self, limits: Limits, now: float) -> None:
        """Delete the oldest until the limits hold, or until this put deleted its share; the last event always
        stays."""
        newest = scalar(self.connection, "SELECT max(number) FROM event")
        for _ in range(_PRUNE_ROUNDS):
            surplus = 0 if limits.max_events is None else self.events - limits.max_events
            if surplus <= 0 and limits.max_bytes is not None and self.bytes > limits.max_bytes:
                surplus = 1
            if surplus <= 0:
                break
            whose, values = self._crowding()
            if not self.delete_oldest(f"number < ?{whose}", (newest, *values), min(surplus, _PRUNE_ROWS)):
                break
        if limits.max_age_seconds is not None:
            condition = "wall < ? AND wall > ? AND number < ?"
            self.delete_oldest(condition, (now - limits.max_age_seconds, _CLOCK_UNSET, newest), _PRUNE_ROWS)

    def _crowding(self) -> tuple[str, tuple[object, ...]]:
        """Whose events are deleted first: while followed hosts have more than half of the store, those of the
        followed host with the most events; then the oldest of all."""
        rows = self.connection.execute(
            "SELECT host, count(*) FROM event WHERE host IS NOT NULL GROUP BY host ORDER BY 2 DESC"
        ).fetchall()
        if rows and sum(count for _, count in rows) * 2 > self.events:
            return " AND host = ?", (rows[0][0],)
        return "", ()

    def delete_oldest(self, condition: str, values: tuple[object, ...], limit: int) -> int:
        """Delete up to ``limit`` of the oldest rows. How far each boot was stored is kept, so that its
        records are "known" when they are read again."""
        rows = self.connection.execute(
            f"SELECT number, boot_id, first_seq, first_usec FROM event WHERE {condition}"  # noqa: S608
            " ORDER BY number LIMIT ?",
            (*values, limit),
        ).fetchall()
        for number, boot_id, first_seq, usec in rows:
            self.connection.execute("DELETE FROM event WHERE number = ?", (number,))
            self.connection.execute(
                "UPDATE boot SET dropped_seq = max(dropped_seq, coalesce(?, -1)),"
                " dropped_usec = max(dropped_usec, coalesce(?, -1)) WHERE boot_id = ?",
                (first_seq, usec, boot_id),
            )
        return len(rows)

    # -- boots -------------------------------------------------------------------------------------

    def save_position(self, boot_id: str, last_seq: int) -> None:
        """Save up to which record a boot is stored."""
        row = self.connection.execute("SELECT 1 FROM boot WHERE boot_id = ?", (boot_id,)).fetchone()
        self.connection.execute(
            "INSERT INTO boot (boot_id, last_seq) VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET last_seq = max(last_seq, excluded.last_seq)",
            (boot_id, last_seq),
        )
        if row is not None:
            return
        # boot ids have no order: the newest events tell the recent boots
        recent = "SELECT boot_id FROM event WHERE boot_id IS NOT NULL GROUP BY boot_id"
        recent += f" ORDER BY max(number) DESC LIMIT {_BOOTS}"
        for table in ("boot", "counter"):
            self.connection.execute(
                f"DELETE FROM {table} WHERE boot_id <> ? AND boot_id NOT IN ({recent})",  # noqa: S608
                (boot_id,),
            )

    def save_counters(self, boot_id: str, counters: Mapping[str, float]) -> None:
        """Counters by name, of one boot; NaN forgets one."""
        gone = [(boot_id, name) for name, value in counters.items() if math.isnan(value)]
        if gone:
            self.connection.executemany("DELETE FROM counter WHERE boot_id = ? AND name = ?", gone)
        self.connection.executemany(
            "INSERT INTO counter (boot_id, name, value) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET value = excluded.value",
            [(boot_id, name, value) for name, value in counters.items() if not math.isnan(value)],
        )

    def of_boot(self, query: str, *values: str | int) -> Sequence[tuple[Any, ...]]:
        """All rows of a query."""
        return self.connection.execute(query, values).fetchall()

    def take_from(self, other: Database) -> None:
        """Copy what another connection holds."""
        take = f"INSERT OR REPLACE INTO event ({_COLUMNS}) VALUES ({_MARKS})"  # noqa: S608
        for row in other.connection.execute(f"SELECT {_COLUMNS} FROM event ORDER BY number"):  # noqa: S608
            self.connection.execute(take, row)
        for boot_id, last_seq in other.connection.execute("SELECT boot_id, last_seq FROM boot"):
            self.save_position(boot_id, last_seq)
        for boot_id, name, value in other.connection.execute("SELECT boot_id, name, value FROM counter"):
            self.save_counters(boot_id, {name: value})
