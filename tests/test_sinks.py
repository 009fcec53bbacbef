"""The sinks: a datagram socket that reads the native protocol, the real journald, real files and pipes."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import logging
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd import plugs
from oomwatchd.config import parse
from oomwatchd.errors import ConfigError
from oomwatchd.event import OomEvent, conclude
from oomwatchd.records.report import Memcg, Victim
from oomwatchd.sinks import BY_DEFAULT, SinkError, jsonl, open_sinks, webhook
from oomwatchd.sinks import journal as journal_sink
from oomwatchd.sinks._message_ids import MESSAGE_IDS
from tests.recorded import captures, kernel_recordings
from tests.samples import BOOT, event
from tests.waiting import PATIENCE

HOSTILE = (
    "a) b: c",
    "x\ny",
    "\x1b[31mred",
    "evil, pid=1,u",
    "\\xff\\xfe\\x80",
    "tab\there",
    "",
    " lead trail ",
    "MESSAGE=forged\nPRIORITY=0",
    "‮gpj.exe",
)


def decode(data: bytes) -> dict[str, bytes]:
    """One datagram of the journal's native protocol, read by the letter of its document."""
    found: dict[str, bytes] = {}
    while data:
        line, newline, rest = data.partition(b"\n")
        assert newline, "an entry ends with a newline"
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[8 + length :]
            assert rest.startswith(b"\n")
            rest = rest[1:]
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name)
        assert name.decode() not in found
        found[name.decode()] = value
        data = rest
    return found


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket like journald's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "socket"))
        bound.settimeout(5)
        yield bound


def opened(receiver: socket.socket) -> journal_sink.Journal:
    sink = journal_sink.open(journal_sink.Options(socket=receiver.getsockname()))
    assert sink is not None
    return sink


def test_an_entry_holds_the_documented_fields(receiver: socket.socket) -> None:
    opened(receiver).emit(event())
    entry = {name: value.decode() for name, value in decode(receiver.recv(1 << 20)).items()}
    assert entry == {
        "MESSAGE": "killed stress (4242): memory cgroup /test at its limit",
        "MESSAGE_ID": MESSAGE_IDS["oom_kill"],
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "oomwatchd",
        "OBJECT_SYSTEMD_UNIT": "web.service",
        "OOM_EVENT_ID": event().id,
        "OOM_KIND": "oom_kill",
        "OOM_CONSTRAINT": "memcg",
        "OOM_KILLS": "1",
        "OOM_COMPLETE": "1",
        "OOM_HISTORICAL": "0",
        "OOM_VICTIM_PID": "4242",
        "OOM_VICTIM_COMM": "stress",
        "OOM_VICTIM_UID": "1000",
        "OOM_VICTIM_ANON_RSS_BYTES": "67108864",
        "OOM_VICTIM_PIDS": "4242",
        "OOM_TRIGGER_PID": "4242",
        "OOM_TRIGGER_COMM": "stress",
        "OOM_MEMCG": "/test",
        "OOM_TASK_MEMCG": "/test/inner",
        "OOM_CGROUP": "/system.slice/web.service",
        "OOM_UNIT": "web.service",
        "OOM_FINDINGS": "memcg_limit",
        "OOM_BOOT_ID": BOOT,
        "OOM_KERNEL_SEQ": "100",
        "OOM_KERNEL_MONOTONIC_USEC": "100000",
        "OOM_TIME": "2026-09-21T14:13:20+00:00",
    }


@pytest.mark.parametrize(
    ("kind", "constraint", "priority"),
    [
        ("oom_kill", "none", b"3"),
        ("oom_kill", "memcg", b"4"),
        ("oom_no_victim", "memcg", b"3"),
        ("oom_panic", "none", b"2"),
        ("page_alloc_failure", None, b"4"),
    ],
)
def test_priority_and_message_id_follow_the_kind(
    receiver: socket.socket, kind: Any, constraint: Any, priority: bytes
) -> None:
    opened(receiver).emit(event(kind=kind, constraint=constraint))
    entry = decode(receiver.recv(1 << 20))
    assert entry["PRIORITY"] == priority
    assert entry["MESSAGE_ID"].decode() == MESSAGE_IDS[kind]
    assert ("OOM_CONSTRAINT" in entry) == (constraint is not None)


def test_message_ids_are_distinct_128_bit_numbers() -> None:
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    assert all(re.fullmatch("[0-9a-f]{32}", number) for number in MESSAGE_IDS.values())


