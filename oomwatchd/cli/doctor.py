"""``oomwatchd doctor``: what the watch needs of this host, what is missing, and how to fix it.

It changes nothing and provokes nothing (``oomwatchd selftest`` does that).
"""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

import msgspec
import psutil

from oomwatchd import cgroupfs, config
from oomwatchd.errors import OomwatchdError, UnavailableError
from oomwatchd.observe.container import HELPER
from oomwatchd.observe.hierarchy import memory_hierarchy
from oomwatchd.observe.host import Host, read_text, read_whole
from oomwatchd.observe.runtimes import DIRECTORIES
from oomwatchd.procfs import oom_kills
from oomwatchd.procfs.mounts import mounts, swap_areas
from oomwatchd.records.kmsg import to_text
from oomwatchd.sources.kmsg import KmsgSource
from oomwatchd.words.amounts import size
from oomwatchd.words.escape import harmless
from oomwatchd.words.text import plural

if TYPE_CHECKING:
    from oomwatchd.cli import Subparsers

#: A row of the task table with its place in the ring, and all of a report but the rows, on one memory node.
ROW_BYTES = 128
FIXED_BYTES = 9 * 1024
#: The ring has one descriptor for so many bytes of text (PRB_AVGBITS, kernel/printk/printk.c).
BYTES_PER_RECORD = 32
FIXED_RECORDS = 160
_SMALL_FILE = 64 * 1024
#: Cgroups that are looked at, and refusals that are shown.
_MAX_GROUPS, _MAX_REFUSED = 20_000, 3
#: syslog(2): the size of the ring
_SYSLOG_ACTION_SIZE_BUFFER = 10

State = Literal["ok", "warn", "fail"]


class Check(msgspec.Struct, frozen=True):
    """One check. ``state``: ``ok``, ``warn`` (the watch works without it), ``fail`` (the watch does not
    work); ``hint`` is how to fix it."""

    name: str
    state: State
    found: str
    hint: str | None = None


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what works on this host, what does not, and how to fix it",
        description="Looks at the kernel, its log and its settings, and says what works for the watch, what "
        "does not, and how to fix each. Changes nothing. Exit status 0, or 69 if something that the watch "
        "needs fails.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration")
    parser.add_argument("--json", action="store_true", help="print the checks as a JSON array")
    parser.set_defaults(run=run)


def run(args: SimpleNamespace) -> int:
    """Print the checks; the exit status."""
    settings, _ = config.load(args.config)
    checks = [*examine(Path("/"), Path(settings.kmsg.device), ring_bytes), daemon(time.time())]
    print(msgspec.json.encode(checks).decode() if args.json else as_text(checks))
    return UnavailableError.exit_status if any(check.state == "fail" for check in checks) else 0


def ring_bytes() -> int | None:
    """The size of the kernel log's ring in bytes (syslog(2)); None without the right to ask."""
    size = ctypes.CDLL(None).klogctl(_SYSLOG_ACTION_SIZE_BUFFER, None, 0)
    return size if size > 0 else None


def examine(root: Path, device: Path, ring: Callable[[], int | None]) -> list[Check]:
    """All checks, on the host whose files are below ``root``."""
    return [
        _kernel(root),
        _kernel_log(device),
        _ring(root, ring()),
        _count(root),
        _task_table(root),
        _panic(root),
        _choice(root),
        _overcommit(root),
        _cgroups(root),
        _huge_pages(root),
        _names(root),
        _holders(root),
        _pressure(root),
        _swap(root),
        _pstore(root),
        _journal(root),
        _udev(root),
        _tracefs(root),
    ]


