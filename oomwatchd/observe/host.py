"""The host's own files: where they are, and the facts that do not change while it runs."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import msgspec

from oomwatchd.records.kmsg import to_text


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The roots of the kernel's file systems, and the facts of this boot.

    ``boot_id`` is random for each boot (random(4), ``/proc/sys/kernel/random/boot_id``), without dashes
    as the journal writes it; None where it cannot be read. ``cgroup_namespace`` is the cgroup that /proc
    calls "/" here (cgroup_namespaces(7)), "" for the root of all.
    """

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    boot_id: str | None = None
    page_size_bytes: int = 4096
    kernel: str | None = None
    machine: str | None = None
    cgroup_namespace: str = ""

    def whole(self, cgroup: str | None) -> str | None:
        """A path out of /proc/PID/cgroup as the kernel log has it: from the root of all, also within a cgroup
        namespace, where one outside of it begins with "/.."."""
        if cgroup is None or not self.cgroup_namespace:
            return cgroup
        return os.path.normpath(f"{self.cgroup_namespace}/{cgroup}")


def read_host(proc: Path = Path("/proc")) -> Host:
    """The host that this process runs on. Never raises."""
    system = os.uname()
    boot_id = read_text(proc / "sys/kernel/random/boot_id", 64)
    return Host(
        proc=proc,
        boot_id=boot_id.strip().replace("-", "") if boot_id else None,
        page_size_bytes=os.sysconf("SC_PAGE_SIZE"),
        kernel=system.release,
        machine=system.machine,
    )


def sees_kernel_pids(proc: Path) -> bool:
    """Whether process numbers here are those that the kernel log prints: only in the first pid namespace
    (``PROC_PID_INIT_INO``, linux/proc_ns.h). True where /proc does not say."""
    try:
        return str((proc / "self/ns/pid").readlink()) == f"pid:[{0xEFFFFFFC}]"
    except OSError:
        return True


def read_buffer(size_bytes: int) -> memoryview:
    """A zeroed buffer of which only used pages are resident: a bytearray would touch all of its pages at
    once."""
    return memoryview(mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def read_whole(path: Path | str, limit_bytes: int) -> bytes:
    """A file that the kernel makes of many records (mountinfo, swaps, vmstat), at most so much of it: each
    read gives a page at most (seq_file), however much is asked for. Empty if it cannot be read."""
    pieces: list[bytes] = []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return b""
    try:
        while limit_bytes > 0 and (piece := os.read(descriptor, limit_bytes)):
            pieces.append(piece)
            limit_bytes -= len(piece)
    except OSError:
        return b""  # a part would be taken for the whole
    finally:
        os.close(descriptor)
    return b"".join(pieces)


def read_text(path: Path | str, limit_bytes: int) -> str | None:
    """The first bytes of a file as text; None if it cannot be read."""
    data = read_bytes(path, limit_bytes)
    return None if data is None else to_text(data)


def read_bytes(path: Path | str, limit_bytes: int) -> bytes | None:
    """One read of a small file of /proc or /sys; None if it cannot be read. Never raises."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.read(descriptor, limit_bytes)
    except OSError:
        return None
    finally:
        os.close(descriptor)
