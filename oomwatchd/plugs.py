"""Plug rooms: packages in which a module is a feature (sinks, findings, owners of cgroups, forms of lines).

The modules are found by a scan of the package, so adding one is adding a file. A module whose name begins
with ``_`` belongs to the room itself and is no plug. A plug with settings of its own has a class
``Options`` (a ``msgspec.Struct``), which becomes its section of the configuration.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

import msgspec


def names(package: str) -> list[str]:
    """The plugs of ``package`` (a dotted name), not imported, in order."""
    room = import_module(package)
    # not pkgutil: for this it brings inspect, ast and dis
    files = [name for directory in room.__path__ for name in os.listdir(directory)]  # noqa: PTH208 - the names alone
    found = {name.partition(".")[0] for name in files if name.endswith((".py", ".pyc"))}
    return sorted(name for name in found if not name.startswith("_"))


def plug(package: str, name: str) -> ModuleType:
    """One of them, imported."""
    return import_module(f"{package}.{name}")


def plugs(package: str) -> dict[str, ModuleType]:
    """All of them, imported, by name and in the order of names."""
    return {name: plug(package, name) for name in names(package)}


def options(package: str) -> dict[str, type[msgspec.Struct]]:
    """The ``Options`` classes of the plugs of ``package`` that have one, by the plug's name."""
    found = {name: getattr(module, "Options", None) for name, module in plugs(package).items()}
    return {name: kind for name, kind in found.items() if kind is not None}
