"""Memory in the minutes before as lines: by kind, by holder, and how it would go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from oomwatchd.diagnosis import nearing
from oomwatchd.event import OomEvent
from oomwatchd.procfs import meminfo
from oomwatchd.records.capture import Snapshot
from oomwatchd.render import fields
from oomwatchd.render.fields import amount
from oomwatchd.render.html import figures
from oomwatchd.render.html.figures import Line, Lines
from oomwatchd.render.html.sections.shown import MARKS

_SERIES: tuple[tuple[str, str, Callable[[dict[str, int]], int | None]], ...] = (
    ("anon", "anonymous", lambda m: m.get("AnonPages")),
    ("file", "file cache", lambda m: m.get("Cached")),
    ("free", "available", lambda m: m.get("MemAvailable")),
    ("unreclaimable", "slab, unreclaimable", lambda m: m.get("SUnreclaim")),
    ("swap", "swap used", lambda m: m["SwapTotal"] - m.get("SwapFree", 0) if m.get("SwapTotal") else None),
)


def before(event: OomEvent) -> Iterator[Lines]:
    taken = [*fields.snapshots(event, "before"), *fields.snapshots(event, "at")]
    if len(taken) < 2:
        return
    end = taken[-1].usec
    happened = [seconds for seconds, _ in fields.marks(event, MARKS)]
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


def near(event: OomEvent) -> Iterator[Lines]:
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
