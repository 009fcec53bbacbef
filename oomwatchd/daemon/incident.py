"""What the later reports of one exhaustion tell about its first.

A storm of kills may be over before anybody looks at a process. Its reports remain: who asks again and again
for memory that no counter has, while others die, is who holds it.
"""

from __future__ import annotations

from collections import deque

import msgspec

from oomwatchd.event import OomEvent
from oomwatchd.records.capture import Asked, OomCapture

#: Reports within this time are of one exhaustion.
TOGETHER_USEC = 10_000_000
#: Requests that are remembered, and functions of each call trace.
KEPT, _FUNCTIONS = 64, 40


class Incident:
    """The newest requests. For one thread."""

    def __init__(self) -> None:
        self._asked: deque[Asked] = deque(maxlen=KEPT)

    def note(self, capture: OomCapture, event: OomEvent) -> None:
        """A report was explained."""
        trigger, usec = event.trigger, _usec(capture)
        if usec is None or not trigger.comm or not trigger.call_trace or event.constraint == "memcg":
            return
        if "kthread" in trigger.call_trace:  # it holds nothing that could be ended
            return
        asked = Asked(
            usec=usec, comm=trigger.comm, pid=trigger.pid, call_trace=trigger.call_trace[:_FUNCTIONS]
        )
        if asked not in self._asked:  # a later revision
            self._asked.append(asked)

    def added_to(self, capture: OomCapture) -> OomCapture:
        """The settled report with the requests of those that followed it."""
        usec = _usec(capture)
        if usec is None or not capture.settled or capture.at is None or capture.later:
            return capture
        later = tuple(one for one in self._asked if usec < one.usec <= usec + TOGETHER_USEC)
        return msgspec.structs.replace(capture, later=later) if later else capture


def _usec(capture: OomCapture) -> int | None:
    return capture.records[0].usec if capture.records else None
