"""``oomwatchd analyze``: explain the OOM reports of a log, of the journal, or of a kernel that panicked."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, get_args

from oomwatchd.cli import complain
from oomwatchd.cli._output import Format, Writer, keep, opened
from oomwatchd.cli.events import since
from oomwatchd.errors import OomwatchdError, UsageError
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.reports.storms import Fold, Folded
from oomwatchd.sources.text import TextReader, open_log, records

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
        help="the boot that raw /dev/kmsg records are of: gives events the same id as the daemon",
    )
    parser.add_argument("--journal", action="store_true", help="read the journal instead of files")
    parser.add_argument(
        "--boot",
        type=_boot,
        metavar="BOOT",
        help="of the journal: a boot id, 0 for the current boot, -1 for the one before; default: all",
    )
    parser.add_argument(
        "--since", type=since, metavar="TIME", help="of the journal: from 2h, 3d ago, or a date"
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


def _boot(text: str) -> int | str:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,9}", text) else text


def _boot_id(text: str) -> str:
    plain = text.strip().replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", plain):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no boot id: 32 hexadecimal digits, as in /proc/sys/kernel/random/boot_id"
        )
    return plain


def run(args: SimpleNamespace) -> int:
    """Write the events of all files, in order; a file that cannot be read does not keep the next from
    being read. Returns the exit status of the first failure."""
    elsewhere = _elsewhere(args)
    status = 0
    keep(args.output, *args.files)
    with opened(args.output) as stream:
        writer = Writer(stream, args.format)
        if elsewhere is not None:
            place, found_there = elsewhere
            count = 0
            for capture in found_there:
                count += 1
                writer.write(capture)
            if not count:
                complain(f"no OOM report in {place}")
            writer.close()
            return status or writer.status
        for name in args.files:
            if name == "-" and sys.stdin.isatty():
                complain("reading standard input: paste the log, end with Ctrl-D")
            found = 0
            try:
                with _bar(name, stream.isatty()) as (progress, paused):
                    for capture in captures(name, boot_id=args.boot_id, progress=progress):
                        found += 1
                        with paused():
                            writer.write(capture)
            except OomwatchdError as error:
                complain(str(error))
                status = status or error.exit_status
                continue
            if not found:
                complain(f"no OOM report in {'standard input' if name == '-' else name}")
        writer.close()
    return status or writer.status


def captures(
    name: str, *, boot_id: str | None = None, progress: Progress | None = None
) -> Iterator[OomCapture]:
    """The reports of one log, a file's name or ``-``, as they are found. Raises OomwatchdError."""
    reader = TextReader()
    assembler = Assembler(early=False)

    def source() -> Source:
        return Source(kind="file", form=reader.form, boot_id=boot_id, name=None if name == "-" else name)

    with open_log(name, progress) as stream:
        items = records(stream, idle=lambda: assembler.idle, reader=reader)
        yield from _cut(items, source, assembler)


def _elsewhere(args: SimpleNamespace) -> tuple[str, Iterator[OomCapture]] | None:
    """The place that is read instead of files, and its reports; None: files. Raises UsageError."""
    if args.journal and args.pstore is not None:
        raise UsageError("--journal and --pstore exclude each other", mend="give one of them")
    if (args.journal or args.pstore is not None) and args.files != ["-"]:
        raise UsageError("files cannot be read together with --journal or --pstore", mend="leave them out")
    for name in ("boot", "since", "directory"):
        if getattr(args, name) is not None and not args.journal:
            raise UsageError(f"--{name} is for the journal", mend="give --journal too")
    if args.journal:
        return "the journal", of_journal(args.boot, args.since, args.directory)
    if args.pstore is not None:
        return args.pstore or "pstore", of_pstore(Path(args.pstore) if args.pstore else None)
    return None


def of_journal(boot: int | str | None, begin: float | None, directory: Path | None) -> Iterator[OomCapture]:
    """The reports of the journal, boot by boot. Raises OomwatchdError."""
    from oomwatchd.sources.journal import read_journal

    for one, items in read_journal(boot=boot, since=begin, directory=directory):
        source = Source(kind="journal", form="journal", boot_id=one.id, name=one.hostname)
        yield from _cut(items, lambda source=source: source)  # type: ignore[misc]


def of_pstore(directory: Path | None) -> Iterator[OomCapture]:
    """The reports of panicked kernels. Raises OomwatchdError."""
    from oomwatchd.sources.pstore import read_directory, read_pstore

    for dump in read_pstore() if directory is None else read_directory(directory):
        source = Source(kind="file", form="dmesg", name=dump.name)
        yield from _cut(dump.records, lambda source=source: source, wall_offset=dump.wall_offset)  # type: ignore[misc]


def _cut(
    items: Iterable[KmsgRecord | KmsgGap],
    source: Callable[[], Source],
    assembler: Assembler | None = None,
    *,
    wall_offset: float | None = None,
) -> Iterator[OomCapture]:
    """The reports of one boot's records. ``source`` is asked when a report is found."""
    assembler = assembler or Assembler(early=False)
    fold = Fold(early=False)
    for item in items:
        for signal in assembler.feed(item):
            if isinstance(signal, OomBlock):
                for folded in fold.take(signal):
                    yield _capture(folded, source(), wall_offset)
    for signal in assembler.flush():
        if isinstance(signal, OomBlock):
            for folded in fold.take(signal):
                yield _capture(folded, source(), wall_offset)
    for folded in fold.flush():
        yield _capture(folded, source(), wall_offset)


def _capture(folded: Folded, source: Source, wall_offset: float | None) -> OomCapture:
    block = folded.block
    last = folded.last or block.records[-1]
    return OomCapture(
        source=source,
        records=block.records,
        first_seq=block.records[0].seq,
        last_seq=last.seq,
        lost_records=block.lost_records,
        revision=block.revision,
        settled=True,
        wall_offset=wall_offset,
        repeats=folded.repeats,
        last_usec=last.usec if folded.repeats else None,
        last_wall=last.wall if folded.repeats else None,
    )


Bar = tuple[Progress | None, Callable[[], AbstractContextManager[object]]]


def _bar(name: str, shared: bool) -> AbstractContextManager[Bar]:
    """A progress bar on standard error for a big file; ``shared``: events go to the terminal, too."""
    try:
        size = Path(name).stat().st_size if name != "-" else 0
    except OSError:
        size = 0
    if size < _BAR_BYTES or not sys.stderr.isatty():
        return nullcontext((None, nullcontext))
    from oomwatchd.cli._progress import bar

    return bar(name, size, shared)
