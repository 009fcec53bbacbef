"""Who may read what: the web configuration file of the Prometheus exporters (TLS, client certificates,
basic authentication), and what is open without one.

The file's format is exporter-toolkit's (prometheus/exporter-toolkit, docs/web-configuration.md), so one
file can serve all exporters of a host. It is looked at for each connection and each request and read
again when it or a file it names has changed; a version that is wrong is said once and changes nothing.
yaml, ssl and bcrypt are imported only when such a file asks for them.

Without authentication the pages and the API are for this host alone: ``/metrics`` and health answer
everywhere, the rest only on a loopback address or a socket in the file system, unless ``expose_pages``
says otherwise. There the ``Host`` header must be an address or localhost, or a web page elsewhere could
have a browser on this host read events under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from oomwatchd.errors import ConfigError
from oomwatchd.web.server import Channel, Handler, Later, Request, Response, WantRead, WantWrite

if TYPE_CHECKING:
    import ssl

log = logging.getLogger(__name__)

#: answered whoever asks, unless a password is configured
OPEN_PATHS = frozenset({"/metrics", "/-/healthy", "/-/ready"})
MAX_FILE_BYTES = 256 * 1024
#: passwords whose check is remembered: right ones, and wrong ones so that a scraper with an old password
#: costs one hash and not one a scrape
_RIGHT, _WRONG = 64, 256
#: of a bcrypt hash no more is used of a password
_BCRYPT_BYTES = 72

_Version = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
_ClientAuth = Literal[
    "",
    "NoClientCert",
    "RequestClientCert",
    "RequireAnyClientCert",
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class TlsSection(_Section, frozen=True):
    """``tls_server_config``; paths are relative to the file."""

    cert_file: str = ""
    key_file: str = ""
    cert: str = ""
    key: str = ""
    client_ca_file: str = ""
    client_ca: str = ""
    client_auth_type: _ClientAuth = ""
    client_allowed_sans: list[str] = []
    min_version: _Version = "TLS12"
    max_version: _Version = "TLS13"
    cipher_suites: list[str] = []
    curve_preferences: list[Literal["CurveP256", "CurveP384", "CurveP521", "X25519"]] = []
    prefer_server_cipher_suites: bool = True


class HttpSection(_Section, frozen=True):
    """``http_server_config``; HTTP/2 is not spoken, a client that could falls back to HTTP/1.1."""

    http2: bool = True
    headers: dict[str, str] = {}


class WebSection(_Section, frozen=True):
    """The whole file."""

    tls_server_config: TlsSection | None = None
    http_server_config: HttpSection = HttpSection()
    basic_auth_users: dict[str, str] = {}


#: what exporter-toolkit lets the file set
_HEADERS = (
    *("Content-Security-Policy", "X-Frame-Options", "X-Content-Type-Options", "X-XSS-Protection"),
    "Strict-Transport-Security",
)
_HASH = re.compile(r"\$2[abxy]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")
#: Go's names of TLS 1.2 suites -> OpenSSL's; those of TLS 1.3 are always on in both
_SUITES = {
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("RSA", "ECDSA")
    for go, openssl in {
        "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
        "CHACHA20_POLY1305": "CHACHA20-POLY1305",
        "AES_128_CBC_SHA256": "AES128-SHA256",
        "AES_128_CBC_SHA": "AES128-SHA",
        "AES_256_CBC_SHA": "AES256-SHA",
    }.items()
} | {
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}
_SUITES_1_3 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}


class WebConfig(msgspec.Struct, frozen=True):
    """A file that was read and found right."""

    context: Any = None  # ssl.SSLContext | None
    allowed_sans: frozenset[str] = frozenset()
    headers: Mapping[str, str] = {}
    users: Mapping[str, str] = {}
    #: files it was made of, and what they were
    files: Mapping[Path, tuple[int, ...] | None] = {}


def read_web_config(path: Path) -> WebConfig:
    """Raises ConfigError."""
    if not path.is_absolute():
        path = path.absolute()
    section = _read_section(path)
    for user, hashed in section.basic_auth_users.items():
        if not _HASH.fullmatch(hashed):
            raise ConfigError(
                f"{path}: basic_auth_users: the password of {user!r} is no bcrypt hash",
                mend="make one with: htpasswd -nBC 10 '' (package apache2-utils)",
            )
        if ":" in user:
            raise ConfigError(f"{path}: basic_auth_users: a user's name cannot hold a colon: {user!r}")
    if section.basic_auth_users:
        _import("bcrypt", path)
    for name, value in section.http_server_config.headers.items():
        if name not in _HEADERS:
            raise ConfigError(
                f"{path}: http_server_config.headers: {name!r} cannot be set",
                mend=f"known here: {', '.join(_HEADERS)}",
            )
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(f"{path}: http_server_config.headers: {name}: not plain text")
    tls = section.tls_server_config
    if tls is not None and "\0" in tls.cert_file + tls.key_file + tls.client_ca_file:
        raise ConfigError(f"{path}: tls_server_config: a file's name holds a NUL character, which none can")
    # what the files were before they were read: a change meanwhile is seen later
    files = {name: _version(name) for name in (path, *(_named_files(tls, path) if tls else ()))}
    return WebConfig(
        context=None if tls is None else _context(tls, path),
        allowed_sans=frozenset(tls.client_allowed_sans) if tls else frozenset(),
        headers=section.http_server_config.headers,
        users=section.basic_auth_users,
        files=files,
    )


def _read_section(path: Path) -> WebSection:
    yaml = _import("yaml", path)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    try:
        document = yaml.safe_load(text)
    except Exception as error:  # what a tag does not fit raises whatever its constructor meets
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}: not YAML{where}: {getattr(error, 'problem', None) or error}") from error
    if document is None:
        document = {}
    try:
        return msgspec.convert(document, WebSection)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path}: {error}", mend="the format is that of the Prometheus exporters' web configuration"
        ) from error


def _import(module: str, path: Path) -> Any:
    package = {"yaml": "PyYAML (Debian: python3-yaml)", "bcrypt": "bcrypt (Debian: python3-bcrypt)"}[module]
    try:
        return __import__(module)
    except ImportError as error:
        raise ConfigError(f"{path}: cannot be used without {package}", mend="install it") from error


def _named_files(tls: TlsSection, path: Path) -> list[Path]:
    return [path.parent / name for name in (tls.cert_file, tls.key_file, tls.client_ca_file) if name]


def _context(tls: TlsSection, path: Path) -> ssl.SSLContext:
    import ssl

    def wrong(text: str, mend: str | None = None) -> ConfigError:
        return ConfigError(f"{path}: tls_server_config: {text}", mend=mend)

    if bool(tls.cert_file) == bool(tls.cert) or bool(tls.key_file) == bool(tls.key):
        raise wrong("needs cert_file or cert, and key_file or key")
    if tls.client_auth_type == "RequireAnyClientCert":
        raise wrong(
            "client_auth_type RequireAnyClientCert proves nothing and is not supported",
            "use RequireAndVerifyClientCert with client_ca_file",
        )
    verifies = tls.client_auth_type in ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
    if bool(tls.client_ca_file or tls.client_ca) != verifies:
        raise wrong(
            "client_ca_file and client_auth_type need each other",
            "client_auth_type: RequireAndVerifyClientCert",
        )
    if tls.client_allowed_sans and tls.client_auth_type != "RequireAndVerifyClientCert":
        raise wrong("client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    versions = {f"TLS1{n}": ssl.TLSVersion[f"TLSv1_{n}" if n else "TLSv1"] for n in range(4)}
    if versions[tls.min_version] > versions[tls.max_version]:
        raise wrong("min_version is above max_version")
    context.minimum_version = versions[tls.min_version]
    context.maximum_version = versions[tls.max_version]
    context.set_alpn_protocols(["http/1.1"])
    if not tls.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if unknown := [name for name in tls.cipher_suites if name not in _SUITES and name not in _SUITES_1_3]:
        raise wrong(f"cipher_suites: {unknown[0]!r} is not known", f"known here: {', '.join(_SUITES)}")
    if suites := [_SUITES[name] for name in tls.cipher_suites if name in _SUITES]:
        try:
            context.set_ciphers(":".join(suites))
        except ssl.SSLError as error:
            raise wrong("cipher_suites: this OpenSSL has none of them") from error
    if len(tls.curve_preferences) > 1:
        raise wrong("curve_preferences: this server can be held to one curve, or to none")
    for curve in tls.curve_preferences:
        try:
            context.set_ecdh_curve(_CURVES[curve])
        except ValueError as error:
            raise wrong(f"curve_preferences: this OpenSSL cannot be held to {curve}") from error
    try:
        with _as_file(tls.cert) as cert, _as_file(tls.key) as key:
            context.load_cert_chain(
                path.parent / tls.cert_file if tls.cert_file else cert,
                path.parent / tls.key_file if tls.key_file else key,
                # none may be asked for: who would type it
                password=lambda: b"",
            )
        if verifies:
            context.load_verify_locations(
                path.parent / tls.client_ca_file if tls.client_ca_file else None,
                cadata=tls.client_ca or None,
            )
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise wrong(f"certificate or key: {error}") from error
    if verifies:
        required = tls.client_auth_type == "RequireAndVerifyClientCert"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


class _as_file:
    """Text as a file in memory, for OpenSSL reads certificates from files alone."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> str:
        self._descriptor = os.memfd_create("pem")
        os.write(self._descriptor, self._text.encode())
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


