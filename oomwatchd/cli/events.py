"""``oomwatchd events``: list, show and export the stored events."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from textwrap import wrap
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from oomwatchd.cli import EX_SOFTWARE, complain
from oomwatchd.cli._output import Writer, explained, keep, opened, pretty, seen, terminal_width
from oomwatchd.config import load
from oomwatchd.errors import NoInputError, UsageError
from oomwatchd.event import OomEvent
from oomwatchd.event.groups import Group, grouped
from oomwatchd.hostname import host_name
from oomwatchd.records.report import Kind
from oomwatchd.render.fields import why
from oomwatchd.render.layout import Row, columns, rendered, table
from oomwatchd.store import FILE_NAME, EventRow, Store, StoreError
from oomwatchd.words.escape import harmless, harmless_name
from oomwatchd.words.moments import FORMS, moment

if TYPE_CHECKING:
    from oomwatchd.cli import Subparsers


#: events that are read for a list of groups
_GROUPED_ROWS = 10_000
#: filter -> of whose events
_WHOSE = {
    "unit": "of this systemd unit",
    "container": "of the container with this name or id",
    "pod": "of this pod",
    "namespace": "of the pods of this namespace",
    "cgroup": "of this cgroup and those below it",
    "comm": "whose victim had this name",
}


def since(text: str, clock: Callable[[], float] = time.time) -> float:
    """A moment (:func:`oomwatchd.words.moments.moment`), in local time, as seconds since the epoch. Raises
    argparse.ArgumentTypeError."""
    try:
        return moment(text, clock())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: give {FORMS}") from None


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "events",
        help="list, show and export stored events",
        description="List, show and export the events that the daemon stored.",
    )
    parser.add_argument("--state-directory", type=Path, metavar="DIR", help="where the store is")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="list events, newest first, in local time")
    listing.add_argument("--since", type=since, metavar="TIME", help="2h, 3d, yesterday, or a date")
    listing.add_argument("--limit", type=_positive, default=20, metavar="N", help="rows; default: 20")
    listing.add_argument("--kind", choices=get_args(Kind), metavar="KIND", help=", ".join(get_args(Kind)))
    for name, whose in _WHOSE.items():
        listing.add_argument(f"--{name}", metavar=name.upper(), help=f"{whose}; its beginning is enough")
    listing.add_argument("--host", metavar="HOST", help="of this machine, which is followed from here")
    listing.add_argument(
        "--each", action="store_true", help="one row for each event; else repeats share a row"
    )
    listing.add_argument("--json", action="store_true", help="print one JSON array of the single events")
    listing.set_defaults(run=run_list)

    showing = actions.add_parser("show", help="show one event")
    showing.add_argument("id", metavar="ID", help="as listed; its beginning is enough")
    showing.add_argument(
        "--format", choices=("text", "json", "html", "markdown"), default="text", help="default: text"
    )
    showing.add_argument("--output", metavar="FILE", help="default: standard output")
    showing.set_defaults(run=run_show)

    exporting = actions.add_parser("export", help="write all events, oldest first")
    exporting.add_argument("--format", choices=("jsonl",), default="jsonl", help="one event a line")
    exporting.add_argument("--since", type=since, metavar="TIME", help="2h, 3d, yesterday, or a date")
    exporting.add_argument("--output", metavar="FILE", help="default: standard output")
    exporting.set_defaults(run=run_export)

    states = actions.add_parser("deliveries", help="how far each network sink has got")
    states.add_argument("--json", action="store_true", help="one JSON array")
    states.set_defaults(run=run_deliveries)

    for action in (listing, showing, exporting, states):
        # after the action, too; without defaults of their own, which would undo what stands before it
        for name in ("--state-directory", "--config"):
            action.add_argument(name, type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run_list(args: SimpleNamespace) -> int:
    """``events list``"""
    store = _store(args)
    wanted = {name: getattr(args, name) for name in ("since", "kind", "host", *_WHOSE)}
    if args.each or args.json:
        groups: Sequence[Group[EventRow]] = [Group(row) for row in store.list(limit=args.limit, **wanted)]
    else:
        groups, _ = grouped(store.list(limit=max(_GROUPED_ROWS, args.limit), **wanted), args.limit)
    listed: list[tuple[Group[EventRow], OomEvent]] = []
    status = 0
    for group in groups:
        try:
            capture = store.get(group.newest.id)
        except StoreError as error:
            complain(str(error))
            continue
        if capture is not None:  # retention may have removed it in between
            event, fault = explained(capture)
            status = status if fault is None else EX_SOFTWARE
            listed.append((group, event))
    if args.json:
        data = msgspec.json.encode([_entry(group.newest, event) for group, event in listed])
        if sys.stdout.isatty():
            data = seen(msgspec.json.format(data, indent=2))
        sys.stdout.buffer.write(data + b"\n")
    elif listed:
        _table(listed)
    else:
        complain("no events")
    return status


def run_show(args: SimpleNamespace) -> int:
    """``events show``"""
    directory = _directory(args)
    store = Store.open_reader(directory)
    keep(args.output, directory / FILE_NAME)
    capture = store.get(args.id) if args.id else None
    if capture is None:
        raise NoInputError(
            f"there is no event {harmless_name(args.id)}", hint="`oomwatchd events list` shows the ids"
        )
    with opened(args.output) as stream:
        if args.format == "json":
            event, error = explained(capture)
            data = pretty(event) + b"\n"
            stream.write(seen(data) if stream.isatty() else data)
            return 0 if error is None else EX_SOFTWARE
        writer = Writer(stream, args.format, host_name())
        writer.write(capture)
        writer.close()
    return writer.status


def run_export(args: SimpleNamespace) -> int:
    """``events export``"""
    directory = _directory(args)
    store = Store.open_reader(directory)
    keep(args.output, directory / FILE_NAME)
    with opened(args.output) as stream:
        writer = Writer(stream, args.format)
        for capture in store.export(args.since):
            writer.write(capture)
    return writer.status


def run_deliveries(args: SimpleNamespace) -> int:
    """``events deliveries``"""
    states = _store(args).deliveries()
    if args.json:
        sys.stdout.buffer.write(msgspec.json.encode(states) + b"\n")
        return 0
    if not states:
        complain("no network sink is configured, or the daemon has not run since")
    for state in states:
        given_up = f", {state.dropped} given up" if state.dropped else ""
        left_out = f", {state.left_out} repeats left out" if state.left_out else ""
        print(f"{state.sink}: {state.delivered} delivered, {state.waiting} waiting{given_up}{left_out}")
        if state.last_delivered is not None:
            print(f"  last delivered: {_local(state.last_delivered)}")
        if state.oldest_waiting is not None:
            print(f"  oldest waiting: {_local(state.oldest_waiting)}")
        if state.failed_since is not None:
            print(f"  failing since:  {_local(state.failed_since)}, {harmless(state.last_error or '')}")
        if state.next_attempt is not None:
            print(f"  next attempt:   {_local(state.next_attempt)}")
    return 0


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _directory(args: SimpleNamespace) -> Path:
    if args.state_directory is not None and args.config is not None:
        raise UsageError("--state-directory and --config exclude each other", hint="give one of them")
    directory: Path | None = args.state_directory
    return load(args.config)[0].state_path() if directory is None else directory


def _store(args: SimpleNamespace) -> Store:
    return Store.open_reader(_directory(args))


def _entry(row: EventRow, event: OomEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "host": row.host,
        "time": event.time.wall,
        "kind": event.kind,
        "constraint": event.constraint,
        "kills": event.kills,
        "victims": [{"pid": victim.pid, "comm": victim.comm} for victim in event.victims],
        "cgroup": row.cgroup,
        "unit": row.unit,
        "container": row.container,
        "container_id": row.container_id,
        "pod": row.pod,
        "namespace": row.namespace,
        "summary": event.summary,
        "findings": [finding.id for finding in event.findings],
        "historical": event.historical,
    }


def _table(listed: list[tuple[Group[EventRow], OomEvent]]) -> None:
    """One line for each row, never cut; on a narrow terminal a few lines for each."""
    rows = [_cells(group, event) for group, event in listed]
    lengths = [max(map(columns, column)) for column in zip(_HEADS, *rows, strict=True)]
    width = max(terminal_width(), 40)
    if not sys.stdout.isatty() or sum(lengths) + 2 * (len(lengths) - 1) <= width:
        for line in table([Row(*cells) for cells in (_HEADS, *rows)], sum(lengths) + 2 * len(lengths)):
            print(rendered(line, color=False))
        return
    for row in rows:
        cells = dict(zip(_HEADS, row, strict=True))
        shown = [cells[name] for name in ("TIME", "KIND", "CONSTRAINT", "VICTIM") if cells[name] != "-"]
        _wrapped("  ".join(shown), "", width)
        if cells["TIMES"] != "1":
            _wrapped(f"{cells['TIMES']} times, first {cells['FIRST']}", "  ", width)
        for name in ("WHERE", "WHY", "ID"):
            _wrapped(f"{name.ljust(6)}{cells[name]}", "  ", width)


def _wrapped(text: str, indent: str, width: int) -> None:
    for line in wrap(text, width, initial_indent=indent, subsequent_indent=f"{indent}    "):
        print(line)


_HEADS = ("ID", "TIME", "TIMES", "FIRST", "KIND", "CONSTRAINT", "VICTIM", "WHERE", "WHY")


def _cells(group: Group[EventRow], event: OomEvent) -> tuple[str, ...]:
    victim = "-"
    if event.victims:
        victim = f"{harmless_name(event.victims[0].comm)} ({event.victims[0].pid})"
        victim += f" +{len(event.victims) - 1}" if len(event.victims) > 1 else ""
    count = len(group.rows)
    return (
        event.id,
        _local(group.last),
        str(count),
        _local(group.first) if count > 1 else "-",
        event.kind,
        event.constraint or "-",
        victim,
        harmless(group.newest.place or "-"),
        harmless(why(event)),
    )
