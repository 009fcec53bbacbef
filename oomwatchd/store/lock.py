"""A lock so that only one daemon uses a state directory: each of two would take the other's kills for known.

The lock is flock(2) on a file in the directory. It ends with the process, however that ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

from oomwatchd.errors import EX_CANTCREAT, OomwatchdError

LOCK_NAME = "daemon.lock"
#: a daemon that is being restarted may still be closing its files
_PATIENCE_SECONDS = 1.0


class StateInUseError(OomwatchdError):
    """Another daemon uses the state directory."""

    exit_status = EX_CANTCREAT


class StateLock:
    """Holds a state directory until it is closed or the process ends."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, directory: Path, patience: float = _PATIENCE_SECONDS) -> StateLock:
        """Take the lock. Raises StateInUseError if another process has it. A directory that cannot be locked
        (absent, not writable, a file system without locks) is left unlocked: opening the store then reports
        the fault."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(directory / LOCK_NAME, flags, 0o600)
        except OSError:
            return cls(None)
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return cls(descriptor)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    return cls(descriptor)
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        os.close(descriptor)
        raise StateInUseError(
            f"another oomwatchd{_pid_of(directory)} has the state directory {directory}",
            hint='end it, or set another state_directory, or [store] in_use = "memory" to watch without',
        )

    def close(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def holder(directory: Path) -> int | None:
    """The process that holds the lock; None if there is none or it is not known."""
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(descriptor, 32, 0).strip()
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(descriptor)


def _pid_of(directory: Path) -> str:
    pid = holder(directory)
    return "" if pid is None else f" (process {pid})"
