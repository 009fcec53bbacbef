"""The pages and the API: the state at a glance, the list of events, one event's report.

Each is made when it is asked for, in a lane of its own (:mod:`oomwatchd.web.lanes`): no page delays a
scrape. Pages need no script; one small script renews them while they are looked at. Nothing is loaded
from elsewhere, and the policy sent with each page says so. Every text that a template prints is made
harmless first (:func:`oomwatchd.words.escape.harmless`), then escaped for HTML.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, get_args

import msgspec

from oomwatchd import __version__
from oomwatchd.delivery.policy import Delivery
from oomwatchd.diagnosis.headroom import Distance
from oomwatchd.errors import OomwatchdError
from oomwatchd.event import OomEvent, conclude, unexplained
from oomwatchd.records.capture import OomCapture
from oomwatchd.records.report import Constraint, Kind
from oomwatchd.render.html import content_policy, render_html
from oomwatchd.render.json import encode
from oomwatchd.web.lanes import Later
from oomwatchd.web.messages import Request, Response
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless, harmless_name

if TYPE_CHECKING:
    from jinja2 import Environment

log = logging.getLogger(__name__)

PAGE_ROWS = 50
API_ROWS, API_MOST = 100, 1000
#: of one filter's value; a cgroup's path is at most PATH_MAX
MAX_VALUE = 4096
HTML = "text/html; charset=utf-8"
JSON = "application/json"
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
FILTERS = ("kind", "constraint", "unit", "comm", "cgroup")


class Row(Protocol):
    """An event as the list shows it (``store.EventRow``)."""

    @property
    def number(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def wall(self) -> float: ...
    @property
    def kind(self) -> str: ...
    @property
    def constraint(self) -> str | None: ...
    @property
    def historical(self) -> bool: ...
    @property
    def kills(self) -> int: ...
    @property
    def victim_pid(self) -> int | None: ...
    @property
    def victim_comm(self) -> str | None: ...
    @property
    def cgroup(self) -> str | None: ...
    @property
    def unit(self) -> str | None: ...
    @property
    def summary(self) -> str | None: ...


class Events(Protocol):
    """Where events are found (``store.Store``)."""

    def list(
        self,
        *,
        limit: int,
        since: float | None = None,
        before: float | None = None,
        kind: str | None = None,
        unit: str | None = None,
        cgroup: str | None = None,
        constraint: str | None = None,
        comm: str | None = None,
        after: tuple[float, int] | None = None,
    ) -> Sequence[Row]: ...

    def get(self, event_id: str, /) -> OomCapture | None: ...


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon as its first page shows it. ``trouble`` is why it is not well, ``without`` what this host
    does not show it."""

    started: float
    trouble: str | None
    kernel_kills: float | None
    kills: float
    unaccounted: float | None
    stored: int
    store_failure: str | None
    without: tuple[str, ...]
    distance: Distance
    deliveries: tuple[Delivery, ...] = ()


class _Wrong(Exception):
    """A query that cannot be answered; the text says what is wrong with it."""


