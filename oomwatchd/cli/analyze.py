"""``oomwatchd analyze``: explain the OOM reports of a log, of the journal, or of a kernel that panicked."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace
from typing import TYPE_CHECKING, get_args

from oomwatchd.cli import EX_INTERRUPTED, complain
from oomwatchd.cli._output import Format, Writer, keep, opened
from oomwatchd.cli._parallel import write_all
from oomwatchd.errors import OomwatchdError, UsageError
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.reports.captures import captures_of
from oomwatchd.sources.text import REST_SECONDS, FollowedFile, GrowingLog, check_whole, open_log, pieces

if TYPE_CHECKING:
    from oomwatchd.cli import Subparsers

#: a smaller file is read before a bar could be seen
_BAR_BYTES = 32 << 20

Progress = Callable[[int], None]


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "analyze",
        help="explain the OOM reports of a saved or pasted log",
        description="Explain the OOM reports of a log: dmesg, journalctl (text or JSON), syslog, serial"
        " console, raw /dev/kmsg records, mails and web pages; compressed or not. Or those of the journal,"
        " or of what a kernel saved when it panicked.",
    )
    parser.add_argument(
        "files", nargs="*", default=["-"], metavar="FILE", help="default: -, which is standard input"
    )
    parser.add_argument("--format", choices=get_args(Format), default="text", help="default: text")
    parser.add_argument("--output", metavar="FILE", help="default: standard output")
    parser.add_argument(
        "--boot-id",
        type=_boot_id,
        metavar="ID",
        help="boot id of raw /dev/kmsg records; events then have the daemon's ids",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="go on with what is added to the files, also after a rotation, until interrupted",
    )
    parser.add_argument("--journal", action="store_true", help="read the journal instead of files")
    parser.add_argument(
        "--boot",
        type=_boot,
        metavar="BOOT",
        help="of the journal: a boot id, 0 for the current boot, -1 for the one before; default: all",
    )
    parser.add_argument(
        "--since", type=_since, metavar="TIME", help="of the journal: from 2h, 3d ago, or a date"
    )
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="the journal files in DIR; default: this host's journal"
    )
    parser.add_argument(
        "--pstore",
        nargs="?",
        const="",
        metavar="DIR",
        help="read what kernels saved when they panicked, instead of files; default: where the kernel and"
        " systemd-pstore keep it",
    )
    parser.set_defaults(run=run)


def _since(text: str) -> float:
    from oomwatchd.cli.events import since  # with it comes the store

    return since(text)


def _boot(text: str) -> int | str:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,9}", text) else text


def _boot_id(text: str) -> str:
    plain = text.strip().replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", plain):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a boot id: 32 hexadecimal digits, as in /proc/sys/kernel/random/boot_id"
        )
    return plain


def run(args: SimpleNamespace) -> int:
    """Write the events of all files, in order; a file that cannot be read does not keep the next from
    being read. Returns the exit status of the first failure."""
    elsewhere = _elsewhere(args)
    keep(args.output, *args.files)
    with opened(args.output) as stream:
        writer = Writer(stream, args.format)
        if elsewhere is not None:
            place, found_there = elsewhere
            status = 0
            if not _written(found_there, writer):
                complain(f"no OOM report in {place}")
        elif args.follow:
            status = _follow(args, writer)
        else:
            status = _read(args, writer, stream.isatty())
        writer.close()
    return status or writer.status


def _read(args: SimpleNamespace, writer: Writer, shared: bool) -> int:
    """Read each file to its end; the reports of a pipe are written as soon as they are complete."""
    status = 0
    for name in args.files:
        if name == "-" and sys.stdin.isatty():
            complain("reading standard input: paste the log, end with Ctrl-D")
        log = GrowingLog(None if name == "-" else name, args.boot_id)
        try:
            with _bar(name, shared) as (progress, paused):
                reports = captures(name, log, progress)
                # of a pipe each report is written as soon as it comes
                whole = progress is None and name != "-" and Path(name).is_file()
                found = write_all(reports, writer) if whole else _written(reports, writer, paused)
        except OomwatchdError as error:
            complain(str(error))
            status = status or error.exit_status
            continue
        if not found:
            complain(f"no OOM report in {'standard input' if name == '-' else name}")
            for near in log.neighbours:
                complain(f"near it: {near.described()}")
    return status


def _written(
    found: Iterable[OomCapture],
    writer: Writer,
    paused: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> int:
    """Write the events; how many they were."""
    count = 0
    for capture in found:
        count += 1
        with paused():
            writer.write(capture)
    return count


def captures(name: str, log: GrowingLog, progress: Progress | None = None) -> Iterator[OomCapture]:
    """The reports of one log (a file's name or ``-``), each as soon as it is complete. Raises
    OomwatchdError."""
    with open_log(name, progress) as stream:
        for data in pieces(stream, lambda: log.waits):
            yield from log.rest(monotonic()) if data is None else log.feed(data)
        yield from log.finish()
        check_whole(stream)


def _follow(args: SimpleNamespace, writer: Writer) -> int:
    """Read files and what is added to them, until interrupted."""
    if "-" in args.files:
        raise UsageError("--follow is for files", hint="name them; standard input is read as it comes")
    followed = [(FollowedFile(name), GrowingLog(name, args.boot_id)) for name in args.files]
    try:
        while True:
            for file, log in followed:
                for data in file.news():
                    _written(log.feed(data), writer)
                _written(log.rest(monotonic()), writer)
            sleep(REST_SECONDS)
    except KeyboardInterrupt:
        for _, log in followed:
            _written(log.finish(), writer)
    return EX_INTERRUPTED


def _elsewhere(args: SimpleNamespace) -> tuple[str, Iterator[OomCapture]] | None:
    """The source that is read instead of files, with its reports; None for files. Raises UsageError."""
    if args.journal and args.pstore is not None:
        raise UsageError("--journal and --pstore exclude each other", hint="give one of them")
    if (args.journal or args.pstore is not None) and args.files != ["-"]:
        raise UsageError("files cannot be read together with --journal or --pstore", hint="leave them out")
    if args.follow and (args.journal or args.pstore is not None):
        raise UsageError("--follow is for files", hint="for this host's log use the daemon: oomwatchd run")
    for name in ("boot", "since", "directory"):
        if getattr(args, name) is not None and not args.journal:
            raise UsageError(f"--{name} is for the journal", hint="give --journal too")
    if args.journal:
        return "the journal", of_journal(args.boot, args.since, args.directory)
    if args.pstore is not None:
        return args.pstore or "pstore", of_pstore(Path(args.pstore) if args.pstore else None)
    return None


def of_journal(boot: int | str | None, begin: float | None, directory: Path | None) -> Iterator[OomCapture]:
    """The reports of the journal, boot by boot. Raises OomwatchdError."""
    from oomwatchd.sources.journal import read_journal

    for one, items in read_journal(boot=boot, since=begin, directory=directory):
        yield from captures_of(
            items, Source(kind="journal", form="journal", boot_id=one.id, name=one.hostname)
        )


def of_pstore(directory: Path | None) -> Iterator[OomCapture]:
    """The reports of panicked kernels. Raises OomwatchdError."""
    from oomwatchd.sources.pstore import read_directory, read_pstore

    for dump in read_pstore() if directory is None else read_directory(directory):
        source = Source(kind="file", form="dmesg", name=dump.name)
        yield from captures_of(dump.records, source, wall_offset=dump.wall_offset)


Bar = tuple[Progress | None, Callable[[], AbstractContextManager[object]]]


def _bar(name: str, shared: bool) -> AbstractContextManager[Bar]:
    """A progress bar on standard error for a big file; ``shared``: events go to the terminal, too."""
    try:
        size = Path(name).stat().st_size if name != "-" else 0
    except OSError:
        size = 0
    if size < _BAR_BYTES or not sys.stderr.isatty():
        return nullcontext((None, nullcontext))
    try:
        from oomwatchd.cli._progress import bar
    except ImportError:  # without rich there is no progress bar; all else works
        return nullcontext((None, nullcontext))
    return bar(name, size, shared)
