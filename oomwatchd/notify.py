"""Word to and descriptors from the service manager: sd_notify(3), sd_listen_fds(3).

Spoken here and not through python-systemd: its ``notify()`` sends on a socket that blocks while it holds
the interpreter lock, so a manager that does not read would freeze the watch, and it costs 1.7 MiB.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping

from oomwatchd.errors import UnavailableError
from oomwatchd.words.escape import harmless

#: SD_LISTEN_FDS_START
FIRST_DESCRIPTOR = 3


class Notifier:
    """Tells the service manager the daemon's state; does nothing where there is none. Thread-safe.

    ``watchdog_seconds``: the manager wants to hear of us this often (half the time it grants), None: not
    at all.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            self._address = address.replace("@", "\0", 1) if address[0] == "@" else address
        self.watchdog_seconds: float | None = None
        microseconds = environ.get("WATCHDOG_USEC", "")
        if microseconds.isdigit() and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self.watchdog_seconds = int(microseconds) / 2_000_000 or None

    def __call__(self, *assignments: str) -> bool:
        """Send ``READY=1``, ``STATUS=...`` and the like; whether it was sent. Never waits or raises."""
        if self._socket is None:
            return False
        try:
            message = "\n".join(harmless(assignment) for assignment in assignments)
            self._socket.sendto(message.encode(), self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def take_descriptors(environ: MutableMapping[str, str] = os.environ) -> dict[str, list[int]]:
    """The passed descriptors by the name their socket unit gives them (``FileDescriptorName=``), never
    by their order, which varies. The environment is cleared, so that no child takes them for its own."""
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    if pid != str(os.getpid()) or not count.isdigit():
        return found
    for index in range(int(count)):
        descriptor = FIRST_DESCRIPTOR + index
        try:
            os.set_inheritable(descriptor, False)
        except OSError as error:
            raise UnavailableError(
                f"passed descriptor {descriptor} of {harmless(count)}: {error.strerror}",
                hint="LISTEN_FDS names more descriptors than were passed",
            ) from error
        found.setdefault(names[index] if index < len(names) else "unknown", []).append(descriptor)
    return found
