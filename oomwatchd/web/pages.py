"""The pages and the API: the state at a glance, the list of events, one event's report.

Each is made on request, in its own lane (:mod:`oomwatchd.web.lanes`), so no page delays a scrape. Pages work
without a script; one small script renews them while they are open. Nothing is loaded from elsewhere, and the
policy sent with each page forbids it. Every text that a template prints is first made harmless
(:func:`oomwatchd.words.escape.harmless`), then escaped for HTML.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, get_args

import msgspec

from oomwatchd import __version__
from oomwatchd.errors import OomwatchdError
from oomwatchd.event import OomEvent, conclude, unexplained
from oomwatchd.event.groups import Group
from oomwatchd.hostname import host_name
from oomwatchd.records.capture import OomCapture
from oomwatchd.records.report import Constraint, Kind
from oomwatchd.render.html import content_policy, render_html
from oomwatchd.render.json import encode
from oomwatchd.web.found import (
    FILTERS,
    TIMES,
    Events,
    Row,
    WrongQuery,
    find,
    find_groups,
    limit_of,
    link,
    position,
    read_query,
)
from oomwatchd.web.lanes import Later
from oomwatchd.web.messages import Request, Response
from oomwatchd.web.shown import State, row_document, shown, state_view
from oomwatchd.words.escape import harmless

if TYPE_CHECKING:
    from jinja2 import Environment

log = logging.getLogger(__name__)

PAGE_ROWS = 50
#: the first page is renewed every 10 s
HOME_ROWS, HOME_READ = 8, 400
API_ROWS, API_MOST = 100, 1000
#: beginnings of ids may be given
_ID_LENGTH = 200
HTML = "text/html; charset=utf-8"
JSON = "application/json"
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Pages:
    """Answers for everything below ``/`` except metrics and health; None: there is no such page."""

    def __init__(
        self,
        state: Callable[[], State],
        events: Callable[[], Events],
        host: Callable[[], str] = host_name,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._events = events
        self._host = host
        self._clock = clock

    def __call__(self, request: Request) -> Response | Later | None:
        path = request.path
        if path in _ASSETS:
            return _asset(path)
        make = {"/": self._home, "/events": self._list, "/api/v1/events": self._list_json}.get(path)
        if make is not None:
            return Later("page", partial(_safely, make, request))
        if path == "/api/v1/event.schema.json":
            return Later("page", _schema)
        for prefix, ending, report in (
            ("/events/", ".md", self._markdown),
            ("/events/", "", self._report),
            ("/api/v1/events/", "", self._event_json),
        ):
            name = path.removeprefix(prefix).removesuffix(ending)
            if path == f"{prefix}{name}{ending}" and "/" not in name:
                return Later("page", partial(_of_event, report, name))
        return None

    # -- pages -------------------------------------------------------------------------------------

    def _home(self, _request: Request) -> Response:
        state = self._state()
        groups, _ = find_groups(self._events(), {}, HOME_ROWS, self._clock(), rows_read=HOME_READ)
        rows = [shown(group, {}) for group in groups]
        return self._page("state.html.j2", state=state, view=state_view(state), rows=rows)

    def _list(self, request: Request) -> Response:
        try:
            query = read_query(request)
        except WrongQuery as wrong:
            return self._wrong({}, wrong)
        try:
            return self._found(query)
        except WrongQuery as wrong:
            return self._wrong(query, wrong)

    def _found(self, query: Mapping[str, str]) -> Response:
        now = self._clock()
        if "each" in query:
            found, more = find(self._events(), query, PAGE_ROWS, now)
            groups: Sequence[Group[Row]] = [Group(row) for row in found]
            following = position(found[-1]) if more else None
        else:
            groups, following = find_groups(self._events(), query, PAGE_ROWS, now)
        filters = {name: value for name, value in query.items() if name != "after"}
        return self._filtered(
            query,
            rows=[shown(group, query) for group in groups],
            followed=any(group.newest.host for group in groups),
            older=link("/events", {**query, "after": following}) if following else None,
            newest=link("/events", filters) if "after" in query else None,
        )

    def _wrong(self, query: Mapping[str, str], wrong: WrongQuery) -> Response:
        """The form again, with what is wrong above it."""
        made = self._filtered(query, rows=[], wrong=str(wrong))
        return Response(HTTPStatus.BAD_REQUEST, made.body, HTML, made.headers)

    def _filtered(self, query: Mapping[str, str], **values: object) -> Response:
        wanted = {name: query.get(name, "") for name in (*FILTERS, *TIMES, "each")}
        form = {"wanted": wanted, "filtered": any(wanted.values()), "wrong": None, "followed": False}
        choices = {"kinds": get_args(Kind), "constraints": get_args(Constraint)}
        return self._page("events.html.j2", **{**form, **choices, "older": None, "newest": None, **values})

    def _report(self, event_id: str) -> Response:
        capture, event = self._event(event_id)
        if event.id != event_id:  # only the beginning of the id was given
            return Response(HTTPStatus.FOUND, b"", headers={"Location": f"/events/{event.id}"})
        newer, older = self._events().beside(event.id)
        navigation = _environment().get_template("report.html.j2")
        head = navigation.render(host=self._host(), id=event.id, newer=newer, older=older)
        text = render_html(event, capture.records)
        if "<body>" in text:
            text = text.replace("<body>", f"<body>\n{head}", 1)
        policy = f"{content_policy()}; frame-ancestors 'none'"
        return Response(HTTPStatus.OK, text.encode(), HTML, {"Content-Security-Policy": policy})

    def _markdown(self, event_id: str) -> Response:
        from oomwatchd.render.markdown import render_markdown

        text = render_markdown(self._event(event_id)[1], host=self._host())
        return Response(HTTPStatus.OK, text.encode("utf-8", "backslashreplace"))

    # -- API ---------------------------------------------------------------------------------------

    def _list_json(self, request: Request) -> Response:
        query = read_query(request)
        rows, more = find(self._events(), query, limit_of(query, API_ROWS, API_MOST), self._clock())
        document = {
            "events": [row_document(row) for row in rows],
            "next": link("/api/v1/events", {**query, "after": position(rows[-1])}) if more else None,
        }
        return Response(HTTPStatus.OK, msgspec.json.encode(document) + b"\n", JSON)

    def _event_json(self, event_id: str) -> Response:
        try:
            event = self._event(event_id)[1]
        except _NoEventError:
            return Response(HTTPStatus.NOT_FOUND, b'{"error":"no such event"}\n', JSON)
        return Response(HTTPStatus.OK, encode(event) + b"\n", JSON)

    # -- parts -------------------------------------------------------------------------------------

    def _event(self, event_id: str) -> tuple[OomCapture, OomEvent]:
        """The capture and its event. The event says if a part of it could not be explained; the log says why.
        Raises OomwatchdError."""
        capture = self._events().get(event_id) if len(event_id) <= _ID_LENGTH else None
        if capture is None:
            raise _NoEventError("no such event; see /events")
        event, error = conclude(capture)
        if error is not None:
            log.error("event %s: %s", event.id, unexplained(error))
        return capture, event

    def _page(self, template: str, **values: object) -> Response:
        made = _environment().get_template(template)
        text = made.render(version=__version__, host=self._host(), **values)
        return Response(HTTPStatus.OK, text.encode(), HTML, {"Content-Security-Policy": POLICY})


class _NoEventError(OomwatchdError):
    """There is no event with this id."""


def _safely(make: Callable[[Request], Response], request: Request) -> Response:
    try:
        return make(request)
    except WrongQuery as wrong:
        return Response(HTTPStatus.BAD_REQUEST, f"{wrong}\n".encode())
    except OomwatchdError as error:
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"{harmless(str(error))}\n".encode())


def _of_event(make: Callable[[str], Response], quoted_id: str) -> Response:
    from urllib.parse import unquote

    try:
        return make(unquote(quoted_id, errors="replace"))
    except OomwatchdError as error:  # not there, damaged, or several begin so
        return Response(HTTPStatus.NOT_FOUND, f"{harmless(str(error))}\n".encode())


def _schema() -> Response:
    from oomwatchd.render.schema import event_schema

    return Response(HTTPStatus.OK, msgspec.json.encode(event_schema()) + b"\n", "application/schema+json")


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
