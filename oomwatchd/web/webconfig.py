"""The web configuration file of the Prometheus exporters: TLS, client certificates, headers and users.

The format is exporter-toolkit's (prometheus/exporter-toolkit, docs/web-configuration.md), so one file can
serve all exporters of a host. yaml, ssl and bcrypt are imported only when such a file asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from oomwatchd.errors import ConfigError
from oomwatchd.web.tls import Section, TlsSection, tls_context

MAX_FILE_BYTES = 256 * 1024


class HttpSection(Section, frozen=True):
    """``http_server_config``; HTTP/2 is not supported, clients fall back to HTTP/1.1."""

    http2: bool = True
    headers: dict[str, str] = {}


class WebSection(Section, frozen=True):
    """The whole file."""

    tls_server_config: TlsSection | None = None
    http_server_config: HttpSection = HttpSection()
    basic_auth_users: dict[str, str] = {}


#: the headers that exporter-toolkit lets the file set
_HEADERS = (
    *("Content-Security-Policy", "X-Frame-Options", "X-Content-Type-Options", "X-XSS-Protection"),
    "Strict-Transport-Security",
)
_HASH = re.compile(r"\$2[abxy]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")


class WebConfig(msgspec.Struct, frozen=True):
    """A valid file that was read."""

    context: Any = None  # ssl.SSLContext | None
    allowed_sans: frozenset[str] = frozenset()
    headers: Mapping[str, str] = {}
    users: Mapping[str, str] = {}
    #: the files that it was read from, and their versions
    files: Mapping[Path, tuple[int, ...] | None] = {}


def read_web_config(path: Path) -> WebConfig:
    """Read and check the file. Raises ConfigError."""
    if not path.is_absolute():
        path = path.absolute()
    section = _read_section(path)
    for user, hashed in section.basic_auth_users.items():
        if not _HASH.fullmatch(hashed):
            raise ConfigError(
                f"{path}: basic_auth_users: the password of {user!r} is not a bcrypt hash",
                hint="make one with: htpasswd -nBC 10 '' (package apache2-utils)",
            )
        if ":" in user:
            raise ConfigError(f"{path}: basic_auth_users: a user's name cannot hold a colon: {user!r}")
    if section.basic_auth_users:
        _import("bcrypt", path)
    for name, value in section.http_server_config.headers.items():
        if name not in _HEADERS:
            raise ConfigError(
                f"{path}: http_server_config.headers: {name!r} cannot be set",
                hint=f"known here: {', '.join(_HEADERS)}",
            )
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(f"{path}: http_server_config.headers: {name}: not plain text")
    tls = section.tls_server_config
    if tls is not None and "\0" in tls.cert_file + tls.key_file + tls.client_ca_file:
        raise ConfigError(f"{path}: tls_server_config: a file's name holds a NUL character, which none can")
    # the versions before reading, so that a change meanwhile is noticed later
    files = {name: version_of(name) for name in (path, *(_named_files(tls, path) if tls else ()))}
    return WebConfig(
        context=None if tls is None else tls_context(tls, path),
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
    except Exception as error:  # the constructor of a YAML tag may raise anything
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}: not YAML{where}: {getattr(error, 'problem', None) or error}") from error
    if document is None:
        document = {}
    try:
        return msgspec.convert(document, WebSection)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path}: {error}", hint="the format is that of the Prometheus exporters' web configuration"
        ) from error


def _import(module: str, path: Path) -> Any:
    package = {"yaml": "PyYAML (Debian: python3-yaml)", "bcrypt": "bcrypt (Debian: python3-bcrypt)"}[module]
    try:
        return __import__(module)
    except ImportError as error:
        raise ConfigError(f"{path}: cannot be used without {package}", hint="install it") from error


def _named_files(tls: TlsSection, path: Path) -> list[Path]:
    return [path.parent / name for name in (tls.cert_file, tls.key_file, tls.client_ca_file) if name]


def version_of(path: Path) -> tuple[int, ...] | None:
    """A file's version, which differs after each change; None: the file is absent."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev
