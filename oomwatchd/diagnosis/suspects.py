"""Suspects for kernel memory that no counter names, from a live host's facts or, offline, from taint flags.

Some facts are amounts (BPF's memlock, vmalloc by caller, sockets' pages). Others are only counts: a process
with thousands of open pipes or sockets. A kernel with out-of-tree modules says so in every dump.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

import msgspec

from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.facts import Held
from oomwatchd.diagnosis.ledger import Kind
from oomwatchd.diagnosis.levers import setting
from oomwatchd.diagnosis.purpose import Purpose, purpose
from oomwatchd.words.amounts import size
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import middle_cut, plural


class _Kind(msgspec.Struct, frozen=True):
    """Descriptors of one kind: the number above which they are unusual, the most bytes that one can hold,
    their name, and how to limit them."""

    many: int
    most_bytes: int
    noun: str
    hint: str


_KINDS = {
    "pipe": _Kind(500, 128 << 10, "pipe", "fs.pipe-user-pages-soft bounds their buffers"),
    "socket": _Kind(200, 2 << 20, "socket", "ss -xtm shows what is queued; net.core.wmem_max bounds one"),
    "packet": _Kind(4, 1 << 30, "packet socket", "ss -0mp shows them; smaller or fewer rings"),
    "io_uring": _Kind(8, 8 << 20, "io_uring", "RLIMIT_MEMLOCK bounds rings of older kernels"),
    "bpf": _Kind(32, 1 << 30, "BPF object", "memlock in fdinfo, bpftool map"),
    "perf": _Kind(16, 16 << 20, "perf event", "perf record -m makes its buffers smaller"),
    "dmabuf": _Kind(8, 64 << 20, "DMA-BUF", "size in fdinfo, /sys/kernel/debug/dma_buf/bufinfo"),
    "netns": _Kind(64, 4 << 20, "network namespace", "lsns -t net; ip netns"),
    "all": _Kind(1000, 1 << 20, "descriptor", "ls -l /proc/PID/fd shows of what kind"),
}
_BPF = deferred(r"bpf_map_|array_map_|htab_|bpf_prog_|queue_stack_map_|ringbuf_map_|trie_")
_COMPRESSED = deferred(r"(zram|zswap)_")
_SHRINK_ZSWAP = (
    "lower max_pool_percent of zswap (/sys/module/zswap/parameters), so that it writes to the swap behind "
    "it, or add RAM"
)
#: Compression ratio. Data above it hardly compresses.
_COMPRESSES = 0.7
FOREIGN = "modules from out of tree or unsigned"
#: Functions that call a module's init function (kernel/module).
_LOADS = frozenset({"do_init_module", "load_module", "do_one_initcall"})
_MODULE = deferred(r"\[([\w-]+)\]$")


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """A suspected holder, in words, and what to do about it ("end it ..."). ``amount`` is in bytes, 0 if only
    a count is known."""

    amount: int
    text: str
    lever: str


def by_amount(case: Case) -> list[Suspect]:
    """The suspects with a known amount, the largest first."""
    facts, page = case.facts, case.report.page_size_bytes or 4096
    found = [
        _of(h, what, f"end {_who(h)}, or have it hold less: {how.format(size=size(h.amount), pid=h.pid)}")
        for what, how, held in (
            ("BPF", "its BPF maps take {size} (bpftool map; memlock in /proc/{pid}/fdinfo)", facts.bpf),
            ("packet rings", "fewer or smaller rings (ss -0mp shows them)", facts.packet),
            (
                "io_uring rings",
                "its rings take {size} (ls -l /proc/{pid}/fd); fewer of them, or fewer entries",
                facts.io_uring,
            ),
            (
                "DMA-BUFs",
                "its buffers take {size} (size in fdinfo of /proc/{pid}/fd); it should close unused ones",
                facts.dmabuf,
            ),
            (
                "perf buffers",
                "its buffers take {size} (VmPin; perf record -m bounds them)",
                facts.perf,
            ),
        )
        for h in held[:1]
    ]
    found += _of_the_machine(case)
    compressed = _compressed(case, page)
    if compressed is not None:
        found.append(compressed)
    sockets = sum(facts.sockets.values()) * page
    if sockets:
        lever = (
            "have whoever is slow read what is queued (ss -tump shows whose), or bound it: net.ipv4.tcp_mem"
        )
        found.append(Suspect(amount=sockets, text="buffers of network sockets", lever=lever))
    for h in facts.vmalloc[:1]:
        module, bpf = _MODULE.search(h.name), _BPF.match(h.name)
        if h.name.startswith("pcpu_") or (bpf and facts.bpf):
            continue  # per-CPU data has its own counter; the others have their owner above
        by = harmless_name(h.name)
        lever = f"find what vmalloc by {by} serves, and end or bound it (/proc/vmallocinfo: {size(h.amount)})"
        if module:
            lever = f"unload or update that module (rmmod {module[1]}): {by} in /proc/vmallocinfo"
            if module[1] not in facts.modules:  # the kernel's own: it does what it was told
                lever = (
                    f"have the module {module[1]} take less ({by} in /proc/vmallocinfo; its settings are in "
                    f"/sys/module/{module[1]}/parameters), or unload it (rmmod {module[1]})"
                )
        elif bpf:
            lever = "end whoever made the BPF maps, or make them smaller (bpftool map shows whose)"
        found.append(_of(h, f"vmalloc by {by}{' (BPF maps)' if bpf else ''}", lever, whose=False))
    return sorted(found, key=lambda s: -s.amount)


def _of_the_machine(case: Case) -> list[Suspect]:
    """Suspects that are no process: RAM disks and the buffers of ftrace."""
    facts, found = case.facts, []
    disks = sum(h.amount for h in facts.ramdisks)
    if disks:
        names = ", ".join(f"/dev/{harmless_name(h.name)}" for h in facts.ramdisks[:3])
        lever = (
            f"unload the RAM disk or make it smaller (rmmod brd; its rd_size=): {names} holds {size(disks)}, "
            "and gives no page back; a tmpfs with size= does"
        )
        found.append(Suspect(amount=disks, text=f"RAM disk {names}", lever=lever))
    if facts.tracing_bytes:
        lever = (
            "lower buffer_size_kb in /sys/kernel/tracing (1408 is the kernel's own choice), or "
            f"trace_buf_size= at boot: the buffers of ftrace take {size(facts.tracing_bytes)}"
        )
        found.append(Suspect(amount=facts.tracing_bytes, text="trace buffers (ftrace)", lever=lever))
    return found


def _compressed(case: Case, page: int) -> Suspect | None:
    """Swap that is kept in RAM. It frees only what compression saves (mm_stat, zram.rst)."""
    facts = case.facts
    used = sum(h.amount for h in facts.zram)
    amount = used or facts.zspages * page
    asking = _compressing(case)
    if not amount and asking is not None and (amount := swapped_bytes(case)):
        # the compressed swap itself requested memory for its data
        lever = (
            "replace zram by swap on a disk, or give it a backing_dev: what does not compress takes as much "
            f"RAM as before ({size(amount)} are in swap; zramctl, mm_stat)"
        )
        text = f"compressed swap ({asking}), by the call trace"
        return Suspect(amount=amount, text=text, lever=lever if asking == "zram" else _SHRINK_ZSWAP)
    if not amount:
        return None
    if not used:
        return Suspect(amount=amount, text="compressed swap (zswap)", lever=_SHRINK_ZSWAP)
    names = ", ".join(harmless_name(h.name) for h in facts.zram if h.amount)
    data = facts.zram_data_bytes
    holds = f"{size(data)} of swap take {size(used)} of RAM" if data else f"it takes {size(used)} of RAM"
    why = ", for they hardly compress" if data and used > _COMPRESSES * data else ""
    lever = (
        f"replace zram ({names}) by swap on a disk, or give it a backing_dev: {holds}{why} "
        "(zramctl; mm_stat shows it)"
    )
    return Suspect(amount=amount, text="compressed swap (zram)", lever=lever)


def _compressing(case: Case) -> str | None:
    """``zram`` or ``zswap`` if it made the request."""
    return next((m[1] for f in case.report.trigger.call_trace if (m := _COMPRESSED.match(f))), None)


def swapped_bytes(case: Case) -> int:
    """Bytes in swap, by the report."""
    swap = case.report.memory.swap if case.report.memory is not None else None
    return 0 if swap is None else max((swap.total_bytes or 0) - (swap.free_bytes or 0), 0)


def by_count(
    case: Case,
    of: Container[int | str] | None = None,
    least: int = 0,
    kinds: Container[str] = _KINDS,
) -> Suspect | None:
    """The process with enough descriptors of one kind to hold ``least`` bytes, or None.

    Only the given processes count, by pid or name: a daemon in a container sees other pids than the log has.
    """
    held = [
        (h.amount / kind.many, kind, h)
        for name, h in case.facts.descriptors.items()
        if name in kinds
        and (kind := _KINDS.get(name)) is not None
        and (of is None or h.pid in of or h.name in of)
        and h.amount * kind.most_bytes >= least
    ]
    most = max(held, key=lambda one: one[0], default=None)
    if most is None or most[0] < 1:
        return None
    _, kind, h = most
    limit = setting(case, "LimitNOFILE=", "ulimit -n")
    name, opened = harmless_name(h.name), plural(h.amount, kind.noun)
    return Suspect(
        amount=0,
        text=f"{name} has {opened} open",
        lever=f"end {_who(h)} or have it open less: it has {opened} open (ls -l /proc/{h.pid}/fd; {limit}; "
        f"{kind.hint})",
    )


def by_trace(case: Case) -> Suspect | None:
    """The suspect that made the failing request: for memory that no counter includes, or by a module that was
    being loaded. What grows is also what requests most often.

    Live, a storm's later reports count, too: their requests come while others are killed."""
    return _asked_now(case) or _asked_later(case)


