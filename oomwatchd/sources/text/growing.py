"""A log as it comes: bytes -> captures, each as soon as its report is complete. No file, no clock.

The encoding and the wrapping of a text are judged from the text as a whole, so its first lines alone decide
nothing while more may come. Whenever the source rests, the text so far is read on trial, and the result
counts only if it shows a report's end. A log that is fed without rests (a file, a fast pipe) is read as a
whole, as by :func:`.prefilter.records`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from oomwatchd.diagnosis.near import Near, neighbours
from oomwatchd.records.capture import Followed, OomCapture, Source
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.reports.assemble import DEADLINE_USEC, PAUSE_SECONDS
from oomwatchd.reports.captures import Captures
from oomwatchd.reports.duplicates import Duplicates
from oomwatchd.sources.text.manner import MAX_LINE
from oomwatchd.sources.text.needles import has_needle, spells_needle
from oomwatchd.sources.text.other_killers import OtherKillers
from oomwatchd.sources.text.prefilter import CONTEXT, PrefilteredReader
from oomwatchd.sources.text.reader import HEAD, TextReader

#: how often to call ``rest`` while ``waits`` is true: two rests give a report within half a second
REST_SECONDS: Final = PAUSE_SECONDS
#: how much of a text without a report is searched for lines that are near an OOM kill
BEGINNING: Final = 1 << 20


class GrowingLog:
    """The reports of one log that is fed in; never raises on its content.

    ``name`` names the log for people; ``boot_id`` is the boot of raw ``/dev/kmsg`` records; ``followed`` is
    the machine whose log it is. The caller feeds data and calls :meth:`rest` when the source has nothing more
    for now, and again every :data:`REST_SECONDS` while :attr:`waits` is true. Without rests, reports come
    later, at the latest with :meth:`finish`.
    """

    def __init__(
        self, name: str | None = None, boot_id: str | None = None, followed: Followed | None = None
    ) -> None:
        self._name = name
        self._boot_id = boot_id
        self._followed = followed
        #: the part of the last line that came so far
        self._line = b""
        self._fed_since_rest = False
        self._last_fed = 0.0
        #: the text's beginning while no report was found in it
        self._beginning: bytearray | None = bytearray()
        self._duplicates = Duplicates()
        self._begin()

    def _begin(self) -> None:
        reader = TextReader()
        self._captures = captures = Captures(self._source_of(reader))
        self._others = OtherKillers(self._source_of(reader))
        self._reading = PrefilteredReader(lambda: captures.idle, reader)
        #: the data fed to the reader before it has judged the text; None once it has
        self._window: bytearray | None = bytearray()
        #: whether the trial reading found a report without its end
        self._unfinished = False

    def _source_of(self, reader: TextReader) -> Callable[[], Source]:
        def source() -> Source:
            self._beginning = None
            return Source(
                kind="file",
                form=reader.form,
                boot_id=self._boot_id,
                name=self._name,
                followed=self._followed,
            )

        return source

    @property
    def neighbours(self) -> list[Near]:
        """Lines near an OOM kill in the text's beginning, if no report was found."""
        if self._beginning is None:
            return []
        text = bytes(self._beginning).replace(b"\0", b"").decode("utf-8", "backslashreplace")
        return neighbours(text.split("\n"))

    @property
    def waits(self) -> bool:
        """Whether time alone, without new data, may complete a report."""
        return self._fed_since_rest or self._unfinished or not self._captures.is_empty

    def feed(self, data: bytes) -> Iterator[OomCapture]:
        """Take the next data, cut anywhere; return reports that are certainly complete and wait for no better
        copy."""
        self._fed_since_rest = True
        if self._beginning is not None and len(self._beginning) < BEGINNING:
            self._beginning += data[:BEGINNING]
        end = data.rfind(b"\n") + 1
        self._line = data[end:] if end else (self._line + data)[-MAX_LINE:]
        if self._window is not None:
            self._window += data
            if len(self._window) > HEAD:
                self._window, self._unfinished = None, False
        for records in self._reading.feed(data):
            yield from self._once(self._taken(records))

    def _taken(self, records: list[KmsgRecord]) -> list[OomCapture]:
        """The captures of these records, in the order of the text."""
        if not self._others.may_hold(records):
            return self._captures.feed_all(records)
        return [one for record in records for one in self._captures.feed(record) + self._others.feed(record)]

    def _once(self, found: list[OomCapture]) -> list[OomCapture]:
        return [capture for one in found for capture in self._duplicates.take(one)]

    def rest(self, now: float) -> list[OomCapture]:
        """The source has nothing more at ``now`` (seconds of a clock that does not go back): return the
        reports that are complete by then."""
        fed, self._fed_since_rest = self._fed_since_rest, False
        if fed:
            self._last_fed = now
        found: list[OomCapture] = []
        if self._window is None:
            found += self._taken(self._reading.pause())
        else:
            overdue = self._unfinished and now - self._last_fed >= DEADLINE_USEC / 1e6
            if not fed and not overdue:
                return []
            found += self._judge(bytes(self._window), overdue)
            if self._window is not None:
                return []
            if overdue:
                self._captures.drain(self._last_fed)
        found += self._captures.drain(now) + self._others.flush()
        if self._captures.is_empty and self._captures.idle:
            self._restart(self._line)  # what comes next is judged by itself
        return self._once(found) + self._duplicates.release()

    def finish(self) -> Iterator[OomCapture]:
        """The log has ended."""
        yield from self._once(self._taken(self._reading.flush()))
        yield from self._once(self._captures.flush() + self._others.flush())
        yield from self._duplicates.release()

    def _judge(self, window: bytes, overdue: bool) -> list[OomCapture]:
        """Read the window on trial. The trial's result is kept if it shows a report's end, or if no end is
        expected any more."""
        if not spells_needle(window):
            if len(window) > CONTEXT:
                # text far before a report says nothing about it
                self._restart(window[window.find(b"\n", len(window) - CONTEXT) + 1 :])
            self._unfinished = False
            return []
        reader = TextReader()
        captures, others = Captures(self._source_of(reader)), OtherKillers(self._source_of(reader))
        records = reader.feed(window) + reader.pause()
        found = [one for record in records for one in captures.feed(record) + others.feed(record)]
        found += others.flush()
        self._unfinished = not captures.is_empty
        if found or captures.has_finished or overdue:
            self._captures, self._others = captures, others
            self._reading = PrefilteredReader(lambda: captures.idle, reader)
            self._window, self._unfinished = None, False
        elif not self._unfinished and len(window) > CONTEXT and not has_needle(window):
            self._restart(window[window.find(b"\n", len(window) - CONTEXT) + 1 :])
        return found

    def _restart(self, data: bytes) -> None:
        self._begin()
        self._window = bytearray(data)
        list(self._reading.feed(data))
