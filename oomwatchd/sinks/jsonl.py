"""JSON Lines: each event as one line of JSON, appended to a file or written to standard output.

``path`` is a file's name, or ``-`` for standard output; empty (the default) switches the sink off. A line
is written with one ``write()`` to a file opened for appending. When logrotate has moved the file away or
removed it, the next event begins a new one: no signal is needed.
"""

from __future__ import annotations

import logging
import os
import select
from pathlib import Path

import msgspec

from oomwatchd.event import OomEvent
from oomwatchd.render.json import encode
from oomwatchd.sinks._error import SinkError

log = logging.getLogger(__name__)

STDOUT = 1
#: how long a full pipe is waited for, once: in a storm each event would wait so long for a hung reader
_PATIENCE_MS = 1000


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sinks.jsonl]``"""

    path: str = ""


class JsonLines:
    """The open file; see the module."""

    name = "jsonl"

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        #: the last line was cut short (disk full): the next one begins on a line of its own
        self._torn = False
        #: nobody read last time: whoever comes back is not waited for
        self._stuck = False

    def emit(self, event: OomEvent) -> None:
        """Append the event. Raises SinkError; a line cut short stays as it is in the file."""
        line = encode(event) + b"\n"
        if self._torn:
            line = b"\n" + line
        try:
            fd = self.file()
            taker = select.poll()  # select() knows no descriptors above 1023
            taker.register(fd, select.POLLOUT)
            self._stuck = not taker.poll(0 if self._stuck else _PATIENCE_MS)
            if self._stuck:
                raise SinkError(f"{self._path}: nobody reads")
            written = os.write(fd, line)
        except OSError as error:
            raise SinkError(f"{self._path}: {error.strerror}") from error
        if written < len(line):
            self._torn = self._torn or written > 0
            raise SinkError(f"{self._path}: only {written} of {len(line)} bytes were taken")
        self._torn = False

    def close(self) -> None:
        """Close the file."""
        if self._fd > STDOUT:
            os.close(self._fd)
        self._fd = -1

    def file(self) -> int:
        if self._path == "-":
            return STDOUT
        if self._fd >= 0:
            held = os.fstat(self._fd)
            try:
                named = Path(self._path).stat()
            except FileNotFoundError:
                named = None
            if named is None or (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino):
                self.close()
        if self._fd < 0:
            # O_NONBLOCK: a FIFO that nobody reads must not hold the worker; files do not care
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            self._fd = os.open(self._path, flags, 0o640)
            self._torn = False
        return self._fd


def open(options: Options) -> JsonLines | None:
    """The sink, None if no path is configured."""
    if not options.path:
        return None
    sink = JsonLines(options.path)
    if options.path != "-":
        try:
            sink.file()
        except OSError as error:
            log.warning("sink jsonl: cannot open %s yet: %s", options.path, error.strerror)
    return sink
