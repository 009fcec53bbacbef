"""Memory that no counter of the report names.

This is RAM minus everything that the report names: free, anonymous and file pages, slab, page tables, kernel
stacks, huge pages, per-CPU page lists. The rest was taken directly from the page allocator: by drivers (GPU,
network rings, vmalloc), a balloon that the hypervisor inflated, zram and zswap (until 6.17), percpu data, or
a leak of whole pages.

With memory allocation profiling (6.10+) the report lists the largest allocation sites in the kernel's code.
Otherwise look at ``/proc/vmallocinfo``, ``page_owner`` and the hypervisor's balloon figures.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.ledger import Kind
from oomwatchd.diagnosis.sites import lever_of, said, site_of, within
from oomwatchd.diagnosis.suspects import (
    FOREIGN,
    Suspect,
    by_amount,
    by_count,
    by_trace,
    charged,
    described,
    modules,
    swapped_bytes,
    unload,
    uses_zfs,
)
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.text import plural

ID = "unaccounted_memory"
TITLE = "Much memory is accounted to nobody"

#: Shares of RAM. Ordinary systems have a few percent in drivers and percpu data.
_LARGE, _HUGE = 0.10, 0.40
#: Share of RAM that page sets, drivers and per-CPU data use on a healthy machine.
_USUAL = 0.03
#: What programs and files hold.
_USER: tuple[Kind, ...] = ("anon", "shmem", "file", "waiting", "unevictable")
#: Share of what another holder has.
_CLUE = 0.5
#: Share of RAM that is in no counter only before it is handed to the page allocator.
_NONE_YET = 0.97
#: What is charged to cgroups as the kernel's own memory, and is in a counter.
_CHARGED: tuple[Kind, ...] = ("slab_unreclaimable", "slab_reclaimable", "slab", "pagetables", "kernel_stack")
#: Largest number of modules that the summary line names.
_NAMED_MODULES = 3


def find(case: Case) -> Claim | None:
    if case.in_cgroup:
        return None  # the cgroup ran out, not the machine
    whole, rest = case.ledger.whole_bytes, case.ledger.held("rest")
    if whole and rest is None and not case.confined:
        return _by_zones(case, whole)
    if not whole or rest is None or case.confined:
        return None
    # on a live system a part of it has a name, but it still belongs to no process
    vmalloc, percpu = case.ledger.held("vmalloc") or 0, case.ledger.held("percpu") or 0
    rest += vmalloc + percpu
    # the accounting data of per-CPU objects is in vmalloc (pcpu_alloc_chunk(): obj_cgroups)
    books = min(sum(h.amount for h in case.facts.vmalloc if h.name.startswith("pcpu_")), vmalloc)
    vmalloc, percpu = vmalloc - books, percpu + books
    excess = rest - int(_USUAL * whole)
    if rest < _LARGE * whole:
        return None
    if case.report.trigger.pid == 0 and rest >= _NONE_YET * whole:
        return _none_yet(case, rest, whole)
    top = within(case, rest)[:3]
    who = ", ".join(f"{a.function} ({a.location}) {size(a.bytes)}" for a in top)
    named = _named(case, vmalloc, percpu)
    first = _first(case, rest)
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical" if rest >= _HUGE * whole else "warning",
            title=TITLE,
            explanation=f"{size(rest)}, {percent(rest, whole)} of RAM, is in none of the report's counters: "
            "drivers (GPU, network), socket and pipe buffers, BPF maps, vmalloc, io_uring, a balloon or a "
            "leak "
            f"of pages.{named}"
            + (f" The largest allocation sites: {who}." if who else "")
            + case.spare(excess),
            evidence={
                "unaccounted_bytes": rest,
                "named_bytes": whole - rest,
                "whole_bytes": whole,
                "share_ratio": case.ledger.share(rest),
            },
            advice=lever_of(case, top[0]) if top else _advice(case, vmalloc, percpu, rest, first),
        ),
        cause=Cause(
            tier=Tier.HELD if _outweighed(case, excess) else Tier.TAKEN,
            text=f"{case.ledger.percent(rest)} {case.of} is in no counter{_whose(case, percpu, rest, first)}",
            excess_bytes=excess,
        )
        if case.decides(excess)
        else None,
    )


def _by_zones(case: Case, whole: int) -> Claim | None:
    """The claim for a log that has the zones' lines alone: they count user memory, so what is left of them is
    the kernel's, its slab included."""
    ledger = case.ledger
    slab = any(ledger.held(kind) is not None for kind in ("slab", "slab_reclaimable", "slab_unreclaimable"))
    known = all(case.total(name) is not None for name in ("free", "active_anon", "active_file"))
    rest = whole - sum(holder.bytes for holder in ledger.holders)
    excess = rest - int(_USUAL * whole)
    if slab or not known or case.report.kind == "page_alloc_failure" or rest < _HUGE * whole:
        return None
    user = sum(ledger.held(kind) or 0 for kind in _USER)
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical",
            title="The kernel or its drivers hold most of the memory",
            explanation=f"Programs and page cache have {size(user)} of {size(whole)}. {size(rest)}, "
            f"{percent(rest, whole)}, is the kernel's own: slab, kernel stacks, drivers' buffers (GPU, "
            "DMA-BUF heaps, network), vmalloc or a leak of pages. The log lacks the counters that would tell "
            "these apart.",
            evidence={
                "unaccounted_bytes": rest,
                "named_bytes": whole - rest,
                "whole_bytes": whole,
                "share_ratio": ledger.share(rest),
            },
            advice="See Slab, SUnreclaim, KernelStack and VmallocUsed in /proc/meminfo, slabtop -s c, "
            "/sys/kernel/debug/dma_buf/bufinfo (graphics and video buffers) and /proc/vmallocinfo; what none "
            "of these names is a driver's.",
        ),
        cause=Cause(
            tier=Tier.TAKEN,
            text=f"the kernel or its drivers hold {ledger.percent(rest)} {case.of}",
            excess_bytes=excess,
        )
        if case.decides(excess)
        else None,
    )


