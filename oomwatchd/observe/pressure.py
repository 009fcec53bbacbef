"""Events for memory pressure and for changed swap areas, from the kernel.

Both files say "something happened" by POLLPRI, which :mod:`selectors` does not know; their other bits are
always set. An epoll that waits for nothing but POLLPRI is itself readable exactly then
(epoll(7), "an epoll file descriptor is itself poll-able"), and asking it clears the event.

Sources: Documentation/accounting/psi.rst, ``psi_trigger_poll()``, ``swaps_poll()``.
"""

from __future__ import annotations

import os
import select
from pathlib import Path

from oomwatchd.observe.host import Host

#: Tasks waited for memory 150 ms of 2 s. Without CAP_SYS_RESOURCE the kernel takes only multiples of 2 s.
#: The kernel overwrites the last byte with its own NUL: without one a digit would be lost.
TRIGGER = b"some 150000 2000000\0"


class Exceptional:
    """A file that reports by POLLPRI, as a descriptor that is readable then."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._epoll = select.epoll()
        try:
            self._epoll.register(descriptor, select.EPOLLPRI)
        except OSError:
            self._epoll.close()
            raise

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()
        os.close(self._descriptor)


def pressure_trigger(host: Host) -> Exceptional | str:
    """A descriptor that is readable at most once in two seconds while tasks wait for memory; or why there is
    none."""
    return _open(host.proc / "pressure/memory", TRIGGER)


def swap_changes(host: Host) -> Exceptional | str:
    """A descriptor that is readable when a swap area was added or removed; or why there is none."""
    return _open(host.proc / "swaps", None)


def _open(path: Path, order: bytes | None) -> Exceptional | str:
    flags = os.O_RDWR | os.O_NONBLOCK if order else os.O_RDONLY
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        return f"{path}: {error.strerror}"
    try:
        if order:
            os.write(descriptor, order)
        return Exceptional(descriptor)
    except OSError as error:
        os.close(descriptor)
        return f"{path}: {error.strerror}"
