"""One process, looked at in the microseconds that it has left.

Few small reads and nothing that waits: no library here, each file is one open, one read. Any of them may
fail at any moment because the process is gone; what was learnt until then is kept. Source: proc(5).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from oomwatchd.observe.host import Host, read_bytes
from oomwatchd.observe.redact import redact
from oomwatchd.records.capture import ProcessFacts
from oomwatchd.records.kmsg import to_text

#: ``TASK_COMM_LEN`` is 16, but a kernel thread's shown name is longer (up to 64).
COMM_BYTES = 64
#: A cgroup's path has no bound of its own but PATH_MAX for each controller's line.
CGROUP_BYTES = 16 * 1024
COMMAND_LINE_BYTES = 4096
#: include/linux/sched.h
PF_EXITING = 4

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
    stat = _stat(read_bytes(directory + "stat", 4096) or b"")
    return ProcessFacts(
        pid=pid,
        comm=called,
        cgroup=memory_cgroup(cgroup, exiting=stat.exiting or stat.state is None) if cgroup else None,
        executable=executable,
        command_line=_redacted(arguments) if arguments else None,
        parent_pid=stat.parent_pid,
        start_usec=stat.start_usec,
    )


def start_of(host: Host, pid: int) -> int | None:
    """When this process began, microseconds since boot; with the pid it says which process it is."""
    return _stat(read_bytes(f"{host.proc}/{pid}/stat", 4096) or b"").start_usec


def look_after(host: Host, facts: ProcessFacts) -> ProcessFacts:
    """The same facts, with whether that very process is still there."""
    text = read_bytes(f"{host.proc}/{facts.pid}/stat", 4096)
    if text is None:
        return msgspec.structs.replace(facts, alive_after=False)
    stat = _stat(text)
    if facts.start_usec is None or stat.start_usec is None:
        return facts
    if stat.start_usec != facts.start_usec:
        return msgspec.structs.replace(facts, alive_after=False)
    # a zombie has given its memory back
    return msgspec.structs.replace(facts, alive_after=stat.state not in ("Z", "X"), state_after=stat.state)


def memory_cgroup(text: bytes, *, exiting: bool = False) -> str | None:
    """The path that counts for memory out of /proc/PID/cgroup: the v1 memory controller's where there is
    one, else the unified hierarchy's (cgroups(7)). A cgroup's name may hold anything but a newline.

    Of an exiting process v1 says ``/``, wherever it lived, while the unified hierarchy still tells and marks
    a cgroup that was removed (proc_cgroup_show()). Where systemd keeps both, they are alike.
    """
    unified = memory = None
    for line in text.split(b"\n"):
        fields = line.split(b":", 2)
        if len(fields) < 3:
            continue
        if b"memory" in fields[1].split(b","):
            memory = to_text(fields[2])
        if fields[0] == b"0" and not fields[1]:
            unified = to_text(fields[2].removesuffix(b" (deleted)"))
    if memory == "/" and exiting:
        return unified if unified != "/" else None
    return unified if memory is None else memory


def _redacted(arguments: bytes) -> str:
    return redact(to_text(argument) for argument in arguments.rstrip(b"\0").split(b"\0"))


def _executable(directory: str) -> str | None:
    try:
        return to_text(os.fsencode(Path(directory, "exe").readlink()))
    except OSError:
        return None


class _Stat(msgspec.Struct, frozen=True):
    state: str | None = None
    parent_pid: int | None = None
    start_usec: int | None = None
    exiting: bool = False


def _stat(text: bytes) -> _Stat:
    """What /proc/PID/stat says behind the name's last ``)``; start is in microseconds since boot."""
    fields = text.rpartition(b")")[2].split()
    if len(fields) < 20 or not (fields[1].isdigit() and fields[6].isdigit() and fields[19].isdigit()):
        return _Stat()
    return _Stat(
        state=to_text(fields[0]),
        parent_pid=int(fields[1]),
        start_usec=int(fields[19]) * 1_000_000 // os.sysconf("SC_CLK_TCK"),
        exiting=bool(int(fields[6]) & PF_EXITING),
    )
