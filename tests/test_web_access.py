"""Who may read what, over real sockets: no authentication, passwords, TLS, client certificates."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import bcrypt
import pytest

from oomwatchd.cli import main
from oomwatchd.errors import ConfigError, UnavailableError
from oomwatchd.metrics import Metrics
from oomwatchd.metrics.families import registry
from oomwatchd.web import (
    Access,
    App,
    Health,
    HttpServer,
    Later,
    Request,
    Response,
    open_listeners,
    open_unix_listener,
)
from oomwatchd.web.lanes import ROOM
from oomwatchd.web.listening import client_of
from oomwatchd.web.server import MAX_CONNECTIONS
from oomwatchd.web.webconfig import WebConfig, read_web_config
from tests.waiting import PATIENCE

PASSWORD = "correct horse"  # noqa: S105  # of nothing
EVERYWHERE = "0.0.0.0"  # noqa: S104  # what is shown to be safe
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
COSTLY = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()

Serve = Callable[..., HttpServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(access, host="127.0.0.1")``: a server of the real application."""
    started: list[HttpServer] = []

    def start(access: Access, host: str = "127.0.0.1", handler: object = None) -> HttpServer:
        app = App(registry(Metrics()), Health())
        gated = access.gate(handler or app)  # type: ignore[arg-type]
        server = HttpServer(open_listeners(host, 0), gated, access)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


def port(server: HttpServer) -> int:
    return int(server.addresses[0].rpartition(":")[2])


def ask(
    server: HttpServer,
    path: str,
    *,
    user: str | None = None,
    password: str = PASSWORD,
    host: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> http.client.HTTPResponse:
    if tls is None:
        client = http.client.HTTPConnection("127.0.0.1", port(server), timeout=5)
    else:
        client = http.client.HTTPSConnection("localhost", port(server), timeout=5, context=tls)
    headers = {} if host is None else {"Host": host}
    if user is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    client.request("GET", path, headers=headers)
    answer = client.getresponse()
    answer.read()
    client.close()
    return answer


def status(server: HttpServer, path: str, **how: object) -> int:
    return ask(server, path, **how).status  # type: ignore[arg-type]


def web_config(directory: Path, text: str) -> Path:
    file = directory / "web.yml"
    file.write_text(text)
    return file


# -- without authentication -------------------------------------------------------------------------


PAGES = ("/", "/events", "/events/x", "/api/v1/events", "/api/v1/events/x", "/api/v1/event.schema.json")


def test_without_authentication_no_page_is_readable_on_every_address(serve: Serve) -> None:
    server = serve(Access(), EVERYWHERE)
    for path in (*PAGES, "/assets/pages.css", "/nothing", "/metrics/", "/metrics/../"):
        assert status(server, path) == 403, path
    for path in ("/metrics", "/-/healthy"):
        assert status(server, path) == 200
    assert status(server, "/-/ready") == 503, "it answers, with what is the case"
    # a Host header that claims to be local changes nothing
    assert status(server, "/", host="127.0.0.1") == 403


def test_pages_are_exposed_when_that_is_wanted(serve: Serve) -> None:
    server = serve(Access(expose_pages=True), EVERYWHERE)
    assert status(server, "/", host="oom.example.org") == 200


def test_on_loopback_pages_answer_under_names_that_dns_cannot_forge(serve: Serve) -> None:
    server = serve(Access())
    for host in ("127.0.0.1", "127.0.0.1:80", "localhost:10053", "[::1]:80", "[fe80::1%eth0]", "x.localhost"):
        assert status(server, "/", host=host) == 200, host
    forged = ("rebound.example.org", "localhost.example.org", "127.0.0.1.example.org:80")
    for host in (*forged, "127.0.0.1%.example.org", "[::1%]", "[::1%a/b]"):
        assert status(server, "/", host=host) == 421, host
        assert status(server, "/metrics", host=host) == 200


def test_the_authority_of_an_absolute_target_counts_and_the_host_header_does_not(serve: Serve) -> None:
    def answer(target: bytes, host: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port(server)), timeout=5) as client:
            client.sendall(
                b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
            )
            return client.makefile("rb").read()[9:12]

    server = serve(Access())
    assert answer(b"http://rebound.example.org/", b"localhost") == b"421"
    assert answer(b"http://user@rebound.example.org:10053/", b"localhost") == b"421"
    assert answer(b"HTTP://rebound.example.org/?x", b"localhost") == b"421"
    assert answer(b"http://127.0.0.1:10053/", b"rebound.example.org") == b"200"


