"""The daemon's own log: one line for each message on standard error, escaped, never waited for."""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Mapping

from oomwatchd.words.escape import harmless

#: sd-daemon(3): the level as ``<N>`` before the line, for a journal that reads standard error.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
#: A pipe or socket that is writable takes this much without blocking (PIPE_BUF is 4096).
LINE_BYTES = 2048


class StderrHandler(logging.Handler):
    """Writes to a descriptor only while it takes a line at once; else the line is dropped and counted.

    The journal that reads standard error may hang, and a log line must not stop the watch. Names in the lines
    (processes, cgroups) are escaped here, for all messages. A traceback appears only
    at level debug.
    """

    def __init__(self, descriptor: int, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._journal = is_journal(descriptor, environ)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(record)
        except Exception:  # a log line must never raise
            self.dropped += 1

    def _write(self, record: logging.LogRecord) -> None:
        if not any(event & select.POLLOUT for _, event in self._poll.poll(0)):
            self.dropped += 1
            return
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            self._line(logging.WARNING, f"{dropped} log lines dropped: standard error did not take them")
        self._line(record.levelno, record.getMessage())
        if record.exc_info and logging.getLogger().isEnabledFor(logging.DEBUG):
            for line in logging.Formatter().formatException(record.exc_info).splitlines():
                self._line(logging.DEBUG, line)

    def _line(self, level: int, text: str) -> None:
        if self._journal:
            line = f"<{_PRIORITIES.get(level, 6)}>{harmless(text)}"
        else:
            line = f"oomwatchd: {logging.getLevelName(level).lower()}: {harmless(text)}"
        os.write(self._descriptor, line.encode()[: LINE_BYTES - 1] + b"\n")


def is_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether the descriptor is the journal's: $JOURNAL_STREAM names its device and inode (systemd.exec(5)).
    That the variable is set proves nothing: children that write elsewhere inherit it."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def start_logging(level: str, environ: Mapping[str, str] = os.environ, descriptor: int = 2) -> None:
    """Send the log to standard error, from ``level`` (debug, info, warning, error) upwards."""
    logging.raiseExceptions = False
    logging.basicConfig(level=level.upper(), handlers=[StderrHandler(descriptor, environ)], force=True)


class OncePerKind:
    """Logs a failure once for each kind, and counts all: a fault that returns with each event must not fill
    the log."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self.counts: dict[tuple[str, str], int] = {}

    def failed(self, what: str, error: BaseException) -> None:
        """``what`` failed (a fixed set of names) with ``error``."""
        kind = (what, type(error).__name__)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.counts[kind] == 1:
            self._log.error(
                "%s failed: %s (logged once, counted from now on)", what, _words(error), exc_info=error
            )

    def well(self, what: str) -> None:
        """``what`` works again: its next failure is logged again."""
        for kind in [kind for kind in self.counts if kind[0] == what]:
            del self.counts[kind]


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
        return f"{harmless(error.filename)}: {error.strerror}"
    return f"{type(error).__name__}: {error}"