def _asked_now(case: Case) -> Suspect | None:
    trace, trigger = case.report.trigger.call_trace, case.report.trigger
    if not trigger.comm:
        return None
    found = purpose(trace)
    if case.kernel_thread:
        # a thread of the kernel has no descriptors and cannot be ended
        if found is None or not found.uncounted or "/proc/PID/" in found.look:
            return None
        text = f"{harmless_name(trigger.comm)} asked for {found.words}"
        return Suspect(amount=0, text=text, lever=f"see {found.holds}: {found.look}")
    who = harmless_name(trigger.comm) + ("" if trigger.pid is None else f" (pid {trigger.pid})")
    module = next(iter(case.trace_modules), None)
    if module is not None and not _LOADS.isdisjoint(trace):
        name = harmless_name(module)
        per_cpu = " for per-CPU data" if any(f.startswith("pcpu_") for f in trace) else ""
        return Suspect(
            amount=0,
            text=f"module {name} asked{per_cpu} while it was loaded by {who}",
            lever=f"unload or update {name}, which took memory while it was loaded (rmmod {name}; a line "
            f"blacklist {name} in /etc/modprobe.d keeps it out)",
        )
    if found is not None and found.uncounted:
        return _asking(who, trigger.pid, found, "when memory ran out")
    return None