# -- passwords --------------------------------------------------------------------------------------


def test_a_password_is_asked_for_everything(serve: Serve, tmp_path: Path) -> None:
    access = Access(web_config(tmp_path, f"basic_auth_users:\n  prom: {HASH}\n"))
    server = serve(access, EVERYWHERE)
    for path in ("/", "/metrics", "/-/healthy", "/nothing"):
        refused = ask(server, path)
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"] == 'Basic realm="oomwatchd"'
        assert status(server, path, user="prom", password=PASSWORD[:-1]) == 401
        assert status(server, path, user="nobody") == 401
    for path, answer in (("/", 200), ("/metrics", 200), ("/nothing", 404)):
        assert status(server, path, user="prom", host="oom.example.org") == answer


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !", "Basic cHJvbQ==", "Bearer x", "Basic \xff", "basic " + "A" * 9000]
)
def test_no_authorization_header_breaks_the_gate(serve: Serve, tmp_path: Path, header: str) -> None:
    server = serve(Access(web_config(tmp_path, f"basic_auth_users: {{prom: {HASH}}}")))
    client = http.client.HTTPConnection("127.0.0.1", port(server), timeout=5)
    client.request("GET", "/metrics", headers={"Authorization": header})
    assert client.getresponse().status == 401
    client.close()


def test_passwords_of_any_bytes_are_compared(serve: Serve, tmp_path: Path) -> None:
    server = serve(Access(web_config(tmp_path, f"basic_auth_users: {{prom: {HASH}}}")))
    for password in ("", "\0", "a" * 200, "pässwörd", PASSWORD + "x"):
        assert status(server, "/metrics", user="prom", password=password) == 401


def test_a_flood_of_wrong_passwords_does_not_delay_a_known_one(serve: Serve, tmp_path: Path) -> None:
    server = serve(Access(web_config(tmp_path, f"basic_auth_users: {{prom: {COSTLY}}}")))
    assert status(server, "/metrics", user="prom") == 200
    ended = threading.Event()

    def guess(number: int) -> None:
        attempt = 0
        while not ended.is_set():
            attempt += 1
            ask(server, "/", user="prom", password=f"{number} {attempt}")

    guessers = [threading.Thread(target=guess, args=(number,)) for number in range(6)]
    for guesser in guessers:
        guesser.start()
    slowest = 0.0
    for _ in range(20):
        begin = time.monotonic()
        assert status(server, "/metrics", user="prom") == 200
        slowest = max(slowest, time.monotonic() - begin)
    ended.set()
    for guesser in guessers:
        guesser.join()
    # one hash of this cost takes some 50 ms, and six wait at any time
    assert slowest < 0.25


# -- the file ---------------------------------------------------------------------------------------


