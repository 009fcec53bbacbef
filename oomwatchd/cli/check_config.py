"""``oomwatchd check-config``: check a configuration without starting the daemon."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec

from oomwatchd.cli import complain
from oomwatchd.config import DEFAULT_PATH, load
from oomwatchd.sinks import SinkError, has_several, open_sink

if TYPE_CHECKING:
    from oomwatchd.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "check-config",
        help="check a configuration file",
        description="Check a configuration file. Exit status 0: the daemon accepts it, 78: it does not.",
    )
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help=f"default: {DEFAULT_PATH} if it exists, else the built-in defaults",
    )
    parser.set_defaults(run=run)


def _unready(sinks: Mapping[str, msgspec.Struct]) -> Iterator[tuple[str, SinkError]]:
    """Network sinks that lack a library or a file that they name. The daemon accepts such a configuration:
    the events wait in its store."""
    for name, options in sinks.items():
        if not has_several(options):  # a sink on this host is not opened for a check
            continue
        try:
            sink = open_sink(options)
        except SinkError as error:
            yield name, error
        else:
            if sink is not None:
                sink.close()


def run(args: SimpleNamespace) -> int:
    """Say that the file is good; raises ConfigError with what is wrong."""
    configured, path = load(args.file)
    if configured.http.web_config_path is not None:
        from oomwatchd.web.webconfig import read_web_config  # YAML and bcrypt, for this alone

        read_web_config(configured.http.web_config_path)
    if configured.sources.follow:
        from oomwatchd.follow.address import places_of

        places_of(configured.sources, str(path))
    for name, error in _unready(configured.sinks):
        complain(f"sink {name} cannot work here as this user: {error}")
    print(f"there is no {DEFAULT_PATH}: the defaults apply" if path is None else f"{path}: ok")
    return 0
