"""OomEvent -> text for a terminal, a pager or a mail: the verdict first, then what it rests on.

The first lines answer who died, who asked, why, and what to change. Names are escaped
(:mod:`oomwatchd.words.escape`), never taken as markup. Without colour the text is plain: no escape
sequence, ASCII bars; whether the reader wants colour (a terminal, NO_COLOR) is the caller's to know.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from textwrap import wrap
from typing import IO, cast

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from oomwatchd.diagnosis.allocator import ZoneVerdict
from oomwatchd.diagnosis.badness import TaskScore
from oomwatchd.diagnosis.findings import Case
from oomwatchd.event import OomEvent
from oomwatchd.records.capture import Track
from oomwatchd.records.report import Finding, Severity
from oomwatchd.render.fields import (
    afterwards,
    ago,
    amount,
    asked,
    case_of,
    change,
    died,
    marks,
    memory_shares,
    origin,
    score,
    track_title,
    tracks,
    why,
)
from oomwatchd.words.amounts import percent
from oomwatchd.words.escape import harmless, harmless_name
from oomwatchd.words.text import plural

_LABEL = 9
_STYLES: dict[Severity, str] = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
_TOP_TASKS = 10
_TRACKS, _MARKS = 6, 8
#: below so many columns tables leave out what can be missed most easily
_NARROW = 64
#: what stays on one line
_FIGURE = re.compile(r"(\d) (%|kB|[KMGTPE]iB)")


class _Nowhere:
    """What rich writes to beside the capture; with no file of its own it takes standard output."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def render_text(event: OomEvent, *, width: int = 80, color: bool = False) -> str:
    """The whole report as text of at most ``width`` columns (40 at least), with a newline at the end."""
    width = max(width, 40)
    console = Console(
        # never standard output: what is captured is written there, too, as nothing
        file=cast(IO[str], _Nowhere()),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
        # the caller decides, not the environment of the process
        _environ={},
    )
    with console.capture() as captured:
        for part in _parts(event, width, color):
            console.print(part)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _parts(event: OomEvent, width: int, color: bool) -> Iterator[RenderableType]:
    yield from _verdict(event, width)
    for line in (", ".join(origin(event)), f"event {harmless(event.id)}"):
        if line:
            yield Text(line, style="dim")
    case = case_of(event)
    sections = (
        ("Memory", _memory(case, width, color)),
        ("Cgroup", _cgroup(event, width, color)),
        ("Zones, in kB", _zones(case, width)),
        ("Tasks by score", _tasks(case, event, width)),
        ("The minutes before", _before(event, width, color)),
        ("Afterwards", _afterwards(event)),
        ("Findings", _findings(event)),
    )
    for title, body in sections:
        if body is not None:
            yield Text(f"\n{title}", style="bold")
            yield body


# the verdict


def _verdict(event: OomEvent, width: int) -> Iterator[Text]:
    room = width - _LABEL
    narrow = 2 if width < _NARROW else 1
    grave = "bold red" if event.kills or event.kind == "oom_panic" else "bold"
    reason = _lines(why(event) or "unknown", room, 2 * narrow)
    for label, lines, style in (
        # the change begins in the fifth line at the latest
        ("DIED", _lines(died(event), room, max(3 * narrow - len(reason), 1)), grave),
        # the flags come last, and the page and the JSON have all of them
        ("ASKED", _lines(asked(event), room, narrow), ""),
        ("WHY", reason, "bold"),
        ("CHANGE", _lines(change(event), room, 3 * narrow), ""),
    ):
        for number, line in enumerate(lines):
            head = (("" if number else label).ljust(_LABEL), "dim")
            yield Text.assemble(head, (line, style), no_wrap=True, overflow="crop")


def _lines(text: str, room: int, most: int) -> list[str]:
    """``text`` in at most so many lines; what is left out shows as dots."""
    if len(text) <= room:
        return [text]
    kept = _FIGURE.sub("\\1\xa0\\2", text)  # no name holds such a blank: it is spelled out
    lines = [line.replace("\xa0", " ") for line in wrap(kept, room, break_on_hyphens=False)]
    lines = lines if most > 1 else [text]
    if len(lines) <= most and len(lines[-1]) <= room:
        return lines
    last = " ".join(lines[most - 1 :])
    return [*lines[: most - 1], last[: room - 3].rstrip() + "..."]


# memory as bars


