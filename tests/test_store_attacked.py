"""Attacks on the store from outside: a lock held, the file gone or overwritten, a second daemon."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatchd.delivery.policy import Delivery
from oomwatchd.store import FILE_NAME, StateInUseError, StateLock, Store, StoreError, holder
from tests.samples import BOOT, capture, event


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path)
    for seq in (10, 20):
        opened.put(capture(seq), event(seq))
    opened.save_counters(BOOT, {"kills": 2.0})
    yield opened
    opened.close()


HOLDS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process holds SQLite's lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.stdin.close()


def test_a_locked_file_is_waited_for_once(store: Store, tmp_path: Path) -> None:
    with locked(tmp_path / FILE_NAME):
        began = time.monotonic()
        assert store.put(capture(30), event(30)) == "new"
        first, began = time.monotonic() - began, time.monotonic()
        for seq in range(40, 140, 10):
            assert store.put(capture(seq), event(seq)) == "new"
        with pytest.raises(StoreError):
            store.save_delivery(Delivery(sink="x", position=1))
        store.save_counters(BOOT, {"kills": 12.0})
        store.check()
        assert store.get(event(40).id) == capture(40)
        rest = time.monotonic() - began
    assert 1 < first < 4
    assert rest < 1, "who waits again for each event tells of kills a minute late"
    assert store.failure == "database is locked"
    store.check()  # nothing new need come
    assert store.failure is None
    assert store.events == 13
    assert [news.number for news in store.news(0, 99)] == list(range(1, 14))


@pytest.mark.parametrize("by", ["delivery", "counters"])
def test_whoever_meets_the_lock_first_waits_alone(store: Store, tmp_path: Path, by: str) -> None:
    with locked(tmp_path / FILE_NAME):
        if by == "delivery":
            with pytest.raises(StoreError):
                store.save_delivery(Delivery(sink="x", position=1))
        else:
            store.save_counters(BOOT, {"kills": 3.0})
        began = time.monotonic()
        store.put(capture(30), event(30))
        assert time.monotonic() - began < 1
    store.put(capture(40), event(40))
    assert (store.failure, store.events) == (None, 4)


def unlink(path: Path) -> None:
    path.unlink()


def remove_all(path: Path) -> None:
    for name in path.parent.glob(f"{path.name}*"):
        name.unlink()
    path.parent.rmdir()


def replace(path: Path) -> None:
    path.with_suffix(".other").write_bytes(b"")
    path.with_suffix(".other").rename(path)


def cut(path: Path) -> None:
    os.truncate(path, 5000)


def trash_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(100))


def trash_middle(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


@pytest.mark.parametrize("harm", [unlink, remove_all, replace, cut, trash_header, trash_middle])
@pytest.mark.parametrize("by", ["check", "put"])
def test_a_file_that_is_gone_or_damaged_is_noticed_and_begun_anew(
    harm: object, by: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "state"
    store = Store.open(directory)
    for seq in range(1000, 9000, 10):
        store.put(capture(seq), event(seq))
    store.failover.file.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.save_counters(BOOT, {"kills": 800.0})
    store.when_renewed(lambda: store.save_counters(BOOT, {"kills": 800.0}))
    last = store.last_news
    assert callable(harm)
    with caplog.at_level(logging.ERROR):
        harm(directory / FILE_NAME)
        if by == "check" or harm is trash_middle:  # which page a put reads is chance
            store.check()
        store.put(capture(9000), event(9000))
    assert caplog.text.count("a new one begun") == 1
    assert store.failure is None
    assert store.events == 1
    assert store.last_news == last + 1
    with contextlib.closing(Store.open_reader(directory)) as reader:
        assert [row.first_seq for row in reader.list()] == [9000]
        assert reader.load_counters(BOOT) == {"kills": 800.0}
    store.close()


@pytest.mark.parametrize("call", ["pread", "fstat", "stat"])
def test_a_disk_that_fails_for_a_moment_costs_nothing(
    call: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO, ESTALE: no reason to lose a report, nor to give up the file until the daemon ends."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr(Path if call == "stat" else os, call, fails)
        assert store.put(capture(30), event(30)) == "new"
        store.check()
    assert store.put(capture(40), event(40)) == "new"
    assert store.failure is None and store.corrupt is None
    with contextlib.closing(Store.open_reader(tmp_path)) as reader:
        assert {row.first_seq for row in reader.list()} == {10, 20, 30, 40}


def test_what_memory_held_is_in_the_new_file(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    with locked(tmp_path / FILE_NAME):
        store.put(capture(10), event(10))
        (tmp_path / FILE_NAME).unlink()
    store.check()
    with contextlib.closing(Store.open_reader(tmp_path)) as reader:
        assert [row.first_seq for row in reader.list()] == [10]
    store.close()


def test_another_program_that_writes_properly_is_no_harm(store: Store, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        other.execute("DELETE FROM event WHERE first_seq = 10")
        other.commit()
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.check()
    assert (store.corrupt, store.events) == (None, 1)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_file_does_not_hang_the_start(tmp_path: Path, suffix: str, kind: str) -> None:
    name = tmp_path / f"{FILE_NAME}{suffix}"
    if kind == "fifo":
        os.mkfifo(name)
    else:
        name.mkdir()
    with pytest.raises(StoreError, match=f"{name.name} is not a regular file"):
        Store.open(tmp_path)
    if suffix:
        (tmp_path / FILE_NAME).touch()
    with pytest.raises(StoreError, match="is not a regular file"):
        Store.open_reader(tmp_path)


@pytest.mark.parametrize(
    "script",
    ["CREATE TABLE event(x); CREATE TABLE news(y); PRAGMA user_version = 4", "CREATE TABLE event(x)"],
)
def test_the_file_of_another_program_is_left_alone(tmp_path: Path, script: str) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        other.executescript(script)
    with pytest.raises(StoreError):
        Store.open(tmp_path)


# -- a second daemon ------------------------------------------------------------------------------------

LOCKS = """
import sys
from pathlib import Path
from oomwatchd.store import StateLock
lock = StateLock.take(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_one_daemon_at_a_time_has_a_directory(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    command = [sys.executable, "-c", LOCKS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert holder(tmp_path) == process.pid
        with pytest.raises(
            StateInUseError, match=rf"process {process.pid}\) has the state directory"
        ) as found:
            StateLock.take(tmp_path, 0.1)
        assert found.value.exit_status == 73
        process.kill()
    assert holder(tmp_path) is None
    StateLock.take(tmp_path, 0.1).close()


def test_a_directory_that_cannot_be_locked_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    StateLock.take(tmp_path / "file" / "state").close()
    os.mkfifo(tmp_path / "daemon.lock")
    StateLock.take(tmp_path).close()
    assert holder(tmp_path) is None
