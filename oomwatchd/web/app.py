"""Routes of the web server: metrics and health are answered at once, pages and API in lanes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from oomwatchd import __version__
from oomwatchd.web.lanes import Later
from oomwatchd.web.messages import Request, Response

#: the main loop hangs if it did not beat for this long; it beats at least every half of WatchdogSec
_ALIVE_SECONDS = 180.0


class Health:
    """Whether the daemon works, as its main loop reports it; may be used from any thread."""

    def __init__(
        self, *, alive_seconds: float = _ALIVE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._alive_seconds = alive_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._beat = clock()
        self._not_ready: str | None = "starting"

    def beat(self) -> None:
        """The main loop has finished another turn."""
        with self._lock:
            self._beat = self._clock()

    def ready(self, reason: str | None = None) -> None:
        """The kernel log is open and its first read is done; or, with a reason, why it is not."""
        with self._lock:
            self._not_ready = reason

    def illness(self) -> str | None:
        """Why the daemon is not healthy; None if it is."""
        with self._lock:
            silent = self._clock() - self._beat
        return (
            f"the main loop has not come round for {silent:.0f} s" if silent > self._alive_seconds else None
        )

    def not_ready(self) -> str | None:
        """Why the daemon is not ready; None if it is."""
        with self._lock:
            reason = self._not_ready
        return reason or self.illness()


class App:
    """The handler of all requests."""

    def __init__(
        self,
        registry: CollectorRegistry,
        health: Health,
        pages: Callable[[Request], Response | Later | None] | None = None,
    ) -> None:
        self._registry = registry
        self._health = health
        self._pages = pages

    def __call__(self, request: Request) -> Response | Later:
        match request.path:
            case "/metrics":
                return self._metrics(request)
            case "/-/healthy":
                return _state(self._health.illness(), "healthy")
            case "/-/ready":
                return _state(self._health.not_ready(), "ready")
            case _ if self._pages is not None and (answer := self._pages(request)) is not None:
                return answer
            case "/":
                return _LANDING
            case _:
                return Response(HTTPStatus.NOT_FOUND, b"nothing here; see /\n")

    def _metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(HTTPStatus.OK, encode(self._registry), content_type)


def _state(reason: str | None, well: str) -> Response:
    if reason is None:
        return Response(HTTPStatus.OK, f"{well}\n".encode())
    return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"not {well}: {reason}\n".encode())


_LANDING = Response(
    HTTPStatus.OK,
    f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>oomwatchd</title>
<h1>oomwatchd {__version__}</h1>
<p>Watches the kernel log for out-of-memory reports and says why they happened.</p>
<ul>
<li><a href="/metrics">Metrics</a></li>
<li><a href="/-/healthy">Healthy?</a></li>
<li><a href="/-/ready">Ready?</a></li>
</ul>
<p>Events: <code>oomwatchd events list</code></p>
</html>
""".encode(),
    "text/html; charset=utf-8",
)
