"""Events for new cgroups, for processes that are moved into them and for changed limits.

Cgroups are made, joined and limited through the file system, and inotify(7) reports that to anybody who may
read the directory: IN_CREATE of a directory, IN_CLOSE_WRITE of a file.
(What the kernel itself changes in these files is IN_MODIFY, which is not asked for: a cgroup at its limit
would never be quiet.) After the first event the others wait in the kernel until they are read: one wakeup,
however much changes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from contextlib import suppress

#: include/uapi/linux/inotify.h
_IN_CLOSE_WRITE, _IN_CREATE, _IN_Q_OVERFLOW, _IN_IGNORED = 0x8, 0x100, 0x4000, 0x8000
_IN_ONLYDIR, _IN_DONT_FOLLOW = 0x1000000, 0x2000000
_WANTED = _IN_CREATE | _IN_CLOSE_WRITE | _IN_ONLYDIR | _IN_DONT_FOLLOW
#: struct inotify_event: wd, mask, cookie, len; a name follows
_EVENT = struct.Struct("iIII")
_BITE = 64 * 1024
_BITES = 8


class Changes:
    """Watches of directories, each by a number. Not thread-safe. ``obstacle`` says why there are none, None
    while there are; ``exhausted``: the kernel once refused one."""

    def __init__(self) -> None:
        self.obstacle: str | None = None
        self.exhausted = False
        self._descriptor = -1
        self._once = select.epoll()
        try:
            library = ctypes.CDLL(None, use_errno=True)
            self._add_watch, self._rm_watch = library.inotify_add_watch, library.inotify_rm_watch
            self._descriptor = library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, AttributeError) as error:
            self.obstacle = f"inotify: {error}"
            return
        if self._descriptor < 0:
            self.obstacle = f"inotify: {os.strerror(ctypes.get_errno())}"
            return
        self._once.register(self._descriptor, select.EPOLLIN | select.EPOLLONESHOT)

    def watch(self, directory: str) -> int | None:
        """The number of the directory's watch; None where the directory is gone or the kernel refuses more
        watches."""
        if self._descriptor < 0:
            return None
        number = int(self._add_watch(self._descriptor, os.fsencode(directory), _WANTED))
        if number < 0 and ctypes.get_errno() in (errno.ENOSPC, errno.ENOMEM):
            self.exhausted = True
        return number if number >= 0 else None

    def unwatch(self, number: int) -> None:
        """The directory is gone; on kernfs the kernel does not end the watch by itself."""
        self._rm_watch(self._descriptor, number)

    def fileno(self) -> int:
        """A descriptor that is readable once when something changed, and not again before :meth:`read`."""
        return self._once.fileno()

    def quiet(self) -> None:
        """Note that something changed, so that the descriptor is quiet until :meth:`read`."""
        self._once.poll(0)

    def read(self) -> tuple[dict[int, bool], bool]:
        """The watches in whose directories something changed, each with whether something was created there;
        and whether the kernel's queue overflowed."""
        changed: dict[int, bool] = {}
        overflow = False
        for _ in range(_BITES):
            try:
                data = os.read(self._descriptor, _BITE)
            except OSError:
                break
            at = 0
            while at + _EVENT.size <= len(data):
                number, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size + length
                overflow = overflow or bool(mask & _IN_Q_OVERFLOW)
                if not mask & _IN_IGNORED:
                    changed[number] = changed.get(number, False) or bool(mask & _IN_CREATE)
        self._once.modify(self._descriptor, select.EPOLLIN | select.EPOLLONESHOT)
        return changed, overflow

    def close(self) -> None:
        self._once.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        # a user has 128 of them
        with suppress(Exception):
            self.close()
