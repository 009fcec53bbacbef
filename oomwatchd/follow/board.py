"""The data of one machine -> captures. Bounded in bytes, events and time.

Text is searched for words that every report holds (``sources.text.needles``). Only where one is found, the
text is read, with some text before it. So a machine with much other text costs only the search.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

import msgspec

from oomwatchd.event.identity import event_id
from oomwatchd.follow.mend import Mender
from oomwatchd.follow.netconsole import Item, Sequence, is_extended
from oomwatchd.records.capture import Followed, OomCapture, Source
from oomwatchd.records.kmsg import FACILITY_KERN, KmsgGap
from oomwatchd.reports.captures import Captures
from oomwatchd.sources.text import GrowingLog
from oomwatchd.sources.text.needles import NEEDLES, has_needle

#: bytes of one machine that may wait; more are dropped and counted
MAX_QUEUED = 256 << 10
#: text before a report that is read too: it shows how lines are broken, and their prefixes
CONTEXT = 32 << 10
#: bytes processed in one turn
PIECE = 64 << 10
#: limits of one machine's events: a burst, and a rate per second in the long run
BURST_EVENTS = 200
EVENTS_A_SECOND = 1.0
#: reports remembered to recognise them when a log is read again (``dmesg --follow`` after a break)
MAX_KNOWN = 512

_SEAM = max(map(len, NEEDLES)) + 2


class Board:
    """One machine. ``put`` never waits, and ``work`` never raises on any data.

    ``clock`` gives seconds since the epoch.
    """

    def __init__(self, followed: Followed, clock: Callable[[], float]) -> None:
        self.followed = followed
        self._clock = clock
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._cut = False
        self._text = _Text(followed)
        self._records: _Records | None = None
        self._known: OrderedDict[str, int] = OrderedDict()
        self._allowed = float(BURST_EVENTS)
        self._allowed_at: float | None = None
        #: recent seconds of work, by which the follower shares its time
        self.spent = 0.0
        #: when to call ``rest`` next, while it waits
        self.rest_due = 0.0
        self.last_came = 0.0
        self.bytes = 0
        #: by reason
        self.dropped: dict[str, int] = {}

    @property
    def lost(self) -> int:
        """The number of records that did not arrive, from their sequence numbers."""
        return 0 if self._records is None else self._records.sequence.lost

    @property
    def spoilt(self) -> int:
        """The number of lines that were left out because they lost bytes."""
        return self._text.left_out

    @property
    def busy(self) -> bool:
        """Whether there is work that can be done now."""
        return bool(self._queue)

    @property
    def waits(self) -> bool:
        """Whether time alone, without new data, may complete a report."""
        return self._text.waits or (self._records is not None and self._records.waits)

    @property
    def held(self) -> int:
        """Bytes of text being read, and bytes that wait."""
        return self._text.size + self._queued

    def drop(self, reason: str, count: int = 1) -> None:
        """Count data that was not used."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def put(self, data: bytes, now: float) -> None:
        """Take data, cut anywhere; datagrams one by one."""
        self.last_came = now
        self.bytes += len(data)
        if self._queued + len(data) > MAX_QUEUED:
            self.drop("bytes", len(data))
            self._cut = True
            return
        if self._cut:  # the data before and after a hole is not one line
            self._cut = False
            data = b"\n" + data if self.followed.via != "netconsole" else data
        self._queue.append(data)
        self._queued += len(data)

    def work(self, now: float, *, may_begin: bool = True) -> list[OomCapture]:
        """Process up to :data:`PIECE` waiting bytes; ``may_begin``: there is room to read another text."""
        found: list[OomCapture] = []
        size = 0
        while self._queue and size < PIECE:
            if not may_begin and not self._text.active and self._text.would_begin(self._queue[0]):
                break
            data = self._queue.popleft()
            size += len(data)
            self._queued -= len(data)
            if self.followed.via == "netconsole" and is_extended(data):
                if self._records is None:
                    self._records = _Records(self.followed)
                found += self._records.feed(data, now)
            else:
                found += self._text.feed(data, now)
        return self._told(found, now)

    def rest(self, now: float) -> list[OomCapture]:
        """Nothing waits at ``now``."""
        found = self._text.rest(now)
        if self._records is not None:
            found += self._records.rest(now)
        return self._told(found, now)

    def finish(self, now: float) -> list[OomCapture]:
        """The source has ended: nothing more comes."""
        found: list[OomCapture] = []
        while self._queue:
            found += self.work(now)
        found += self._told(self._text.finish(), now)
        if self._records is not None:
            found += self._told(self._records.finish(now), now)
        return found

    def _told(self, found: list[OomCapture], now: float) -> list[OomCapture]:
        complete = []
        for capture in found:
            capture = self._dated(capture)
            key = event_id(capture)
            if self._known.get(key, -1) >= len(capture.records):
                continue
            self._known[key] = len(capture.records)
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
            if self._has_share(now):
                complete.append(capture)
            else:
                self.drop("event")
        return complete

    def _has_share(self, now: float) -> bool:
        since = now if self._allowed_at is None else self._allowed_at
        self._allowed = min(BURST_EVENTS, self._allowed + (now - since) * EVENTS_A_SECOND)
        self._allowed_at = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True

    def _dated(self, capture: OomCapture) -> OomCapture:
        """The capture with its time of arrival. For a live source this is the report's time, unless its lines
        have their own; a command may show old reports."""
        moment = self._clock()
        offset = capture.wall_offset
        last = capture.records[-1].usec
        at_once = self.followed.via in ("serial", "netconsole", "syslog")
        if at_once and last is not None and all(record.wall is None for record in capture.records):
            offset = moment - last / 1e6
        source = capture.source
        if mended := self._text.mended(capture):
            followed = msgspec.structs.replace(self.followed, mended_lines=mended)
            source = msgspec.structs.replace(source, followed=followed)
        return msgspec.structs.replace(capture, detected=moment, wall_offset=offset, source=source)


