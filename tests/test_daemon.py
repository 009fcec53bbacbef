"""The daemon: its two halves with a stand-in for the log, and the whole of it on real OOM kills."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import logging
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from oomwatchd.cli.throwaway import victim
from oomwatchd.config import Config, HttpSection, parse
from oomwatchd.daemon import protect, waiting
from oomwatchd.daemon.clocks import Times
from oomwatchd.daemon.evidence import FORESEEN_USEC
from oomwatchd.daemon.live_facts import LiveFacts
from oomwatchd.daemon.log import LINE_BYTES, OncePerKind, StderrHandler
from oomwatchd.daemon.loop import Loop, Parts
from oomwatchd.daemon.main import Daemon
from oomwatchd.daemon.serving import Serving
from oomwatchd.daemon.settings import Settings
from oomwatchd.daemon.waiting import FULL_CAPTURES, cut_down
from oomwatchd.daemon.warmup import RECORDS
from oomwatchd.daemon.watch import FRESH_USEC, Watch
from oomwatchd.daemon.worker import Worker
from oomwatchd.errors import UnavailableError
from oomwatchd.event import OomEvent, conclude
from oomwatchd.metrics import Metrics
from oomwatchd.notify import Notifier, take_descriptors
from oomwatchd.observe.container import ContainerNames
from oomwatchd.observe.history import Before
from oomwatchd.observe.holders import Holders
from oomwatchd.observe.host import Host
from oomwatchd.observe.snapshot import Snapshots
from oomwatchd.records.capture import Mark, OomCapture, Source
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord, parse_record
from oomwatchd.render.fields import died
from oomwatchd.reports.assemble import Assembler, Signal
from oomwatchd.reports.storms import Covered
from oomwatchd.sources.kmsg import KmsgSource
from oomwatchd.store import Store
from tests.waiting import PATIENCE

LINES = RECORDS.strip().splitlines()
FIRST_SEQ = 23195
REPORT_USEC = 71_042_323
KILL_USEC = 71_044_040
VICTIM_PID, VICTIM_COMM = 543, "labbox"
BOOT_ID = "0123456789abcdef0123456789abcdef"


def metric(metrics: Metrics, name: str, **labels: str) -> float:
    return next(
        sample.value
        for family in metrics.collect()
        for sample in family.samples
        if sample.name == name and all(sample.labels[key] == value for key, value in labels.items())
    )


# -- the hurried half ----------------------------------------------------------------------------------


class Rig:
    """A watch on a packet pipe, with a host of files and a clock that is set."""

    def __init__(
        self,
        root: Path,
        *,
        position: int | None = None,
        began_seq: int | None = None,
        covered: Iterable[Covered] = (),
    ) -> None:
        self.reading, self.writing = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 1024 * 1024)
        (root / "vmstat").write_text("oom_kill 7\n")
        (root / str(VICTIM_PID)).mkdir()
        (root / str(VICTIM_PID) / "comm").write_text(VICTIM_COMM + "\n")
        (root / str(VICTIM_PID) / "cgroup").write_text("0::/cs\n")
        self.root = root
        self.usec = 0
        self.wall_shift = 0.0
        self.metrics = Metrics()
        self.captures: list[OomCapture] = []
        self.named_at: list[float | None] = []
        self.began: list[int] = []
        host = Host(proc=root, boot_id=BOOT_ID)
        self.watch = Watch(
            KmsgSource(self.reading, "pipe", clock=lambda: 0.0),
            host,
            Snapshots(host),
            self.metrics,
            self.submit,
            lambda: Times(self.usec, 1_000_000.0 + self.wall_shift + self.usec / 1e6),
            position=position,
            began_seq=began_seq,
            covered=covered,
            on_report=self.began.append,
        )

    def submit(
        self, capture: OomCapture, named_at: float | None, before: Callable[[], Before] | None
    ) -> None:
        self.captures.append(capture if before is None else before().added_to(capture))
        self.named_at.append(named_at)

    def write(self, *lines: str) -> None:
        for line in lines:
            os.write(self.writing, line.encode() + b"\n")

    def read_at(self, usec: int) -> None:
        self.usec = usec
        while not self.watch.read():
            pass

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_what_was_in_the_ring_at_the_first_start_is_historical(rig: Rig) -> None:
    rig.write(*LINES)
    rig.read_at(KILL_USEC + 100)
    rig.watch.catch_up_done()
    rig.read_at(KILL_USEC + 6_000_000)
    assert [(c.historical, c.settled, c.at, c.processes) for c in rig.captures] == [(True, True, None, ())]
    assert rig.captures[0].detected is None
    assert rig.named_at == [None]
    assert rig.watch.began_seq == FIRST_SEQ + len(LINES) - 1


def test_a_report_that_the_time_for_the_first_reading_cuts_in_two_is_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oomwatchd.sources.kmsg.BITE_RECORDS", 10)
    monkeypatch.setattr("oomwatchd.sources.kmsg._LOOK_RECORDS", 5)
    rig.write(*LINES)
    rig.usec = KILL_USEC + 60_000_000
    assert not rig.watch.read()
    rig.watch.catch_up_done()
    rig.read_at(KILL_USEC + 60_000_000)
    assert [c.first_seq for c in rig.captures] == [FIRST_SEQ]


def test_a_live_report_is_captured_with_its_surroundings(rig: Rig) -> None:
    rig.usec = REPORT_USEC - 1000
    rig.watch.catch_up_done()
    rig.write(*LINES[:10])
    rig.read_at(REPORT_USEC + 500)
    (rig.root / "vmstat").write_text("oom_kill 8\n")  # the look was taken when the report began
    rig.write(*LINES[10:])
    rig.read_at(KILL_USEC + 100)
    assert rig.captures == []
    rig.read_at(KILL_USEC + 100_800)
    rig.read_at(KILL_USEC + 5_100_000)
    assert rig.began == [REPORT_USEC + 500]
    early, late = rig.captures
    assert (early.revision, early.settled, late.revision, late.settled) == (0, False, 1, True)
    for capture in rig.captures:
        assert (capture.first_seq, capture.last_seq) == (FIRST_SEQ, FIRST_SEQ + len(LINES) - 1)
        assert capture.source == Source(kind="kmsg", form="kmsg", boot_id=BOOT_ID)
        assert not capture.historical
        assert capture.at is not None and capture.at.parts == {"vmstat": "oom_kill 7\n"}
        assert capture.at.usec == REPORT_USEC + 500
        assert capture.wall_offset == 1_000_000.0
        assert capture.detected == pytest.approx(1_000_000.0 + (KILL_USEC + 100_800) / 1e6)
        [process] = capture.processes
        assert (process.pid, process.comm, process.cgroup) == (VICTIM_PID, VICTIM_COMM, "/cs")
    assert early.after is None
    assert late.after is not None and late.after.parts == {"vmstat": "oom_kill 8\n"}
    assert len(set(rig.named_at)) == 1
    assert rig.named_at[0] == pytest.approx(KILL_USEC / 1e6, abs=0.001)
    event = conclude(early).event
    assert (event.kills, event.victims[0].comm, event.constraint) == (1, VICTIM_COMM, "cpuset")
    assert metric(rig.metrics, "oomwatchd_kernel_oom_kills_total") == 8


def test_a_report_that_is_read_late_is_not_looked_around_for(rig: Rig) -> None:
    """The machine is another by then, and the pid may be another process."""
    rig.usec = REPORT_USEC - 1000
    rig.watch.catch_up_done()
    rig.write(*LINES)
    rig.read_at(KILL_USEC + FRESH_USEC + 1)
    rig.watch.flush()
    [capture] = rig.captures
    assert (capture.at, capture.processes, capture.historical) == (None, (), False)
    assert rig.named_at[0] == pytest.approx(KILL_USEC / 1e6, abs=0.001)  # late, and said so


def test_a_report_from_while_the_daemon_was_down_is_news(tmp_path: Path) -> None:
    rig = Rig(tmp_path, position=FIRST_SEQ - 1, began_seq=FIRST_SEQ - 1)
    rig.write(*LINES)
    rig.read_at(KILL_USEC + 100)
    rig.watch.catch_up_done()
    rig.watch.flush()
    assert [(c.historical, c.at) for c in rig.captures] == [(False, None)]
    assert rig.named_at == [None]
    rig.close()


def test_the_rest_of_a_stored_report_is_not_another_one(tmp_path: Path) -> None:
    last = FIRST_SEQ + len(LINES) - 1
    rig = Rig(tmp_path, position=last, began_seq=0)
    rig.write(*LINES[8:])  # the ring lost the beginning
    rig.read_at(KILL_USEC)
    rig.watch.catch_up_done()
    rig.read_at(KILL_USEC + 6_000_000)
    assert rig.captures == []
    again = [re.sub(r"^(\d),(\d+),", lambda m: f"{m[1]},{int(m[2]) + 100},", line) for line in LINES]
    rig.write(*again)
    rig.watch.read()
    rig.watch.flush()
    assert [c.first_seq for c in rig.captures] == [FIRST_SEQ + 100]
    rig.close()


def test_lost_and_forged_records_are_counted(rig: Rig) -> None:
    rig.usec = REPORT_USEC
    rig.watch.catch_up_done()
    rig.write("6,100,71042000,-;something", *LINES[:5], *LINES[8:])
    rig.write(f"12,{FIRST_SEQ + len(LINES)},71044100,-;Out of memory: Killed process 1 (init) total-vm:1kB")
    rig.read_at(KILL_USEC + 200_000)
    assert metric(rig.metrics, "oomwatchd_kmsg_lost_records_total") == FIRST_SEQ - 101 + 3
    assert metric(rig.metrics, "oomwatchd_kmsg_forged_records_total") == 1
    assert metric(rig.metrics, "oomwatchd_kmsg_records_total") == len(LINES) - 3 + 2
    assert [(c.lost_records, conclude(c).event.kills) for c in rig.captures] == [(3, 1)]


def test_what_one_bite_leaves_is_read_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's descriptor tells of news, not of what was left of them."""
    monkeypatch.setattr("oomwatchd.sources.kmsg.BITE_RECORDS", 16)
    rig.write(*LINES)
    rig.read_at(KILL_USEC)
    rig.watch.catch_up_done()
    needed = {"watch": rig.watch, "notifier": SimpleNamespace(watchdog_seconds=None)}
    parts: Any = SimpleNamespace(**(dict.fromkeys(Parts._fields) | needed))
    loop = Loop(parts)
    rig.read_at(KILL_USEC + 6_000_000)
    assert loop.timeout() > 1.0
    rig.write(*(shifted(line, FIRST_SEQ + 100 + n, KILL_USEC + 7_000_000) for n, line in enumerate(LINES)))
    assert rig.watch.read() is False
    assert loop.timeout() == 0.0


def test_an_error_costs_one_step_and_not_the_watch(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No known input makes the assembler raise. The test checks that such an input would do no further
    harm."""
    feed = Assembler.feed

    def fails_on_bad(self: Assembler, item: KmsgRecord | KmsgGap) -> list[Signal]:
        if isinstance(item, KmsgRecord) and item.text == "bad":
            raise ZeroDivisionError
        return feed(self, item)

    monkeypatch.setattr(Assembler, "feed", fails_on_bad)
    rig.usec = REPORT_USEC - 1000
    rig.watch.catch_up_done()
    rig.write(f"6,{FIRST_SEQ - 2},{REPORT_USEC},-;bad", f"6,{FIRST_SEQ - 1},{REPORT_USEC},-;bad", *LINES)
    rig.read_at(KILL_USEC + 200_000)
    assert [conclude(capture).event.kills for capture in rig.captures] == [1]
    assert len([r for r in caplog.records if r.getMessage().startswith("the watch failed")]) == 1
    assert metric(rig.metrics, "oomwatchd_internal_errors_total") == 2


def test_an_error_in_a_run_costs_the_run_and_not_the_watch(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(Assembler, "take_run", fails)
    rig.usec = REPORT_USEC - 1000
    rig.watch.catch_up_done()
    rig.write(*LINES)
    rig.read_at(KILL_USEC + 200_000)
    assert sum(conclude(capture).event.kills for capture in rig.captures) == 1
    assert metric(rig.metrics, "oomwatchd_internal_errors_total") >= len(LINES)


@pytest.mark.parametrize(
    ("comm", "late_usec", "known"),
    [(VICTIM_COMM, 0, True), (None, 1_900_000, True), (None, FORESEEN_USEC + 1, False), ("other", 0, False)],
)
def test_a_victim_that_another_witness_names_is_looked_at_before_the_log_does(
    rig: Rig, comm: str | None, late_usec: int, known: bool
) -> None:
    """Until its kill line is read it may be gone, and its number another's."""
    rig.usec = KILL_USEC - 50
    rig.watch.catch_up_done()
    rig.watch.foresee(VICTIM_PID, comm)
    for file in ("comm", "cgroup"):
        (rig.root / str(VICTIM_PID) / file).unlink()
    rig.write(*LINES)
    rig.read_at(KILL_USEC - 50 + late_usec)
    rig.read_at(KILL_USEC + late_usec + 400)
    (capture,) = rig.captures
    assert [(facts.pid, facts.comm) for facts in capture.processes] == [(VICTIM_PID, VICTIM_COMM)]
    assert capture.processes[0].cgroup == ("/cs" if known else None)
    assert metric(rig.metrics, "oomwatchd_victim_looks_total", found="readable" if known else "gone") == 1


def test_the_kernels_count_is_not_taken_from_before_the_kill(rig: Rig) -> None:
    """The line before the kill line names the victim, and a look at the machine then has not its kill."""
    rig.usec = KILL_USEC - 2000
    rig.watch.catch_up_done()
    last = next(n for n, line in enumerate(LINES) if "Killed process" in line)
    rig.write(*LINES[:last])
    rig.read_at(KILL_USEC - 100)
    (rig.root / "vmstat").write_text("oom_kill 8\n")
    rig.write(LINES[last])
    rig.read_at(KILL_USEC + 400)
    assert len(rig.captures) == 1 and rig.captures[0].at is not None
    assert "oom_kill 7" in rig.captures[0].at.parts["vmstat"]
    assert rig.metrics.kills_now()[0] == 8


def test_the_kernels_count_never_falls() -> None:
    metrics = Metrics()
    for count in (3, 5, 4, 5):
        metrics.kernel_kills(count)
    assert metrics.kills_now()[0] == 5


def test_a_look_that_fails_costs_no_mark(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("oomwatchd.daemon.evidence.look_at", fails)
    rig.watch.foresee(VICTIM_PID, VICTIM_COMM)
    assert metric(rig.metrics, "oomwatchd_internal_errors_total") == 1


def test_a_report_is_awaited_while_its_lines_come(rig: Rig) -> None:
    rig.usec = REPORT_USEC - 1000
    rig.watch.catch_up_done()
    assert not rig.watch.is_in_report(2000)
    rig.write(*LINES[:5])
    rig.read_at(REPORT_USEC + 500)
    assert rig.watch.is_in_report(2000)
    rig.usec += 2000
    assert not rig.watch.is_in_report(2000)
    rig.write(*LINES[5:])
    rig.read_at(KILL_USEC + 400)
    assert not rig.watch.is_in_report(1 << 40)


def test_a_victim_foreseen_under_another_name_is_looked_at_again(rig: Rig) -> None:
    rig.usec = KILL_USEC - 50
    rig.watch.catch_up_done()
    directory = rig.root / str(VICTIM_PID)
    (directory / "comm").write_text("before\n")
    (directory / "cgroup").write_text("0::/before\n")
    rig.watch.foresee(VICTIM_PID, None)
    (directory / "comm").write_text(VICTIM_COMM + "\n")
    (directory / "cgroup").write_text("0::/cs\n")
    rig.write(*LINES)
    rig.read_at(KILL_USEC + 400)
    assert [facts.cgroup for facts in rig.captures[0].processes] == ["/cs"]


def test_an_assembler_that_fails_is_replaced_and_what_it_had_is_kept(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose state is broken would fail with each record, and when it is asked what is due."""
    feed, tick = Assembler.feed, Assembler.tick
    broken = set[Assembler]()

    def breaks(self: Assembler, item: KmsgRecord | KmsgGap) -> list[Signal]:
        if isinstance(item, KmsgRecord) and item.text == "bad":
            broken.add(self)
        if self in broken:
            raise KeyError
        return feed(self, item)

    def fails_if_broken(self: Assembler, usec: int) -> list[Signal]:
        if self in broken:
            raise KeyError
        return tick(self, usec)

    monkeypatch.setattr(Assembler, "feed", breaks)
    monkeypatch.setattr(Assembler, "tick", fails_if_broken)
    rig.usec = REPORT_USEC - 1000
    rig.watch.catch_up_done()
    last = FIRST_SEQ + len(LINES)
    again = [re.sub(r"^(\d),(\d+),", lambda m: f"{m[1]},{int(m[2]) + 100},", line) for line in LINES]
    rig.write(*LINES, f"6,{last},{KILL_USEC + 1},-;bad", *again)
    rig.read_at(KILL_USEC + 1000)
    rig.read_at(KILL_USEC + 200_000)
    assert [(c.first_seq, conclude(c).event.kills) for c in rig.captures] == [
        (FIRST_SEQ, 1),
        (FIRST_SEQ + 100, 1),
    ]
    assert metric(rig.metrics, "oomwatchd_internal_errors_total") == 1


def test_one_look_serves_reports_that_begin_together(rig: Rig) -> None:
    rig.usec = REPORT_USEC - 1000
    rig.watch.catch_up_done()
    for number in range(3):
        seq, pid = 100 + number, 900 + number
        kill = (
            f"Out of memory: Killed process {pid} (a) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB"
        )
        rig.write(f"3,{seq},{REPORT_USEC + number},-;{kill}")
    rig.read_at(REPORT_USEC + 100)
    rig.watch.flush()
    assert len(rig.captures) == 3
    assert all(c.at is rig.captures[0].at and c.at is not None for c in rig.captures)


# -- the patient half ----------------------------------------------------------------------------------


def settings(directory: Path, jsonl: Path | str = "") -> Config:
    document = {
        "state_directory": str(directory),
        "sinks": {"jsonl": {"path": str(jsonl)}, "journal": {"enabled": False}},
    }
    return parse(document, "test")


def a_capture(number: int = 0) -> OomCapture:
    records = [record for line in LINES if (record := parse_record(line.encode()))]
    moved = tuple(msgspec.structs.replace(record, seq=(record.seq or 0) + 100 * number) for record in records)
    source = Source(kind="kmsg", form="kmsg", boot_id=BOOT_ID)
    return OomCapture(source=source, records=moved, first_seq=moved[0].seq, last_seq=moved[-1].seq)


def kills_stored(directory: Path) -> list[int]:
    store = Store.open_reader(directory)
    try:
        return [row.kills for row in store.list(limit=100_000)]
    finally:
        store.close()


def test_the_worker_stores_counts_and_hands_out(tmp_path: Path) -> None:
    metrics, seen = Metrics(), list[OomEvent]()
    patient = Worker(settings(tmp_path, tmp_path / "events.jsonl"), metrics, seen.append, clock=lambda: 10.0)
    patient.open()
    patient.start()
    patient.submit(a_capture(), 7.5)
    patient.submit(msgspec.structs.replace(a_capture(), revision=1, settled=True), 7.5)
    patient.submit(msgspec.structs.replace(a_capture(1), historical=True, settled=True), None)
    assert patient.stop(10)
    assert len(seen) == 1  # later revisions and history are stored, not told
    assert seen[0].time.detection_latency_seconds == 2.5
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 1
    assert kills_stored(tmp_path) == [1, 1]
    assert metric(metrics, "oomwatchd_oom_kills_total", constraint="cpuset") == 1
    assert metric(metrics, "oomwatchd_detection_latency_seconds_sum") == 2.5
    [row] = [row for row in Store.open_reader(tmp_path).list() if not row.historical]
    assert row.settled


def test_the_time_before_that_cannot_be_told_costs_no_kill(tmp_path: Path) -> None:
    def fails() -> Before:
        raise ZeroDivisionError

    mark = Mark(usec=1, wall=1.0, kind="swap_on", name="sda2")
    metrics, seen = Metrics(), list[OomEvent]()
    patient = Worker(settings(tmp_path), metrics, seen.append)
    patient.open()
    patient.start()
    patient.submit(a_capture(), None, fails)
    patient.submit(a_capture(1), None, lambda: Before(marks=(mark,)))
    assert patient.stop(10)
    assert kills_stored(tmp_path) == [1, 1]
    assert metric(metrics, "oomwatchd_internal_errors_total") == 1
    with contextlib.closing(Store.open_reader(tmp_path)) as store:
        stored = [store.get(row.id) for row in store.list()]
    assert {capture.marks for capture in stored if capture is not None} == {(), (mark,)}


def test_why_a_containers_name_is_not_known_is_told_with_the_kill(tmp_path: Path) -> None:
    """Docker's files are root's, and there is no helper to read them."""
    metrics, seen = Metrics(), list[OomEvent]()
    names = ContainerNames(tmp_path / "host", tmp_path / "proc")
    path = f"/docker/{'ab' * 32}"
    names.learn([path])
    names.wait()
    patient = Worker(settings(tmp_path), metrics, seen.append, names=names)
    patient.open()
    patient.start()
    lines = [line.replace("task_memcg=/cs", f"task_memcg={path}").encode() for line in LINES]
    records = tuple(record for line in lines if (record := parse_record(line)))
    patient.submit(msgspec.structs.replace(a_capture(), records=records), None)
    assert patient.stop(10)
    [whose] = [one for one in seen[0].attribution if one.role == "victim"]
    assert whose.container_name is None
    assert whose.container_unnamed == (
        f"{tmp_path}/host/run/oomwatchd-names.socket: No such file or directory; "
        "oomwatchd doctor says how to mend it"
    )
    assert f"in container abababababab (name unknown: {tmp_path}/host/run/" in died(seen[0])


def test_what_cannot_be_added_to_a_report_costs_no_kill(tmp_path: Path) -> None:
    class Failing(LiveFacts):
        def added_to(self, capture: OomCapture) -> OomCapture:
            raise IndexError

    class Nameless(ContainerNames):
        def with_names(self, capture: OomCapture) -> OomCapture:
            raise ValueError

    metrics, seen = Metrics(), list[OomEvent]()
    facts = Failing(Holders(Host()), None, 4096)
    patient = Worker(settings(tmp_path), metrics, seen.append, live_facts=facts, names=Nameless())
    patient.open()
    patient.start()
    patient.submit(a_capture(), None)
    assert patient.stop(10)
    assert kills_stored(tmp_path) == [1] and len(seen) == 1
    assert metric(metrics, "oomwatchd_internal_errors_total") == 2


def test_a_full_room_costs_detail_and_no_kill(tmp_path: Path) -> None:
    metrics = Metrics()
    patient = Worker(settings(tmp_path), metrics, lambda _: None)
    patient.open()
    for number in range(FULL_CAPTURES + 5):  # nobody serves yet
        patient.submit(a_capture(number), None)
        patient.submit(msgspec.structs.replace(a_capture(number), revision=1, settled=True), None)
    assert metric(metrics, "oomwatchd_queue_overflow_total") == 5
    assert metric(metrics, "oomwatchd_queue_depth") == FULL_CAPTURES + 5
    patient.start()
    assert patient.stop(30)
    assert kills_stored(tmp_path) == [1] * (FULL_CAPTURES + 5)
    assert metric(metrics, "oomwatchd_oom_kills_total", constraint="cpuset") == FULL_CAPTURES + 5


def test_even_the_room_for_the_cut_down_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "CUT_CAPTURES", FULL_CAPTURES + 2)
    metrics = Metrics()
    patient = Worker(settings(tmp_path), metrics, lambda _: None)
    for number in range(FULL_CAPTURES + 5):
        patient.submit(a_capture(number), None)
    assert (patient.waiting, patient.dropped) == (FULL_CAPTURES + 2, 3)
    assert metric(metrics, "oomwatchd_queue_dropped_total") == 3


def test_a_cut_down_capture_still_says_who_died_where_and_why() -> None:
    whole = a_capture()
    cut = cut_down(whole)
    assert len(cut.records) < 10
    before, after = conclude(whole).event, conclude(cut).event
    assert (after.id, after.kills, after.constraint) == (before.id, before.kills, before.constraint)
    assert after.victims == before.victims
    assert after.trigger.comm == before.trigger.comm


def test_without_a_usable_directory_events_live_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    metrics, seen = Metrics(), list[OomEvent]()
    patient = Worker(settings(tmp_path / "file"), metrics, seen.append)
    patient.open()
    patient.start()
    patient.submit(a_capture(), None)
    assert patient.stop(10)
    assert len(seen) == 1
    assert metric(metrics, "oomwatchd_store_up") == 0
    assert [r.getMessage() for r in caplog.records if "in memory only" in r.getMessage()]


def test_a_sink_that_fails_is_counted_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(sinks=("jsonl",))
    patient = Worker(settings(tmp_path, "/dev/full"), metrics, lambda _: None)
    patient.open()
    patient.start()
    for number in range(3):
        patient.submit(a_capture(number), None)
    assert patient.stop(10)
    assert metric(metrics, "oomwatchd_sink_failures_total", sink="jsonl") == 3
    assert kills_stored(tmp_path) == [1, 1, 1]
    assert len([r for r in caplog.records if r.getMessage().startswith("sink jsonl failed")]) == 1


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def storm_lines(count: int) -> list[str]:
    """Reports without a victim, one a millisecond."""
    lines = []
    for n in range(count):
        for offset, text in enumerate(
            (
                "x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=-1000",
                "CPU: 1 PID: 7 Comm: x Not tainted 6.1.0 #1",
                "Memory cgroup stats for /adj:",
                "Out of memory and no killable processes...",
            )
        ):
            lines.append(f"4,{n * 4 + offset},{1_000_000 + n * 1000},-;{text}")
    return lines


def test_a_storm_without_victims_is_one_event_that_counts_each_report(tmp_path: Path) -> None:
    rig, seen = Rig(tmp_path), list[OomEvent]()
    state = tmp_path / "state"
    patient = Worker(settings(state, tmp_path / "events.jsonl"), rig.metrics, seen.append)
    patient.open()
    rig.usec = 999_000
    rig.watch.catch_up_done()
    lines = storm_lines(500)
    for n in range(0, len(lines), 100):
        rig.write(*lines[n : n + 100])
        rig.read_at(1_000_000 + (n + 100) // 4 * 1000)
    rig.read_at(20_000_000)
    rig.read_at(40_000_000)
    assert len(rig.captures) <= 3
    patient.start()
    for capture, named_at in zip(rig.captures, rig.named_at, strict=True):
        patient.submit(capture, named_at)
        wait_until(lambda: patient.idle)
    assert patient.stop(10)
    rig.close()
    events = list(seen)
    assert [(event.repeats, event.revision) for event in events] == [(0, 0), (499, events[-1].revision)]
    assert events[0].id == events[1].id
    assert metric(rig.metrics, "oomwatchd_oom_events_total", kind="oom_no_victim", constraint="memcg") == 500
    with contextlib.closing(Store.open_reader(state)) as store:
        [row] = store.list()
        assert (row.last_seq, row.kills) == (1999, 0)
        stored = store.get(row.id)
    assert stored is not None and stored.repeats == 499

    # a restart reads the same ring again: nothing of it is new
    again = Metrics()
    other = Worker(settings(state), again, seen.append)
    other.open()
    other.start()
    (tmp_path / "2").mkdir()
    earlier = other.earlier(BOOT_ID)
    second = Rig(tmp_path / "2", position=earlier.position(), began_seq=-1, covered=earlier.covered())
    for n in range(800, len(lines), 100):
        second.write(*lines[n : n + 100])
        second.read_at(41_000_000)
    second.watch.catch_up_done()
    second.read_at(60_000_000)
    assert second.captures == []
    second.close()
    assert other.stop(10)


def test_a_clock_set_back_costs_nothing(tmp_path: Path) -> None:
    """An hour back between two reports: both are stored with the wall time of their reading, none is
    deleted, and what was told of the first does not change."""
    rig = Rig(tmp_path)
    patient = Worker(settings(tmp_path / "state"), rig.metrics, lambda _: None)
    patient.open()
    patient.start()
    rig.usec = REPORT_USEC - 1000
    rig.watch.catch_up_done()
    rig.write(*LINES)
    rig.read_at(KILL_USEC + 100_000)
    rig.wall_shift = -3600.0
    rig.read_at(KILL_USEC + 6_000_000)  # the revision that settles the first
    later = [shifted(line, 1000, 10_000_000) for line in LINES]
    rig.write(*later)
    rig.read_at(KILL_USEC + 10_100_000)
    rig.read_at(KILL_USEC + 20_000_000)
    for capture, named_at in zip(rig.captures, rig.named_at, strict=True):
        patient.submit(capture, named_at)
        wait_until(lambda: patient.idle)
    assert patient.stop(10)
    rig.close()
    with contextlib.closing(Store.open_reader(tmp_path / "state")) as store:
        first, second = sorted(store.list(), key=lambda row: row.first_seq or 0)
    assert (first.kills, second.kills) == (1, 1)
    assert first.wall - 1_000_000.0 == pytest.approx(REPORT_USEC / 1e6, abs=0.001)
    assert second.wall - first.wall == pytest.approx(10 - 3600, abs=0.001)
    assert metric(rig.metrics, "oomwatchd_oom_kills_total", constraint="cpuset") == 2


def shifted(line: str, seq: int, usec: int) -> str:
    """The same record, later."""
    priority, number, stamp, rest = line.split(",", 3)
    return f"{priority},{int(number) + seq},{int(stamp) + usec},{rest}"


def test_a_revision_with_more_kills_is_told_again(tmp_path: Path) -> None:
    seen = list[OomEvent]()
    patient = Worker(settings(tmp_path), Metrics(), seen.append)
    patient.open()
    patient.start()
    first = a_capture()
    last = first.records[-1]
    more = msgspec.structs.replace(
        last, seq=(last.seq or 0) + 1, text=last.text.replace(str(VICTIM_PID), "544")
    )
    for capture in (
        first,
        msgspec.structs.replace(first, records=(*first.records, more), last_seq=more.seq, revision=1),
        msgspec.structs.replace(
            first, records=(*first.records, more), last_seq=more.seq, revision=2, settled=True
        ),
    ):
        patient.submit(capture, None)
        wait_until(lambda: patient.idle)
    assert patient.stop(10)
    assert [(event.kills, event.revision) for event in seen] == [(1, 0), (2, 1)]
    assert seen[0].id == seen[1].id


def test_a_report_that_cannot_be_explained_is_stored_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("oomwatchd.event.decode", broken)
    metrics, seen = Metrics(), list[OomEvent]()
    patient = Worker(settings(tmp_path, tmp_path / "events.jsonl"), metrics, seen.append)
    patient.open()
    patient.start()
    patient.submit(a_capture(), None)
    patient.submit(a_capture(1), None)
    assert patient.stop(10)
    assert kills_stored(tmp_path) == [1, 1]
    assert metric(metrics, "oomwatchd_oom_kills_total", constraint="unknown") == 2
    assert [v.comm for event in seen for v in event.victims] == [VICTIM_COMM] * 2
    assert caplog.text.count("explaining a report failed: ZeroDivisionError: a fault of ours") == 1
    with contextlib.closing(Store.open_reader(tmp_path)) as store:
        captures = list(store.export())
    assert [conclude(c).event.kills for c in captures] == [1, 1]  # a mended version explains them


def test_a_failure_in_the_worker_does_not_end_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: OomEvent) -> None:
        raise ZeroDivisionError("oops")

    patient = Worker(settings(tmp_path), Metrics(), fail)
    patient.open()
    patient.start()
    patient.submit(a_capture(0), None)
    patient.submit(a_capture(1), None)
    assert patient.stop(10)
    assert kills_stored(tmp_path) == [1, 1]
    failures = [r.getMessage() for r in caplog.records if "the worker failed" in r.getMessage()]
    assert failures == ["the worker failed: ZeroDivisionError: oops (logged once, counted from now on)"]


# -- the service manager -------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_word_to_the_service_manager(tmp_path: Path, abstract: bool) -> None:
    name = f"\0oomwatchd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(5)
        notify = Notifier({"NOTIFY_SOCKET": name.replace("\0", "@"), "WATCHDOG_USEC": "60000000"})
        assert notify("READY=1", "STATUS=evil\nSTOPPING=1")
        assert manager.recv(4096) == b"READY=1\nSTATUS=evil\\x0aSTOPPING=1"
        assert notify.watchdog_seconds == 30.0
        while notify("WATCHDOG=1"):  # until the manager's queue is full: refused, never waited for
            pass
        notify.close()
        assert not notify("READY=1")


def test_without_a_service_manager_nothing_is_said() -> None:
    notify = Notifier({})
    assert not notify("READY=1")
    assert notify.watchdog_seconds is None
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog_seconds is None


def test_passed_descriptors_are_known_by_name() -> None:
    script = (
        "import os; from oomwatchd.notify import take_descriptors\n"
        "for n in (3, 4, 5): os.dup2(0, n)\n"
        "env = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '3', 'LISTEN_FDNAMES': 'http:kmsg:http'}\n"
        "print(take_descriptors(env), env, [os.get_inheritable(n) for n in (3, 4, 5)])\n"
        "print(take_descriptors({'LISTEN_PID': '1', 'LISTEN_FDS': '3'}))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "{'http': [3, 5], 'kmsg': [4]} {} [False, False, False]\n{}\n"


def test_a_passed_descriptor_that_is_not_there_is_one_clear_line() -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "99999999", "LISTEN_FDNAMES": "kmsg"}
    with pytest.raises(UnavailableError, match=r"passed descriptor \d+ of 99999999: Bad file descriptor; "):
        take_descriptors(environ)


# -- the log -------------------------------------------------------------------------------------------


def record(message: str, *args: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("oomwatchd", level, "", 0, message, args, None)


def test_log_lines_are_harmless_and_carry_their_priority_for_the_journal() -> None:
    reading, writing = os.pipe()
    status = os.fstat(writing)
    environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    StderrHandler(writing, environ).emit(record("died: %s", "a\n<0>\x1b[31mb%s"))
    # inherited from a parent that writes to the journal
    StderrHandler(writing, {"JOURNAL_STREAM": "8:1"}).emit(record("plain", level=logging.INFO))
    StderrHandler(writing, {}).emit(record("x" * 5000))
    text = os.read(reading, 65536).decode()
    os.close(reading)
    os.close(writing)
    first, second, third = text.splitlines()
    assert first == "<4>died: a\\x0a<0>\\x1b[31mb%s"
    assert second == "oomwatchd: info: plain"
    assert len(third) == LINE_BYTES - 1


def test_a_reader_of_the_log_that_hangs_stops_nothing() -> None:
    reading, writing = os.pipe()
    handler = StderrHandler(writing, {})
    while handler.dropped < 3:  # would never return if a write waited
        handler.emit(record("x" * 1000))
    os.set_blocking(reading, False)
    with contextlib.suppress(BlockingIOError):
        while os.read(reading, 65536):
            pass
    handler.emit(record("again"))
    assert os.read(reading, 4096).decode().splitlines() == [
        "oomwatchd: warning: 3 log lines dropped: standard error did not take them",
        "oomwatchd: warning: again",
    ]
    os.close(reading)
    handler.emit(record("to nobody"))  # EPIPE
    assert handler.dropped == 1
    os.close(writing)


def test_a_file_that_fails_is_named_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    OncePerKind(logging.getLogger("x")).failed("writing it", FileNotFoundError(2, "No such file", "/a/\x1bb"))
    assert "writing it failed: /a/\\x1bb: No such file (logged once, counted from now on)" in caplog.text


def test_a_failure_is_said_once_until_it_was_well_again(caplog: pytest.LogCaptureFixture) -> None:
    failures = OncePerKind(logging.getLogger("test"))
    for error in (OSError("a"), OSError("b"), ValueError("c")):
        failures.failed("disk", error)
    assert failures.counts == {("disk", "OSError"): 2, ("disk", "ValueError"): 1}
    assert len(caplog.records) == 2
    failures.well("disk")
    failures.failed("disk", OSError("d"))
    assert len(caplog.records) == 3


# -- self-protection -----------------------------------------------------------------------------------


def test_the_sample_report_is_understood() -> None:
    protect.warm_up()
    records = [found for line in LINES if (found := parse_record(line.encode()))]
    assert all(isinstance(found, KmsgRecord) for found in records)
    assert len(records) == len(LINES)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other heaps")
def test_threads_share_one_heap_and_no_huge_pages_come() -> None:
    program = """
import re, threading
from pathlib import Path
from oomwatchd.daemon.protect import keep_small

def status(name):
    return int(re.search(rf"^{name}:\\s+(\\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1])

keep_small()
threading.stack_size(256 * 1024)
before, over = status("VmSize"), threading.Event()
for _ in range(4):
    threading.Thread(target=lambda: (bytearray(100_000), over.wait()), daemon=True).start()
print(status("VmSize") - before < 32 * 1024, status("THP_enabled"))
over.set()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "0"]


def test_under_a_limit_memory_is_not_locked() -> None:
    """A limit would make later allocations fail; with an unprivileged user nothing lifts it."""
    script = (
        "import os, resource; from oomwatchd.daemon.protect import lock_memory\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 22, 1 << 22)); os.setuid(65534)\n"
        "print(lock_memory())\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "the limit on locked memory is too low (LimitMEMLOCK=infinity mends it)\n"


# -- the whole, on real kills --------------------------------------------------------------------------


RUN = "import sys; from oomwatchd.cli import main; sys.exit(main())"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Running:
    """The daemon as a process, with its configuration and what it said."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory
        self.config = directory / "config.toml"
        self.log = directory / "log"
        self.port = port or free_port()
        self.configure()

    def start(
        self, before: str = "", environ: dict[str, str] | None = None, fds: tuple[int, ...] = ()
    ) -> None:
        """Run it; ``before`` is Python that runs first in the same process."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", before + RUN, "run", "--config", str(self.config)],
                stderr=log,
                env={**os.environ, **(environ or {})},
                pass_fds=fds,
            )

    def configure(self, more: str = "") -> None:
        self.config.write_text(
            f'state_directory = "{self.directory}/state"\n{more}\n'
            f'[http]\nlisten = "127.0.0.1:{self.port}"\n'
            f'[sinks.jsonl]\npath = "{self.directory}/events.jsonl"\n'
        )

    def get(self, path: str) -> tuple[int, str]:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else float("nan")

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Wait until the condition holds; fails with the daemon's log if it never does."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                pytest.fail(f"not reached; the daemon said:\n{self.log.read_text()}")
            time.sleep(0.02)

    def ready(self) -> bool:
        return self.get("/-/ready")[0] == 200

    def events(self, comm: str) -> list[dict[str, Any]]:
        file = self.directory / "events.jsonl"
        text = file.read_text() if file.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()  # the last may be half written
        return [
            event
            for event in (msgspec.json.decode(line) for line in lines)
            if any(killed["comm"] == comm for killed in event["victims"])
        ]

    def stored(self, comm: str) -> list[OomCapture]:
        store = Store.open_reader(self.directory / "state")
        try:
            return [c for c in store.export() if any(v.comm == comm for v in conclude(c).event.victims)]
        finally:
            store.close()

    def told(self) -> bool:
        """The position of this host's sinks is saved: after a kill -9 nothing is sent again."""
        with contextlib.closing(Store.open_reader(self.directory / "state")) as store:
            return not store.undelivered(1)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Running]:
    """The daemon, not started; ended whatever happens."""
    made = Running(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()


KILLS = 'oomwatchd_oom_kills_total{constraint="memcg"}'


def kill_one() -> tuple[int, str, str]:
    with victim() as child:
        child.exceed()
        child.wait(20)
        return child.pid, child.comm, child.cgroup


@pytest.mark.oom
def test_a_real_kill_reaches_store_sink_and_metrics(daemon: Running) -> None:
    daemon.start()
    daemon.until(daemon.ready)
    before = daemon.metric(KILLS)
    pid, comm, cgroup = kill_one()
    daemon.until(lambda: daemon.events(comm))
    [event] = daemon.events(comm)
    assert event["kills"] == 1 and event["historical"] is False
    # the kernel prints ten headers in 5 s, whosever kills these are
    rationed = "header" in event["missing"]
    assert event["complete"] is not rationed
    assert daemon.metric(KILLS) >= before + 1
    assert daemon.metric("oomwatchd_kmsg_up") == 1
    daemon.until(lambda: daemon.stored(comm)[0].settled)
    [capture] = daemon.stored(comm)
    if not rationed:
        assert capture.at is not None and capture.after is not None
        assert set(capture.at.parts) >= {"meminfo", "zoneinfo", "buddyinfo", "vmstat"}
        # the settled revision, which is stored, has what was looked at for the first, too
        assert set(capture.at.parts) >= {"sysctl", "cmdline", "init"}
        assert capture.at.wall <= (capture.detected or 0) < capture.after.wall
    assert capture.detection_latency_seconds is not None and 0 < capture.detection_latency_seconds < 5
    [process] = capture.processes or [None]
    if process is not None:  # unless it was gone from /proc before the daemon came to look
        assert (process.pid, process.comm) == (pid, comm)
        assert process.cgroup in (cgroup, None)
    daemon.until(lambda: daemon.metric("oomwatchd_oom_kills_unaccounted") == 0)
    locked = re.search(r"VmLck:\s+(\d+)", Path(f"/proc/{daemon.process.pid}/status").read_text())
    assert locked is not None and int(locked[1]) > 0
    assert daemon.end() == 0


@pytest.mark.oom
def test_an_event_stands_in_the_journal_once(daemon: Running, tmp_path: Path) -> None:
    """When both standard error and the journal sink lead there."""
    path = tmp_path / "journal"
    sink = f'[sinks.journal]\nsocket = "{path}"\n'
    daemon.config.write_text(daemon.config.read_text() + sink)
    before = (
        "import os; status = os.fstat(2)\nos.environ['JOURNAL_STREAM'] = f'{status.st_dev}:{status.st_ino}'\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        journal.settimeout(15)
        daemon.start(before)
        daemon.until(daemon.ready)
        _, comm, _ = kill_one()
        while f"OOM_VICTIM_COMM={comm}\n".encode() not in journal.recv(1 << 20):
            pass
        assert daemon.end() == 0
    said = daemon.log.read_text()
    assert "<6>SIGTERM: ending" in said
    assert comm not in said


@pytest.mark.oom
def test_a_restart_doubles_nothing_and_misses_nothing(daemon: Running) -> None:
    daemon.start()
    daemon.until(daemon.ready)
    _, seen, _ = kill_one()
    daemon.until(lambda: daemon.events(seen))
    daemon.until(daemon.told)
    before = daemon.metric(KILLS)
    daemon.process.kill()
    daemon.process.wait()
    _, missed, _ = kill_one()  # nobody watches
    daemon.start()
    daemon.until(daemon.ready)
    daemon.until(lambda: daemon.events(missed))
    assert (len(daemon.events(seen)), len(daemon.events(missed))) == (1, 1)
    assert (len(daemon.stored(seen)), len(daemon.stored(missed))) == (1, 1)
    [event] = daemon.events(missed)
    assert event["historical"] is False
    assert daemon.metric(KILLS) >= before + 1
    daemon.until(lambda: daemon.metric("oomwatchd_oom_kills_unaccounted") == 0)
    assert daemon.end() == 0


@pytest.mark.oom
def test_under_a_service_manager(daemon: Running, tmp_path: Path) -> None:
    """The kernel log and the listener are passed, as the socket units do; READY, WATCHDOG, STOPPING."""
    log = os.open("/dev/kmsg", os.O_RDONLY)
    listener = socket.create_server(("127.0.0.1", 0))
    daemon.port = int(listener.getsockname()[1])
    daemon.configure('[kmsg]\ndevice = "/nonexistent"')
    address = str(tmp_path / "notify")
    with listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(15)
        before = (
            f"import os; os.dup2({log}, 60); os.dup2({listener.fileno()}, 3); os.dup2(60, 4)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='http:kmsg')\n"
        )
        environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}
        daemon.start(before, environ, (log, listener.fileno()))
        said: list[bytes] = []

        def hear() -> None:  # at once: what finds the queue full is dropped
            while said[-1:] != [b"STOPPING=1"]:
                said.append(manager.recv(4096))

        manager_reads = threading.Thread(target=hear, daemon=True)
        manager_reads.start()
        daemon.until(lambda: said)
        assert said[0].startswith(b"READY=1\nSTATUS=watching since ")
        assert daemon.ready()
        daemon.until(lambda: b"WATCHDOG=1" in said)
        _, comm, _ = kill_one()
        daemon.until(lambda: daemon.events(comm))
        assert daemon.end() == 0
        manager_reads.join(15)
        assert said[-1] == b"STOPPING=1"
    os.close(log)


def test_a_changed_configuration_is_applied_and_a_wrong_one_is_not(daemon: Running) -> None:
    daemon.start()
    daemon.until(daemon.ready)

    def says(words: str) -> bool:
        return words in daemon.log.read_text()

    daemon.config.write_text("htp = 1")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: says("configuration not changed: "))
    assert says("unknown key htp; did you mean http?")
    assert daemon.ready()
    old = daemon.port
    daemon.port = free_port()
    daemon.configure('[store]\nmax_events = 5\n[capture]\ncommand_line = "off"')
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: says("configuration reloaded; changed: http, capture"))
    daemon.until(lambda: says("these changes need a restart: store"))
    daemon.until(daemon.ready)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", old), 1)
    assert daemon.end() == 0
    assert "Traceback" not in daemon.log.read_text()


def test_addresses_are_added_and_taken_away_while_it_runs(daemon: Running) -> None:
    daemon.start()
    daemon.until(daemon.ready)
    first, second, path = daemon.port, free_port(), daemon.directory / "http"

    def listen(*addresses: str) -> None:
        said = daemon.log.read_text().count("configuration reloaded")
        text = daemon.config.read_text()
        daemon.config.write_text(re.sub("listen = .*", f"listen = {list(addresses)}", text))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until(lambda: daemon.log.read_text().count("configuration reloaded") > said)

    def answers(port: int) -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    listen(f"127.0.0.1:{first}", f"127.0.0.1:{second}")
    assert answers(first) and answers(second)
    listen(f"0.0.0.0:{first}", f"unix:{path}")
    assert answers(first) and path.is_socket()
    daemon.until(lambda: not answers(second))  # the old server ends by itself
    listen(f"unix:{path}", f"127.0.0.1:{second}")
    assert answers(second)
    daemon.until(lambda: not answers(first))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = int(other.getsockname()[1])
        listen(f"127.0.0.1:{taken}", f"127.0.0.1:{second}")
        daemon.until(
            lambda: (
                f"the metrics stay on their old addresses: cannot listen on 127.0.0.1:{taken}"
                in daemon.log.read_text()
            )
        )
        assert answers(second) and path.is_socket()
    daemon.process.send_signal(signal.SIGHUP)  # with the same configuration
    daemon.until(lambda: answers(taken))
    assert daemon.end() == 0


def test_without_the_socket_that_was_passed_a_restart_helps_and_no_reload(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with open(os.devnull, "rb") as no_socket:
        passed = (no_socket.fileno(),)
        nothing: Any = lambda: None  # noqa: E731  # neither state nor store is asked for
        serving = Serving(HttpSection(), Metrics(sinks=()), nothing, nothing, passed)
        serving.start()
        serving.apply(HttpSection())
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("metrics and pages are not served: ") and said.endswith("; a restart tries again")


def test_what_the_sinks_need_is_looked_for_again(daemon: Running) -> None:
    template = daemon.directory / "template"
    daemon.configure(f'[sinks.webhook]\nurl = "http://127.0.0.1:9/"\ntemplate = "{template}"')
    daemon.start()
    daemon.until(daemon.ready)

    def said(words: str) -> int:
        return daemon.log.read_text().count(words)

    assert said("sink webhook cannot work: template") == 1
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: said("sink webhook cannot work: template") == 2)
    template.write_text("{}")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: said("changed: nothing") == 2)
    assert daemon.end() == 0
    assert said("sink webhook cannot work") == 2