def daemon(now: float) -> Check:
    """The running daemon and what it costs. ``now`` in seconds since the epoch."""
    wanted = ["cmdline", "create_time", "memory_info", "cpu_times", "num_threads", "num_fds"]
    for process in psutil.process_iter(wanted):
        facts = process.info
        words = facts["cmdline"] or []
        if "run" not in words[1:] or "oomwatchd" not in (Path(word).name for word in words[:3]):
            continue
        found = [f"pid {process.pid}"]
        if memory := facts["memory_info"]:
            found.append(f"{size(memory.rss)} resident")
        if (times := facts["cpu_times"]) and (created := facts["create_time"]):
            share = (times.user + times.system) / max(1.0, now - created)
            found.append(f"{100 * share:.2f} % of a core since its start")
        if facts["num_fds"] is not None:
            found.append(f"{facts['num_threads']} threads, {facts['num_fds']} descriptors")
        return Check("daemon", "ok", ", ".join(found))
    return Check("daemon", "warn", "not running", "systemctl start oomwatchd, or oomwatchd run")


def as_text(checks: list[Check]) -> str:
    """One line for each check, its hint below it."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.state:<4}  {check.name:<{width}}  {harmless(check.found)}")
        if check.hint is not None:
            lines.append(f"      {'':<{width}}  fix: {harmless(check.hint)}")
    return "\n".join(lines)


# -- the log -------------------------------------------------------------------------------------------


def _kernel(root: Path) -> Check:
    release = _setting(root, "kernel/osrelease") or "unknown"
    version = re.match(r"(\d{1,4})\.(\d{1,4})", release)
    if version is None:
        return Check("kernel", "warn", f"{release}: its version is unknown", "mount /proc")
    number = int(version[1]), int(version[2])
    if number < (3, 5):
        return Check("kernel", "fail", f"{release}: its log has no records", "Linux 3.5 or later is needed")
    if number < (4, 19):
        found = f"{release}: reports have no summary line: a kill for the whole system names no cgroup"
        return Check("kernel", "warn", found, "Linux 4.19 or later prints it")
    return Check("kernel", "ok", release)


def _kernel_log(device: Path) -> Check:
    try:
        KmsgSource.open(str(device)).close()
    except OomwatchdError as error:
        return Check("kernel log", "fail", error.message, error.hint)
    return Check("kernel log", "ok", f"{device} can be read")


def _ring(root: Path, size: int | None) -> Check:
    if size is None:
        return Check("kernel log size", "warn", "the kernel does not say", "run as root")
    tasks = _user_processes(root)
    rows = 0 if _setting(root, "vm/oom_dump_tasks") == "0" else tasks
    nodes = max(1, len(list((root / "sys/devices/system/node").glob("node[0-9]*"))))
    fixed = FIXED_BYTES * (nodes + 1) // 2
    need = max(fixed + rows * ROW_BYTES, (FIXED_RECORDS * nodes + rows) * BYTES_PER_RECORD)
    found = f"{size // 1024} KiB; a report with {rows} processes takes about {need // 1024} KiB"
    if size >= 2 * need:
        return Check("kernel log size", "ok", found)
    wanted = 1 << (4 * need - 1).bit_length()
    lost = "is lost in part before it can be read" if size < need else "leaves room for little else"
    hint = f"boot with log_buf_len={wanted // 1024}K"
    return Check("kernel log size", "warn", f"{found}: it {lost}", hint)


def _user_processes(root: Path) -> int:
    """Processes that have memory of their own: those have a row (dump_tasks(), mm/oom_kill.c)."""
    statm = (read_text(path / "statm", 64) for path in (root / "proc").glob("[0-9]*"))
    return sum(text is not None and not text.startswith("0 ") for text in statm)


# -- settings ------------------------------------------------------------------------------------------


def _setting(root: Path, name: str) -> str | None:
    text = read_text(root / "proc/sys" / name, 256)
    return None if text is None else text.strip()


def _count(root: Path) -> Check:
    if oom_kills(to_text(read_whole(root / "proc/vmstat", _SMALL_FILE))) is not None:
        return Check("kernel's count of kills", "ok", "oom_kill in /proc/vmstat")
    found = "no oom_kill in /proc/vmstat: a kill whose messages are lost goes unnoticed"
    return Check("kernel's count of kills", "warn", found, "Linux 4.13 or later has it")


def _task_table(root: Path) -> Check:
    if _setting(root, "vm/oom_dump_tasks") == "0":
        found = "vm.oom_dump_tasks is 0: reports do not show who held the memory"
        return Check("task table", "warn", found, "sysctl vm.oom_dump_tasks=1")
    return Check("task table", "ok", "reports list all processes")


def _panic(root: Path) -> Check:
    value = _setting(root, "vm/panic_on_oom")
    if value in (None, "0"):
        return Check("panic", "ok", "the kernel goes on after a kill")
    found = f"vm.panic_on_oom is {value}: the machine goes down with the report"
    if _pstore_backend(root):
        return Check("panic", "ok", f"{found}, which pstore keeps for `oomwatchd analyze --pstore`")
    hint = "sysctl vm.panic_on_oom=0, or a pstore backend (ramoops, efi_pstore), which keeps the report"
    return Check("panic", "warn", found, hint)


def _choice(root: Path) -> Check:
    if _setting(root, "vm/oom_kill_allocating_task") in (None, "0"):
        return Check("choice of the victim", "ok", "the task with the highest score")
    found = "vm.oom_kill_allocating_task is set: the kernel kills the task that asks for memory"
    return Check("choice of the victim", "warn", found, "sysctl vm.oom_kill_allocating_task=0")


def _overcommit(root: Path) -> Check:
    if _setting(root, "vm/overcommit_memory") != "2":
        return Check("overcommit", "ok", "memory is overcommitted; when it runs out, the kernel kills")
    found = "vm.overcommit_memory is 2: allocations fail in the program, and the kernel log says nothing"
    return Check("overcommit", "warn", found, "watch Committed_AS against CommitLimit in /proc/meminfo, too")


# -- what the kernel shows -----------------------------------------------------------------------------


def _cgroups(root: Path) -> Check:
    hierarchy = memory_hierarchy(Host(proc=root / "proc"))
    if hierarchy is None:
        found = "no mounted cgroup hierarchy has the memory controller"
        return Check("cgroups", "warn", found, "boot with cgroup_enable=memory, or mount one")
    return Check("cgroups", "ok", f"memory controller of cgroup v{hierarchy.version} at {hierarchy.mount}")


def _huge_pages(root: Path) -> Check:
    """Whether a cgroup was refused huge pages. The process that wanted them gets SIGBUS; the kernel writes
    nothing, so nothing else here tells of it."""
    table = read_whole(root / "proc/self/mountinfo", 16 * _SMALL_FILE)
    points = dict.fromkeys(
        to_text(one.point)
        for one in mounts(table)
        if one.kind == b"cgroup2" or (one.kind == b"cgroup" and b"hugetlb" in one.options.split(b","))
    )
    refused = sorted((one for point in points for one in _refused(point)), reverse=True)
    if not refused:
        return Check("huge page limits", "ok", "no cgroup was refused huge pages")
    said = [
        f"{harmless(group)} {plural(count, 'time')} ({limit})"
        for count, group, limit in refused[:_MAX_REFUSED]
    ]
    found = f"refused huge pages, and who wanted them got SIGBUS: cgroup {', '.join(said)}"
    hint = "raise that limit (v1: hugetlb.SIZE.limit_in_bytes), or use fewer huge pages"
    return Check("huge page limits", "warn", found, hint)


def _refused(point: str) -> Iterator[tuple[int, str, str]]:
    """Count, cgroup and limit of each cgroup below ``point`` to which a huge page was refused."""
    for seen, (directory, _, files) in enumerate(os.walk(point)):
        if seen >= _MAX_GROUPS:
            return
        for name in files:
            for count_file, limit_file in cgroupfs.HUGE_PAGES:
                kind = name.removesuffix(count_file)
                if kind == name or not re.fullmatch(r"hugetlb\.\w+", kind):
                    continue
                text = read_text(Path(directory, name), 256) or ""
                count = int(text) if text.strip().isdigit() else cgroupfs.entry(text.encode(), b"max")
                if count:
                    limit = (read_text(Path(directory, kind + limit_file), 64) or "?").strip()
                    above = size(int(limit)) if limit.isdigit() else f"{limit}: that of a cgroup above"
                    yield count, directory.removeprefix(point) or "/", f"{kind}.max {above}"


def _names(root: Path) -> Check:
    """Names of containers, as the service gets them: its user may not read what is root's."""
    runtimes = [name for name in DIRECTORIES if _exists(root / name)]
    if _exists(root / HELPER):
        return Check("container names", "ok", f"read by the helper at /{HELPER}")
    if not runtimes:
        return Check("container names", "ok", "no files of a container runtime")
    found = f"the service may not read /{runtimes[0]}: these containers have no names, only ids"
    return Check("container names", "warn", found, "systemctl start oomwatchd-names.socket")


