"""``oomwatchd notify-test``: send an event that is marked as a test through each configured sink."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from oomwatchd.config import load
from oomwatchd.errors import EX_UNAVAILABLE, OomwatchdError, UnavailableError, UsageError
from oomwatchd.event import SCHEMA, EventSource, EventTime, OomEvent, rfc3339
from oomwatchd.records.report import Finding, Trigger, Victim
from oomwatchd.sinks import TEST_SOURCE, RemoteSink, Sink, is_local, is_remote, open_sinks
from oomwatchd.words.escape import harmless

if TYPE_CHECKING:
    from oomwatchd.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "notify-test",
        help="send a marked test event through each sink",
        description="Send an event that is marked as a test through each configured sink, past the outbox, "
        "and say what each one answered. Exit status 0: all took it, 69: one did not, or there is none.",
    )
    parser.add_argument("sink", nargs="?", metavar="SINK", help="this one alone (default: all)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration")
    parser.set_defaults(run=run)


def run(args: SimpleNamespace) -> int:
    """Send and report. Raises UsageError for a sink that is not configured."""
    opened = open_sinks(load(args.config)[0].sinks)
    both: list[Sink | RemoteSink] = [*opened.local, *opened.remote]
    sinks = {sink.name: sink for sink in both}
    if args.sink is not None and args.sink not in sinks:
        on = ", ".join(sinks) or "none"
        raise UsageError(
            f"sink {args.sink} is not switched on or cannot work here", hint=f"switched on: {on}"
        )
    event = test_event(time.time())
    failed = False
    for name, sink in sinks.items():
        if args.sink in (None, name):
            begin = time.monotonic()
            try:
                if is_local(sink):
                    sink.emit(event)
                elif is_remote(sink):
                    sink.deliver([event])
            except OomwatchdError as error:
                failed = True
                print(f"{name}: FAILED: {harmless(str(error))}")
            else:
                print(f"{name}: ok, {time.monotonic() - begin:.3f} s")
        sink.close()
    if not sinks:
        raise UnavailableError(
            "no sink is switched on: nothing was sent", hint="config.example.toml shows how, under [sinks.*]"
        )
    print(f"event: {event.id}")
    return EX_UNAVAILABLE if failed else 0


def test_event(wall: float) -> OomEvent:
    """An event like that of a kill; nothing was killed."""
    moment = rfc3339(wall)
    explanation = "oomwatchd notify-test sent this to show that events reach you. Nothing has happened."
    return OomEvent(
        schema=SCHEMA,
        id=f"test-{secrets.token_hex(8)}",
        kind="test",
        summary="TEST of oomwatchd: nothing was killed",
        complete=True,
        missing=(),
        lost_records=0,
        source=EventSource(kind=TEST_SOURCE, form=TEST_SOURCE),
        time=EventTime(wall=moment, detected=moment),
        kernel=None,
        arch=None,
        page_size_bytes=None,
        trigger=Trigger(comm="oomwatchd-test"),
        constraint="none",
        memcg=None,
        memory=None,
        tasks=(),
        slab=(),
        allocations=(),
        kills=0,
        victims=(Victim(pid=0, comm="oomwatchd-test", kills=0),),
        findings=(Finding(id="test", severity="info", title="A test", explanation=explanation),),
    )
