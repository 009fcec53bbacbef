"""A query's fields -> events of the store: the filters, the next page, and the links for both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from oomwatchd.event import groups
from oomwatchd.event.groups import Group, grouped
from oomwatchd.records.capture import OomCapture
from oomwatchd.web.messages import Request
from oomwatchd.words.escape import harmless
from oomwatchd.words.moments import FORMS, moment

#: the longest value of a filter: a cgroup's path is at most PATH_MAX
MAX_VALUE = 4096
#: the first three must match exactly, the others by the beginning of a name
FILTERS = ("kind", "constraint", "host", "unit", "container", "pod", "namespace", "comm", "cgroup")
TIMES = ("since", "before")
#: rows that are read for one page of groups; 1000 take 30 ms
GROUPED_ROWS = 2000


class Row(groups.Row, Protocol):
    """An event as the list shows it (``store.EventRow``)."""

    @property
    def number(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def historical(self) -> bool: ...
    @property
    def victim_pid(self) -> int | None: ...
    @property
    def container_id(self) -> str | None: ...
    @property
    def pod(self) -> str | None: ...
    @property
    def namespace(self) -> str | None: ...


class Events(Protocol):
    """The store, as it is needed here (``store.Store``)."""

    def list(
        self,
        *,
        limit: int,
        since: float | None = None,
        before: float | None = None,
        kind: str | None = None,
        unit: str | None = None,
        container: str | None = None,
        pod: str | None = None,
        namespace: str | None = None,
        cgroup: str | None = None,
        constraint: str | None = None,
        comm: str | None = None,
        host: str | None = None,
        after: tuple[float, int] | None = None,
    ) -> Sequence[Row]: ...

    def get(self, event_id: str, /) -> OomCapture | None: ...

    def beside(self, event_id: str, /) -> tuple[str | None, str | None]:
        """The ids of the next newer and the next older event."""


class WrongQuery(Exception):
    """A query that cannot be answered; the text says what is wrong with it."""


def read_query(request: Request) -> dict[str, str]:
    """The fields of a request that have a value. Raises WrongQuery."""
    from urllib.parse import parse_qsl  # loads ipaddress, 0.5 MiB: only when a page is asked for

    known = {*FILTERS, *TIMES, "after", "limit", "each"}
    try:
        pairs = parse_qsl(request.query, keep_blank_values=True, max_num_fields=24, errors="replace")
    except ValueError:
        raise WrongQuery("too many fields") from None
    query = {}
    for name, value in pairs:
        if name not in known:
            raise WrongQuery(
                f"unknown field {harmless(name[:100])!r}; known here: {', '.join(sorted(known))}"
            )
        if len(value) > MAX_VALUE:
            raise WrongQuery(f"{name}: too long")
        if value:
            query[name] = value
    return query


def find(events: Events, query: Mapping[str, str], limit: int, now: float) -> tuple[Sequence[Row], bool]:
    """At most ``limit`` events, the newest first, and whether there are more. Raises WrongQuery."""
    wanted: dict[str, Any] = {name: query[name] for name in FILTERS if name in query}
    for name in TIMES:
        if name in query:
            wanted[name] = _moment(name, query[name], now)
    if "after" in query:
        wanted["after"] = _cursor(query["after"])
    rows = events.list(limit=limit + 1, **wanted)
    return rows[:limit], len(rows) > limit


def find_groups(
    events: Events, query: Mapping[str, str], limit: int, now: float, *, rows_read: int = GROUPED_ROWS
) -> tuple[Sequence[Group[Row]], str | None]:
    """At most ``limit`` groups of events that belong together, and where the next page begins (``after``);
    None: there is no next page. Raises WrongQuery."""
    rows, more = find(events, query, rows_read, now)
    groups, full = grouped(rows, limit)
    read = sum(len(group.rows) for group in groups)
    return groups, position(rows[read - 1]) if rows and (full or more) else None


def position(row: Row) -> str:
    """The value of ``after`` for the page that follows this event."""
    return f"{row.wall!r}:{row.number}"


def limit_of(query: Mapping[str, str], usual: int, most: int) -> int:
    """How many events are wanted. Raises WrongQuery."""
    text = query.get("limit", str(usual))
    limit = int(text) if len(text) < 10 and text.isascii() and text.isdigit() else 0
    if not 0 < limit <= most:
        raise WrongQuery(f"limit: not a number from 1 to {most}")
    return limit


def link(path: str, query: Mapping[str, str]) -> str:
    """A link with these fields."""
    from urllib.parse import urlencode

    return f"{path}?{urlencode(query)}" if query else path


def _moment(name: str, text: str, now: float) -> float:
    """Read a time: seconds since the epoch, or a form that the commands take, in UTC unless it has a zone."""
    try:
        return _finite(float(text))
    except ValueError:
        pass
    try:
        return moment(text, now, utc=True)
    except ValueError:
        raise WrongQuery(f"{name}: no time: give {FORMS}, or seconds since the epoch") from None


def _cursor(text: str) -> tuple[float, int]:
    wall, _, number = text.partition(":")
    try:
        if len(number) > 18:
            raise ValueError
        return _finite(float(wall)), int(number)
    except ValueError:
        raise WrongQuery("after: take it from the link to the next page") from None


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return value
