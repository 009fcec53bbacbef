"""RAM and swap as bars, zones with their marks, free blocks by size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from oomwatchd.diagnosis.allocator import ZoneVerdict, suits, unusable_free_index
from oomwatchd.diagnosis.findings import Case
from oomwatchd.records.report import Node, Zone
from oomwatchd.render import fields
from oomwatchd.render.fields import amount
from oomwatchd.render.html import figures
from oomwatchd.render.html.figures import Bar, Column, Columns
from oomwatchd.words.amounts import kib, percent

#: share of RAM: unaccounted memory is shown from here on
_OPEN_SHARE = 0.02


def memory(case: Case) -> tuple[Bar | None, tuple[Bar, ...], str]:
    """RAM as one strip and its parts as rows; swap, with a note where it is not known."""
    shares = fields.memory_shares(case)
    if not shares:
        return None, (), ""
    ram = case.ram_bytes or sum(s.bytes for s in shares)
    whole = max(ram, sum(s.bytes for s in shares))
    strip = Bar(
        label="RAM",
        value=amount(ram),
        segments=figures.segments(((s.kind, s.bytes) for s in shares), whole),
    )
    rows = [
        Bar(
            label=s.title,
            value=f"{amount(s.bytes)}, {percent(s.bytes, ram)}",
            swatch=s.kind,
            segments=figures.segments([(s.kind, s.bytes)], whole),
        )
        for s in shares
    ]
    rest = whole - sum(s.bytes for s in shares)
    notes = [f"The report's counters leave {amount(rest)} open."] if rest > _OPEN_SHARE * whole else []
    memory = case.report.memory
    swap = memory.swap if memory is not None else None
    if swap is None or swap.total_bytes is None:
        notes.append("The report does not say whether there is swap.")
    elif not swap.total_bytes:
        notes.append("There is no swap.")
    if swap is None or not swap.total_bytes:
        return strip, tuple(rows), " ".join(notes)
    used = swap.total_bytes - (swap.free_bytes or 0)
    rows.append(
        Bar(
            label="swap used",
            value=f"{amount(used)} of {amount(swap.total_bytes)}",
            swatch="swap",
            segments=figures.segments([("swap", used)], swap.total_bytes),
            note="own scale",
        )
    )
    return strip, tuple(rows), " ".join(notes)


# zones


def nodes(case: Case) -> Sequence[Node]:
    """The nodes that the report prints."""
    return case.report.memory.nodes if case.report.memory else ()


def zones(case: Case) -> Iterator[Bar]:
    if case.verdicts:
        yield from (_zone(v.record, v.label, v) for v in case.verdicts)
    else:
        yield from (_zone(z, zone_title(z), None) for z in case.zones)


def _zone(zone: Zone, label: str, verdict: ZoneVerdict | None) -> Bar:
    free = zone.bytes_of("free")
    needed = verdict.required_bytes if verdict is not None and verdict.allowed else None
    usable = verdict.usable_bytes if verdict is not None and verdict.allowed else None
    lines = [(name, zone.bytes_of(name)) for name in ("min", "low", "high")]
    whole = 1.1 * max(free or 0, needed or 0, *(at or 0 for _, at in lines))
    counted = free if usable is None or free is None else min(max(usable, 0), free)
    notes = [f"needs more than {kib(needed)}"] if needed is not None else []
    notes += [f"{name} {kib(at)}" for name, at in lines if at is not None]
    if counted is not None and free is not None and counted < free:
        notes.insert(0, f"{kib(counted)} count for this request")
    said = "" if verdict is None else fields.zone_said(verdict)
    fits = verdict.fits if verdict is not None else None
    return Bar(
        label=f"{label}: {said}" if said else label,
        value="" if free is None else f"free {kib(free)}",
        note=", ".join(notes),
        tone="off" if verdict is not None and not verdict.allowed else _tone(fits),
        segments=figures.segments([("zonefree", counted), ("zoneheld", (free or 0) - (counted or 0))], whole),
        marks=figures.marks([*lines, ("needed", needed)], whole),
    )


def _tone(fits: bool | None) -> str:
    return "" if fits is None else "good" if fits else "bad"


def zone_title(zone: Zone) -> str:
    return zone.zone if zone.node is None else f"node {zone.node} {zone.zone}"


def blocks(case: Case) -> Iterator[Columns]:
    request, allowed = case.request, {id(v.record): v.allowed for v in case.verdicts}
    page = case.report.page_size_bytes
    for zone in case.zones:
        if not zone.free_blocks:
            continue
        most = max(b.count << b.order for b in zone.free_blocks)
        columns, words = [], []
        pitch = 100 / len(zone.free_blocks)
        for n, block in enumerate(zone.free_blocks):
            kind = "plain"
            if request is not None:
                fits = allowed.get(id(zone)) and suits(block.order, block.migratetypes, request)
                kind = "usable" if fits else "unusable"
            columns.append(
                Column(
                    label=str(block.order),
                    value=figures.compact(block.count),
                    kind=kind,
                    at=round((n + 0.5) * pitch, 2),
                    width=round(0.8 * pitch, 2),
                    height=figures.share(block.count << block.order, most),
                )
            )
            lists = f" ({block.migratetypes})" if block.migratetypes else ""
            words.append(f"order {block.order}: {block.count}{lists}")
        note = ""
        index = unusable_free_index(zone, request.order) if request is not None and request.order else None
        if index is not None and request is not None:
            note = f"{100 * index:.0f} % of the free memory lies in blocks below order {request.order}"
        total = sum(b.count << b.order for b in zone.free_blocks)
        held = f", {amount(total * page)}" if page else ""
        yield Columns(
            title=f"{zone_title(zone)}{held}",
            text=f"Free blocks of {zone_title(zone)}. {', '.join(words)}",
            columns=tuple(columns),
            note=note,
        )


def blocks_note(case: Case) -> str:
    note = (
        "Number of free blocks of 2^order pages. The height is the memory in them, on each zone's own scale."
    )
    if case.request is None:
        return note
    return f"{note} Green: blocks that this order-{case.request.order} request could have been given."
