"""The aftermath: what real journal files say about units and systemd-oomd."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.cgroupfs import Hierarchy
from oomwatchd.config import parse
from oomwatchd.daemon import unit_watch
from oomwatchd.daemon.unit_watch import HOLD_USEC, LISTEN_USEC, MOST_ENTRIES, PAIR_USEC, UnitWatch
from oomwatchd.daemon.worker import Worker
from oomwatchd.diagnosis import oomd
from oomwatchd.errors import UnavailableError
from oomwatchd.event import OomEvent, conclude
from oomwatchd.metrics import Metrics
from oomwatchd.observe.charge import charge_of
from oomwatchd.observe.host import Host
from oomwatchd.records.capture import Mark, OomCapture, ProcessFacts, Snapshot, Source, UnitEntry
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.render.html import render_html
from oomwatchd.render.html.view import view
from oomwatchd.render.terminal import render_text
from oomwatchd.sources.manager import STEPS, KillerLine, ManagerJournal, OomdLine, Said
from oomwatchd.store import EventRow, Store
from tests.journals import REALTIME, TOOLS, Entry, entry, write_journal
from tests.waiting import PATIENCE

BOOT = "b" * 32
OTHER_BOOT = "a" * 32
NUMBERS = {str(step): number for number, step in STEPS.items()}
SECOND = 1_000_000
GIB = 1 << 30
KILL_USEC = 100 * SECOND
UNIT = "leaky.service"
PRESSURE = (
    "Killed /system.slice/web.service due to memory pressure for /system.slice being 67.81% > 50.00% for >"
    " 20s with reclaim activity"
)
TOLD = "web.service: systemd-oomd killed 3 process(es) in this unit."

needs_tools = pytest.mark.skipif(not TOOLS, reason="systemd-journal-remote is not installed")


def manager_entry(
    step: str, unit: str, usec: int, text: str = "", boot: str = BOOT, **fields: bytes
) -> Entry:
    """What process 1 writes of a unit (``log_unit_struct()``)."""
    whole = {
        "MESSAGE_ID": NUMBERS[step].encode(),
        "UNIT": unit.encode(),
        "_PID": b"1",
        "_COMM": b"systemd",
        "_SYSTEMD_UNIT": b"init.scope",
        "_TRANSPORT": b"journal",
    }
    return {**entry((text or f"{unit}: {step}").encode(), boot, usec), **whole, **fields}


def oomd_entry(usec: int, text: str = PRESSURE, boot: str = BOOT, **fields: bytes) -> Entry:
    whole = {"_PID": b"402", "_COMM": b"systemd-oomd", "_SYSTEMD_UNIT": b"systemd-oomd.service"}
    return {**entry(text.encode(), boot, usec), **whole, **fields}


def read_all(journal: ManagerJournal) -> list[Said]:
    found: list[Said] = []
    while True:
        entries, drained = journal.read()
        found += entries
        if drained:
            return found


# -- the entries ---------------------------------------------------------------------------------------


@needs_tools
def test_only_what_the_manager_and_oomd_say_of_this_boot_is_read(tmp_path: Path) -> None:
    entries = [
        manager_entry("failed", UNIT, 5 * SECOND, boot=OTHER_BOOT),
        manager_entry("failed", UNIT, 5 * SECOND, UNIT_RESULT=b"oom-kill"),
        # whoever is not process 1 may claim what it likes
        manager_entry("failed", "forged.service", 6 * SECOND, _PID=b"4711"),
        oomd_entry(7 * SECOND, _SYSTEMD_UNIT=b"evil.service"),
        oomd_entry(8 * SECOND, text="Swap is currently not detected"),
        oomd_entry(9 * SECOND),
        manager_entry("restart_scheduled", UNIT, 10 * SECOND, N_RESTARTS=b"7"),
        manager_entry("exited", UNIT, 11 * SECOND, EXIT_CODE=b"killed", EXIT_STATUS=b"9"),
        entry(b"noise", BOOT, 12 * SECOND, _PID=b"1"),
    ]
    write_journal(tmp_path, sorted(entries, key=lambda one: int(one["__MONOTONIC_TIMESTAMP"])))
    journal = ManagerJournal.open(BOOT, tmp_path)
    found = read_all(journal)
    assert [(one.step, one.unit, one.usec) for one in found if isinstance(one, UnitEntry)] == [
        ("failed", UNIT, 5 * SECOND),
        ("restart_scheduled", UNIT, 10 * SECOND),
        ("exited", UNIT, 11 * SECOND),
    ]
    assert [one.result for one in found if isinstance(one, UnitEntry)] == ["oom-kill", None, "killed 9"]
    assert [one.restarts for one in found if isinstance(one, UnitEntry)] == [None, 7, None]
    (line,) = [one for one in found if isinstance(one, OomdLine)]
    assert (line.usec, line.text) == (9 * SECOND, PRESSURE)
    assert line.wall == pytest.approx((REALTIME + 9 * SECOND) / 1e6)
    # what comes later, into another file, is found at the next reading
    write_journal(tmp_path, [manager_entry("started", UNIT, 20 * SECOND)], "system@later.journal")
    assert [one.usec for one in read_all(journal)] == [20 * SECOND]
    journal.close()


LOCKED = """
import re, sys
from pathlib import Path
from oomwatchd.daemon import protect
from oomwatchd.sources.manager import ManagerJournal
directory, release = sys.argv[1], sys.argv[2] == "release"
assert protect.lock_memory() is None
if not release:
    import oomwatchd.sources.manager as manager
    manager.release_journals = lambda: 0
