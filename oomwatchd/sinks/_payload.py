"""What leaves the host: the event in small or in full, and its values by name for templates."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from oomwatchd.event import OomEvent
from oomwatchd.hostname import host_name
from oomwatchd.render.json import event_document
from oomwatchd.sinks._particulars import (
    limit_cgroup,
    names,
    place,
    severity,
    unit_of,
    victim_attribution,
)
from oomwatchd.words.escape import harmless
from oomwatchd.words.markup import html, markdown, mrkdwn, unmentioned

#: the parts of a small payload; the others (task table, zones, slab, snapshots ...) may be megabytes
_SMALL = (
    *("schema", "id", "kind", "summary", "complete", "missing", "lost_records", "revision", "repeats"),
    *("historical", "source", "host", "time", "kernel", "arch", "trigger", "constraint", "memcg", "kills"),
    *("victims", "findings", "attribution"),
)
#: victims of a group kill in a small payload; ``kills`` counts all
_VICTIMS = 64
#: characters of one text in a template
_TEXT = 1200


def host_of(event: OomEvent) -> str:
    """The machine that the event is of: this one, or one that is followed."""
    return host_name() if event.host is None else event.host.name


def document(event: OomEvent, size: Literal["small", "full"]) -> dict[str, Any]:
    """The event in the form of the event contract (docs/event.md); small: who, where, why, a few KiB."""
    if size == "full":
        return event_document(event)
    memcg = event.memcg and msgspec.structs.replace(event.memcg, stat={}, descendants=())
    pids = {victim.pid for victim in event.victims[:_VICTIMS]}
    whole = event_document(
        msgspec.structs.replace(
            event,
            memory=None,
            tasks=(),
            slab=(),
            allocations=(),
            snapshots=None,
            memcg=memcg,
            trigger=msgspec.structs.replace(event.trigger, call_trace=()),
            victims=event.victims[:_VICTIMS],
            attribution=tuple(a for a in event.attribution if a.role == "trigger" or a.pid in pids),
        )
    )
    small = {name: whole[name] for name in _SMALL}
    small["trigger"].pop("call_trace")
    if small["memcg"] is not None:
        small["memcg"].pop("stat")
        small["memcg"].pop("descendants")
    return small


def linked(link: str, event: OomEvent) -> str:
    """A configured link with the event's id and the host's name in their places; empty if there is none."""
    return link.replace("${id}", event.id).replace("${host}", host_of(event))


def particulars(event: OomEvent, link: str, times: int = 1, since: str | None = None) -> dict[str, str | int]:
    """What a template can name; ``times`` events are told as one, the first of which was at ``since`` (RFC
    3339). All text is harmless to read; none of it is escaped for a markup."""
    whose = victim_attribution(event)
    called = names(event)
    first = event.findings[0] if event.findings else None
    victim = event.victims[0] if event.victims else None
    texts = {
        "id": event.id,
        "host": harmless(host_of(event)),
        "kind": event.kind,
        "severity": severity(event),
        "summary": event.summary,
        "time": event.time.wall or "",
        "constraint": event.constraint or "",
        "cgroup": (whose.cgroup if whose else None) or limit_cgroup(event) or "",
        "unit": unit_of(event) or "",
        "where": place(event) or "the whole system",
        "container": called.container or "",
        "container_id": (whose.container_id if whose else None) or "",
        "pod": called.pod or "",
        "pod_uid": (whose.pod_uid if whose else None) or "",
        "namespace": called.namespace or "",
        "victim_comm": victim.comm if victim else "",
        "findings": " ".join(finding.id for finding in event.findings),
        "title": first.title if first else "",
        "explanation": first.explanation if first else "",
        "advice": first.advice if first else "",
        "link": linked(link, event),
        "first": since or event.time.wall or "",
        "again": _again(times, since),
    }
    pid = victim.pid if victim else 0
    numbers = {"times": times, "kills": event.kills, "repeats": event.repeats, "victim_pid": pid}
    return {name: _cut(harmless(text)) for name, text in texts.items()} | numbers


def _again(times: int, since: str | None) -> str:
    """How often it happened, in words; empty for once."""
    begun = f" since {since}" if since else ""
    return f"{times} times{begun}, each for the same reason" if times > 1 else ""


def _cut(text: str) -> str:
    """Cut a text: chat programs refuse a whole message that has a longer one (Slack: 3000 characters a
    block)."""
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 3]}..."


class TemplateError(ValueError):
    """What is wrong with a template."""


_PLACE = re.compile(r"\$(?:\$|\{([^}]*)\}?)")


_ESCAPES = {"text": unmentioned, "html": html, "markdown": markdown, "mrkdwn": mrkdwn}


class Template:
    r"""A JSON document with ``${name}`` in its strings.

    The document is read as JSON before anything is put in, so that no name can leave its string.
    ``${name|html}``, ``|markdown`` and ``|mrkdwn`` (Slack) also keep it from being markup, and they and
    ``|text`` from being a mention (``@room``). A string that is one place and nothing else takes the
    value's own type; ``${event}`` is then the whole payload. ``$$`` is a dollar sign.
    """

    def __init__(self, text: str, names: frozenset[str]) -> None:
        """Raises TemplateError."""
        try:
            self._document = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise TemplateError(f"not JSON: {error}") from None
        self._names = names
        self._check(self._document)

    def fill(self, values: dict[str, str | int], event: dict[str, Any]) -> bytes:
        """The document with the values in their places, as JSON."""
        return msgspec.json.encode(self._fill(self._document, values, event))

    def _fill(self, part: Any, values: dict[str, str | int], event: dict[str, Any]) -> Any:
        if isinstance(part, dict):
            return {name: self._fill(inner, values, event) for name, inner in part.items()}
        if isinstance(part, list):
            return [self._fill(inner, values, event) for inner in part]
        if not isinstance(part, str):
            return part
        if part == "${event}":
            return event
        if (only := _PLACE.fullmatch(part)) and only[1] in values:
            return values[only[1]]
        return _PLACE.sub(lambda place: self._one(place, values), part)

    @staticmethod
    def _one(place: re.Match[str], values: dict[str, str | int]) -> str:
        if place[1] is None:
            return "$"
        name, _, escape = place[1].partition("|")
        text = str(values[name])
        return _ESCAPES[escape](text) if escape else text

    def _check(self, part: Any) -> None:
        if isinstance(part, dict | list):
            for inner in part.values() if isinstance(part, dict) else part:
                self._check(inner)
        elif isinstance(part, str) and part != "${event}":
            for place in _PLACE.finditer(part):
                name, _, escape = (place[1] or "").partition("|")
                if place[1] is not None and name not in self._names:
                    known = ", ".join(sorted(self._names))
                    raise TemplateError(f"no such name: ${{{name}}}; known: {known}, event (alone)")
                if escape and escape not in _ESCAPES:
                    raise TemplateError(f"no such escape: {escape}; known: {', '.join(_ESCAPES)}")
