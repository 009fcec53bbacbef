"""Kubernetes: each event whose first victim was in a pod as an Event on that pod, through the API server.

``kubectl describe pod`` and ``kubectl get events`` then show the verdict beside what the kubelet says.
``reason`` is that of the alerts (KernelOomKill ...), ``message`` the verdict; figures of the pod's owner are
all it has: no command line, no other process. Nothing is sent of what is not in a pod, or in one whose name
is not known.

In a pod, address, token and certificates are the service account's (``KUBERNETES_SERVICE_HOST``,
``/var/run/secrets/kubernetes.io/serviceaccount``); the token is read for each request, so a rotated one
counts at once. All that it must be allowed is to ``create`` ``events``.

Rate: what repeats in one container is told at once, then held for half a minute, then for five, then for an
hour each time, and told as one Event with its ``count``; over all containers it is 25 at once and then one in
ten seconds: what is more waits in the outbox. An Event's name is made of the event's id, so that the API
server refuses a repeated delivery; that one is done.

Sources: Kubernetes API, core/v1 Event; client-go ``tools/record``; kubelet ``pkg/kubelet/container/ref.go``
(fieldPath)
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from oomwatchd.delivery.policy import Pace
from oomwatchd.diagnosis.attribution import names_of
from oomwatchd.event import OomEvent
from oomwatchd.event.groups import Key
from oomwatchd.hostname import host_name
from oomwatchd.sinks._error import SinkError
from oomwatchd.sinks._groups import Grouping, Groups, Message
from oomwatchd.sinks._http import HttpClient, HttpOptions, origin
from oomwatchd.sinks._particulars import ALERTNAMES, is_test, victim_attribution
from oomwatchd.sinks._secrets import read_secret
from oomwatchd.words.escape import harmless

log = logging.getLogger(__name__)

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
#: as client-go's own recorder: so many at once, then one in so many seconds (there 25 for each object)
BURST = 25
SECONDS_EACH = 10.0
#: bytes; what newer API servers take of ``note``, the name of ``message`` in events.k8s.io
_MESSAGE_BYTES = 1024
#: DNS-1123 subdomain: what names of pods and namespaces are, and what may stand in a path
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")
_CREATED, _FORBIDDEN, _NOT_FOUND, _CONFLICT = 201, 403, 404, 409


class Options(HttpOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sinks.kubernetes]``."""

    enabled: bool = False
    url: str = ""
    token_file: str = f"{_ACCOUNT}/token"
    ca_file: str = f"{_ACCOUNT}/ca.crt"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_target("url", self.url, secret=True)


class Pod(NamedTuple):
    """Whom an Event is about; ``uid`` as the API has it, of a static pod the kubelet's own (kubectl asks for
    that one)."""

    namespace: str
    name: str
    uid: str | None = None
    container: str | None = None


def pod_of(event: OomEvent) -> Pod | None:
    """The first victim's pod, as far as its name is known."""
    whose = victim_attribution(event)
    called = names_of(whose)
    if whose is None or called.namespace is None or called.pod is None:
        return None
    if not _SUBDOMAIN.match(called.namespace) or not _SUBDOMAIN.match(called.pod):
        return None
    return Pod(called.namespace, called.pod, whose.pod_uid, called.container)


def event_object(message: Message, pod: Pod) -> dict[str, Any]:
    """The core/v1 Event."""
    event = message.event
    involved = {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name}
    if pod.uid is not None:
        involved["uid"] = pod.uid
    if pod.container is not None:
        involved["fieldPath"] = f"spec.containers{{{harmless(pod.container)}}}"
    last = _moment(event.time.wall)
    drawn = hashlib.sha256(f"{event.id} {message.times} {pod.uid}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{pod.name[:230].rstrip('-.')}.{drawn}", "namespace": pod.namespace},
        "involvedObject": involved,
        "reason": ALERTNAMES[event.kind],
        "message": harmless(event.summary).encode()[:_MESSAGE_BYTES].decode(errors="ignore"),
        "type": "Normal" if is_test(event) else "Warning",
        "source": {"component": "oomwatchd", "host": host_name()},
        "reportingComponent": "oomwatchd",
        "reportingInstance": host_name(),
        "firstTimestamp": _moment(message.first) if message.first is not None else last,
        "lastTimestamp": last,
        "count": message.times,
    }


