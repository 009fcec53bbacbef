"""Hostile names through every output: each stays a name, in every medium."""

from __future__ import annotations

import contextlib
import html.parser
import json
import logging
import os
import re
import socket
from pathlib import Path

import msgspec
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from oomwatchd.cli import main
from oomwatchd.daemon.log import StderrHandler
from oomwatchd.event import OomEvent, conclude
from oomwatchd.metrics import Metrics
from oomwatchd.metrics.families import registry
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.render.html import render_html
from oomwatchd.render.json import encode
from oomwatchd.render.terminal import render_text
from oomwatchd.sinks import journal
from oomwatchd.store import FILE_NAME, Store
from tests.test_peers import HOSTILE_CGROUPS, HOSTILE_COMMS, report

MORE_CGROUPS = [
    *HOSTILE_CGROUPS,
    b"/<script>alert(1)</script>",
    b'/"} 1\nforged_metric{x="',
    b"/a\nOOM_VICTIM_PID=1",
    b"/'; DROP TABLE event; --",
    b"/../../../../tmp/x",
    b"/\x1b]0;title\x07\x1b[2J",
    "/\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe\N{LINE SEPARATOR}x".encode(),
    b"/system.slice/sshd.service",
    b"/" + b"\xff" * 200,
]
CASES = [(comm, b"/dt") for comm in HOSTILE_COMMS] + [(b"x", cgroup) for cgroup in MORE_CGROUPS]
CASES += [(b"<script>", b"/<img src=x onerror=y>"), (b"%s%n%d{}", b"/%s%n%d{0.__class__}")]


def capture_of(comm: bytes, cgroup: bytes, seq: int = 100) -> OomCapture:
    records = tuple(r for r in report(comm, cgroup, seq=seq) if isinstance(r, KmsgRecord))
    return OomCapture(
        source=Source(kind="kmsg", form="kmsg", boot_id="b"),
        records=records,
        first_seq=seq,
        last_seq=seq + len(records) - 1,
        wall_offset=1_790_000_000.0,
    )


@pytest.fixture(params=CASES, ids=lambda case: repr(case)[:60])
def capture(request: pytest.FixtureRequest) -> OomCapture:
    comm, cgroup = request.param
    return capture_of(comm, cgroup)


@pytest.fixture
def event(capture: OomCapture) -> OomEvent:
    return conclude(capture).event


def is_plain(text: str) -> bool:
    """Nothing that a terminal acts on, reorders or hides."""
    return all(character == "\n" or character.isprintable() for character in text)


def test_terminal(event: OomEvent) -> None:
    for width in (40, 80, 200):
        assert is_plain(render_text(event, width=width))
    assert is_plain(event.summary)
    assert "\n" not in event.summary


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))


def elements(event: OomEvent, capture: OomCapture) -> set[tuple[str, tuple[str, ...]]]:
    parser = Tags()
    parser.feed(render_html(event, capture.records))
    return set(parser.tags)


def test_html(event: OomEvent, capture: OomCapture) -> None:
    plain = capture_of(b"plain", b"/system.slice/plain.service")
    other = capture_of(b"plain", b"/plain")
    known = elements(conclude(plain).event, plain) | elements(conclude(other).event, other)
    assert elements(event, capture) <= known


def test_json(event: OomEvent) -> None:
    line = encode(event)
    assert b"\n" not in line
    document = json.loads(line)
    assert document["victims"][0]["comm"] == event.victims[0].comm
    assert document["memcg"]["oom_path"] == event.memcg.oom_path if event.memcg else True


def native(data: bytes) -> list[tuple[str, bytes]]:
    """journald's side of the native protocol, as it is documented."""
    fields, at = [], 0
    while at < len(data):
        end = data.index(b"\n", at)
        name, equals, value = data[at:end].partition(b"=")
        if equals:
            at = end + 1
        else:
            size = int.from_bytes(data[end + 1 : end + 9], "little")
            value = data[end + 9 : end + 9 + size]
            at = end + 9 + size + 1
        fields.append((name.decode(), value))
    return fields


