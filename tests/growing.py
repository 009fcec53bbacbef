"""Simulated memory, looked at as the flight recorder looks: calm every 10 s, closer where an end is in
sight."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from oomwatchd.records.nearing import Nearing
from oomwatchd.warning.incidents import Incidents, Reading

MB = 1 << 20
#: seconds -> share of the capacity that is used
Shape = Callable[[float], float]


class Run:
    """The result of one shape: when the capacity was exceeded, and how every warning ended."""

    def __init__(self) -> None:
        self.exhausted: float | None = None
        self.warnings: list[Nearing] = []

    @property
    def lead(self) -> float:
        """Seconds from the warning to the end."""
        return next((one.lead_seconds or 0.0 for one in self.warnings if one.state == "came_true"), 0.0)


def run(
    shape: Shape,
    seconds: float,
    *,
    capacity: int = 512 * MB,
    calm: float = 10.0,
    phase: float = 0.0,
    horizon: float = 1800.0,
) -> Run:
    """Watch ``shape`` for so long or until it exceeds its capacity, which kills."""
    incidents, result = Incidents(horizon_seconds=horizon), Run()
    told: dict[int, Nearing] = {}
    now, pace, step = phase, calm, 0.25
    at = 0.0
    while at < seconds:
        if shape(at) >= 1.0:
            result.exhausted = at
            killed = incidents.killed("/test", None, int(at * 1e6), at)
            if killed is not None:
                told[killed[0].usec] = killed[0]
            break
        if at >= now:
            used = int(shape(at) * capacity)
            reading = Reading(cgroup="/test", usec=int(at * 1e6), used_bytes=used, capacity_bytes=capacity)
            told |= {one.usec: one for one in incidents.take([reading], int(at * 1e6), at)}
            soonest = incidents.soonest_seconds
            wanted = calm if soonest is None else max(1.0, min(calm, soonest / 20))
            pace = min(wanted, 2 * pace)
            now = at + pace
        at += step
    result.warnings = list(told.values())
    return result


def linear(seconds: float, base: float = 0.0, start: float = 0.0) -> Shape:
    """From ``base`` to the end in so many seconds."""
    return lambda at: base + max(0.0, at - start) * (1.0 - base) / seconds


def noisy(shape: Shape, share: float, seed: int = 1) -> Shape:
    """With another amount of noise every second."""
    drawn = random.Random(seed)  # the same in each run
    noise = [drawn.gauss(0.0, share) for _ in range(8192)]
    return lambda at: max(0.0, shape(at) + noise[int(at) % 8192])


def stairs(shape: Shape, step: float) -> Shape:
    """In steps of so many seconds."""
    return lambda at: shape(math.floor(at / step) * step)


def settling(level: float, time: float, start: float = 0.0) -> Shape:
    """Towards ``level``, ever slower."""
    return lambda at: level * (1.0 - math.exp(-max(0.0, at - start) / time))


def ramp(level: float, seconds: float, start: float = 0.0, base: float = 0.0) -> Shape:
    """Straight to ``level``, and not further."""
    return lambda at: base + (level - base) * min(1.0, max(0.0, at - start) / seconds)


def sawtooth(low: float, high: float, period: float) -> Shape:
    """A collector's: grows and falls back."""
    return lambda at: low + (high - low) * (at % period) / period


def ratchet(low: float, swing: float, kept: float, period: float) -> Shape:
    """A collector's that gives back a little less each time."""
    return lambda at: low + kept * (at // period) + swing * (at % period) / period


def churn(mean: float, swing: float, seed: int = 1, every: float = 3.0) -> Shape:
    """Short jobs that come and go."""
    drawn = random.Random(seed)  # the same in each run
    levels = [max(0.02, drawn.gauss(mean, swing)) for _ in range(8192)]
    return lambda at: min(0.97, levels[int(at / every) % 8192])