journal = ManagerJournal.open("b" * 32, Path(directory))
count = 0
while True:
    entries, drained = journal.read()
    count += len(entries)
    if drained: break
maps = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
mine = [one for one in maps if directory in one]
held = [sum(int(re.search(rf"^{name}: +(\\d+)", one, re.M)[1]) for one in mine) for name in ("Rss", "Locked")]
print(count, *held)
"""


@needs_tools
def test_what_is_read_of_the_journal_is_not_kept_in_locked_memory(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs the right to lock memory")

    def entries() -> Iterator[Entry]:
        for n in range(20_000):
            yield entry(b"noise " * 20 + str(n).encode(), BOOT, n * 1000, _PID=b"400")
            if n % 20 == 0:
                yield manager_entry("started", f"u{n % 300}.service", n * 1000)

    write_journal(tmp_path, entries())
    held = {}
    for how in ("keep", "release"):
        done = subprocess.run(
            [sys.executable, "-c", LOCKED, tmp_path, how], capture_output=True, text=True, check=True
        )
        count, resident, locked = map(int, done.stdout.split())
        assert count == 1000
        held[how] = resident, locked
    assert held["release"] == (0, 0)
    assert held["keep"][1] > 2048, "nothing was locked: the check above says nothing"


@given(st.text(max_size=60))
def test_a_cgroup_may_be_called_anything(name: str) -> None:
    path = "/" + name
    text = f"Killed {path} due to memory pressure for / being 60.00% > 50.00% for > 1min 20s with"
    text += " reclaim activity"
    assert oomd.killed_cgroup(text) == path
    assert oomd.summarize(oomd.read([KmsgRecord(text=text)])).isprintable()
    assert oomd.killed_cgroup(name) is None


def test_both_wordings_and_both_reasons() -> None:
    marked = PRESSURE.replace("Killed", "Marked").replace("web.service due", "web.service for killing due")
    for text in (PRESSURE, marked):
        kill = oomd.read([KmsgRecord(text=text), KmsgRecord(text=TOLD)])
        assert (kill.cgroup, kill.unit, kill.slice, kill.processes) == (
            "/system.slice/web.service",
            "web.service",
            "system.slice",
            3,
        )
        assert (kill.reason, kill.watched_cgroup) == ("memory_pressure", "/system.slice")
        assert kill.pressure_ratio == pytest.approx(0.6781)
        assert kill.pressure_limit_ratio == 0.5
    swap = (
        "Killed /a/b.scope due to memory used (7000) / total (8000) and swap used (1900) / total (2000) being"
        " more than 90.00%"
    )
    kill = oomd.read([KmsgRecord(text=swap)])
    assert (kill.reason, kill.swap_used_bytes, kill.swap_total_bytes) == ("swap_used", 1900, 2000)
    assert (kill.memory_used_bytes, kill.memory_total_bytes, kill.processes) == (7000, 8000, None)


# -- the cgroup ----------------------------------------------------------------------------------------


def test_the_charge_of_a_cgroup(tmp_path: Path) -> None:
    directory = tmp_path / "a b"
    directory.mkdir()
    (directory / "memory.current").write_text("4096\n")
    (directory / "memory.max").write_text("max\n")
    charge = charge_of(Hierarchy(str(tmp_path), "", 2), "/a b")
    assert charge is not None
    assert (charge.usage_bytes, charge.limit_bytes) == (4096, None)
    (directory / "memory.max").write_text("8192\n")
    below = charge_of(Hierarchy(str(tmp_path), "/docker/x", 2), "/docker/x/a b")
    assert below is not None and below.limit_bytes == 8192
    for path in ("/gone", "/a b/../a b", "/elsewhere", "/a\0b"):
        assert charge_of(Hierarchy(str(tmp_path), "", 2), path) is None


# -- what is made of them ------------------------------------------------------------------------------


class Rig:
    """An aftermath with a clock that is set; what it serves is kept."""

    def __init__(self, began_usec: int = 0) -> None:
        self.now = KILL_USEC + 5 * SECOND
        self.served: list[OomCapture] = []
        self.aftermath = UnitWatch(
            None, self.served.append, boot_id=BOOT, began_usec=began_usec, clock=lambda: self.now
        )
        self.aftermath.listens = True

    def tick(self, usec: int) -> None:
        self.now = usec
        self.aftermath.tick()


@pytest.fixture
def rig() -> Rig:
    return Rig()


MEMINFO = "MemTotal: 1000000 kB\nMemFree: {free} kB\nMemAvailable: {available} kB\n"
LINES = (
    "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
    f"task_memcg=/system.slice/{UNIT},task=leaky,pid=77,uid=0",
    "Out of memory: Killed process 77 (leaky) total-vm:900000kB, anon-rss:800000kB, file-rss:0kB,"
    " shmem-rss:0kB, UID:0 pgtables:2000kB oom_score_adj:0",
)


def capture(*, available_after: int = 820_000, cgroup: str | None = None) -> OomCapture:
    """A kill in the whole system, settled five seconds later."""

    def snapshot(usec: int, free: int, available: int) -> Snapshot:
        text = MEMINFO.format(free=free, available=available)
        return Snapshot(usec=usec, wall=usec / 1e6, parts={"meminfo": text})

    return OomCapture(
        source=Source(kind="kmsg", form="kmsg", boot_id=BOOT),
        records=tuple(
            KmsgRecord(text=line, seq=n, usec=KILL_USEC, level=3, facility=0) for n, line in enumerate(LINES)
        ),
        first_seq=0,
        last_seq=1,
        settled=True,
        wall_offset=0.0,
        page_size_bytes=4096,
        at=snapshot(KILL_USEC + 1000, 10_000, 20_000),
        after=snapshot(KILL_USEC + 5 * SECOND, 700_000, available_after),
        processes=(
            ProcessFacts(
                pid=77,
                comm="leaky",
                cgroup=cgroup or f"/system.slice/{UNIT}",
                executable="/x",
                alive_after=False,
            ),
        ),
    )


def said(step: str, usec: int, unit: str = UNIT, **fields: object) -> UnitEntry:
    given_ = {"usec": usec, "wall": usec / 1e6, "unit": unit, "step": step, "text": f"{unit}: {step}"}
    return msgspec.convert({**given_, **fields}, UnitEntry)


def test_what_the_manager_says_of_the_unit_is_stored_with_the_event(rig: Rig) -> None:
    kill = capture()
    # the kill before this one was another event's
    rig.aftermath.take(
        [said("failed", KILL_USEC - SECOND), said("failed", KILL_USEC + 2000, result="oom-kill")]
    )
    rig.aftermath.listen(kill, conclude(kill).event)
    rig.aftermath.take([said("started", KILL_USEC + 3 * SECOND, "other.service")])
    rig.aftermath.take([said("restart_scheduled", KILL_USEC + 6 * SECOND, restarts=3)])
    assert [c.revision for c in rig.served] == [1]
    rig.tick(rig.now + SECOND)
    assert [c.revision for c in rig.served] == [1, 2]
    rig.tick(KILL_USEC + LISTEN_USEC + SECOND)
    last = rig.served[-1]
    assert last.revision == 3
    assert last.unit_watch_seconds == pytest.approx(60, abs=0.1)
    assert [(e.step, e.result, e.restarts) for e in last.unit_log] == [
        ("failed", "oom-kill", None),
        ("restart_scheduled", None, 3),
    ]
    rig.aftermath.take([said("failed", KILL_USEC + 62 * SECOND)])
    assert len(rig.served) == 3
    after = conclude(last).event.aftermath
    assert after is not None
    assert [(u.step, u.seconds) for u in after.units] == [("failed", 0.001), ("restart_scheduled", 5.999)]
    assert (after.available_before_bytes, after.available_after_bytes) == (20_000 << 10, 820_000 << 10)
    assert (after.victims_left, after.seconds) == ((), 4.999)


@pytest.mark.parametrize(
    "cgroup",
    [
        # below a user's manager the names are that user's, and may be those of the system's units
        f"/user.slice/user-1000.slice/user@1000.service/app.slice/{UNIT}",
        "/no/unit",
    ],
)
def test_units_that_are_not_the_managers_are_not_listened_to(rig: Rig, cgroup: str) -> None:
    kill = capture(cgroup=cgroup)
    lines = [record.text.replace(f"/system.slice/{UNIT}", cgroup) for record in kill.records]
    records = tuple(msgspec.structs.replace(r, text=t) for r, t in zip(kill.records, lines, strict=True))
    kill = msgspec.structs.replace(kill, records=records)
    rig.aftermath.listen(kill, conclude(kill).event)
    rig.aftermath.take([said("failed", KILL_USEC + SECOND)])
    assert rig.served == []
    assert not rig.aftermath.busy


def test_a_flapping_unit_is_bounded(rig: Rig) -> None:
    kill = capture()
    rig.aftermath.listen(kill, conclude(kill).event)
    for n in range(200):
        rig.aftermath.take([said("failed", KILL_USEC + n * 1000, text="x" * 10_000)])
    assert len(rig.served) == 1
    rig.tick(rig.now + SECOND)
    assert len(rig.served[-1].unit_log) == MOST_ENTRIES
    assert len(rig.served) == 2
    assert len(msgspec.msgpack.encode(rig.served[-1].unit_log)) < 16 * 1024
    rig.tick(KILL_USEC + LISTEN_USEC)
    assert not rig.aftermath.busy


def test_a_storm_in_one_unit_is_not_a_storm_of_writes(rig: Rig) -> None:
    """40 kills, and a unit of which something is said ten times a second for a minute."""
    for n in range(40):
        kill = msgspec.structs.replace(capture(), first_seq=10 * n, last_seq=10 * n + 1)
        rig.aftermath.listen(kill, conclude(kill).event)
    for tenth in range(600):
        rig.now = KILL_USEC + 5 * SECOND + tenth * SECOND // 10
        rig.aftermath.take([said("started", rig.now)])
    rig.tick(KILL_USEC + LISTEN_USEC)
    assert len({c.first_seq for c in rig.served}) == 40
    assert len(rig.served) <= 40 * 3
    assert not rig.aftermath.busy


def test_findings_of_what_did_not_recover() -> None:
    def ids(kill: OomCapture) -> set[str]:
        return {finding.id for finding in conclude(kill).event.findings}

    assert not {"memory_not_recovered", "unit_stayed_down"} & ids(capture())
    assert "memory_not_recovered" in ids(capture(available_after=60_000))
    failed = said("failed", KILL_USEC + SECOND, result="oom-kill")
    again = said("restart_scheduled", KILL_USEC + 2 * SECOND, restarts=1)
    for entries, watched, down in (
        ((failed,), 60.0, True),
        ((failed,), None, False),  # still listened to
        ((failed, again), 60.0, False),
        ((failed, again, failed), 60.0, False),
        ((), 60.0, False),
    ):
        kill = msgspec.structs.replace(capture(), unit_log=entries, unit_watch_seconds=watched)
        assert ("unit_stayed_down" in ids(kill)) is down, entries


def test_the_reports_show_it() -> None:
    log = (said("failed", KILL_USEC + SECOND, result="oom-kill"), said("started", KILL_USEC + 4 * SECOND))
    event = conclude(msgspec.structs.replace(capture(), unit_log=log, unit_watch_seconds=60.0)).event
    text = render_text(event)
    page = render_html(event)
    for words in ("Afterwards", "781 MiB", "failed", "started"):
        assert words in text, words
        assert words in page, words
    hostile = said("failed", KILL_USEC + SECOND, text="\x1b[31m<script>alert(1)</script>")
    event = conclude(msgspec.structs.replace(capture(), unit_log=(hostile,))).event
    assert "\x1b" not in render_text(event) and "<script>alert" not in render_html(event)


def test_what_came_and_went_is_numbered_on_the_charts_and_listed() -> None:
    kill = capture()
    assert kill.at is not None
    before = tuple(
        msgspec.structs.replace(kill.at, usec=kill.at.usec - seconds * SECOND)
        for seconds in range(60, 0, -10)
    )
    marks = (
        Mark(usec=kill.at.usec - 700 * SECOND, wall=1.0, kind="swap_on", name="/dev/<b>x", after_bytes=GIB),
        Mark(usec=kill.at.usec - 30 * SECOND, wall=1.0, kind="swap_off", name="/dev/<b>x", before_bytes=GIB),
        Mark(usec=kill.at.usec - 15 * SECOND, wall=1.0, kind="memory_offline", name="memory42"),
    )
    event = conclude(msgspec.structs.replace(kill, before=before, marks=marks)).event
    drawn = view(event).before
    assert drawn
    for chart in drawn:
        # what happened before the recorded time is listed only
        assert [(m.at, m.label) for m in chart.marks] == [(50.0, "2"), (75.0, "3")]
    page, text = render_html(event), render_text(event)
    assert page.count('class="m-moment"') == 2 * len(drawn)
    assert "<b>x" not in page
    for words in ("700 s before", "30 s before", "15 s before", "memory block went offline", "1 GiB"):
        assert words in page, words
        assert words in text, words
    assert "memory_removed_before" in {finding.id for finding in event.findings}


# -- systemd-oomd --------------------------------------------------------------------------------------


def line(usec: int, text: str = PRESSURE) -> OomdLine:
    return OomdLine(usec=usec, wall=usec / 1e6, text=text)


def told(usec: int) -> UnitEntry:
    return said("oomd_kill", usec, "web.service", text=TOLD)


def killer(usec: int, text: str) -> KillerLine:
    return KillerLine(usec=usec, wall=usec / 1e6, program="earlyoom", text=text)


def test_earlyooms_lines_are_one_event_a_kill(rig: Rig) -> None:
    at = rig.now
    left = "mem avail:   120 of  3915 MiB ( 3.07%), swap free:    0 of    0 MiB ( 0.00%)"
    sent = 'sending {} to process {} uid 1000 "web": badness 968, VmRSS 63 MiB'
    rig.aftermath.take([killer(at, left), killer(at + 10, sent.format("SIGTERM", 7))])
    assert rig.served == [] and rig.aftermath.busy
    rig.aftermath.take([killer(at + 500_000, sent.format("SIGKILL", 7))])  # the same kill
    rig.aftermath.take([killer(at + 600_000, sent.format("SIGTERM", 8))])  # another one
    rig.now = at + 10_000_000
    rig.aftermath.tick()
    assert not rig.aftermath.busy
    first, second = [conclude(capture).event for capture in rig.served]
    assert first.kind == second.kind == "user_kill"
    assert first.user_kill is not None and second.user_kill is not None
    assert (first.user_kill.pid, first.user_kill.signal) == (7, "SIGKILL")
    assert first.user_kill.available_bytes == 120 << 20
    assert second.user_kill.pid == 8
    assert first.kills == 0 and not first.historical


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_both_words_of_one_kill_are_one_event(rig: Rig, order: tuple[int, int]) -> None:
    at = rig.now
    pair: list[Said]
    pair = [line(at), told(at + 1000)] if order == (0, 1) else [told(at), line(at + 1000)]
    for one in pair:
        rig.aftermath.take([one])
    rig.tick(at + HOLD_USEC)
    (served,) = rig.served
    assert [record.text for record in served.records] == [PRESSURE, TOLD]
    event = conclude(served).event
    assert (event.kind, event.kills, event.victims, event.historical) == ("oomd_kill", 0, (), False)
    assert event.oomd is not None and event.oomd.processes == 3
    (finding,) = event.findings
    assert (finding.id, finding.evidence["pressure_ratio"]) == ("oomd_killed", 0.6781)
    assert "ManagedOOMMemoryPressureLimit=" in render_text(event)
    assert event.summary == (
        "systemd-oomd killed web.service (3 processes): memory pressure of /system.slice 67.81 %, above"
        " 50.00 %"
    )
    rig.tick(at + PAIR_USEC)
    assert not rig.aftermath.busy


def test_a_late_count_is_a_later_revision_of_the_same_event(rig: Rig) -> None:
    at = rig.now
    rig.aftermath.take([line(at)])
    assert rig.served == []
    rig.tick(at + HOLD_USEC)
    rig.aftermath.take([told(at + 5 * SECOND)])
    first, second = (conclude(c).event for c in rig.served)
    assert first.id == second.id
    assert (first.revision, second.revision) == (0, 1)
    # another kill in the same unit is another event
    rig.aftermath.take([line(at + 7 * SECOND)])
    rig.tick(at + 7 * SECOND + HOLD_USEC)
    assert len({conclude(c).event.id for c in rig.served}) == 2


def test_a_count_alone_is_told_too(rig: Rig) -> None:
    rig.aftermath.take([told(rig.now)])
    rig.tick(rig.now + HOLD_USEC)
    (event,) = (conclude(c).event for c in rig.served)
    assert event.oomd is not None
    assert (event.oomd.unit, event.oomd.cgroup, event.complete) == ("web.service", None, False)
    assert render_text(event)
    assert "web.service" in render_html(event)


def test_a_storm_of_them_is_bounded(rig: Rig) -> None:
    for n in range(300):
        text = PRESSURE.replace("web.service", f"u{n}.service")
        rig.aftermath.take([line(rig.now + n, text)])
    rig.tick(rig.now + 300 + PAIR_USEC)
    assert len({conclude(c).event.id for c in rig.served}) == 300
    assert not rig.aftermath.busy


@needs_tools
def test_an_oomd_kill_is_stored_and_counted_once_over_restarts(tmp_path: Path) -> None:
    """A real journal, the real store: three starts of the worker."""
    journal, state = tmp_path / "journal", tmp_path / "state"
    old, new = SECOND, time.monotonic_ns() // 1000 + 3600 * SECOND
    write_journal(journal, [oomd_entry(old), manager_entry("oomd_kill", "web.service", old + 5, TOLD)])
    seen: list[OomEvent] = []
    counted: list[float] = []
    for start in range(3):
        if start == 1:
            pair = [oomd_entry(new), manager_entry("oomd_kill", "web.service", new + 5, TOLD)]
            write_journal(journal, pair, "system@2.journal")
        with worker(state, journal, seen) as (metrics, stored):
            deadline = time.monotonic() + PATIENCE
            while len(stored()) < (1 if start == 0 else 2):
                assert time.monotonic() < deadline, "not stored"
                time.sleep(0.05)
            if start == 2:
                time.sleep(1)
        counted.append(metrics.saved().get("events oomd_kill unknown", 0))
        assert metrics.kills_now()[1] == 0
    # what was there before the first start is stored and is no news
    assert [(event.kind, event.historical) for event in seen] == [("oomd_kill", False)]
    assert counted == [0, 1, 1]
    with closing(Store.open_reader(state)) as store:
        rows = store.list()
    assert [(row.kind, row.unit, row.cgroup, row.kills, row.historical) for row in rows] == [
        ("oomd_kill", "web.service", "/system.slice/web.service", 0, False),
        ("oomd_kill", "web.service", "/system.slice/web.service", 0, True),
    ]
    lines = (state / "events.jsonl").read_text().splitlines()
    assert [json.loads(one)["oomd"]["processes"] for one in lines] == [3]


class worker:
    """A worker that listens to the journal in a directory."""

    def __init__(self, state: Path, journal: Path, seen: list[OomEvent]) -> None:
        document = {
            "state_directory": str(state),
            # the journals of these tests are of a fixed day
            "store": {"max_age_days": 36500},
            "sinks": {"jsonl": {"path": str(state / "events.jsonl")}, "journal": {"enabled": False}},
        }
        self.metrics = Metrics()
        self.worker = Worker(parse(document, "test"), self.metrics, seen.append)
        self.state, self.journal = state, journal

    def __enter__(self) -> tuple[Metrics, Callable[[], list[EventRow]]]:
        self.worker.open()
        self.metrics.load(self.worker.earlier(BOOT).counters())
        self.worker.start()
        self.worker.look_afterwards(Host(boot_id=BOOT), self.journal)
        return self.metrics, self.worker.store.list

    def __exit__(self, *_: object) -> None:
        assert self.worker.stop(20)


def test_without_a_journal_it_is_said_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    tried = 0

    def absent() -> ManagerJournal:
        nonlocal tried
        tried += 1
        if tried == 3:
            rig.aftermath.stop()
        raise UnavailableError("this host keeps no journal")

    rig.aftermath.listens = False
    with caplog.at_level(logging.INFO):
        rig.aftermath.watch(absent, lambda task: task())
    assert tried == 3
    (record,) = caplog.records
    assert "kills by systemd-oomd, are not known" in record.getMessage()
    kill = capture()
    rig.aftermath.listen(kill, conclude(kill).event)
    assert rig.served == [] and not rig.aftermath.busy


def test_a_journal_that_fails_ends_the_listening_not_the_daemon(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(ManagerJournal):
        def __init__(self) -> None:
            pass

        def read(self) -> tuple[list[Said], bool]:
            rig.aftermath.stop()
            raise UnavailableError("the journal is damaged")

        def close(self) -> None:
            pass

    kill = capture()
    rig.aftermath.listen(kill, conclude(kill).event)
    with caplog.at_level(logging.INFO):
        rig.aftermath.watch(Failing, lambda task: task())
    assert not rig.aftermath.busy  # the event that waited is stored as it is
    assert rig.served[-1].unit_watch_seconds is not None
    assert len(caplog.records) == 1


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(unit_watch, "CALM_SECONDS", 0.1)
    monkeypatch.setattr(unit_watch, "HURRIED_SECONDS", 0.1)
    monkeypatch.setattr(unit_watch, "RETRY_SECONDS", 0.01)
    yield
