"""The table of mounts and the table of swap areas.

Sources: proc_pid_mountinfo(5), proc_swaps(5), ``seq_path()``.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from oomwatchd.words.deferred import deferred

#: how the kernel writes blanks, line ends and backslashes of names
_ESCAPE = deferred(rb"\\([0-7]{3})")


class Mount(msgspec.Struct, frozen=True):
    """One mount. ``root`` is the directory of the file system that is seen at ``point``; ``device`` is
    "major:minor", ``options`` are the file system's own, ``number`` is the mount's own (``mnt_id`` of
    /proc/PID/fdinfo). Names are as the file system has them."""

    device: bytes
    root: bytes
    point: bytes
    kind: bytes
    options: bytes
    number: bytes = b""


def mounts(mountinfo: bytes) -> Iterator[Mount]:
    """The mounts of /proc/PID/mountinfo in its order; lines that are none are left out."""
    for line in mountinfo.split(b"\n"):
        before, _, after = line.partition(b" - ")
        where, what = before.split(b" "), after.split(b" ")
        if len(where) > 4 and len(what) > 2:
            root, point = map(_unescaped, where[3:5])
            yield Mount(where[2], root, point, what[0], what[2], where[0])


def swap_areas(swaps: bytes) -> Iterator[tuple[bytes, int]]:
    """The areas of /proc/swaps: path, bytes."""
    for line in swaps.split(b"\n")[1:]:
        words = line.split()
        if len(words) >= 3 and words[2].isdigit():
            yield _unescaped(words[0]), int(words[2]) * 1024


def _unescaped(name: bytes) -> bytes:
    return _ESCAPE.sub(lambda m: bytes([int(m[1], 8) & 255]), name)
