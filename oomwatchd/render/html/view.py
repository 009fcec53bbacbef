"""OomEvent -> what its page shows, in the page's order: lines of text, charts, tables.

Texts of the kernel are not escaped here: the template's own filter does that for all of them
(:mod:`oomwatchd.render.html.page`). Names are spelled for people here (an empty one must be visible).

Longer than others because a page has many small parts: each is one function of a few lines, in the page's
order.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from oomwatchd.diagnosis import nearing
from oomwatchd.diagnosis.allocator import ZoneVerdict, suits, unusable_free_index
from oomwatchd.diagnosis.badness import TaskScore
from oomwatchd.diagnosis.findings import Case
from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.event import OomEvent
from oomwatchd.procfs import meminfo
from oomwatchd.records.capture import Snapshot
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import Finding, Severity, Task, Zone
from oomwatchd.render import fields
from oomwatchd.render.fields import amount
from oomwatchd.render.html import figures
from oomwatchd.render.html.figures import Bar, Column, Columns, Line, Lines
from oomwatchd.words.amounts import kib, percent
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import plural

#: findings on the first screen, and how many of one id (a zone each) among them
_TOP_FINDINGS, _TOP_ALIKE = 3, 2
#: bars of the task chart, and how many of the killed follow them
_TOP_TASKS, _TOP_DIED = 12, 3
#: share of RAM: unaccounted memory is shown from here on
_OPEN_SHARE = 0.02
#: most rows of one table: nobody reads more, and the page grows
_MOST_ROWS = 5000
#: most changes of memory and swap
_MARKS = 32


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A finding with its evidence as (title, value)."""

    id: str
    severity: Severity
    title: str
    explanation: str
    advice: str
    evidence: tuple[tuple[str, str], ...]


class Head(msgspec.Struct, frozen=True):
    """A column's head; ``numeric`` columns are set to the right and sorted as numbers."""

    title: str
    numeric: bool = True
    help: str = ""


class Row(msgspec.Struct, frozen=True):
    """Cells in the order of the heads; ``tone`` marks a row that matters."""

    cells: tuple[str, ...]
    tone: str = ""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table whose first column names its rows; ``left_out`` rows are not shown."""

    caption: str
    heads: tuple[Head, ...]
    rows: tuple[Row, ...]
    left_out: int = 0


class Fact(msgspec.Struct, frozen=True):
    """One line of a list of facts."""

    title: str
    value: str


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """All of one event's page. What the event does not have is empty or None."""

    id: str
    kind: str
    grave: bool
    when: str
    summary: str
    origin: tuple[str, ...]
    died: str
    asked: str
    why: str
    change: str
    top: tuple[Shown, ...]
    more: tuple[Shown, ...]
    memory_strip: Bar | None
    memory: tuple[Bar, ...]
    memory_note: str
    zones: tuple[Bar, ...]
    zones_asked: bool
    blocks: tuple[Columns, ...]
    blocks_note: str
    tasks: tuple[Bar, ...]
    tasks_swapped: bool
    tasks_note: str
    cgroup: tuple[Bar, ...]
    cgroup_facts: tuple[Fact, ...]
    cgroup_split: tuple[Bar, ...]
    near: tuple[Lines, ...]
    before: tuple[Lines, ...]
    marks: tuple[Fact, ...]
    after: tuple[Fact, ...]
    victims: Table | None
    request: tuple[Fact, ...]
    call_trace: tuple[str, ...]
    task_table: Table | None
    zone_table: Table | None
    node_table: Table | None
    totals_table: Table | None
    stat_tables: tuple[Table, ...]
    slab_table: Table | None
    allocation_table: Table | None
    snapshots: tuple[Fact, ...]
    undecoded: tuple[str, ...]
    raw: tuple[str, ...]
    raw_title: str


