"""OpenTelemetry: each event as a log record by OTLP/HTTP, in its binary or its JSON encoding.

The road to Loki, Elasticsearch, ClickHouse, VictoriaLogs and every vendor that takes OTLP. ``url`` is the
base (``http://localhost:4318``); ``/v1/logs`` is added. The summary is the body, the particulars are
attributes: those of the semantic conventions where there are any (``process.pid``, ``container.id``,
``k8s.pod.name``, ``host.id``), the others as ``oomwatchd.*``. ``log.record.uid`` is the event's id: records
with the same one are duplicates by the conventions' own words.

``encoding`` is ``protobuf``, which every receiver takes; VictoriaLogs and others refuse ``json``.

Sources: https://opentelemetry.io/docs/specs/otlp/ (OTLP/HTTP), the semantic conventions' registry
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from oomwatchd import __version__
from oomwatchd.event import OomEvent
from oomwatchd.hostname import host_name
from oomwatchd.sinks._error import SinkError
from oomwatchd.sinks._http import HttpClient, HttpOptions
from oomwatchd.sinks._particulars import (
    is_test,
    limit_cgroup,
    names,
    severity,
    victim_attribution,
)
from oomwatchd.sinks._payload import document
from oomwatchd.sinks._protobuf import EXPORT_LOGS_SERVICE_REQUEST, encode, rejected_log_records

log = logging.getLogger(__name__)

#: the log data model's SeverityNumber
_SEVERITY = {"critical": 21, "error": 17, "warning": 13, "test": 9}
_TEXT = {"critical": "FATAL", "error": "ERROR", "warning": "WARN", "test": "TEST"}
#: uname(2) -> ``host.arch``; what is not here is named as the kernel names it
_ARCH = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i386": "x86",
    "i486": "x86",
    "i586": "x86",
    "i686": "x86",
    "armv5tel": "arm32",
    "armv6l": "arm32",
    "armv7l": "arm32",
    "armv8l": "arm32",
    "ppc": "ppc32",
    "ppc64le": "ppc64",
}
_MACHINE_ID = Path("/etc/machine-id")


class Options(HttpOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sinks.otlp]``, or several ``[[sinks.otlp]]``, each with a ``name``."""

    url: str = ""
    resource_attributes: dict[str, str] = {}
    payload: Literal["small", "full"] = "small"
    encoding: Literal["protobuf", "json"] = "protobuf"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_target("url", self.url)


def attributes(event: OomEvent) -> dict[str, object]:
    """The particulars by name; None is one that is left out."""
    victim = event.victims[0] if event.victims else None
    whose = victim_attribution(event)
    called = names(event)
    return {
        "log.record.uid": event.id,
        "process.pid": victim.pid if victim else None,
        "process.executable.path": whose.executable if whose else None,
        "process.command_line": whose.command_line if whose else None,
        "process.linux.cgroup": whose.cgroup if whose else None,
        "container.id": whose.container_id if whose else None,
        "container.name": called.container if called.pod is None else None,
        "container.runtime.name": whose.container_runtime if whose else None,
        "k8s.container.name": called.container if called.pod is not None else None,
        "k8s.pod.name": called.pod,
        "k8s.pod.uid": whose.pod_uid if whose else None,
        "k8s.namespace.name": called.namespace,
        "oomwatchd.kind": event.kind,
        "oomwatchd.test": True if is_test(event) else None,
        "oomwatchd.constraint": event.constraint,
        "oomwatchd.kills": event.kills,
        "oomwatchd.repeats": event.repeats,
        "oomwatchd.complete": event.complete,
        "oomwatchd.victim.comm": victim.comm if victim else None,
        "oomwatchd.victim.uid": victim.uid if victim else None,
        "oomwatchd.victim.anon_rss_bytes": victim.anon_rss_bytes if victim else None,
        "oomwatchd.trigger.pid": event.trigger.pid,
        "oomwatchd.trigger.comm": event.trigger.comm,
        "oomwatchd.memcg": limit_cgroup(event),
        "oomwatchd.systemd.unit": whose.unit if whose else None,
        "oomwatchd.systemd.slice": whose.slice if whose else None,
        "oomwatchd.findings": [finding.id for finding in event.findings],
        "oomwatchd.boot_id": event.source.boot_id,
        "oomwatchd.kernel_seq": event.source.first_seq,
    }


