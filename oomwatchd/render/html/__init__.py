"""OomEvent -> one self-contained HTML file: who, why and what to change on the first screen, then charts,
tables, and the raw report folded at the end.

The file loads nothing and sends nothing: its policy (CSP) allows its own style and its own script by
their hashes and nothing else. Without scripts all is readable; the script only sorts and filters.
jinja2 is imported when the first page is made, not before.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from oomwatchd.event import OomEvent
from oomwatchd.records.kmsg import KmsgRecord

_NO_RECORDS: Mapping[str, Sequence[KmsgRecord]] = MappingProxyType({})


def render_html(event: OomEvent, records: Sequence[KmsgRecord] = ()) -> str:
    """The page of one event. ``records`` are the capture's: the raw report at the end of the page."""
    return render_html_page([event], {event.id: records})


def content_policy() -> str:
    """What a page allows itself (Content-Security-Policy), for who sends it with headers."""
    from oomwatchd.render.html.page import policy

    return policy()


def render_html_page(
    events: Sequence[OomEvent], records: Mapping[str, Sequence[KmsgRecord]] = _NO_RECORDS
) -> str:
    """One page of several events in the given order, with a table of contents. ``records`` maps an
    event's id to its raw records."""
    from oomwatchd.render.html.page import render
    from oomwatchd.render.html.view import view

    return render([view(event, records.get(event.id, ())) for event in events])
