"""Follow a log file by its name while it grows and is rotated, like ``tail -F``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from oomwatchd.errors import NoInputError, OomwatchdError
from oomwatchd.sources.text.streams import PIECE, is_compressed, open_file
from oomwatchd.words.escape import harmless


class FollowedFile:
    """One followed file. :meth:`news` gives the data since the last call, at first from the file's beginning.

    A new file with the same name (logrotate) continues where the old one ended; a truncated file
    (``copytruncate``) is read from its beginning. Raises OomwatchdError if the file does not exist at first;
    a file that disappears later is waited for. ``most``: begin at most this many bytes before the end, with
    a whole line.
    """

    def __init__(self, path: str, most: int | None = None) -> None:
        self._path = Path(path)
        self._stream: BinaryIO = open_file(self._path)
        self._at = 0
        number = self._stream.fileno()
        if not stat.S_ISREG(os.fstat(number).st_mode) or is_compressed(os.pread(number, 10, 0)):
            raise NoInputError(
                f"{harmless(path)} is not a growing text file",
                hint="leave --follow out: a pipe is read as it comes",
            )
        size = os.fstat(number).st_size
        if most is not None and size > most:
            self._stream.seek(size - most)
            self._at = size - most + len(self._stream.readline())
            self._stream.seek(self._at)

    def close(self) -> None:
        """End."""
        self._stream.close()

    def news(self) -> Iterator[bytes]:
        """The data that came since the last call."""
        yield from self._read()
        while (stream := self._next()) is not None:
            yield from self._read()  # what was still written to the old one
            if stream is not self._stream:
                self._stream.close()
            self._stream, self._at = stream, 0
            stream.seek(0)
            yield from self._read()

    def _read(self) -> Iterator[bytes]:
        while data := self._stream.read(PIECE):
            self._at += len(data)
            yield data

    def _next(self) -> BinaryIO | None:
        """The file that has the name now, or this one again if it was truncated; None if nothing changed."""
        try:
            named = self._path.stat()
            if not os.path.samestat(named, os.fstat(self._stream.fileno())):
                return open_file(self._path)
        except (OSError, OomwatchdError):
            return None  # between two files
        return self._stream if named.st_size < self._at else None
