"""The daemon follows other machines beside its own kernel log: their events are marked and change no counter
of this host."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oomwatchd.cli import main
from oomwatchd.config import load, parse
from oomwatchd.errors import ConfigError
from oomwatchd.event import conclude
from oomwatchd.records.capture import Followed, OomCapture, Source
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.store import Limits, Store
from tests import samples
from tests.follow.test_channels import free_port
from tests.test_analyze_growing import report
from tests.waiting import PATIENCE

PACKAGE = [sys.executable, "-m", "oomwatchd"]


class Running:
    """A daemon whose kernel log is a pipe, and which follows two machines."""

    def __init__(
        self, directory: Path, process: subprocess.Popen[str], log: int, port: int, udp: int
    ) -> None:
        self.directory, self.process, self.log = directory, process, log
        self.port, self.udp = port, udp

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in pairs}

    def until(self, name: str, value: float) -> dict[str, float]:
        end = time.monotonic() + PATIENCE
        while (found := self.metrics()).get(name) != value:
            assert time.monotonic() < end, (name, found.get(name))
            time.sleep(0.1)
        return found

    def send(self, text: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for line in text.splitlines(keepends=True):
                sender.sendto(line.encode(), ("127.0.0.1", self.udp))


@contextmanager
def running(directory: Path) -> Iterator[Running]:
    reading, writing = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    port, udp = free_port(socket.SOCK_STREAM), free_port()
    config = directory / "config.toml"
    config.write_text(
        f'state_directory = "{directory}/state"\n[http]\nlisten = "127.0.0.1:{port}"\n'
        "[sinks.journal]\nenabled = false\n[recorder]\nenabled = false\n"
        f'[[sources.follow]]\nsource = "netconsole:127.0.0.1:{udp}"\nhosts = {{ "127.0.0.1" = "kitchen" }}\n'
        f'[[sources.follow]]\nname = "cellar"\nsource = "file:{directory}/cellar.log"\n'
    )
    environ = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "kmsg"}
    script = (
        "import os, sys\n"
        f"os.dup2({reading}, 3)\nos.environ['LISTEN_PID'] = str(os.getpid())\n"
        "from oomwatchd.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, "run", "--config", str(config)],
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        pass_fds=(reading,),
    ) as process:
        os.close(reading)
        assert process.stderr is not None
        said = ""
        while "watching since" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        rest = process.stderr
        threading.Thread(target=rest.read, daemon=True).start()
        try:
            yield Running(directory, process, writing, port, udp)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            os.close(writing)


def test_the_daemon_follows_and_keeps_its_own_counters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path) as daemon:
        daemon.until('oomwatchd_followed_source_up{source="cellar"}', 0.0)
        (tmp_path / "cellar.log").write_text(report(1) + report(2, 200))
        daemon.send(report(3, 300))
        # a new series is shown as 0 for a minute, so that increase() sees its first kill
        daemon.until("oomwatchd_store_events", 3.0)
        found = daemon.until('oomwatchd_followed_source_up{source="cellar"}', 1.0)
        assert found['oomwatchd_followed_oom_kills_total{host="kitchen"}'] == 0.0
        assert sum(v for name, v in found.items() if name.startswith("oomwatchd_oom_kills_total")) == 0
        assert sum(v for name, v in found.items() if name.startswith("oomwatchd_oom_events_total")) == 0
        assert found["oomwatchd_last_oom_kill_timestamp_seconds"] == 0
    state = ["--state-directory", str(tmp_path / "state")]
    assert main(["events", *state, "list", "--json", "--host", "cellar"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(one["host"], one["victims"][0]["comm"]) for one in listed] == [
        ("cellar", "app2"),
        ("cellar", "app1"),
    ]
    assert main(["events", *state, "list"]) == 0
    assert "kitchen" in capsys.readouterr().out
    with running(tmp_path) as daemon:  # the file is read again, and nothing of it is news
        found = daemon.until('oomwatchd_followed_source_up{source="cellar"}', 1.0)
        time.sleep(1.0)
        found = daemon.metrics()
        assert found['oomwatchd_followed_oom_kills_total{host="cellar"}'] == 2.0
        assert found['oomwatchd_followed_oom_kills_total{host="kitchen"}'] == 1.0
        assert found["oomwatchd_store_events"] == 3.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[sources.follow]]\nsource = "modem:/dev/ttyS0"', "sources.follow.1"),
        ('[[sources.follow]]\nsource = "serial:/dev/ttyS0@7"', "sources.follow.1"),
        ('[[sources.follow]]\nsauce = "x"', "sources.follow"),
        ('[sources]\nfollow = "x"', "sources.follow"),
    ],
)
def test_a_wrong_section_is_said_in_one_line(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    assert main(["check-config", str(path)]) == 78
    said = capsys.readouterr().err
    assert said.startswith(f"oomwatchd: {path}: ") and words in said and said.count("\n") == 1


def followed(number: int, host: str) -> OomCapture:
    record = KmsgRecord(text=f"Killed process {number} (a)", usec=number, raw=b"x")
    source = Source(kind="file", form="dmesg", followed=Followed(name=host, via="serial"))
    return OomCapture(source=source, records=(record,), settled=True, detected=samples.WALL + number)


def test_a_noisy_machine_does_not_push_out_the_events_of_others() -> None:
    store = Store.open(None, limits=Limits(max_events=20))
    for number in range(8):
        store.put(samples.capture(number * 10), samples.event(number * 10))
    for number in range(4):
        capture = followed(number, "quiet")
        store.put(capture, conclude(capture).event)
    for number in range(200):
        capture = followed(number, "noisy")
        store.put(capture, conclude(capture).event)
    hosts = [row.host for row in store.list(limit=100)]
    assert hosts.count(None) == 8
    assert hosts.count("quiet") == 4
    assert hosts.count("noisy") == 8
    assert len(store.list(limit=100, host="quiet")) == 4


# -- the command -----------------------------------------------------------------------------------


def test_the_command_tells_what_comes_through_a_pipe() -> None:
    with subprocess.Popen(
        [*PACKAGE, "follow", "board=-", "--format", "jsonl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(report(1).encode())
        process.stdin.flush()
        event = json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.wait(20) == 0
    assert event["host"] == {
        "name": "board",
        "via": "pipe",
        "address": None,
        "trusted": False,
        "mended_lines": 0,
    }
    assert event["victims"][0]["comm"] == "app1"


def test_the_command_passes_the_log_on_and_colours_a_terminal() -> None:
    master, slave = pty.openpty()
    text = report(1).replace("app1", "a\x1b[5mb")
    with subprocess.Popen(
        [*PACKAGE, "follow", "--raw", "board=-"],
        stdin=subprocess.PIPE,
        stdout=slave,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": ""},
    ) as process:
        os.close(slave)
        assert process.stdin is not None
        process.stdin.write(text.encode())
        process.stdin.close()
        seen = b""
        with pytest.raises(OSError):
            while part := os.read(master, 65536):
                seen += part
        assert process.wait(20) == 0
    os.close(master)
    shown = seen.decode()
    assert "invoked oom-killer" in shown and "host board by pipe, not proven" in shown
    assert (
        "\x1b[5m" not in shown
        and "\x1b[2m" in shown
        and "\x1b[1;31m" in shown.replace("\x1b[31;1m", "\x1b[1;31m")
    )


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["serial:/dev/ttyUSB0@1"], 64),
        (["/nowhere"], 66),
        (["serial:/dev/null"], 66),
        (["command:/nowhere/ssh"], 69),
        (["netconsole:192.0.2.1:6666"], 69),
    ],
)
def test_a_source_that_cannot_be_had_is_one_line(
    words: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["follow", *words]) == status
    assert capsys.readouterr().err.count("\n") == 1


def test_the_configuration_knows_the_sources(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[[sources.follow]]\nname = "a"\nsource = "netconsole:6666"\n')
    (one,) = load(path)[0].sources.follow
    assert (one.name, one.source) == ("a", "netconsole:6666")
    with pytest.raises(ConfigError):
        parse({"sources": {"follow": [{"name": 1}]}}, "x")
