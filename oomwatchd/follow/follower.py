"""The loop around all sources: reads new data, shares the time, and opens ended sources again.

Reading and processing are separate: sockets are emptied first, each machine has its own bounded queue, and
the machine that took the least time lately is served first. So a machine that sends much, or text that is
hard to read, delays only itself.

One long class: opening, reading and the turns of all sources share one selector and one clock.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from oomwatchd.errors import OomwatchdError
from oomwatchd.follow.address import NAME_CHARACTERS, Place
from oomwatchd.follow.board import Board
from oomwatchd.follow.channels import FIRST_WAIT, LAST_WAIT, Arrival, Channel, File
from oomwatchd.follow.network import CHANNELS
from oomwatchd.records.capture import Followed, OomCapture
from oomwatchd.sources.text import REST_SECONDS
from oomwatchd.words.escape import harmless

#: machines followed at once; beyond it the unknown sender that was silent longest is dropped
MAX_BOARDS = 128
SILENT_SECONDS = 60.0
#: seconds of processing between two polls of the sources
TURN_SECONDS = 0.05
#: bytes of text that may be read at the same time, for all machines
MAX_HELD = 8 << 20
#: a source that was open this long is opened again at once when it ends
STEADY_SECONDS = 60.0
OTHER = "other"


class _Source:
    """A channel, and when it is opened next."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.up = False
        self.wait = FIRST_WAIT
        self.due: float | None = None
        self.since = 0.0
        self.registered: set[int] = set()
        #: the last message about it
        self.said: str | None = None


