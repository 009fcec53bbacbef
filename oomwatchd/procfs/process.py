"""/proc/PID/stat.

Source: proc_pid_stat(5).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import msgspec

from oomwatchd.records.kmsg import to_text

#: include/linux/sched.h
_PF_EXITING = 4
#: fields of which the numbers are taken, counted behind the name: parent, flags, start
_PARENT, _FLAGS, _START = 1, 6, 19


class Stat(msgspec.Struct, frozen=True):
    """What it says of a process; ``start_ticks`` counts from boot (sysconf(3), ``_SC_CLK_TCK`` a second).
    None where it could not be read."""

    state: str | None = None
    parent_pid: int | None = None
    start_ticks: int | None = None
    exiting: bool = False


def stat(text: bytes) -> Stat:
    """The fields behind the name's last ``)``: a name may hold brackets."""
    fields = text.rpartition(b")")[2].split()
    if len(fields) <= _START or not all(fields[at].isdigit() for at in (_PARENT, _FLAGS, _START)):
        return Stat()
    return Stat(
        state=to_text(fields[0]),
        parent_pid=int(fields[_PARENT]),
        start_ticks=int(fields[_START]),
        exiting=bool(int(fields[_FLAGS]) & _PF_EXITING),
    )