def _bar(share: float, width: int, color: bool) -> str:
    full = min(max(round(share * width), 0), width)
    return ("█" if color else "#") * full + ("░" if color else ".") * (width - full)


def _memory(case: Case, width: int, color: bool) -> Table | None:
    ram = case.ram_bytes
    if case.report.memory is None or not ram:
        return None
    table = _grid(width)
    room = width - 46
    for share in memory_shares(case):
        picture = _bar(share.bytes / ram, room, color)
        table.add_row(share.title, amount(share.bytes), percent(share.bytes, ram), picture)
    table.add_row("RAM managed", amount(ram))
    swap = case.report.memory.swap
    if swap is None or swap.total_bytes is None:
        table.add_row("swap", "unknown")
    elif not swap.total_bytes:
        table.add_row("swap", "none")
    else:
        total, used = swap.total_bytes, swap.total_bytes - (swap.free_bytes or 0)
        table.add_row("swap used", amount(used), percent(used, total), _bar(used / total, room, color))
    return table


def _cgroup(event: OomEvent, width: int, color: bool) -> RenderableType | None:
    memcg = event.memcg
    if memcg is None:
        return None
    paths = Table.grid(padding=(0, 1))
    paths.add_column(no_wrap=True)
    paths.add_column(overflow="fold")
    for label, path in (
        ("limit of", memcg.oom_path),
        ("victim in", memcg.task_path if memcg.task_path not in (memcg.oom_path, "/") else None),
        ("killed all", memcg.group_path),
    ):
        if path is not None:
            paths.add_row(Text(label), Text(harmless_name(path)))
    table = _grid()
    for name, counter in (
        ("memory", memcg.memory),
        ("swap", memcg.swap),
        ("memory+swap", memcg.memory_swap),
        ("kmem", memcg.kmem),
    ):
        if counter is None:
            continue
        limit = counter.limit_bytes
        of = "no limit" if limit is None else f"of {amount(limit)}"
        bar = _bar(counter.usage_bytes / limit, width - 48, color) if limit else ""
        table.add_row(name, amount(counter.usage_bytes), of, bar)
    if not (table.row_count or paths.row_count):
        return None
    return Group(*([paths] if paths.row_count else []), *([table] if table.row_count else []))


# zones against watermarks


def _zones(case: Case, width: int) -> RenderableType | None:
    if not case.zones:
        return None
    judged = case.request is not None
    marks = ("free", "min") if width < _NARROW and judged else ("free", "min", "low", "high")
    if judged:
        rows: list[tuple[str | Text, ...]] = []
        for verdict in case.verdicts:
            required = verdict.required_bytes
            needs = "" if required is None or not verdict.allowed else f">{required // 1024}"
            held = (_kb(verdict.record.bytes_of(name)) for name in marks)
            rows.append((harmless(verdict.label), *held, needs, _said(verdict)))
        return _fitted(("zone", *marks, "needs", "verdict"), rows, width)
    table = _columns("zone", *marks)
    for zone in case.zones:
        name = zone.zone if zone.node is None else f"node {zone.node} {zone.zone}"
        table.add_row(harmless(name), *(_kb(zone.bytes_of(mark)) for mark in marks))
    return table


def _fitted(titles: Sequence[str], rows: Sequence[tuple[str | Text, ...]], width: int) -> RenderableType:
    """A table; where it would be too wide, its last column comes in lines of its own: no figure is broken."""
    lengths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    fits = sum(lengths) + 2 * (len(lengths) - 1) <= width
    table = _columns(*(titles if fits else titles[:-1]))
    for row in rows:
        table.add_row(*(row if fits else row[:-1]))
    if fits:
        return table
    return Group(table, *(Text.assemble(str(row[0]), ": ", row[-1]) for row in rows))


def _said(verdict: ZoneVerdict) -> Text:
    if not verdict.allowed:
        return Text(f"not asked ({verdict.excluded_by})", style="dim")
    if verdict.shortfall_bytes is not None:
        short = f"short by {verdict.shortfall_bytes // 1024}" if verdict.shortfall_bytes else "at the mark"
        return Text(short, style="red")
    if verdict.fits is False:
        return Text("no block", style="red")
    return Text("fits") if verdict.fits else Text("unknown", style="dim")


# tasks


