"""The sinks of the configuration: local ones get each event at once, remote ones read it from the store."""

from __future__ import annotations

import logging
import socket
from time import monotonic

from oomwatchd.config import Config
from oomwatchd.daemon.log import OncePerKind
from oomwatchd.delivery.outbox import Outbox
from oomwatchd.event import OomEvent
from oomwatchd.metrics import Metrics
from oomwatchd.sinks import Sink, open_sinks
from oomwatchd.store import Store

log = logging.getLogger(__name__)


class Outputs:
    """Each sink is called in a try of its own, so that none costs another an event. Belongs to the worker's
    thread."""

    def __init__(self, metrics: Metrics, failures: OncePerKind, boot_id: str | None) -> None:
        self._metrics = metrics
        self._failures = failures
        self._boot_id = boot_id
        self._sinks: list[Sink] = []
        self._outbox: Outbox | None = None

    def open(self, config: Config, store: Store) -> None:
        """Open what the configuration names; ``start`` follows."""
        try:
            self._sinks, remote, absent = open_sinks(config.sinks)
            present = [sink.name for sink in self._sinks] + [sink.name for sink in remote]
            self._metrics.sinks([*absent, *present])
            for sink in self._sinks:
                self._metrics.sink(sink.name, up=True)
            for name in absent:
                self._metrics.sink(name, up=False)
            if remote and _is_alone():
                log.warning(
                    "no network here, which these sinks need: %s; the systemd service gets it by the drop-in"
                    " network.conf",
                    ", ".join(sink.name for sink in remote),
                )
            self._outbox = Outbox(remote, store, self._metrics.delivery, self._boot_id)
        except Exception as error:
            self._failures.failed("opening the sinks", error)

    def start(self) -> None:
        """Begin to deliver across the network."""
        if self._outbox is not None:
            self._outbox.start()

    def notify(self) -> None:
        """The store has news."""
        if self._outbox is not None:
            self._outbox.notify()

    def look(self) -> None:
        """Report the state of the deliveries; to be called every few seconds."""
        if self._outbox is not None:
            self._outbox.look()

    def emit(self, event: OomEvent) -> None:
        """Hand an event to the local sinks."""
        for sink in self._sinks:
            began, well = monotonic(), False
            try:
                sink.emit(event)
                well = True
            except Exception as error:
                self._metrics.sink_failed(sink.name)
                self._failures.failed(f"sink {sink.name}", error)
            else:
                self._failures.well(f"sink {sink.name}")
            self._metrics.sink(sink.name, up=well, seconds=monotonic() - began)

    def sends_to(self, name: str) -> bool:
        """Whether a sink of this host and of this name takes events."""
        return any(sink.name == name for sink in self._sinks)

    def close(self) -> None:
        """End all of them; ``open`` may follow."""
        if self._outbox is not None:
            self._outbox.stop()
            self._outbox = None
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:
                self._failures.failed(f"closing sink {sink.name}", error)
        self._sinks = []


def _is_alone() -> bool:
    """Whether this is a network namespace with nothing but the loopback interface (PrivateNetwork=)."""
    try:
        return {name for _, name in socket.if_nameindex()} <= {"lo"}
    except OSError:  # no netlink socket: not known
        return False