def request(events: Sequence[OomEvent], options: Options, now: float) -> dict[str, Any]:
    """ExportLogsServiceRequest in the JSON encoding; ``now`` in seconds since the epoch."""
    resource = {
        "service.name": "oomwatchd",
        "service.version": __version__,
        "host.name": host_name(),
        "host.id": _machine_id(),
        "host.arch": _ARCH.get(os.uname().machine, os.uname().machine),
        "os.type": "linux",
        "os.version": os.uname().release,
        **options.resource_attributes,
    }
    records = [_record(event, options, now) for event in events]
    scope = {"name": "oomwatchd", "version": __version__}
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": _key_values(resource)},
                "scopeLogs": [{"scope": scope, "logRecords": records}],
            }
        ]
    }


def _machine_id() -> str | None:
    """machine-id(5), by which the conventions' own detectors name a host; None where there is none."""
    try:
        text = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if len(text) == 32 else None


def _record(event: OomEvent, options: Options, now: float) -> dict[str, Any]:
    grave = severity(event)
    named = attributes(event)
    if options.payload == "full":
        named["oomwatchd.event"] = msgspec.json.encode(document(event, "full")).decode()
    return {
        "timeUnixNano": str(_nanoseconds(event, now)),
        "observedTimeUnixNano": str(int(now * 1e9)),
        "severityNumber": _SEVERITY[grave],
        "severityText": _TEXT[grave],
        "eventName": f"oomwatchd.{event.kind}",
        "body": {"stringValue": event.summary},
        "attributes": _key_values(named),
    }


def _nanoseconds(event: OomEvent, now: float) -> int:
    """Unsigned in the protocol: where a clock was set back to its beginning, a report is from before it."""
    if event.time.wall is not None:
        try:
            return max(0, int(datetime.fromisoformat(event.time.wall).timestamp() * 1000)) * 1_000_000
        except (ValueError, OverflowError):
            pass
    return int(now * 1e9)


def _key_values(named: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _any_value(value)} for name, value in named.items() if value is not None]


def _any_value(value: object) -> dict[str, Any]:
    """AnyValue; 64 bit integers are strings in protobuf's JSON."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_any_value(inner) for inner in value]}}
    return {"stringValue": str(value)}


class Otlp:
    """One OTLP receiver; see the module."""

    batch = 32

    def __init__(self, options: Options, clock: Callable[[], float] = time.time) -> None:
        """Raises SinkError for certificates that cannot be read."""
        self.name = options.called("otlp")
        self._options = options
        self._clock = clock
        self._client = HttpClient(options)

    def deliver(self, events: Sequence[OomEvent]) -> None:
        """Send the events as one request. Raises SinkError."""
        message = request(events, self._options, self._clock())
        if self._options.encoding == "protobuf":
            body, content_type = encode(message, EXPORT_LOGS_SERVICE_REQUEST), "application/x-protobuf"
        else:
            body, content_type = msgspec.json.encode(message), "application/json"
        url = f"{self._options.url.rstrip('/')}/v1/logs"
        answer = self._client.send("POST", url, body, content_type)
        if (rejected := _rejected(answer.body)) > 0:
            # to be tried one by one; what is then still rejected is given up, as the protocol asks
            raise SinkError(f"the receiver rejected {rejected} of {len(events)} records", refused=True)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class _Partial(msgspec.Struct, rename="camel"):
    rejected_log_records: int | str = 0


class _Response(msgspec.Struct, rename="camel"):
    partial_success: _Partial | None = None


def _rejected(body: bytes) -> int:
    """How many records the receiver did not take (ExportLogsPartialSuccess), in either encoding."""
    try:
        if not body.lstrip().startswith(b"{"):
            return rejected_log_records(body)
        partial = msgspec.json.decode(body, type=_Response).partial_success
        return int(partial.rejected_log_records) if partial else 0
    except (msgspec.DecodeError, ValueError):
        return 0


def open(options: Options) -> Otlp | None:
    """The sink, None if no receiver is configured."""
    return Otlp(options) if options.url else None