def _moment(wall: str | None) -> str:
    """RFC 3339 in whole seconds of UTC, as the API server writes them; now where it is not known."""
    try:
        moment = datetime.fromisoformat(wall or "")
    except ValueError:
        moment = datetime.fromtimestamp(time.time(), UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _key(event: OomEvent) -> Key:
    """What is one row: a container's kills, whatever its processes are called, which they choose."""
    pod = pod_of(event)
    return (event.kind, *(pod or (event.id,)))


class Kubernetes(Grouping):
    """One API server; see the module."""

    batch = 1

    def __init__(
        self,
        options: Options,
        url: str,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises SinkError for certificates that cannot be read."""
        super().__init__(Groups(_key), steady)
        self.name = options.called("kubernetes")
        self._options = options
        self._url = url.rstrip("/")
        self._steady = steady
        self._pace = Pace(BURST, SECONDS_EACH)
        self._client = HttpClient(options)

    def deliver(self, events: Sequence[OomEvent]) -> None:
        """Send what happened in a pod. Raises SinkError."""
        super().deliver([event for event in events if is_test(event) or pod_of(event) is not None])

    def send(self, message: Message) -> None:
        """Create the Event. Raises SinkError."""
        pod = self._own_pod() if is_test(message.event) else pod_of(message.event)
        if pod is None:
            return
        if (seconds := self._pace.take(self._steady())) > 0:
            raise SinkError("the bound of Events sent at once is reached", retry_after_seconds=seconds)
        token = read_secret(self._options.token_file)
        answer = self._client.send(
            "POST",
            f"{self._url}/api/v1/namespaces/{pod.namespace}/events",
            msgspec.json.encode(event_object(message, pod)),
            "application/json",
            {"Authorization": f"Bearer {token}", "Accept": "application/json"},
            also=(_FORBIDDEN, _NOT_FOUND, _CONFLICT),
        )
        if answer.status == _NOT_FOUND or (answer.status == _FORBIDDEN and _is_ending(answer.body)):
            log.info("sink %s: namespace %s is gone: no Event is sent", self.name, pod.namespace)
        elif answer.status == _FORBIDDEN:
            raise SinkError(
                f"{origin(self._url)}: HTTP 403 (Forbidden): the service account must be allowed to create"
                f" events in namespace {pod.namespace}"
            )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _own_pod(self) -> Pod:
        """This one, for a test."""
        try:
            namespace = (Path(self._options.token_file).parent / "namespace").read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            namespace = ""
        own = socket.gethostname()
        return Pod(
            namespace if _SUBDOMAIN.match(namespace) else "default",
            own if _SUBDOMAIN.match(own) else "oomwatchd",
        )


class _Cause(msgspec.Struct):
    reason: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] = []


class _Status(msgspec.Struct):
    details: _Details | None = None


def _is_ending(body: bytes) -> bool:
    """Whether a refusal says that the namespace is being deleted (metav1.Status)."""
    try:
        details = msgspec.json.decode(body, type=_Status).details
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return details is not None and any(cause.reason == "NamespaceTerminating" for cause in details.causes)


def _api_server(environ: Mapping[str, str]) -> str:
    """As the kubelet tells each container (client-go ``rest.InClusterConfig()``)."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise SinkError("this is no pod ($KUBERNETES_SERVICE_HOST is not set): url is needed")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def open(options: Options) -> Kubernetes | None:
    """The sink, None where it is off. Raises SinkError where the API server's address is not known."""
    return Kubernetes(options, options.url or _api_server(os.environ)) if options.enabled else None
