"""Reverse a log that was printed newest first."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from oomwatchd.formats.recognise import recognise
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.words.deferred import deferred

_TIME_OF_DAY: Final = deferred(rb"(?<!\d)(\d\d):(\d\d):(\d\d)(?!\d)")


def _clock(record: KmsgRecord) -> tuple[bool, float] | None:
    """The time of a line, and whether it is the log clock's."""
    if record.usec is not None:
        return True, record.usec / 1e6
    match = _TIME_OF_DAY.search(record.raw, 0, 120)
    return None if match is None else (False, int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3]))


def _newest_first(records: list[KmsgRecord]) -> bool:
    """Whether the log goes back in time, line by line, and within its reports too. A falling clock alone may
    come from several logs in one mail."""
    clocks: dict[bool, list[float]] = {True: [], False: []}
    for record in records:
        if (clock := _clock(record)) is None:
            continue
        kind, seconds = clock
        if kind and clocks[kind] and seconds > clocks[kind][-1]:  # time increases: most logs end here
            return False
        clocks[kind].append(seconds)
    said = clocks[True] if len(clocks[True]) >= len(clocks[False]) else clocks[False]
    if len(said) < 3 or said[0] == said[-1] or any(a < b for a, b in pairwise(said)):
        return False
    sections = [found[0].section for record in records if (found := recognise(record.text)) is not None]
    return sum((a > b) - (a < b) for a, b in pairwise(sections)) >= 0


def in_order(records: list[KmsgRecord]) -> list[KmsgRecord]:
    """The records, oldest first: a short log that was printed newest first (``journalctl -r``, log viewers)
    is reversed."""
    if not _newest_first(records):
        return records
    groups: list[list[KmsgRecord]] = []
    for record in records:
        if _clock(record) is None and groups:
            groups[-1].append(record)
        else:
            groups.append([record])
    return [record for group in reversed(groups) for record in group]
