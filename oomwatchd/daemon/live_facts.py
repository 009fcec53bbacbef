"""Who holds which memory when a report begins: read by the worker, kept for the captures of that time.

A victim may have freed everything before it is looked at. So holders are read already while memory is short
or a limit is near, and a victim's own lines are kept from then.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import msgspec

from oomwatchd.cgroupfs import Hierarchy
from oomwatchd.observe.charge import contents_of
from oomwatchd.observe.holders import PID_FIELD, Holders
from oomwatchd.procfs.holders import MOST
from oomwatchd.records.capture import OomCapture

#: One reading serves all reports of this time.
SHARED_USEC = 5_000_000
#: Early readings are at least so long apart, and so many times the CPU time that one takes. They are not used
#: for a report that comes later than EARLY_KEPT_USEC.
EARLY_USEC, _EARLY_SPACING = 15_000_000, 200
EARLY_KEPT_USEC = 60_000_000
#: A reading so long after a report began says nothing about it.
LATE_USEC = 10_000_000
#: Looks, and looks into cgroups, that wait for later revisions of their reports.
KEPT, KEPT_CGROUPS = 8, 64


class LiveFacts:
    """``due`` is called by the main thread, the rest by the worker. Times are CLOCK_MONOTONIC, in
    microseconds."""

    def __init__(
        self,
        holders: Holders,
        hierarchy: Hierarchy | None,
        page_size: int,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._holders = holders
        self._hierarchy = hierarchy
        self._page_size = page_size
        self._cpu = cpu
        self._asked_usec = -SHARED_USEC
        #: when the next early look may be, and the last ones: when, and their parts
        self._next_early_usec = 0
        self._early: deque[tuple[int, dict[str, str]]] = deque(maxlen=KEPT)
        self._looks: deque[tuple[int, dict[str, str]]] = deque(maxlen=KEPT)
        #: what was in the cgroup at its limit, by the number of the report's first record
        self._contents: dict[int, dict[str, str]] = {}

    def due(self, usec: int) -> bool:
        """Whether a report that begins now needs a reading of its own, which then counts as requested."""
        if usec - self._asked_usec < SHARED_USEC:
            return False
        self._asked_usec = usec
        return True

    def look(self, asked_usec: int, now_usec: int) -> None:
        """Read now, for the reports since ``asked_usec``."""
        if now_usec - asked_usec <= LATE_USEC:
            self._looks.append((asked_usec, self._holders.look()))

    def early_due(self, usec: int) -> bool:
        """Whether holders are to be read before there is a report; the reading then counts as requested."""
        if usec < self._next_early_usec:
            return False
        self._next_early_usec = usec + EARLY_USEC
        return True

    def look_early(self, usec: int) -> None:
        """Read what processes hold while they still hold it."""
        began = self._cpu()
        self._early.append((usec, self._holders.processes()))
        cost = int((self._cpu() - began) * 1e6)
        self._next_early_usec = usec + max(EARLY_USEC, cost * _EARLY_SPACING)

    def added_to(self, capture: OomCapture) -> OomCapture:
        """The capture with the parts that were read when its report began."""
        at = capture.at
        if at is None:
            return capture
        near = [(at.usec - usec, parts) for usec, parts in self._looks if 0 <= at.usec - usec <= SHARED_USEC]
        parts = min(near, key=lambda look: look[0])[1] if near else {}
        early = [looked for usec, looked in self._early if 0 <= at.usec - usec <= EARLY_KEPT_USEC]
        if early:
            # of an avalanche of kills the one that held it all may be the last, and gone all the same
            ended = {str(facts.pid) for facts in capture.processes} | self._holders.gone(_pids(early[-1]))
            parts = {**parts, **_with_lines_of(ended, parts, early[-1])}
        return _with_parts(capture, {**parts, **self._contents.get(_number(capture), {})})

    def look_into(self, capture: OomCapture, path: str | None) -> OomCapture:
        """The capture with what is in the cgroup at its limit, if that was not read yet."""
        number = _number(capture)
        if self._hierarchy is None or path is None or capture.at is None or number in self._contents:
            return capture
        self._contents[number] = contents_of(self._hierarchy, path, self._page_size)
        if len(self._contents) > KEPT_CGROUPS:
            del self._contents[next(iter(self._contents))]
        return _with_parts(capture, self._contents[number])


def _number(capture: OomCapture) -> int:
    number = capture.records[0].number if capture.records else None
    return -1 if number is None else number


def _pids(parts: dict[str, str]) -> set[str]:
    lines = ((name, line) for name, text in parts.items() for line in text.split("\n") if line)
    return {line.split(" ")[PID_FIELD[name]] for name, line in lines}


def _with_lines_of(pids: set[str], parts: dict[str, str], early: dict[str, str]) -> dict[str, str]:
    """The later parts, with the lines of these processes from an early reading where the later one has
    none."""
    found = {}
    for name, text in early.items():
        place = PID_FIELD[name]
        now = list(filter(None, parts.get(name, "").split("\n")))
        there = {line.split(" ")[place] for line in now}
        lines = [line for line in text.split("\n") if line.split(" ")[place] in pids - there]
        if lines:
            found[name] = "\n".join(sorted((*now, *lines), key=lambda line: -int(line.split(" ")[0]))[:MOST])
    return found


def _with_parts(capture: OomCapture, parts: dict[str, str]) -> OomCapture:
    at = capture.at
    if at is None or not parts:
        return capture
    return msgspec.structs.replace(capture, at=msgspec.structs.replace(at, parts={**parts, **at.parts}))