class Pages:
    """Answers for everything below ``/`` that is no metric; None: there is no such page."""

    def __init__(self, state: Callable[[], State], events: Callable[[], Events]) -> None:
        self._state = state
        self._events = events

    def __call__(self, request: Request) -> Response | Later | None:
        path = request.path
        if path in _ASSETS:
            return _asset(path)
        if path == "/":
            return Later("page", lambda: self._safely(self._home, request))
        if path == "/events":
            return Later("page", lambda: self._safely(self._list, request))
        if path == "/api/v1/events":
            return Later("page", lambda: self._safely(self._list_json, request))
        if path == "/api/v1/event.schema.json":
            return Later("page", _schema)
        for prefix, make in (("/events/", self._report), ("/api/v1/events/", self._event_json)):
            if path.startswith(prefix) and "/" not in path[len(prefix) :]:
                return Later("page", partial(_safely, make, path[len(prefix) :]))
        return None

    def _safely(self, make: Callable[[Request], Response], request: Request) -> Response:
        try:
            return make(request)
        except _Wrong as wrong:
            return Response(HTTPStatus.BAD_REQUEST, f"{wrong}\n".encode())
        except OomwatchdError as error:
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"{harmless(str(error))}\n".encode())

    # -- pages -------------------------------------------------------------------------------------

    def _home(self, _request: Request) -> Response:
        state = self._state()
        rows = self._events().list(limit=8)
        return _page("state.html.j2", state=state, view=_view(state), rows=[_shown(row) for row in rows])

    def _list(self, request: Request) -> Response:
        query = _query(request)
        rows, more = self._found(query, PAGE_ROWS)
        wanted = {name: query.get(name, "") for name in (*FILTERS, "since", "before")}
        return _page(
            "events.html.j2",
            rows=[_shown(row) for row in rows],
            wanted=wanted,
            filtered=any(wanted.values()),
            kinds=get_args(Kind),
            constraints=get_args(Constraint),
            older=_following("/events", query, rows) if more else None,
            newest=_link("/events", {k: v for k, v in wanted.items() if v}) if "after" in query else None,
        )

    def _report(self, event_id: str) -> Response:
        capture = self._events().get(event_id)
        if capture is None:
            return _NO_EVENT
        event = _event(capture)
        if event.id != event_id:  # a beginning of it was given
            return Response(HTTPStatus.FOUND, b"", headers={"Location": f"/events/{event.id}"})
        text = render_html(event, capture.records)
        if "<body>" in text:
            text = text.replace("<body>", f"<body>\n{_NAVIGATION}", 1)
        policy = f"{content_policy()}; frame-ancestors 'none'"
        return Response(HTTPStatus.OK, text.encode(), HTML, {"Content-Security-Policy": policy})

    # -- API ---------------------------------------------------------------------------------------

    def _list_json(self, request: Request) -> Response:
        query = _query(request)
        limit = API_ROWS
        if "limit" in query:
            text = query["limit"]
            limit = int(text) if len(text) < 10 and text.isascii() and text.isdigit() else 0
            if not 0 < limit <= API_MOST:
                raise _Wrong(f"limit: not a number from 1 to {API_MOST}")
        rows, more = self._found(query, limit)
        document = {
            "events": [_as_json(row) for row in rows],
            "next": _following("/api/v1/events", query, rows) if more else None,
        }
        return Response(HTTPStatus.OK, msgspec.json.encode(document) + b"\n", JSON)

    def _event_json(self, event_id: str) -> Response:
        capture = self._events().get(event_id)
        if capture is None:
            return Response(HTTPStatus.NOT_FOUND, b'{"error":"no such event"}\n', JSON)
        return Response(HTTPStatus.OK, encode(_event(capture)) + b"\n", JSON)

    def _found(self, query: Mapping[str, str], limit: int) -> tuple[Sequence[Row], bool]:
        """Rows, and whether there are more."""
        wanted: dict[str, Any] = {name: query[name] for name in FILTERS if query.get(name)}
        for name in ("since", "before"):
            if query.get(name):
                wanted[name] = _moment(name, query[name])
        if "after" in query:
            wanted["after"] = _cursor(query["after"])
        rows = self._events().list(limit=limit + 1, **wanted)
        return rows[:limit], len(rows) > limit


def _event(capture: OomCapture) -> OomEvent:
    """The event, which says itself if a part of it could not be explained; the log says why."""
    event, error = conclude(capture)
    if error is not None:
        log.error("event %s: %s", event.id, unexplained(error))
    return event


def _safely(make: Callable[[str], Response], quoted_id: str) -> Response:
    from urllib.parse import unquote

    event_id = unquote(quoted_id, errors="replace")
    if len(event_id) > 200:
        return _NO_EVENT
    try:
        return make(event_id)
    except OomwatchdError as error:  # damaged, or several begin so
        return Response(HTTPStatus.NOT_FOUND, f"{harmless(str(error))}\n".encode())


def _query(request: Request) -> dict[str, str]:
    from urllib.parse import parse_qsl  # brings ipaddress: 0.5 MiB for who asks for a page

    known = {*FILTERS, "since", "before", "after", "limit"}
    try:
        pairs = parse_qsl(request.query, keep_blank_values=True, max_num_fields=20, errors="replace")
    except ValueError:
        raise _Wrong("too many fields") from None
    query = {}
    for name, value in pairs:
        if name not in known:
            raise _Wrong(f"unknown field {harmless(name[:100])!r}; known here: {', '.join(sorted(known))}")
        if len(value) > MAX_VALUE:
            raise _Wrong(f"{name}: too long")
        if value:
            query[name] = value
    return query


def _moment(name: str, text: str) -> float:
    """Seconds since the epoch, or ISO 8601 (in UTC unless it says otherwise)."""
    try:
        return _finite(float(text))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise _Wrong(f"{name}: neither seconds since the epoch nor a time like 2026-01-31T12:00") from None


def _cursor(text: str) -> tuple[float, int]:
    wall, _, number = text.partition(":")
    try:
        if len(number) > 18:
            raise ValueError
        return _finite(float(wall)), int(number)
    except ValueError:
        raise _Wrong("after: take it from the link to the next page") from None


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return value


