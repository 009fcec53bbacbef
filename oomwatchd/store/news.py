"""The news (events that sinks are to get) and each sink's position in them, in one SQLite connection.

Not locked; methods raise sqlite3.Error, and those that change something must run in a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from oomwatchd.delivery.policy import Delivery, News
from oomwatchd.store.schema import WITH_NEWS, scalar, version_of

#: the most news that wait for a sink; older ones are dropped
_MOST = 10_000
#: the name in the table for the local sinks, which get each event at once
LOCAL = ""
#: the saved fields of a sink's state; the others are counted on reading
_DELIVERY = tuple(name for name in Delivery.__struct_fields__ if name not in ("waiting", "oldest_waiting"))


class NewsTable:
    """The news of one connection. Numbers have no gaps: one that is missing was given up."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def last(self) -> int:
        """The number of the last news that was ever noted, 0 for none."""
        return scalar(self._connection, "SELECT max(seq) FROM sqlite_sequence WHERE name = 'news'")

    def go_on_behind(self, last: int) -> None:
        """In a new file: number the next news after ``last``, because sinks remember their numbers."""
        if last:
            self._connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('news', ?)", (last,))

    def note(self, event_id: str, wall: float) -> int:
        """Note that there is news of an event; returns its number."""
        cursor = self._connection.execute("INSERT INTO news (event_id, wall) VALUES (?, ?)", (event_id, wall))
        number = cursor.lastrowid or 0
        self._connection.execute("DELETE FROM news WHERE number <= ?", (number - _MOST,))
        return number

    def after(self, position: int, limit: int) -> list[News]:
        """The news after ``position``, oldest first."""
        query = "SELECT number, event_id, wall FROM news WHERE number > ? ORDER BY number LIMIT ?"
        rows = self._connection.execute(query, (position, limit))
        return [News(number=number, event_id=name, wall=wall) for number, name, wall in rows]

    def take_from(self, other: NewsTable) -> None:
        """Copy what another connection holds."""
        for row in other._connection.execute("SELECT number, event_id, wall FROM news"):
            self._connection.execute(
                "INSERT OR REPLACE INTO news (number, event_id, wall) VALUES (?, ?, ?)", row
            )

    def deliveries(self, last: int) -> Sequence[Delivery]:
        """The state of each remote sink; ``last`` is the number of the last news."""
        if version_of(self._connection) < WITH_NEWS:  # only the daemon upgrades the file
            return ()
        query = f"""
            SELECT {", ".join(_DELIVERY)}, (SELECT min(wall) FROM news WHERE number > position)
            FROM delivery WHERE sink != '{LOCAL}' ORDER BY sink
        """  # noqa: S608
        found = []
        for *values, oldest in self._connection.execute(query):
            delivery = Delivery(**dict(zip(_DELIVERY, values, strict=True)))
            waiting = max(0, last - delivery.position)
            found.append(msgspec.structs.replace(delivery, waiting=waiting, oldest_waiting=oldest))
        return found

    def save_delivery(self, delivery: Delivery) -> None:
        """Save a sink's state."""
        query = f"""
            INSERT INTO delivery ({", ".join(_DELIVERY)}) VALUES ({", ".join("?" * len(_DELIVERY))})
            ON CONFLICT DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _DELIVERY)}
        """  # noqa: S608
        self._connection.execute(query, [getattr(delivery, name) for name in _DELIVERY])
        self._forget()

    def forget_deliveries(self, kept: Sequence[str]) -> None:
        """Forget the sinks that are not among ``kept``."""
        kept = (LOCAL, *kept)
        marks = ", ".join("?" * len(kept))
        self._connection.execute(f"DELETE FROM delivery WHERE sink NOT IN ({marks})", kept)  # noqa: S608
        self._forget()

    def delivered(self) -> int | None:
        """The number up to which the local sinks got the news; None in a file where they never got any."""
        row = self._connection.execute("SELECT position FROM delivery WHERE sink = ?", (LOCAL,)).fetchone()
        return None if row is None else int(row[0])

    def save_delivered(self, position: int) -> None:
        """Save the number up to which the local sinks got the news."""
        self._connection.execute(
            "INSERT INTO delivery (sink, position, delivered, left_out, dropped, failures)"
            " VALUES (?, ?, 0, 0, 0, 0) ON CONFLICT DO UPDATE SET position = excluded.position",
            (LOCAL, position),
        )
        self._forget()

    def _forget(self) -> None:
        """Delete news that every sink has finished."""
        self._connection.execute(
            "DELETE FROM news WHERE number <= (SELECT coalesce(min(position), 0) FROM delivery)"
        )
