"""Which events the sinks are to get, and how far each sink is, in one SQLite connection.

Not locked; methods raise sqlite3.Error and those that change something belong into a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from oomwatchd.delivery.policy import Delivery, News
from oomwatchd.store.schema import WITH_NEWS, scalar, version_of

#: news that wait for a sink; what is older is dropped
_MOST = 10_000
#: the name in the table for the local sinks, which get each event at once
LOCAL = ""
#: what is saved of a sink's state; the rest is counted on reading
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
        """Number the next news from here on, because sinks remember the number. For a new file."""
        if last:
            self._connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('news', ?)", (last,))

    def note(self, event_id: str, wall: float) -> int:
        """Note that there is news of an event; returns its number."""
        cursor = self._connection.execute("INSERT INTO news (event_id, wall) VALUES (?, ?)", (event_id, wall))
        number = cursor.lastrowid or 0
        self._connection.execute("DELETE FROM news WHERE number <= ?", (number - _MOST,))
        return number

    def after(self, position: int, limit: int) -> list[News]:
        """What came after ``position``, oldest first."""
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
        """How far each remote sink is; ``last`` is the number of the last news."""
        if version_of(self._connection) < WITH_NEWS:  # nobody but the daemon mends that
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
        """How far a sink has come."""
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

    def told(self) -> int | None:
        """Up to which news the local sinks are done; None in a file where they never got any."""
        row = self._connection.execute("SELECT position FROM delivery WHERE sink = ?", (LOCAL,)).fetchone()
        return None if row is None else int(row[0])

    def save_told(self, position: int) -> None:
        """Save up to which news the local sinks are done."""
        self._connection.execute(
            "INSERT INTO delivery (sink, position, delivered, left_out, dropped, failures)"
            " VALUES (?, ?, 0, 0, 0, 0) ON CONFLICT DO UPDATE SET position = excluded.position",
            (LOCAL, position),
        )
        self._forget()

    def _forget(self) -> None:
        """Delete news that every sink is done with."""
        self._connection.execute(
            "DELETE FROM news WHERE number <= (SELECT coalesce(min(position), 0) FROM delivery)"
        )
