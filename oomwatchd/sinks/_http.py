"""HTTP for sinks: one request, one answer, and no secret in any error.

Redirects are not followed: they would send secrets elsewhere. TLS certificates are verified. Proxies of the
environment (``http_proxy`` and the like) are ignored: events go where the configuration says. urllib3 is
imported only where such a sink is configured. An answer's text is not repeated in errors, because a receiver
may echo what it was sent.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
import re
import socket
from collections.abc import Container, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from oomwatchd import __version__
from oomwatchd.sinks._deadline import Deadline
from oomwatchd.sinks._error import SinkError
from oomwatchd.sinks._secrets import read_secret, secret_path

if TYPE_CHECKING:
    import ssl

    import urllib3

_CONNECT_SECONDS = 5.0
_ANSWER_BYTES = 64 * 1024
#: what a receiver answers to an event that it will never take: bad content, too large, not processable
_REFUSED = {400, 413, 422}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAME = re.compile(r"[a-z0-9-]{0,32}")


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of every sink that speaks HTTP."""

    #: header -> value, as it is
    headers: dict[str, str] = {}
    #: header -> file or credential that holds the whole value
    secret_headers: dict[str, str] = {}
    #: certificates to trust instead of the system's
    ca_file: str = ""
    #: file or credential with the certificate (and those between it and the root) that we show; its key
    client_cert: str = ""
    client_key: str = ""
    #: http:// or https:// of a proxy; file or credential that holds ``user:password`` for it
    proxy: str = ""
    proxy_credentials: str = ""
    #: its name among others of its kind
    name: str = ""
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0

    def __post_init__(self) -> None:
        for name in ("headers", "secret_headers"):
            for header, value in getattr(self, name).items():
                if not _TOKEN.fullmatch(header) or not value.isascii() or not value.isprintable():
                    raise ValueError(f"{name}: {header!r} is not a header with a value in printable ASCII")
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name: {self.name!r} is not up to 32 letters a to z, digits and hyphens")
        if self.client_key and not self.client_cert:
            raise ValueError("client_key: needs client_cert")
        if self.proxy_credentials and not self.proxy:
            raise ValueError("proxy_credentials: needs proxy")
        check_url("proxy", self.proxy)
        parts = urlsplit(self.proxy)
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("proxy: only scheme, host and port of a proxy's URL are used")

    def check_target(self, key: str, url: str, *, secret: bool = False) -> None:
        """Raises ValueError, beginning with ``key``, if requests to ``url`` cannot or should not be made;
        ``secret``: there is more to hide than the headers."""
        secret = secret or bool(self.secret_headers)
        # through a proxy the loopback address is another machine's
        check_url(key, url, "https" if secret and self.proxy else "local" if secret else "any")

    def called(self, kind: str) -> str:
        """What a sink of ``kind`` with these options is called in metrics, logs and the store."""
        return f"{kind}-{self.name}" if self.name else kind


def check_url(key: str, url: str, wanted: Literal["any", "local", "https"] = "any") -> None:
    """Raises ValueError, beginning with ``key``, if ``url`` is none, or is not TLS where that is ``wanted``
    (``local``: except to this host)."""
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
        hint = (
            "name a file in proxy_credentials" if key == "proxy" else "put Authorization into secret_headers"
        )
        raise ValueError(f"{key}: no password in a URL; {hint}")
    open_way = wanted == "any" or (wanted == "local" and _is_loopback(host))
    if parts.scheme == "http" and not open_way:
        raise ValueError(f"{key}: secrets do not leave this host without TLS; use https://")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Answer(NamedTuple):
    """The answer of a receiver that took an event."""

    status: int
    body: bytes


