"""The two clocks that the daemon reads: CLOCK_MONOTONIC and wall time."""

from __future__ import annotations

import time

import msgspec


class Times(msgspec.Struct, frozen=True, gc=False):
    """One moment on two clocks: CLOCK_MONOTONIC in microseconds, wall time in seconds since the epoch."""

    monotonic_usec: int
    wall: float


def now() -> Times:
    """This moment on both clocks."""
    return Times(time.monotonic_ns() // 1000, time.time())
