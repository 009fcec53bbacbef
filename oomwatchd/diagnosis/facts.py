"""Facts about a live host at the time of the report, beyond /proc/meminfo and zoneinfo: who holds which kind.

Each part of the snapshot is optional. A part that could not be read is empty here, which means "unknown".
Lines of a list have the form ``AMOUNT [WORD ...] NAME``, the largest first.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from contextlib import suppress

import msgspec

from oomwatchd.records.capture import Snapshot
from oomwatchd.words.deferred import deferred


class Held(msgspec.Struct, frozen=True):
    """A line of a list: an amount in bytes (or a count) and its holder; ``pid`` if that is a process."""

    amount: int
    name: str
    pid: int | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """See docs/architecture.md, "Live facts"."""

    #: Parameters of the kernel command line; a parameter without a value maps to "".
    command_line: dict[str, str] = {}
    sysctl: dict[str, str] = {}
    slab: tuple[Held, ...] = ()
    vmalloc: tuple[Held, ...] = ()
    #: The process with the most descriptors of each kind (pipe, socket, file, memfd, bpf, io_uring); the
    #: amount is a count.
    descriptors: dict[str, Held] = {}
    memfd: tuple[Held, ...] = ()
    #: Deleted files of a tmpfs that processes have open.
    deleted: tuple[Held, ...] = ()
    #: What tmpfs mounts hold, by mount point.
    tmpfs: tuple[Held, ...] = ()
    #: RAM disks (brd). Buffers of ftrace, of all CPUs.
    ramdisks: tuple[Held, ...] = ()
    tracing_bytes: int = 0
    sysv: tuple[Held, ...] = ()
    #: System V message queues of the host, by who sent to them last ("?": it is gone).
    messages: tuple[Held, ...] = ()
    bpf: tuple[Held, ...] = ()
    packet: tuple[Held, ...] = ()
    #: Queues of io_uring, DMA-BUFs, buffers of perf.
    io_uring: tuple[Held, ...] = ()
    dmabuf: tuple[Held, ...] = ()
    perf: tuple[Held, ...] = ()
    #: Number of AF_PACKET sockets in the host's network namespace, of any process.
    packet_sockets: int = 0
    locked: tuple[Held, ...] = ()
    #: Of these at most, pages of files and shared memory: only such may be charged to another's cgroup.
    locked_shared: tuple[Held, ...] = ()
    #: Pages of the huge page pool that processes have.
    huge: tuple[Held, ...] = ()
    threads: tuple[Held, ...] = ()
    #: Number of memory cgroups, with removed ones that still hold memory.
    memory_cgroups: int = 0
    #: The kernel's own memory that is charged to cgroups, with all below them.
    kernel_charged: tuple[Held, ...] = ()
    ramfs: tuple[str, ...] = ()
    #: RAM that zram devices use (mem_used_total of mm_stat), and pages of zsmalloc.
    zram: tuple[Held, ...] = ()
    #: Size of the zram data before compression (orig_data_size).
    zram_data_bytes: int = 0
    zspages: int = 0
    protected: tuple[Held, ...] = ()
    #: Out-of-tree or unsigned modules (O, E in /proc/modules), the last loaded first.
    modules: tuple[str, ...] = ()
    #: Pages of all sockets of the network namespace, by protocol.
    sockets: dict[str, int] = {}
    #: Name of process 1 ("systemd"); None if unknown.
    init: str | None = None
    memcg_slab: tuple[Held, ...] = ()


_SYSCTL = deferred(r"^([\w.-]+) *= *(.*?) *$", re.MULTILINE)
_SOCKET = deferred(r"^(\w+): .*\bmem (\d+)", re.MULTILINE)
_ZSPAGES = deferred(r"^nr_zspages (\d+)$", re.MULTILINE)
#: Largest number of lines that are read of one list.
_MOST = 16
#: Largest number of decimal digits of a 64-bit number.
_DIGITS = 20


def facts(snapshot: Snapshot | None) -> Facts:
    """The facts in a snapshot. Never raises."""
    if snapshot is None:
        return Facts()
    parts = snapshot.parts
    return Facts(
        command_line=_command_line(parts.get("cmdline", "")),
        sysctl={m[1]: m[2] for m in _SYSCTL.finditer(parts.get("sysctl", ""))},
        slab=_held(parts.get("slabinfo", "")),
        vmalloc=_held(parts.get("vmallocinfo", "")),
        descriptors=_descriptors(parts.get("descriptors", "")),
        memfd=_by_process(parts.get("memfd", "")),
        deleted=_by_process(parts.get("deleted", "")),
        tmpfs=_held(parts.get("tmpfs", "")),
        ramdisks=_held(parts.get("ramdisk", "")),
        tracing_bytes=_number(parts.get("tracing", "")),
        sysv=_held(parts.get("sysv", "")),
        messages=_by_process(parts.get("messages", "")),
        bpf=_by_process(parts.get("bpf", "")),
        packet=_by_process(parts.get("packet", "")),
        io_uring=_by_process(parts.get("io_uring", "")),
        dmabuf=_by_process(parts.get("dmabuf", "")),
        perf=_by_process(parts.get("perf", "")),
        packet_sockets=_number(parts.get("packet_sockets", "")),
        locked=_by_process(parts.get("locked", "")),
        locked_shared=_by_process(parts.get("locked_shared", "")),
        huge=_by_process(parts.get("huge", "")),
        threads=_by_process(parts.get("threads", "")),
        memory_cgroups=_number(parts.get("cgroups", "")),
        kernel_charged=_held(parts.get("kernel_charged", "")),
        ramfs=tuple(parts.get("ramfs", "").splitlines()[:_MOST]),
        zram=_zram(parts.get("zram", ""), field=3),
        zram_data_bytes=sum(h.amount for h in _zram(parts.get("zram", ""), field=1)),
        zspages=next((int(m[1]) for m in _ZSPAGES.finditer(parts.get("vmstat", ""))), 0),
        modules=tuple(parts.get("modules", "").split()[:_MOST]),
        protected=_held(parts.get("protected", "")),
        sockets={m[1]: int(m[2]) for m in _SOCKET.finditer(parts.get("sockstat", ""))},
        init=parts.get("init", "").strip() or None,
        memcg_slab=_held(parts.get("memcg_slabinfo", "")),
    )


def _command_line(text: str) -> dict[str, str]:
    words = text.split()
    if '"' in text or "'" in text:
        import shlex  # hardly any command line of a kernel has quotes

        with suppress(ValueError):
            words = shlex.split(text)
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _zram(text: str, field: int) -> tuple[Held, ...]:
    """``zram0 ORIG COMPRESSED USED ...`` (Documentation/admin-guide/blockdev/zram.rst)."""
    split = [line.split() for line in text.splitlines()[:_MOST]]
    return tuple(Held(int(f[field]), f[0]) for f in split if len(f) > 3 and _number(f[field]))


def _number(word: str) -> int:
    """The number in a word of decimal digits; 0 for any other word and for too many digits."""
    return int(word) if word.isdecimal() and len(word) <= _DIGITS else 0


def _held(text: str) -> tuple[Held, ...]:
    split = [line.split(None, 1) for line in text.splitlines()[:_MOST]]
    return tuple(Held(int(f[0]), f[1]) for f in split if len(f) == 2 and f[0].isdecimal())


def _by_process(text: str) -> tuple[Held, ...]:
    split = [line.split(None, 2) for line in text.splitlines()[:_MOST]]
    return tuple(
        Held(int(f[0]), f[2], int(f[1]))
        for f in split
        if len(f) == 3 and f[0].isdecimal() and f[1].isdecimal()
    )


def _descriptors(text: str) -> dict[str, Held]:
    found: dict[str, Held] = {}
    for line in text.splitlines()[: 4 * _MOST]:
        words = line.split(None, 3)
        if len(words) == 4 and words[0].isdecimal() and words[2].isdecimal():
            found.setdefault(words[1], Held(int(words[0]), words[3], int(words[2])))
    return found