def _outweighed(case: Case, excess: int) -> bool:
    """Whether locked or shared memory holds so much that it is the better clue: what is in no counter is
    known by subtraction alone."""
    named = max(case.ledger.held("unevictable") or 0, case.ledger.held("shmem") or 0)
    return excess < _CLUE * named


def _none_yet(case: Case, rest: int, whole: int) -> Claim:
    """The claim for a request of the kernel's first task, before memory was handed over (mem_init())."""
    who = case.caller or "what asks, by the call trace,"
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical",
            title="The page allocator had no memory yet",
            explanation=f"The kernel's first task asked while {percent(rest, whole)} of RAM was not handed "
            "over to the page allocator: the kernel was starting.",
            evidence={"unaccounted_bytes": rest, "whole_bytes": whole, "function": case.caller},
            advice=f"Report the trace to the kernel's or driver's maker: {who} has to ask later, or take "
            "memory from memblock.",
        ),
        cause=Cause(tier=Tier.MANNER, text="the page allocator had no memory yet (the kernel was starting)"),
    )


def _named(case: Case, vmalloc: int, percpu: int) -> str:
    parts = [f"vmalloc {size(vmalloc)}"] if vmalloc else []
    parts += [f"per-CPU data {size(percpu)}"] if percpu else []
    parts += [described(suspect) for suspect in by_amount(case)[:3]]
    of = f" Of it: {', '.join(parts)}." if parts else ""
    opened, own = by_count(case), modules(case)
    of += f" {opened.text[0].upper()}{opened.text[1:]}." if opened is not None else ""
    if own is not None:
        of += f" The kernel has {FOREIGN}{': ' if own else ''}{', '.join(own)}."
    return of


def _first(case: Case, rest: int) -> Suspect | None:
    """The suspect that explains most of it, by amount or else by the number of open objects."""
    top = next(iter(by_amount(case)), None)
    if top is not None and top.amount >= _HUGE * rest:
        return top
    return by_count(case, least=int(_HUGE * rest)) or by_trace(case) or charged(case, rest, *_CHARGED)


