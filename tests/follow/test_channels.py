"""Sources as they are: a serial line, a pipe, a command, a file, UDP and TCP; how they end and come back."""

from __future__ import annotations

import os
import pty
import random
import socket
import ssl
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from oomwatchd.config import FollowSection
from oomwatchd.errors import NoInputError, OomwatchdError, UnavailableError, UsageError
from oomwatchd.event import OomEvent
from oomwatchd.follow.address import place_of, place_of_argument
from oomwatchd.follow.follower import MAX_BOARDS, Follower
from oomwatchd.follow.network import Connections, Datagrams
from oomwatchd.follow.syslog import Frames, read_message
from oomwatchd.records.capture import OomCapture
from tests.delivery.receivers import certificate
from tests.follow.boards import datagrams, events, raw_records
from tests.test_analyze_growing import BOOT, report
from tests.waiting import PATIENCE


class Following:
    """A follower, its captures, and what it said."""

    def __init__(self, *sections: FollowSection) -> None:
        self.found: list[OomCapture] = []
        self.said: list[str] = []
        self.follower = Follower([place_of(one) for one in sections], self._take, say=self.said.append)

    def _take(self, capture: OomCapture) -> bool:
        self.found.append(capture)
        return True

    def until(self, done: Callable[[], bool], seconds: float = PATIENCE) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, (self.said, len(self.found), self.follower.dropped())
            self.follower.turn(0.05)

    def until_found(self, count: int) -> list[OomEvent]:
        self.until(lambda: len(self.found) >= count)
        return events(self.found)

    def port(self, at: int = 0) -> int:
        channel = self.follower.channels[at]
        assert isinstance(channel, Datagrams | Connections)
        return channel.port


@contextmanager
def following(*sections: FollowSection, strict: bool = True) -> Iterator[Following]:
    one = Following(*sections)
    one.follower.open(strict=strict)
    try:
        yield one
    finally:
        one.follower.close()


def free_port(kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def source(kind: str, **fields: object) -> FollowSection:
    port = free_port(socket.SOCK_DGRAM if kind in ("netconsole", "syslog-udp") else socket.SOCK_STREAM)
    return FollowSection(source=f"{kind}:127.0.0.1:{port}", **fields)  # type: ignore[arg-type]


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        ("serial:/dev/ttyUSB0@9600", "ttyUSB0", "serial"),
        ("board=serial:/dev/ttyUSB0", "board", "serial"),
        ("command:ssh board 'dmesg --follow'", "ssh", "command"),
        ("netconsole:6666", None, "netconsole"),
        ("lab=syslog-udp:[::1]:514", "lab", "syslog-udp"),
        ("-", "stdin", "pipe"),
        ("/dev/null@9600", "null", "serial"),
    ],
)
def test_what_a_source_is_called(text: str, name: str | None, kind: str) -> None:
    place = place_of_argument(text)
    assert (place.name, place.kind) == (name, kind)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("serial:/dev/ttyUSB0@9601", UsageError),
        ("netconsole:", UsageError),
        ("netconsole:70000", UsageError),
        ("netconsole:a:b:1", UsageError),
        ("command:'", UsageError),
        ("command:' '", None),
        ("syslog-tls:6514", UsageError),
        ("/nowhere/at/all", NoInputError),
    ],
)
def test_what_is_no_source_is_said_in_one_line(text: str, error: type[OomwatchdError] | None) -> None:
    if error is None:
        place_of_argument(text)
        return
    with pytest.raises(error) as caught:
        place_of_argument(text)
    assert "\n" not in str(caught.value) and caught.value.hint


def test_a_command_has_words_and_no_shell() -> None:
    assert place_of_argument("command:ssh board 'a; b' $HOME").words == ("ssh", "board", "a; b", "$HOME")


# -- serial ----------------------------------------------------------------------------------------


@contextmanager
def line() -> Iterator[tuple[int, str]]:
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    os.close(slave)
    try:
        yield master, name
    finally:
        os.close(master)


