"""Take records that only continue a block many at a time: rows of its task table, memcg statistics, lines of
its call trace. These are most of a report.

Core: no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import cast

import msgspec

from oomwatchd.formats import Form, Section, memcontrol, oom_kill
from oomwatchd.formats.recognise import unknown_count
from oomwatchd.formats.task_table import row_count
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord
from oomwatchd.reports.assemble.block import MAX_RECORDS, MAX_STACK, Block

#: how many records are taken at once, in a long run and in a short one
MAX_RUN = 256
SHORT_RUN = 48

_USEC = attrgetter("usec")
_KEYS = attrgetter("seq", "flag", "facility", "caller")


class _Kind(msgspec.Struct, frozen=True, eq=False):
    """Lines that follow each other and only continue a block. ``count`` returns how many of the texts,
    counted from the first, are such lines; ``form`` is their form, None where they have none."""

    count: Callable[[Sequence[str]], int]
    form: Form | None
    most: int


_ROWS = _Kind(row_count, oom_kill.TASKS_ROW, MAX_RUN)
_STATS = _Kind(memcontrol.stat_count, memcontrol.STAT, SHORT_RUN)
_TRACE = _Kind(unknown_count, None, SHORT_RUN)


def take(
    block: Block,
    items: Sequence[KmsgRecord | KmsgGap],
    at: int,
    *,
    last_seq: int | None,
    begin: int,
    end: int,
) -> tuple[int, KmsgRecord] | None:
    """Add the items from ``at`` on that only continue the block: as long as their stamps lie in [``begin``,
    ``end``), their sequence numbers follow ``last_seq`` without a gap and nothing else is unusual. Returns
    how many were taken and the last of them, or None."""
    kind = _kind_of(block)
    first = items[at]
    if kind is None or isinstance(first, KmsgGap) or not kind.count([first.text]):
        return None
    records = _before_gap(items[at : at + kind.most])
    del records[kind.count([record.text for record in records]) :]
    stamps = list(map(_USEC, records))
    if None in stamps or min(stamps) < begin:
        return None
    if max(stamps) >= end:
        del records[next(n for n, stamp in enumerate(stamps) if stamp >= end) :]
        if not records:
            return None
    seqs, *rest = zip(*map(_KEYS, records), strict=True)
    flags, facilities, callers = map(set, rest)
    count = len(records)
    if (
        first.seq is None
        or seqs != tuple(range(first.seq, first.seq + count))
        or (last_seq is not None and first.seq != last_seq + 1)
        or flags != {"-"}
        or any(facilities)
        or not all(map(block.accepts, callers))
        or len(block.records) + count > MAX_RECORDS
    ):
        return None
    if kind is _TRACE:
        if block.stack + count > MAX_STACK:
            return None
        block.stack += count
    block.records += records[:-1]
    block.add(records[-1], kind.form)
    if kind is _ROWS:
        block.count_rows(count - 1)
    return count, records[-1]


def _kind_of(block: Block) -> _Kind | None:
    """What most likely comes next in the block."""
    if block.in_table:
        return _ROWS
    if block.section is Section.MEMCG:
        return _STATS
    return _TRACE if block.in_stack else None


def _before_gap(items: Sequence[KmsgRecord | KmsgGap]) -> list[KmsgRecord]:
    """The records before the first gap."""
    records, kinds = cast("list[KmsgRecord]", list(items)), list(map(type, items))
    if KmsgGap in kinds:
        del records[kinds.index(KmsgGap) :]
    return records