def _whose(case: Case, percpu: int, rest: int, first: Suspect | None) -> str:
    site = site_of(case, rest, "slab_unreclaimable", "slab_reclaimable")
    if site is not None:
        return f", most of it allocated by {said(site)}"
    if percpu >= _HUGE * rest:
        return ", most of it per-CPU data"
    if first is not None:
        return f", most of it {first.text}" if first.amount else f"; {first.text}"
    if case.uncounted_balloon is not None:
        return f"; the balloon of {case.uncounted_balloon} may have it"
    if uses_zfs(case):
        return "; the cache of ZFS (ARC) may have it"
    own = modules(case)
    return f"; the kernel has {FOREIGN}: {', '.join(own[:_NAMED_MODULES])}" if own else ""


def _advice(case: Case, vmalloc: int, percpu: int, rest: int, first: Suspect | None) -> str:
    own = modules(case)
    if percpu >= _HUGE * rest:
        who = "" if not own else f"{unload(own)}, and see whether Percpu in /proc/meminfo falls. Else "
        text = (
            f"{who}have fewer of what takes per-CPU data ({size(percpu)}): cgroups (/proc/cgroups), network "
            "namespaces (lsns -t net), per-CPU BPF maps (bpftool map), modules."
        )
        return f"{text[0].upper()}{text[1:]}"
    if first is not None:
        return f"{first.lever[0].upper()}{first.lever[1:]}."
    look = ["/proc/net/sockstat and ss -m (sockets)"]
    if case.kernel_at_least(3, 19) is not False:
        look.append("fdinfo of BPF maps (memlock)")
    if case.total("kernel_stack") is None:
        # counted since 2.6.32
        look.insert(0, "the number of threads (this report counts no kernel stacks)")
    if case.facts.packet_sockets:
        look.append(f"ss -0mp (the rings of {plural(case.facts.packet_sockets, 'packet socket')})")
    used = swapped_bytes(case)
    if used >= rest // 2:
        look.insert(0, f"zramctl (zram keeps what is in swap, {size(used)}, compressed in RAM)")
    # live and small: it is not there
    if vmalloc >= _HUGE * rest or not case.meminfo_at:
        look.insert(0, "/proc/vmallocinfo")
    if case.kernel_at_least(6, 10) is not False:
        look.append("memory profiling (6.10+, sysctl.vm.mem_profiling=1 at boot)")
    elif case.kernel_at_least(3, 19) is not False:
        look.append("page_owner=on at boot, where the kernel has it built in")
    places = f"{', '.join(look[:-1])}; {look[-1]}"
    look_first = _look_first(case)
    if look_first:
        return f"{look_first} If it is not that: drivers (GPU, network), {places}."
    if own is None:
        return f"See drivers (GPU, network), {places}."
    # the rest of the kernel is what others run, too
    return (
        f"{unload(own)}, and see whether MemFree rises or what is in no counter stops growing. If it is not "
        f"that: drivers (GPU, network), {places}."
    )


def _look_first(case: Case) -> str:
    """The advice for what the report itself points at; empty if nothing."""
    balloon = case.uncounted_balloon
    if balloon == "VMware":
        return (
            "See what the balloon of VMware took (the host's figures; vmware-toolbox-cmd stat balloon); give "
            "the virtual machine a larger reservation, or fixed memory."
        )
    if balloon is not None:
        return (
            f"See what the balloon of {balloon} took (Dynamic Memory, the host's figures); give the virtual "
            "machine a larger minimum, or fixed memory."
        )
    if uses_zfs(case):
        return (
            "See how large the cache of ZFS is (size and c_max in /proc/spl/kstat/zfs/arcstats), and bound "
            "it (options zfs zfs_arc_max=BYTES in /etc/modprobe.d; at once: /sys/module/zfs/parameters)."
        )
    return ""
