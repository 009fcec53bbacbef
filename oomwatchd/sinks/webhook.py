"""Webhook: each event as an HTTP request; a CloudEvents 1.0 document, or a body of your own from a template.

Events wait in the store until the receiver has answered with a success (2xx): at least once, in order, over
restarts and outages. The event's id is the same each time: CloudEvents' ``id`` and ``webhook-id``. With a
signing key the request is signed as Standard Webhooks say (``webhook-signature``: HMAC-SHA256 over id, time
and body).

``template`` names a JSON file with ``${name}`` in its strings, or one of those that come along: ``slack``,
``mattermost``, ``matrix``, ``teams``. With a template a crash
loop is told at once, then as a message now and then that says how often since (``group = false``: each event
is a message). Secrets (``url_file``, ``secret_headers``, ``signing_key``) are files
or systemd credentials. Redirects are not followed.

Sources: https://github.com/cloudevents/spec (HTTP binding, structured mode),
https://github.com/standard-webhooks/standard-webhooks
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from oomwatchd.event import OomEvent
from oomwatchd.hostname import host_name
from oomwatchd.sinks._error import SinkError
from oomwatchd.sinks._groups import Grouping, Groups, Message
from oomwatchd.sinks._http import HttpClient, HttpOptions
from oomwatchd.sinks._particulars import place, severity
from oomwatchd.sinks._payload import Template, TemplateError, document, linked, particulars
from oomwatchd.sinks._secrets import read_secret

log = logging.getLogger(__name__)

#: that come along, in ``templates``
TEMPLATES = ("slack", "mattermost", "matrix", "teams")
CLOUDEVENTS = "application/cloudevents+json; charset=utf-8"


class Options(HttpOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sinks.webhook]``, or several ``[[sinks.webhook]]``, each with a ``name``."""

    url: str = ""
    url_file: str = ""
    method: Literal["POST", "PUT"] = "POST"
    signing_key: str = ""
    template: str = ""
    link: str = ""
    payload: Literal["small", "full"] = "small"
    group: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_target("url", self.url)
        if self.url and self.url_file:
            raise ValueError("url_file: give either url or url_file")
        if self.template and "/" not in self.template and self.template not in TEMPLATES:
            known = ", ".join(TEMPLATES)
            raise ValueError(f"template: no template {self.template!r}: give {known}, or a file's whole path")


def cloud_event(event: OomEvent, size: Literal["small", "full"], link: str = "") -> dict[str, Any]:
    """The event in the JSON format of CloudEvents 1.0. ``severity`` and ``link`` are extensions."""
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": f"//{quote(host_name(), safe='')}/oomwatchd",
        "type": f"oomwatchd.{event.kind}",
        "time": event.time.wall,
        "subject": place(event),
        "datacontenttype": "application/json",
        "severity": severity(event),
        "link": linked(link, event) or None,
        "data": document(event, size),
    }
    return {name: value for name, value in attributes.items() if value is not None}


def signature(key: str, event_id: str, seconds: int, body: bytes) -> str:
    """``webhook-signature`` of Standard Webhooks; a key that begins with ``whsec_`` is base64."""
    if key.startswith("whsec_"):
        try:
            secret = base64.b64decode(key.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise SinkError("the signing key begins with whsec_ but is not base64") from None
    else:
        secret = key.encode()
    digest = hmac.new(secret, f"{event_id}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def read_template(name: str) -> Template:
    """The template in a file, or one that comes along. Raises SinkError."""
    try:
        if "/" in name:
            text = Path(name).read_text(encoding="utf-8")
        else:
            from importlib.resources import files  # brings tempfile and what it needs

            text = files(__package__).joinpath("templates", f"{name}.json").read_text(encoding="utf-8")
        return Template(text, _NAMES)
    except FileNotFoundError:
        raise SinkError(f"template {name}: there is no such file") from None
    except (OSError, UnicodeDecodeError, TemplateError) as error:
        raise SinkError(f"template {name}: {error}") from None


class Webhook(Grouping):
    """One receiver of events by HTTP; see the module."""

    batch = 1

    def __init__(
        self,
        options: Options,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises SinkError for a template or certificates that cannot be read."""
        self.name = options.called("webhook")
        self._options = options
        self._clock = clock
        self._template = read_template(options.template) if options.template else None
        # for people: one message of what says the same of the same
        super().__init__(Groups() if self._template is not None and options.group else None, steady)
        self._client = HttpClient(options)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def send(self, message: Message) -> None:
        """One request. Raises SinkError."""
        options, event = self._options, message.event
        if self._template is None:
            body = msgspec.json.encode(cloud_event(event, options.payload, options.link))
            content_type = CLOUDEVENTS
        else:
            values = particulars(event, options.link, message.times, message.first)
            body = self._template.fill(values, document(event, options.payload))
            content_type = "application/json"
        seconds = int(self._clock())
        headers = {"webhook-id": event.id, "webhook-timestamp": str(seconds)}
        if options.signing_key:
            key = read_secret(options.signing_key)
            headers["webhook-signature"] = signature(key, event.id, seconds, body)
        url = self._url().replace("${id}", quote(event.id, safe=""))
        self._client.send(options.method, url, body, content_type, headers)

    def _url(self) -> str:
        if self._options.url:
            return self._options.url
        url = read_secret(self._options.url_file)
        try:
            self._options.check_target("url_file", url, secret=True)
        except ValueError as error:
            raise SinkError(f"{self._options.url_file}: {error}") from None
        return url


def open(options: Options) -> Webhook | None:
    """The sink, None if no receiver is configured."""
    return Webhook(options) if options.url or options.url_file else None


_NAMES = frozenset(
    (
        *("id", "host", "kind", "severity", "summary", "time", "constraint", "cgroup", "unit", "where"),
        *("container", "container_id", "pod", "pod_uid", "namespace", "victim_comm", "victim_pid", "kills"),
        *("repeats", "findings", "title", "explanation", "advice", "link", "times", "first", "again"),
    )
)
