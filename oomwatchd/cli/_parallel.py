"""Explain the reports of a large log on all processors: this process reads and cuts them and writes the
events in their order, forked helpers explain some of them.

Pipes are all that is used, so it works on a read-only root and without /dev/shm. A small log, one processor
or other threads (a progress bar) need no helper. A helper that cannot be made, or dies, only costs time.
"""

from __future__ import annotations

import os
import select
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import BinaryIO

import msgspec

from oomwatchd.cli._output import Made, Writer
from oomwatchd.errors import OomwatchdError
from oomwatchd.event.storm import KEPT, together
from oomwatchd.records.capture import OomCapture

#: reports that are written before helpers are made, a tenth of a second of work
BEGIN = 64
#: reports that a helper gets at once
_BATCH = 16
#: more would wait for this process to cut reports for them
_MOST_HELPERS = 3
#: batches that may wait for one before them
_AHEAD = 32


def helpers_worth() -> int:
    """How many helpers this process may use."""
    threading = sys.modules.get("threading")  # who has threads has loaded it
    # a fork has only one thread, whatever the others hold
    alone = threading is None or threading.active_count() == 1
    return min(len(os.sched_getaffinity(0)) - 1, _MOST_HELPERS) if alone else 0


def write_all(found: Iterable[OomCapture], writer: Writer) -> int:
    """Write the events of all captures in their order; how many they were. Raises what ``found`` raises, when
    all before it is written."""
    captures = Ahead(iter(found))
    count = 0
    for capture in islice(captures, BEGIN):
        writer.write(capture, captures.following)
        count += 1
    if count == BEGIN:
        with _Crew(writer, helpers_worth()) as crew:
            for batch in _batches(captures):
                crew.explain(batch)
                count += len(batch)
    return count


class Ahead:
    """The captures in order, and those that were read ahead: the rest of the same exhaustion, or one. Raises
    what reading raised when all before it was given."""

    def __init__(self, captures: Iterator[OomCapture]) -> None:
        self._captures = captures
        self._waiting: list[OomCapture] = []
        self._error: OomwatchdError | None = None
        self._ended = False

    @property
    def following(self) -> list[OomCapture]:
        """What was read behind the capture that was given last."""
        return self._waiting

    def __iter__(self) -> Ahead:
        return self

    def __next__(self) -> OomCapture:
        waiting = self._waiting
        while not self._ended and (
            len(waiting) < 2 or (len(waiting) <= KEPT and together(waiting[0], waiting[-1]))
        ):
            try:
                waiting.append(next(self._captures))
            except StopIteration:
                self._ended = True
            except OomwatchdError as error:
                self._ended, self._error = True, error
        if waiting:
            return waiting.pop(0)
        if self._error is not None:
            raised, self._error = self._error, None
            raise raised
        raise StopIteration


def _batches(captures: Iterator[OomCapture]) -> Iterator[list[OomCapture]]:
    batch: list[OomCapture] = []
    try:
        for capture in captures:
            batch.append(capture)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    except OomwatchdError:
        yield batch
        raise
    yield batch


class _Job:
    """Some captures, and their events once they are made."""

    def __init__(self, captures: list[OomCapture]) -> None:
        self.captures = captures
        self.made: list[Made | None] | None = None
        self.helper: _Helper | None = None


class _Crew:
    """The helpers, and the batches whose events are not written yet, in order."""

    def __init__(self, writer: Writer, helpers: int) -> None:
        self._writer = writer
        self._jobs: deque[_Job] = deque()
        self._helpers: list[_Helper] = []
        for _ in range(helpers):
            try:
                self._helpers.append(_Helper(writer, self._helpers))
            except OSError:  # no process or no descriptor is left
                break

    def __enter__(self) -> _Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, OomwatchdError):
                self._write(0)
        finally:
            for helper in self._helpers:
                helper.close()

    def explain(self, captures: list[OomCapture]) -> None:
        """Explain them in a helper that has nothing to do, or else here; write what is ready."""
        job = _Job(captures)
        self._jobs.append(job)
        for helper in self._helpers:
            if helper.is_ready() and helper.give(job):
                break
        else:
            job.made = _made(self._writer, captures)
        self._write(_AHEAD)

    def _write(self, most: int) -> None:
        """Write the events that are ready, and wait for others while more than ``most`` batches are left."""
        while self._jobs and (self._jobs[0].made is not None or len(self._jobs) > most):
            job = self._jobs.popleft()
            if job.made is None and job.helper is not None:
                job.helper.collect()
            for capture, made in zip(job.captures, job.made or [None] * len(job.captures), strict=True):
                self._writer.take(capture, made)


class _Helper:
    """A forked process that explains one batch at a time."""

    def __init__(self, writer: Writer, others: Iterable[_Helper]) -> None:
        """Raises OSError."""
        theirs, ours = _pipe(), _pipe()  # what they read, what we read
        self._to, self._from = theirs[1], ours[0]
        self._job: _Job | None = None
        self._dead = False
        self._made = msgspec.msgpack.Decoder(list[Made | None])
        self._pid = os.fork()
        if self._pid == 0:
            try:
                import signal

                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end of the pipe ends it
                for other in others:
                    other.hang_up()
                self.hang_up()
                _serve(theirs[0], ours[1], writer)
            finally:
                os._exit(0)  # whatever happened: what the other process buffers is not written twice
        theirs[0].close()
        ours[1].close()

    def is_ready(self) -> bool:
        """Whether it has nothing to do; takes what it has made."""
        if self._job is not None and select.select([self._from], [], [], 0)[0]:
            self.collect()
        return self._job is None and not self._dead

    def give(self, job: _Job) -> bool:
        """Whether it could be given the batch."""
        try:
            _send(self._to, msgspec.msgpack.encode(job.captures))
        except UnicodeEncodeError:  # half a surrogate pair in a text
            return False
        except OSError:
            self._dead = True
            return False
        self._job = job
        job.helper = self
        return True

    def collect(self) -> None:
        """Wait for the events of its batch; without them this process makes them."""
        job, self._job = self._job, None
        if job is None:
            return
        try:
            job.made = self._made.decode(_received(self._from))
        except (EOFError, OSError, msgspec.DecodeError):
            self._dead = True
            job.made = [None] * len(job.captures)

    def hang_up(self) -> None:
        """Close this end of its pipes."""
        for stream in (self._from, self._to):
            with suppress(OSError):
                stream.close()

    def close(self) -> None:
        """End it."""
        self.hang_up()
        os.waitpid(self._pid, 0)


def _made(writer: Writer, captures: list[OomCapture]) -> list[Made | None]:
    """The events of a batch; what follows a report is known as far as the batch goes."""
    return [writer.made(capture, captures[n + 1 :]) for n, capture in enumerate(captures)]


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb"), os.fdopen(writing, "wb")


def _serve(batches: BinaryIO, events: BinaryIO, writer: Writer) -> None:
    """Explain batches until no more come."""
    decoder = msgspec.msgpack.Decoder(list[OomCapture])
    while True:
        try:
            captures = decoder.decode(_received(batches))
            _send(events, msgspec.msgpack.encode(_made(writer, captures)))
        except (EOFError, OSError):
            return


def _send(stream: BinaryIO, data: bytes) -> None:
    stream.write(len(data).to_bytes(8, "little"))
    stream.write(data)
    stream.flush()


def _received(stream: BinaryIO) -> bytes:
    """Raises EOFError where the other side has ended."""
    head = stream.read(8)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or len(data := stream.read(size)) < size:
        raise EOFError
    return data
