"""Two captures of one report become one: nothing that either knows is lost.

A later revision may know less than an earlier one. After a restart the ring buffer is read again by a process
that did not see the host at the time; under load a capture is cut down to what names the victims.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from oomwatchd.records.capture import OomCapture, ProcessFacts
from oomwatchd.records.kmsg import KmsgRecord

Records = tuple[KmsgRecord, ...]
Processes = tuple[ProcessFacts, ...]


def merge(newer: OomCapture, older: OomCapture) -> OomCapture:
    """The later capture with what only the earlier one knows.

    The rule for a field without one of its own (``OWN_RULES``): what the newer leaves at its default keeps
    the older's value. So a new field needs no entry here. ``merge(merge(a, b), b) == merge(a, b)``.
    """
    values = {name: _merged(name, newer, older) for name in OomCapture.__struct_fields__}
    return OomCapture(**values)


def _merged(name: str, newer: OomCapture, older: OomCapture) -> Any:
    new, old = getattr(newer, name), getattr(older, name)
    if (rule := OWN_RULES.get(name)) is not None:
        return rule(new, old)
    return old if name in _DEFAULTS and new == _DEFAULTS[name] else new


def _first(new: Any, old: Any) -> Any:
    """The value of the first issue stays; None and () mean "not known"."""
    return new if old is None or old == () else old


def _highest(new: int | None, old: int | None) -> int | None:
    return max((number for number in (new, old) if number is not None), default=None)


def _all_records(new: Records, old: Records) -> Records:
    """The records of both, in order: by sequence number, else by stamp and text. Text that has neither cannot
    be ordered: then the longer one is kept."""
    both = (*old, *new)
    by_number = {record.seq: record for record in both if record.seq is not None}
    if all(record.seq is not None for record in both):
        return tuple(by_number[number] for number in sorted(by_number))
    by_stamp = {(record.usec, record.text): record for record in both if record.usec is not None}
    if all(record.usec is not None for record in both):
        return tuple(sorted(by_stamp.values(), key=lambda record: record.usec or 0))
    return new if len(new) >= len(old) else old


def _all_processes(new: Processes, old: Processes) -> Processes:
    facts = {process.pid: process for process in old}
    for process in new:
        facts[process.pid] = _both(process, facts.get(process.pid, process))
    return tuple(facts.values())


def _both(new: ProcessFacts, old: ProcessFacts) -> ProcessFacts:
    """The facts of a process from both captures: the later one knows whether it was still there, the earlier
    one its executable."""
    known = {name: value for name in new.__struct_fields__ if (value := getattr(new, name)) is not None}
    if new.cgroup is None:
        known["learnt"] = old.learnt
    return msgspec.structs.replace(old, **known)


#: fields that the general rule is wrong for
OWN_RULES: Mapping[str, Callable[[Any, Any], Any]] = {
    "records": _all_records,
    "processes": _all_processes,
    # whether a report is news was decided by who read it first, and False is an answer
    "historical": lambda _new, old: old,
    "last_seq": _highest,
    # counts anew in each process; for a receiver it must not go back
    "revision": max,
    # of the first issue: a later reading would measure another moment
    "wall_offset": _first,
    "detected": _first,
    "detection_latency_seconds": _first,
    "before": _first,
    "at": _first,
}

_DEFAULTS: Mapping[str, Any] = {
    field.name: field.default
    for field in msgspec.structs.fields(OomCapture)
    if field.default is not msgspec.NODEFAULT
}
