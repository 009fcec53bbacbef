"""``oomwatchd run``: watch the kernel log until told to end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from oomwatchd.daemon import imports

if TYPE_CHECKING:
    from oomwatchd.cli import Subparsers

#: modules that only the command line needs
_PARSING = ("oomwatchd.cli._arguments", "argparse", "gettext", "locale")


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "run",
        help="watch the kernel log, in the foreground",
        description="Watch the kernel log, store and explain each OOM report, serve metrics. Runs in the"
        " foreground; SIGTERM or Ctrl-C ends it, SIGHUP reads the configuration again.",
    )
    parser.add_argument(
        "--config",  # a path when pathlib may be imported
        metavar="FILE",
        help="configuration (default: /etc/oomwatchd/config.toml if it exists, else the built-in defaults)",
    )
    parser.set_defaults(run=run)


def run(args: SimpleNamespace) -> int:
    """The exit status; raises OomwatchdError when the watch cannot begin."""
    imports.forget(*_PARSING)
    imports.install(bare=True)
    from pathlib import Path

    from oomwatchd.daemon.main import Daemon

    path = None if args.config is None else Path(args.config)
    return Daemon(path, debug=getattr(args, "debug", False)).run()
