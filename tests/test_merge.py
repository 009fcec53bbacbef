"""Two captures of one report: nothing that either knows may be lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from oomwatchd.config import Config
from oomwatchd.daemon.waiting import FULL_CAPTURES, cut_down
from oomwatchd.daemon.warmup import RECORDS
from oomwatchd.daemon.worker import Worker
from oomwatchd.event import OomEvent, conclude
from oomwatchd.metrics import Metrics
from oomwatchd.records.capture import (
    Asked,
    CgroupCharge,
    Crowd,
    EarlierKill,
    Mark,
    OomCapture,
    ProcessFacts,
    RowsLeftOut,
    Snapshot,
    Source,
    Track,
    UnitEntry,
    Unseen,
)
from oomwatchd.records.kmsg import KmsgRecord, parse_record
from oomwatchd.records.merge import OWN_RULES, merge
from oomwatchd.records.nearing import Nearing, Warned
from oomwatchd.store import Store

LINES = tuple(record for line in RECORDS.splitlines() if (record := parse_record(line.encode())))
REAPED = msgspec.structs.replace(
    LINES[-1], seq=(LINES[-1].seq or 0) + 1, usec=(LINES[-1].usec or 0) + 900, text="oom_reaper: reaped"
)
SOURCE = Source(kind="kmsg", form="kmsg", boot_id="0" * 32)
SNAPSHOT = Snapshot(usec=71_000_000, wall=1.79e9, parts={"meminfo": "MemTotal: 1000 kB\n"})

#: a value that is not the default, for each field that has one
KNOWN: dict[str, Any] = {
    "first_seq": LINES[0].seq,
    "last_seq": LINES[-1].seq,
    "lost_records": 3,
    "revision": 2,
    "settled": True,
    "repeats": 5,
    "last_usec": 99,
    "last_wall": 1.5,
    "historical": True,
    "wall_offset": 1.7e9,
    "detected": 1.79e9,
    "detection_latency_seconds": 0.001,
    "page_size_bytes": 4096,
    "kernel": "6.12",
    "arch": "x86_64",
    "before": (SNAPSHOT,),
    "at": SNAPSHOT,
    "after": SNAPSHOT,
    "processes": (ProcessFacts(pid=7, comm="x"),),
    "tracks": (Track(kind="process", name="x", pid=7, points=((1, 2), (3, 4))),),
    "marks": (Mark(usec=1, wall=1.0, kind="swap_off", name="sda2"),),
    "earlier": (EarlierKill(usec=5, comm="x"),),
    "later": (Asked(usec=6, comm="x", pid=7, call_trace=("unix_stream_sendmsg",)),),
    "headless_before": 3,
    "unseen": Unseen(kills=1, kernel_kills=1, reported_kills=0, unaccounted_kills=1),
    "left_out": RowsLeftOut(rows=9, rss_pages=1, swap_pages=1, page_tables_bytes=1),
    "crowds": (Crowd(cgroup="/a", pids=(1, 2)),),
    "container_names": (("75269d3c5c23", "shop-db"),),
    "names_obstacle": "/run/oomwatchd-names.socket: No such file or directory",
    "charge_after": CgroupCharge(path="/a", usage_bytes=1),
    "unit_log": (UnitEntry(usec=1, wall=1.0, unit="a.service", step="started", text="Started"),),
    "unit_watch_seconds": 60.0,
    "nearing": Nearing(capacity_bytes=2, used_bytes=1, usec=1, wall=1.0, since_usec=0),
    "warned": Warned(id="0" * 20, lead_seconds=1.5),
}
FIRST = msgspec.structs.replace(
    OomCapture(source=SOURCE, records=LINES), **{**KNOWN, "unseen": None, "nearing": None}
)


def bare(records: tuple[KmsgRecord, ...] = LINES) -> OomCapture:
    return OomCapture(source=SOURCE, records=records)


def test_every_field_is_tried_here() -> None:
    assert {*KNOWN, "source", "records"} == {*OomCapture.__struct_fields__}


@pytest.mark.parametrize("field", OomCapture.__struct_fields__)
def test_what_the_newer_does_not_know_stays(field: str) -> None:
    """``historical`` alone is decided by the first whatever it says."""
    known = KNOWN.get(field, getattr(FIRST, field))
    older = msgspec.structs.replace(bare(), **{field: known})
    assert getattr(merge(bare(), older), field) == known


@pytest.mark.parametrize("field", KNOWN.keys() - {"historical"})
def test_what_only_the_newer_knows_is_taken(field: str) -> None:
    newer = msgspec.structs.replace(bare(), **{field: KNOWN[field]})
    assert getattr(merge(newer, bare()), field) == KNOWN[field]


def test_each_rule_of_its_own_is_for_a_field_that_there_is() -> None:
    assert OWN_RULES.keys() <= {*OomCapture.__struct_fields__}


def test_merging_again_changes_nothing() -> None:
    again = OomCapture(source=SOURCE, records=(*LINES, REAPED), last_seq=REAPED.seq, settled=True)
    both = merge(again, FIRST)
    assert merge(both, FIRST) == both


def test_records_without_numbers_go_by_stamp() -> None:
    lines = tuple(KmsgRecord(text=text, usec=usec) for usec, text in enumerate("abcd"))
    cut = bare((lines[0], lines[3]))
    assert merge(cut, bare(lines[:3])).records == lines
    plain = tuple(KmsgRecord(text=text) for text in "abc")
    assert merge(bare(plain[:1]), bare(plain)).records == plain


@pytest.mark.parametrize("is_cut", [False, True])
def test_the_store_keeps_what_only_the_first_knew(is_cut: bool) -> None:
    """After a restart that reads the ring again, and after a revision that was cut down."""
    first = msgspec.structs.replace(FIRST, historical=False, settled=False, revision=0, repeats=0)
    later = OomCapture(
        source=SOURCE,
        records=(*LINES, REAPED),
        first_seq=LINES[0].seq,
        last_seq=REAPED.seq,
        revision=int(is_cut),
        settled=True,
    )
    later = cut_down(later) if is_cut else later
    store = Store.open(None)
    assert store.put(first, conclude(first).event) == "new"
    whole = store.completed(later)
    assert store.put(later, conclude(later).event) == "updated"
    stored = store.get(conclude(first).event.id)
    assert stored == whole == merge(later, first)
    for field in ("before", "at", "tracks", "marks", "earlier", "headless_before"):
        assert getattr(stored, field) == KNOWN[field], field
    assert store.completed(later) is later  # it brings nothing any more


def test_sinks_of_this_host_are_told_of_the_whole(tmp_path: Path) -> None:
    """The event that goes out is that of the stored capture, not of the reading after a restart."""
    first = msgspec.structs.replace(FIRST, historical=False, settled=False, revision=0, repeats=0)
    with_store = Store.open(tmp_path)
    with_store.put(first, conclude(first).event)
    with_store.close()
    killed = msgspec.structs.replace(
        LINES[-1], seq=(LINES[-1].seq or 0) + 1, text=LINES[-1].text.replace("543", "544")
    )
    again = OomCapture(
        source=SOURCE, records=(*LINES, killed), first_seq=LINES[0].seq, last_seq=killed.seq, settled=True
    )
    told: list[OomEvent] = []
    worker = Worker(msgspec.structs.replace(Config(), state_directory=str(tmp_path)), Metrics(), told.append)
    worker.open()
    worker.start()
    worker.submit(again, None)
    assert worker.stop(10)
    assert [event.kills for event in told] == [2]
    assert told[0].tracks == KNOWN["tracks"]
    assert told[0].marks == KNOWN["marks"]


def test_a_later_revision_of_one_that_waits_whole_stays_whole(tmp_path: Path) -> None:
    worker = Worker(
        msgspec.structs.replace(Config(), state_directory=str(tmp_path)), Metrics(), lambda _: None
    )
    worker.open()
    captures = [
        msgspec.structs.replace(
            FIRST,
            records=tuple(msgspec.structs.replace(line, seq=(line.seq or 0) + 1000 * n) for line in LINES),
            first_seq=(LINES[0].seq or 0) + 1000 * n,
            last_seq=(LINES[-1].seq or 0) + 1000 * n,
            wall_offset=time.time(),  # older ones are given up by age
        )
        for n in range(FULL_CAPTURES + 1)
    ]
    for capture in captures:
        worker.submit(capture, None)
    worker.submit(msgspec.structs.replace(captures[0], revision=9), None)
    worker.start()
    assert worker.stop(10)
    store = Store.open_reader(tmp_path)
    stored = list(store.export())
    store.close()
    assert [len(capture.records) for capture in stored] == [len(LINES)] * FULL_CAPTURES + [
        len(stored[-1].records)
    ]
    assert len(stored[-1].records) < len(LINES)
    assert stored[0].revision == 9
