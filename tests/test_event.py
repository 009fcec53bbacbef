"""The whole event: the seed log against its hand-written truth, identity, times, the JSON form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from oomwatchd.event import OomEvent, conclude, rfc3339
from oomwatchd.event.identity import event_id
from oomwatchd.records.capture import OomCapture, ProcessFacts, Source
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.render.json import encode, event_document
from oomwatchd.sources.text import TextReader
from tests.blocks import blocks_of, differences, read_records


def event_of(records: tuple[KmsgRecord, ...], **fields: Any) -> OomEvent:
    return conclude(OomCapture(source=Source(kind="file", form="kmsg"), records=records, **fields)).event


def seed_event(corpus: Path) -> OomEvent:
    reader = TextReader()
    data = (corpus / "seed" / "mips-3.10-highmem.log").read_bytes()
    (block,) = blocks_of([*reader.feed(data), *reader.flush()])
    return conclude(OomCapture(source=Source(kind="file", form=reader.form), records=block.records)).event


def test_the_seed_log_equals_its_truth(corpus: Path) -> None:
    truth = json.loads((corpus / "seed" / "mips-3.10-highmem.truth.json").read_text())
    demanded = truth.pop("findings_must_include")
    document = json.loads(encode(seed_event(corpus)))
    assert differences(truth, document) == []
    found = document["findings"]
    for wanted in demanded:
        assert any(
            finding["id"] == wanted["id"]
            and ("zone" not in wanted or finding["evidence"].get("zone") == wanted["zone"])
            for finding in found
        ), wanted


def test_the_seed_log_is_32_kb_short_in_both_zones(corpus: Path) -> None:
    short = {
        finding.evidence["zone"]: finding.evidence
        for finding in seed_event(corpus).findings
        if finding.id == "zone_below_watermark"
    }
    assert set(short) == {"Normal", "HighMem"}
    assert short["Normal"]["shortfall_bytes"] == 32 * 1024
    assert short["HighMem"]["shortfall_bytes"] == 32 * 1024


def test_the_json_is_one_line_and_reads_back(corpus: Path) -> None:
    event = seed_event(corpus)
    line = encode(event)
    assert b"\n" not in line
    assert line == msgspec.json.encode(event_document(event))


def test_no_name_of_a_process_is_taken_for_a_field(corpus: Path) -> None:
    event = seed_event(corpus)
    named = msgspec.structs.replace(event.tasks[0], comm=',"extra":null}', extra=None)
    for tasks in ((named,), (named, msgspec.structs.replace(named, extra={"nr_pmds": 3}))):
        shown = msgspec.structs.replace(event, tasks=tasks)
        assert encode(shown) == msgspec.json.encode(event_document(shown))
        assert json.loads(encode(shown))["tasks"][0]["comm"] == ',"extra":null}'


def first_block(corpus: Path) -> tuple[KmsgRecord, ...]:
    return blocks_of(read_records(corpus / "samples" / "6.12-cg2.kmsg.gz"))[0].records


def test_the_same_records_give_the_same_id_however_they_came(corpus: Path) -> None:
    records = first_block(corpus)
    seq = records[0].seq
    live = OomCapture(
        source=Source(kind="kmsg", form="kmsg", boot_id="b"), records=records, first_seq=seq, revision=3
    )
    filed = OomCapture(
        source=Source(kind="file", form="kmsg", boot_id="b"), records=records[:5], first_seq=seq
    )
    assert event_id(live) == event_id(filed)
    other_boot = msgspec.structs.replace(live, source=Source(kind="kmsg", form="kmsg", boot_id="c"))
    assert event_id(other_boot) != event_id(live)
    unknown_boot = OomCapture(source=Source(kind="file", form="kmsg"), records=records, first_seq=seq)
    grown = msgspec.structs.replace(unknown_boot, records=records[:3])
    assert event_id(unknown_boot) == event_id(grown)


def test_wall_time_is_the_log_clock_and_the_offset_at_reading(corpus: Path) -> None:
    records = first_block(corpus)
    assert records[0].usec is not None
    event = event_of(records, wall_offset=1_000_000_000.0 - records[0].usec / 1e6)
    assert event.time.wall == "2001-09-09T01:46:40.000Z"
    assert event_of(records).time.wall is None


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e30, -1e30])
def test_a_time_out_of_range_is_no_time(seconds: float) -> None:
    assert rfc3339(seconds) is None


def test_the_event_says_whose_the_victim_was(corpus: Path) -> None:
    event = event_of(first_block(corpus))
    (owner,) = [who for who in event.attribution if who.role == "victim"]
    assert event.memcg is not None
    assert owner.cgroup == event.memcg.task_path
    assert owner.learnt == "report"


def test_what_proc_told_fills_in_for_a_lone_kill_line() -> None:
    record = KmsgRecord(text="Out of memory: Killed process 7 (x) total-vm:1kB, anon-rss:1kB, file-rss:0kB")
    facts = ProcessFacts(pid=7, cgroup="/system.slice/a.service", executable="/usr/bin/x")
    event = event_of((record,), processes=(facts,))
    (owner,) = event.attribution
    assert (owner.unit, owner.slice, owner.executable, owner.learnt) == (
        "a.service", "system.slice", "/usr/bin/x", "proc",
    )  # fmt: skip


def test_a_trigger_that_is_the_victim_has_the_victims_cgroup(corpus: Path) -> None:
    event = event_of(first_block(corpus))
    assert event.trigger.pid == event.victims[0].pid
    trigger, victim = event.attribution
    assert (trigger.role, trigger.cgroup) == ("trigger", victim.cgroup)


def test_where_an_exiting_task_ended_up_is_not_where_it_lived() -> None:
    record = KmsgRecord(text="Out of memory: Killed process 7 (x) total-vm:1kB, anon-rss:1kB, file-rss:0kB")
    assert event_of((record,), processes=(ProcessFacts(pid=7, cgroup="/"),)).attribution == ()
