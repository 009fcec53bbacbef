"""What a process's descriptors hold: how many there are of each kind, and bytes where the kernel says so.

Only files that are read without a lock of the process or of a driver: a task that is stuck for memory may
hold its own (no maps, no smaps, no fdinfo of graphics devices).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

from oomwatchd.observe.host import read_bytes, read_whole
from oomwatchd.procfs.holders import (
    descriptor_kind,
    dmabuf_bytes,
    io_uring_bytes,
    memlock_bytes,
    mount_number,
    packet_inodes,
)
from oomwatchd.procfs.mounts import mounts

#: kinds whose bytes are known
AMOUNTS = ("memfd", "deleted", "bpf", "io_uring", "dmabuf", "perf")
#: How many descriptors of one process are looked at; the rest is assumed to be alike.
_LOOKED_AT = 4096
#: Network namespaces whose packet sockets are known, and mount namespaces whose mounts are.
_MAX_NAMESPACES = 64
_DELETED = b" (deleted)"
_FDINFO_BYTES = 4096
_TABLE_BYTES = 1024 * 1024
#: the line of fdinfo that has the size, by kind
_FDINFO: Mapping[str, Callable[[bytes], int]] = {
    "bpf": memlock_bytes,
    "io_uring": io_uring_bytes,
    "dmabuf": dmabuf_bytes,
}


class Descriptors:
    """One scan of many processes: what two of them share counts for the first. Never raises."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        #: files that were seen: device and inode
        self._seen: set[tuple[int, int]] = set()
        self._packet: dict[str, frozenset[int]] = {}
        self._tmpfs: dict[str, frozenset[bytes]] = {}

    def of(self, pid: int, most: int) -> tuple[Counter[str], dict[str, int]]:
        """How many of each kind, and bytes of those in AMOUNTS. The one kind is ``all`` where kinds are not
        shown. ``most``: it has no more than that (FDSize)."""
        directory = f"{self._proc}/{pid}/fd"
        amounts: dict[str, int] = {}
        try:
            with os.scandir(directory) as entries:
                # maybe there are hundreds of thousands, for each of which the kernel makes an inode
                names = [entry.name for entry in islice(entries, _LOOKED_AT)]
        except OSError:
            return Counter(all=self._count(directory)), amounts
        count = len(names)
        if count == _LOOKED_AT:
            count = max(count, self._count(directory) or most)
        kinds: Counter[str] = Counter()
        packet: frozenset[int] | None = None
        for name in names:
            try:
                link = os.fsencode(os.readlink(f"{directory}/{name}"))  # noqa: PTH115 - no Path for each
            except OSError:
                continue
            kind = descriptor_kind(link)
            if kind == "socket":
                packet = self._packet_of(pid) if packet is None else packet
                kind = "packet" if packet and _inode(link) in packet else kind
            kinds[kind] += 1
            if kind == "file" and link.endswith(_DELETED) and self._in_memory(pid, name):
                kind = "deleted"
            if kind in ("memfd", "deleted") or kind in _FDINFO:
                amount = self._amount(pid, name, kind)
                amounts[kind] = amounts.get(kind, 0) + amount
        looked_at = kinds.total()
        if not looked_at:
            return Counter(all=count), amounts
        if count > looked_at:
            kinds = Counter({kind: seen * count // looked_at for kind, seen in kinds.items()})
        return kinds, amounts

    def _count(self, directory: str) -> int:
        """Since 6.2 the size of the directory is the number of descriptors (proc_fd_getattr()); else 0."""
        try:
            return os.stat(directory).st_size  # noqa: PTH116 - no Path for each
        except OSError:
            return 0

    def _amount(self, pid: int, name: str, kind: str) -> int:
        """Bytes behind one descriptor; 0 of a file that was seen before. All BPF objects and rings share an
        inode of the kernel's (anon_inode_getfile())."""
        if kind in ("memfd", "deleted", "dmabuf"):
            try:
                state = os.stat(f"{self._proc}/{pid}/fd/{name}")  # noqa: PTH116 - no Path for each
            except OSError:
                return 0
            key = state.st_dev, state.st_ino
            if key in self._seen:
                return 0
            self._seen.add(key)
            if kind != "dmabuf":
                return state.st_blocks * 512  # in memory or in swap
        return _FDINFO[kind](read_bytes(f"{self._proc}/{pid}/fdinfo/{name}", _FDINFO_BYTES) or b"")

    def _in_memory(self, pid: int, name: str) -> bool:
        """Whether this file is on a tmpfs. Another file system is not asked anything: its server may hang."""
        namespace = self._namespace(pid, "mnt")
        if namespace is None:
            return False
        if namespace not in self._tmpfs:
            if len(self._tmpfs) >= _MAX_NAMESPACES:
                return False
            table = read_whole(f"{self._proc}/{pid}/mountinfo", _TABLE_BYTES)
            self._tmpfs[namespace] = frozenset(m.number for m in mounts(table) if m.kind == b"tmpfs")
        said = read_bytes(f"{self._proc}/{pid}/fdinfo/{name}", _FDINFO_BYTES) or b""
        return mount_number(said) in self._tmpfs[namespace]

    def _namespace(self, pid: int, kind: str) -> str | None:
        try:
            return os.readlink(f"{self._proc}/{pid}/ns/{kind}")  # noqa: PTH115 - no Path for each
        except OSError:
            return None

    def _packet_of(self, pid: int) -> frozenset[int]:
        """The packet sockets of a process's network."""
        namespace = self._namespace(pid, "net")
        if namespace is None:
            return frozenset()
        if namespace not in self._packet:
            if len(self._packet) >= _MAX_NAMESPACES:
                return frozenset()
            table = read_whole(f"{self._proc}/{pid}/net/packet", _TABLE_BYTES)
            self._packet[namespace] = packet_inodes(table)
        return self._packet[namespace]


def _inode(link: bytes) -> int:
    """Of ``socket:[12345]``."""
    number = link[8:-1]
    return int(number) if number.isdigit() else -1
