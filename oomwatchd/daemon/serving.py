"""The daemon's HTTP side: made when the configuration or the service manager gives it an address, and only
then are the server, the pages and prometheus_client loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from oomwatchd.config import HttpSection
from oomwatchd.errors import ConfigError, OomwatchdError
from oomwatchd.metrics import Metrics
from oomwatchd.metrics.families import registry
from oomwatchd.store import Store
from oomwatchd.web import (
    Access,
    App,
    Health,
    HttpServer,
    adopt_listeners,
    open_listeners,
    open_unix_listener,
)

if TYPE_CHECKING:
    from oomwatchd.web.pages import Pages
    from oomwatchd.web.shown import State

log = logging.getLogger(__name__)


class Serving:
    """Metrics, health and pages on the addresses of ``[http]``, or on ``passed`` sockets."""

    def __init__(
        self,
        http: HttpSection,
        metrics: Metrics,
        state: Callable[[], State],
        store: Callable[[], Store],
        passed: Sequence[int] = (),
    ) -> None:
        """Not started. An address that is not available does not stop the watch. Raises ConfigError for a
        wrong web configuration."""
        self.health = Health()

        @cache
        def pages() -> Pages:
            """Loaded when a page is asked for: most daemons are only scraped."""
            from oomwatchd.web.pages import Pages

            return Pages(state, store)

        self._app = App(registry(metrics), self.health, lambda request: pages()(request))
        self._access = Access(http.web_config_path, expose_pages=http.expose_pages)
        self._passed = bool(passed)
        #: whose addresses are in force
        self._http = http
        self._server: HttpServer | None = None
        if passed and http.listen != HttpSection().listen:
            log.warning("http.listen is not used: the service manager passes the listening socket")
        try:
            self._server = self._listen(http, passed)
        except OomwatchdError as error:
            self._not_served(error)

    @property
    def web_config_failure(self) -> str | None:
        """Why the present version of the web configuration is not in force; None if it is."""
        return self._access.failure

    def start(self) -> None:
        """Begin to serve, where there is an address."""
        if self._server is None:
            return
        try:
            self._server.start()
        except RuntimeError as error:  # no thread: TasksMax=, a limit on processes or addresses
            self._server.stop()
            self._server = None
            self._not_served(error)
            return
        log.info("serves metrics on %s", ", ".join(self._server.addresses))

    def stop(self) -> None:
        """End at once."""
        if self._server is not None:
            self._server.stop()

    def apply(self, new: HttpSection) -> None:
        """Change to another section; a part that fails stays as it was."""
        try:
            self._access.change(new.web_config_path, expose_pages=new.expose_pages)
        except ConfigError as error:
            log.error("http.web_config not changed: %s", error)
        serves = self._passed or (self._server is not None and not self._server.ended)
        if self._http.listen != new.listen or not serves:
            self._listen_anew(new)

    def _listen_anew(self, http: HttpSection) -> None:
        """Move the server to other addresses; if they are not available, it stays where it is."""
        if self._passed:
            log.warning("http.listen changes nothing: the service manager passes the listening socket")
            return
        old = self._server
        try:
            try:
                new = self._listen(http)
            except OomwatchdError:
                if old is None or not _shared(self._http, http):
                    raise
                old.stop()  # an old listener is in the way of a new one
                new = self._listen(http)
        except OomwatchdError as error:
            log.error("the metrics stay on their old addresses: %s", error)
            if old is not None and old.stopped:
                self._return()
            return
        self._server, self._http = new, http
        if old is not None:
            old.stop()
        self.start()

    def _return(self) -> None:
        """Listen where it was until a moment ago."""
        try:
            self._server = self._listen(self._http)
        except OomwatchdError as error:
            self._server = None
            self._not_served(error)
            return
        self.start()

    def _not_served(self, error: Exception) -> None:
        # a passed socket is closed with its server
        way = "a restart" if self._passed else "SIGHUP"
        log.error("metrics and pages are not served: %s; %s tries again", error, way)

    def _listen(self, http: HttpSection, passed: Sequence[int] = ()) -> HttpServer | None:
        """The server, not started; None if none is wanted. Raises OomwatchdError."""
        if passed:
            listeners = adopt_listeners(passed)
        else:
            listeners = []
            try:
                for address in http.addresses:
                    if address.path is not None:
                        listeners.append(open_unix_listener(address.path))
                    else:
                        listeners += open_listeners(address.host, address.port)
            except OomwatchdError:
                for listener in listeners:
                    listener.close()
                raise
        if not listeners:
            return None
        return HttpServer(listeners, self._access.gate(self._app), self._access)


def _shared(one: HttpSection, other: HttpSection) -> bool:
    """Whether they have a port or a path in common, on whatever address."""
    ours, theirs = ({address.path or address.port for address in http.addresses} for http in (one, other))
    return not ours.isdisjoint(theirs)
