"""Something grew steadily until the kill.

Taken from the flight recorder (the minutes before) and the state on detection. Named is, first, the process
or cgroup that the kill was about and that grew along a line (least squares, nine tenths of the variation
explained) by a tenth of the limit at least: of its cgroup's where that was hit, else of RAM. Of a process
that began not long before the first look, the line begins with nothing at its start; it ends with what the
report says of it. Else the kind of memory of the whole machine that grew most, at nearly every step:
``AnonPages`` is the processes' own data,
``Shmem`` tmpfs and shared segments, ``SUnreclaim`` kernel objects, ``PageTables`` and ``KernelStack`` follow
from many processes or threads.

Steady growth over minutes may be a load that came up as well as a leak; the rate tells how long a larger
limit would have lasted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import setting
from oomwatchd.procfs import meminfo
from oomwatchd.records.capture import Track
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import middle_cut

ID = "leak_suspect"
TITLE = "Something grew steadily until the kill"

_KINDS = ("AnonPages", "Shmem", "SUnreclaim", "PageTables", "KernelStack", "Percpu")
#: fewer points are no trend; steps that grew; growth as a share of the limit; variation that a line explains
_POINTS, _STEADY, _SHARE, _STRAIGHT = 5, 0.8, 0.1, 0.9
#: to be the cause: what it held of the limit at last, and how much of that came in this time
_DECIDES, _MOST = 0.5, 0.5
#: A climb may have begun late: all of the time is tried first, then its last minute, then its last seconds.
_WINDOWS_USEC = (1 << 62, 60_000_000, 15_000_000)


class _Climb(NamedTuple):
    track: Track
    first: int
    last: int
    seconds: float
    per_minute: int


def find(case: Case) -> Claim | None:
    return _user(case) or _kind(case)


def _user(case: Case) -> Claim | None:
    """A process or a cgroup."""
    if case.capture is None:
        return None
    memcg = case.report.memcg
    confined = case.report.constraint == "memcg"
    named = {memcg.oom_path, memcg.task_path} - {None} if memcg is not None else set()
    named |= {facts.cgroup for facts in case.capture.processes if facts.cgroup not in (None, "/")}
    victims = {victim.pid for victim in case.report.victims}
    limits = [t.limit_bytes for t in case.capture.tracks if t.name in named and t.limit_bytes]
    if confined and memcg is not None and memcg.memory is not None and memcg.memory.limit_bytes:
        limits.append(memcg.memory.limit_bytes)
    whole = min(limits, default=None) if confined else case.meminfo_at.get("MemTotal")
    if not whole:
        return None
    climbs = []
    for track in case.capture.tracks:
        about = track.pid in victims if track.kind == "process" else track.name in named
        within = track.kind == "process" and track.cgroup in named
        if track.kind == "tmpfs" or track.name == "/" or (confined and not about and not within):
            continue
        climb = _climb(_anchored(case, track), whole)
        if climb is not None:
            climbs.append((about and track.kind == "process", climb))
    if not climbs:
        return None
    # the victim's own, else the one that took most; of equals the process, which is nearer to the cause
    _, climb = max(climbs, key=lambda c: (c[0], c[1].last - c[1].first, c[1].track.kind == "process"))
    track = climb.track
    cgroup = track.cgroup if track.kind == "process" else track.name
    unit = owner_of(cgroup).unit if cgroup else None
    who = f"{harmless_name(track.name)} (pid {track.pid})" if track.kind == "process" else "cgroup"
    where = f" {middle_cut(harmless_name(cgroup), 60)}" if cgroup else ""
    if track.kind == "process" and cgroup:
        where = f" in {unit or 'cgroup' + where}"
    called = f"{unit or 'the cgroup'}" if track.kind != "process" else harmless_name(track.name)
    finding = Finding(
        id=ID,
        severity="warning",
        title=f"{who if track.kind == 'process' else unit or 'The cgroup'} grew steadily until the kill",
        explanation=f"{who}{where} grew from {size(climb.first)} to {size(climb.last)} in the "
        f"{climb.seconds:.0f} seconds before: {size(climb.per_minute)} a minute. A leak, or a load that came "
        "up.",
        evidence={
            "kind": track.kind,
            **({"pid": track.pid, "comm": track.name} if track.pid is not None else {}),
            **({"cgroup": cgroup} if cgroup else {}),
            **({"unit": unit} if unit else {}),
            "first_bytes": climb.first,
            "last_bytes": climb.last,
            "seconds": round(climb.seconds, 3),
            "growth_per_minute_bytes": climb.per_minute,
        },
        advice=_advice(case, called, climb, whole),
    )
    text = f"{called} grew steadily, {size(climb.per_minute)} a minute, until the kill"
    # half of the whole: less is not what it was about
    grown = climb.last - climb.first
    decides = climb.last >= _DECIDES * whole and grown >= _MOST * climb.last
    return Claim(
        finding=finding, cause=Cause(tier=Tier.GREW, text=text, excess_bytes=grown) if decides else None
    )


def _anchored(case: Case, track: Track) -> Track:
    """The looks at a process, with what is known beyond them: at its start it held nothing, and at the kill
    what the report says. On a busy host, or where it filled the limit soon, looks are few."""
    if track.kind != "process" or case.capture is None or not track.points:
        return track
    points, end = list(track.points), case.at.usec if case.at is not None else None
    facts = next((f for f in case.capture.processes if f.pid == track.pid), None)
    start = facts.start_usec if facts is not None else None
    # one that began long before the looks would make a line by itself
    if start is not None and 0 < points[0][0] - start <= points[-1][0] - points[0][0]:
        points.insert(0, (start, 0))
    held = next((p.rss_bytes for p in case.processes if p.pid == track.pid), None)
    if held is not None and end is not None and end > points[-1][0]:
        points.append((end, held))
    return msgspec.structs.replace(track, points=tuple(points))


def _advice(case: Case, called: str, climb: _Climb, whole: int) -> str:
    """What a larger limit would be worth."""
    rate = f"at {size(climb.per_minute)} a minute"
    lasts = max(int(60 * whole / climb.per_minute), 1) if climb.per_minute else 0
    for_so_long = f"{lasts} s" if lasts < 120 else f"{lasts // 60} minutes"
    if case.in_cgroup:
        return (
            f"Find what {called} keeps and does not give back: {rate} a limit of {size(2 * whole)} lasts "
            f"{for_so_long} longer. Bound its heap or cache, or restart it before; raise the limit only if "
            "it "
            "then stops growing."
        )
    return (
        f"Bound {called}: its own settings (heap, cache, workers), or "
        f"{setting(case, 'MemoryMax=', 'a limit of its cgroup')}, so that it "
        "alone "
        f"is hit; find what it keeps: {rate} {size(whole)} more RAM last {for_so_long}."
    )


def _climb(track: Track, whole: int) -> _Climb | None:
    end = track.points[-1][0] if track.points else 0
    for window in _WINDOWS_USEC:
        points = [(usec / 1e6, amount) for usec, amount in track.points if end - usec <= window]
        if len(points) < _POINTS:
            continue
        rate, straight = _line(points)
        seconds = points[-1][0] - points[0][0]
        if (
            rate * seconds >= _SHARE * whole
            and straight >= _STRAIGHT
            and _grows(amount for _, amount in points)
        ):
            return _Climb(track, points[0][1], points[-1][1], seconds, int(rate * 60))
    return None


def _line(points: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Slope of the least squares line (bytes a second), and the share of the variation that it explains."""
    n = len(points)
    x_mean, y_mean = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    xx = sum((x - x_mean) ** 2 for x, _ in points)
    yy = sum((y - y_mean) ** 2 for _, y in points)
    xy = sum((x - x_mean) * (y - y_mean) for x, y in points)
    return (xy / xx, xy * xy / (xx * yy)) if xx and yy else (0.0, 0.0)


