"""The state of the machine's memory at one moment: the kernel's own files, as text and unread.

The files stay open and are read from their beginning each time, so that at the moment itself no path is
looked up and no descriptor is needed. Source: proc(5), Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import os
from types import MappingProxyType

from oomwatchd import procfs
from oomwatchd.observe.host import Host, read_buffer
from oomwatchd.records.capture import Snapshot
from oomwatchd.records.kmsg import to_text

#: part -> file below /proc
PARTS = MappingProxyType(
    {
        "meminfo": "meminfo",
        "zoneinfo": "zoneinfo",
        "buddyinfo": "buddyinfo",
        "vmstat": "vmstat",
        "pressure_memory": "pressure/memory",
        "overcommit_memory": "sys/vm/overcommit_memory",
    }
)
#: Bound of one part. zoneinfo grows with nodes and CPUs: about 90 KiB on 4 nodes with 128 CPUs.
PART_BYTES = 256 * 1024


class Snapshots:
    """Takes snapshots of one host. Not thread-safe: one buffer serves every read."""

    def __init__(self, host: Host) -> None:
        self._buffer = read_buffer(PART_BYTES)
        self._descriptors: dict[str, int] = {}
        #: files that this host does not have or does not show us
        self.absent: tuple[str, ...] = ()
        for part, file in PARTS.items():
            try:
                self._descriptors[part] = os.open(host.proc / file, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self.absent += (str(host.proc / file),)

    def take(self, usec: int, wall: float) -> Snapshot:
        """Read all parts now; ``usec`` and ``wall`` say when that is. Never raises."""
        parts = {}
        for part in self._descriptors:
            data = self._read(part)
            if data:
                parts[part] = to_text(data)
        return Snapshot(usec=usec, wall=wall, parts=parts)

    def oom_kills(self, seen: Snapshot | None = None) -> int | None:
        """The kernel's own count of OOM kills since boot (``oom_kill`` in /proc/vmstat, 4.13+); None
        where there is none. ``seen``: as of that snapshot."""
        text = to_text(self._read("vmstat")) if seen is None else seen.parts.get("vmstat", "")
        return procfs.oom_kills(text)

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def _read(self, part: str) -> bytes:
        """A file of /proc comes in pieces of about a page: read on until it ends."""
        descriptor = self._descriptors.get(part)
        if descriptor is None:
            return b""
        size = 0
        try:
            while size < PART_BYTES and (count := os.preadv(descriptor, [self._buffer[size:]], size)):
                size += count
        except OSError:
            return b""  # half a file would pass for the whole one
        return bytes(self._buffer[:size])
