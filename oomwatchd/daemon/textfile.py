"""Metrics as a file for node_exporter's textfile collector: nobody need be there to be scraped.

Written where what was counted has changed, at most every few seconds, whole or not at all. The host's memory
is not in it: that changes all the time, and node_exporter has it.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from oomwatchd.daemon.log import OncePerKind
from oomwatchd.errors import UnavailableError
from oomwatchd.metrics import Metrics

log = logging.getLogger(__name__)


class Textfile:
    """The file. Belongs to the worker's thread."""

    def __init__(self, path: Path, metrics: Metrics, *, alone: bool) -> None:
        """``alone``: nobody scrapes ``metrics`` besides."""
        self._path, self._alone = path, alone
        self._metrics = metrics
        self._written: object = None
        self._failures = OncePerKind(log)

    def write(self) -> None:
        """Write it if anything has changed since. Never raises; a failure is said once and tried again."""
        state = self._metrics.counted()
        if state == self._written:
            return
        try:
            self._replace(self._text())
        except Exception as error:
            self._failures.failed("writing the metrics' textfile", error)
            self._metrics.part("textfile", up=False)
            return
        self._failures.well("writing the metrics' textfile")
        self._metrics.part("textfile", up=True)
        self._written = self._metrics.counted()

    def _text(self) -> bytes:
        try:
            from prometheus_client.exposition import generate_latest
        except ImportError as error:
            raise UnavailableError("prometheus-client is not installed") from error

        from oomwatchd.metrics.families import registry

        if self._alone:
            self._metrics.seen()
        return generate_latest(registry(self._metrics, host=False))

    def _replace(self, data: bytes) -> None:
        """node_exporter reads ``*.prom``: it must never see half of one."""
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                os.fchmod(descriptor, 0o644)  # whatever the umask is
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
            finally:
                os.close(descriptor)
            partial.replace(self._path)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise
