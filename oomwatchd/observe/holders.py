"""Who holds which memory, in more detail than any log: read once when a report begins, by the worker.

Each part is a few lines of text, absent where it could not be read. Lists name the largest, one a line, the
amount first and the name last; docs/facts.md describes all of them.

Most files may be read by anybody. ``/proc/slabinfo`` and ``vmallocinfo`` are root's: the service manager
opens them and passes the descriptors (``OpenFile=``, systemd 253). The kinds of a process's descriptors can
be read by root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; their number by anybody (6.2+).

The scan of processes ends after SCAN_SECONDS of its own CPU time, or SCAN_WALL_SECONDS: on a large host the
rest is left out. The newest tasks come first; the kernel's own threads hold no descriptors.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from oomwatchd.cgroupfs import FILES, KERNEL_USAGE, PROTECTION, amount, kernel_bytes
from oomwatchd.observe.descriptors import AMOUNTS, Descriptors
from oomwatchd.observe.group import Group
from oomwatchd.observe.host import Host, read_bytes, read_whole
from oomwatchd.observe.hotplug import Tmpfs
from oomwatchd.procfs.holders import (
    largest,
    message_queues,
    one_line,
    packet_inodes,
    shm_segments,
    slab_caches,
    status,
    vmalloc_callers,
)
from oomwatchd.procfs.mounts import mounts
from oomwatchd.records.kmsg import to_text

SCAN_SECONDS, SCAN_WALL_SECONDS = 0.25, 2.0
#: fewer descriptors of a kind hold little; each of those in FEW may hold much
_NOTABLE, _FEW = 64, frozenset({"bpf", "dmabuf", "io_uring", "memfd", "packet", "perf"})
#: of a block device's size in /sys; the major number of RAM disks
_SECTOR_BYTES, _RAM_DISK = 512, b"1:"
#: processes named for one kind of descriptors, where kinds can be read
_OF_A_KIND = 3
_MAX_GROUPS = 512
#: cgroups whose memory.stat is read: the kernel adds up all that are below them
_LARGE_GROUPS = 24
_TEXT_BYTES = 16 * 1024
_TABLE_BYTES = 4 * 1024 * 1024
_MAX_SIZES = _MAX_DEVICES = 8

#: of the parts that say what processes hold: the word of a line that is the pid
PID_FIELD = MappingProxyType(
    {"locked": 1, "locked_shared": 1, "huge": 1, "threads": 1, "descriptors": 2, **dict.fromkeys(AMOUNTS, 1)}
)

#: settings below /proc/sys that decide who gets memory, who is killed, and what may be held
SETTINGS = (
    "fs/file-nr",
    "kernel/pid_max",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/threads-max",
    "vm/admin_reserve_kbytes",
    "vm/compaction_proactiveness",
    "vm/dirty_background_bytes",
    "vm/dirty_background_ratio",
    "vm/dirty_bytes",
    "vm/dirty_ratio",
    "vm/extfrag_threshold",
    "vm/lowmem_reserve_ratio",
    "vm/max_map_count",
    "vm/min_free_kbytes",
    "vm/min_slab_ratio",
    "vm/min_unmapped_ratio",
    "vm/nr_hugepages",
    "vm/nr_overcommit_hugepages",
    "vm/oom_dump_tasks",
    "vm/oom_kill_allocating_task",
    "vm/overcommit_kbytes",
    "vm/overcommit_memory",
    "vm/overcommit_ratio",
    "vm/panic_on_oom",
    "vm/percpu_pagelist_high_fraction",
    "vm/swappiness",
    "vm/user_reserve_kbytes",
    "vm/vfs_cache_pressure",
    "vm/watermark_boost_factor",
    "vm/watermark_scale_factor",
    "vm/zone_reclaim_mode",
)


class Holders:
    """Reads one host. ``opened`` are passed descriptors of files that only root may open (``slabinfo``,
    ``vmallocinfo``); ``cgroups`` returns the known ones. Not thread-safe; never raises for what the host
    shows."""

    def __init__(
        self,
        host: Host,
        opened: Mapping[str, int] | None = None,
        cgroups: Callable[[], Iterable[Group]] = tuple,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._host = host
        self._opened = opened or {}
        self._cgroups = cgroups
        self._clock, self._cpu = clock, cpu

    def look(self) -> dict[str, str]:
        """All parts, as of now."""
        parts = {
            "cmdline": self._text("cmdline"),
            "init": self._text("1/comm"),
            "sysctl": self._settings(),
            # the network of process 1 is the host's; ours may be a private one
            "sockstat": self._text("1/net/sockstat"),
            "thp": self._sys("kernel/mm/transparent_hugepage/enabled"),
            "hugepages": self._huge_pages(),
            "zram": self._zram(),
            "slabinfo": largest(slab_caches(self._table("slabinfo"), self._host.page_size_bytes)),
            "vmallocinfo": largest(vmalloc_callers(self._table("vmallocinfo"), self._host.page_size_bytes)),
            "sysv": self._segments(),
            "messages": self._messages(),
            "ramfs": self._ramfs(),
            "tmpfs": self._tmpfs(),
            "ramdisk": self._ramdisks(),
            "tracing": self._tracing(),
            "modules": self._modules(),
            "cgroups": self._cgroup_count(),
            "packet_sockets": self._packet_sockets(),
            "kernel_charged": self._kernel_charged(),
            **self._protected(),
            **self.processes(),
        }
        return {name: text for name, text in parts.items() if text}

    # -- files -------------------------------------------------------------------------------------

    def _text(self, name: str) -> str:
        return to_text((read_bytes(self._host.proc / name, _TEXT_BYTES) or b"").strip())

    def _sys(self, name: str) -> str:
        return to_text((read_bytes(self._host.sys / name, 4096) or b"").strip())

    def _table(self, name: str) -> bytes:
        descriptor = self._opened.get(name)
        if descriptor is None:
            return read_whole(self._host.proc / name, _TABLE_BYTES)
        pieces: list[bytes] = []
        size = 0
        try:
            while size < _TABLE_BYTES and (piece := os.pread(descriptor, _TABLE_BYTES - size, size)):
                pieces.append(piece)
                size += len(piece)
        except OSError:
            return b""
        return b"".join(pieces)

    def _settings(self) -> str:
        found = ((name, self._text(f"sys/{name}")) for name in SETTINGS)
        return "\n".join(f"{name.replace('/', '.')} = {value}" for name, value in found if value)

    def _huge_pages(self) -> str:
        """``SIZE_BYTES TOTAL FREE RESERVED SURPLUS`` of each size of page (hugetlbpage.rst)."""
        lines = []
        directory = self._host.sys / "kernel/mm/hugepages"
        for name in _names(directory)[:_MAX_SIZES]:
            size = name.removeprefix("hugepages-").removesuffix("kB")
            files = ("nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages")
            counts = [self._sys(f"kernel/mm/hugepages/{name}/{file}") for file in files]
            if size.isdigit() and all(count.isdigit() for count in counts):
                lines.append(f"{int(size) * 1024} {' '.join(counts)}")
        return "\n".join(lines)

    def _zram(self) -> str:
        """Name and mm_stat of each zram device that has data (zram.rst)."""
        devices = [name for name in _names(self._host.sys / "block") if name.startswith("zram")]
        found = ((name, self._sys(f"block/{name}/mm_stat")) for name in devices[:_MAX_DEVICES])
        return "\n".join(f"{name} {' '.join(text.split())}" for name, text in found if text)

    def _segments(self) -> str:
        table = read_whole(self._host.proc / "sysvipc/shm", _TABLE_BYTES)
        return largest((one.resident_bytes, f"{one.id} {one.creator_pid}") for one in shm_segments(table))

    def _messages(self) -> str:
        """What is in message queues, by who sent to them last."""
        table = read_whole(self._host.proc / "sysvipc/msg", _TABLE_BYTES)
        sums: dict[int, int] = {}
        for held, sender in message_queues(table):
            sums[sender] = sums.get(sender, 0) + held
        named = ((held, f"{pid} {self._text(f'{pid}/comm') or '?'}") for pid, held in sums.items())
        return largest(named)

    def _ramfs(self) -> str:
        """Mount points of ramfs: what it holds is not counted for any of them."""
        table = read_whole(self._host.proc / "1/mountinfo", _TABLE_BYTES)
        points = dict.fromkeys(one_line(to_text(one.point)) for one in mounts(table) if one.kind == b"ramfs")
        return "\n".join(list(points)[:_MAX_DEVICES])

    def _tmpfs(self) -> str:
        """What each tmpfs of the host holds, where process 1's root may be entered."""
        found = Tmpfs(self._host, "1")
        found.find()
        return largest((used, mount) for mount, used in found.used())

    def _ramdisks(self) -> str:
        """What RAM disks (brd) hold, by root's debugfs; else the size of those that are mounted."""
        pages = self._host.sys / "kernel/debug/ramdisk_pages"
        held = [(self._sys(f"kernel/debug/ramdisk_pages/{name}"), name) for name in _names(pages)]
        found = [(int(count) * self._host.page_size_bytes, name) for count, name in held if count.isdigit()]
        if not held:
            table = read_whole(self._host.proc / "1/mountinfo", _TABLE_BYTES)
            mounted = {one.device[2:] for one in mounts(table) if one.device.startswith(_RAM_DISK)}
            names = [f"ram{int(minor)}" for minor in mounted if minor.isdigit()]
            sizes = [(self._sys(f"block/{name}/size"), name) for name in names]
            found = [(int(sectors) * _SECTOR_BYTES, name) for sectors, name in sizes if sectors.isdigit()]
        return largest(found)

    def _tracing(self) -> str:
        """What the buffers of ftrace take together; root's to read."""
        kib = self._sys("kernel/tracing/buffer_total_size_kb").partition(" ")[0]
        return str(int(kib) * 1024) if kib.isdigit() else ""

    def _modules(self) -> str:
        """Modules from out of tree or without a signature, which /proc/modules marks with O and E
        (module_flags()); the one that was loaded last comes first."""
        table = to_text(read_whole(self._host.proc / "modules", _TABLE_BYTES))
        marked = (line.split() for line in table.splitlines() if line.endswith(")"))
        return "\n".join([words[0] for words in marked if set("OE") & set(words[-1])][:_MAX_DEVICES])

    def _cgroup_count(self) -> str:
        """How many memory cgroups there are, with those that were removed and still hold memory."""
        split = (line.split() for line in self._text("cgroups").splitlines())
        return next((words[2] for words in split if len(words) > 3 and words[0] == "memory"), "")

    def _packet_sockets(self) -> str:
        """How many AF_PACKET sockets the host's network has: whose they are is not told to everybody."""
        found = packet_inodes(read_whole(self._host.proc / "1/net/packet", _TABLE_BYTES))
        return str(len(found) or "")

    def _protected(self) -> dict[str, str]:
        """What cgroups may keep from reclaim (memory.min, memory.low of v2), of themselves."""
        found: dict[str, list[tuple[int, str]]] = {"protected": [], "protected_low": []}
        for group in list(self._cgroups())[:_MAX_GROUPS]:
            for part, file in zip(found, PROTECTION, strict=True):
                bytes_ = amount(read_bytes(f"{group.directory}/{file}", 32))
                if bytes_:
                    found[part].append((bytes_, group.path))
        return {part: largest(lines) for part, lines in found.items()}

    def _kernel_charged(self) -> str:
        """How much of the kernel's own memory is charged to the largest cgroups."""
        found = []
        for group in heapq.nlargest(_LARGE_GROUPS, list(self._cgroups()), key=lambda g: g.usage or 0):
            charged = amount(read_bytes(f"{group.directory}/{KERNEL_USAGE}", 32))
            if charged is None:
                charged = kernel_bytes(read_bytes(f"{group.directory}/{FILES[2].stat}", _TEXT_BYTES))
            if charged and group.path.strip("/"):
                found.append((charged, group.path))
        return largest(found)

    # -- processes ---------------------------------------------------------------------------------

    def processes(self) -> dict[str, str]:
        """The parts that say what single processes hold."""
        until, cpu_until = self._clock() + SCAN_WALL_SECONDS, self._cpu() + SCAN_SECONDS
        found: dict[str, list[tuple[int, str]]] = {part: [] for part in PID_FIELD}
        opened: dict[str, list[tuple[int, str]]] = {}
        descriptors = Descriptors(self._host.proc)
        for pid in sorted((int(name) for name in _names(self._host.proc) if name.isdigit()), reverse=True):
            if self._clock() > until or self._cpu() > cpu_until:
                break
            if self._is_kernel_thread(pid):
                continue
            said = status(read_bytes(f"{self._host.proc}/{pid}/status", _TEXT_BYTES) or b"")
            who = f"{pid} {said.name}"
            found["locked"].append((said.locked_bytes + said.pinned_bytes, who))
            shared = said.file_bytes + said.shmem_bytes
            found["locked_shared"].append((min(said.locked_bytes, shared), who))
            found["huge"].append((said.huge_bytes, who))
            if said.threads > 1:
                found["threads"].append((said.threads, who))
            counts, amounts = descriptors.of(pid, said.descriptors)
            if counts["perf"] and said.pinned_bytes:
                amounts["perf"] = said.pinned_bytes  # perf_mmap(): beyond what every user may lock
            for kind, count in counts.items():
                if count >= (1 if kind in _FEW else _NOTABLE):
                    opened.setdefault(kind, []).append((count, f"{kind} {who}"))
            for part, amount_ in amounts.items():
                found[part].append((amount_, who))
        parts = {part: largest(lines) for part, lines in found.items()}
        most = (
            line
            for kind, lines in opened.items()
            for line in largest(lines).split("\n")[: None if kind == "all" else _OF_A_KIND]
        )
        parts["descriptors"] = "\n".join(sorted(most, key=lambda line: -int(line.partition(" ")[0])))
        return {part: text for part, text in parts.items() if text}

    def gone(self, pids: Iterable[str]) -> set[str]:
        """Those of these processes that are there no more."""
        return {pid for pid in pids if not os.path.exists(f"{self._host.proc}/{pid}")}  # noqa: PTH110 - no Path for each

    def _is_kernel_thread(self, pid: int) -> bool:
        """It runs no program (proc_exe_link()): a thread of the kernel, or one that has ended. False where
        nobody says."""
        try:
            os.readlink(f"{self._host.proc}/{pid}/exe")  # noqa: PTH115 - no Path for each
        except FileNotFoundError:
            return True
        except OSError:
            pass  # another user's
        return False


def _names(directory: Path | str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208  # names, no objects
    except OSError:
        return []