class TlsChannel:
    """TLS around a socket that does not block."""

    def __init__(self, secured: ssl.SSLSocket, allowed_sans: frozenset[str]) -> None:
        import ssl

        self._socket = secured
        self._allowed_sans = allowed_sans
        self._greeted = False
        self._wants_read, self._wants_write = ssl.SSLWantReadError, ssl.SSLWantWriteError
        self._ended = (ssl.SSLEOFError, ssl.SSLZeroReturnError)

    @property
    def is_certified(self) -> bool:
        """The client showed a certificate, and it was verified."""
        return bool(self._socket.getpeercert())

    def fileno(self) -> int:
        return self._socket.fileno()

    def recv(self, size: int, /) -> bytes:
        try:
            self._greet()
            return self._socket.recv(size)
        except self._wants_read:
            raise WantRead from None
        except self._wants_write:
            raise WantWrite from None
        except self._ended:
            return b""

    def send(self, data: memoryview, /) -> int:
        try:
            self._greet()
            # one record's worth: OpenSSL wants a send that could not be done repeated with the same bytes
            return self._socket.send(data[:16384])
        except self._wants_read:
            raise WantRead from None
        except self._wants_write:
            raise WantWrite from None

    def shutdown(self, how: int, /) -> None:
        with suppress(OSError, ValueError):  # it says goodbye at once and does not wait for an answer
            self._socket.unwrap()
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()

    def _greet(self) -> None:
        if self._greeted:
            return
        self._socket.do_handshake()
        self._greeted = True
        if self._allowed_sans:
            shown: dict[str, Any] = self._socket.getpeercert() or {}
            names = {name for _, name in shown.get("subjectAltName", ())}
            if not names & self._allowed_sans:
                raise OSError("the client's certificate has no allowed name")