class HttpClient:
    """One receiver's connection. Belongs to one thread."""

    def __init__(self, options: HttpOptions) -> None:
        """Raises SinkError for certificates that cannot be read."""
        import urllib3

        # it logs URLs, of each request and of answers with broken headers
        logging.getLogger("urllib3").propagate = False
        self._options = options
        self._urllib3 = urllib3
        self._deadline = Deadline()
        self._proxy_headers = {"User-Agent": f"oomwatchd/{__version__}"}
        # made now, not while memory is short: the system's certificates are read here
        self._stamps = self._files_stamps()
        self._pool = self._new_pool()

    def send(
        self,
        method: str,
        url: str,
        body: bytes,
        content_type: str,
        more: Mapping[str, str] | None = None,
        also: Container[int] = (),
    ) -> Answer:
        """One request; ``more`` are further headers. Raises SinkError unless the answer is a success, or its
        status one of ``also``."""
        headers = {"User-Agent": f"oomwatchd/{__version__}", "Content-Type": content_type}
        headers |= {**self._options.headers, **(more or {})}
        headers |= {name: read_secret(file) for name, file in self._options.secret_headers.items()}
        if self._options.proxy_credentials:
            secret = base64.b64encode(read_secret(self._options.proxy_credentials).encode()).decode()
            self._proxy_headers["Proxy-Authorization"] = f"Basic {secret}"
        if (stamps := self._files_stamps()) != self._stamps:  # renewed, as short-lived certificates are
            self._pool.clear()
            self._pool = self._new_pool()
            self._stamps = stamps
        where = origin(url)
        try:
            with self._deadline.within(self._options.timeout_seconds):
                response = self._pool.request(
                    method,
                    url,
                    body=body,
                    headers=headers,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                )
                try:
                    answer, whole = self._read(response)
                finally:
                    response.release_conn()
                if not whole:
                    response.close()
            if self._deadline.passed:  # an end that the deadline caused may look like the answer's own
                raise TimeoutError
        except Exception as error:
            self._pool.clear()
            late = self._deadline.passed and not isinstance(error, SinkError)
            words = self._words(TimeoutError() if late else error)
            raise SinkError(f"{where}: {words}") from None
        if response.status not in also:
            _judge(where, response.status, self._retry_after(response.headers.get("Retry-After")))
        return Answer(response.status, answer)

    def _read(self, response: Any) -> tuple[bytes, bool]:
        """The answer as it comes, and whether that is all. No compression was requested; a compressed answer
        could be a thousand times as large."""
        if hasattr(response, "read1"):  # urllib3 2.1
            read1 = partial(response.read1, decode_content=False)
        else:
            read1 = response._fp.read1  # noqa: SLF001 - urllib3 1.26 has no other way
        answer = b""
        while len(answer) < _ANSWER_BYTES:
            piece = read1(_ANSWER_BYTES - len(answer))
            if not piece:  # the connection is free again only when read() has seen the end, too
                return answer, not response.read(1, decode_content=False)
            answer += piece
        return answer, False

    def _new_pool(self) -> urllib3.PoolManager:
        options, seconds = self._options, self._options.timeout_seconds
        context = self._context()
        timeout = self._urllib3.Timeout(connect=min(seconds, _CONNECT_SECONDS), read=seconds)
        if not options.proxy:
            pool = self._urllib3.PoolManager(num_pools=4, maxsize=1, ssl_context=context, timeout=timeout)
            pool.pool_classes_by_scheme = self._deadline.pool_classes()
            return pool
        pool = self._urllib3.ProxyManager(
            options.proxy,
            num_pools=4,
            maxsize=1,
            ssl_context=context,
            timeout=timeout,
            # a certificate of ours is for the receiver
            proxy_ssl_context=self._context(shown=False),
            proxy_headers=self._proxy_headers,
        )
        pool.pool_classes_by_scheme = self._deadline.pool_classes()
        return pool

    def _context(self, *, shown: bool = True) -> ssl.SSLContext:
        """What is trusted and, if ``shown``, with which certificate we say who we are."""
        import ssl

        options = self._options
        try:
            context = ssl.create_default_context(cafile=options.ca_file or None)
        except OSError as error:
            raise SinkError(f"ca_file {options.ca_file}: {error.strerror or 'no certificates'}") from None
        if options.client_cert and shown:
            cert = secret_path(options.client_cert)
            key = secret_path(options.client_key) if options.client_key else cert
            try:
                # the empty password keeps a locked key from asking the terminal for one
                context.load_cert_chain(cert, key, password="")
            except OSError as error:
                why = error.strerror if not isinstance(error, ssl.SSLError) else None
                why = why or "no certificate with its key, or the key has a password"
                raise SinkError(f"client_cert {cert}, client_key {key}: {why}") from None
        return self._deadline.watch(context)

    def _files_stamps(self) -> list[tuple[int, int, int] | None]:
        """What tells that a certificate was renewed."""
        options = self._options
        names = [options.client_cert, options.client_key]
        paths = [*([Path(options.ca_file)] if options.ca_file else []), *(secret_path(n) for n in names if n)]
        return [_stamp(path) for path in paths]

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _words(self, error: Exception) -> str:
        """What went wrong, in our own words: the library's may hold the URL or a header."""
        kinds = self._urllib3.exceptions
        seconds = f"{self._options.timeout_seconds:g} s"
        if isinstance(error, kinds.ProxyError):
            inner = error.args[1] if len(error.args) > 1 else None
            if status := re.fullmatch(r"Tunnel connection failed: (\d{3})\b.*", str(inner), re.S):
                return f"the proxy {origin(self._options.proxy)} answered HTTP {status[1]}"
            why = self._words(inner) if isinstance(inner, Exception) else "failed"
            return f"the proxy {origin(self._options.proxy)}: {why}"
        if isinstance(error, kinds.ReadTimeoutError | TimeoutError):
            return f"no answer within {seconds}"
        if isinstance(error, kinds.SSLError):
            inner = error.args[0] if error.args else error
            why = getattr(inner, "verify_message", "") or getattr(inner, "reason", "") or "handshake failed"
            return f"TLS: {why}"
        if isinstance(error, kinds.NewConnectionError | kinds.ProtocolError):
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__cause__ or cause.__context__
            if isinstance(cause, socket.gaierror):
                return "its name cannot be resolved"
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


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def origin(url: str) -> str:
    """Scheme, host and port of a URL; the rest may be a secret."""
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