@pytest.mark.parametrize("speed", [9600, 115200, 921600])
def test_a_serial_line_is_set_up_and_read(speed: int) -> None:
    with line() as (master, name), following(FollowSection(source=f"serial:{name}@{speed}", name="b")) as one:
        mode = termios.tcgetattr(master)
        assert mode[4] == mode[5] == getattr(termios, f"B{speed}")
        assert not mode[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        for part in report(1).splitlines(keepends=True):
            os.write(master, part.replace("\n", "\r\n").encode())
            one.follower.turn(0.001)
        (event,) = one.until_found(1)
    assert event.victims[0].comm == "app1"
    assert event.host is not None and (event.host.name, event.host.via) == ("b", "serial")
    assert event.summary.startswith("b: ")


def test_a_report_is_told_within_a_second_of_its_end() -> None:
    with line() as (master, name), following(FollowSection(source=f"serial:{name}")) as one:
        os.write(master, report(1).encode())
        sent = time.monotonic()
        one.until_found(1)
        assert time.monotonic() - sent < 3.0  # 0.5 on an idle machine


def test_bytes_are_lost_and_spoiled_between_reports() -> None:
    draw = random.Random(2)
    with line() as (master, name), following(FollowSection(source=f"serial:{name}")) as one:
        text = "".join(report(pid, 100 * pid) for pid in range(1, 9)).encode()
        damaged = bytes(byte for byte in text if draw.random() >= 0.003) + draw.randbytes(500)
        for at in range(0, len(damaged), 256):
            os.write(master, damaged[at : at + 256])
            one.follower.turn(0.001)
        one.until_found(4)


def test_a_line_that_is_hung_up_is_opened_again(tmp_path: Path) -> None:
    link = tmp_path / "ttyUSB0"
    with line() as (master, name):
        link.symlink_to(name)
        one = Following(FollowSection(source=f"serial:{link}", name="board"))
        one.follower.open(strict=True)
        os.write(master, report(1).encode())
        one.until_found(1)
    one.until(lambda: not one.follower.states()["board"])
    assert "board" in one.said[0]
    link.unlink()
    with line() as (master, name):
        link.symlink_to(name)
        one.until(lambda: one.follower.states()["board"])
        os.write(master, report(2).encode())
        assert [event.victims[0].pid for event in one.until_found(2)] == [1, 2]
        one.follower.close()
    assert one.said[-1] == "board: open again"


def test_what_is_no_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", "/dev/null", tmp_path / "absent"):
        with pytest.raises(NoInputError):
            Following(FollowSection(source=f"serial:{path}")).follower.open(strict=True)


# -- pipe, command, file ---------------------------------------------------------------------------


def test_a_named_pipe_has_one_writer_after_another(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with following(FollowSection(source=f"pipe:{path}")) as one:
        for pid in (1, 2):
            one.until(lambda: one.follower.states()["pipe"])
            with path.open("wb") as pipe:
                pipe.write(report(pid).encode())
                pipe.flush()
                one.until_found(pid)
            one.until(lambda: not one.follower.states()["pipe"])


def test_a_command_is_started_again_and_its_log_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "ring").write_text(BOOT + report(1))
    (tmp_path / "command").write_text(
        f"#!/bin/sh\necho x >>{tmp_path}/runs\ncat {tmp_path}/ring\necho gone >&2\n"
    )
    (tmp_path / "command").chmod(0o755)
    runs = tmp_path / "runs"
    with following(FollowSection(source=f"command:{tmp_path}/command", name="board")) as one:
        one.until_found(1)
        (tmp_path / "ring").write_text(BOOT + report(1) + report(2, 200))
        one.until(lambda: runs.read_text().count("x") >= 3)
        one.until_found(2)
        assert len(one.found) == 2
    assert "ended with status 0: gone" in one.said[0]
    assert len(one.said) == len(set(one.said)) or "open again" in one.said[1]


def test_a_command_ends_with_the_follower(tmp_path: Path) -> None:
    with following(FollowSection(source="command:sh -c 'echo $$; exec sleep 1000'")) as one:
        one.until(lambda: sum(one.follower.bytes().values()) > 0)
        pids = subprocess.run(
            ["pgrep", "-P", str(os.getpid())], capture_output=True, text=True
        ).stdout.split()
        assert pids
    left = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True).stdout.split()
    assert set(left) < set(pids)


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(UnavailableError):
        Following(FollowSection(source="command:/nowhere/ssh board")).follower.open(strict=True)
    with following(FollowSection(source="command:/nowhere/ssh board"), strict=False) as one:
        assert one.follower.states() == {"ssh": False} and len(one.said) == 1