def _following(path: str, query: Mapping[str, str], rows: Sequence[Row]) -> str:
    last = rows[-1]
    return _link(path, {**query, "after": f"{last.wall!r}:{last.number}"})


def _link(path: str, query: Mapping[str, str]) -> str:
    from urllib.parse import urlencode

    return f"{path}?{urlencode(query)}"


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "url": f"/api/v1/events/{row.id}",
        "time": _iso(row.wall),
        "kind": row.kind,
        "constraint": row.constraint,
        "kills": row.kills,
        "victim_pid": row.victim_pid,
        "victim_comm": row.victim_comm,
        "cgroup": row.cgroup,
        "unit": row.unit,
        "summary": row.summary,
        "historical": row.historical,
    }


def _schema() -> Response:
    from oomwatchd.render.schema import event_schema

    return Response(HTTPStatus.OK, msgspec.json.encode(event_schema()) + b"\n", "application/schema+json")


# -- what the templates show ------------------------------------------------------------------------


def _shown(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "time": _iso(row.wall),
        "when": _time(row.wall),
        "kind": row.kind,
        "kills": row.kills,
        "victim": "" if row.victim_comm is None else harmless_name(row.victim_comm),
        "pid": row.victim_pid,
        "where": row.unit or row.cgroup or "",
        "summary": row.summary,
        "historical": row.historical,
    }


def _view(state: State) -> dict[str, Any]:
    seen = state.distance
    zones = []
    for zone in seen.zones:
        room = zone.headroom_bytes
        zones.append(
            {
                "label": f"node {zone.node} {zone.zone}",
                "value": size(room),
                "share": max(0.0, min(1.0, room / zone.managed_bytes)),
                # a low zone may be too small to have any, however free it is
                "tight": room <= 0 and zone.managed_bytes > zone.min_bytes + zone.reserve_bytes,
                "note": f"{size(zone.free_bytes)} free of {size(zone.managed_bytes)}, "
                f"min {size(zone.min_bytes)}, reserve {size(zone.reserve_bytes)}, "
                f"largest free order {zone.largest_free_order}",
            }
        )
    cgroups = [
        {
            "label": group.path,
            "value": size(group.headroom_bytes),
            "share": max(0.0, min(1.0, group.headroom_bytes / group.limit_bytes))
            if group.limit_bytes
            else 0.0,
            "tight": group.headroom_bytes <= 0,
            "note": f"{size(group.usage_bytes)} charged of {size(group.limit_bytes)}",
        }
        for group in seen.cgroups[:10]
    ]
    available = None
    if seen.available_bytes is not None and seen.total_bytes:
        share = percent(seen.available_bytes, seen.total_bytes)
        available = f"{size(seen.available_bytes)} of {size(seen.total_bytes)} ({share})"
    pressure = [
        f"{share}: {', '.join(f'{seen.pressure[share, w] * 100:.1f} % over {w} s' for w in (10, 60, 300))}"
        for share in ("some", "full")
        if (share, 10) in seen.pressure
    ]
    return {
        "since": _time(state.started),
        "since_iso": _iso(state.started),
        "zones": zones,
        "cgroups": cgroups,
        "available": available,
        "pressure": pressure,
    }


def _iso(wall: float) -> str:
    try:
        return datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return ""


def _time(wall: float) -> str:
    return _iso(wall).replace("T", " ").replace("Z", " UTC")


def _page(template: str, **values: object) -> Response:
    text = _environment().get_template(template).render(version=__version__, **values)
    return Response(HTTPStatus.OK, text.encode(), HTML, {"Content-Security-Policy": POLICY})


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    return Environment(
        loader=PackageLoader("oomwatchd.web", "parts"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else harmless(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


_ASSETS = {
    "/assets/pages.css": "text/css; charset=utf-8",
    "/assets/pages.js": "text/javascript; charset=utf-8",
}


@cache
def _asset(path: str) -> Response:
    """A file of the package, read once."""
    from importlib.resources import files

    content = files("oomwatchd.web").joinpath("parts", path.rpartition("/")[2]).read_bytes()
    return Response(HTTPStatus.OK, content, _ASSETS[path], {"Cache-Control": "no-cache"})


_NO_EVENT = Response(HTTPStatus.NOT_FOUND, b"no such event; see /events\n")
#: the report's own style serves it
_NAVIGATION = '<nav aria-label="Site"><a href="/">State</a> · <a href="/events">All events</a></nav>'