def test_sinks_are_opened_anew_by_the_worker_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What closes them may wait for a receiver, and the worker may be in the midst of one."""
    monkeypatch.setattr("oomwatchd.daemon.main.start_logging", lambda _level: None)
    tasks: list[Callable[[], None]] = []
    opened: list[Config] = []
    daemon = SimpleNamespace(
        _settings=SimpleNamespace(level="info"),
        _watch=SimpleNamespace(),
        _recorder=None,
        _worker=SimpleNamespace(later=tasks.append, reopen_sinks=opened.append),
        _front=SimpleNamespace(apply=lambda _new: None),
    )
    new = Config(log_level="debug")
    Daemon._apply(daemon, new)  # type: ignore[arg-type]  # what it needs of one
    assert opened == []
    for task in tasks:
        task()
    assert opened == [new]


def test_the_manager_is_told_that_a_reload_has_ended_whatever_came_of_it() -> None:
    said: list[tuple[str, ...]] = []

    def fails(_new: object) -> None:
        raise RuntimeError

    daemon = SimpleNamespace(
        _settings=Settings(None), _notifier=lambda *words: said.append(words), _apply=fails
    )
    with pytest.raises(RuntimeError):
        Daemon._reload(daemon)  # type: ignore[arg-type]
    assert said[-1] == ("READY=1",)


#: runs before the daemon: of the threads it asks for, those whose name begins so cannot be had
NO_THREAD = """
import threading
start = threading.Thread.start
def refuse(thread):
    if thread.name.startswith({!r}):
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = refuse
"""


@pytest.mark.parametrize("name", ["http", "http-page", "journal", "sink"])
def test_it_watches_without_the_threads_that_it_can_do_without(daemon: Running, name: str) -> None:
    daemon.configure('[sinks.webhook]\nurl = "http://127.0.0.1:9/"')
    daemon.start(NO_THREAD.format(name))
    daemon.until(lambda: "watching since" in daemon.log.read_text())
    assert daemon.log.read_text().count("can't start new thread") == 1
    assert daemon.end() == 0


def test_without_a_worker_it_says_so_and_ends(daemon: Running) -> None:
    daemon.start(NO_THREAD.format("worker"))
    assert daemon.process.wait(60) == 69
    assert "oomwatchd: error: the worker: can't start new thread; raise the limit" in daemon.log.read_text()


@pytest.mark.parametrize("device", [".", "file", "/dev/null"])
def test_what_is_no_kernel_log_is_one_clear_line(tmp_path: Path, device: str) -> None:
    (tmp_path / "file").write_text("4,1,1,-;text\n")
    config = tmp_path / "c.toml"
    config.write_text(
        f'state_directory = "{tmp_path}"\n[http]\nlisten = ""\n[kmsg]\ndevice = "{tmp_path / device}"\n'
        "[sinks.journal]\nenabled = false\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", RUN, "run", "--config", str(config)], capture_output=True, text=True
    )
    assert result.returncode == 69
    assert result.stderr.splitlines()[-1] == (
        f"oomwatchd: {tmp_path / device}: not a kernel log: it cannot be polled; see `device` in [kmsg]"
    )


def test_a_watch_that_cannot_begin_says_why_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        f'state_directory = "{tmp_path}"\n[http]\nlisten = ""\n[kmsg]\ndevice = "/nonexistent"\n'
    )
    result = subprocess.run(
        [sys.executable, "-c", RUN, "run", "--config", str(config)], capture_output=True, text=True
    )
    assert result.returncode == 69
    assert result.stderr.startswith("oomwatchd: /nonexistent: No such file or directory; in a container")
    assert result.stderr.count("\n") == 1


def test_an_address_that_is_taken_does_not_keep_it_from_watching(daemon: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        daemon.port = int(other.getsockname()[1])
        daemon.configure()
        daemon.start()
        refused = f"not served: cannot listen on 127.0.0.1:{daemon.port}"
        daemon.until(lambda: refused in daemon.log.read_text())
        daemon.until(lambda: "watching since" in daemon.log.read_text())
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(daemon.ready)
    assert daemon.end() == 0


def test_sinks_without_a_network_are_named_at_start(daemon: Running) -> None:
    daemon.configure('[sinks.webhook]\nurl = "https://hooks.example/oom"')
    daemon.start("import ctypes; assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET\n")
    daemon.until(lambda: "no network here, which these sinks need: webhook; " in daemon.log.read_text())
    daemon.until(lambda: "watching since" in daemon.log.read_text())
    assert daemon.end() == 0


def test_idle_it_costs_nothing(daemon: Running) -> None:
    # a log of its own, in which nothing stands: others may be killed on this host at any time
    daemon.start(
        "import os, socket\n"
        "log, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "os.dup2(log.fileno(), 3)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='kmsg')\n"
    )
    daemon.until(daemon.ready)
    schedstat = Path(f"/proc/{daemon.process.pid}/schedstat")

    def share_of_a_second() -> float:
        begin, used = time.monotonic(), int(schedstat.read_text().split()[0])
        time.sleep(1.0)  # what is measured is a stretch of time; others may have the log busy in one of them
        return (int(schedstat.read_text().split()[0]) - used) / 1e9 / (time.monotonic() - begin)

    # while cgroups near their limits come and go it looks more often: one quiet second is enough
    daemon.until(lambda: share_of_a_second() < 0.001, seconds=300)
    resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{daemon.process.pid}/status").read_text())
    assert resident is not None and int(resident[1]) < 40 * 1024
    assert daemon.end() == 0


@pytest.mark.oom
def test_a_storm_is_counted_as_the_kernel_counts(daemon: Running) -> None:
    """25 kills at once: the kernel leaves out headers, every kill line is an event."""
    daemon.start()
    daemon.until(daemon.ready)
    before = daemon.metric(KILLS)
    with contextlib.ExitStack() as stack:
        victims = [stack.enter_context(victim()) for _ in range(25)]
        for child in victims:
            child.exceed()
        for child in victims:
            child.wait(30)
        daemon.until(lambda: all(daemon.events(child.comm) for child in victims))
    daemon.until(lambda: daemon.metric("oomwatchd_oom_kills_unaccounted") == 0)
    assert daemon.metric(KILLS) >= before + 25
    for child in victims:
        [event] = daemon.events(child.comm)
        assert event["kills"] == 1
        [capture] = daemon.stored(child.comm)
        for process in capture.processes:  # a lone kill line comes when the victim is on its way out
            assert process.pid == child.pid
            assert process.cgroup in (child.cgroup, None)
    assert daemon.end() == 0