def _holders(root: Path) -> Check:
    if not _exists(root / "proc/slabinfo"):
        found = "no /proc/slabinfo: which of the kernel's caches grew is not known"
        return Check("holders", "warn", found, "a kernel with CONFIG_SLUB_DEBUG or CONFIG_SLAB")
    found = "slab caches and vmalloc (for the service by OpenFile=, systemd 253); only root can see what "
    return Check("holders", "ok", found + "processes hold in pipes, sockets, memfd and BPF")


def _pressure(root: Path) -> Check:
    if read_text(root / "proc/pressure/memory", 256):
        return Check("pressure", "ok", "/proc/pressure/memory")
    hint = "boot with psi=1 (Linux 4.20 or later with CONFIG_PSI)"
    return Check("pressure", "warn", "no pressure stall information: stalls before a kill go unseen", hint)


def _swap(root: Path) -> Check:
    areas = list(swap_areas(read_whole(root / "proc/swaps", _SMALL_FILE)))
    found = ", ".join(harmless(to_text(path)) for path, _ in areas[:8])
    return Check("swap", "ok", found or "none: anonymous memory cannot leave RAM")


def _pstore_backend(root: Path) -> str | None:
    backend = (read_text(root / "sys/module/pstore/parameters/backend", 64) or "").strip()
    return backend if backend not in ("", "(null)") else None