class _Text:
    """A stream of text: searched, and read only where a report may be."""

    def __init__(self, followed: Followed) -> None:
        self._followed = followed
        #: only a serial line loses bytes
        self._mender = Mender() if followed.via == "serial" else None
        #: the end of the data so far
        self._tail = bytearray()
        self._log: GrowingLog | None = None
        self.size = 0

    @property
    def active(self) -> bool:
        return self._log is not None

    @property
    def waits(self) -> bool:
        return self.active or (self._mender is not None and self._mender.holds)

    def mended(self, capture: OomCapture) -> int:
        """How many lines of a report are not as they came."""
        if self._mender is None:
            return 0
        return sum(map(self._mender.has_mended, [record.text for record in capture.records]))

    @property
    def left_out(self) -> int:
        """Lines that were left out because they lost bytes."""
        return 0 if self._mender is None else self._mender.left_out

    def would_begin(self, data: bytes) -> bool:
        return _may_begin(bytes(self._tail[-_SEAM:]) + data)

    def feed(self, data: bytes, now: float) -> list[OomCapture]:
        return self._read(data if self._mender is None else self._mender.feed(data))

    def _read(self, data: bytes) -> list[OomCapture]:
        if not data:
            return []
        seam = bytes(self._tail[-_SEAM:])
        self._tail += data
        if self._log is None:
            if not _may_begin(seam + data):
                if len(self._tail) > 2 * CONTEXT:
                    del self._tail[: self._tail.find(b"\n", len(self._tail) - CONTEXT) + 1 or -CONTEXT]
                return []
            self._log = GrowingLog(followed=self._followed)
            data = bytes(self._tail)
        self.size += len(data)
        del self._tail[:-CONTEXT]
        return list(self._log.feed(data))

    def rest(self, now: float) -> list[OomCapture]:
        found = [] if self._mender is None else self._read(self._mender.flush())
        if self._log is None:
            return found
        found += self._log.rest(now)
        if not self._log.waits:
            self._log, self.size = None, 0
            # the rest was read; the last line may not be complete
            self._tail = bytearray(self._tail[self._tail.rfind(b"\n") + 1 :])
        return found

    def finish(self) -> list[OomCapture]:
        found = [] if self._mender is None else self._read(self._mender.flush())
        found += [] if self._log is None else list(self._log.finish())
        self._log, self.size = None, 0
        self._tail.clear()
        return found


class _Records:
    """A stream of records with sequence numbers."""

    def __init__(self, followed: Followed) -> None:
        source = Source(kind="file", form="kmsg", followed=followed)
        self.sequence = Sequence()
        self._captures = Captures(lambda: source)

    @property
    def waits(self) -> bool:
        return self.sequence.waits or not self._captures.is_empty

    def feed(self, data: bytes, now: float) -> list[OomCapture]:
        return self._take(self.sequence.feed(data, now))

    def rest(self, now: float) -> list[OomCapture]:
        found = self._take(self.sequence.rest(now))
        return found if self.sequence.waits else found + self._captures.drain(now)

    def finish(self, now: float) -> list[OomCapture]:
        return self._take(self.sequence.rest(now + 3600)) + self._captures.flush()

    def _take(self, items: list[Item]) -> list[OomCapture]:
        """Take records. Programs can write to the ring buffer, but never with the kernel's facility."""
        return [
            capture
            for item in items
            if isinstance(item, KmsgGap) or item.facility == FACILITY_KERN
            for capture in self._captures.feed(item)
        ]


def _may_begin(data: bytes) -> bool:
    """Whether a report may begin here, even if a line is broken inside its needle."""
    return has_needle(data) or (b"\n" in data and has_needle(data.replace(b"\r", b"").replace(b"\n", b"")))