def view(event: OomEvent, records: Sequence[KmsgRecord] = ()) -> EventView:
    """What the page of ``event`` shows; ``records`` are the raw report."""
    case = fields.case_of(event)
    top = _top(event.findings)
    strip, memory, note = _memory(case)
    cgroup, split = _cgroup(event)
    ranked = _ranked(case)
    return EventView(
        id=event.id,
        kind=fields.KINDS_OF_EVENT[event.kind],
        grave=bool(event.kills) or event.kind == "oom_panic",
        when=event.time.wall or _stamp(event.time.kernel_seconds),
        summary=event.summary,
        origin=fields.origin(event),
        died=fields.died(event),
        asked=fields.asked(event),
        why=fields.why(event),
        change=fields.change(event),
        top=tuple(_shown(f) for f in top),
        more=tuple(_shown(f) for f in event.findings if f not in top),
        memory_strip=strip,
        memory=memory,
        memory_note=note,
        zones=tuple(_zones(case)),
        zones_asked=bool(case.verdicts),
        blocks=tuple(_blocks(case)),
        blocks_note=_blocks_note(case),
        tasks=tuple(_top_tasks(event, ranked)),
        tasks_swapped=any(t.swap_bytes for t in event.tasks),
        tasks_note=_tasks_note(event),
        cgroup=cgroup,
        cgroup_facts=tuple(_cgroup_facts(event)),
        cgroup_split=split,
        near=tuple(_near(event)),
        before=tuple(_before(event)),
        marks=tuple(
            Fact(f"{number}. {fields.ago(seconds)}".strip(), said)
            for number, (seconds, said) in enumerate(fields.marks(event, _MARKS), 1)
        ),
        after=tuple(Fact(title, value) for title, value in fields.afterwards(event)),
        victims=_victims(event),
        request=() if event.near is not None else tuple(_request(event)),
        call_trace=event.trigger.call_trace,
        task_table=_task_table(event, ranked),
        zone_table=_holders("Zones as printed, in kB", case.zones, _zone_title),
        node_table=_holders(
            "Nodes as printed, in kB", case.report.memory.nodes if case.report.memory else (), _node_title
        ),
        totals_table=_totals_table(event),
        stat_tables=tuple(_stat_tables(event)),
        slab_table=_slab_table(event),
        allocation_table=_allocation_table(event),
        snapshots=tuple(_snapshots(event)),
        undecoded=event.undecoded,
        raw=tuple(_raw(records)),
        raw_title="The report as the kernel printed it" if event.oomd is None else "What the journal says",
    )


def _stamp(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.6f} s after boot"


# findings


