"""What a live host says of itself at the report, beyond /proc/meminfo and zoneinfo: who holds what kind.

Each part of the snapshot is optional; one that could not be read is empty here, which is "unknown". Lines of
a list are ``AMOUNT [WORD ...] NAME``, the largest first.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
import shlex

import msgspec

from oomwatchd.records.capture import Snapshot


class Held(msgspec.Struct, frozen=True):
    """A line of a list: bytes (or a count), by whom or what; ``pid`` where it is a process."""

    amount: int
    name: str
    pid: int | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """See docs/architecture.md, "Live facts"."""

    #: parameters of the kernel's command line; one without a value maps to ""
    command_line: dict[str, str] = {}
    sysctl: dict[str, str] = {}
    slab: tuple[Held, ...] = ()
    vmalloc: tuple[Held, ...] = ()
    #: what holds most descriptors of a kind (pipe, socket, file, memfd, bpf, io_uring): amount is a count
    descriptors: dict[str, Held] = {}
    memfd: tuple[Held, ...] = ()
    sysv: tuple[Held, ...] = ()
    bpf: tuple[Held, ...] = ()
    packet: tuple[Held, ...] = ()
    #: queues of io_uring, DMA-BUFs, buffers of perf
    io_uring: tuple[Held, ...] = ()
    dmabuf: tuple[Held, ...] = ()
    perf: tuple[Held, ...] = ()
    #: AF_PACKET sockets of the host's network, whoever has them
    packet_sockets: int = 0
    locked: tuple[Held, ...] = ()
    threads: tuple[Held, ...] = ()
    ramfs: tuple[str, ...] = ()
    #: what zram devices hold in RAM (mem_used_total of mm_stat), and pages of zsmalloc
    zram: tuple[Held, ...] = ()
    #: what they hold, before it was compressed (orig_data_size)
    zram_data_bytes: int = 0
    zspages: int = 0
    protected: tuple[Held, ...] = ()
    #: modules from out of tree or unsigned (O, E in /proc/modules), the one loaded last first
    modules: tuple[str, ...] = ()
    #: pages of all sockets of the namespace, by protocol
    sockets: dict[str, int] = {}
    #: first process ("systemd"), None where unknown
    init: str | None = None
    memcg_slab: tuple[Held, ...] = ()


_SYSCTL = re.compile(r"^([\w.-]+) *= *(.*?) *$", re.MULTILINE)
_SOCKET = re.compile(r"^(\w+): .*\bmem (\d+)", re.MULTILINE)
_ZSPAGES = re.compile(r"^nr_zspages (\d+)$", re.MULTILINE)
#: lines of one list that are read
_MOST = 16
#: of a 64-bit number
_DIGITS = 20


def facts(snapshot: Snapshot | None) -> Facts:
    """What a snapshot's parts say. Never raises."""
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
        sysv=_held(parts.get("sysv", "")),
        bpf=_by_process(parts.get("bpf", "")),
        packet=_by_process(parts.get("packet", "")),
        io_uring=_by_process(parts.get("io_uring", "")),
        dmabuf=_by_process(parts.get("dmabuf", "")),
        perf=_by_process(parts.get("perf", "")),
        packet_sockets=_number(parts.get("packet_sockets", "")),
        locked=_by_process(parts.get("locked", "")),
        threads=_by_process(parts.get("threads", "")),
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
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _zram(text: str, field: int) -> tuple[Held, ...]:
    """``zram0 ORIG COMPRESSED USED ...`` (Documentation/admin-guide/blockdev/zram.rst)."""
    split = [line.split() for line in text.splitlines()[:_MOST]]
    return tuple(Held(int(f[field]), f[0]) for f in split if len(f) > 3 and _number(f[field]))


def _number(word: str) -> int:
    """Of a word of decimal digits; 0 of any other, and of more digits than the kernel prints."""
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
