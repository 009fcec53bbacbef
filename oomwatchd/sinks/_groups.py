"""A crash loop in a chat: the first event at once, then counts, less and less often.

The first event of a group (:mod:`oomwatchd.event.groups`) is sent as it comes. What follows is held for half
a minute, then for five minutes, then for an hour each time, and sent as one message: how many, since when.
Only the messages are held: each event is stored, counted, and sent whole to every other sink. After six hours
of quiet the next event is a first one again. When the daemon ends in good order it sends what is held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from oomwatchd.event import OomEvent
from oomwatchd.event.groups import GAP_SECONDS, Key, key_of_event
from oomwatchd.sinks._error import SinkError

#: how long what follows a message is held, after the first, the second, and each further one
HOLD_SECONDS = (30.0, 300.0, 3600.0)
#: until a message that failed is tried again
_AGAIN_SECONDS = 60.0
#: groups that are remembered
_GROUPS = 64


class Message(NamedTuple):
    """A message: the newest event, how many events it stands for, and the time of the first of them (RFC
    3339)."""

    event: OomEvent
    times: int = 1
    first: str | None = None


class _Group(msgspec.Struct):
    #: when the last event came, and until when what follows is held
    last: float
    until: float
    messages: int
    message: Message
    held: Message | None = None


class Groups:
    """What was sent of each group. Times are seconds of a clock that does not jump; events of equal ``key``
    are one group."""

    def __init__(self, key: Callable[[OomEvent], Key] = key_of_event) -> None:
        self._key = key
        self._groups: dict[Key, _Group] = {}

    def take(self, event: OomEvent, now: float) -> Message | None:
        """The message to send for this event; None: it is held. Asked again about the event that came
        last, the answer is the same: a delivery is tried more than once."""
        key = self._key(event)
        group = self._groups.pop(key, None)
        if group is None or now - group.last > GAP_SECONDS:
            message = Message(event, 1, event.time.wall)
            self._groups[key] = _Group(now, now + HOLD_SECONDS[0], 1, message)
            self._forget()
            return message
        self._groups[key] = group
        if group.held is None and event.id == group.message.event.id:  # again, or a later revision of it
            group.message = group.message._replace(event=event)
            return group.message
        if group.held is not None and event.id in (group.held.event.id, group.message.event.id):
            return None
        group.last = now
        held = group.held or Message(event, 0, event.time.wall)
        group.held = Message(event, held.times + 1, held.first)
        return self._release(group, now) if now >= group.until else None

    def due(self, now: float) -> float | None:
        """Seconds until something held is due; None: nothing is held."""
        held = [group.until for group in self._groups.values() if group.held is not None]
        return max(0.0, min(held) - now) if held else None

    def next_held(self, now: float | None) -> Message | None:
        """What is to be told now of what is held, None: all of it; :meth:`done` when it was."""
        for group in self._groups.values():
            if group.held is not None and (now is None or group.until <= now):
                return group.held
        return None

    def done(self, message: Message, now: float) -> None:
        """What was held has been sent."""
        for group in self._groups.values():
            if group.held is message:
                self._release(group, now)

    def postpone(self, message: Message, until: float) -> None:
        """It could not be sent now."""
        for group in self._groups.values():
            if group.held is message:
                group.until = until

    @staticmethod
    def _release(group: _Group, now: float) -> Message:
        assert group.held is not None
        message = group.message = group.held
        group.held = None
        group.until = now + HOLD_SECONDS[min(group.messages, len(HOLD_SECONDS) - 1)]
        group.messages += 1
        return message

    def _forget(self) -> None:
        """Keep the bound; groups that hold nothing go first."""
        if len(self._groups) > _GROUPS:
            empty = (key for key, group in self._groups.items() if group.held is None)
            del self._groups[next(empty, next(iter(self._groups)))]


class Grouping(ABC):
    """A network sink that sends repeats as one message; with ``groups`` None each event is a message.
    ``steady`` is a clock that does not jump."""

    def __init__(self, groups: Groups | None, steady: Callable[[], float]) -> None:
        self._groups = groups
        self._steady = steady

    @abstractmethod
    def send(self, message: Message) -> None:
        """One message. Raises SinkError."""

    def deliver(self, events: Sequence[OomEvent]) -> None:
        """Tell what is not held. Raises SinkError."""
        for event in events:
            message = Message(event) if self._groups is None else self._groups.take(event, self._steady())
            if message is not None:
                self.send(message)

    def due(self) -> float | None:
        """Seconds until something held is due (:meth:`tell_held`); None: nothing is held."""
        return None if self._groups is None else self._groups.due(self._steady())

    def tell_held(self, *, at_the_end: bool = False) -> None:
        """Tell what is held and due, ``at_the_end`` all that is held. Raises SinkError; it is then held for
        another minute."""
        while self._groups is not None:
            message = self._groups.next_held(None if at_the_end else self._steady())
            if message is None:
                break
            try:
                self.send(message)
            except SinkError:
                self._groups.postpone(message, self._steady() + _AGAIN_SECONDS)
                raise
            self._groups.done(message, self._steady())