def _top(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings at the top: the gravest; remarks only where there is nothing graver."""
    top: list[Finding] = []
    for finding in [f for f in findings if f.severity != "info"] or findings:
        if len(top) < _TOP_FINDINGS and sum(f.id == finding.id for f in top) < _TOP_ALIKE:
            top.append(finding)
    return tuple(top)


def _shown(finding: Finding) -> Shown:
    return Shown(
        id=finding.id,
        severity=finding.severity,
        title=finding.title,
        explanation=finding.explanation,
        advice=finding.advice,
        evidence=tuple(
            (fields.field_title(name), fields.field_value(name, value))
            for name, value in finding.evidence.items()
            if value is not None
        ),
    )


# memory


def _memory(case: Case) -> tuple[Bar | None, tuple[Bar, ...], str]:
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


def _zones(case: Case) -> Iterator[Bar]:
    if case.verdicts:
        yield from (_zone(v.record, v.label, v) for v in case.verdicts)
    else:
        yield from (_zone(z, _zone_title(z), None) for z in case.zones)


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


def _zone_title(zone: Zone) -> str:
    return zone.zone if zone.node is None else f"node {zone.node} {zone.zone}"


def _blocks(case: Case) -> Iterator[Columns]:
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
            title=f"{_zone_title(zone)}{held}",
            text=f"Free blocks of {_zone_title(zone)}. {', '.join(words)}",
            columns=tuple(columns),
            note=note,
        )


def _blocks_note(case: Case) -> str:
    note = (
        "Number of free blocks of 2^order pages. The height is the memory in them, on each zone's own scale."
    )
    if case.request is None:
        return note
    return f"{note} Green: blocks that this order-{case.request.order} request could have been given."


# tasks


def _ranked(case: Case) -> tuple[TaskScore, ...]:
    """Tasks, the highest score first; without scores (no page size) as printed."""
    scores = case.scores
    if scores is not None:
        return scores.rows
    return tuple(TaskScore(task=t, points=None, footprint_bytes=0) for t in case.report.tasks)


def _top_tasks(event: OomEvent, ranked: Sequence[TaskScore]) -> Iterator[Bar]:
    died = {v.pid for v in event.victims}
    sized = [r.task for r in ranked if r.task.rss_bytes is not None]
    sized.sort(key=lambda t: -_held(t))
    shown = sized[:_TOP_TASKS]
    shown += [t for t in sized[_TOP_TASKS:] if t.pid in died][:_TOP_DIED]
    whole = _held(sized[0]) if sized else 0
    for task in shown:
        swap = f", swap {amount(task.swap_bytes)}" if task.swap_bytes else ""
        yield Bar(
            label=f"{harmless_name(task.comm)} ({task.pid})" + (", killed" if task.pid in died else ""),
            value=f"{amount(task.rss_bytes)}{swap}",
            tone="bad" if task.pid in died else "",
            segments=figures.segments(
                [("killed" if task.pid in died else "rss", task.rss_bytes), ("swap", task.swap_bytes)], whole
            ),
        )


def _held(task: Task) -> int:
    return (task.rss_bytes or 0) + (task.swap_bytes or 0)


def _tasks_note(event: OomEvent) -> str:
    sized = [t for t in event.tasks if t.rss_bytes is not None]
    if not sized:
        return ""
    swap = sum(t.swap_bytes or 0 for t in sized)
    swapped = f" and {amount(swap)} in swap" if swap else ""
    note = (
        f"The table's {plural(len(sized), 'task')} together: {amount(sum(t.rss_bytes or 0 for t in sized))} "
        f"resident{swapped}; what they share is counted for each."
    )
    return note if event.tasks_left_out is None else f"{note} {fields.left_out(event.tasks_left_out)}."


#: title, field, amount in bytes (shown in kB), what it is
_TASK_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("rss kB", "rss_bytes", "resident in RAM"),
    ("anon kB", "rss_anon_bytes", "resident, anonymous"),
    ("file kB", "rss_file_bytes", "resident, of files"),
    ("shmem kB", "rss_shmem_bytes", "resident, shared memory"),
    ("swap kB", "swap_bytes", "in swap"),
    ("tables kB", "pgtables_bytes", "page tables"),
    ("vm kB", "total_vm_bytes", "address space"),
    ("page tables", "page_tables", "pages of page tables"),
    ("adj", "oom_score_adj", "oom_score_adj"),
    ("uid", "uid", "user"),
    ("tgid", "tgid", "thread group"),
)


def _task_table(event: OomEvent, ranked: Sequence[TaskScore]) -> Table | None:
    if not event.tasks:
        return None
    died = {v.pid for v in event.victims}
    columns = [c for c in _TASK_COLUMNS if any(getattr(r.task, c[1]) is not None for r in ranked)]
    extra = sorted({name for r in ranked for name in r.task.extra or {}})
    scored = any(r.points is not None for r in ranked)
    heads = [Head("name", numeric=False), Head("pid")]
    heads += [Head("score", help="per mille of the memory that may be used")] if scored else []
    heads += [Head(title, help=meaning) for title, _, meaning in columns]
    heads += [Head(name) for name in extra]
    rows = []
    for row in ranked[:_MOST_ROWS]:
        task = row.task
        cells = [harmless_name(task.comm), str(task.pid)]
        cells += [fields.score(row)] if scored else []
        for _, name, _ in columns:
            value = getattr(task, name)
            cells.append("" if value is None else str(value // 1024 if name.endswith("_bytes") else value))
        cells += [str((task.extra or {}).get(name, "")) for name in extra]
        rows.append(Row(tuple(cells), "bad" if task.pid in died else ""))
    return Table(
        caption=plural(len(ranked), "task") + (", the highest score first" if scored else ""),
        heads=tuple(heads),
        rows=tuple(rows),
        left_out=len(ranked) - len(rows),
    )


def _victims(event: OomEvent) -> Table | None:
    """The victims; None where the first screen has all of it."""
    owners = {a.pid: a for a in event.attribution if a.role == "victim"}
    if len(event.victims) < 2 and not owners:
        return None
    lists: tuple[tuple[Head, Callable[[int], object]], ...] = (
        (Head("name", numeric=False), lambda n: harmless_name(event.victims[n].comm)),
        (Head("pid"), lambda n: event.victims[n].pid),
        (Head("resident kB"), lambda n: _kb(fields.resident(event.victims[n]))),
        (Head("vm kB"), lambda n: _kb(event.victims[n].total_vm_bytes)),
        (Head("adj"), lambda n: event.victims[n].oom_score_adj),
        (Head("score"), lambda n: event.victims[n].score),
        (Head("uid"), lambda n: event.victims[n].uid),
        (Head("why", numeric=False), lambda n: event.victims[n].role.replace("_", " ")),
        (Head("kills"), lambda n: event.victims[n].kills),
        (Head("reaped", numeric=False), lambda n: _yes(event.victims[n].reaped)),
    )
    whose: tuple[tuple[str, str], ...] = (
        ("unit", "unit"),
        ("container", "container_name"),
        ("container id", "container_id"),
        ("pod", "pod_uid"),
        ("cgroup", "cgroup"),
        ("command line", "command_line"),
    )
    pids = [v.pid for v in event.victims]
    kept = [(head, [_cell(say(n)) for n in range(len(pids))]) for head, say in lists]
    for title, name in whose:
        kept.append((Head(title, numeric=False), [_cell(getattr(owners.get(p), name, None)) for p in pids]))
    kept = [(head, cells) for head, cells in kept if any(cells)]
    rows = [Row(tuple(cells[n] for _, cells in kept)) for n in range(min(len(pids), _MOST_ROWS))]
    return Table(
        caption=f"{len(pids)} victims" if len(pids) > 1 else "The victim",
        heads=tuple(head for head, _ in kept),
        rows=tuple(rows),
        left_out=len(pids) - len(rows),
    )


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def _kb(value: int | None) -> str:
    return "" if value is None else str(value // 1024)


# the request


def _request(event: OomEvent) -> Iterator[Fact]:
    trigger = event.trigger
    mask = None if trigger.gfp_mask is None else f"0x{trigger.gfp_mask:x}"
    flags = "|".join(trigger.gfp_flags) if trigger.gfp_flags else None
    owner = next((a for a in event.attribution if a.role == "trigger"), None)
    for title, value in (
        ("task", None if trigger.comm is None else harmless_name(trigger.comm)),
        ("pid", trigger.pid),
        ("uid", trigger.uid),
        ("cpu", trigger.cpu),
        ("unit", owner.unit if owner else None),
        ("cgroup", owner.cgroup if owner else None),
        ("gfp mask", " ".join(part for part in (mask, flags) if part) or None),
        ("order", trigger.order),
        ("highest zone", trigger.highest_zone),
        ("constraint", event.constraint),
        ("cpuset", trigger.cpuset),
        ("mems allowed", trigger.mems_allowed),
        ("node mask", trigger.nodemask),
        ("oom_score_adj", trigger.oom_score_adj),
        ("oom_adj", trigger.oom_adj),
        ("outcome", event.outcome),
        ("headers left out by the rate limit", event.suppressed_headers),
        ("machine", event.arch),
        ("page size", None if event.page_size_bytes is None else kib(event.page_size_bytes)),
    ):
        if value is not None:
            yield Fact(title, str(value))


# cgroup


def _cgroup(event: OomEvent) -> tuple[tuple[Bar, ...], tuple[Bar, ...]]:
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


def _cgroup_facts(event: OomEvent) -> Iterator[Fact]:
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


def _stat_tables(event: OomEvent) -> Iterator[Table]:
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


# the minutes before

#: kind, title, what of /proc/meminfo
_SERIES: tuple[tuple[str, str, Callable[[dict[str, int]], int | None]], ...] = (
    ("anon", "anonymous", lambda m: m.get("AnonPages")),
    ("file", "file cache", lambda m: m.get("Cached")),
    ("free", "available", lambda m: m.get("MemAvailable")),
    ("unreclaimable", "slab, unreclaimable", lambda m: m.get("SUnreclaim")),
    ("swap", "swap used", lambda m: m["SwapTotal"] - m.get("SwapFree", 0) if m.get("SwapTotal") else None),
)


def _before(event: OomEvent) -> Iterator[Lines]:
    taken = [*fields.snapshots(event, "before"), *fields.snapshots(event, "at")]
    if len(taken) < 2:
        return
    end = taken[-1].usec
    happened = [seconds for seconds, _ in fields.marks(event, _MARKS)]
    read = [((end - s.usec) / 1e6, s, meminfo(s)) for s in taken]
    series = [
        (kind, title, [(ago, float(v)) for ago, _, m in read if (v := say(m)) is not None])
        for kind, title, say in _SERIES
    ]
    yield from _lines("Memory", series, lambda v: amount(int(v)), happened)
    yield from _tracks(event, end, happened)
    waits = [(ago, p) for ago, s, _ in read if (p := _pressure(s)) is not None]
    yield from _lines(
        "Time in which some task waited for memory (pressure, some avg10)",
        [("killed", "waiting", waits)],
        lambda v: f"{v:.1f} %",
        happened,
    )


#: so many times as long as it was watched, a projection is drawn
_AHEAD = 3


def _near(event: OomEvent) -> Iterator[Lines]:
    """A warning's growth, and where it leads."""
    near = event.near
    if near is None or len(near.points) < 2:
        return
    first, last = near.points[0][0], near.points[-1][0]
    ends = [near.soonest_seconds, *([near.latest_seconds] if near.latest_seconds is not None else [])]
    ahead = max(ends) if near.reason == "growth" else 0.0
    end = max(last, near.lead_seconds or 0.0, min(ahead, _AHEAD * max(-first, 1.0)), 1.0)
    span, top = end - first, float(max(near.capacity_bytes, *(used for _, used in near.points)))

    def drawn(points: Iterable[tuple[float, float]]) -> str:
        return figures.line_points([(end - at, amount_) for at, amount_ in points], span, top)

    def line(kind: str, title: str, value: str, points: Iterable[tuple[float, float]]) -> Line:
        return Line(kind=kind, title=title, value=value, points=drawn(points))

    held = amount(near.points[-1][1])
    lines = [
        line(
            "anon", "held", f"{amount(near.points[0][1])} → {held}", [(t, float(b)) for t, b in near.points]
        ),
        line(
            "free",
            "limit" if near.limit_bytes is not None else "RAM and swap",
            amount(near.capacity_bytes),
            [(first, float(near.capacity_bytes)), (end, float(near.capacity_bytes))],
        ),
    ]
    if near.reason == "growth":
        names = ("soonest", "latest") if len(ends) == 2 else ("soonest, if at all",)
        for kind, title, seconds in zip(("killed", "swap"), names, ends, strict=False):
            until = min(seconds, end) or end
            left = near.capacity_bytes - near.used_bytes
            then = near.used_bytes + left * min(1.0, until / max(seconds, 0.001))
            lines.append(
                line(
                    kind,
                    title,
                    f"in {nearing.span(seconds, seconds)}",
                    [(0.0, float(near.used_bytes)), (until, then)],
                )
            )
    moments = [(0.0, "warning")]
    if near.lead_seconds is not None:
        moments.append((near.lead_seconds, "kill"))
    yield Lines(
        title="What is held, and where its growth leads",
        text=f"{nearing.left_said(near)}",
        top=amount(int(top)),
        start=f"{-first:.0f} s before the warning",
        end=f"{end:.0f} s after it",
        lines=tuple(lines),
        marks=tuple(
            figures.Moment(round(100 * (at - first) / span, 2), label) for at, label in moments if at <= end
        ),
    )


#: one colour each, the victim's own first
_TRACK_KINDS = ("killed", "anon", "swap", "file", "unreclaimable", "free")


def _tracks(event: OomEvent, end: int, happened: Sequence[float | None]) -> Iterator[Lines]:
    shown = fields.tracks(event, len(_TRACK_KINDS))
    series = [
        (kind, fields.track_title(t), [((end - usec) / 1e6, float(amount)) for usec, amount in t.points])
        for kind, t in zip(_TRACK_KINDS, shown, strict=False)
    ]
    title = "The largest processes, cgroups and tmpfs mounts"
    yield from _lines(title, series, lambda v: amount(int(v)), happened)


def _lines(
    title: str,
    series: Iterable[tuple[str, str, list[tuple[float, float]]]],
    say: Callable[[float], str],
    happened: Sequence[float | None],
) -> Iterator[Lines]:
    """``happened``: seconds before the end at which memory or swap came or went."""
    drawn = [(kind, name, points) for kind, name, points in series if len(points) > 1]
    span = max((points[0][0] for _, _, points in drawn), default=0.0)
    top = max((value for _, _, points in drawn for _, value in points), default=0.0)
    if span <= 0:
        return
    words = "; ".join(f"{name} from {say(p[0][1])} to {say(p[-1][1])}" for _, name, p in drawn)
    yield Lines(
        title=title,
        text=f"{title} over {span:.0f} seconds: {words}",
        top=say(top),
        start=f"{span:.0f} s before",
        end="detection",
        lines=tuple(
            Line(
                kind=kind,
                title=name,
                value=f"{say(points[0][1])} → {say(points[-1][1])}",
                points=figures.line_points(points, span, top),
            )
            for kind, name, points in drawn
        ),
        marks=tuple(
            figures.Moment(round(100 - figures.share(ago, span), 2), str(number))
            for number, ago in enumerate(happened, 1)
            if ago is not None and 0 <= ago <= span
        ),
    )


def _pressure(snapshot: Snapshot) -> float | None:
    """``some avg10`` of /proc/pressure/memory (Documentation/accounting/psi.rst), in percent."""
    words = snapshot.parts.get("pressure_memory", "").split()
    if words[:1] != ["some"] or len(words) < 2:
        return None
    name, _, value = words[1].partition("=")
    try:
        return float(value) if name == "avg10" else None
    except ValueError:
        return None


# tables


def _node_title(node: object) -> str:
    return f"node {getattr(node, 'node', '')}"


def _holders(caption: str, holders: Sequence[object], title: Callable[..., str]) -> Table | None:
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
        cells = (_kb(r[at]) if r and at < len(r) else "" for r in reserves)
        rows.append(Row((f"lowmem_reserve[{at}]", *cells)))
    heads = (Head("amount", numeric=False), *(Head(title(h)) for h in holders))
    return Table(caption=caption, heads=heads, rows=tuple(rows))


def _printed(name: str, value: int | bool | None) -> str:
    if value is None or isinstance(value, bool):
        return _yes(value)
    return str(value // 1024 if name.endswith("_bytes") else value)


def _totals_table(event: OomEvent) -> Table | None:
    memory = event.memory
    if memory is None or not memory.totals:
        return None
    rows = [
        Row((fields.field_title(name), _kb(value)))
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
            rows.append(Row((title, _kb(value))))
    heads = (Head("amount", numeric=False), Head("kB"))
    return Table(caption="Machine-wide totals, in kB", heads=heads, rows=tuple(rows)) if rows else None


def _slab_table(event: OomEvent) -> Table | None:
    if not event.slab:
        return None
    return Table(
        caption="Unreclaimable slab caches",
        heads=(Head("cache", numeric=False), Head("used kB"), Head("total kB")),
        rows=tuple(Row((c.name, _kb(c.used_bytes), _kb(c.total_bytes))) for c in event.slab[:_MOST_ROWS]),
        left_out=max(len(event.slab) - _MOST_ROWS, 0),
    )


def _allocation_table(event: OomEvent) -> Table | None:
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
            Row((a.function, _kb(a.bytes), str(a.calls), a.location, a.module or ""))
            for a in event.allocations[:_MOST_ROWS]
        ),
    )


def _snapshots(event: OomEvent) -> Iterator[Fact]:
    """The host's files as text. Of the minutes before only the last: the charts show the way there."""
    for moment, title in (("before", "before"), ("at", "on detection"), ("after", "after")):
        for snapshot in fields.snapshots(event, moment)[-1:]:
            for part, text in snapshot.parts.items():
                yield Fact(f"{part.replace('_', '/')}, {title}", text)


def _raw(records: Sequence[KmsgRecord]) -> Iterator[str]:
    for record in records:
        stamp = "" if record.usec is None else f"[{record.usec / 1e6:12.6f}] "
        for line in record.text.split("\n"):
            yield f"{stamp}{line}"
