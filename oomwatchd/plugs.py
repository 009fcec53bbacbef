"""Plug rooms: packages in which a module is a feature (sinks, findings, observers).

The modules are found by a scan of the package, so adding one is adding a file. A module whose name begins
with ``_`` belongs to the room itself and is no plug. A plug with settings of its own has a class
``Options`` (a ``msgspec.Struct``), which becomes its section of the configuration.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

import msgspec


def plugs(package: str) -> dict[str, ModuleType]:
    """The plug modules of ``package`` (a dotted name), imported, by name and in the order of names."""
    room = import_module(package)
    # not pkgutil: for this it brings inspect, ast and dis
    files = [name for directory in room.__path__ for name in os.listdir(directory)]  # noqa: PTH208
    names = sorted({name.partition(".")[0] for name in files if name.endswith((".py", ".pyc"))})
    return {name: import_module(f"{package}.{name}") for name in names if not name.startswith("_")}


def options(package: str) -> dict[str, type[msgspec.Struct]]:
    """The ``Options`` classes of the plugs of ``package`` that have one, by the plug's name."""
    found = {name: getattr(module, "Options", None) for name, module in plugs(package).items()}
    return {name: kind for name, kind in found.items() if kind is not None}
