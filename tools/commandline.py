"""The whole command line as a tree of parsers, for what is made from it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib import import_module

from oomwatchd.cli import COMMANDS
from oomwatchd.cli._arguments import parser


def whole() -> argparse.ArgumentParser:
    """The parser with the arguments of all commands, where ``oomwatchd`` itself loads those of one."""
    top = argparse.ArgumentParser(prog="oomwatchd", description=parser(None).description)
    top.add_argument("--version", action="version", version="", help="print the version")
    top.add_argument("--debug", action="store_true", help="log more, and show where errors come from")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name in COMMANDS:
        import_module(f"oomwatchd.cli.{name.replace('-', '_')}").add_parser(commands)
    return top


def subcommands(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command below, by its name."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def arguments(of: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Positional arguments, then options, but for --help and what is hidden."""
    own = [
        action
        for action in of._actions
        if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)
        and action.help != argparse.SUPPRESS
    ]
    yield from (action for action in own if not action.option_strings)
    yield from (action for action in own if action.option_strings)


def help_text(of: argparse.ArgumentParser, action: argparse.Action) -> str:
    """An argument's help with the values that it speaks of."""
    return of._get_formatter()._expand_help(action) if action.help else ""
