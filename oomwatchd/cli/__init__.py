"""The command line. Each command is a module with ``add_parser(subparsers)`` and ``run(args) -> int``.

Only the module of the command that is asked for is imported: ``oomwatchd --version`` on a small board
must not load an HTTP server.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from oomwatchd import __version__
from oomwatchd.errors import EX_UNAVAILABLE, OomwatchdError, UsageError

#: command -> what it does, in the order of the help
COMMANDS = {
    "run": "watch the kernel log, in the foreground",
    "analyze": "explain the OOM reports of a saved or pasted log",
    "events": "list, show and export stored events",
    "explain": "say what a finding means",
    "check-config": "check a configuration file",
    "notify-test": "send a marked test event through each sink",
    "doctor": "say what works on this host, what does not, and the mend",
    "selftest": "provoke a harmless OOM and prove that it is reported",
}

EX_SOFTWARE = 70
EX_IOERR = 74
#: 128 + the signal's number, as a shell reports it
EX_INTERRUPTED = 130
EX_BROKEN_PIPE = 141


class Formatter(argparse.HelpFormatter):
    """Knows its width: argparse makes one for each argument that is added, and imports shutil to find it."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"width": _columns() - 2, **options})


def _columns() -> int:
    """What ``shutil.get_terminal_size()`` says."""
    with suppress(KeyError, ValueError):
        if (columns := int(os.environ["COLUMNS"])) > 0:
            return columns
    with suppress(AttributeError, ValueError, OSError):
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    return 80


class Parser(argparse.ArgumentParser):
    """Wrong arguments are one line and exit status 64, like every other error."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": Formatter, **options})

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(message, mend=f"see {self.prog} --help")


def parser(chosen: str | None) -> Parser:
    """The parser of the command line, with the arguments of the chosen command alone."""
    top = Parser(prog="oomwatchd", description="Says why Linux ran out of memory.")
    top.add_argument("--version", action="version", version=f"oomwatchd {__version__}")
    top.add_argument("--debug", action="store_true", help="log more, and show where errors come from")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, text in COMMANDS.items():
        if name == chosen:
            import_module(f"oomwatchd.cli.{name.replace('-', '_')}").add_parser(subparsers)
            # after the command, too; without a default of its own, which would undo the one before it
            subparsers.choices[name].add_argument(
                "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
            )
        else:
            subparsers.add_parser(name, help=text)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status (sysexits.h for errors). Never raises OomwatchdError."""
    words = sys.argv[1:] if argv is None else argv
    _hold_standard_streams()
    # a name that cannot be spelled in the locale's encoding must not end the command
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return _run(words)
    except BrokenPipeError:  # the reader (head, less) has enough
        _abandon_output()
        return EX_BROKEN_PIPE
    except KeyboardInterrupt:
        return EX_INTERRUPTED
    except Exception as error:
        if "--debug" in words:
            import traceback

            traceback.print_exc()
        if isinstance(error, OomwatchdError):
            complain(str(error))
            return error.exit_status
        if isinstance(error, OSError):
            _abandon_output()
            # what is written without a name is standard output
            complain(f"cannot write standard output: {error.strerror}" if _unnamed(error) else str(error))
            return EX_IOERR
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("oomwatchd"):
            # a board may leave out what only some commands need (docs/install.md)
            package = error.name.partition(".")[0]
            complain(f"this needs the Python module {package}, which is not installed; see docs/install.md")
            return EX_UNAVAILABLE
        complain(f"internal error: {type(error).__name__}: {error}; --debug shows where, please report it")
        return EX_SOFTWARE


_WRITING = {errno.ENOSPC, errno.EBADF, errno.EIO, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def _unnamed(error: OSError) -> bool:
    """Whether a write failed that named no file."""
    return error.filename is None and error.errno in _WRITING


def _hold_standard_streams() -> None:
    """A closed standard stream (``>&-``) must neither be None nor be the next file that is opened: it becomes
    one that cannot be used, so that what needs it says so."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        with suppress(OSError):
            # the first two are open for the other direction alone: reading and writing fail with EBADF
            descriptor = os.open(os.devnull, (os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)[number])
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _abandon_output() -> None:
    """What is left in standard output's buffer must not be flushed into the same error at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: Sequence[str]) -> int:
    chosen = next((word for word in words if not word.startswith("-")), None)
    try:
        args = parser(chosen).parse_args(words)
    except SystemExit as done:  # --help, --version
        sys.stdout.flush()
        return int(done.code or 0)
    status = args.run(args)
    sys.stdout.flush()
    return int(status)


def complain(message: str) -> None:
    """One line on standard error; names in it may come from anywhere."""
    from oomwatchd.render.escape import harmless

    with suppress(OSError):
        print(f"oomwatchd: {harmless(message)}", file=sys.stderr)
