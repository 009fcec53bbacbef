"""The aftermath: the host and the victims' units when the report had settled, and in the minute after.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from oomwatchd.procfs import meminfo
from oomwatchd.records.capture import CgroupCharge, OomCapture, UnitEntry
from oomwatchd.records.report import Part


class UnitStep(Part, frozen=True, kw_only=True):
    """One entry of the service manager about a victim's unit; ``seconds`` after the report. ``step``,
    ``result`` and ``restarts`` as in :class:`oomwatchd.records.capture.UnitEntry`."""

    seconds: float
    unit: str
    step: str
    text: str
    result: str | None = None
    restarts: int | None = None


class Aftermath(Part, frozen=True, kw_only=True):
    """Memory on detection and when the report had settled (``seconds`` later), the victims that were still
    there, and the service manager's entries about their units.

    ``cgroup`` is the one whose limit was hit. ``unit_watch_seconds`` is how long the journal was listened to,
    None while it still is, or where nobody could.
    """

    seconds: float | None = None
    free_before_bytes: int | None = None
    free_after_bytes: int | None = None
    available_before_bytes: int | None = None
    available_after_bytes: int | None = None
    cgroup: CgroupCharge | None = None
    victims_left: tuple[int, ...] | None = None
    units: tuple[UnitStep, ...] = ()
    unit_watch_seconds: float | None = None


def aftermath(capture: OomCapture) -> Aftermath | None:
    """None where the report was not watched, or has not settled."""
    if not capture.settled or capture.at is None:
        return None
    before = meminfo(capture.at)
    after = meminfo(capture.after) if capture.after is not None else {}
    looked = [facts for facts in capture.processes if facts.alive_after is not None]
    return Aftermath(
        seconds=None if capture.after is None else round((capture.after.usec - capture.at.usec) / 1e6, 3),
        free_before_bytes=before.get("MemFree"),
        free_after_bytes=after.get("MemFree"),
        available_before_bytes=before.get("MemAvailable"),
        available_after_bytes=after.get("MemAvailable"),
        cgroup=capture.charge_after,
        victims_left=tuple(facts.pid for facts in looked if facts.alive_after) if looked else None,
        units=tuple(_step(entry, capture.at.usec) for entry in capture.unit_log),
        unit_watch_seconds=capture.unit_watch_seconds,
    )


def _step(entry: UnitEntry, began: int) -> UnitStep:
    return UnitStep(
        seconds=round((entry.usec - began) / 1e6, 3),
        unit=entry.unit,
        step=entry.step,
        text=entry.text,
        result=entry.result,
        restarts=entry.restarts,
    )
