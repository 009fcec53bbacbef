"""The store: identity, revisions, counters, retention, and faults of the disk."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from oomwatchd.diagnosis.attribution import Attribution
from oomwatchd.errors import PermissionDeniedError
from oomwatchd.event import OomEvent
from oomwatchd.records.capture import OomCapture, ProcessFacts, Snapshot
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.store import FILE_NAME, MEMORY_BYTES, Limits, Store, StoreError
from oomwatchd.store.schema import LATER
from tests.samples import BOOT, OTHER_BOOT, WALL, capture, event, malformed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "state")
    yield opened
    opened.close()


class Tally:
    """Counts like the daemon does."""

    def __init__(self) -> None:
        self.events = 0
        self.kills = 0

    def __call__(self, event: OomEvent, reports: int, kills: int, undecoded: int) -> dict[str, float]:
        self.events += reports
        self.kills += kills
        return {"events": self.events, "kills": self.kills}


def test_a_capture_comes_back_as_it_went_in(store: Store) -> None:
    assert store.put(capture(), event()) == "new"
    assert store.get(event().id) == capture()
    assert store.get("nothing") is None


def test_same_or_lower_revision_is_known_and_a_higher_one_replaces(store: Store) -> None:
    assert store.put(capture(revision=1), event()) == "new"
    assert store.put(capture(revision=1), event()) == "known"
    assert store.put(capture(revision=0), event()) == "known"
    assert store.put(capture(revision=2, lines=5), event(kills=2)) == "updated"
    assert store.put(capture(revision=2, lines=5, settled=True), event(kills=2)) == "updated"
    assert store.put(capture(revision=2, lines=5), event(kills=2)) == "known"
    (row,) = store.list()
    assert (row.kills, row.last_seq, row.settled) == (2, 104, True)


def test_what_is_read_again_after_a_restart_adds_and_takes_nothing_away(store: Store) -> None:
    """A process was killed after revision 2; the next reads the ring again and counts from 0."""
    tally = Tally()
    at = Snapshot(usec=1, wall=WALL, parts={"meminfo": "MemFree: 1 kB"})
    facts = (ProcessFacts(pid=4242, executable="/bin/stress"),)
    live: dict[str, Any] = {"at": at, "processes": facts, "detection_latency_seconds": 0.5}
    store.put(capture(revision=2, lines=5, **live), event(kills=2), tally)
    again = capture(revision=0, lines=5, wall_offset=WALL + 9)
    assert store.put(again, event(kills=2), tally) == "known"
    later = capture(revision=0, lines=7, settled=True, wall_offset=WALL + 9)
    assert store.put(later, event(kills=4, attribution=()), tally) == "updated"
    assert tally.kills == 4
    merged = store.get(event().id)
    assert merged == capture(revision=2, lines=7, settled=True, **live)
    (row,) = store.list(unit="web.service")
    assert row.kills == 4


def test_what_the_look_afterwards_found_is_kept_with_what_was_known_before(store: Store) -> None:
    before = ProcessFacts(pid=4242, executable="/bin/stress", cgroup="/a", learnt="proc", start_usec=7)
    after = ProcessFacts(pid=4242, learnt="recorder", alive_after=True, state_after="D")
    store.put(capture(processes=(before,)), event())
    store.put(capture(revision=1, settled=True, processes=(after,)), event())
    stored = store.get(event().id)
    assert stored is not None
    (facts,) = stored.processes
    assert (facts.alive_after, facts.state_after) == (True, "D")
    assert (facts.executable, facts.cgroup, facts.learnt, facts.start_usec) == (
        "/bin/stress",
        "/a",
        "proc",
        7,
    )


def test_a_revision_that_was_cut_down_does_not_cost_the_records(store: Store) -> None:
    store.put(capture(lines=5), event())
    whole = capture(lines=6, revision=1)
    cut = type(whole)(
        source=whole.source,
        records=whole.records[-1:],
        first_seq=whole.first_seq,
        last_seq=whole.last_seq,
        revision=1,
        wall_offset=WALL,
    )
    assert store.put(cut, event()) == "updated"
    assert store.get(event().id) == whole


def test_a_damaged_row_is_replaced(store: Store) -> None:
    store.put(capture(), event())
    store.failover.file.connection.execute("UPDATE event SET capture = x'00'")
    with pytest.raises(StoreError, match="damaged"):
        store.get(event().id)
    assert list(store.export()) == []
    assert store.put(capture(), event()) == "updated"
    assert store.get(event().id) == capture()


def test_the_position_identifies_even_if_the_id_were_derived_differently(store: Store) -> None:
    store.put(capture(), event())
    assert store.put(capture(), event(id="another")) == "known"
    assert store.put(capture(revision=1), event(id="another")) == "updated"
    assert [row.id for row in store.list()] == [event().id]


def test_text_without_sequence_numbers_is_told_apart_by_id(store: Store) -> None:
    no_seq = capture(boot_id=None)
    no_seq = type(no_seq)(source=no_seq.source, records=no_seq.records)
    assert store.put(no_seq, event(id="hash-a")) == "new"
    assert store.put(no_seq, event(id="hash-b")) == "new"
    assert store.put(no_seq, event(id="hash-a")) == "known"


def test_counters_grow_by_what_is_new_and_survive_a_restart(tmp_path: Path) -> None:
    tally = Tally()
    first = Store.open(tmp_path)
    first.put(capture(), event(kills=1), tally)
    first.put(capture(), event(kills=1), tally)
    first.put(capture(revision=1), event(kills=3), tally)
    first.put(capture(200), event(200, kills=2), tally)
    first.close()
    again = Store.open(tmp_path)
    assert again.load_counters(BOOT) == {"events": 2, "kills": 5}
    assert again.load_counters(OTHER_BOOT) == {}
    assert again.position(BOOT) == 202
    assert again.position(OTHER_BOOT) is None


def test_kill_9_leaves_counts_and_events_equal(tmp_path: Path) -> None:
    """A child stores as fast as it can and is killed at an arbitrary point, several times over."""
    script = """