def _pstore(root: Path) -> Check:
    backend = _pstore_backend(root)
    if backend is not None:
        return Check("pstore", "ok", f"backend {backend}: a report survives a panic")
    hint = "on EFI: efi_pstore.pstore_disable=0; on boards: ramoops with a reserved region"
    return Check("pstore", "warn", "no backend: a report is lost when the machine panics", hint)


# -- around it -----------------------------------------------------------------------------------------


def _exists(path: Path) -> bool:
    with suppress(OSError):
        return path.exists()
    return False


def _journal(root: Path) -> Check:
    if not _exists(root / "run/systemd/journal/socket"):
        hint = "none is needed: the store has all events; [sinks.journal] enabled = false keeps the log quiet"
        return Check("journal", "warn", "no systemd journal: no entries there", hint)
    if not _exists(root / "var/log/journal"):
        hint = "mkdir /var/log/journal and restart systemd-journald, or Storage=persistent"
        return Check("journal", "warn", "the systemd journal is lost at each boot", hint)
    return Check("journal", "ok", "systemd journal, persistent")


def _udev(root: Path) -> Check:
    if _exists(root / "run/udev/control"):
        return Check("udev", "ok", "memory hotplug and new swap are noticed")
    found = "no udev: hotplugged memory is noticed only at the next report"
    return Check("udev", "warn", found, "not needed without memory hotplug")


def _tracefs(root: Path) -> Check:
    for place in ("sys/kernel/tracing", "sys/kernel/debug/tracing"):
        if _exists(root / place / "events/oom/mark_victim"):
            return Check("tracefs", "ok", f"/{place}/events/oom/mark_victim")
    found = "no events/oom/mark_victim: kills have no second source"
    return Check(
        "tracefs", "warn", found, "as root: mount -t tracefs tracefs /sys/kernel/tracing; else see trace.conf"
    )
