"""Signals, as bytes in a socket that the loop reads."""

from __future__ import annotations

import signal
import socket
from types import FrameType

#: Signals of others that end a process by default; nothing here has a use for them.
_IGNORED = (
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO),
    signal.SIGPWR,
)


def catch(*numbers: signal.Signals) -> socket.socket:
    """A socket that becomes readable with the number of each signal that comes; others are ignored."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, _woken)
    return reading


def _woken(_number: int, _frame: FrameType | None) -> None:
    """The byte in the wakeup socket is all that is wanted."""
