"""A storm that is over before anybody looks: its later reports name who asked."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from oomwatchd.cli import _parallel
from oomwatchd.cli._output import Writer
from oomwatchd.daemon.incident import KEPT, TOGETHER_USEC, Incident
from oomwatchd.event import OomEvent, conclude
from oomwatchd.event.storm import is_open
from oomwatchd.records.capture import OomCapture, Snapshot
from tests.recorded import captures

STORM = "advice/g-unix.vm.kmsg.gz"


def storm(corpus: Path) -> list[OomCapture]:
    """Five reports within seconds; the worker's is the first, the holder's sockets fill memory meanwhile."""
    looked = Snapshot(usec=1, wall=1.0, parts={})
    found = captures(corpus / STORM)
    assert len(found) == 5
    return [msgspec.structs.replace(one, at=looked, settled=True) for one in found]


def explained(reports: list[OomCapture]) -> tuple[Incident, list[OomEvent]]:
    incident = Incident()
    events = [conclude(one).event for one in reports]
    for capture, event in zip(reports, events, strict=True):
        incident.note(capture, event)
        incident.note(capture, event)  # a later revision
    return incident, events


def test_the_first_report_of_a_storm_names_who_asked_in_the_others(corpus: Path) -> None:
    reports = storm(corpus)
    incident, events = explained(reports)
    assert "queuer" not in events[0].summary
    assert is_open(events[0])
    first = incident.added_to(reports[0])
    assert [one.comm for one in first.later].count("queuer") == 3
    event = conclude(first).event
    assert "; queuer (pid 170) asked for a unix socket" in event.summary
    assert event.findings[0].advice.startswith("End queuer (pid 170), or have it hold less")
    assert incident.added_to(first) == first
    assert incident.added_to(reports[-1]) == reports[-1], "nothing followed"
    early = msgspec.structs.replace(reports[0], settled=False)
    assert incident.added_to(early) == early, "the others may be still to come"


def test_another_exhaustion_tells_nothing(corpus: Path) -> None:
    reports = storm(corpus)
    incident, _ = explained(reports)
    usec = reports[0].records[0].usec
    assert usec is not None
    before = msgspec.structs.replace(reports[0].records[0], usec=usec - 2 * TOGETHER_USEC)
    long_ago = msgspec.structs.replace(reports[0], records=(before, *reports[0].records[1:]))
    assert incident.added_to(long_ago) == long_ago


def test_it_is_bounded(corpus: Path) -> None:
    capture = storm(corpus)[1]
    event = conclude(capture).event
    incident = Incident()
    usec = capture.records[0].usec or 0
    for number in range(2 * KEPT):
        record = msgspec.structs.replace(capture.records[0], usec=usec + number)
        incident.note(msgspec.structs.replace(capture, records=(record,)), event)
    first = msgspec.structs.replace(
        capture, records=(msgspec.structs.replace(capture.records[0], usec=usec),)
    )
    assert len(incident.added_to(first).later) == KEPT


def analyzed(corpus: Path, begin: int) -> list[str]:
    """The WHY of each report of the storm, as ``analyze`` writes the file."""
    stream = io.BytesIO()
    writer = Writer(stream, "jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_parallel, "BEGIN", begin)
        patch.setattr(_parallel, "helpers_worth", lambda: 0)
        assert _parallel.write_all(captures(corpus / STORM), writer) == 5
    return [json.loads(line)["summary"] for line in stream.getvalue().splitlines()]


def test_analyze_of_a_file_reads_ahead(corpus: Path) -> None:
    for begin in (64, 0):  # one after another, and a batch
        first, *others = analyzed(corpus, begin)
        assert "; queuer (pid 170) asked for a unix socket" in first
        assert "asked for" not in others[-1], "nothing followed"
    alone = io.BytesIO()
    Writer(alone, "jsonl").write(captures(corpus / STORM)[0])
    assert b"queuer" not in alone.getvalue().split(b'"complete"')[0]


def test_reading_ahead_is_bounded_by_the_exhaustion(corpus: Path) -> None:
    reports = captures(corpus / STORM)
    usec = reports[0].records[0].usec
    assert usec is not None
    late = [
        msgspec.structs.replace(
            one,
            records=tuple(
                msgspec.structs.replace(r, usec=(r.usec or 0) + n * TOGETHER_USEC) for r in one.records
            ),
        )
        for n, one in enumerate(reports)
    ]
    taken = []

    def read() -> Iterator[OomCapture]:
        for one in late:
            taken.append(one)
            yield one

    ahead = _parallel.Ahead(read())
    assert next(ahead) is late[0]
    assert len(taken) == 2, "the second is of another exhaustion"
    assert [next(ahead), *ahead] == late[1:]
    assert ahead.following == []
