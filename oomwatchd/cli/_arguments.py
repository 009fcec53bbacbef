"""The parser of the command line, which the daemon forgets when it has its arguments (``cli/run.py``)."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any, NoReturn

from oomwatchd import __version__
from oomwatchd.cli import COMMANDS, columns
from oomwatchd.errors import UsageError


class Formatter(argparse.HelpFormatter):
    """Knows its width: argparse makes one for each argument that is added, and imports shutil to find it."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"width": columns() - 2, **options})


class Parser(argparse.ArgumentParser):
    """Wrong arguments are one line and exit status 64, like every other error."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": Formatter, **options})

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(message, hint=f"see {self.prog} --help")


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