def test_the_catalog_explains_each_message_id_with_fields_that_are_sent(tmp_path: Path) -> None:
    catalog = Path(__file__).resolve().parent.parent / "packaging" / "systemd" / "oomwatchd.catalog"
    text = catalog.read_text()
    sent = {name for name, _ in journal_sink.fields(event())}
    assert set(re.findall("@([A-Z_]+)@", text)) <= sent
    assert set(re.findall("^-- ([0-9a-f]{32})$", text, re.M)) == set(MESSAGE_IDS.values())
    if shutil.which("journalctl") is None:
        pytest.skip("needs journalctl to compile it")
    for directory in ("usr/lib/systemd/catalog", "var/lib/systemd/catalog"):
        (tmp_path / directory).mkdir(parents=True)
    shutil.copy(catalog, tmp_path / "usr/lib/systemd/catalog")
    subprocess.run(["journalctl", f"--root={tmp_path}", "--update-catalog"], check=True)
    for number in MESSAGE_IDS.values():
        shown = subprocess.run(
            ["journalctl", f"--root={tmp_path}", "--dump-catalog", number], capture_output=True, check=True
        )
        assert shown.stdout.startswith(f"-- {number}\nSubject: ".encode())


def test_repeats_without_a_victim_are_bounded_and_counted(receiver: socket.socket) -> None:
    """One entry a minute for each kind and cgroup; kills always pass."""
    sink = opened(receiver)

    def no_victim(number: int, path: str = "/full") -> OomEvent:
        memcg = Memcg(oom_path=path)
        return event(number * 1000, kind="oom_no_victim", kills=0, victims=(), memcg=memcg)

    for second in range(125):
        sink.emit(no_victim(second))
    sink.emit(no_victim(125, "/other"))
    sink.emit(event(125_001))
    sink.emit(event(125_002))
    entries = []
    receiver.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            entries.append(decode(receiver.recv(1 << 20)))
    assert [(entry["OOM_KERNEL_SEQ"], entry.get("OOM_LEFT_OUT")) for entry in entries] == [
        (b"0", None),
        (b"60000", b"59"),
        (b"120000", b"59"),
        (b"125000", None),
        (b"125001", None),
        (b"125002", None),
    ]
    assert entries[1]["MESSAGE"].endswith(b" (59 more since the last such entry)")


def test_the_documented_fields_are_those_that_are_sent() -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "journal.md").read_text()
    documented = re.findall(r"^\| `([A-Z_]+)` \|", page, re.M)
    sent = [name for name, _ in journal_sink.fields(event())]
    assert documented == sent


def test_who_and_why_stand_in_the_first_80_characters(corpus: Path) -> None:
    """Of real reports; a cgroup's path may be longer than that, but comes after the reason's first words."""
    seen = set()
    for path in kernel_recordings(corpus)[:20]:
        for capture in captures(path):
            found = conclude(capture).event
            message = dict(journal_sink.fields(found))["MESSAGE"]
            assert isinstance(message, str)
            message = message[:80]
            assert re.search(r": \w.{8}", message), message
            if found.victims:
                assert f"(pid {found.victims[0].pid})" in message
            seen.add(found.constraint)
    assert {"none", "memcg"} <= seen


@pytest.mark.parametrize("comm", HOSTILE)
def test_a_name_neither_forges_a_field_nor_hides_the_message(receiver: socket.socket, comm: str) -> None:
    opened(receiver).emit(event(comm=comm))
    entry = decode(receiver.recv(1 << 20))
    assert entry["OOM_VICTIM_COMM"].decode() == comm
    assert entry["PRIORITY"] == b"4"
    assert entry["MESSAGE"].decode().isprintable()


@given(st.lists(st.text(), max_size=5))
def test_any_value_comes_out_as_it_went_in(values: list[str]) -> None:
    named = [(f"FIELD_{number}", value) for number, value in enumerate(values)]
    assert decode(journal_sink.encode(named)) == {
        name: value.encode("utf-8", "backslashreplace") for name, value in named
    }


def test_a_later_revision_is_no_second_alert_unless_more_were_killed(receiver: socket.socket) -> None:
    sink = opened(receiver)
    sink.emit(event())
    sink.emit(event(complete=False))
    sink.emit(event(kills=2))
    sink.emit(event(200))
    assert decode(receiver.recv(1 << 20))["OOM_KILLS"] == b"1"
    assert decode(receiver.recv(1 << 20))["OOM_KILLS"] == b"2"
    assert decode(receiver.recv(1 << 20))["OOM_KERNEL_SEQ"] == b"200"
    receiver.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.recv(1 << 20)