def test_a_changed_file_counts_at_once_and_a_wrong_one_not_at_all(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = web_config(tmp_path, f"basic_auth_users: {{prom: {HASH}}}")
    access = Access(file)
    server = serve(access)
    assert status(server, "/metrics", user="prom") == 200
    web_config(tmp_path, f"basic_auth_users: {{other: {HASH}}}  # changed\n")
    assert status(server, "/metrics", user="prom") == 401
    assert status(server, "/metrics", user="other") == 200
    web_config(tmp_path, "basic_auth_users: {other: plain}")
    for _ in range(3):
        assert status(server, "/metrics", user="other") == 200
    assert caplog.text.count("web configuration not changed") == 1
    assert access.failure is not None
    file.unlink()
    assert status(server, "/metrics", user="prom") == 401
    web_config(tmp_path, f"basic_auth_users: {{prom: {HASH}}}")
    assert status(server, "/metrics", user="prom") == 200
    assert access.failure is None


def test_a_file_that_is_read_while_another_is_chosen_does_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = web_config(tmp_path, "{}")
    access = Access(file)
    other = tmp_path / "other.yml"
    other.write_text(f"basic_auth_users: {{prom: {HASH}}}")
    web_config(tmp_path, "{}  # changed")
    read = read_web_config

    def slowly(path: Path) -> WebConfig:
        found = read(path)
        if path == file:
            access.change(other, expose_pages=False)
        return found

    monkeypatch.setattr("oomwatchd.web.access.read_web_config", slowly)
    assert access.current().users.keys() == {"prom"}
    assert access.current().users.keys() == {"prom"}


def test_headers_of_the_file_are_sent(serve: Serve, tmp_path: Path) -> None:
    text = "http_server_config:\n  http2: false\n  headers:\n    Strict-Transport-Security: max-age=60\n"
    server = serve(Access(web_config(tmp_path, text)))
    answer = ask(server, "/metrics")
    assert answer.headers["Strict-Transport-Security"] == "max-age=60"
    assert answer.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML at line 1"),
        ("a: !!timestamp x", "not YAML: "),
        ("a: !!bool maybe", "not YAML: "),
        ("a: !!int ''", "not YAML: "),
        (f"basic_auth_users: {{prom: {HASH.replace('$2b$', '$2$')}}}", "is not a bcrypt hash"),
        ('tls_server_config: {cert_file: "a\\0", key_file: b}', "a file's name holds a NUL character"),
        ("- x", "Expected `object`, got `array`"),
        ("basic_auth_user: {}", "unknown field `basic_auth_user`"),
        ("basic_auth_users: {prom: secret}", "the password of 'prom' is not a bcrypt hash; make one"),
        (f"basic_auth_users: {{'a:b': {HASH}}}", "cannot hold a colon"),
        ("http_server_config: {headers: {Server: x}}", "'Server' cannot be set"),
        ('http_server_config: {headers: {X-Frame-Options: "a\\r\\nX: y"}}', "not plain text"),
        ("tls_server_config: {}", "needs cert_file or cert, and key_file or key"),
        ("tls_server_config: {cert_file: a, key_file: b}", "certificate or key: "),
        ("tls_server_config: {cert_file: a, key_file: b, min_version: SSL30}", "Invalid enum value"),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert}",
            "client_ca_file and client_auth_type go together",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAnyClientCert}",
            "use RequireAndVerifyClientCert",
        ),
        ("tls_server_config: {cert_file: a, key_file: b, cipher_suites: [RC4]}", "'RC4' is not known"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, text: str, words: str) -> None:
    file = web_config(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Access(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_or_endless_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Access(tmp_path / "absent.yml")
    with pytest.raises(ConfigError, match="larger than"):
        Access(Path("/dev/zero"))


def test_check_config_reads_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, config = web_config(tmp_path, "basic_auth_users: {prom: plain}"), tmp_path / "config.toml"
    config.write_text(f'[http]\nweb_config = "{file}"\n')
    assert main(["check-config", str(config)]) == 78
    assert "the password of 'prom' is not a bcrypt hash" in capsys.readouterr().err
    web_config(tmp_path, f"basic_auth_users: {{prom: {HASH}}}")
    assert main(["check-config", str(config)]) == 0


# -- TLS --------------------------------------------------------------------------------------------


class Certificates:
    """An authority, a server's and a client's certificate, made by openssl."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")  # Python 3.13 wants RFC 5280 kept
        self._run("req", "-x509", *_NEW, *usage, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
        self.issue("server", "DNS:localhost")
        self.issue("client", "DNS:scraper.example.org")

    def _run(self, *arguments: str) -> None:
        command = ("openssl", *arguments)
        subprocess.run(command, cwd=self.directory, check=True, capture_output=True)

    def issue(self, name: str, alternative: str) -> None:
        extension = self.directory / "extension"
        identifiers = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        extension.write_text(f"subjectAltName={alternative}\n{identifiers}")
        self._run("req", *_NEW, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        files = ("-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "extension")
        self._run("x509", "-req", *files, "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2")

    def client(self, name: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.directory / "ca.pem")
        if name:
            context.load_cert_chain(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        return context


_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"
MUTUAL = TLS + "  client_ca_file: ca.pem\n  client_auth_type: RequireAndVerifyClientCert\n"


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


def test_tls(serve: Serve, issued: Certificates) -> None:
    server = serve(Access(web_config(issued.directory, TLS)), EVERYWHERE)
    context = issued.client()
    assert status(server, "/metrics", tls=context) == 200
    assert status(server, "/", tls=context) == 403, "who comes without a certificate is nobody"
    with pytest.raises(ssl.SSLCertVerificationError):
        status(server, "/metrics", tls=ssl.create_default_context())
    with pytest.raises((http.client.HTTPException, OSError)):
        status(server, "/metrics")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert status(server, "/metrics", tls=context) == 200


@pytest.mark.parametrize("kind", ["other's key", "no PEM", "directory", "absent", "empty", "fifo"])
@pytest.mark.parametrize("which", ["server.pem", "server.key"])
def test_wrong_files_are_one_clear_error_at_once(
    kind: str, which: str, issued: Certificates, tmp_path: Path
) -> None:
    for name in ("server.pem", "server.key"):
        shutil.copy(issued.directory / name, tmp_path / name)
    wrong = tmp_path / which
    wrong.unlink()
    match kind:
        case "other's key":
            shutil.copy(issued.directory / which.replace("server", "client"), wrong)
        case "directory":
            wrong.mkdir()
        case "fifo":
            os.mkfifo(wrong)
        case "no PEM" | "empty":
            wrong.write_text("garbage\n" if kind == "no PEM" else "")
    file = web_config(tmp_path, TLS)
    with pytest.raises(ConfigError) as caught:
        Access(file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_tls_serves_many_requests_and_large_answers(serve: Serve, issued: Certificates) -> None:
    content = os.urandom(3 << 20)

    def handler(request: Request) -> Response:
        return Response(HTTPStatus.OK, content)

    server = serve(Access(web_config(issued.directory, TLS)), handler=handler)
    client = http.client.HTTPSConnection("localhost", port(server), timeout=10, context=issued.client())
    for _ in range(3):
        client.request("GET", "/")
        assert client.getresponse().read() == content
    client.close()


def test_who_leaves_before_the_handshake_writes_nothing_to_the_log(
    serve: Serve, issued: Certificates, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(web_config(issued.directory, TLS))
    server = serve(access)
    for sent in (b"", b"x", b"GET / HTTP/1.1\r\n\r\n"):
        for lingers in (True, False):
            client = socket.create_connection(("127.0.0.1", port(server)))
            client.send(sent)
            if not lingers:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
    assert status(server, "/metrics", tls=issued.client()) == 200
    assert caplog.records == []

    def fails() -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(access, "current", fails)
    for _ in range(3):
        with pytest.raises((OSError, http.client.HTTPException)):
            status(server, "/metrics", tls=issued.client())
    assert [r.getMessage() for r in caplog.records] == [
        "cannot secure a connection: a fault of ours (said once)"
    ]


def test_slow_handshakes_do_not_delay_a_scrape(serve: Serve, issued: Certificates) -> None:
    server = serve(Access(web_config(issued.directory, TLS)))
    context = issued.client()
    idle = [socket.create_connection(("127.0.0.1", port(server))) for _ in range(100)]
    for number, client in enumerate(idle[-50:]):
        # a ClientHello that never ends
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[: number % 9 + 1])
    for _ in range(5):
        begin = time.monotonic()
        assert status(server, "/metrics", tls=context) == 200
        assert time.monotonic() - begin < 0.5
    for client in idle:
        client.close()


def test_a_client_certificate_opens_the_pages(serve: Serve, issued: Certificates) -> None:
    server = serve(Access(web_config(issued.directory, MUTUAL)), EVERYWHERE)
    assert status(server, "/", tls=issued.client("client")) == 200
    with pytest.raises(OSError):
        status(server, "/metrics", tls=issued.client())


def test_only_allowed_names_may_come(serve: Serve, issued: Certificates) -> None:
    text = MUTUAL + "  client_allowed_sans: [scraper.example.org]\n"
    server = serve(Access(web_config(issued.directory, text)))
    assert status(server, "/metrics", tls=issued.client("client")) == 200
    with pytest.raises((http.client.HTTPException, OSError)):
        status(server, "/metrics", tls=issued.client("server"))


def test_a_certificate_that_is_optional_is_told_from_none(serve: Serve, issued: Certificates) -> None:
    text = MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
    server = serve(Access(web_config(issued.directory, text)), EVERYWHERE)
    assert status(server, "/", tls=issued.client()) == 403
    assert status(server, "/", tls=issued.client("client")) == 200


def test_a_renewed_certificate_counts_at_once(serve: Serve, tmp_path: Path) -> None:
    made = Certificates(tmp_path)
    server = serve(Access(web_config(tmp_path, TLS)))

    def shown() -> bytes | None:
        with (
            socket.create_connection(("127.0.0.1", port(server)), timeout=5) as plain,
            made.client().wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return secured.getpeercert(binary_form=True)

    first = shown()
    made.issue("server", "DNS:localhost")
    assert shown() != first


def test_inline_certificates_suites_and_curves(serve: Serve, issued: Certificates, tmp_path: Path) -> None:
    pem, key = ((issued.directory / f"server.{kind}").read_text() for kind in ("pem", "key"))
    text = "tls_server_config:\n  max_version: TLS12\n  curve_preferences: [CurveP256]\n"
    text += "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n"
    for name, value in (("cert", pem), ("key", key)):
        text += f"  {name}: |\n" + "".join(f"    {line}\n" for line in value.splitlines())
    server = serve(Access(web_config(tmp_path, text)))
    with (
        socket.create_connection(("127.0.0.1", port(server)), timeout=5) as plain,
        issued.client().wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        cipher = secured.cipher()
    assert cipher is not None
    assert cipher[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"


def test_no_file_is_needed_for_nothing_to_be_asked() -> None:
    assert Access().current().context is None
    with pytest.raises(ConfigError):
        read_web_config(Path("/nonexistent/web.yml"))


class Guessers:
    """Clients that give a wrong password each, without end, each from the address that it is told."""

    def __init__(self, server: HttpServer, sources: list[str]) -> None:
        self._port = port(server)
        self._end = threading.Event()
        self.busy = 0
        self.wrong = 0
        self._threads = [
            threading.Thread(target=self._guess, args=(number, source))
            for number, source in enumerate(sources)
        ]

    def __enter__(self) -> Guessers:
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + PATIENCE
        while self.wrong < len(self._threads) and time.monotonic() < deadline:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(20)

    def _guess(self, number: int, source: str) -> None:
        attempt = 0
        while not self._end.is_set():
            attempt += 1
            given = base64.b64encode(f"prom:{number} {attempt}".encode()).decode()
            client = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=20, source_address=(source, 0)
            )
            try:
                client.request("GET", "/", headers={"Authorization": f"Basic {given}"})
                code = client.getresponse().status
            except (OSError, http.client.HTTPException):
                code = 0
            self.busy += code == 503
            self.wrong += code == 401
            client.close()


@pytest.mark.parametrize(
    "sources",
    [
        pytest.param(["127.0.0.1"] * 24, id="from-the-same-address"),
        pytest.param(["127.0.0.2"] * 48, id="from-another-address"),
        pytest.param([f"127.0.1.{n}" for n in range(48)], id="from-many-addresses"),
    ],
)
def test_who_guesses_passwords_does_not_keep_the_operator_out(
    serve: Serve, tmp_path: Path, sources: list[str]
) -> None:
    users = "".join(f"  op{number}: {COSTLY}\n" for number in range(3))
    server = serve(Access(web_config(tmp_path, f"basic_auth_users:\n{users}  prom: {COSTLY}\n")))
    with Guessers(server, sources) as guessers:
        # each a login that is not yet remembered
        took = []
        for number in range(3):
            begin = time.monotonic()
            with_password = f"op{number}:{PASSWORD}"
            client = http.client.HTTPConnection("127.0.0.1", port(server), timeout=20)
            token = base64.b64encode(with_password.encode()).decode()
            client.request("GET", "/", headers={"Authorization": f"Basic {token}"})
            assert client.getresponse().status == 200, f"{guessers.busy} busy, {guessers.wrong} wrong"
            client.close()
            took.append(time.monotonic() - begin)
    assert guessers.wrong >= len(sources)
    if "127.0.0.1" not in sources:
        # behind the hash under way, and not behind those that wait
        assert min(took) < 0.1 * len(sources) / 2, took


def test_who_holds_most_connections_loses_them_first(serve: Serve) -> None:
    server = serve(Access())
    known = http.client.HTTPConnection("127.0.0.1", port(server), timeout=5, source_address=("127.0.0.3", 0))
    known.request("GET", "/-/healthy")
    assert known.getresponse().read() == b"healthy\n"
    held = known.sock
    crowd = [
        socket.create_connection(("127.0.0.1", port(server)), source_address=("127.0.0.4", 0))
        for _ in range(3 * MAX_CONNECTIONS)
    ]
    known.request("GET", "/-/healthy")
    assert known.getresponse().read() == b"healthy\n"
    assert known.sock is held, "the longest idle connection of all, but not its client's fault"
    known.close()
    for client in crowd:
        client.close()


@pytest.mark.parametrize(
    ("address", "client"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::"),
        (("::1", 1, 0, 0), "::"),
        ("", ""),
        (b"", ""),
    ],
)
def test_a_client_is_an_address_or_a_network_of_one_site(address: object, client: str) -> None:
    assert client_of(address) == client


# -- lanes ------------------------------------------------------------------------------------------


def test_a_slow_page_delays_no_scrape_and_too_many_are_told_to_come_later(serve: Serve) -> None:
    release = threading.Event()

    def slow() -> Response:
        release.wait(10)
        return Response(HTTPStatus.OK, b"at last")

    def handler(request: Request) -> Response | Later:
        return Later("page", slow) if request.path == "/slow" else Response(HTTPStatus.OK, b"at once")

    server = serve(Access(), handler=handler)
    clients = [socket.create_connection(("127.0.0.1", port(server)), timeout=5) for _ in range(24)]
    for client in clients:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    begin = time.monotonic()
    assert status(server, "/") == 200
    assert time.monotonic() - begin < 0.5
    release.set()
    said = [client.makefile("rb").read() for client in clients]
    done = sum(text.endswith(b"at last") for text in said)
    busy = sum(text.startswith(b"HTTP/1.1 503") for text in said)
    assert done + busy == len(clients)
    assert done in (ROOM["page"], ROOM["page"] + 1)


def test_a_failing_page_is_a_500(serve: Serve) -> None:
    def fail() -> Response:
        raise RuntimeError("broken")

    server = serve(Access(), handler=lambda request: Later("page", fail))
    assert [status(server, "/") for _ in range(2)] == [500, 500]


def test_who_leaves_before_the_answer_harms_nobody(serve: Serve) -> None:
    release = threading.Event()

    def slow() -> Response:
        release.wait(10)
        return Response(HTTPStatus.OK, b"x" * 100_000)

    server = serve(Access(), handler=lambda request: Later("page", slow))
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port(server))) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    release.set()
    assert status(server, "/") == 200


# -- unix sockets -----------------------------------------------------------------------------------


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    access = Access()
    for _ in range(2):  # the second finds what the first left behind
        app = App(registry(Metrics()), Health())
        server = HttpServer([open_unix_listener(path)], access.gate(app), access)
        server.start()
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(UnavailableError, match="another oomwatchd may be running"):
            open_unix_listener(path)
        for wanted in (b"/", b"/metrics"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(os.fspath(path))
                client.sendall(b"GET " + wanted + b" HTTP/1.0\r\n\r\n")
                assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
        server.stop()


def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("kept")
    with pytest.raises(UnavailableError, match="cannot listen on"):
        open_unix_listener(path)
    assert path.read_text() == "kept"
