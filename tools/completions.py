"""Shell completions from the parsers; :mod:`tools.generate` writes them. Needs shtab."""

from __future__ import annotations

import argparse

import shtab

from oomwatchd.cli import COMMANDS
from tools.commandline import arguments, subcommands, whole

#: by shell, under the name that the shell looks for; one directory for each shell
FILES = {"bash": "bash/oomwatchd", "zsh": "zsh/_oomwatchd", "fish": "fish/oomwatchd.fish"}


def mark_paths(parser: argparse.ArgumentParser) -> None:
    """Let arguments that are files and directories be completed as such."""
    for action in arguments(parser):
        if kind := {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}.get(str(action.metavar)):
            action.complete = kind  # type: ignore[attr-defined]
    for below in subcommands(parser).values():
        mark_paths(below)


def completions() -> dict[str, str]:
    """The scripts by their file names."""
    top = whole()
    mark_paths(top)
    for name, parser in subcommands(top).items():
        parser.description = COMMANDS[name]
    return {name: shtab.complete(top, shell) for shell, name in FILES.items()}
