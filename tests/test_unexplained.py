"""A bug in the explanation loses a part of the explanation, but never the event."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from oomwatchd.cli import main
from oomwatchd.daemon.warmup import RECORDS
from oomwatchd.delivery.outbox import Lane
from oomwatchd.delivery.policy import Delivery
from oomwatchd.event import OomEvent, conclude
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import parse_record
from oomwatchd.store import Store
from tests.test_web_pages import answer

LINES = tuple(record for line in RECORDS.splitlines() if (record := parse_record(line.encode())))


def a_capture(n: int = 0) -> OomCapture:
    records = tuple(msgspec.structs.replace(line, seq=(line.seq or 0) + 1000 * n) for line in LINES)
    return OomCapture(
        source=Source(kind="kmsg", form="kmsg", boot_id="0" * 32),
        records=records,
        first_seq=records[0].seq,
        last_seq=records[-1].seq,
        detected=time.time(),
    )


def raises(*_: object, **__: object) -> None:
    raise KeyError("a wording without a reader")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oomwatchd.event.decode", raises)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with contextlib.closing(Store.open(tmp_path)) as opened:
        for n in range(2):
            opened.put(a_capture(n), conclude(a_capture(n)).event)
    return tmp_path


class Takes:
    name, batch = "takes", 1

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        self.taken: list[OomEvent] = []

    def deliver(self, events: Sequence[OomEvent]) -> None:
        if events[0].id in self.faults:
            raise KeyError("cannot be put into this form")
        self.taken += events

    def close(self) -> None: ...


@pytest.mark.parametrize("part", ["decode", "diagnose_case", "attribute", "aftermath", "_snapshots"])
def test_each_part_that_fails_leaves_who_was_killed(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = conclude(a_capture())
    assert whole.error is None
    monkeypatch.setattr(f"oomwatchd.event.{part}", raises)
    event, error = conclude(a_capture())
    assert isinstance(error, KeyError)
    assert (event.id, event.kills) == (whole.event.id, 1)
    assert [victim.pid for victim in event.victims] == [543]
    assert "543" in event.summary
    assert event.summary.endswith("; not all of it could be explained (KeyError)")


def test_even_recognising_a_line_may_fail(monkeypatch: pytest.MonkeyPatch, broken: None) -> None:
    monkeypatch.setattr("oomwatchd.event.bare.recognise", raises)
    assert conclude(a_capture()).event.id == conclude(a_capture()).event.id


def test_a_lane_moves_on(store: Path, broken: None) -> None:
    shelf, receiver = Store.open(store), Takes()
    lane = Lane(receiver, shelf, Delivery(sink="takes", position=0))
    assert [lane.step(), lane.step(), lane.step()] == [0.0, 0.0, None]
    assert [event.id for event in receiver.taken] == [conclude(a_capture(n)).event.id for n in range(2)]
    assert lane.state.position == 2
    shelf.close()


def test_an_event_that_a_sink_cannot_put_into_its_form_holds_up_no_other(store: Path) -> None:
    first, second = (conclude(a_capture(n)).event.id for n in range(2))
    shelf, receiver = Store.open(store), Takes(first)
    lane = Lane(receiver, shelf, Delivery(sink="takes", position=0))
    seconds = lane.step()
    assert seconds is not None and seconds > 0
    assert (lane.state.failures, lane.state.failed_since is None) == (1, False)
    assert lane.state.last_error == "a bug in oomwatchd: KeyError"
    for _ in range(3):
        lane.step()
    assert [event.id for event in receiver.taken] == [second]
    assert (lane.state.position, lane.state.dropped, lane.state.failed_since) == (2, 1, None)
    shelf.close()


def test_the_pages_show_it(store: Path, broken: None, caplog: pytest.LogCaptureFixture) -> None:
    shelf = Store.open_reader(store)
    event_id = conclude(a_capture()).event.id
    for path in (f"/events/{event_id}", f"/api/v1/events/{event_id}"):
        assert answer(shelf, path).status == 200
    assert caplog.text.count("not all of the report could be explained: KeyError") == 2
    shelf.close()


@pytest.mark.parametrize(
    "words", ["list --each", "list --json", "show {id} --format json", "show {id}", "export"]
)
def test_commands_answer_and_say_what_is_missing(
    words: str, store: Path, broken: None, capsys: pytest.CaptureFixture[str]
) -> None:
    event_id = conclude(a_capture()).event.id
    assert main(["events", *words.format(id=event_id).split(), "--state-directory", str(store)]) == 70
    said = capsys.readouterr()
    assert "543" in said.out
    assert f"event {event_id}: not all of the report could be explained: KeyError" in said.err


@pytest.mark.parametrize("form", ["text", "json", "html"])
def test_analyze_answers(form: str, tmp_path: Path, broken: None, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text(RECORDS)
    assert main(["analyze", "--format", form, str(log)]) == 70
    said = capsys.readouterr()
    assert "543" in said.out
    assert "not all of the report could be explained: KeyError" in said.err
