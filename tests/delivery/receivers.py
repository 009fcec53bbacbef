"""Receivers that sinks are tested against: a real HTTP(S) server that answers as the test says."""

from __future__ import annotations

import contextlib
import http.server
import select
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.waiting import PATIENCE


class Request(msgspec.Struct):
    """One request as it came; ``answer`` is the status it got, 0 for none; ``peer`` the name in the client's
    certificate, empty without."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    answer: int
    peer: str = ""

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


#: what the server does with a request: a status, or
HANG, RESET, GARBAGE = -1, -2, -3


class Receiver:
    """Each request uses up one of ``answers``, then ``otherwise`` is the answer."""

    def __init__(self, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.answers: list[int] = []
        self.otherwise = 200
        self.headers: dict[str, str] = {}
        self.body = b"{}"
        #: what it answers to each request, in the place of all of these
        self.decide: Callable[[Request], tuple[int, bytes]] | None = None
        self.ended = threading.Event()
        self._connections: list[socket.socket] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def setup(self) -> None:
                super().setup()
                receiver._connections.append(self.connection)

            def do_POST(self) -> None:
                receiver._serve(self)

            do_PUT = do_GET = do_POST

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # handshakes that fail are part of the tests

            def finish_request(self, request: Any, client_address: Any) -> None:
                if context is not None:
                    request = context.wrap_socket(request, server_side=True)
                super().finish_request(request, client_address)

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = int(self._server.server_address[1])
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://localhost:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True, args=(0.02,)).start()

    def _serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        answer = self.answers.pop(0) if self.answers else self.otherwise
        headers = {name.lower(): value for name, value in handler.headers.items()}
        peer = ""
        if isinstance(handler.connection, ssl.SSLSocket) and (shown := handler.connection.getpeercert()):
            peer = str(shown["subject"][0][0][1])
        request = Request(handler.command, handler.path, headers, body, max(answer, 0), peer)
        content = self.body
        if self.decide is not None:
            answer, content = self.decide(request)
            request.answer = answer
        self.requests.append(request)
        if answer == HANG:
            self.ended.wait(30)
            handler.close_connection = True
        elif answer == RESET:
            option = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            handler.close_connection = True
        elif answer == GARBAGE:
            handler.wfile.write(b"\x00\xffnothing like HTTP\r\n\r\n")
            handler.close_connection = True
        else:
            handler.send_response(answer)
            for name, value in {**self.headers, "Content-Length": str(len(content))}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(content)

    def taken(self) -> list[Request]:
        """The requests that were answered with a success."""
        return [request for request in list(self.requests) if 200 <= request.answer < 300]

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:  # those that are kept alive, too
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def receiver(context: ssl.SSLContext | None = None, port: int = 0) -> Iterator[Receiver]:
    made = Receiver(context, port)
    try:
        yield made
    finally:
        made.close()


class Proxy:
    """An HTTP proxy (RFC 9110, CONNECT and absolute targets) that notes what it is asked; ``wanted`` is the
    Proxy-Authorization without which it answers 407."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.wanted = ""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self._listener.accept()[:1], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        with client, contextlib.suppress(OSError):
            while b"\r\n\r\n" not in head:
                head += client.recv(65536)
            text, _, rest = head.partition(b"\r\n\r\n")
            line, *fields = text.decode().split("\r\n")
            method, target, _ = line.split()
            self.asked.append(f"{method} {target}")
            self.heads.append(text.decode())
            given = [field.partition(": ")[2] for field in fields if field.startswith("Proxy-Authorization:")]
            if self.wanted and given != [self.wanted]:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            parts = urlsplit(target if method != "CONNECT" else f"//{target}")
            with socket.create_connection((parts.hostname or "", parts.port or 80)) as server:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    server.sendall("\r\n".join([f"{method} {parts.path or '/'} HTTP/1.1", *fields]).encode())
                    server.sendall(b"\r\n\r\n" + rest)
                both = {client: server, server: client}
                while True:
                    for ready in select.select([*both], [], [], 20)[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        both[ready].sendall(data)

    def close(self) -> None:
        self._listener.close()


def certificate(directory: Path, name: str = "localhost") -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for ``name``, and a server's context with it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


def until(condition: Callable[[], object], seconds: float = PATIENCE, say: Callable[[], str] = str) -> None:
    """Wait for the condition; AssertionError with what ``say`` says if it never holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, say()
        time.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