def test_journal(event: OomEvent, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        sink = journal.open(journal.Options(socket=str(path)))
        assert sink is not None
        sink.emit(event)
        sink.close()
        fields = native(receiver.recv(1 << 20))
    names = [name for name, _ in fields]
    assert names.count("OOM_VICTIM_PID") == names.count("MESSAGE") == 1
    assert dict(fields)["OOM_VICTIM_PID"] == b"77"
    assert dict(fields)["OOM_VICTIM_COMM"].decode() == event.victims[0].comm
    assert is_plain(dict(fields)["MESSAGE"].decode())


def exposed(event: OomEvent) -> tuple[set[str], list[str]]:
    """Names of families and values of labels, as a scraper reads them."""
    metrics = Metrics()
    metrics.count(event, 1, event.kills, 0)
    families = list(text_string_to_metric_families(generate_latest(registry(metrics)).decode()))
    values = [value for f in families for s in f.samples for value in s.labels.values()]
    return {family.name for family in families}, values


def test_metrics(event: OomEvent) -> None:
    names, values = exposed(event)
    assert names == exposed(conclude(capture_of(b"plain", b"/plain")).event)[0]
    assert all(is_plain(value) and len(value) <= 300 for value in values)


def test_ten_thousand_cgroups_do_not_grow_the_metrics() -> None:
    metrics = Metrics()
    event = conclude(capture_of(b"x", b"/dt")).event
    sizes = []
    for n in range(10_000):
        unit = f"evil{n}.service"
        owners = tuple(
            msgspec.structs.replace(owner, cgroup=f"/system.slice/{unit}", unit=unit, slice=f"s{n}.slice")
            for owner in event.attribution
        )
        memcg = (
            msgspec.structs.replace(event.memcg, oom_path=f"/x{n}", task_path=f"/x{n}")
            if event.memcg
            else None
        )
        other = msgspec.structs.replace(event, id=f"{n:020x}", attribution=owners, memcg=memcg)
        metrics.count(other, 1, 1, 0)
        if n in (999, 9_999):
            sizes.append(len(generate_latest(registry(metrics))))
    assert sizes[1] < 200_000
    assert sizes[1] - sizes[0] < 2_000  # digits
    kills = [s for f in metrics.collect() for s in f.samples if s.name == "oomwatchd_oom_kills_total"]
    assert sum(sample.value for sample in kills) == 10_000


def test_store(event: OomEvent, capture: OomCapture, tmp_path: Path) -> None:
    directory = tmp_path / "state"
    with contextlib.closing(Store.open(directory)) as store:
        assert store.put(capture, event) == "new"
        assert store.put(
            capture_of(b"y", b"/other", seq=500), conclude(capture_of(b"y", b"/other", seq=500)).event
        )
        path = event.memcg.task_path if event.memcg else None
        (row,) = store.list(cgroup=path)
        assert (row.cgroup, row.victim_comm, row.victim_pid) == (path, event.victims[0].comm, 77)
        assert store.get(event.id) == capture
    # no name of anything becomes a file's
    assert {p.name for p in tmp_path.rglob("*")} <= {
        "state",
        FILE_NAME,
        f"{FILE_NAME}-wal",
        f"{FILE_NAME}-shm",
    }


def test_export(capture: OomCapture, tmp_path: Path) -> None:
    """As the command writes it: an event a line."""
    directory, plain = tmp_path / "state", capture_of(b"plain", b"/plain", seq=900)
    with contextlib.closing(Store.open(directory)) as store:
        for one in (capture, plain):
            store.put(one, conclude(one).event)
    config, output = tmp_path / "config.toml", tmp_path / "out"
    config.write_text(f'state_directory = "{directory}"\n')
    assert main(["events", "export", "--config", str(config), "--output", str(output)]) == 0
    lines = output.read_bytes().removesuffix(b"\n").split(b"\n")
    assert sorted(json.loads(line)["victims"][0]["comm"] for line in lines) == sorted(
        conclude(one).event.victims[0].comm for one in (capture, plain)
    )


def test_log(event: OomEvent, capture: OomCapture) -> None:
    reading, writing = os.pipe()
    handler = StderrHandler(writing, {})
    logger = logging.Logger("forgery")
    logger.addHandler(handler)
    logger.warning("%s", event.summary)
    logger.warning("%s %s", event.victims[0].comm, event.memcg)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    assert said.count("\n") == 2
    assert is_plain(said)
    assert all(re.match("oomwatchd: warning: ", line) for line in said.splitlines())
    assert handler.dropped == 0
