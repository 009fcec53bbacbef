"""TLS for the server: a context from the web configuration's ``tls_server_config``, and a channel that never
blocks. ssl is imported only when such a section asks for it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from oomwatchd.errors import ConfigError
from oomwatchd.web.connection import WantRead, WantWrite

if TYPE_CHECKING:
    import ssl

_Version = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
_ClientAuth = Literal[
    "",
    "NoClientCert",
    "RequestClientCert",
    "RequireAnyClientCert",
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Part of the file; an unknown key is an error."""


class TlsSection(Section, frozen=True):
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


def tls_context(tls: TlsSection, path: Path) -> ssl.SSLContext:  # noqa: C901 - one branch for each key of the file
    """The TLS context. Raises ConfigError. ``path`` is the web configuration file; the section's paths are
    relative to its directory."""
    import ssl

    def wrong(text: str, hint: str | None = None) -> ConfigError:
        return ConfigError(f"{path}: tls_server_config: {text}", hint=hint)

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
            "client_ca_file and client_auth_type go together",
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
        raise wrong("curve_preferences: give one curve at most")
    for curve in tls.curve_preferences:
        try:
            context.set_ecdh_curve(_CURVES[curve])
        except ValueError as error:
            raise wrong(f"curve_preferences: this OpenSSL does not know {curve}") from error
    try:
        for name in filter(None, (tls.cert_file, tls.key_file, tls.client_ca_file)):
            file = path.parent / name
            if file.exists() and not file.is_file():  # opening a FIFO would block
                raise wrong(f"certificate or key: {file} is not a file")
        with _as_file(tls.cert) as cert, _as_file(tls.key) as key:
            context.load_cert_chain(
                path.parent / tls.cert_file if tls.cert_file else cert,
                path.parent / tls.key_file if tls.key_file else key,
                # OpenSSL must not ask for one: nobody would type it
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
    """Text as a file in memory, because OpenSSL reads certificates only from files."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> str:
        self._descriptor = os.memfd_create("pem")
        os.write(self._descriptor, self._text.encode())
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


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