class Access:
    """What the web configuration file allows, as the file is now. A gate before ``handler``
    (:meth:`gate`), and the security of the server's connections."""

    def __init__(self, path: Path | None = None, *, expose_pages: bool = False) -> None:
        """Raises ConfigError when the file is wrong."""
        self._path = path
        self._config = read_web_config(path) if path else WebConfig()
        self._refused: Mapping[Path, tuple[int, ...] | None] | None = None
        self.expose_pages = expose_pages
        #: why the file's present version is not used
        self.failure: str | None = None
        self._lock = threading.Lock()
        self._salt = os.urandom(16)
        self._right: dict[bytes, None] = {}
        self._wrong: dict[bytes, None] = {}

    def change(self, path: Path | None, *, expose_pages: bool) -> None:
        """Use another file. Raises ConfigError and changes nothing when it is wrong."""
        config = read_web_config(path) if path else WebConfig()
        with self._lock:
            self._path, self._config, self._refused, self.failure = path, config, None, None
            self.expose_pages = expose_pages

    def current(self) -> WebConfig:
        """The file's rules, read again if it has changed."""
        path, config = self._path, self._config
        if path is None:
            return config
        now = {file: _version(file) for file in config.files}
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
            log.info("web configuration read again: %s", path)
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
        """``handler`` behind what the file asks for."""

        def answer(request: Request) -> Response | Later:
            config = self.current()
            return _adorned(self._admit(request, config, handler), config.headers)

        return answer

    def _admit(self, request: Request, config: WebConfig, handler: Handler) -> Response | Later:
        if config.users:
            return self._authenticate(request, config, lambda: handler(request))
        if request.path in OPEN_PATHS or request.certified or self.expose_pages:
            return handler(request)
        if not request.local:
            return _NOT_OPEN
        if not _names_this_host(request.headers.get("host", "")):
            return _MISDIRECTED
        return handler(request)

    def _authenticate(
        self, request: Request, config: WebConfig, proceed: Callable[[], Response | Later]
    ) -> Response | Later:
        given = _credentials(request)
        if given is None:
            return _UNAUTHORIZED
        user, password = given
        hashed = config.users.get(user)
        # one for a user that does not exist, of equal cost: who does must not be told by the time it takes
        compared = hashed if hashed is not None else _fake_hash(config.users)
        key = hmac.digest(
            self._salt, b"\0".join((user.encode(), compared.encode(), password)), hashlib.sha256
        )
        with self._lock:
            if key in self._right:
                return proceed()
            if key in self._wrong:
                return _UNAUTHORIZED

        def check() -> Response | Later:
            right = _matches(password, compared) and hashed is not None
            with self._lock:
                _remember(self._right if right else self._wrong, key, _RIGHT if right else _WRONG)
            # what the handler does inline belongs to the server's thread, but is done here this once
            return proceed() if right else _UNAUTHORIZED

        return Later("password", check)


def _adorned(answer: Response | Later, headers: Mapping[str, str]) -> Response | Later:
    if not headers:
        return answer
    if isinstance(answer, Later):
        make = answer.make
        return Later(answer.lane, lambda: _adorned(make(), headers))
    return msgspec.structs.replace(answer, headers={**answer.headers, **headers})


def _credentials(request: Request) -> tuple[str, bytes] | None:
    """RFC 7617."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = binascii.a2b_base64(token.strip(), strict_mode=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user.decode("utf-8", "replace"), password) if colon else None


def _matches(password: bytes, hashed: str) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed.encode())
    except ValueError:  # a NUL in it, say
        return False


def _fake_hash(users: Mapping[str, str]) -> str:
    """A hash that no password has, as costly as the first user's."""
    return f"$2b${next(iter(users.values())).split('$')[2]}$" + "." * 53


def _remember(kept: dict[bytes, None], key: bytes, most: int) -> None:
    kept[key] = None
    if len(kept) > most:
        del kept[next(iter(kept))]


def _names_this_host(host: str) -> bool:
    """An address, ``localhost`` or nothing (HTTP/1.0): what DNS cannot be made to lie about."""
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


_UNAUTHORIZED = Response(
    HTTPStatus.UNAUTHORIZED, b"Unauthorized\n", headers={"WWW-Authenticate": 'Basic realm="oomwatchd"'}
)
_NOT_OPEN = Response(
    HTTPStatus.FORBIDDEN,
    b"On this address only /metrics, /-/healthy and /-/ready answer without authentication.\n"
    b"Configure users or client certificates ([http] web_config), or set [http] expose_pages = true.\n",
)
_MISDIRECTED = Response(
    HTTPStatus.MISDIRECTED_REQUEST,
    b"This address answers under an IP address or as localhost, not under other names.\n"
    b"Behind a proxy: have it send the address as Host, or set [http] expose_pages = true.\n",
)
