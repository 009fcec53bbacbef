"""How soon a cgroup will reach its own limit at its growth rate.

Memory that can be dropped (inactive file pages) is left out. It is read from memory.stat, which costs the
kernel much time, only where the growth or a full cgroup makes it matter.
"""

from __future__ import annotations

from oomwatchd.cgroupfs import Files, entry
from oomwatchd.observe.group import Group
from oomwatchd.observe.growth import GrowthRate
from oomwatchd.observe.host import read_bytes

#: A limit that will be reached within this time is near.
IN_SIGHT_SECONDS = 80.0
#: A cgroup that came near its limit, or just got one, is watched for so long.
WATCHED_USEC = 10_000_000
#: Slower growth than this share of the limit a second (3 % a minute) is ignored.
_GROWING = 0.0005
#: From this share of its limit on a cgroup may live on what it drops: its growth does not show in its usage.
_FULL = 0.9
_STAT_BYTES = 8192


def judge(group: Group, files: Files, usec: int, usage: int | None) -> None:
    """Note what the cgroup is charged at that moment, and with it how long until its limit."""
    group.usage, group.left_seconds = usage, None
    limit = group.limit
    if not limit or usage is None:
        group.growth = group.held = None
        return
    if group.growth is None:
        group.growth = GrowthRate(usec, usage)
    rate = group.growth.rate(usec, usage)
    if _left(limit - usage, rate, limit) is None and usage < _FULL * limit:
        group.held = None
        return
    stat = read_bytes(f"{group.directory}/{files.stat}", _STAT_BYTES)
    held = usage - (entry(stat, files.inactive_file) or 0)
    if group.held is None:
        group.held = GrowthRate(usec, held)  # all that it grew by may stay
    else:
        rate = group.held.rate(usec, held)
    group.left_seconds = _left(limit - held, rate, limit)
    if group.left_seconds is not None:
        group.watched_until = usec + WATCHED_USEC


def _left(room: int, rate: float, limit: int) -> float | None:
    """Seconds until ``room`` is used up."""
    if rate < _GROWING * limit or room > rate * IN_SIGHT_SECONDS:
        return None
    return max(0, room) / rate