def _grows(amounts: Iterable[int]) -> bool:
    steps = [b - a for a, b in pairwise(amounts)]
    return sum(s > 0 for s in steps) >= _STEADY * len(steps)


def _kind(case: Case) -> Claim | None:
    """A kind of memory of the whole machine."""
    if case.capture is None or case.at is None:
        return None
    snapshots = [*case.capture.before, case.at]
    series = [(s.usec, meminfo(s)) for s in snapshots]
    total = case.meminfo_at.get("MemTotal")
    if len(series) < _POINTS or not total:
        return None
    best: tuple[int, str, int] | None = None
    for kind in _KINDS:
        points = [m[kind] for _, m in series if kind in m]
        if len(points) != len(series):
            continue
        grown = points[-1] - points[0]
        if grown < _SHARE * total or not _grows(points):
            continue
        if best is None or grown > best[0]:
            best = (grown, kind, points[0])
    seconds = (series[-1][0] - series[0][0]) / 1e6
    if best is None or seconds <= 0:
        return None
    grown, kind, first = best
    finding = Finding(
        id=ID,
        severity="warning",
        title="One kind of memory grew steadily until the kill",
        explanation=f"{kind} grew from {size(first)} to {size(first + grown)} in the {seconds:.0f} seconds "
        f"before, by {percent(grown, total)} of RAM: {size(int(60 * grown / seconds))} a minute.",
        evidence={
            "kind": kind,
            "first_bytes": first,
            "last_bytes": first + grown,
            "seconds": round(seconds, 3),
            "growth_per_minute_bytes": int(60 * grown / seconds),
        },
    )
    return Claim(finding=finding)
