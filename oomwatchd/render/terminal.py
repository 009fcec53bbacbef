"""OomEvent -> text for a terminal, a pager or a mail: the verdict first, then what it rests on.

The first lines answer who died, who asked, why, and what to change. Names are escaped
(:mod:`oomwatchd.words.escape`), never taken as markup. Without colour the text is plain: no escape
sequence, ASCII bars; the caller decides whether there is colour (a terminal, NO_COLOR).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from oomwatchd.diagnosis.allocator import ZoneVerdict
from oomwatchd.diagnosis.badness import TaskScore
from oomwatchd.diagnosis.findings import Case
from oomwatchd.event import OomEvent
from oomwatchd.records.capture import Track
from oomwatchd.records.report import Finding, Severity
from oomwatchd.render.fields import (
    EXCLUDED,
    afterwards,
    ago,
    amount,
    asked,
    case_of,
    change,
    died,
    left_out,
    marks,
    memory_shares,
    origin,
    score,
    track_title,
    tracks,
    why,
)
from oomwatchd.render.layout import Line, Row, Span, columns, folded, rendered, styled, table, under, wrapped
from oomwatchd.words.amounts import percent
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless, harmless_name
from oomwatchd.words.text import plural

_LABEL = 9
_STYLES: dict[Severity, str] = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
_TOP_TASKS = 10
_TRACKS, _MARKS = 6, 8
#: below so many columns tables leave out the least important columns
_NARROW = 64
#: the blank that stays on one line with what is around it
_FIGURE = deferred(r" (?<=\d )(?=%|kB|[KMGTPE]iB)")


def render_text(event: OomEvent, *, width: int = 80, color: bool = False, case: Case | None = None) -> str:
    """The whole report as text of at most ``width`` columns (40 at least), with a newline at the end.
    ``case``: the event's, if it is known already."""
    lines = _parts(event, max(width, 40), color, case_of(event) if case is None else case)
    return "".join(f"{rendered(line, color=color)}\n" for line in lines)


def _parts(event: OomEvent, width: int, color: bool, case: Case) -> Iterator[Line]:
    yield from _verdict(event, width)
    for said in (", ".join(origin(event)), f"event {harmless(event.id)}"):
        yield from (styled(line, "dim") for line in wrapped(said, width) if line)
    sections = (
        ("Memory", _memory(case, width, color)),
        ("Cgroup", _cgroup(event, width, color)),
        ("Zones, in kB", _zones(case, width)),
        ("Tasks by score", _tasks(case, event, width)),
        ("The minutes before", _before(event, width, color)),
        ("Afterwards", _afterwards(event, width)),
        ("Findings", _findings(event, width)),
    )
    for title, body in sections:
        if body:
            yield ""
            yield styled(title, "bold")
            yield from body


# the verdict


def _verdict(event: OomEvent, width: int) -> Iterator[Line]:
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
        ("CHANGE", _lines(change(event), room, 8 * narrow), ""),  # whole: it is to be done
    ):
        for number, line in enumerate(lines):
            yield (("" if number else label).ljust(_LABEL), "dim"), (line, style)


def _lines(text: str, room: int, most: int) -> list[str]:
    """``text`` in at most so many lines; what is left out shows as dots."""
    if columns(text) <= room:
        return [text]
    kept = _FIGURE.sub("\x1f", text)  # no name holds this sign: it is spelled out
    lines = [line.replace("\x1f", " ") for line in wrapped(kept, room)] if most > 1 else [text]
    if len(lines) <= most and columns(lines[-1]) <= room:
        return lines
    last = " ".join(lines[most - 1 :])
    return [*lines[: most - 1], folded(last, room - 3)[0].rstrip() + "..."]


# memory as bars


def _bar(share: float, width: int, color: bool) -> str:
    full = min(max(round(share * width), 0), width)
    return ("█" if color else "#") * full + ("░" if color else ".") * (width - full)


