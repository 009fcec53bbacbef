"""Plug room: where events go. One module for each sink; a module is found by being here.

A sink module has

* a docstring: its page in the documentation,
* ``Options``: a ``msgspec.Struct``, its section ``[sinks.NAME]`` of the configuration; with a field
  ``name`` there may be several of it,
* ``open(options)``: a Sink or a RemoteSink; None when it is switched off, which all but those of
  ``BY_DEFAULT`` are unless the configuration mentions them. Raises SinkError where it is switched on and
  cannot work.

Modules whose name begins with ``_`` are shared parts, not sinks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn, Protocol, TypeGuard

import msgspec

from oomwatchd import plugs
from oomwatchd.event import OomEvent
from oomwatchd.sinks._error import NotHereError, SinkError
from oomwatchd.sinks._particulars import TEST_SOURCE

__all__ = ["TEST_SOURCE", "OpenSinks", "RemoteSink", "Sink", "SinkError", "open_sinks"]

log = logging.getLogger(__name__)

#: on unless the configuration says otherwise; the others are not even loaded until it mentions them
BY_DEFAULT = frozenset({"journal"})


class Sink(Protocol):
    """A sink on this host: it gets each event when it happens, from one thread, in a try of its own."""

    @property
    def name(self) -> str:
        """The module's name."""

    def emit(self, event: OomEvent) -> None:
        """Pass the event on, without waiting for anything outside for longer than a moment.

        Raises SinkError when the event was not taken; it is not tried again.
        """

    def close(self) -> None:
        """Free what is held."""


class RemoteSink(Protocol):
    """A sink across the network: the outbox serves it, in a thread of its own."""

    @property
    def name(self) -> str:
        """The module's name, followed by a hyphen and its own name where it has one."""

    @property
    def batch(self) -> int:
        """How many events it takes at once."""

    def deliver(self, events: Sequence[OomEvent]) -> None:
        """Hand the events over, all or none; may take seconds. Raises SinkError, and is tried again."""

    def close(self) -> None:
        """Free what is held."""


class OpenSinks(NamedTuple):
    """What is switched on, in the order of the modules' names; ``absent`` are the local ones that cannot
    work."""

    local: list[Sink]
    remote: list[RemoteSink]
    absent: list[str]


def open_sinks(options: Mapping[str, msgspec.Struct]) -> OpenSinks:
    """The sinks that are switched on; ``options`` by what each is called, as checked by the configuration.
    A sink that cannot work is logged once."""
    opened = OpenSinks([], [], [])
    for kind in plugs.names(__name__):
        own = {n: found for n, found in options.items() if type(found).__module__ == f"{__name__}.{kind}"}
        if not own and kind not in BY_DEFAULT:
            continue
        for name, found in (own or {kind: plugs.plug(__name__, kind).Options()}).items():
            try:
                sink = open_sink(found)
            except SinkError as error:
                if isinstance(error, NotHereError) and found == type(found)():
                    # it is a default and not needed here: no alert on a part that is down
                    log.info("sink %s: %s, and none is needed", name, error)
                    continue
                if not has_several(found):
                    log.warning("sink %s: %s: not used", name, error)
                    opened.absent.append(name)
                    continue
                log.error("sink %s cannot work: %s; events wait in the store", name, error)
                sink = _Unready(name, error)
            if is_local(sink):
                opened.local.append(sink)
            elif is_remote(sink):
                opened.remote.append(sink)
    return opened


def has_several(options: msgspec.Struct) -> bool:
    """Whether there may be several sinks with such options, each with a name: those across the network."""
    return "name" in options.__struct_fields__


def is_local(sink: object) -> TypeGuard[Sink]:
    """A sink of this host. Not isinstance(): with a protocol it brings inspect, ast and dis from Python 3.12
    on."""
    return hasattr(sink, "emit")


def is_remote(sink: object) -> TypeGuard[RemoteSink]:
    """A sink across the network."""
    return hasattr(sink, "deliver")


def open_sink(options: msgspec.Struct) -> Sink | RemoteSink | None:
    """The sink with these options, None if it is switched off. Raises SinkError, whatever went wrong: one
    that cannot be opened costs none of the others."""
    module = plugs.plug(__name__, type(options).__module__.rpartition(".")[2])
    try:
        sink: Sink | RemoteSink | None = module.open(options)
    except SinkError:
        raise
    except ModuleNotFoundError as error:
        raise SinkError(f"needs the Python module {error.name}, which is not installed") from error
    except Exception as error:
        raise SinkError(f"{type(error).__name__}: {error}") from error
    return sink


class _Unready:
    """Takes the place of a remote sink that cannot be opened, so that its events wait for it."""

    batch = 1

    def __init__(self, name: str, error: SinkError) -> None:
        self.name = name
        self._error = error

    def deliver(self, events: Sequence[OomEvent]) -> NoReturn:
        raise self._error

    def close(self) -> None:
        pass
