"""The command line. Each command is a module with ``add_parser(subparsers)`` and ``run(args) -> int``.

Only the module of the command that is asked for is imported: ``oomwatchd --version`` on a small board
must not load an HTTP server.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING

from oomwatchd.errors import EX_UNAVAILABLE, OomwatchdError

if TYPE_CHECKING:
    import argparse

    #: what add_subparsers() returns; argparse has no public name for it
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

#: command -> what it does, in the order of the help
COMMANDS = {
    "run": "watch the kernel log, in the foreground",
    "analyze": "explain the OOM reports of a saved or pasted log",
    "follow": "explain the OOM reports of other machines' logs as they come",
    "events": "list, show and export stored events",
    "explain": "say what a finding means",
    "check-config": "check a configuration file",
    "notify-test": "send a marked test event through each sink",
    "doctor": "say what works on this host, what does not, and how to fix it",
    "selftest": "provoke a harmless OOM and prove that it is reported",
}

EX_SOFTWARE = 70
EX_IOERR = 74
#: objects more than before at which garbage is looked for: what a report leaves behind is hardly ever a cycle
_GARBAGE = 20_000
#: 128 + the signal's number, as a shell reports it
EX_INTERRUPTED = 130
EX_BROKEN_PIPE = 141


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status (sysexits.h for errors). Never raises OomwatchdError."""
    words = sys.argv[1:] if argv is None else argv
    _hold_standard_streams()
    # a name that cannot be spelled in the locale's encoding must not end the command
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return _run(words, alone=argv is None)
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
            if error.errno in (errno.EMFILE, errno.ENFILE):
                complain("too many open files; raise the limit: LimitNOFILE= of the unit, or ulimit -n")
                return EX_UNAVAILABLE
            # a failed write that names no file is one to standard output
            complain(f"cannot write standard output: {error.strerror}" if _unnamed(error) else str(error))
            return EX_IOERR
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("oomwatchd"):
            # a small board may lack modules that only some commands need (docs/install.md)
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
    """A closed standard stream (``>&-``) must neither be None nor become the next file that is opened: it is
    replaced by one that fails, so that whatever needs it reports an error."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        with suppress(OSError):
            # each is open in the wrong direction only, so that reading or writing fails with EBADF
            descriptor = os.open(os.devnull, (os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)[number])
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _abandon_output() -> None:
    """Drop what is left in standard output's buffer: flushing it at exit would fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: Sequence[str], *, alone: bool) -> int:
    """``alone``: this process runs this command and nothing else."""
    if alone:
        gc.disable()  # what is imported stays, so looking for garbage in it is in vain
    try:
        args = _parsed(words, alone=alone)
    except SystemExit as done:  # --help, --version
        sys.stdout.flush()
        return int(done.code or 0)
    if alone:
        gc.freeze()
        if args.command == "analyze":
            gc.set_threshold(_GARBAGE)
        gc.enable()
    status = args.run(args)
    sys.stdout.flush()
    return int(status)


def _parsed(words: Sequence[str], *, alone: bool) -> SimpleNamespace:
    """The arguments, in an object that keeps nothing of the parser: the daemon drops argparse
    (``cli/run.py``)."""
    chosen = next((word for word in words if not word.startswith("-")), None)
    if alone and chosen is not None:
        from oomwatchd.daemon import imports

        imports.install()
    from oomwatchd.cli._arguments import parser

    return parser(chosen).parse_args(words, SimpleNamespace())


def complain(message: str) -> None:
    """One line on standard error; names in it may come from anywhere."""
    from oomwatchd.words.escape import harmless

    with suppress(OSError):
        print(f"oomwatchd: {harmless(message)}", file=sys.stderr)


def columns() -> int:
    """What ``shutil.get_terminal_size()`` says, which takes two compressors to import."""
    with suppress(KeyError, ValueError):
        if (told := int(os.environ["COLUMNS"])) > 0:
            return told
    with suppress(AttributeError, ValueError, OSError):
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    return 80
