"""HTTP/1.1 without a socket: bytes of a connection -> requests, an answer -> bytes.

Only GET and HEAD, no request bodies, no pipelining (a connection that sends more than one request at once is
closed after the first answer). Source: RFC 9110, RFC 9112.

No clock but for the ``Date`` header, no file, no socket.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Mapping
from http import HTTPStatus

import msgspec

MAX_REQUEST_BYTES = 16384
MAX_HEADERS = 100
_GZIP_BYTES = 1024

#: no loading from elsewhere, no framing, no guessing of types, no caching
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Request(msgspec.Struct, frozen=True):
    """A request; ``path`` and ``query`` as sent (percent-encoded), header names in lower case.

    ``local``: it came to an address that only this host can reach; ``certified``: its client showed a
    certificate that was verified; ``client``: who asks, for sharing fairly
    (:func:`oomwatchd.web.listening.client_of`).
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    local: bool = False
    certified: bool = False
    client: str = ""


class Response(msgspec.Struct, frozen=True):
    """An answer; the server adds the length, compression and the security headers."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}


class BadRequest(Exception):
    """A request that is refused, with the status that says why; the connection is closed."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


_TARGET = re.compile(rb"(?:https?://([^/?#\s]*))?(/[!-~]*)", re.ASCII | re.IGNORECASE)
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def parse(head: bytes) -> tuple[Request, bool]:
    """A request's head (without its closing empty line) and whether the connection may stay open.

    Raises BadRequest.
    """
    first, *lines = head.split(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    method, target, version = words
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    if not _TOKEN.fullmatch(method):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if method not in (b"GET", b"HEAD"):
        raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED)
    matched = _TARGET.fullmatch(target)
    if matched is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if len(lines) > MAX_HEADERS:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or b"\n" in line or b"\0" in line or b"\r" in line:
            raise BadRequest(HTTPStatus.BAD_REQUEST)
        key = name.decode("ascii").lower()
        text = value.strip(b" \t").decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if version == b"HTTP/1.1" and "host" not in headers:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if matched[1] is not None:  # absolute form: its authority counts, Host does not (RFC 9112, 3.2.2)
        headers["host"] = matched[1].rpartition(b"@")[2].decode("latin-1")
    path, _, query = matched[2].decode("ascii").partition("?")
    stays = version == b"HTTP/1.1" and "close" not in headers.get("connection", "").lower()
    return Request(method.decode("ascii"), path.partition("#")[0], query, headers), stays


class RequestReader:
    """Collects a connection's data until it is a whole request."""

    def __init__(self) -> None:
        self._received = bytearray()

    @property
    def begun(self) -> bool:
        """Whether a request has begun."""
        return bool(self._received)

    def feed(self, data: bytes) -> tuple[Request, bool] | None:
        """The request that ``data`` completes, and whether the connection may stay open; None: it is
        incomplete. Raises BadRequest."""
        received = self._received
        received += data
        # an empty line before the request is allowed (RFC 9112, 2.2)
        while received.startswith(b"\r\n"):
            del received[:2]
        head, end, more = bytes(received).partition(b"\r\n\r\n")
        if len(head) > MAX_REQUEST_BYTES:
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if not end:
            return None
        received.clear()
        request, stays = parse(head)
        return request, stays and not more


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(seconds: float) -> str:
    """Seconds since the epoch in the format of RFC 9110, 5.6.7; ``email.utils`` would cost 0.6 MiB."""
    t = time.gmtime(seconds)
    day = f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04}"
    return f"{day} {t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"


def compose(response: Response, request: Request | None, stays: bool) -> bytes:
    """An answer as bytes; ``request`` is None if it could not be read."""
    body = response.body
    headers = {
        "Date": http_date(time.time()),
        "Content-Type": response.content_type,
        **SECURITY_HEADERS,
        **response.headers,
        "Vary": "Accept, Accept-Encoding",
    }
    if request is not None and len(body) > _GZIP_BYTES and _takes_gzip(request):
        body = zlib.compress(body, level=5, wbits=31)  # as gzip; the module costs more
        headers["Content-Encoding"] = "gzip"
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "keep-alive" if stays else "close"
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if request is not None and request.method == "HEAD" else head + body


def _takes_gzip(request: Request) -> bool:
    for choice in request.headers.get("accept-encoding", "").split(","):
        coding, _, weight = choice.strip().partition(";")
        if coding.strip().lower() == "gzip":
            return re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight, re.I) is None
    return False


def refusal(refused: BadRequest) -> bytes:
    """The answer to a request that could not be read; the connection closes after it."""
    headers = {"Allow": "GET, HEAD"} if refused.status is HTTPStatus.METHOD_NOT_ALLOWED else {}
    body = f"{refused.status.phrase}\n".encode()
    return compose(Response(refused.status, body, headers=headers), None, False)
