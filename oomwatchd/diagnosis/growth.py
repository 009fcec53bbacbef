"""The growth of the process or cgroup that the kill was about: a line through the recorder's samples.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from oomwatchd.diagnosis.case import Case, Process
from oomwatchd.procfs import meminfo
from oomwatchd.records.capture import Track

#: Least number of points, and least growth as a share of the limit. Below: least share of steps that go up,
#: and least share of the variation that the line explains.
POINTS, SHARE = 5, 0.1
_STEADY, _STRAIGHT = 0.8, 0.9
#: Seconds before the kill, and share of the rate. Whoever grew less in them had come to its end.
_LAST, _SLOWED = 5, 0.05
#: Least seconds without growth, and share of a process that comes and goes without being growth.
_STILL, _MOVES = 10, 0.05
#: Least number of samples of which the rate is compared with that of the whole life; the most it may differ.
_FEW, _SAME = 3, 0.15
#: Share of the used swap. A process with more made the swap grow.
_SWAPPED = 0.5
#: Growth may have begun late: the whole time is tried first, then the last minute, then the last 15 seconds.
_WINDOWS_USEC = (1 << 62, 60_000_000, 15_000_000)


class Climb(NamedTuple):
    """The growth of a track in bytes, over ``seconds``; ``whole`` is the limit (or RAM) in bytes."""

    track: Track
    first: int
    last: int
    seconds: float
    per_minute: int
    whole: int


def climb_of(case: Case) -> Climb | None:
    """The victim's growth, else that of the process or cgroup that grew most; None without steady growth."""
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
    # The victim first, then the largest growth. A process goes before its cgroup: it is nearer to the cause.
    return max(climbs, key=lambda c: (c[0], c[1].last - c[1].first, c[1].track.kind == "process"))[1]


def _anchored(case: Case, track: Track) -> Track:
    """The samples of a process with its swap and two more points: it held nothing at its start, and at the
    kill it held what the report says. A busy host, or a process that grew fast, has few samples."""
    if track.kind != "process" or case.capture is None or not track.points:
        return track
    process = next((p for p in case.processes if p.pid == track.pid), None)
    points, end = _with_swap(case, track, process), case.at.usec if case.at is not None else None
    if not points:
        return track
    facts = next((f for f in case.capture.processes if f.pid == track.pid), None)
    start = facts.start_usec if facts is not None else None
    span = points[-1][0] - points[0][0]
    if process is not None and end is not None and end > points[-1][0]:
        points.append((end, process.rss_bytes if case.in_cgroup else process.bytes))
    # a start long before the first sample would make a straight line by itself
    if start is not None and points[0][0] > start and (points[0][0] - start <= span or _since(points, start)):
        points.insert(0, (start, 0))
    return msgspec.structs.replace(track, points=tuple(points))


def _since(points: Sequence[tuple[int, int]], start: int) -> bool:
    """Whether three or more points have the rate of the whole life: it grew like that from the start."""
    rate, _ = _line(points)
    last_usec, last = points[-1]
    return len(points) >= _FEW and abs(rate * (last_usec - start) - last) <= _SAME * last


def _with_swap(case: Case, track: Track, process: Process | None) -> list[tuple[int, int]]:
    """The samples of a process, each with its part of the swap that was then in use. Samples have resident
    memory only, which grows no more once the rest goes to swap. Its part at the end is known; if that is
    most of the swap, it was so before."""
    points = list(track.points)
    swap = case.report.memory.swap if case.report.memory is not None else None
    if process is None or not process.swap_bytes or case.in_cgroup or swap is None or case.capture is None:
        return points
    used = (swap.total_bytes or 0) - (swap.free_bytes or 0)
    if process.swap_bytes < _SWAPPED * used or not used:
        return points
    share = min(process.swap_bytes / used, 1.0)
    then = {sample.usec: meminfo(sample) for sample in case.capture.before}
    swapped = {
        usec: known["SwapTotal"] - known["SwapFree"]
        for usec, known in then.items()
        if {"SwapTotal", "SwapFree"} <= known.keys()
    }
    return [(usec, held + int(share * swapped[usec])) for usec, held in points if usec in swapped]


def _climb(track: Track, whole: int) -> Climb | None:
    end = track.points[-1][0] if track.points else 0
    for window in _WINDOWS_USEC:
        points = [(usec / 1e6, amount) for usec, amount in track.points if end - usec <= window]
        if len(points) < POINTS:
            continue
        rate, straight = _line(points)
        seconds = points[-1][0] - points[0][0]
        if (
            rate * seconds >= SHARE * whole
            and straight >= _STRAIGHT
            and grows(amount for _, amount in points)
            and not _ended(points, rate)
        ):
            return Climb(track, points[0][1], points[-1][1], seconds, int(rate * 60), whole)
    return None


def _ended(points: Sequence[tuple[float, int]], rate: float) -> bool:
    """Whether it had stopped growing some seconds before the last point."""
    end, last = points[-1]
    before = [(then, amount) for then, amount in points if then <= end - _LAST]
    if not before:
        return False
    then, amount = before[-1]
    return last - amount < _SLOWED * rate * (end - then)


def _line(points: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """The least squares line: its slope in bytes a unit of time, and its explained share of the variation."""
    n = len(points)
    x_mean, y_mean = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    xx = sum((x - x_mean) ** 2 for x, _ in points)
    yy = sum((y - y_mean) ** 2 for _, y in points)
    xy = sum((x - x_mean) * (y - y_mean) for x, y in points)
    return (xy / xx, xy * xy / (xx * yy)) if xx and yy else (0.0, 0.0)


def still_seconds(case: Case, process: Process) -> int:
    """For how many seconds before the report the recorder shows that ``process`` grew no more: what the
    machine's processes have gained since then, whoever asked has. 0 if it asked itself, or if that is not
    known of the last seconds."""
    # a thread of it is not listed; neither is a kernel thread
    asker = next((p for p in case.processes if p.pid == case.report.trigger.pid), process)
    own, swap = case.ledger.held("anon"), case.report.memory.swap if case.report.memory is not None else None
    if case.capture is None or case.at is None or asker.pid == process.pid or own is None:
        return 0
    used = (swap.total_bytes or 0) - (swap.free_bytes or 0) if swap is not None else 0
    least = own + used - asker.bytes - int(_MOVES * process.bytes)
    facts = next((f for f in case.capture.processes if f.pid == process.pid), None)
    start = (facts.start_usec if facts is not None else None) or 0
    since = case.at.usec
    for sample in reversed(case.capture.before):
        then = meminfo(sample)
        held = then.get("AnonPages", 0) + then.get("SwapTotal", 0) - then.get("SwapFree", 0)
        if held < least or sample.usec < start:
            break
        since = sample.usec
    seconds = (case.at.usec - since) // 1_000_000
    return seconds if seconds >= _STILL else 0


def grows(amounts: Iterable[int]) -> bool:
    """Whether nearly every step goes up."""
    steps = [b - a for a, b in pairwise(amounts)]
    return sum(s > 0 for s in steps) >= _STEADY * len(steps)
