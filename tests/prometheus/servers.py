"""Debian's Prometheus and Alertmanager as processes of their own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kernel.running import wait_for


def program(*names: str) -> str:
    """The first of these that is installed."""
    for name in names:
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(f"no {names[0]}: apt install prometheus prometheus-alertmanager")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Server:
    """A server with an HTTP API on ``port``."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(  # noqa: S310 - http to our own address
            f"{self.address}{path}?{urllib.parse.urlencode(query)}", timeout=10
        ) as answer:
            return json.load(answer)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query's result; HTTPError if Prometheus does not take it."""
        answer = self.ask("/api/v1/query", query=expression)
        assert answer["status"] == "success"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[Server]:
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=written, stderr=written)
    server = Server(port)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{server.address}/-/ready", timeout=2) as answer:  # noqa: S310 - the same
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_for(f"{command[0]} to be ready", ready)
        yield server
    finally:
        process.kill()
        process.wait()


@contextmanager
def prometheus(directory: Path, config: str) -> Iterator[Server]:
    """A Prometheus that scrapes and evaluates as ``config`` (YAML) says."""
    file, port = directory / "prometheus.yml", free_port()
    file.write_text(config)
    command = [
        program("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    with running(command, port, directory / "prometheus.log") as server:
        yield server


@contextmanager
def alertmanager(directory: Path) -> Iterator[Server]:
    file, port = directory / "alertmanager.yml", free_port()
    file.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    command = [
        program("prometheus-alertmanager", "alertmanager"),
        f"--config.file={file}",
        f"--storage.path={directory / 'alerts'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with running(command, port, directory / "alertmanager.log") as server:
        yield server
