"""Memory that no counter of the report names.

RAM less everything named: free, anonymous and file pages, slab, page tables, kernel stacks, huge pages, CPU
lists. What remains was taken from the page allocator directly: drivers (GPU, network rings, vmalloc), a
balloon that the hypervisor inflated, zram and zswap (until 6.17), percpu data, or a leak of whole pages.

Memory allocation profiling (6.10+) names the code that holds it and the report then lists the largest;
``/proc/vmallocinfo``, ``page_owner`` and the hypervisor's balloon figures are the other places to look.
"""

from __future__ import annotations

from typing import NamedTuple

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import plural

ID = "unaccounted_memory"
TITLE = "Much memory is accounted to nobody"

#: of RAM; ordinary systems have a few percent in drivers and percpu data
_LARGE, _HUGE = 0.10, 0.40
#: of RAM: page sets, drivers and per-CPU data of a machine without any fault
_USUAL = 0.03
#: descriptors of one kind: fewer have no buffers that matter
_MANY_OPEN = 500
#: what these allocate is in one of the counters above: slab, page cache, anonymous memory, page tables
_COUNTED = (
    "mm/slub.c",
    "mm/slab",
    "mm/filemap.c",
    "mm/readahead.c",
    "mm/memory.c",
    "mm/shmem.c",
    "mm/swap_state.c",
    "mm/huge_memory.c",
    "mm/khugepaged.c",
    "mm/migrate.c",
    "mm/hugetlb",
    "mm/zsmalloc.c",
    "kernel/fork.c",
    "include/asm-generic/pgalloc.h",
    "arch/x86/mm/pgtable.c",
)


def find(case: Case) -> Claim | None:
    if case.in_cgroup:
        return None  # the machine's memory is not what ran out
    whole, rest = case.ledger.whole_bytes, case.ledger.held("rest")
    if not whole or rest is None or case.confined:
        return None
    # live a part of it has a name: it belongs to nobody all the same
    vmalloc, percpu = case.ledger.held("vmalloc") or 0, case.ledger.held("percpu") or 0
    rest += vmalloc + percpu
    excess = rest - int(_USUAL * whole)
    if rest < _LARGE * whole:
        return None
    sites = [a for a in case.report.allocations if not a.location.startswith(_COUNTED)]
    top = sorted(sites, key=lambda a: -a.bytes)[:3]
    who = ", ".join(f"{a.function} ({a.location}) {size(a.bytes)}" for a in top)
    named = _named(case, vmalloc, percpu)
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
            advice=f"Ask why {top[0].function} holds so much: the list names the code that allocated it."
            if top
            else _advice(case, vmalloc, rest),
        ),
        cause=Cause(
            tier=Tier.TAKEN,
            text=f"{case.ledger.percent(rest)} of RAM is in no counter{_whose(case, rest)}",
            excess_bytes=excess,
        )
        if case.decides(excess)
        else None,
    )


class _Holder(NamedTuple):
    """A live fact that may explain it: what it holds, in words, and where to look."""

    amount: int
    text: str
    look: str


def _holders(case: Case) -> list[_Holder]:
    facts, page = case.facts, case.report.page_size_bytes or 4096
    found = [
        _Holder(h.amount, f"BPF of {harmless_name(h.name)} (pid {h.pid})", "bpftool map; memlock in fdinfo")
        for h in facts.bpf[:1]
    ]
    found += [
        _Holder(h.amount, f"packet ring of {harmless_name(h.name)} (pid {h.pid})", "ss -0mp")
        for h in facts.packet[:1]
    ]
    zram = sum(h.amount for h in facts.zram) or facts.zspages * page
    if zram:
        found.append(
            _Holder(zram, "compressed swap (zram, zswap)", "zramctl; lower its disksize or mem_limit")
        )
    sockets = sum(facts.sockets.values()) * page
    if sockets:
        found.append(_Holder(sockets, "buffers of sockets", "ss -m, /proc/net/sockstat"))
    found += [
        _Holder(h.amount, f"vmalloc by {harmless_name(h.name)}", "/proc/vmallocinfo")
        for h in facts.vmalloc[:1]
    ]
    return sorted(found, key=lambda h: -h.amount)


def _many_descriptors(case: Case) -> str:
    """Who holds so many sockets or pipes that their buffers may be it."""
    held = [
        f"{harmless_name(h.name)} (pid {h.pid}) has {plural(h.amount, kind)} open"
        for kind in ("socket", "pipe", "io_uring")
        if (h := case.facts.descriptors.get(kind)) is not None and h.amount >= _MANY_OPEN
    ]
    return f" {'; '.join(held)}." if held else ""


def _named(case: Case, vmalloc: int, percpu: int) -> str:
    parts = [f"vmalloc {size(vmalloc)}"] if vmalloc else []
    parts += [f"per-CPU data {size(percpu)}"] if percpu else []
    parts += [f"{h.text} {size(h.amount)}" for h in _holders(case)[:3]]
    of = f" Of it: {', '.join(parts)}." if parts else ""
    return of + _many_descriptors(case)


def _whose(case: Case, rest: int) -> str:
    top = next(iter(_holders(case)), None)
    if top is not None and top.amount >= _HUGE * rest:
        return f", most of it {top.text}"
    opened = [h for kind in ("socket", "pipe") if (h := case.facts.descriptors.get(kind)) is not None]
    most = max(opened, key=lambda h: h.amount, default=None)
    if most is not None and most.amount >= _MANY_OPEN:
        kind = "sockets" if case.facts.descriptors.get("socket") is most else "pipes"
        return f"; {harmless_name(most.name)} has {most.amount} {kind} open"
    return ""


def _advice(case: Case, vmalloc: int, rest: int) -> str:
    top = next(iter(_holders(case)), None)
    if top is not None and top.amount >= _HUGE * rest:
        return f"See drivers and the like: {top.text} holds {size(top.amount)} ({top.look}); bound or end it."
    look = ["/proc/net/sockstat and ss -m (sockets)", "fdinfo of BPF maps (memlock)"]
    swap = case.report.memory.swap if case.report.memory is not None else None
    used = 0 if swap is None else (swap.total_bytes or 0) - (swap.free_bytes or 0)
    if used >= rest // 2:
        look.insert(0, f"zramctl (zram keeps what is in swap, {size(used)}, compressed in RAM)")
    # live and small: it is not there
    if vmalloc >= _HUGE * rest or not case.meminfo_at:
        look.insert(0, "/proc/vmallocinfo")
    if case.kernel_at_least(3, 19) is not False:
        look.append("page_owner=on at boot names the code that took pages")
    if case.kernel_at_least(6, 10) is not False:
        look.append("from 6.10 on memory profiling does (sysctl.vm.mem_profiling=1)")
    return f"See drivers (GPU, network), {', '.join(look[:-1])}; {look[-1]}."
