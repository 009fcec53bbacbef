"""One process, looked at in the microseconds that it has left.

A few small reads and no waiting: each file is one open and one read, without a library. Any of them may fail
because the process is gone; what was read until then is kept. Source: proc(5).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from oomwatchd.cgroupfs import memory_cgroup
from oomwatchd.observe.host import Host, read_bytes
from oomwatchd.observe.redact import redact
from oomwatchd.procfs.process import Stat, stat
from oomwatchd.records.capture import ProcessFacts
from oomwatchd.records.kmsg import to_text

#: ``TASK_COMM_LEN`` is 16, but a kernel thread's shown name is longer (up to 64).
COMM_BYTES = 64
#: A cgroup's path has no bound of its own but PATH_MAX for each controller's line.
CGROUP_BYTES = 16 * 1024
COMMAND_LINE_BYTES = 4096

CommandLine = Literal["off", "executable", "full"]


def look_at(host: Host, pid: int, comm: str | None, command_line: CommandLine) -> ProcessFacts | None:
    """What /proc says of ``pid`` now; None if it is gone, or if that is not the process called ``comm``
    (None: any).

    The kernel prints pids of the first pid namespace: in a container the number may be another's.
    ``command_line`` says how much of it is read: nothing, the executable's path, or all arguments too.
    """
    directory = f"{host.proc}/{pid}/"
    name = read_bytes(directory + "comm", COMM_BYTES)
    called = None if name is None else to_text(name.removesuffix(b"\n"))
    if called is None or comm not in (None, called):
        return None
    cgroup = read_bytes(directory + "cgroup", CGROUP_BYTES)
    executable = _executable(directory) if command_line != "off" else None
    arguments = read_bytes(directory + "cmdline", COMMAND_LINE_BYTES) if command_line == "full" else None
    # after the cgroup: whether that was still the process's own is known only now
    seen = stat(read_bytes(directory + "stat", 4096) or b"")
    return ProcessFacts(
        pid=pid,
        comm=called,
        cgroup=host.whole(memory_cgroup(cgroup, exiting=seen.exiting or seen.state is None))
        if cgroup
        else None,
        executable=executable,
        command_line=_redacted(arguments) if arguments else None,
        parent_pid=seen.parent_pid,
        start_usec=_start_usec(seen),
    )


def start_of(host: Host, pid: int) -> int | None:
    """When this process began, microseconds since boot; with the pid it says which process it is."""
    return _start_usec(stat(read_bytes(f"{host.proc}/{pid}/stat", 4096) or b""))


def _start_usec(seen: Stat) -> int | None:
    ticks = seen.start_ticks
    return None if ticks is None else ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")


def look_after(host: Host, facts: ProcessFacts) -> ProcessFacts:
    """The same facts, with whether that very process is still there."""
    text = read_bytes(f"{host.proc}/{facts.pid}/stat", 4096)
    if text is None:
        return msgspec.structs.replace(facts, alive_after=False)
    seen = stat(text)
    start_usec = _start_usec(seen)
    if facts.start_usec is None or start_usec is None:
        return facts
    if start_usec != facts.start_usec:
        return msgspec.structs.replace(facts, alive_after=False)
    # a zombie has given its memory back
    return msgspec.structs.replace(facts, alive_after=seen.state not in ("Z", "X"), state_after=seen.state)


def _redacted(arguments: bytes) -> str:
    return redact(to_text(argument) for argument in arguments.rstrip(b"\0").split(b"\0"))


def _executable(directory: str) -> str | None:
    try:
        return to_text(os.fsencode(Path(directory, "exe").readlink()))
    except OSError:
        return None