def test_a_large_entry_goes_as_a_sealed_memory_file(receiver: socket.socket) -> None:
    sink = opened(receiver)
    text = "x" * (10 << 20)
    victims = tuple(Victim(pid=number, comm="x") for number in range(1, 1000))
    sink.emit(event(comm=text, victims=victims))
    data, ancillary, _, _ = receiver.recvmsg(1 << 20, 1024)
    assert data == b""
    ((level, kind, payload),) = ancillary
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    (fd,) = array.array("i", payload)
    try:
        entry = decode(os.pread(fd, 64 << 20, 0))
        assert entry["OOM_TRIGGER_COMM"].decode() == text
        assert len(entry["OOM_VICTIM_PIDS"].split()) == 64
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"y", 0)
    finally:
        os.close(fd)


def test_a_journald_that_does_not_read_is_waited_for_once_and_briefly(receiver: socket.socket) -> None:
    sink = opened(receiver)
    refused = 0
    begin = time.monotonic()
    for seq in range(3000):
        try:
            sink.emit(event(seq))
        except SinkError as error:
            assert "does not read" in str(error)
            refused += 1
    assert refused > 1000
    assert time.monotonic() - begin < 3
    while refused:
        receiver.setblocking(False)
        try:
            receiver.recv(1 << 20)
        except BlockingIOError:
            break
    sink.emit(event(10_000))
    assert decode(receiver.recv(1 << 20))["OOM_KERNEL_SEQ"] == b"10000"


def test_a_restarted_journald_is_found_again(receiver: socket.socket) -> None:
    sink = opened(receiver)
    sink.emit(event(1))
    path = receiver.getsockname()
    receiver.close()
    with pytest.raises(SinkError, match="journal"):
        sink.emit(event(2))
    Path(path).unlink()
    with pytest.raises(SinkError, match="No such file"):
        sink.emit(event(3))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(path)
        again.settimeout(5)
        sink.emit(event(4))
        assert decode(again.recv(1 << 20))["OOM_KERNEL_SEQ"] == b"4"
    sink.close()


def test_a_journal_that_was_never_there_is_no_part_that_is_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a host without systemd, and without a word of the journal in the configuration or with its
    defaults there, nothing fails and no alert fires."""
    monkeypatch.setattr(journal_sink, "open", lambda _: journal_sink.connected(str(tmp_path / "none")))
    with caplog.at_level(logging.INFO):
        assert open_sinks({}) == ([], [], [])
        assert open_sinks({"journal": journal_sink.Options()}) == ([], [], [])
    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert "none is needed" in caplog.text


def test_no_journal_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = journal_sink.Options(socket=str(tmp_path / "none"))
    with caplog.at_level(logging.WARNING):
        assert open_sinks({"journal": options}) == ([], [], ["journal"])
    assert [record.getMessage() for record in caplog.records] == [
        f"sink journal: no journal at {tmp_path}/none: not used"
    ]
    assert journal_sink.open(journal_sink.Options(enabled=False)) is None
    with pytest.raises(SinkError, match=r"\(AF_UNIX path too long\)"):
        journal_sink.open(journal_sink.Options(socket="/" + "a" * 200))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("x", name="urllib3"), "needs the Python module urllib3, which is not installed"),
        (RecursionError("too deep"), "RecursionError: too deep"),
    ],
)
def test_one_that_cannot_be_opened_costs_no_other(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    words: str,
) -> None:
    def fails(_options: object) -> None:
        raise error

    monkeypatch.setattr(webhook, "open", fails)
    path = str(tmp_path / "events.jsonl")
    given = {"jsonl": jsonl.Options(path=path), "webhook": webhook.Options(url="http://127.0.0.1:9/")}
    opened = open_sinks({**given, "journal": journal_sink.Options(enabled=False)})
    assert ([s.name for s in opened.local], [s.name for s in opened.remote]) == (["jsonl"], ["webhook"])
    assert [record.getMessage() for record in caplog.records] == [
        f"sink webhook cannot work: {words}; events wait in the store"
    ]
    with pytest.raises(SinkError, match=re.escape(words)):
        opened.remote[0].deliver([event()])


@pytest.fixture(scope="module")
def journald() -> Iterator[tuple[int, Path]]:
    """systemd's own journald in a mount namespace with its own /run: (pid, its /run)."""
    program = "/lib/systemd/systemd-journald"
    if not Path(program).exists() or os.geteuid() != 0 or shutil.which("journalctl") is None:
        pytest.skip("needs root and systemd-journald")
    script = """
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journald.conf.d /run/log/journal || exit 1
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\n' > /run/systemd/journald.conf.d/own.conf
exec "$0"
"""
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, program],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = Path(f"/proc/{process.pid}/root/run")
    deadline = time.monotonic() + PATIENCE
    try:
        while not _is_listening(run / "systemd/journal/socket"):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                said = process.stderr.read() if process.stderr else ""
                pytest.skip(f"journald does not run here: {said.strip()}")
            time.sleep(0.05)
        yield process.pid, run
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def journalctl(run: Path, *arguments: str, count: int = 1) -> list[dict[str, Any]]:
    """What ``journalctl`` shows, waited for until there are so many entries."""
    command = ["journalctl", "-D", str(run / "log/journal"), "--no-pager", "-o", "json", "--all", *arguments]
    deadline = time.monotonic() + PATIENCE
    while True:
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = shown.stdout.splitlines()
        if len(lines) >= count or time.monotonic() > deadline:
            return [json.loads(line) for line in lines]
        time.sleep(0.05)


