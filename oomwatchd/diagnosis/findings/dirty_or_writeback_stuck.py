"""Most of the page cache waits to be written.

Dirty pages and pages under writeback cannot be dropped before they are written to disk. When most file pages
are in this state, reclaim waits for the device. Usual causes are a slow USB stick, a network file system that
hangs, and a cgroup whose limit is small compared to its writes.

``vm.dirty_bytes`` and ``vm.dirty_background_bytes`` limit how much may be dirty.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import LASTS, begin_with, is_v1, raise_it
from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.records.report import Finding, Memcg
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.text import ratio

ID = "dirty_or_writeback_stuck"
TITLE = "Most of the page cache waits to be written"

#: Least shares of the file pages and of the whole, and the share of the whole that makes it the cause.
_OF_FILE, _OF_WHOLE, _DECIDES = 0.50, 0.05, 0.20


def find(case: Case) -> Claim | None:
    whole, waiting = case.ledger.whole_bytes, case.ledger.held("waiting")
    file = case.ledger.held("file")
    if waiting is None or not whole:
        return None
    cache = waiting + (file or 0)
    if waiting < _OF_WHOLE * whole or waiting < _OF_FILE * cache:
        return None
    memcg = case.report.memcg
    if case.in_cgroup and memcg is not None:
        dirty, writeback = kinds(memcg).dirty, kinds(memcg).writeback
    else:
        dirty, writeback = case.total("dirty"), case.total("writeback")
    on_way = "" if writeback is None else f" ({size(writeback)} of it on its way)"
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning",
            title=TITLE,
            explanation=f"{size(waiting)} wait to be written{on_way}, {percent(waiting, cache)} of the file "
            "pages: reclaim had to wait for the device.",
            evidence={
                "dirty_bytes": dirty,
                "writeback_bytes": writeback,
                "file_bytes": cache,
                "waiting_share_ratio": ratio(waiting, cache),
                "share_ratio": case.ledger.share(waiting),
            },
            advice=_advice(case),
        ),
        cause=Cause(
            tier=Tier.HELD,
            text=f"dirty page cache that waits to be written holds {case.ledger.percent(waiting)} {case.of}",
            # reclaim is blocked until the device has written it: rank it higher
            excess_bytes=waiting + (whole >> 3),
        )
        if waiting >= _DECIDES * whole
        else None,
    )


def _advice(case: Case) -> str:
    if not case.in_cgroup:
        return (
            "Bound what may wait with vm.dirty_bytes and vm.dirty_background_bytes (some seconds of what the "
            f"device writes; {LASTS}), and see whether the device or file system behind it keeps up."
        )
    # cgroup v1 has no dirty limits of its own (cgroup writeback needs v2)
    part = (
        "the machine's own; a cgroup of version 1 has none"
        if is_v1(case.report.memcg or Memcg())
        else ("of which a cgroup gets its part")
    )
    return (
        "See whether the device or file system behind it keeps up; let less wait (vm.dirty_bytes and "
        f"vm.dirty_background_bytes, {part}), or {raise_it(case)[0].lower()}{raise_it(case)[1:]}."
        f"{begin_with(case)}"
    )
