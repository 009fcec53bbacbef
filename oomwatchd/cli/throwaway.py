"""A throw-away memory cgroup with a small limit, and a child that exceeds it: a real OOM kill that
cannot reach anything else.

The kernel chooses a victim only inside the cgroup whose limit was hit (mm/memcontrol.c,
mem_cgroup_out_of_memory()), and only the child is in it. Should the limit not hold, the child ends at
a bound of its own.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from oomwatchd.cgroupfs import Hierarchy, memory_cgroup
from oomwatchd.errors import OomwatchdError, PermissionDeniedError, UnavailableError
from oomwatchd.observe import hierarchy as observed
from oomwatchd.observe.host import Host

LIMIT_BYTES = 16 * 1024 * 1024
#: the child gives up here if nothing stops it
CHILD_BOUND_BYTES = 64 * 1024 * 1024
#: the child gives up after so long if nothing stops it
CHILD_SECONDS = 20
#: exit status of a child that reached its bound alive
CHILD_SURVIVED = 3

# Kernel interfaces by number: the child runs without site packages. It dies with its parent
# (PR_SET_PDEATHSIG), is the first to be chosen (oom_score_adj), and its memory cannot be swapped out
# (mlockall(2), locked on fault), so that a limit on memory alone suffices.
_CHILD = """
import ctypes, mmap, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 1, 2, 4
comm, (bound, seconds, survived) = sys.argv[1], map(int, sys.argv[2:])
libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
signal.alarm(seconds)
with open("/proc/self/oom_score_adj", "w") as file: file.write("1000")
with open("/proc/self/comm", "w") as file: file.write(comm)
libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)
sys.stdout.write("ready\\n"); sys.stdout.flush()
if sys.stdin.readline() != "go\\n": sys.exit(1)
memory = mmap.mmap(-1, bound, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for offset in range(0, bound, mmap.PAGESIZE): memory[offset] = 1
sys.exit(survived)
"""


class Victim:
    """The child, inside its limit and waiting for ``exceed()``. ``cgroup`` is its path as the kernel
    names it, ``comm`` its name, which no other process has."""

    def __init__(self, process: subprocess.Popen[str], comm: str, cgroup: str) -> None:
        self.pid = process.pid
        self.comm = comm
        self.cgroup = cgroup
        self._process = process

    def exceed(self) -> None:
        """Let the child allocate until the kernel kills it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("go\n")
            self._process.stdin.flush()

    def wait(self, timeout: float) -> None:
        """Wait for the kill; raises OomwatchdError if the child ended in another way or not at all."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise OomwatchdError(f"the child was not killed within {timeout:g} s") from error
        if status == CHILD_SURVIVED:
            bound = CHILD_BOUND_BYTES >> 20
            raise OomwatchdError(f"the child allocated {bound} MiB under a limit of {LIMIT_BYTES >> 20} MiB")
        if status != -signal.SIGKILL:
            raise OomwatchdError(f"the child ended with status {status} instead of being killed")


@contextlib.contextmanager
def victim() -> Iterator[Victim]:
    """A child in a memory cgroup of its own with a limit of LIMIT_BYTES; both are gone afterwards.

    Under systemd the cgroup is a transient scope, for the tree is systemd's; else a directory below the
    caller's own (v1) or below the nearest cgroup that hands the memory controller down (v2).
    Raises PermissionDeniedError without the right, UnavailableError where there is no memory controller.
    """
    token = secrets.token_hex(4)
    name = f"oomwatchd-selftest-{token}"
    command = [sys.executable, "-I", "-S", "-c", _CHILD]
    command += [f"oomtest{token}", str(CHILD_BOUND_BYTES), str(CHILD_SECONDS), str(CHILD_SURVIVED)]
    with contextlib.ExitStack() as cleanup:
        directory: Path | None = None
        if Path("/run/systemd/system").is_dir():  # sd_booted(3)
            scope = ["systemd-run", "--scope", "--quiet", "--collect", f"--unit={name}"]
            command = [*scope, f"--property=MemoryMax={LIMIT_BYTES}", "--property=MemorySwapMax=0", *command]
        else:
            directory = cleanup.enter_context(_directory(name))
        process = _start(command, cleanup)
        if directory is not None:
            (directory / "cgroup.procs").write_text(str(process.pid))
        hierarchy = memory_hierarchy()
        cgroup = cgroup_of(process.pid)
        if not cgroup.endswith((f"/{name}", f"/{name}.scope")):
            raise UnavailableError(f"the child is in memory cgroup {cgroup}, not in one of its own")
        if directory is None:
            directory = Path(hierarchy.mount, cgroup.lstrip("/"))
        limit = (directory / hierarchy.files.limit).read_text().strip()
        if limit != str(LIMIT_BYTES):
            raise UnavailableError(f"the limit of memory cgroup {cgroup} is {limit}, not {LIMIT_BYTES}")
        yield Victim(process, f"oomtest{token}", cgroup)


def _start(command: list[str], cleanup: contextlib.ExitStack) -> subprocess.Popen[str]:
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise UnavailableError(f"cannot start {command[0]}: {error.strerror}") from error
    cleanup.callback(_end, process)
    assert process.stdout is not None and process.stderr is not None
    if process.stdout.readline() != "ready\n":
        said = process.stderr.read().strip().splitlines()
        raise UnavailableError(f"cannot start the child: {said[-1] if said else 'it ended at once'}")
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        with contextlib.suppress(OSError):
            pipe.close()


def memory_hierarchy() -> Hierarchy:
    """Where memory cgroups are made; raises UnavailableError if no mounted hierarchy has the controller."""
    found = observed.memory_hierarchy(Host())
    if found is None:
        raise UnavailableError(
            "no mounted cgroup hierarchy has the memory controller",
            hint="boot with cgroup_enable=memory, or mount one",
        )
    return found


def cgroup_of(pid: int | str) -> str:
    """The memory cgroup of a process as the kernel names it."""
    path = memory_cgroup(Path(f"/proc/{pid}/cgroup").read_bytes())
    if path is None:
        raise UnavailableError(f"process {pid} is in no memory cgroup")
    return path


@contextlib.contextmanager
def _directory(name: str) -> Iterator[Path]:
    hierarchy = memory_hierarchy()
    with contextlib.ExitStack() as cleanup:
        try:
            parent = _parent_v2(hierarchy, cleanup) if hierarchy.version == 2 else _parent_v1(hierarchy)
            directory = parent / name
            directory.mkdir()
            cleanup.callback(_remove, directory)
            (directory / hierarchy.files.limit).write_text(str(LIMIT_BYTES))
        except PermissionError as error:
            raise PermissionDeniedError(
                f"cannot make a memory cgroup: {error.strerror}: {error.filename}", hint="run as root"
            ) from error
        except OSError as error:
            raise UnavailableError(
                f"cannot make a memory cgroup: {error.strerror}: {error.filename}"
            ) from error
        yield directory


def _parent_v1(hierarchy: Hierarchy) -> Path:
    own = Path(hierarchy.mount, cgroup_of("self").lstrip("/"))
    return own if own.is_dir() else Path(hierarchy.mount)  # a container sees its own part at the mount point


def _parent_v2(hierarchy: Hierarchy, cleanup: contextlib.ExitStack) -> Path:
    """The nearest cgroup at or above our own whose children have the memory controller; if there is
    none, the root hands it down for as long as it is needed."""
    mount = Path(hierarchy.mount)
    own = mount / cgroup_of("self").lstrip("/")
    for directory in (own, *own.parents):
        if not directory.is_relative_to(mount):
            break
        if directory.is_dir() and "memory" in (directory / "cgroup.subtree_control").read_text().split():
            return directory
    control = mount / "cgroup.subtree_control"
    control.write_text("+memory")
    cleanup.callback(control.write_text, "-memory")
    return mount


def _remove(directory: Path) -> None:
    # A killed process is counted in its cgroup until it has been reaped to the end.
    deadline = time.monotonic() + 2
    while True:
        try:
            directory.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def is_initial_pid_namespace() -> bool:
    """Whether our process ids are those of the kernel log (PROC_PID_INIT_INO, linux/proc_ns.h)."""
    return str(Path("/proc/self/ns/pid").readlink()) == f"pid:[{0xEFFFFFFC}]"