def test_the_real_journald_takes_it_and_journalctl_finds_it(journald: tuple[int, Path]) -> None:
    _, run = journald
    sink = journal_sink.open(journal_sink.Options(socket=str(run / "systemd/journal/socket")))
    assert sink is not None
    for number, comm in enumerate(HOSTILE):
        sink.emit(event(number, comm=comm))
    for number, comm in enumerate(HOSTILE):
        (entry,) = journalctl(run, f"OOM_KERNEL_SEQ={number}", f"MESSAGE_ID={MESSAGE_IDS['oom_kill']}")
        name = entry["OOM_VICTIM_COMM"]
        if isinstance(name, list):  # journalctl's form of bytes that are not plain text
            name = bytes(name).decode()
        assert name == comm
        assert entry["SYSLOG_IDENTIFIER"] == "oomwatchd"
        assert entry["MESSAGE"].isprintable()
        assert entry["PRIORITY"] == "4"
    assert len(journalctl(run, "-u", "web.service")) == len(HOSTILE)


#: in journald's mount namespace, as nobody: an entry that fits a datagram, and one that does not
_AS_NOBODY = """
import ctypes, os, sys
from oomwatchd.sinks import journal
from tests.samples import event
if sys.argv[1] == "may say that it is root":
    assert ctypes.CDLL(None).prctl(28, 4) == 0  # PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP: stay as capable
os.setresuid(65534, 65534, 65534)
sink = journal.open(journal.Options())
for seq, comm in ((int(sys.argv[2]), "small"), (int(sys.argv[2]) + 1, "x" * (1 << 20))):
    sink.emit(event(seq, comm=comm))
"""


@pytest.mark.parametrize(
    ("may", "seq", "uid", "shown"),
    [("may say that it is root", 31_000, "0", 2), ("may not", 32_000, "65534", 0)],
)
def test_entries_of_a_unit_are_shown_if_root_says_so(
    journald: tuple[int, Path], may: str, seq: int, uid: str, shown: int
) -> None:
    """journalctl -u asks for _UID=0 beside OBJECT_SYSTEMD_UNIT; without that right it is still sent."""
    pid, run = journald
    enter = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", f"--wdns={Path.cwd()}"]
    subprocess.run([*enter, sys.executable, "-c", _AS_NOBODY, may, str(seq)], check=True)
    match = [f"OOM_KERNEL_SEQ={seq}", f"OOM_KERNEL_SEQ={seq + 1}"]
    assert [entry["_UID"] for entry in journalctl(run, *match, count=2)] == [uid, uid]
    command = ["journalctl", "-D", str(run / "log/journal"), "-q", "--no-pager", "-o", "json"]
    listed = subprocess.run(
        [*command, "-u", "web.service", *match], capture_output=True, text=True, check=False
    ).stdout
    assert len(listed.splitlines()) == shown


