"""``oomwatchd check-config``: is this configuration one that the daemon takes?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from oomwatchd.config import DEFAULT_PATH, load

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "check-config",
        help="check a configuration file",
        description="Check a configuration file. Exit status 0: the daemon takes it, 78: it does not.",
    )
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help=f"default: {DEFAULT_PATH} if it exists, else the built-in defaults",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Say that the file is good; raises ConfigError with what is wrong."""
    configured, path = load(args.file)
    if configured.http.web_config_path is not None:
        from oomwatchd.web.access import read_web_config  # YAML and bcrypt, for this alone

        read_web_config(configured.http.web_config_path)
    print(f"there is no {DEFAULT_PATH}: the defaults hold" if path is None else f"{path}: ok")
    return 0
