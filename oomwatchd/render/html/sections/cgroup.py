"""The cgroup at its limit: how full it was, and of what."""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.event import OomEvent
from oomwatchd.render.fields import amount
from oomwatchd.render.html import figures
from oomwatchd.render.html.figures import Bar
from oomwatchd.render.html.sections.shown import Fact, Head, Row, Table
from oomwatchd.words.amounts import percent
from oomwatchd.words.escape import harmless_name


def cgroup(event: OomEvent) -> tuple[tuple[Bar, ...], tuple[Bar, ...]]:
    """Usage against limit, and what the memory of the cgroup is."""
    memcg = event.memcg
    if memcg is None:
        return (), ()
    bars = []
    for name, counter in (
        ("memory", memcg.memory),
        ("swap", memcg.swap),
        ("memory and swap", memcg.memory_swap),
        ("kernel memory", memcg.kmem),
    ):
        if counter is None or (counter.limit_bytes is None and not counter.usage_bytes):
            continue
        limit = counter.limit_bytes
        whole = 1.1 * max(counter.usage_bytes, limit or 0)
        # without a limit there is nothing to measure the usage against
        drawn = figures.segments([("usage", counter.usage_bytes)], whole) if limit is not None else ()
        bars.append(
            Bar(
                label=name,
                value=f"{amount(counter.usage_bytes)} of {amount(limit)}"
                if limit is not None
                else f"{amount(counter.usage_bytes)}, no limit",
                note="" if counter.failcnt is None else f"limit hit {counter.failcnt} times",
                tone="bad" if limit and counter.usage_bytes >= limit else "",
                segments=drawn,
                marks=figures.marks([("limit", limit)], whole),
            )
        )
    return tuple(bars), tuple(_split(event))


#: what a cgroup's memory is (:class:`oomwatchd.diagnosis.memcg.MemcgKinds`): field, colour, title
_SPLIT = (
    ("anon", "anon", "anonymous"),
    ("file", "file", "file cache, including shared"),
    ("kernel", "unreclaimable", "kernel"),
    ("kernel_stack", "stacks", "kernel stacks"),
    ("pagetables", "tables", "page tables"),
    ("slab", "reclaimable", "slab"),
    ("sock", "other", "sockets"),
)


def _split(event: OomEvent) -> Iterator[Bar]:
    memcg = event.memcg
    if memcg is None:
        return
    held = kinds(memcg)
    found = [(kind, title, value) for name, kind, title in _SPLIT if (value := getattr(held, name))]
    # "kernel" is the sum of the kernel's rows that older kernels print alone
    if any(kind == "unreclaimable" for kind, _, _ in found):
        found = [row for row in found if row[0] not in ("stacks", "tables", "reclaimable")]
    usage = memcg.memory.usage_bytes if memcg.memory is not None else None
    whole = max(sum(value for _, _, value in found), usage or 0)
    for kind, title, value in found:
        yield Bar(
            label=title,
            value=f"{amount(value)}, {percent(value, whole)}",
            swatch=kind,
            segments=figures.segments([(kind, value)], whole),
        )


def cgroup_facts(event: OomEvent) -> Iterator[Fact]:
    memcg = event.memcg
    if memcg is None or event.constraint != "memcg":
        return
    for title, path in (
        ("limit of", memcg.oom_path),
        ("victim in", memcg.task_path if memcg.task_path != memcg.oom_path else None),
        ("killed as a group", memcg.group_path),
    ):
        if path is not None:
            yield Fact(title, harmless_name(path))
    for title, bytes_ in (
        ("memory.min", memcg.min_protection_bytes),
        ("memory.low", memcg.low_protection_bytes),
    ):
        if bytes_ is not None:
            yield Fact(title, amount(bytes_))


def stat_tables(event: OomEvent) -> Iterator[Table]:
    memcg = event.memcg
    if memcg is None:
        return
    whole = [(memcg.oom_path, memcg.stat)] if memcg.stat else []
    whole += [(part.path, part.stat) for part in memcg.descendants]
    for path, stat in whole[:100]:
        yield Table(
            caption=f"memory.stat of {harmless_name(path)}" if path is not None else "memory.stat",
            heads=(Head("name", numeric=False), Head("as printed")),
            rows=tuple(Row((name, str(value))) for name, value in stat.items()),
        )
