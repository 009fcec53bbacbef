"""Prometheus Alertmanager: each event as an alert of its own, by its API v2.

Labels are few: ``alertname`` (KernelOomKill, KernelOomNoVictim, KernelOomPanic, PageAllocationFailure,
SystemdOomdKill, OomwatchdTest), ``severity``, ``host``, ``constraint``, ``unit``, the container's names
(``namespace``, ``pod``, ``container``, as kube-state-metrics has them), ``event_id``, and what ``labels``
adds. A value is cut after 256 characters. ``event_id`` makes each event an alert of its own and a repeated
delivery the same one; group by ``alertname`` and ``host``. Who and why stand in the annotations ``summary``
and ``description``.

An alert ends by itself after ``firing_seconds``: a kill is over when it is reported. That of a warning ends
with the warning. An event goes to all Alertmanagers in ``urls``; it is delivered when one took it, because
they agree among themselves on notifications.

Source: Alertmanager's api/v2/openapi.yaml
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from oomwatchd.event import OomEvent, rfc3339
from oomwatchd.sinks._error import SinkError
from oomwatchd.sinks._http import HttpClient, HttpOptions
from oomwatchd.sinks._particulars import ALERTNAMES, is_test, names, severity, unit_of
from oomwatchd.sinks._payload import host_of, linked, particulars
from oomwatchd.words.escape import harmless
from oomwatchd.words.markup import unmentioned

#: of a label's value; a unit's name has 255 at most, a pod's 253
_LABEL_LENGTH = 256


class Options(HttpOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sinks.alertmanager]``, or several ``[[sinks.alertmanager]]``, each with a ``name``."""

    urls: list[str] = []
    labels: dict[str, str] = {}
    link: str = ""
    firing_seconds: Annotated[int, msgspec.Meta(ge=60)] = 3600

    def __post_init__(self) -> None:
        super().__post_init__()
        for url in self.urls:
            self.check_target("urls", url)


def alert(event: OomEvent, options: Options, now: float) -> dict[str, Any]:
    """The event as a postable alert; ``now`` in seconds since the epoch."""
    called = names(event)
    labels = {
        "alertname": ALERTNAMES[event.kind],
        "severity": severity(event),
        "host": harmless(host_of(event)),
        "constraint": event.constraint or "",
        "unit": unit_of(event) or "",
        "namespace": called.namespace or "",
        "pod": called.pod or "",
        "container": called.container or "",
        "event_id": event.id,
        "test": "true" if is_test(event) else "",
        **options.labels,
    }
    values = particulars(event, options.link)
    annotations = {
        "summary": values["summary"],
        "description": values["explanation"],
        "advice": values["advice"],
    }
    made = {
        # an empty label is none
        "labels": {name: harmless(value)[:_LABEL_LENGTH] for name, value in labels.items() if value},
        # Alertmanager's own templates for chats and mails escape no mention
        "annotations": {name: unmentioned(str(text)) for name, text in annotations.items() if text},
        "startsAt": _begin(event, now),
        "endsAt": rfc3339(now if _is_over(event) else now + options.firing_seconds),
    }
    if link := linked(options.link, event):
        made["generatorURL"] = link
    return made


def _is_over(event: OomEvent) -> bool:
    return event.near is not None and event.near.state != "near"


def _begin(event: OomEvent, now: float) -> str | None:
    """When it happened, but never later than now, whatever the clocks say."""
    if event.time.wall is not None:
        try:
            moment = datetime.fromisoformat(event.time.wall)
        except ValueError:
            pass
        else:
            if moment <= datetime.fromtimestamp(now, UTC):
                return event.time.wall
    return rfc3339(now)


class Alertmanager:
    """The Alertmanagers of one section; see the module."""

    batch = 32

    def __init__(self, options: Options, clock: Callable[[], float] = time.time) -> None:
        """Raises SinkError for certificates that cannot be read."""
        self.name = options.called("alertmanager")
        self._options = options
        self._clock = clock
        self._client = HttpClient(options)

    def deliver(self, events: Sequence[OomEvent]) -> None:
        """Send to every Alertmanager. Raises SinkError if none took it."""
        now = self._clock()
        body = msgspec.json.encode([alert(event, self._options, now) for event in events])
        failures = []
        for url in self._options.urls:
            try:
                self._client.send("POST", f"{url.rstrip('/')}/api/v2/alerts", body, "application/json")
            except SinkError as error:
                failures.append(error)
        if len(failures) == len(self._options.urls):
            # one that is away may take later what another will never take
            raise next((failure for failure in failures if not failure.refused), failures[0])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def open(options: Options) -> Alertmanager | None:
    """The sink, None if no Alertmanager is configured."""
    return Alertmanager(options) if options.urls else None
