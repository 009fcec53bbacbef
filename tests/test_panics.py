"""Panics of earlier boots: told when the daemon starts, once."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from oomwatchd.config import parse
from oomwatchd.daemon.panics import panics, roots
from oomwatchd.daemon.worker import Worker
from oomwatchd.event import OomEvent
from oomwatchd.metrics import Metrics
from oomwatchd.sources import pstore
from oomwatchd.store import FILE_NAME
from tests.test_pstore_source import PANICS, log_of, parts_of, write_ramoops

#: a report and its panic fit into one record of ramoops
WHOLE = 1 << 20


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    directory = tmp_path / "pstore"
    write_ramoops(directory, parts_of(log_of(PANICS[0]), WHOLE))
    return directory


def serve(state: Path, dumps: Path) -> list[OomEvent]:
    """What one start of the daemon tells of these dumps."""
    seen: list[OomEvent] = []
    document = {
        "state_directory": str(state),
        "sinks": {"jsonl": {"path": str(state / "events.jsonl")}, "journal": {"enabled": False}},
    }
    worker = Worker(parse(document, "test"), Metrics(), seen.append)
    worker.open()
    worker.start()
    worker.later(lambda: worker.take(panics([dumps], 1.0)))
    assert worker.stop(30)
    return seen


def test_a_panic_is_told_by_the_first_start_that_finds_it(tmp_path: Path, dumps: Path) -> None:
    (event,) = serve(tmp_path, dumps)
    assert event.kind == "oom_panic"
    assert not event.historical
    assert serve(tmp_path, dumps) == []
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == event.id


def test_a_damaged_row_is_not_in_the_way_of_what_was_not_told(tmp_path: Path, dumps: Path) -> None:
    (event,) = serve(tmp_path, dumps)
    told = (tmp_path / "events.jsonl").read_bytes()
    (tmp_path / "events.jsonl").unlink()
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as file:
        columns = "id, revision, settled, historical, wall, kind, kills, undecoded, capture"
        file.execute(
            f"INSERT INTO event ({columns}) SELECT 'damaged', {columns[4:-9]}, x'00' FROM event"  # noqa: S608
        )
        file.execute("DELETE FROM news")
        for name in ("damaged", event.id, event.id):
            file.execute("INSERT INTO news (event_id, wall) VALUES (?, 1)", (name,))
        file.execute("UPDATE delivery SET position = 1 WHERE sink = ''")
    assert serve(tmp_path, dumps) == []
    assert (tmp_path / "events.jsonl").read_bytes() == told
    assert serve(tmp_path, dumps) == []
    assert (tmp_path / "events.jsonl").read_bytes() == told, "once"


def test_systemd_may_move_it_in_between(tmp_path: Path, dumps: Path) -> None:
    serve(tmp_path, dumps)
    archive = tmp_path / "archive" / "1763900000" / "001"
    archive.parent.mkdir(parents=True)
    dumps.rename(archive)
    assert len(list(panics([tmp_path / "archive"], 1.0))) == 1
    assert serve(tmp_path, tmp_path / "archive") == []


def test_kills_before_the_panic_were_told_as_they_came(tmp_path: Path) -> None:
    kill = (
        b"<3>[    9.000000] Out of memory: Killed process 77 (early) total-vm:1kB, anon-rss:1kB, file-rss:0kB"
    )
    write_ramoops(tmp_path, parts_of([kill, *log_of(PANICS[0])], WHOLE))
    (capture,) = panics([tmp_path], 1.0)
    assert "early" not in "".join(record.text for record in capture.records)


def test_where_they_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    assert roots() == pstore.ROOTS
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/oomwatchd")
    assert roots() == (Path("/run/oomwatchd"),)
