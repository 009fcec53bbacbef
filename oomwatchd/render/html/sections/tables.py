"""Amounts as the kernel printed them: zones, nodes, totals, caches, allocation sites, files of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from oomwatchd.event import OomEvent
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.render import fields
from oomwatchd.render.html.sections.shown import MOST_ROWS, Fact, Head, Row, Table, kb, yes


def node_title(node: object) -> str:
    return f"node {getattr(node, 'node', '')}"


def holders(caption: str, holders: Sequence[object], title: Callable[..., str]) -> Table | None:
    """Printed amounts as rows, zones or nodes as columns."""
    if not holders:
        return None
    amounts: list[dict[str, int | bool]] = [getattr(h, "amounts", {}) for h in holders]
    names = list(dict.fromkeys(name for a in amounts for name in a))
    rows = [
        Row((fields.field_title(name), *(_printed(name, a.get(name)) for a in amounts))) for name in names
    ]
    reserves = [getattr(h, "lowmem_reserve_bytes", None) for h in holders]
    for at in range(max((len(r) for r in reserves if r), default=0)):
        cells = (kb(r[at]) if r and at < len(r) else "" for r in reserves)
        rows.append(Row((f"lowmem_reserve[{at}]", *cells)))
    heads = (Head("amount", numeric=False), *(Head(title(h)) for h in holders))
    return Table(caption=caption, heads=heads, rows=tuple(rows))


def _printed(name: str, value: int | bool | None) -> str:
    if value is None or isinstance(value, bool):
        return yes(value)
    return str(value // 1024 if name.endswith("_bytes") else value)


def totals_table(event: OomEvent) -> Table | None:
    memory = event.memory
    if memory is None or not memory.totals:
        return None
    rows = [
        Row((fields.field_title(name), kb(value)))
        for name, value in memory.totals.items()
        if value is not None
    ]
    for title, value in (
        ("RAM", memory.ram_bytes),
        ("HighMem", memory.highmem_bytes),
        ("reserved at boot", memory.reserved_bytes),
        ("reserved for CMA", memory.cma_reserved_bytes),
        ("poisoned", memory.hwpoisoned_bytes),
        ("page cache", memory.pagecache_bytes),
    ):
        if value is not None:
            rows.append(Row((title, kb(value))))
    heads = (Head("amount", numeric=False), Head("kB"))
    return Table(caption="Machine-wide totals, in kB", heads=heads, rows=tuple(rows)) if rows else None


def slab_table(event: OomEvent) -> Table | None:
    if not event.slab:
        return None
    return Table(
        caption="Unreclaimable slab caches",
        heads=(Head("cache", numeric=False), Head("used kB"), Head("total kB")),
        rows=tuple(Row((c.name, kb(c.used_bytes), kb(c.total_bytes))) for c in event.slab[:MOST_ROWS]),
        left_out=max(len(event.slab) - MOST_ROWS, 0),
    )


def allocation_table(event: OomEvent) -> Table | None:
    if not event.allocations:
        return None
    return Table(
        caption="Largest allocation sites",
        heads=(
            Head("function", numeric=False),
            Head("kB"),
            Head("calls"),
            Head("place", numeric=False),
            Head("module", numeric=False),
        ),
        rows=tuple(
            Row((a.function, kb(a.bytes), str(a.calls), a.location, a.module or ""))
            for a in event.allocations[:MOST_ROWS]
        ),
    )


def snapshots(event: OomEvent) -> Iterator[Fact]:
    """The host's files as text. Of the minutes before only the last: the charts show the way there."""
    for moment, title in (("before", "before"), ("at", "on detection"), ("after", "after")):
        for snapshot in fields.snapshots(event, moment)[-1:]:
            for part, text in snapshot.parts.items():
                yield Fact(f"{part.replace('_', '/')}, {title}", text)


def raw(records: Sequence[KmsgRecord]) -> Iterator[str]:
    for record in records:
        stamp = "" if record.usec is None else f"[{record.usec / 1e6:12.6f}] "
        for line in record.text.split("\n"):
            yield f"{stamp}{line}"