def _memory(case: Case, width: int, color: bool) -> list[Line]:
    ram = case.ram_bytes
    if case.report.memory is None or not ram:
        return []
    rows = []
    room = width - 46
    for share in memory_shares(case):
        picture = _bar(share.bytes / ram, room, color)
        rows.append(Row(share.title, amount(share.bytes), percent(share.bytes, ram), picture))
    rows.append(Row("RAM", amount(ram)))
    swap = case.report.memory.swap
    if swap is None or swap.total_bytes is None:
        rows.append(Row("swap", "unknown"))
    elif not swap.total_bytes:
        rows.append(Row("swap", "none"))
    else:
        total, used = swap.total_bytes, swap.total_bytes - (swap.free_bytes or 0)
        rows.append(Row("swap used", amount(used), percent(used, total), _bar(used / total, room, color)))
    return _bars(rows, width)


def _cgroup(event: OomEvent, width: int, color: bool) -> list[Line]:
    memcg = event.memcg
    if memcg is None:
        return []
    paths = [
        Row(label, harmless_name(path))
        for label, path in (
            ("limit of", memcg.oom_path),
            ("victim in", memcg.task_path if memcg.task_path not in (memcg.oom_path, "/") else None),
            ("killed all", memcg.group_path),
        )
        if path is not None
    ]
    rows = []
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
        rows.append(Row(name, amount(counter.usage_bytes), of, bar))
    return table(paths, width, gap=1) + _bars(rows, width)


# zones against watermarks


def _zones(case: Case, width: int) -> list[Line]:
    if not case.zones:
        return []
    judged = case.request is not None
    marks = ("free", "min") if width < _NARROW and judged else ("free", "min", "low", "high")
    if judged:
        rows = []
        for verdict in case.verdicts:
            required = verdict.required_bytes
            needs = "" if required is None or not verdict.allowed else f">{required // 1024}"
            held = (_kb(verdict.record.bytes_of(name)) for name in marks)
            rows.append(Row(harmless(verdict.label), *held, needs, _said(verdict)))
        return _fitted(("zone", *marks, "needs", "verdict"), rows, width)
    head = Row("zone", *marks, style="dim")
    rows = []
    for zone in case.zones:
        name = zone.zone if zone.node is None else f"node {zone.node} {zone.zone}"
        rows.append(Row(harmless(name), *(_kb(zone.bytes_of(mark)) for mark in marks)))
    return table([head, *rows], width, right=range(1, len(marks) + 1))


def _fitted(titles: Sequence[str], rows: Sequence[Row], width: int) -> list[Line]:
    """A table; where it would be too wide, its last column comes in lines of its own: no figure is broken."""
    head = Row(*titles, style="dim")
    cells = zip(*([text for text, _ in row.cells] for row in (head, *rows)), strict=True)
    lengths = [max(map(columns, column)) for column in cells]
    figures = range(1, len(titles) - 1)
    if sum(lengths) + 2 * (len(lengths) - 1) <= width:
        return table([head, *rows], width, right=figures)
    short = [Row(*row.cells[:-1]) for row in (head, *rows)]
    said: list[Line] = [((f"{row.cells[0][0]}: ", ""), row.cells[-1]) for row in rows]
    return table(short, width, right=figures) + said


def _said(verdict: ZoneVerdict) -> Span:
    if not verdict.allowed:
        return EXCLUDED[verdict.excluded_by or "empty"], "dim"
    if verdict.shortfall_bytes is not None:
        least = "at least " if verdict.at_least else ""
        short = f"short by {least}{verdict.shortfall_bytes // 1024}"
        if not verdict.shortfall_bytes:
            short = "at the mark"
        return short, "red"
    if verdict.fits is False:
        return "no block", "red"
    return ("fits", "") if verdict.fits else ("unknown", "dim")


# tasks


