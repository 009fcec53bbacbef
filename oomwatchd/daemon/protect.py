"""What keeps the daemon able to act while the machine has no memory left.

Everything is loaded and tried before the daemon says it is ready; then its pages are kept in memory.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import resource
from contextlib import suppress
from pathlib import Path

from oomwatchd.daemon.warmup import RECORDS
from oomwatchd.event import conclude
from oomwatchd.formats.recognise import prepare
from oomwatchd.observe.host import read_text
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import parse_record
from oomwatchd.reports.assemble import Assembler, OomBlock

#: mlockall(2): current, future and on fault; these three architectures number them differently
#: (arch/*/include/uapi/asm/mman.h).
_MCL = (0x2000, 0x4000, 0x8000) if os.uname().machine.startswith(("ppc", "sparc", "alpha")) else (1, 2, 4)

#: mallopt(3)
_M_ARENA_MAX = -8
#: PR_SET_THP_DISABLE(2const)
_PR_SET_THP_DISABLE = 41

_CAP_IPC_LOCK = 14

#: open files for all sinks and 200 connections, and the number below which something does not work
_DESCRIPTORS, _FEW_DESCRIPTORS = 1024, 128


def keep_small() -> None:
    """Before any thread is started: one heap for all of them, and no huge pages.

    glibc gives each thread a heap of its own, 64 MiB of addresses each, which all count as locked (400 MiB
    instead of 72) and between which free memory is not shared (1 MiB of RSS); Python's threads take turns
    anyway. With transparent huge pages for everybody a thread's stack or a heap of some pages may come as
    2 MiB at once, locked from then on. Where the C library or the kernel has neither, nothing is changed.
    Stacks keep their size: of them, too, only what is touched is held.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)
        library.mallopt(_M_ARENA_MAX, 1)


def raise_descriptors() -> str | None:
    """Allow as many open files as the hard limit does, up to ``_DESCRIPTORS``; None, or what is wrong
    with the limit, and how to fix it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft >= _FEW_DESCRIPTORS:
        return None
    return (
        f"only {soft} files may be open (RLIMIT_NOFILE), some parts fail; set LimitNOFILE= of the unit (or"
        f" ulimit -n) to {_DESCRIPTORS}"
    )


def warm_up() -> None:
    """Decode a sample report the whole way, so that under pressure no module, pattern or table is loaded
    for the first time. Raises RuntimeError when the decoder does not understand its own sample."""
    prepare()  # the sample has the forms of one kernel
    assembler = Assembler()
    records = [record for line in RECORDS.splitlines() if (record := parse_record(line.encode()))]
    signals = [signal for record in records for signal in assembler.feed(record)] + assembler.flush()
    blocks = [signal for signal in signals if isinstance(signal, OomBlock)]
    kills = 0
    for block in blocks:
        source = Source(kind="kmsg", form="kmsg")
        kills += conclude(OomCapture(source=source, records=block.records, settled=True)).event.kills
    if kills != 1:
        raise RuntimeError(f"self-test: {kills} kills found in a sample report that has one")


def freeze() -> None:
    """Exclude what was allocated until now from garbage collection, and return free memory to the kernel."""
    gc.collect()
    gc.freeze()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def lock_memory(proc: Path = Path("/proc")) -> str | None:
    """Keep the daemon's pages in memory from when they are first used; None, or why that is impossible.

    Without MCL_ONFAULT every thread's whole stack would be held too (43 MiB instead of 27). Under a
    limit on locked memory, allocations would later fail at that limit, so it is all or nothing.
    """
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    if resource.getrlimit(resource.RLIMIT_MEMLOCK) != unlimited and not _ignores_limit(proc):
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
        except (OSError, ValueError):
            return "the limit on locked memory is too low (LimitMEMLOCK=infinity mends it)"
    try:
        mlockall = ctypes.CDLL(None, use_errno=True).mlockall
    except (OSError, AttributeError):
        return "the C library has no mlockall()"
    if mlockall(sum(_MCL)) != 0:
        return f"mlockall: {os.strerror(ctypes.get_errno())}"
    return None


def _ignores_limit(proc: Path) -> bool:
    """CAP_IPC_LOCK in the first user namespace (user_namespaces(7)): the only place where it lifts the
    limit (can_do_mlock(), mlock_future_ok())."""
    status = read_text(proc / "self/status", 8192) or ""
    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    uid_map = read_text(proc / "self/uid_map", 4096) or ""
    initial = uid_map.split() == ["0", "0", "4294967295"]
    return initial and capabilities is not None and bool(int(capabilities[1], 16) >> _CAP_IPC_LOCK & 1)