def _asked_later(case: Case) -> Suspect | None:
    later = case.capture.later if case.capture is not None else ()
    asked = ((one, purpose(one.call_trace)) for one in later)
    found = [(one, kind) for one, kind in asked if kind is not None and kind.uncounted]
    if not found:
        return None
    times = Counter((one.comm, one.pid) for one, _ in found)
    comm, pid = times.most_common(1)[0][0]
    kind = next(kind for one, kind in found if (one.comm, one.pid) == (comm, pid))
    who = harmless_name(comm) + ("" if pid is None else f" (pid {pid})")
    return _asking(who, pid, kind, "while others were killed")


def _asking(who: str, pid: int | None, found: Purpose, when: str) -> Suspect:
    fd = f"/proc/{pid if pid is not None else 'PID'}/fd"
    return Suspect(
        amount=0,
        text=f"{who} asked for {found.words}",
        lever=f"end {who}, or have it hold less: it asked for {found.words} {when} "
        f"({found.look.replace('/proc/PID/fd', fd)})",
    )


def modules(case: Case) -> tuple[str, ...] | None:
    """The names of out-of-tree or unsigned modules, the last loaded first. () if the kernel says only that it
    has one, None if it reports none."""
    return case.facts.modules or case.foreign_modules


#: ZFS's modules, its event daemon, functions of its cache, and kernels that are built with it.
_ZFS = frozenset({"zfs", "spl"})
_ZFS_FUNCTIONS = ("arc_", "abd_", "zio_", "dbuf_", "spa_", "zfs_", "spl_")
_ZFS_KERNELS = ("-pve", "truenas")


def uses_zfs(case: Case) -> bool:
    """Whether the report shows ZFS. Its cache (ARC) is in no counter (abd_alloc_chunks() takes pages)."""
    own = modules(case)
    shown = _ZFS & {*(own or ()), *case.trace_modules}
    called = any(f.startswith(_ZFS_FUNCTIONS) for f in case.report.trigger.call_trace)
    if shown or called or any(task.comm == "zed" for task in case.report.tasks):
        return True
    return own == () and any(word in (case.report.kernel or "") for word in _ZFS_KERNELS)


#: Share of an amount that is charged to one cgroup.
_CHARGED = 0.4


def charged(case: Case, amount: int, *kinds: Kind) -> Suspect | None:
    """Live: the cgroup that most of ``amount`` bytes of the kernel's memory are charged to, the innermost.
    What is charged may also be of the other ``kinds``."""
    besides = sum(case.ledger.held(kind) or 0 for kind in kinds)
    groups = [h for h in case.facts.kernel_charged if h.amount - besides >= _CHARGED * amount]
    first = max(groups, key=lambda h: (h.name.count("/"), h.amount), default=None)
    if first is None:
        return None
    unit = owner_of(first.name).unit
    who = harmless_name(unit or f"cgroup {middle_cut(first.name, 60)}")
    held = f"{size(first.amount)} of the kernel's memory are charged to"
    lever = f"have {who} hold less, or end it: {held} it (memory.stat of its cgroup)"
    return Suspect(amount=0, text=f"{held} {who}", lever=lever)


def unload(names: tuple[str, ...]) -> str:
    """How to unload these modules, or how to find them if the kernel does not name them."""
    if not names:
        return f"Unload or update the {FOREIGN} (lsmod; O and E in /proc/modules)"
    first = names[0]
    which = "a module" if len(names) == 1 else "modules"
    return (
        f"Unload or update {', '.join(names)}, {which} from out of tree or unsigned (rmmod {first}; a line "
        f"blacklist {first} in /etc/modprobe.d keeps it out)"
    )


def _of(held: Held, text: str, lever: str, *, whose: bool = True) -> Suspect:
    return Suspect(amount=held.amount, text=f"{text} of {_who(held)}" if whose else text, lever=lever)


def _who(held: Held) -> str:
    return f"{harmless_name(held.name)} (pid {held.pid})"


def described(suspect: Suspect) -> str:
    """``BPF of tracer (pid 7) 256 MiB``."""
    return f"{suspect.text} {size(suspect.amount)}" if suspect.amount else suspect.text