def _tasks(case: Case, event: OomEvent, width: int) -> list[Line]:
    if not event.tasks:
        return []
    scores = case.scores
    dead = {v.pid for v in event.victims}
    if scores is None:
        return [f"  {plural(len(event.tasks), 'task')}, sizes unknown (no page size)"]
    titles = ("pid", "rss", "score", "name") if width < _NARROW else tuple(_TASK_CELLS)
    shown = list(scores.rows[:_TOP_TASKS])
    shown += [r for r in scores.rows[_TOP_TASKS:] if r.task.pid in dead][:_TOP_TASKS]
    rows = [
        Row(*(_TASK_CELLS[title](row) for title in titles), style="bold" if row.task.pid in dead else "")
        for row in shown
    ]
    lines = table([Row(*titles, style="dim"), *rows], width, right=range(len(titles) - 1))
    rest = len(scores.rows) - len(shown)
    if rest > 0:
        lines.append(styled(f"  and {rest} more", "dim"))
    if event.tasks_left_out is not None:
        lines += [styled(f"  {line}", "dim") for line in wrapped(left_out(event.tasks_left_out), width - 2)]
    return lines


_TASK_CELLS: dict[str, Callable[[TaskScore], str]] = {
    "pid": lambda row: str(row.task.pid),
    "rss": lambda row: amount(row.task.rss_bytes),
    "swap": lambda row: amount(row.task.swap_bytes),
    "adj": lambda row: "" if row.task.oom_score_adj is None else str(row.task.oom_score_adj),
    "score": score,
    "name": lambda row: harmless_name(row.task.comm),
}


# the minutes before


def _before(event: OomEvent, width: int, color: bool) -> list[Line]:
    shown = tracks(event, _TRACKS)
    lines: list[Line] = []
    if shown:
        begin = min(track.points[0][0] for track in shown)
        end = max(track.points[-1][0] for track in shown)
        rows = []
        room = max(width - 66, 8)
        most = 36 if width >= 80 else max(width - 40, 12)
        for track in shown:
            first, last = track.points[0][1], track.points[-1][1]
            drawn = (_climb(track, begin, end, room, color),) if width >= _NARROW else ()
            rows.append(Row(track_title(track, most)[:most], amount(first), amount(last), *drawn))
        lines.append(styled(f"resident or charged, over {(end - begin) / 1e6:.0f} seconds", "dim"))
        lines += _bars(rows, width)
    for seconds, said in marks(event, _MARKS):
        lines += under(f"{ago(seconds):>14}", said, width)
    return lines


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


def _afterwards(event: OomEvent, width: int) -> list[Line]:
    return [line for title, value in afterwards(event) for line in under(f"{title:<14}", value, width)]


# findings


def _findings(event: OomEvent, width: int) -> list[Line]:
    return [line for finding in event.findings for line in _finding(finding, width)]


def _finding(finding: Finding, width: int) -> Iterator[Line]:
    head = wrapped(f"{finding.severity:<8} {harmless(finding.title)}  [{finding.id}]", width - 2)
    grave = f"{finding.severity:<8} "
    mark = f"[{finding.id}]"
    for number, line in enumerate(head):
        first, rest = (grave, line[len(grave) :]) if not number else ("", line)
        before, found, _ = rest.rpartition(mark)
        last = (before, f"{mark}") if found else (rest, "")
        yield ("  ", ""), (first, _STYLES[finding.severity]), (last[0], ""), (last[1], "dim")
    for line in wrapped(harmless(finding.explanation), width - 4):
        yield f"    {line}"
    if finding.advice:
        for line in wrapped(f"-> {harmless(finding.advice)}", width - 4):
            yield ("    ", ""), (line, "green")


# cells


def _bars(rows: Sequence[Row], width: int) -> list[Line]:
    """A name, an amount, a second figure, a picture; a narrow terminal gets the name in several lines."""
    shown = []
    room = width - 20 if width < _NARROW else width
    for row in rows:
        (title, style), *others = row.cells
        first, *rest = wrapped(title, room)
        shown += [Row((first, style), *others), *(Row((piece, style)) for piece in rest)]
    return table(shown, width, right=(1, 2), gap=1, least=(14, 9, 7))


def _kb(amount: int | None) -> str:
    return "" if amount is None else str(amount // 1024)
