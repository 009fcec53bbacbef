"""Who may read what, with and without a web configuration file.

The file (:mod:`oomwatchd.web.webconfig`) is checked for each connection and each request, and read again when
it or a file that it names has changed; a faulty version is logged once and changes nothing.

Without authentication the pages and the API are only for this host: ``/metrics`` and health are served
everywhere, the rest only on a loopback address or a socket in the file system, unless ``expose_pages`` is
set. There the ``Host`` header must be an address or localhost: otherwise a foreign web page could make a
browser on this host read events (DNS rebinding).
"""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

import msgspec

from oomwatchd.errors import ConfigError
from oomwatchd.web.connection import Channel
from oomwatchd.web.lanes import Later
from oomwatchd.web.messages import Request, Response
from oomwatchd.web.passwords import Passwords
from oomwatchd.web.server import Handler
from oomwatchd.web.tls import TlsChannel
from oomwatchd.web.webconfig import WebConfig, read_web_config, version_of

log = logging.getLogger(__name__)

#: paths that anybody may read, unless a password is configured
OPEN_PATHS = frozenset({"/metrics", "/-/healthy", "/-/ready"})


class Access:
    """Applies the present web configuration file: as a gate before the handler (:meth:`gate`), and as TLS
    around the server's connections."""

    def __init__(self, path: Path | None = None, *, expose_pages: bool = False) -> None:
        """Read the file. Raises ConfigError if it is faulty."""
        self._path = path
        self._config = read_web_config(path) if path else WebConfig()
        self._refused: Mapping[Path, tuple[int, ...] | None] | None = None
        self.expose_pages = expose_pages
        #: why the file's present version is not used
        self.failure: str | None = None
        self._lock = threading.Lock()
        self._passwords = Passwords()

    def change(self, path: Path | None, *, expose_pages: bool) -> None:
        """Use another file. Raises ConfigError and changes nothing if it is faulty."""
        config = read_web_config(path) if path else WebConfig()
        with self._lock:
            self._path, self._config, self._refused, self.failure = path, config, None, None
            self.expose_pages = expose_pages

    def current(self) -> WebConfig:
        """The file's rules, read again if it has changed."""
        path, config = self._path, self._config
        if path is None:
            return config
        now = {file: version_of(file) for file in config.files}
        if now in (config.files, self._refused):
            return config
        refused: ConfigError | None = None
        try:
            config = read_web_config(path)
        except ConfigError as error:
            refused = error
        with self._lock:
            if self._path != path:  # another file was chosen meanwhile, in another thread
                return self._config
            self._config, self._refused = config, now if refused else None
            self.failure = str(refused) if refused else None
        if refused:
            log.error("web configuration not changed: %s", refused)
        else:
            log.info("web configuration reloaded: %s", path)
        return config

    # -- the server's Security ---------------------------------------------------------------------

    def wrap(self, accepted: socket.socket, /) -> Channel:
        """TLS around a new connection, if the file asks for it."""
        config = self.current()
        if config.context is None:
            return accepted
        secured = config.context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        return TlsChannel(secured, config.allowed_sans)

    def is_certified(self, channel: Channel, /) -> bool:
        return isinstance(channel, TlsChannel) and channel.is_certified

    # -- the gate ----------------------------------------------------------------------------------

    def gate(self, handler: Handler) -> Handler:
        """``handler`` behind the checks that the file asks for."""

        def answer(request: Request) -> Response | Later:
            config = self.current()
            return _adorned(self._admit(request, config, handler), config.headers)

        return answer

    def _admit(self, request: Request, config: WebConfig, handler: Handler) -> Response | Later:
        if config.users:
            return self._passwords.admit(request, config.users, lambda: handler(request))
        if request.path in OPEN_PATHS or request.certified or self.expose_pages:
            return handler(request)
        if not request.local:
            return _NOT_OPEN
        if not _names_this_host(request.headers.get("host", "")):
            return _MISDIRECTED
        return handler(request)


def _adorned(answer: Response | Later, headers: Mapping[str, str]) -> Response | Later:
    if not headers:
        return answer
    if isinstance(answer, Later):
        make = answer.make
        return msgspec.structs.replace(answer, make=lambda: _adorned(make(), headers))
    return msgspec.structs.replace(answer, headers={**answer.headers, **headers})


def _names_this_host(host: str) -> bool:
    """Whether ``host`` is an address, ``localhost`` or empty (HTTP/1.0): DNS cannot forge these."""
    name = re.sub(r":\d*$", "", host).lower()
    if name in ("", "localhost") or name.endswith(".localhost"):
        return True
    address = name.removeprefix("[").removesuffix("]")
    without_zone = re.sub(r"%[\w.-]+$", "", address, flags=re.ASCII)
    for family, text in ((socket.AF_INET, address), (socket.AF_INET6, without_zone)):
        with suppress(OSError, ValueError):
            socket.inet_pton(family, text)
            return True
    return False


_NOT_OPEN = Response(
    HTTPStatus.FORBIDDEN,
    b"On this address only /metrics, /-/healthy and /-/ready answer without authentication.\n"
    b"Configure users or client certificates ([http] web_config), or set [http] expose_pages = true.\n",
)
_MISDIRECTED = Response(
    HTTPStatus.MISDIRECTED_REQUEST,
    b"This address serves pages for an IP address or localhost as Host, not for other names.\n"
    b"Behind a proxy: let it send the address as Host, or set [http] expose_pages = true.\n",
)
