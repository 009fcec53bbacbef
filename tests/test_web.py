"""The HTTP server over real sockets, with clients that behave and clients that do not."""

from __future__ import annotations

import gzip
import http.client
import os
import socket
import time
from collections.abc import Iterator
from email.utils import formatdate
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from oomwatchd.errors import UnavailableError
from oomwatchd.metrics import Metrics
from oomwatchd.metrics.families import registry
from oomwatchd.web import App, Health, HttpServer, Request, Response, adopt_listeners, open_listeners
from oomwatchd.web import server as server_module
from oomwatchd.web.messages import BadRequest, http_date, parse


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def server(health: Health) -> Iterator[HttpServer]:
    metrics = Metrics(sinks=("journal",))
    served = HttpServer(open_listeners("127.0.0.1", 0), App(registry(metrics), health))
    served.start()
    yield served
    served.stop()


def address(server: HttpServer) -> tuple[str, int]:
    host, _, port = server.addresses[0].rpartition(":")
    return host, int(port)


def get(
    server: HttpServer, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    client = http.client.HTTPConnection(*address(server), timeout=5)
    client.request(method, path, headers=headers or {})
    answer = client.getresponse()
    result = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    client.close()
    return result


def raw(server: HttpServer, data: bytes) -> bytes:
    """Everything the server says to ``data`` until it closes."""
    with socket.create_connection(address(server), timeout=5) as client:
        client.sendall(data)
        said = b""
        while part := client.recv(65536):
            said += part
        return said


def test_metrics_as_text_and_as_openmetrics(server: HttpServer) -> None:
    status, headers, body = get(server, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    assert b"\noomwatchd_kmsg_up 0.0\n" in body
    _, headers, body = get(
        server, "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"}
    )
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert list(text_string_to_metric_families(body.decode()))  # type: ignore[no-untyped-call]


def test_gzip_is_given_to_those_who_take_it(server: HttpServer) -> None:
    _, headers, body = get(server, "/metrics", headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert headers["content-encoding"] == "gzip"
    assert b"oomwatchd_kmsg_up" in gzip.decompress(body)
    for refused in ("", "br", "gzip;q=0", "gzip; q=0.0"):
        _, headers, body = get(server, "/metrics", headers={"Accept-Encoding": refused})
        assert "content-encoding" not in headers
        assert b"oomwatchd_kmsg_up" in body


def test_health_follows_the_main_loop() -> None:
    clock = Clock()
    health = Health(alive_seconds=60, clock=clock)
    app = App(registry(Metrics()), health)

    def ask(path: str) -> tuple[int, bytes]:
        answer = app(Request("GET", path))
        assert isinstance(answer, Response)
        return answer.status.value, answer.body

    assert ask("/-/healthy") == (200, b"healthy\n")
    assert ask("/-/ready") == (503, b"not ready: starting\n")
    health.ready()
    assert ask("/-/ready") == (200, b"ready\n")
    clock.now += 61
    assert ask("/-/healthy") == (503, b"not healthy: the main loop has not come round for 61 s\n")
    assert ask("/-/ready")[0] == 503
    health.beat()
    assert ask("/-/healthy")[0] == 200
    health.ready("the kernel log is gone")
    assert ask("/-/ready") == (503, b"not ready: the kernel log is gone\n")


def test_landing_page_and_nothing_else(server: HttpServer) -> None:
    status, headers, body = get(server, "/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert b'href="/metrics"' in body
    for path in ("/metrics/", "/favicon.ico", "//", "/..%2f", "/-/"):
        assert get(server, path)[0] == 404


def test_security_headers_are_on_every_answer(server: HttpServer) -> None:
    for path in ("/", "/metrics", "/nothing"):
        _, headers, _ = get(server, path)
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
    assert b"X-Content-Type-Options: nosniff" in raw(server, b"nonsense\r\n\r\n")


def test_head_is_get_without_the_body(server: HttpServer) -> None:
    status, headers, body = get(server, "/", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == len(get(server, "/")[2])


def test_a_connection_serves_many_requests(server: HttpServer) -> None:
    client = http.client.HTTPConnection(*address(server), timeout=5)
    client.connect()
    held = client.sock
    for _ in range(20):
        client.request("GET", "/-/healthy")
        assert client.getresponse().read() == b"healthy\n"
        assert client.sock is held
    client.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: x", 405),
        (b"TRACE / HTTP/1.1\r\nHost: x", 405),
        (b"GET / HTTP/2.0\r\nHost: x", 505),
        (b"GET /", 400),
        (b"GET  / HTTP/1.1\r\nHost: x", 400),
        (b"GET / HTTP/1.1", 400),
        (b"GET * HTTP/1.1\r\nHost: x", 400),
        (b"GET ../ HTTP/1.1\r\nHost: x", 400),
        (b"GET /\x01 HTTP/1.1\r\nHost: x", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded", 400),
        (b"GET / HTTP/1.1\r\nHost : x", 400),
        (b"GET / HTTP/1.1\r\nHost: x\nX: y", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5", 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked", 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"\r\n".join(b"X: y" for _ in range(200)), 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000, 431),
    ],
)
def test_what_is_refused_and_how(server: HttpServer, head: bytes, status: int) -> None:
    said = raw(server, head + b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in said
    assert (b"\r\nAllow: GET, HEAD\r\n" in said) == (status == 405)


def test_pipelined_requests_get_one_answer_and_a_close(server: HttpServer) -> None:
    said = raw(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
    assert said.count(b"HTTP/1.1 200 OK") == 1
    assert b"\r\nConnection: close\r\n" in said


@given(st.floats(0, 253402300799))
def test_dates_are_those_of_the_standard_library(seconds: float) -> None:
    assert http_date(seconds) == formatdate(seconds, usegmt=True)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    try:
        request, _ = parse(data)
    except BadRequest:
        return
    assert request.method in ("GET", "HEAD")


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_no_accept_header_breaks_the_metrics(accept: str) -> None:
    app = App(registry(Metrics()), Health())
    answer = app(Request("GET", "/metrics", headers={"accept": accept}))
    assert isinstance(answer, Response)
    assert answer.status is HTTPStatus.OK


def test_a_failing_handler_is_a_500_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: Request) -> Response:
        raise ValueError(request.path)

    served = HttpServer(open_listeners("127.0.0.1", 0), handler)
    served.start()
    assert get(served, "/x")[0] == 500
    assert get(served, "/y")[0] == 500
    assert "cannot answer '/x'" in caplog.text
    served.stop()


def test_a_fault_of_the_server_costs_connections_and_not_the_server(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_connection: object) -> None:
        raise ValueError("a fault of ours")

    with monkeypatch.context() as patched:
        patched.setattr(server, "_serve", fails)
        with pytest.raises((OSError, http.client.HTTPException)):
            get(server, "/metrics")
    assert get(server, "/metrics")[0] == 200 and not server.ended
    assert [r.getMessage() for r in caplog.records] == [
        "HTTP: ValueError: a fault of ours; connections closed"
    ]
    monkeypatch.setattr(server, "_serve", fails)
    for _ in range(server_module.MAX_FAULTS):
        with pytest.raises((OSError, http.client.HTTPException)):
            get(server, "/metrics")
    server._thread.join(5)
    assert server.ended
    assert caplog.records[-1].getMessage() == "the HTTP server has ended"


def test_idle_and_dripping_clients_do_not_delay_a_scrape(server: HttpServer) -> None:
    clients = [socket.create_connection(address(server)) for _ in range(50)]
    for client in clients[:25]:
        client.send(b"GET /metrics HT")
    begin = time.monotonic()
    assert get(server, "/metrics")[0] == 200
    assert time.monotonic() - begin < 0.5
    for client in clients:
        client.close()


def test_more_clients_than_connections_push_out_the_idlest(server: HttpServer) -> None:
    clients = [socket.create_connection(address(server)) for _ in range(3 * server_module.MAX_CONNECTIONS)]
    assert get(server, "/metrics")[0] == 200
    for client in clients:
        client.settimeout(0.2)
    assert clients[0].recv(1) == b"", "the first came first and is closed"
    with pytest.raises(TimeoutError):
        clients[-1].recv(1)
    for client in clients:
        client.close()


def test_a_client_that_does_not_read_its_answer_holds_up_nobody() -> None:
    def handler(request: Request) -> Response:
        return Response(HTTPStatus.OK, os.urandom(4 << 20) if request.path == "/large" else b"small")

    served = HttpServer(open_listeners("127.0.0.1", 0), handler)
    served.start()
    slow = socket.create_connection(address(served))
    slow.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    assert get(served, "/small")[2] == b"small"
    assert len(get(served, "/large")[2]) == 4 << 20
    slow.close()
    served.stop()


def test_deadlines_close_what_does_not_move(monkeypatch: pytest.MonkeyPatch, server: HttpServer) -> None:
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.2)
    begin = time.monotonic()
    with socket.create_connection(address(server), timeout=5) as client:
        client.send(b"GET / HTTP/1.1\r\n")
        # a byte now and then does not extend it
        closed = False
        while not closed and time.monotonic() - begin < 5:
            client.settimeout(0.05)
            try:
                closed = client.recv(1) == b""
            except TimeoutError:
                client.send(b"X")
            except ConnectionError:
                closed = True
    assert closed
    assert time.monotonic() - begin < 2


def test_stop_is_prompt_with_clients_connected(server: HttpServer) -> None:
    clients = [socket.create_connection(address(server)) for _ in range(10)]
    assert get(server, "/")[0] == 200
    host, port = address(server)
    begin = time.monotonic()
    server.stop()
    assert time.monotonic() - begin < 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port))
    for client in clients:
        client.close()


def test_a_port_in_use_is_one_clear_error(server: HttpServer) -> None:
    host, port = address(server)
    with pytest.raises(UnavailableError) as caught:
        open_listeners(host, port)
    assert str(caught.value).startswith(f"cannot listen on {host}:{port}: address already in use; another ")
    assert caught.value.exit_status == 69


def test_an_address_that_is_not_here_is_one_clear_error() -> None:
    with pytest.raises(UnavailableError, match=r"cannot listen on 192\.0\.2\.1:80"):
        open_listeners("192.0.2.1", 80)
    with pytest.raises(UnavailableError, match=r"cannot listen on no\.such\.host\.invalid: "):
        open_listeners("no.such.host.invalid", 80)


def test_ipv6() -> None:
    try:
        listeners = open_listeners("::1", 0)
    except UnavailableError:
        pytest.skip("no IPv6 here")
    served = HttpServer(listeners, App(registry(Metrics()), Health()))
    served.start()
    assert served.addresses[0].startswith("[::1]:")
    with socket.create_connection(("::1", listeners[0].getsockname()[1]), timeout=5) as client:
        client.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
        assert b"200 OK" in client.recv(4096)
    served.stop()


def test_a_passed_socket_is_served_and_another_descriptor_refused() -> None:
    (listener,) = open_listeners("127.0.0.1", 0)
    served = HttpServer(adopt_listeners([listener.detach()]), App(registry(Metrics()), Health()))
    served.start()
    assert get(served, "/")[0] == 200
    served.stop()
    with socket.socket() as unbound, pytest.raises(UnavailableError, match="ListenStream="):
        adopt_listeners([os.dup(unbound.fileno())])
    with pytest.raises(UnavailableError, match="passed descriptor"):
        adopt_listeners([os.open("/dev/null", os.O_RDONLY)])