class Follower:
    """Follows all of ``places``. ``take`` gets each capture and returns whether there was room for it;
    ``raw`` gets all data at once when it comes, with the machine's name; ``say`` gets a line when a source
    ends or is open again. ``now`` is a clock that does not go back, ``wall`` seconds since the epoch.
    """

    def __init__(
        self,
        places: Sequence[Place],
        take: Callable[[OomCapture], bool],
        *,
        say: Callable[[str], None],
        raw: Callable[[str, bytes], None] | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._take, self._say, self._raw = take, say, raw
        self._now, self._wall = now, wall
        self._selector = selectors.DefaultSelector()
        self._sources = [_Source(CHANNELS[place.kind](place)) for place in places]
        self._boards: dict[str, Board] = {}
        #: bytes of machines that found no room, and of dropped machines
        self._gone_bytes = 0
        self._gone_dropped: dict[str, int] = {}
        self._files_due = self._aged = now()
        for place in places:  # nobody else can take their room
            for name in [place.name] if place.name and not _is_shared(place) else []:
                self._board(name, place, None)
            for address, name in place.section.hosts.items():
                self._board(name, place, address)

    def open(self, *, strict: bool = False) -> None:
        """Open all sources. One that cannot be opened is reported and tried again later; if ``strict``,
        raises OomwatchdError."""
        for source in self._sources:
            try:
                self._open(source)
            except OomwatchdError as error:
                if strict:
                    self.close()
                    raise
                self._failed(source, str(error))

    @property
    def ended(self) -> bool:
        """Whether no source can give data any more."""
        return not any(source.up or source.due is not None for source in self._sources)

    @property
    def channels(self) -> list[Channel]:
        """For tests: the sources as they were given."""
        return [source.channel for source in self._sources]

    def states(self) -> dict[str, bool]:
        """Which sources are open."""
        return {source.channel.place.called: source.up for source in self._sources}

    def bytes(self) -> dict[str, int]:
        """Bytes read, by machine."""
        return {**{name: board.bytes for name, board in self._boards.items()}, OTHER: self._gone_bytes}

    def dropped(self) -> dict[tuple[str, str], int]:
        """Counts of data that was not used, by machine (or source) and reason."""
        found = {(OTHER, reason): count for reason, count in self._gone_dropped.items()}
        for name, board in self._boards.items():
            found |= {(name, reason): count for reason, count in board.dropped.items()}
            if board.lost:
                found[name, "lost"] = board.lost
            if board.spoilt:
                found[name, "spoilt"] = board.spoilt
        for source in self._sources:
            for reason, count in source.channel.dropped.items():
                found[source.channel.place.called, reason] = count
        return found

    # -- one turn ----------------------------------------------------------------------------------

    def turn(self, longest: float = 3600.0) -> None:
        """Wait at most ``longest`` seconds until data comes or something is due, and serve it."""
        for key, _ in self._selector.select(min(longest, self._timeout())):
            if isinstance(key.data, _Source):
                self._read(key.data, key.fd)
            else:
                key.data()
        now = self._now()
        if now >= self._files_due:
            self._files_due = now + REST_SECONDS
            for source in self._sources:
                if source.up and isinstance(source.channel, File):
                    self._arrived(source.channel, source.channel.news)
        for source in self._sources:
            if source.due is not None and now >= source.due:
                try:
                    self._open(source)
                except OomwatchdError as error:
                    self._failed(source, str(error))
        self._work()

    def wake_by(self, descriptor: int, wake: Callable[[], None]) -> None:
        """Call ``wake`` and end the turn when this descriptor becomes readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, wake)

    def finish(self) -> None:
        """All sources have ended: take the reports that are complete by that."""
        for board in self._boards.values():
            for capture in board.finish(self._now()):
                self._give(board, capture)

    def close(self) -> None:
        """Close all."""
        for source in self._sources:
            self._close(source)
        self._selector.close()

    def _timeout(self) -> float:
        if any(board.busy for board in self._boards.values()):
            return 0.0
        now = self._now()
        due = [source.due for source in self._sources if source.due is not None]
        if any(source.up and isinstance(source.channel, File) for source in self._sources):
            due.append(self._files_due)
        due += [board.rest_due for board in self._boards.values() if board.waits]
        return max(0.0, min(due) - now) if due else 3600.0

    # -- sources -----------------------------------------------------------------------------------

    def _open(self, source: _Source) -> None:
        source.due = None
        source.channel.open()
        source.up, source.since = True, self._now()
        self._register(source)
        if source.said is not None:
            source.said = None
            self._say(f"{source.channel.place.called}: open again")

    def _register(self, source: _Source) -> None:
        """Poll the channel's present descriptors: a listener's connections come and go."""
        wanted = set(source.channel.descriptors()) if source.up else set()
        # a new descriptor may have the number of a closed one
        for descriptor in (source.registered - wanted) | source.channel.closed:
            with suppress(KeyError, ValueError, OSError):
                self._selector.unregister(descriptor)
        for descriptor in wanted - (source.registered - source.channel.closed):
            self._selector.register(descriptor, selectors.EVENT_READ, source)
        source.channel.closed.clear()
        source.registered = wanted

    def _close(self, source: _Source) -> None:
        source.up = False
        self._register(source)
        source.channel.close()

    def _failed(self, source: _Source, why: str) -> None:
        place = source.channel.place
        if not source.channel.again:
            source.due = None
            return
        if source.since and self._now() - source.since > STEADY_SECONDS:
            source.wait = FIRST_WAIT
        source.since = 0.0
        source.due = self._now() + source.wait
        if why != source.said:
            self._say(f"{place.called}: {why}; tried again, at most every {LAST_WAIT:.0f} s")
            source.said = why
        source.wait = min(source.wait * 2, LAST_WAIT)

    def _read(self, source: _Source, descriptor: int) -> None:
        if descriptor not in source.registered:
            return  # closed a moment ago
        try:
            self._arrived(source.channel, lambda: source.channel.read(descriptor))
        except EOFError as error:
            self._close(source)
            self._failed(source, str(error))
            return
        self._register(source)

    def _arrived(self, channel: Channel, read: Callable[[], object]) -> None:
        arrivals = read()
        assert hasattr(arrivals, "__iter__")
        for arrival in arrivals:
            self._put(channel.place, arrival)

    def _put(self, place: Place, arrival: Arrival) -> None:
        name = place.name or "unknown"
        if arrival.sender is not None:
            hosts = place.section.hosts
            if hosts:
                known = hosts.get(arrival.sender)
                if known is None:
                    self._dropped("host")
                    return
                name = known
            elif place.name is None or place.section.relay:
                name = harmless(arrival.sender)[:NAME_CHARACTERS]
        board = self._board(name, place, arrival.sender)
        if board is None:
            self._dropped("host")
            return
        if self._raw is not None:
            self._raw(name, arrival.data)
        board.put(arrival.data, self._now())

    # -- machines ----------------------------------------------------------------------------------

    def _board(self, name: str, place: Place, address: str | None) -> Board | None:
        board = self._boards.get(name)
        if board is not None:
            return board
        if len(self._boards) >= MAX_BOARDS and not self._make_room():
            return None
        board = Board(Followed(name=name, via=place.via, address=address), self._wall)
        board.last_came = self._now()
        self._boards[name] = board
        return board

    def _make_room(self) -> bool:
        """Drop the unknown sender that was silent longest, if any is silent."""
        kept = {place.name for place in (source.channel.place for source in self._sources)}
        kept |= {name for s in self._sources for name in s.channel.place.section.hosts.values()}
        now = self._now()
        silent = [
            (board.last_came, name)
            for name, board in self._boards.items()
            if name not in kept
            and not board.busy
            and not board.waits
            and now - board.last_came > SILENT_SECONDS
        ]
        if not silent:
            return False
        board = self._boards.pop(min(silent)[1])
        self._gone_bytes += board.bytes
        for reason, count in board.dropped.items():
            self._dropped(reason, count)
        return True

    def _dropped(self, reason: str, count: int = 1) -> None:
        self._gone_dropped[reason] = self._gone_dropped.get(reason, 0) + count

    def _work(self) -> None:
        """Serve the machines for one turn; those that took the least time lately go first."""
        now = self._now()
        until = now + TURN_SECONDS
        if now - self._aged >= 1.0:
            for board in self._boards.values():
                board.spent /= 2
            self._aged = now
        held = sum(board.held for board in self._boards.values())
        waiting = [b for b in self._boards.values() if b.busy or (b.waits and now >= b.rest_due)]
        for board in sorted(waiting, key=lambda board: board.spent):
            if board.busy:
                found = board.work(now, may_begin=held < MAX_HELD)
            else:
                found = board.rest(now)
                board.rest_due = now + REST_SECONDS
            for capture in found:
                self._give(board, capture)
            began, now = now, self._now()
            board.spent += now - began
            if now >= until:
                break

    def _give(self, board: Board, capture: OomCapture) -> None:
        if not self._take(capture):
            board.drop("event")


def _is_shared(place: Place) -> bool:
    """Whether several machines may send to it."""
    return place.kind in ("netconsole", "syslog-udp", "syslog-tcp", "syslog-tls") and place.section.relay
