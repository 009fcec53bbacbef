"""Sources on this host, opened: serial lines, files, pipes, commands.

Each source gives new data, reports faults, and is opened again when it has ended. Sources that listen on the
network are in :mod:`.network`.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import termios
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from oomwatchd.errors import NoInputError, OomwatchdError, PermissionDeniedError, UnavailableError
from oomwatchd.follow.address import Place
from oomwatchd.sources.text import FollowedFile
from oomwatchd.words.escape import harmless

#: the most bytes of one source in one turn, so that the others have their turn
MAX_READ = 256 << 10
#: how many bytes of a file's old content are read
MAX_OLD = 4 << 20
#: seconds until a source is opened again: the first wait is doubled up to the last
FIRST_WAIT, LAST_WAIT = 0.5, 60.0


class Arrival(NamedTuple):
    """Data that came. ``sender`` is None if the source has only one host; else an address, or the name that
    the sender gives itself."""

    sender: str | None
    data: bytes


class Channel:
    """One source. Its ``descriptors`` are polled; ``read`` reads one of them and never waits."""

    def __init__(self, place: Place) -> None:
        self.place = place
        #: counts of data that was not taken: datagram, foreign, connection
        self.dropped: dict[str, int] = {}
        #: descriptors closed since ``descriptors`` was last called
        self.closed: set[int] = set()

    def open(self) -> None:
        """Raises OomwatchdError."""
        raise NotImplementedError

    def descriptors(self) -> list[int]:
        raise NotImplementedError

    def read(self, descriptor: int) -> Iterator[Arrival]:
        """The data that came. Raises EOFError, with the reason, when the source has ended."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    #: whether it is read every now and then and not polled
    is_polled = True
    #: whether it is opened again when it has ended
    again = True

    def drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count


class _Stream(Channel):
    """One descriptor with bytes."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._descriptor = -1

    def descriptors(self) -> list[int]:
        return [self._descriptor] if self._descriptor >= 0 else []

    def read(self, descriptor: int) -> Iterator[Arrival]:
        taken = 0
        while taken < MAX_READ:
            try:
                data = os.read(descriptor, 64 << 10)
            except BlockingIOError:
                return
            except OSError as error:
                raise EOFError(error.strerror) from None
            if not data:
                raise EOFError(self.why_ended())
            taken += len(data)
            yield Arrival(None, data)

    def why_ended(self) -> str:
        return "it has ended"

    def close(self) -> None:
        if self._descriptor > 2:
            os.close(self._descriptor)
        self._descriptor = -1


def opened(path: str, flags: int) -> int:
    """Open a descriptor that never blocks. Raises OomwatchdError."""
    try:
        return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise PermissionDeniedError(
            f"{harmless(path)} may not be read", hint="for a serial line: the group dialout"
        ) from None
    except OSError as error:
        raise NoInputError(f"{harmless(path)} cannot be opened: {error.strerror}") from None


class Serial(_Stream):
    """A serial line: 8 bits, no parity, nothing interpreted, as termios(3) has it."""

    def open(self) -> None:
        descriptor = opened(self.place.path, os.O_RDONLY | os.O_NOCTTY)
        try:
            if not os.isatty(descriptor):
                raise NoInputError(
                    f"{harmless(self.place.path)} is no serial line",
                    hint="for a file or a pipe: file:, pipe:",
                )
            speed = getattr(termios, f"B{self.place.speed}")
            mode = termios.tcgetattr(descriptor)
            mode[0] = termios.IGNBRK  # a board that loses power sends a break
            mode[1] &= ~termios.OPOST
            mode[2] &= ~(termios.CSIZE | termios.PARENB | termios.CSTOPB | getattr(termios, "CRTSCTS", 0))
            mode[2] |= termios.CS8 | termios.CREAD | termios.CLOCAL
            mode[3] &= ~(termios.ICANON | termios.ECHO | termios.ECHONL | termios.ISIG | termios.IEXTEN)
            mode[4] = mode[5] = speed
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(descriptor, termios.TCSANOW, mode)
        except termios.error as error:
            os.close(descriptor)
            raise UnavailableError(
                f"{harmless(self.place.path)} does not take {self.place.speed} baud: {error.args[-1]}"
            ) from None
        except OomwatchdError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def why_ended(self) -> str:
        return "the line was hung up"


class Pipe(_Stream):
    """A pipe. Standard input ends once; a named pipe may be opened again by the next writer."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.again = place.path != "-"

    def open(self) -> None:
        if self.place.path == "-":
            if stat.S_ISREG(os.fstat(0).st_mode):
                raise NoInputError("standard input is a file", hint="give file:PATH, or use analyze")
            # not made non-blocking: that would change it for every process that shares it
            self._descriptor = 0
            return
        descriptor = opened(self.place.path, os.O_RDONLY)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            os.close(descriptor)
            what = "a directory" if stat.S_ISDIR(mode) else "a file"
            raise NoInputError(f"{harmless(self.place.path)} is {what}", hint="for a file: file:PATH")
        self._descriptor = descriptor

    def read(self, descriptor: int) -> Iterator[Arrival]:
        if descriptor != 0:
            yield from super().read(descriptor)
            return
        data = os.read(0, 64 << 10)  # once only: the poll said that there is data
        if not data:
            raise EOFError(self.why_ended())
        yield Arrival(None, data)


class File(Channel):
    """A file that grows and is rotated."""

    is_polled = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._file: FollowedFile | None = None

    def open(self) -> None:
        self._file = FollowedFile(self.place.path, MAX_OLD)

    def descriptors(self) -> list[int]:
        return []

    def news(self) -> Iterator[Arrival]:
        """The data since the last call."""
        if self._file is not None:
            for data in self._file.news():
                yield Arrival(None, data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Command(_Stream):
    """The output of a command, which runs without a shell and is started again when it ends. Its standard
    error tells why it ended."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._process: subprocess.Popen[bytes] | None = None
        self._said = -1

    def open(self) -> None:
        try:
            process = subprocess.Popen(
                self.place.words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise UnavailableError(
                f"cannot run {harmless(self.place.words[0])}: {error.strerror}", hint="check the command"
            ) from None
        assert process.stdout is not None and process.stderr is not None
        self._process = process
        self._descriptor, self._said = process.stdout.fileno(), process.stderr.fileno()
        for descriptor in (self._descriptor, self._said):
            os.set_blocking(descriptor, False)
        self._last_words = b""

    def descriptors(self) -> list[int]:
        return [one for one in (self._descriptor, self._said) if one >= 0]

    def read(self, descriptor: int) -> Iterator[Arrival]:
        if descriptor != self._said:
            yield from super().read(descriptor)
            return
        self._hear()

    def _hear(self) -> None:
        """Read its standard error: a full pipe would block it."""
        try:
            while data := os.read(self._said, 4096):
                self._last_words = (self._last_words + data)[-512:]
            self._said = -1  # closed
        except OSError:
            pass

    def why_ended(self) -> str:
        if self._said >= 0:
            self._hear()
        assert self._process is not None
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            status = None
        lines = self._last_words.decode("utf-8", "replace").strip().splitlines()
        how = "it closed its output" if status is None else f"it ended with status {status}"
        return f"{how}: {harmless(lines[-1])}" if lines else how

    def close(self) -> None:
        process, self._process = self._process, None
        self._descriptor = self._said = -1
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