def test_a_file_grows_and_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "board.log"
    path.write_text(BOOT)
    with following(FollowSection(source=f"file:{path}")) as one:
        with path.open("a") as file:
            file.write(report(1))
        one.until_found(1)
        path.rename(tmp_path / "board.log.1")
        path.write_text(report(2, 200))
        assert [event.victims[0].pid for event in one.until_found(2)] == [1, 2]


# -- UDP -------------------------------------------------------------------------------------------


def test_netconsole_with_loss_and_reorder() -> None:
    draw = random.Random(18)
    pieces = list(datagrams(raw_records()))
    pieces = [piece for piece in pieces if draw.random() >= 0.01]
    for at in range(0, len(pieces) - 1, 5):
        pieces[at], pieces[at + 1] = pieces[at + 1], pieces[at]
    with following(source("netconsole")) as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", one.port()))
        for number, piece in enumerate(pieces):
            sender.send(piece)
            if number % 50 == 0:
                one.follower.turn(0.0)
        one.until_found(45)
    told = [event for event in events(one.found) if event.kills]
    assert all(event.host is not None and event.host.address == "127.0.0.1" for event in told)
    assert one.follower.dropped()["127.0.0.1", "lost"] > 0


def test_netconsole_in_the_basic_format() -> None:
    with following(source("netconsole", hosts={"127.0.0.1": "kitchen"})) as one:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for part in report(1).splitlines(keepends=True):
                sender.sendto(part.encode(), ("127.0.0.1", one.port()))
        (event,) = one.until_found(1)
    assert event.host is not None and event.host.name == "kitchen"


def test_senders_that_are_not_named_are_left_out_where_some_are() -> None:
    with following(source("netconsole", hosts={"192.0.2.1": "kitchen"})) as one:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(report(1).encode(), ("127.0.0.1", one.port()))
        one.until(lambda: bool(one.follower.dropped()))
    assert one.follower.dropped() == {("other", "host"): 1}
    assert one.found == []


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UnavailableError, match="cannot listen on"):
            address = f"netconsole:127.0.0.1:{taken.getsockname()[1]}"
            Following(FollowSection(source=address)).follower.open(strict=True)


def test_more_senders_than_there_is_room_for_are_counted() -> None:
    with following(source("syslog-udp", relay=True)) as one:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(MAX_BOARDS + 50):
                text = f"<0>Jan  1 00:00:01 host{number} kernel: hello"
                sender.sendto(text.encode(), ("127.0.0.1", one.port()))
        one.until(lambda: one.follower.dropped().get(("other", "host")) == 50)
    assert len(one.follower.bytes()) == MAX_BOARDS + 1


# -- syslog ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "host", "line"),
    [
        (b"<4>Jan  1 00:00:07 board kernel: [  7.1] x", "board", b"Jan  1 00:00:07 board kernel: [  7.1] x"),
        (b"<4>1 2026-01-02T03:04:05Z board kernel - - - x", "board", b"2026-01-02T03:04:05Z board kernel: x"),
        (b'<4>1 - - kernel - - [a b="\\"]"] \xef\xbb\xbftext', None, b"text"),
        (b"<12>Jan  1 00:00:07 board kernel: text", "board", b"Jan  1 00:00:07 board kernel: text"),
        (b"<4>kernel: [    7.1] text\n", None, b"[    7.1] text"),
        (b"<4>[    7.1] text", None, b"[    7.1] text"),
        (b"<4>Jan  1 00:00:07 board kernel: a\nb", "board", b"Jan  1 00:00:07 board kernel: a b"),
    ],
)  # fmt: skip
def test_messages_of_the_kernel(message: bytes, host: str | None, line: bytes) -> None:
    assert read_message(message) == (host, line)


@pytest.mark.parametrize(
    "message",
    [b"<13>Jan  1 00:00:07 board app: Out of memory: Killed process 1", b"<30>1 - - app - - - x", b"x", b""],
)
def test_messages_of_programs_are_left_out(message: bytes) -> None:
    assert read_message(message) is None