def _tasks(case: Case, event: OomEvent, width: int) -> RenderableType | None:
    if not event.tasks:
        return None
    scores = case.scores
    dead = {v.pid for v in event.victims}
    if scores is None:
        return Padding(
            Text(f"{plural(len(event.tasks), 'task')}, sizes unknown (no page size)"), (0, 0, 0, 2)
        )
    titles = ("pid", "rss", "score", "name") if width < _NARROW else tuple(_TASK_CELLS)
    table = _columns(*titles, left=("name",))
    shown = list(scores.rows[:_TOP_TASKS])
    shown += [r for r in scores.rows[_TOP_TASKS:] if r.task.pid in dead][:_TOP_TASKS]
    for row in shown:
        table.add_row(
            *(_TASK_CELLS[title](row) for title in titles), style="bold" if row.task.pid in dead else ""
        )
    rest = len(scores.rows) - len(shown)
    if rest <= 0:
        return table
    return Group(table, Padding(Text(f"and {rest} more", style="dim"), (0, 0, 0, 2)))


_TASK_CELLS: dict[str, Callable[[TaskScore], str]] = {
    "pid": lambda row: str(row.task.pid),
    "rss": lambda row: amount(row.task.rss_bytes),
    "swap": lambda row: amount(row.task.swap_bytes),
    "adj": lambda row: "" if row.task.oom_score_adj is None else str(row.task.oom_score_adj),
    "score": score,
    "name": lambda row: harmless_name(row.task.comm),
}


# the minutes before


def _before(event: OomEvent, width: int, color: bool) -> RenderableType | None:
    shown = tracks(event, _TRACKS)
    lines: list[RenderableType] = []
    if shown:
        begin = min(track.points[0][0] for track in shown)
        end = max(track.points[-1][0] for track in shown)
        table = _grid()
        room = max(width - 66, 8)
        most = 36 if width >= 80 else max(width - 40, 12)
        for track in shown:
            first, last = track.points[0][1], track.points[-1][1]
            drawn = (_climb(track, begin, end, room, color),) if width >= _NARROW else ()
            table.add_row(track_title(track, most)[:most], amount(first), amount(last), *drawn)
        lines.append(Text(f"resident or charged, over {(end - begin) / 1e6:.0f} seconds", style="dim"))
        lines.append(table)
    lines += [Text(f"{ago(seconds):>14} {said}".rstrip()) for seconds, said in marks(event, _MARKS)]
    return Group(*lines) if lines else None


def _climb(track: Track, begin: int, end: int, room: int, color: bool) -> str:
    """The amounts as a row of marks, the last known one in each stretch of time."""
    levels = "▁▂▃▄▅▆▇█" if color else "_.-=+*%#"
    top = max(held for _, held in track.points) or 1
    cells = [" "] * room
    for usec, held in track.points:
        at = min((usec - begin) * room // max(end - begin, 1), room - 1)
        cells[at] = levels[min(held * len(levels) // top, len(levels) - 1)]
    for at in range(1, room):
        if cells[at] == " ":
            cells[at] = cells[at - 1]
    return "".join(cells).rstrip()


def _afterwards(event: OomEvent) -> RenderableType | None:
    facts = afterwards(event)
    if not facts:
        return None
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, min_width=14)
    table.add_column()
    for title, value in facts:
        table.add_row(Text(title), Text(value))
    return table


# findings


def _findings(event: OomEvent) -> RenderableType | None:
    return Group(*(_finding(f) for f in event.findings)) if event.findings else None


def _finding(finding: Finding) -> RenderableType:
    head = Text.assemble((f"{finding.severity:<8} ", _STYLES[finding.severity]), harmless(finding.title))
    head.append(f"  [{finding.id}]", style="dim")
    body: list[RenderableType] = [Padding(head, (0, 0, 0, 2))]
    body.append(Padding(Text(harmless(finding.explanation)), (0, 0, 0, 4)))
    if finding.advice:
        body.append(Padding(Text(f"-> {harmless(finding.advice)}", style="green"), (0, 0, 0, 4)))
    return Group(*body)


# cells


def _grid(width: int = _NARROW) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=width >= _NARROW, min_width=14)
    table.add_column(no_wrap=True, justify="right", min_width=9)
    table.add_column(no_wrap=True, justify="right", min_width=7)
    table.add_column(no_wrap=True)
    return table


def _columns(*titles: str, left: Sequence[str] = ("zone", "verdict")) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    for title in titles:
        side = "left" if title in left else "right"
        table.add_column(
            title, justify="left" if side == "left" else "right", no_wrap=side == "right", overflow="fold"
        )
    return table


def _kb(amount: int | None) -> str:
    return "" if amount is None else str(amount // 1024)
