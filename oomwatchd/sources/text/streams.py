"""Open a log: a file, standard input or an open binary stream, compressed or not."""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol, cast

from oomwatchd.errors import NoInputError, PermissionDeniedError, UnavailableError
from oomwatchd.sources.text.growing import REST_SECONDS
from oomwatchd.words.escape import harmless

_BUFFER: Final = 1 << 18
#: bytes read at once
PIECE: Final = 1 << 20
#: a source that gives fewer bytes a second is slow: it pauses between lines
_SLOW: Final = 256 << 10
_GZIP: Final = b"\x1f\x8b"
_XZ: Final = b"\xfd7zXZ\0"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
#: bytes that are decompressed at once: at most 32 MiB come of them
_ZSTD_PIECE: Final = 1024
_BZIP2: Final = b"BZh"  # the level, and the first block
_BZIP2_BLOCK: Final = b"1AY&SY"
#: formats that are not text and are not unpacked here: first bytes, name, how to get the text
_FOREIGN: Final = (
    (b"PK\x03\x04", "a zip archive", "unzip -p {} | oomwatchd analyze"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x -so {} | oomwatchd analyze"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "lz4 -dc {} | oomwatchd analyze"),
    (b"LZIP", "compressed with lzip", "lzip -dc {} | oomwatchd analyze"),
    (b"\x1f\x9d", "compressed with compress", "uncompress -c {} | oomwatchd analyze"),
    (b"LPKSHHRH", "a journal file", "oomwatchd analyze --journal --directory DIR, where DIR holds it"),
)

Progress = Callable[[int], None]
"""Called with the number of bytes read of the file as it is (before decompression)."""


class _Counted(io.RawIOBase):
    """A raw stream that reports how much of it was read."""

    def __init__(self, stream: BinaryIO, progress: Progress | None) -> None:
        self._stream = stream
        self._progress = progress
        self._count = 0

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        # readinto1 of a buffered stream does not wait: a pipe gives what it has
        read = getattr(self._stream, "readinto1", None) or getattr(self._stream, "readinto", None)
        if read is None:
            data = self._stream.read(len(buffer))
            count = len(data)
            buffer[:count] = data
        else:
            while (
                there := read(buffer)
            ) is None:  # another process that shares the pipe may have made it non-blocking
                select.select([self._stream], [], [])
            count = there
        self._count += count
        if self._progress is not None:
            self._progress(self._count)
        return count

    def close(self) -> None:
        if not self.closed and self._stream is not sys.stdin.buffer:
            self._stream.close()
        super().close()


class _Decompressed(io.RawIOBase):
    """A decompressor that reads as much as it can of a damaged file.

    Compressed logs are often cut short, and the part before the damage is still useful. :exc:`NoInputError`
    is raised only if not one byte could be read; else ``damage`` says at the end why this is not the whole.
    """

    damage: str | None = None

    def __init__(self, stream: BinaryIO, name: str, errors: tuple[type[Exception], ...]) -> None:
        self._stream = stream
        self._errors = errors
        self._any = False
        self.name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            data = self._stream.read(len(buffer))
        except self._errors as error:
            if self._any:
                self.damage = str(error)
                return 0
            raise NoInputError(
                f"{self.name} cannot be decompressed: {error}", hint="check the file"
            ) from error
        self._any = self._any or bool(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class _Frame(Protocol):
    """What a decompressor of one zstd frame has."""

    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes, /) -> bytes: ...


class _Zstd:
    """zstd's frames as one stream, which says at its end if the last one is cut; zstandard's own streams
    do not."""

    def __init__(self, stream: BinaryIO, begin: Callable[[], _Frame]) -> None:
        self._stream = stream
        self._begin = begin
        self._frame: _Frame | None = None
        self._ready = memoryview(b"")
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end. EOFError if the data ends within a frame."""
        while not self._ready:
            data = self._rest or self._stream.read(_ZSTD_PIECE)
            if not data:
                if self._frame is not None:
                    raise EOFError("the data ends before the end of a zstd frame")
                return b""
            frame = self._frame = self._frame or self._begin()
            self._ready, self._rest = memoryview(frame.decompress(data)), b""
            if frame.eof:
                self._frame, self._rest = None, frame.unused_data
        data, self._ready = bytes(self._ready[:size]), self._ready[size:]
        return data

    def close(self) -> None:
        self._stream.close()


def open_log(source: Path | str | BinaryIO, progress: Progress | None = None) -> BinaryIO:
    """A binary stream of the log's plain text.

    ``source`` is a path, ``-`` for standard input, or an open binary stream; gzip, bzip2, xz and zstd are
    recognised by their first bytes. :exc:`NoInputError`, :exc:`PermissionDeniedError` if there is nothing to
    read, :exc:`UnavailableError` if zstd is needed and not installed, or bzip2 and Python was built without
    it.
    """
    if isinstance(source, Path | str):
        name = "standard input" if str(source) == "-" else harmless(str(source))
        stream: BinaryIO = sys.stdin.buffer if str(source) == "-" else open_file(Path(source))
    else:
        name = harmless(str(getattr(source, "name", "the stream")))
        stream = source
    counted = io.BufferedReader(_Counted(stream, progress), _BUFFER)
    try:
        magic = counted.peek(10)[:10]
    except OSError as error:
        raise NoInputError(f"{name} cannot be read: {error.strerror}") from error
    plain: object
    errors: tuple[type[Exception], ...]
    if magic.startswith(_GZIP):
        import gzip  # most logs are not compressed, and each takes a millisecond to load
        import zlib

        plain = gzip.GzipFile(fileobj=counted)
        errors = (EOFError, OSError, zlib.error)
    elif magic.startswith(_XZ):
        import lzma

        plain = lzma.LZMAFile(counted)  # noqa: SIM115 (closed with the stream around it)
        errors = (EOFError, lzma.LZMAError)
    elif magic.startswith(_ZSTD):
        try:
            import zstandard
        except ImportError as error:
            raise UnavailableError(
                f"{name} is compressed with zstd and the zstandard package is not installed",
                hint=f"install it, or: zstd -dc {name} | oomwatchd analyze -",
            ) from error
        plain = _Zstd(counted, lambda: cast(_Frame, zstandard.ZstdDecompressor().decompressobj()))
        errors = (EOFError, zstandard.ZstdError)
    elif magic.startswith(_BZIP2) and magic[4:] == _BZIP2_BLOCK:
        try:
            import bz2
        except ImportError as error:
            raise UnavailableError(
                f"{name} is compressed with bzip2 and this Python has no bz2",
                hint=f"bzip2 -dc {name} | oomwatchd analyze",
            ) from error
        plain = bz2.BZ2File(counted)
        errors = (EOFError, OSError)
    else:
        _refuse_foreign(magic, name)
        return counted
    return io.BufferedReader(_Decompressed(cast(BinaryIO, plain), name, errors), _BUFFER)


def check_whole(stream: BinaryIO) -> None:
    """To be called at the end of a stream from :func:`open_log`. Raises NoInputError if a compressed file is
    damaged or cut short, so that the rest was not read."""
    raw = getattr(stream, "raw", None)
    if isinstance(raw, _Decompressed) and raw.damage is not None:
        raise NoInputError(
            f"only the beginning of {raw.name} could be decompressed: {raw.damage}",
            hint="the file is cut short or damaged: check it, or copy it again",
        )


def pieces(stream: BinaryIO, waits: Callable[[], bool]) -> Iterator[bytes | None]:
    """The data of a stream from :func:`open_log` as it comes, in pieces of up to :data:`PIECE` bytes. None
    says that the source has nothing more for now: once when it pauses, then every :data:`REST_SECONDS` while
    ``waits`` is true. A file never pauses."""
    descriptor = _pausing(stream)
    if descriptor is None:
        while data := stream.read(PIECE):
            yield data
        return
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    rested, came = time.monotonic(), 0
    buffered = cast(io.BufferedReader, stream)
    while data := buffered.read1(PIECE):  # the first piece is there since the stream was opened
        parts, size = [data], len(data)
        while size < PIECE and poller.poll(0) and (more := buffered.read1(PIECE - size)):
            parts.append(more)
            size += len(more)
        came += size
        yield b"".join(parts)
        while not poller.poll(0):
            now = time.monotonic()
            # a source may never be quiet: if it is slow, it counts as pausing between its lines
            if now - rested >= REST_SECONDS and came < _SLOW * (now - rested):
                rested, came = now, 0
                yield None
            if poller.poll(REST_SECONDS * 1000 if waits() else None):
                break


def _pausing(stream: BinaryIO) -> int | None:
    """The descriptor of a stream that can pause: not a file, and not compressed; else None."""
    try:
        descriptor = stream.fileno()
        return None if stat.S_ISREG(os.fstat(descriptor).st_mode) else descriptor
    except OSError:
        return None


def is_compressed(first: bytes) -> bool:
    """Whether a file with these first 10 bytes is compressed, or not text at all."""
    marks = (_GZIP, _XZ, _ZSTD, _BZIP2, *(mark for mark, _, _ in _FOREIGN))
    return first.startswith(marks)


def _refuse_foreign(magic: bytes, name: str) -> None:
    """Refuse input that is not text: "no OOM report" would be a false answer. Raises NoInputError."""
    stored = magic[8:10] == b"\0\0"  # an archive that is not compressed holds the text as it is
    for first, what, way in _FOREIGN:
        if magic.startswith(first) and not (first == b"PK\x03\x04" and stored):
            raise NoInputError(f"{name} is {what}", hint=f"try: {way.format(name)}")


def open_file(path: Path) -> BinaryIO:
    name = harmless(str(path))
    try:
        return cast(BinaryIO, path.open("rb", buffering=0))
    except FileNotFoundError:
        raise NoInputError(
            f"there is no file {name}", hint="check the name, or give - for standard input"
        ) from None
    except IsADirectoryError:
        raise NoInputError(f"{name} is a directory", hint="name the log files in it") from None
    except PermissionError:
        raise PermissionDeniedError(f"{name} may not be read", hint="run as root or as its owner") from None
    except OSError as error:
        raise NoInputError(f"{name} cannot be read: {error.strerror}") from error
