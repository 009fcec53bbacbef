"""A storm that is over before anybody looks: its later reports name who asked."""

from __future__ import annotations

from pathlib import Path

import msgspec

from oomwatchd.daemon.incident import KEPT, TOGETHER_USEC, Incident
from oomwatchd.event import OomEvent, conclude
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