def test_where_there_is_no_root_the_entry_is_sent_all_the_same(receiver: socket.socket) -> None:
    """A namespace of users without uid 0: the kernel answers EINVAL there, not EPERM."""
    program = (
        "import sys; from oomwatchd.sinks import journal; from tests.samples import event\n"
        "journal.open(journal.Options(socket=sys.argv[1])).emit(event())"
    )
    command = ["unshare", "--user", "--map-user=1000", sys.executable, "-c", program, receiver.getsockname()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert decode(receiver.recv(1 << 20))["OOM_EVENT_ID"].decode() == event().id


def test_the_real_journald_takes_a_large_entry(journald: tuple[int, Path]) -> None:
    _, run = journald
    sink = journal_sink.open(journal_sink.Options(socket=str(run / "systemd/journal/socket")))
    assert sink is not None
    text = "x\n" * (5 << 20)
    sink._send(journal_sink.encode([("MESSAGE", "large"), ("OOM_KERNEL_SEQ", 777), ("OOM_RAW", text)]))
    (entry,) = journalctl(run, "OOM_KERNEL_SEQ=777")
    assert entry["OOM_RAW"] == text


ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "packaging" / "systemd" / "examples"


def stub(directory: Path, name: str, body: str) -> None:
    """A program in the place of one that reaches people."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{body}\n")
    (directory / name).chmod(0o755)


def test_the_example_mails_each_kill_once_and_what_could_not_be_mailed_later(
    journald: tuple[int, Path], tmp_path: Path
) -> None:
    pid, run = journald
    sink = journal_sink.open(journal_sink.Options(socket=str(run / "systemd/journal/socket")))
    assert sink is not None
    enter = ["nsenter", f"--mount=/proc/{pid}/ns/mnt"]
    environ = {**os.environ, "STATE_DIRECTORY": str(tmp_path), "MAILS": str(tmp_path / "mails")}
    environ["PATH"] = f"{tmp_path}/bin:{os.environ['PATH']}"

    def mails(works: bool = True) -> str:
        stub(tmp_path / "bin", "mail", 'cat >> "$MAILS"' if works else "exit 1")
        (tmp_path / "mails").write_text("")
        done = subprocess.run([*enter, EXAMPLES / "oom-mail", "root"], env=environ, check=False)
        assert (done.returncode == 0) is works
        return (tmp_path / "mails").read_text()

    def kill(seq: int) -> str:
        sink.emit(event(seq, comm=f"mail{seq}"))
        assert len(journalctl(run, f"OOM_KERNEL_SEQ={seq}")) == 1
        return f"mail{seq} "

    first = kill(41_000)
    assert first in mails()
    assert mails() == ""
    second = kill(41_001)
    mails(works=False)
    third = kill(41_002)
    mail = mails()
    assert mail.count(second) == mail.count(third) == 1 and first not in mail
    sink.emit(event(41_003, kind="page_alloc_failure", victims=()))
    assert len(journalctl(run, "OOM_KERNEL_SEQ=41003")) == 1
    assert mails() == "", "nobody was killed"


def test_the_example_follows_the_journal(journald: tuple[int, Path], tmp_path: Path) -> None:
    pid, run = journald
    page = (ROOT / "docs" / "journal.md").read_text()
    [command] = re.findall(r"^```sh\n(journalctl .* -f .*)\n```$", page, re.M)
    stub(tmp_path, "wall", f'printf "%s\\n" "$1" >> {tmp_path}/said')
    sink = journal_sink.open(journal_sink.Options(socket=str(run / "systemd/journal/socket")))
    assert sink is not None
    process = subprocess.Popen(
        ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "sh", "-c", command],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        start_new_session=True,
    )
    said = tmp_path / "said"
    try:
        deadline = time.monotonic() + PATIENCE
        seq = 42_000
        while not said.exists():  # it follows from when it has begun to
            assert time.monotonic() < deadline
            sink.emit(event(seq := seq + 1))
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert said.read_text().splitlines()[0] == event().summary


def test_the_real_journald_stopped_stalls_nothing(journald: tuple[int, Path]) -> None:
    pid, run = journald
    sink = journal_sink.open(journal_sink.Options(socket=str(run / "systemd/journal/socket")))
    assert sink is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        refused = 0
        for seq in range(20_000, 22_000):
            try:
                sink.emit(event(seq))
            except SinkError:
                refused += 1
        assert refused
        assert time.monotonic() - begin < 3
    finally:
        os.kill(pid, signal.SIGCONT)


def test_jsonl_appends_one_line_an_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("earlier\n")
    sink = jsonl.open(jsonl.Options(path=str(path)))
    assert sink is not None
    for number, comm in enumerate(HOSTILE):
        sink.emit(event(number, comm=comm))
    sink.close()
    lines = path.read_text().splitlines()
    assert lines[0] == "earlier"
    assert [json.loads(line)["victims"][0]["comm"] for line in lines[1:]] == list(HOSTILE)


def _target(link: Path) -> str:
    """Where a descriptor leads; it may be closed meanwhile."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def test_jsonl_follows_logrotate(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = jsonl.open(jsonl.Options(path=str(path)))
    assert sink is not None
    sink.emit(event(1))
    path.rename(tmp_path / "events.jsonl.1")
    sink.emit(event(2))
    path.unlink()
    sink.emit(event(3))
    assert (tmp_path / "events.jsonl.1").read_text().count("\n") == 1
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["source"]["first_seq"] == 3
    for seq in range(10, 60):
        path.unlink()
        sink.emit(event(seq))
    # those of this directory: what else the process has open may be closed at any time
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    opened = [name for link in links if (name := _target(link)).startswith(f"{tmp_path}/")]
    assert opened == [str(path)]


def test_jsonl_on_a_full_disk_says_so_and_mends_the_torn_line() -> None:
    sink = jsonl.open(jsonl.Options(path="/dev/full"))
    assert sink is not None
    with pytest.raises(SinkError, match="/dev/full: No space left on device"):
        sink.emit(event())


def test_jsonl_writes_to_a_descriptor_above_what_select_knows(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 2048:
        pytest.skip("no such descriptor may be had")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, limits[1]))
    sink = jsonl.open(jsonl.Options(path=str(tmp_path / "events.jsonl")))
    assert sink is not None
    low = sink.file()
    sink._fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 1500)
    os.close(low)
    try:
        sink.emit(event())
    finally:
        sink.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_jsonl_to_a_pipe_that_nobody_reads_gives_up(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    sink = jsonl.open(jsonl.Options(path=str(path)))
    assert sink is not None, "a reader may come later"
    with pytest.raises(SinkError, match="fifo"):
        sink.emit(event(1))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    taken = 0
    with pytest.raises(SinkError, match=r"bytes were taken|nobody reads"):
        for seq in range(100, 1000):
            sink.emit(event(seq))
            taken += 1
    assert taken > 10
    text = os.read(reader, 1 << 20)
    # the torn line stays alone on its line, what follows is whole again
    sink.emit(event(5000))
    text += os.read(reader, 1 << 20)
    os.close(reader)
    assert json.loads(text.splitlines()[-1])["source"]["first_seq"] == 5000
    assert [json.loads(line)["source"]["first_seq"] for line in text.splitlines()[:taken]] == [
        *range(100, 100 + taken)
    ]


def test_jsonl_where_it_cannot_write_is_an_error_each_time_not_an_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "later" / "events.jsonl"
    sink = jsonl.open(jsonl.Options(path=str(path)))
    assert sink is not None
    assert "cannot open" in caplog.text
    with pytest.raises(SinkError, match="No such file"):
        sink.emit(event())
    path.parent.mkdir()
    sink.emit(event())
    assert path.exists()


def test_jsonl_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    sink = jsonl.open(jsonl.Options(path="-"))
    assert sink is not None
    sink.emit(event())
    sink.close()
    os.write(1, b"still open\n")
    assert capfd.readouterr().out.endswith("still open\n")


def test_what_is_off_by_default_is_not_needed_to_know_that() -> None:
    modules = plugs.plugs("oomwatchd.sinks")
    assert set(modules) > BY_DEFAULT
    for name in set(modules) - BY_DEFAULT:
        assert modules[name].open(modules[name].Options()) is None
    for name in BY_DEFAULT:
        assert modules[name].Options().enabled


@pytest.mark.parametrize("name", plugs.names("oomwatchd.sinks"))
def test_each_sink_says_what_it_is_and_has_a_section(name: str) -> None:
    module = plugs.plug("oomwatchd.sinks", name)
    assert module.__doc__
    assert name in plugs.options("oomwatchd.sinks")
    assert issubclass(module.Options, msgspec.Struct)
    with pytest.raises(ConfigError, match="unknown key"):
        parse({"sinks": {name: {"no_such_key": 1}}}, "a file")


def test_open_sinks_opens_what_is_switched_on(tmp_path: Path, receiver: socket.socket) -> None:
    sinks, remote, absent = open_sinks(
        {
            "journal": journal_sink.Options(socket=receiver.getsockname()),
            "jsonl": jsonl.Options(path=str(tmp_path / "x")),
        }
    )
    assert [sink.name for sink in sinks] == ["journal", "jsonl"]
    assert (remote, absent) == ([], [])
    assert open_sinks({"journal": journal_sink.Options(enabled=False)}) == ([], [], [])
