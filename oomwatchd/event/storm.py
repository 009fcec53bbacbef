"""What the later reports of one exhaustion tell about an earlier one.

Who asks again and again for memory that no counter has, while others die, is who holds it.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from oomwatchd.event import OomEvent
from oomwatchd.records.capture import Asked, OomCapture

#: The finding that a later request can complete; its module is loaded with the first report.
UNACCOUNTED = "unaccounted_memory"
#: Reports within this time are of one exhaustion.
TOGETHER_USEC = 10_000_000
#: Requests that are used, and functions of each call trace.
KEPT, _FUNCTIONS = 64, 40


def is_open(event: OomEvent) -> bool:
    """Whether who asked later can name a holder: most memory is in no counter."""
    return any(finding.id == UNACCOUNTED for finding in event.findings)


def asked_of(capture: OomCapture, event: OomEvent) -> Asked | None:
    """The request of a report; None if it tells nothing about the machine's memory, or not when it was."""
    trigger, usec = event.trigger, usec_of(capture)
    if usec is None or not trigger.comm or not trigger.call_trace or event.constraint == "memcg":
        return None
    if "kthread" in trigger.call_trace:  # it holds nothing that could be ended
        return None
    return Asked(usec=usec, comm=trigger.comm, pid=trigger.pid, call_trace=trigger.call_trace[:_FUNCTIONS])


def with_later(capture: OomCapture, asked: Iterable[Asked]) -> OomCapture:
    """The report with those of the requests that followed it within the same exhaustion."""
    usec = usec_of(capture)
    if usec is None or capture.later:
        return capture
    later = tuple(one for one in asked if usec < one.usec <= usec + TOGETHER_USEC)
    return msgspec.structs.replace(capture, later=later) if later else capture


def together(first: OomCapture, other: OomCapture) -> bool:
    """Whether the other report followed within the same exhaustion, by their records' times."""
    one, two = usec_of(first), usec_of(other)
    return one is not None and two is not None and one < two <= one + TOGETHER_USEC


def usec_of(capture: OomCapture) -> int | None:
    """The time of the report's first record in microseconds; None if it has none."""
    return capture.records[0].usec if capture.records else None
