"""``oomwatchd run``: watch the kernel log until told to end."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from oomwatchd.daemon import lean

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "run",
        help="watch the kernel log, in the foreground",
        description="Watch the kernel log, store and explain each OOM report, serve metrics. Runs in the"
        " foreground; SIGTERM or Ctrl-C ends it, SIGHUP reads the configuration again.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (default: /etc/oomwatchd/config.toml if it exists, else the built-in defaults)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status; raises OomwatchdError when the watch cannot begin."""
    lean.install()
    from oomwatchd.daemon.main import Daemon

    return Daemon(args.config, debug=getattr(args, "debug", False)).run()
