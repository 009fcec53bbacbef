"""Who may import whom: the core knows no clock, file, socket or thread and no edge; edges know the core.

The table of docs/architecture.md, held by the syntax trees of the modules.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import oomwatchd

PACKAGE = Path(oomwatchd.__file__).parent
#: the rooms of the core in the order of the line: each may import what stands before it, and itself
LINE = (
    *("errors", "plugs", "words", "records", "procfs", "cgroupfs", "formats", "reports"),
    *("warning", "diagnosis", "event", "delivery.policy", "render"),
)
CORE = {*LINE} - {"plugs"}
EDGES = {"sources", "notify", "observe", "store", "sinks", "metrics", "web", "config", "delivery", "follow"}
#: edges that stand on other edges
ABOVE = {"follow": {"sources", "config"}}
#: may import edges
TOP = {"daemon", "cli", "__main__"}
#: finds plugs by scanning a package, names this machine; belong to no side
NEUTRAL = {"plugs", "hostname", "__init__"}
#: standard modules that bring the outside world (a clock, a file, a socket, a thread, a process) in
OUTSIDE = {
    *("time", "sched", "signal", "select", "selectors", "threading", "_thread", "queue"),
    *("concurrent", "multiprocessing", "subprocess", "asyncio", "contextvars", "ctypes", "mmap", "fcntl"),
    *("os", "io", "pathlib", "shutil", "tempfile", "glob", "fileinput", "sqlite3", "platform", "resource"),
    *("socket", "socketserver", "ssl", "http", "urllib", "logging", "syslog", "random", "secrets", "uuid"),
    *("psutil", "pyudev", "systemd", "prometheus_client", "cheroot", "zstandard"),
}
#: calls that do the same without an import
OUTSIDE_CALLS = {"open", "input", "print", "__import__", "breakpoint", ".now", ".utcnow", ".today"}


def modules() -> list[Path]:
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def room_of(module: Path) -> str:
    """The room a module stands in; a module of its own side within a room is a room by itself."""
    dotted = ".".join(module.with_suffix("").parts)
    return dotted if dotted in CORE else module.parts[0].removesuffix(".py")


def target_of(rest: str) -> str:
    """The room of what is imported, without the package's name."""
    return next(
        (room for room in CORE if "." in room and f"{rest}.".startswith(f"{room}.")), rest.partition(".")[0]
    )


def imported(tree: ast.Module, package: tuple[str, ...]) -> Iterator[str]:
    """Dotted names a module imports; ``package`` is the one it stands in, for relative imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join((*base, *([node.module] if node.module else [])))
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def called(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield f".{node.func.attr}"


def offences(source: str, module: Path) -> list[str]:
    """What ``module`` must not do, one line each."""
    room = room_of(module)
    tree = ast.parse(source)
    package = ("oomwatchd", *module.parts[:-1])
    found = []
    for name in imported(tree, package):
        head, _, rest = name.partition(".")
        if head == "oomwatchd":
            target = target_of(rest)
            if target in TOP and room not in TOP:
                found.append(f"imports {name}")
            elif target in EDGES - ABOVE.get(room, set()) and room not in TOP and target != room:
                found.append(f"imports the edge {name}")
            elif room in LINE and target in LINE and LINE.index(target) > LINE.index(room):
                found.append(f"imports {name}, which comes later in the line")
        elif room in CORE and head in OUTSIDE:
            found.append(f"imports {name}")
    if room in CORE:
        found += [f"calls {name}()" for name in called(tree) if name in OUTSIDE_CALLS]
    return found


@pytest.mark.parametrize("module", modules(), ids=str)
def test_every_module_has_a_room_and_keeps_its_side(module: Path) -> None:
    assert room_of(module) in CORE | EDGES | TOP | NEUTRAL, "a new room: say which side it is on"
    assert offences((PACKAGE / module).read_text(), module) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("reports/decode.py", "import time"),
        ("formats/oom_kill.py", "from os import path"),
        ("render/text.py", "def f():\n    import socket"),
        ("findings/swap.py", "from oomwatchd import store"),
        ("reports/assemble.py", "from oomwatchd.sources.kmsg import KmsgReader"),
        ("findings/swap.py", "from ..observe import meminfo"),
        ("event.py", "open('/proc/meminfo')"),
        ("event.py", "import datetime\ndatetime.datetime.now()"),
        ("sinks/jsonl.py", "from oomwatchd.store import Store"),
        ("store.py", "from oomwatchd.daemon import run"),
        ("store.py", "import oomwatchd.cli.run"),
        ("formats/oom_kill.py", "from oomwatchd.reports import decode"),
        ("words/amounts.py", "from oomwatchd.render.fields import held"),
        ("sources/kmsg.py", "from oomwatchd.follow.board import Board"),
        ("follow/board.py", "from oomwatchd.store import Store"),
        ("delivery/policy.py", "from oomwatchd.delivery.outbox import Outbox"),
    ],
)
def test_an_offence_is_found(module: str, source: str) -> None:
    assert len(offences(source, Path(module))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("reports/decode.py", "import re, zlib, datetime, msgspec\nfrom oomwatchd.formats import oom_kill"),
        ("store.py", "import sqlite3, threading\nfrom oomwatchd.records.capture import OomCapture"),
        ("sinks/journal.py", "from . import native\nfrom oomwatchd.sinks.native import send"),
        ("follow/board.py", "from oomwatchd.sources.text import GrowingLog"),
        ("cli/run.py", "from oomwatchd.daemon import run\nfrom oomwatchd.store import Store"),
    ],
)
def test_what_is_allowed_is_no_offence(module: str, source: str) -> None:
    assert offences(source, Path(module)) == []
