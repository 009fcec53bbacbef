"""HTTP for sinks: one request, one answer, and no word of what is secret in any error.

Redirects are not followed: they would carry secrets to another place. TLS certificates are verified.
urllib3 is imported only where such a sink is configured. An answer's text is not repeated in errors, for a
receiver may echo what it was sent.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

import msgspec

from oomwatchd import __version__
from oomwatchd.sinks._error import SinkError
from oomwatchd.sinks._secrets import read_secret

_CONNECT_SECONDS = 5.0
_ANSWER_BYTES = 64 * 1024
#: what a receiver answers to an event that it will never take: bad content, too large, not processable
_REFUSED = {400, 413, 422}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every sink that speaks HTTP can be told."""

    #: header -> value, as it is
    headers: dict[str, str] = {}
    #: header -> file or credential that holds the whole value
    secret_headers: dict[str, str] = {}
    #: certificates to trust instead of the system's
    ca_file: str = ""
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0

    def __post_init__(self) -> None:
        for name in ("headers", "secret_headers"):
            for header, value in getattr(self, name).items():
                if not _TOKEN.fullmatch(header) or not value.isascii() or not value.isprintable():
                    raise ValueError(f"{name}: {header!r} is no header with a value in printable ASCII")


def check_url(key: str, url: str, secrets: bool) -> None:
    """Raises ValueError, beginning with ``key``, if requests to ``url`` cannot or should not be made."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{key}: this is not a URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"{key}: a URL that begins with https:// or http:// is needed")
    if parts.username is not None:
        raise ValueError(f"{key}: no password in a URL; put the header Authorization into secret_headers")
    if secrets and parts.scheme == "http" and not _is_loopback(host):
        raise ValueError(f"{key}: secrets do not leave this host without TLS; use https://")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Answer(NamedTuple):
    """What a receiver that took an event said."""

    status: int
    body: bytes


class HttpClient:
    """One receiver's connection. Belongs to one thread."""

    def __init__(self, options: HttpOptions) -> None:
        import ssl

        import urllib3

        self._options = options
        self._urllib3 = urllib3
        # made now, not while memory is short: the system's certificates are read here
        try:
            context = ssl.create_default_context(cafile=options.ca_file or None)
        except OSError as error:
            raise SinkError(f"ca_file {options.ca_file}: {error.strerror or 'no certificates'}") from None
        seconds = options.timeout_seconds
        self._pool = urllib3.PoolManager(
            num_pools=4,
            maxsize=1,
            ssl_context=context,
            timeout=urllib3.Timeout(connect=min(seconds, _CONNECT_SECONDS), read=seconds),
        )

    def send(
        self, method: str, url: str, body: bytes, content_type: str, more: Mapping[str, str] | None = None
    ) -> Answer:
        """One request; ``more`` are further headers. Raises SinkError unless the answer is a success."""
        headers = {"User-Agent": f"oomwatchd/{__version__}", "Content-Type": content_type}
        headers |= {**self._options.headers, **(more or {})}
        headers |= {name: read_secret(file) for name, file in self._options.secret_headers.items()}
        where = origin(url)
        try:
            response = self._pool.request(
                method, url, body=body, headers=headers, redirect=False, retries=False, preload_content=False
            )
            try:
                answer = response.read(_ANSWER_BYTES)
                more_to_come = bool(response.read(1))
            finally:
                response.release_conn()
            if more_to_come:
                response.close()
        except Exception as error:
            self._pool.clear()
            raise SinkError(f"{where}: {self._words(error)}") from None
        _judge(where, response.status, self._retry_after(response.headers.get("Retry-After")))
        return Answer(response.status, answer)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _words(self, error: Exception) -> str:
        """What went wrong, in words of our own: those of the library may hold the URL or a header."""
        kinds = self._urllib3.exceptions
        seconds = f"{self._options.timeout_seconds:g} s"
        if isinstance(error, getattr(kinds, "NameResolutionError", ())):  # urllib3 2
            return "its name cannot be resolved"
        if isinstance(error, kinds.ReadTimeoutError):
            return f"no answer within {seconds}"
        if isinstance(error, kinds.SSLError):
            inner = error.args[0] if error.args else error
            why = getattr(inner, "verify_message", "") or getattr(inner, "reason", "") or "handshake failed"
            return f"TLS: {why}"
        if isinstance(error, kinds.NewConnectionError | kinds.ProtocolError):
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__cause__ or cause.__context__
            strerror = cause.strerror if isinstance(cause, OSError) else None
            return strerror or "the connection broke"
        if isinstance(error, kinds.ConnectTimeoutError):  # the kind above is a kind of it
            return "no connection in time"
        return type(error).__name__

    def _retry_after(self, value: str | None) -> float | None:
        if not value:
            return None
        try:
            return float(self._urllib3.Retry().parse_retry_after(value))
        except (self._urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
            return None


def origin(url: str) -> str:
    """Scheme, host and port of a URL; what comes behind may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _judge(where: str, status: int, retry_after: float | None) -> None:
    if 200 <= status < 300:
        return
    try:
        words = f"HTTP {status} ({HTTPStatus(status).phrase})"
    except ValueError:
        words = f"HTTP {status}"
    if 300 <= status < 400:
        words += ", and redirects are not followed"
    raise SinkError(f"{where}: {words}", refused=status in _REFUSED, retry_after_seconds=retry_after)