import sys
from pathlib import Path
from typing import Any
from oomwatchd.store import Store
from tests.samples import BOOT, capture, event
store = Store.open(Path(sys.argv[1]))
counters = store.load_counters(BOOT)
def count(event, reports, kills, undecoded):
    counters["events"] = counters.get("events", 0) + reports
    counters["kills"] = counters.get("kills", 0) + kills
    return counters
print("ready", flush=True)
for seq in range(0, 10**9, 10):
    store.put(capture(seq), event(seq), count)
    store.put(capture(seq, revision=1), event(seq, kills=2), count)
"""
    stored = 0
    for delay in (0.05, 0.11, 0.17):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        store = Store.open(tmp_path)
        rows = store.list(limit=10**6)
        counters = store.load_counters(BOOT)
        store.close()
        assert len(rows) >= max(stored, 1)
        assert counters == {"events": len(rows), "kills": sum(row.kills for row in rows)}
        stored = len(rows)


def test_a_store_of_somebody_else_is_no_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(tmp_path).close()
    monkeypatch.setattr("oomwatchd.store.store.os.access", lambda *_, **__: False)
    with pytest.raises(PermissionDeniedError, match="no permission to read the store"):
        Store.open_reader(tmp_path)
    with pytest.raises(StoreError, match="no store at"):
        Store.open_reader(tmp_path / "none")


def test_a_beginning_of_the_id_is_enough_if_only_one_has_it(store: Store) -> None:
    store.put(capture(1), event(1, id="aaaa-1"))
    store.put(capture(10), event(10, id="aaaa-10"))
    store.put(capture(20), event(20, id="ab%_20"))
    assert store.get("ab") == capture(20)
    assert store.get("ab%") == capture(20)
    assert store.get("a%") is None
    assert store.get("aaaa-1") == capture(1)
    with pytest.raises(StoreError, match="several events begin with 'aaaa'"):
        store.get("aaaa")


def test_list_is_newest_first_and_filters(store: Store) -> None:
    for seq in (1000, 2000, 3000):
        store.put(capture(seq), event(seq))
    store.put(capture(4000), event(4000, kind="oom_no_victim", kills=0, attribution=(), memcg=None))
    assert [row.first_seq for row in store.list()] == [4000, 3000, 2000, 1000]
    assert [row.first_seq for row in store.list(limit=2)] == [4000, 3000]
    assert [row.first_seq for row in store.list(since=WALL + 2, before=WALL + 4)] == [3000, 2000]
    assert [row.first_seq for row in store.list(kind="oom_no_victim")] == [4000]
    assert len(store.list(unit="web.service")) == 3
    assert len(store.list(cgroup="/test/inner")) == 3
    assert store.list(unit="' OR 1=1 --") == []


def test_names_are_found_by_their_beginnings(store: Store) -> None:
    identifier = "75269d3c5c23" + "0" * 52

    def put(seq: int, name: str | None, container_id: str | None = identifier) -> None:
        whose = Attribution(
            pid=4242,
            role="victim",
            cgroup=f"/c/{seq}",
            unit="a.service",
            container_id=container_id,
            container_name=name,
        )
        # its memory cgroup is unnamed, so that what /proc said stands
        store.put(capture(seq), event(seq, attribution=(whose,), memcg=None))

    for seq, name in ((1000, "shop/web-0/app"), (2000, "shop/web-1/app"), (3000, "web"), (4000, "%")):
        put(seq, name)
    put(5000, None)
    put(6000, None, None)

    def found(**wanted: str) -> list[int | None]:
        return [row.first_seq for row in store.list(**wanted)]  # type: ignore[arg-type]

    assert found(pod="web") == [2000, 1000] and found(pod="web-1") == [2000]
    assert found(namespace="sh") == [2000, 1000] and found(namespace="hop") == []
    assert found(container="app") == [2000, 1000] and found(container="web") == [3000]
    assert found(container="75269d3c") == [5000, 4000, 3000, 2000, 1000]
    assert found(container="%") == [4000] and found(container="_") == []
    assert found(unit="a.s") == [6000, 5000, 4000, 3000, 2000, 1000] and found(cgroup="/c/2") == [2000]
    places = [row.place for row in store.list()]
    assert places == [
        "a.service",
        "container 75269d3c5c23",
        "container %",
        "container web",
        "shop/web-1/app",
        "shop/web-0/app",
    ]


def test_what_is_beside_an_event(store: Store) -> None:
    for seq in (1000, 2000, 3000):
        store.put(capture(seq), event(seq))
    first, second, third = (event(seq).id for seq in (1000, 2000, 3000))
    assert store.beside(first) == (second, None)
    assert store.beside(second) == (third, first)
    assert store.beside(third) == (None, second)
    assert store.beside("none") == (None, None)


def test_export_gives_all_in_the_order_stored(store: Store) -> None:
    for seq in range(0, 400, 10):
        store.put(capture(seq), event(seq))
    assert [c.first_seq for c in store.export()] == list(range(0, 400, 10))
    assert [c.first_seq for c in store.export(since=WALL + 0.390)] == [390]


def test_max_events_drops_the_oldest_and_does_not_take_them_again(tmp_path: Path) -> None:
    tally = Tally()
    store = Store.open(tmp_path, limits=Limits(max_events=5))
    for seq in range(0, 100, 10):
        assert store.put(capture(seq), event(seq), tally) == "new"
    assert sorted(row.first_seq or 0 for row in store.list()) == [50, 60, 70, 80, 90]
    assert store.events == 5
    # the ring is read again after a restart
    assert [store.put(capture(seq), event(seq), tally) for seq in range(0, 100, 10)] == ["known"] * 10
    assert tally.events == 10
    # another boot has numbers of its own
    assert store.put(capture(0, boot_id=OTHER_BOOT), event(id="other"), tally) == "new"


def test_max_bytes_holds_and_the_newest_is_always_kept(tmp_path: Path) -> None:
    store = Store.open(tmp_path, limits=Limits(max_events=None, max_bytes=200_000))
    for seq in range(0, 10_000, 100):
        noise = os.urandom(4000).hex()
        store.put(capture(seq, kernel=noise), event(seq))
    assert 100_000 < store.bytes <= 210_000
    assert store.list(limit=1)[0].first_seq == 9900
    tiny = Store.open(tmp_path / "tiny", limits=Limits(max_bytes=1))
    tiny.put(capture(), event())
    tiny.put(capture(200), event(200))
    assert [row.first_seq for row in tiny.list()] == [200]


def test_max_age_spares_what_was_stored_with_an_unset_clock(tmp_path: Path) -> None:
    now = WALL
    store = Store.open(tmp_path, limits=Limits(max_age_seconds=3600), clock=lambda: now)
    store.put(capture(1, wall_offset=0.0), event(1))
    store.put(capture(10), event(10))
    store.put(capture(20), event(20))
    now = WALL + 4000
    store.put(capture(30, wall_offset=now), event(30))
    assert sorted(row.first_seq or 0 for row in store.list()) == [1, 30]


def test_modes(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state")
    store.put(capture(), event())
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    for file in (tmp_path / "state").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    store.close()


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_corrupt_file_is_moved_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    older = tmp_path / f"{FILE_NAME}.corrupt-19600101T000000Z"
    older.write_text("")
    (tmp_path / FILE_NAME).write_bytes(content)
    with caplog.at_level(logging.ERROR):
        store = Store.open(tmp_path, clock=lambda: 0.0)
    assert store.corrupt == tmp_path / f"{FILE_NAME}.corrupt-19700101T000000Z"
    assert store.corrupt.read_bytes() == content
    assert not older.exists(), "a file that keeps breaking must not fill the disk with its remains"
    assert "is corrupt" in caplog.text
    assert store.put(capture(), event()) == "new"


def test_where_no_new_file_can_be_begun_memory_holds_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path, limits=Limits(max_bytes=64 << 20))
    store.put(capture(0), event(0))

    def fails(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("oomwatchd.store.failover.move_aside", fails)
    monkeypatch.setattr("oomwatchd.store.failover.connected", fails)
    assert store.failover.renewed_for(malformed())
    for seq in (1000, 2000):
        assert store.put(capture(seq), event(seq)) == "new"
    assert store.failure == "no new store can be begun: Read-only file system"
    assert [row.first_seq for row in store.list()] == [2000, 1000]
    assert store.failover.limits.max_bytes == MEMORY_BYTES
    assert store.last_news == 3
    store.check()
    assert store.failure is not None, "tried again, and still not to be had"
    monkeypatch.undo()
    renewed: list[int] = []
    store.when_renewed(lambda: renewed.append(1))
    store.check()
    assert store.failure is None and renewed == [1]
    assert store.failover.limits.max_bytes == 64 << 20
    assert store.put(capture(3000), event(3000)) == "new"
    store.close()
    with contextlib.closing(Store.open(tmp_path)) as again:
        assert [row.first_seq for row in again.list()] == [
            3000,
            2000,
            1000,
            *([0] if not store.corrupt else []),
        ]
        assert again.last_news == 4


def test_counters_are_saved_together(store: Store) -> None:
    said: list[str] = []
    store.failover.file.connection.set_trace_callback(said.append)
    store.save_counters(BOOT, {"began_seq": 7.0, "baseline": 3.0, "told_unseen": 0.0})
    assert [words.split(" ")[0] for words in said] == ["BEGIN", *["INSERT"] * 3, "COMMIT"]
    assert store.load_counters(BOOT) == {"began_seq": 7.0, "baseline": 3.0, "told_unseen": 0.0}


@pytest.mark.parametrize("asked_first", [True, False])
def test_corruption_found_while_running_begins_a_new_file(tmp_path: Path, asked_first: bool) -> None:
    store = Store.open(tmp_path)
    for seq in range(0, 3000, 10):
        store.put(capture(seq), event(seq))
    store.close()
    size = (tmp_path / FILE_NAME).stat().st_size
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * (size - 8192))
    again = Store.open(tmp_path)
    if asked_first:
        assert again.position(BOOT) is None
        assert again.load_counters(BOOT) == {}
    tally = Tally()
    assert again.put(capture(5000), event(5000), tally) == "new"
    assert tally.events == 1
    assert again.corrupt is not None
    assert again.corrupt.exists()
    assert again.get(event(5000).id) == capture(5000)


def test_the_list_says_what_happened_and_older_stores_are_listed_without(tmp_path: Path) -> None:
    with_it = event(1)
    store = Store.open(tmp_path)
    store.put(capture(1), with_it)
    assert [row.summary for row in store.list()] == [with_it.summary]
    store.close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.executescript(
        "DROP INDEX event_host;"
        + "".join(f"ALTER TABLE event DROP COLUMN {name};" for name in LATER)
        + "PRAGMA user_version = 3"
    )
    connection.close()
    reader = Store.open_reader(tmp_path)
    assert [(row.id, row.summary, row.container) for row in reader.list()] == [(with_it.id, None, None)]
    assert reader.list(container="web") == [], "none is known there, and that is no error"
    reader.close()
    upgraded = Store.open(tmp_path)
    upgraded.put(capture(2), event(2))
    assert {row.id: row.summary for row in upgraded.list()} == {
        with_it.id: None,
        event(2).id: event(2).summary,
    }
    upgraded.close()


@pytest.mark.parametrize(("header", "said"), [(None, False), (b"\0" * 32, False), (b"\xa5" * 32, True)])
def test_a_damaged_log_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, header: bytes | None, said: bool
) -> None:
    """A store that was not closed: what it holds is in the log alone."""
    script = """
