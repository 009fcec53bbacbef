"""The files of /proc that the flight recorder samples, abridged to the lines that it follows.

They stay open and are read from their beginning each time.
"""

from __future__ import annotations

import os
import re

from oomwatchd import procfs
from oomwatchd.observe.host import Host, read_buffer
from oomwatchd.records.kmsg import to_text

#: The parts of a sample, as a snapshot calls them, in this order.
PARTS = ("meminfo", "vmstat", "zoneinfo", "pressure_memory")
_BUFFER_BYTES = 256 * 1024
_MEMINFO = (
    "MemTotal MemFree MemAvailable Buffers Cached SwapCached SwapTotal SwapFree Dirty Writeback AnonPages "
    "Mapped Shmem SReclaimable SUnreclaim KernelStack PageTables Percpu Unevictable Mlocked "
    "HardwareCorrupted CommitLimit Committed_AS HugePages_Total"
)
_VMSTAT = (
    "allocstall_dma allocstall_dma32 allocstall_normal allocstall_movable pgscan_kswapd pgscan_direct "
    "pgsteal_kswapd pgsteal_direct pswpin pswpout pgmajfault compact_stall compact_fail "
    "workingset_refault_anon workingset_refault_file thp_fault_fallback oom_kill balloon_inflate "
    "balloon_deflate"
)


def _lines(names: str, end: str) -> re.Pattern[bytes]:
    return re.compile(rf"^(?:{'|'.join(names.split())}){end}.*\n".encode(), re.MULTILINE)


#: file below /proc -> the lines that are kept, in the order of PARTS
_KEPT = {
    "meminfo": _lines(_MEMINFO, ":"),
    "vmstat": _lines(_VMSTAT, " "),
    # the per-CPU page sets of a zone use the same words, further in
    "zoneinfo": re.compile(
        rb"^(?:Node \d+, zone|  pages free| {7,8}(?:min|low|high|managed) ).*\n", re.MULTILINE
    ),
    "pressure/memory": re.compile(rb"^.*\n", re.MULTILINE),
}
_BLANKS = re.compile(rb"[ \t]+")


class Abridged:
    """The files of one host. Not thread-safe: one buffer serves every read."""

    def __init__(self, host: Host) -> None:
        self._buffer = read_buffer(_BUFFER_BYTES)
        self._files = [(kept, _open(host, name)) for name, kept in _KEPT.items()]
        #: files that are absent or may not be read
        self.absent = [
            f"{host.proc}/{name}"
            for name, (_, descriptor) in zip(_KEPT, self._files, strict=True)
            if descriptor is None
        ]

    def read(self) -> tuple[bytes, ...]:
        """All parts; empty where a file could not be read."""
        return tuple(self._read(kept, descriptor) for kept, descriptor in self._files)

    def oom_kills(self) -> int | None:
        """The kernel's count of all kills (vmstat), None before 4.13."""
        return procfs.oom_kills(to_text(self._read(*self._files[1])))

    def close(self) -> None:
        for _, descriptor in self._files:
            if descriptor is not None:
                os.close(descriptor)
        self._files.clear()

    def _read(self, kept: re.Pattern[bytes], descriptor: int | None) -> bytes:
        if descriptor is None:
            return b""
        size = 0
        try:
            while size < _BUFFER_BYTES and (count := os.preadv(descriptor, [self._buffer[size:]], size)):
                size += count
        except OSError:
            return b""
        return _BLANKS.sub(b" ", b"".join(kept.findall(self._buffer[:size])))


def _open(host: Host, name: str) -> int | None:
    try:
        return os.open(host.proc / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