def test_frames() -> None:
    frames = Frames()
    assert frames.feed(b"12 <4>kernel: ") == []
    assert frames.feed(b"x") == [b"<4>kernel: x"]
    assert frames.feed(b"3 abc5 a\nb c<4>line\n<4>li") == [b"abc", b"a\nb c", b"<4>line"]
    assert frames.feed(b"ne\n") == [b"<4>line"]
    for bad in (b"99999999999", b"12x4 abc", b"999999 x", b"x" * 20_000):
        with pytest.raises(ValueError, match="no "):
            Frames().feed(bad)


def syslogged(text: str, *, counted: bool) -> bytes:
    messages = [f"<4>1 2026-01-02T03:04:05.6Z board kernel - - - {one}".encode() for one in text.splitlines()]
    if counted:
        return b"".join(b"%d %b" % (len(one), one) for one in messages)
    return b"".join(one + b"\n" for one in messages)


@pytest.mark.parametrize("counted", [True, False])
def test_syslog_over_tcp(counted: bool) -> None:
    with ExitStack() as stack:
        one = stack.enter_context(following(source("syslog-tcp", relay=True)))
        client = stack.enter_context(socket.create_connection(("127.0.0.1", one.port())))
        data = syslogged(report(1), counted=counted)
        for at in range(0, len(data), 700):
            client.sendall(data[at : at + 700])
            one.follower.turn(0.001)
        (event,) = one.until_found(1)
    assert event.host is not None and (event.host.name, event.host.via) == ("board", "syslog")
    assert event.time.wall is not None and event.time.wall.startswith("2026-01-02T03:04:05")


def test_syslog_over_tls_and_clients_that_are_none(tmp_path: Path) -> None:
    cert, _ = certificate(tmp_path)
    section = source("syslog-tls", tls_cert=str(cert), tls_key=str(cert.with_suffix(".key")))
    with ExitStack() as stack:
        one = stack.enter_context(following(section))
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", one.port())))
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        context = ssl.create_default_context(cafile=str(cert))
        context.check_hostname = False
        raw = socket.create_connection(("127.0.0.1", one.port()))
        raw.setblocking(False)
        client = stack.enter_context(context.wrap_socket(raw, do_handshake_on_connect=False))
        _patiently(one, client.do_handshake)
        data = syslogged(report(1), counted=True)
        _patiently(one, lambda: client.sendall(data))
        one.until_found(1)


def _patiently(one: Following, step: Callable[[], None]) -> None:
    for _ in range(1000):
        try:
            return step()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            one.follower.turn(0.01)
    raise AssertionError("the handshake does not end")


def test_a_connection_that_sends_nonsense_is_ended_and_counted() -> None:
    with ExitStack() as stack:
        one = stack.enter_context(following(source("syslog-tcp")))
        client = stack.enter_context(socket.create_connection(("127.0.0.1", one.port())))
        client.sendall(b"123456789012 nonsense")
        one.until(lambda: bool(one.follower.dropped()))
        client.settimeout(5)
        assert client.recv(1) == b""


# -- fairness --------------------------------------------------------------------------------------


def test_a_noisy_machine_puts_nobody_off() -> None:
    """One machine floods with words of reports; another machine's report is still told."""
    with following(source("netconsole"), source("netconsole")) as one:
        noise = report(7).encode() * 2
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noisy:
            noisy.setblocking(False)
            noisy.connect(("127.0.0.1", one.port(0)))
            quiet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            # another address of loopback is another machine
            quiet.bind(("127.0.0.2", 0))
            quiet.connect(("127.0.0.1", one.port(1)))
            slowest = 0.0
            for turn in range(10):
                for _ in range(100):
                    noisy.send(noise[: 1 + turn % 7 * 400 or None])
                quiet.send(report(1000 + turn, 100 + turn).encode())
                began = time.monotonic()
                wanted = f"app{1000 + turn}"
                one.until(lambda wanted=wanted: any(wanted in c.records[-1].text for c in one.found))  # type: ignore[misc]
                slowest = max(slowest, time.monotonic() - began)
            quiet.close()
    assert slowest < 5.0