import os, sys
from pathlib import Path
from oomwatchd.store import Store
from tests.samples import capture, event
store = Store.open(Path(sys.argv[1]))
store.put(capture(1), event(1))
os._exit(0)
"""
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=root)
    log = tmp_path / f"{FILE_NAME}-wal"
    assert log.stat().st_size > 4096
    if header is not None:
        with log.open("r+b") as file:
            file.write(header)
    again = Store.open(tmp_path)
    assert len(again.list()) == int(header is None)
    assert ("write-ahead log" in caplog.text) is said
    again.close()


def test_a_newer_schema_is_refused_not_destroyed(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for opener in (Store.open, Store.open_reader):
        with pytest.raises(StoreError, match="schema 99"):
            opener(tmp_path)


def test_a_directory_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot open the store"):
        Store.open(tmp_path / "file" / "state")


def full(store: Store) -> Callable[[], None]:
    """Let the file grow no further, as on a full disk; returns what undoes it."""
    connection = store.failover.file.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")

    def more() -> None:
        connection.execute("PRAGMA max_page_count = 1000000")

    return more


def test_a_full_disk_keeps_events_in_memory_and_counts_each_once(tmp_path: Path) -> None:
    tally = Tally()
    store = Store.open(tmp_path)
    store.put(capture(1, kernel=os.urandom(9000).hex()), event(1), tally)
    more = full(store)
    noise = os.urandom(9000).hex()
    assert store.put(capture(10, kernel=noise), event(10), tally) == "new"
    assert store.failure is not None
    assert "full" in store.failure
    assert store.put(capture(10, kernel=noise), event(10), tally) == "known"
    assert store.put(capture(10, revision=1, kernel=noise), event(10, kills=2), tally) == "updated"
    assert store.put(capture(1, revision=1, kernel=noise), event(1, kills=4), tally) == "updated"
    assert store.put(capture(1), event(1), tally) == "known"
    assert (tally.events, tally.kills) == (2, 6)
    assert store.get(event(10).id) is not None
    assert {row.first_seq for row in store.list()} == {1, 10}
    assert store.failures == 5
    more()
    assert store.put(capture(20), event(20), tally) == "new"
    assert store.failure is None
    store.close()
    again = Store.open(tmp_path)
    assert {row.first_seq: row.kills for row in again.list()} == {1: 4, 10: 2, 20: 1}
    assert again.load_counters(BOOT) == {"events": 3, "kills": 7}


def test_memory_is_bounded_while_the_disk_is_full(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    full(store)
    for seq in range(0, 3000, 10):
        assert store.put(capture(seq, kernel=os.urandom(3000).hex()), event(seq)) == "new"
    in_file = store.events
    assert in_file < 5
    assert len(store.list(limit=1000)) == 256 + in_file
    assert store.dropped == 300 - 256 - in_file


def test_a_reader_reads_beside_the_writer_and_never_writes(store: Store, tmp_path: Path) -> None:
    store.put(capture(), event())
    reader = Store.open_reader(tmp_path / "state")
    assert reader.get(event().id) == capture()
    store.put(capture(200), event(200))
    assert len(reader.list()) == 2
    reader.put(capture(300), event(300))
    assert reader.failure is not None
    reader.close()
    assert len(store.list()) == 2


def test_a_reader_without_a_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="--state-directory"):
        Store.open_reader(tmp_path)


def test_positions_of_long_gone_boots_are_forgotten(store: Store) -> None:
    for number in range(40):
        store.put(capture(1, boot_id=f"boot{number:02}"), event(id=f"e{number}"))
    assert store.position("boot39") == 3
    assert store.position("boot00") is None
    assert store.position("boot30") == 3


def test_in_memory() -> None:
    store = Store.open(None, limits=Limits(max_events=2))
    for seq in (1, 10, 20):
        store.put(capture(seq), event(seq))
    assert [row.first_seq for row in store.list()] == [20, 10]


def from_the_journal(seq: int, **fields: Any) -> OomCapture:
    """The same report as ``capture(seq)``, as journald has it."""
    ring = capture(seq, **fields)
    records = tuple(msgspec.structs.replace(record, seq=None, wall=1.0) for record in ring.records)
    source = msgspec.structs.replace(ring.source, kind="journal", form="journal")
    return msgspec.structs.replace(ring, source=source, records=records, first_seq=None, last_seq=None)


@pytest.mark.parametrize("ring_first", [True, False])
def test_a_report_from_ring_and_journal_is_one(tmp_path: Path, ring_first: bool) -> None:
    store = Store.open(tmp_path)
    counted: list[int] = []

    def count(_event: OomEvent, _reports: int, kills: int, _undecoded: int) -> dict[str, float]:
        counted.append(kills)
        return {}

    def put(seq: int, of: OomCapture, kills: int = 1) -> str:
        kind = of.source.kind
        return store.put(of, event(seq, id=f"{kind}{seq}", kills=kills), count)

    both = [capture(7), from_the_journal(7)]
    first, second = both if ring_first else both[::-1]
    assert (put(7, first), put(7, second)) == ("new", "known")
    assert put(7, second, kills=3) != "known"  # the rest of a group
    assert counted == [1, 2]
    other = from_the_journal(20)
    assert put(20, other) == "new"
    alike = msgspec.structs.replace(
        capture(30), records=(msgspec.structs.replace(capture(30).records[0], usec=20_000),)
    )
    assert put(30, alike) == "new"  # printed at the same moment, and another
    assert store.last_usec(BOOT) == 20_000
    assert store.last_usec(OTHER_BOOT) is None
    store.close()


def test_what_was_given_up_of_the_journal_is_not_news_when_it_is_read_again(tmp_path: Path) -> None:
    store = Store.open(tmp_path, limits=Limits(max_events=3))
    for seq in range(10, 60, 10):
        assert store.put(from_the_journal(seq), event(seq)) == "new"
    assert [store.put(from_the_journal(seq), event(seq)) for seq in range(10, 60, 10)] == ["known"] * 5
    assert store.position(BOOT) is None
    assert store.last_usec(BOOT) == 50_000
    assert store.put(capture(10), event(10)) == "new"  # only numbers tell that of the ring
    store.close()


def test_damage_that_no_query_meets_is_found_at_the_beginning(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    for seq in range(10, 600, 10):
        store.put(capture(seq, lines=9), event(seq))
    store.close()
    again = Store.open(tmp_path)
    assert again.corrupt is None and again.events == 59
    again.close()
    path = tmp_path / FILE_NAME
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xa5" * 4096)
    store = Store.open(tmp_path)
    assert store.corrupt is not None and store.corrupt.exists()
    assert store.failure is None and store.events == 0
    assert store.put(capture(700), event(700)) == "new"
    store.close()


def test_who_counts_is_told_of_a_new_file(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.put(capture(10), event(10))
    renewed: list[dict[str, float]] = []

    def begin_anew() -> None:
        store.save_counters(BOOT, {"began": 7.0})
        renewed.append(store.load_counters(BOOT))

    store.when_renewed(begin_anew)
    for file in tmp_path.glob(f"{FILE_NAME}*"):
        file.write_bytes(b"not a database, not a log" * 400)
    assert store.put(capture(20), event(20)) == "new"
    assert renewed == [{"began": 7.0}]
    store.close()


def test_what_was_stored_and_not_told_is_known_at_the_next_start(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert store.undelivered(9) == ()
    store.delivered = store.last_news
    store.save_delivered()
    for seq in (100, 200):
        store.put(capture(seq), event(seq))
    store.delivered = 1
    store.save_delivered()
    store.close()
    store = Store.open(tmp_path)
    assert [news.event_id for news in store.undelivered(9)] == [event(200).id]
    assert not store.deliveries()
    store.forget_deliveries([])
    assert len(store.undelivered(9)) == 1
    store.delivered = store.last_news
    store.put(capture(300), event(300))  # a put saves it, too
    store.close()
    store = Store.open(tmp_path)
    assert [news.event_id for news in store.undelivered(9)] == [event(300).id]
    store.close()


def test_a_store_of_256_kib_wears_no_flash(tmp_path: Path) -> None:
    """A small board: what it takes of the disk, with its log, and what each event writes."""
    rest = "".join(map(chr, range(33, 120))) * 40

    def written() -> int:
        return int(re.search(r"write_bytes: (\d+)", Path("/proc/self/io").read_text())[1])  # type: ignore[index]

    store = Store.open(tmp_path, limits=Limits(max_bytes=256 << 10, max_events=100))
    largest, before = 0, written()
    for seq in range(0, 4000, 10):
        records = tuple(
            KmsgRecord(text=f"{n} {random.Random(n).random()} {rest}", seq=n, usec=n, raw=b"x")
            for n in range(seq, seq + 5)
        )
        store.put(msgspec.structs.replace(capture(seq), records=records), event(seq))
        largest = max(
            largest, sum(file.stat().st_size for file in tmp_path.iterdir() if "-shm" not in file.name)
        )
    each = (written() - before) / 400
    assert len(store.list(limit=1000)) > 10
    assert largest <= 448 << 10
    assert each <= 96 << 10
    idle = written()
    for _ in range(100):
        store.check()
    assert written() == idle
    store.close()
