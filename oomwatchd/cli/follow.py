"""``oomwatchd follow``: explain the OOM reports of other machines' logs as they come."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

from oomwatchd.cli import EX_INTERRUPTED, complain
from oomwatchd.cli._output import Writer, opened, wants_color
from oomwatchd.errors import EX_UNAVAILABLE
from oomwatchd.records.capture import OomCapture
from oomwatchd.words.escape import harmless

if TYPE_CHECKING:
    from oomwatchd.cli import Subparsers

FORMATS = ("text", "json", "jsonl", "markdown")


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "follow",
        help="explain the OOM reports of other machines' logs as they come",
        description="Follow the kernel logs of other machines and explain each OOM report as soon as it has"
        " ended, until interrupted. SOURCE is [NAME=]KIND:PLACE: serial:/dev/ttyUSB0@115200, file:PATH,"
        " pipe:PATH (-: standard input), command:'ssh board dmesg --follow' (no shell; started again when it"
        " ends), netconsole:[ADDRESS:]PORT, syslog-udp:[ADDRESS:]PORT or syslog-tcp:[ADDRESS:]PORT. For a"
        " path alone, the file there decides the kind.",
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--raw", action="store_true", help="also print the log as it comes")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--output", metavar="FILE", help="default: standard output")
    parser.set_defaults(run=run)


def run(args: SimpleNamespace) -> int:
    """Follow until interrupted, or until nothing can come any more. Raises OomwatchdError where a source
    cannot be had at all."""
    from oomwatchd.follow.address import place_of_argument
    from oomwatchd.follow.follower import Follower

    places = [place_of_argument(text) for text in args.sources]
    with opened(args.output) as stream:
        writer = Writer(stream, args.format)
        passed = _Raw(several=len(places) > 1 or places[0].name is None) if args.raw else None
        found = 0

        def take(capture: OomCapture) -> bool:
            nonlocal found
            found += 1
            if passed is not None:
                passed.end()
            writer.write(capture)
            return True

        follower = Follower(places, take, say=complain, raw=None if passed is None else passed.put)
        follower.open(strict=True)
        status = 0
        try:
            while not follower.ended:
                follower.turn()
            if not found and not any(follower.bytes().values()):
                complain("nothing came")
                status = EX_UNAVAILABLE
        except KeyboardInterrupt:
            status = EX_INTERRUPTED
        finally:
            follower.finish()
            follower.close()
            writer.close()
    return status or writer.status


class _Raw:
    """Passes the logs on, a line at a time: two machines' lines never mix. A terminal obeys none of it."""

    def __init__(self, *, several: bool) -> None:
        self._several = several
        self._terminal = sys.stdout.isatty()
        self._color = self._terminal and wants_color()
        self._open: dict[str, bytearray] = {}

    def put(self, name: str, data: bytes) -> None:
        """What came of a machine."""
        rest = self._open.setdefault(name, bytearray())
        rest += data
        end = rest.rfind(b"\n") + 1
        if not end and len(rest) > 8192:
            end = len(rest)
        if end:
            self._write(name, bytes(rest[:end]))
            del rest[:end]

    def end(self) -> None:
        """An explanation follows: what is half a line stands before it."""
        for name, rest in self._open.items():
            if rest:
                self._write(name, bytes(rest) + b"\n")
                rest.clear()

    def _write(self, name: str, data: bytes) -> None:
        prefix = f"{harmless(name)}| " if self._several else ""
        if self._terminal:
            lines = [harmless(line) for line in data.decode("utf-8", "backslashreplace").splitlines()]
            dim, plain = ("\x1b[2m", "\x1b[0m") if self._color else ("", "")
            data = "".join(f"{dim}{prefix}{line}{plain}\n" for line in lines).encode("utf-8", "replace")
        elif prefix:
            data = b"".join(prefix.encode() + line for line in data.splitlines(keepends=True))
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
