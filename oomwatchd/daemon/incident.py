"""What the later reports of one exhaustion tell about its first.

A storm of kills may be over before anybody looks at a process. Its reports remain: who asks again and again
for memory that no counter has, while others die, is who holds it.
"""

from __future__ import annotations

from collections import deque

from oomwatchd.event import OomEvent
from oomwatchd.event.storm import KEPT, TOGETHER_USEC, asked_of, with_later
from oomwatchd.records.capture import Asked, OomCapture

__all__ = ["KEPT", "TOGETHER_USEC", "Incident"]


class Incident:
    """The newest requests. For one thread."""

    def __init__(self) -> None:
        self._asked: deque[Asked] = deque(maxlen=KEPT)

    def note(self, capture: OomCapture, event: OomEvent) -> None:
        """A report was explained."""
        asked = asked_of(capture, event)
        if asked is not None and asked not in self._asked:  # else a later revision
            self._asked.append(asked)

    def added_to(self, capture: OomCapture) -> OomCapture:
        """The settled report with the requests of those that followed it."""
        if not capture.settled or capture.at is None:
            return capture
        return with_later(capture, self._asked)
