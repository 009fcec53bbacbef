"""The kernel's own memory fills the cgroup.

Memory that the kernel keeps for the processes of a cgroup is charged to that cgroup: slab (inodes, open
files), kernel stacks (threads), page tables, per-CPU data, vmalloc, compressed swap. memory.stat has no name
for the rest: buffers of pipes and unix sockets, BPF maps, io_uring, message queues. A kill frees it only when
the file descriptors behind it are closed. cgroup v1 prints one sum for all kinds (``kmem``), v2 does so since
5.18. For older v2 kernels the sum is the memory that no printed counter names.

The kind is taken from the first of these sources that gives one:

1. live: BPF maps of a process of the cgroup;
2. a named kind of memory.stat;
3. page tables of the task table;
4. live: a process of the cgroup with many descriptors or threads;
5. the call trace: the last request is most likely of the kind that fills the cgroup;
6. live: the kind of kernel memory that grew on the machine within the last minute.

``kernel_rest_bytes`` is the sum minus the named kinds. cgroup v2 counts buffers of network sockets separately
(``sock``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from oomwatchd.diagnosis.case import HOLDS, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.ledger import Kind
from oomwatchd.diagnosis.levers import is_v1, raised_first
from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.diagnosis.purpose import for_the_kernel, purpose
from oomwatchd.diagnosis.suspects import by_count
from oomwatchd.procfs import meminfo
from oomwatchd.records.report import Finding, Memcg
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name

ID = "kernel_memory_large"
TITLE = "The kernel's own memory fills the cgroup"

#: Share of the kernel memory. One kind with this share explains it.
_MOSTLY = 0.5
#: Threads. The stacks of fewer threads do not matter.
_MANY = 500
#: Kinds that memory.stat names and that have their own finding.
_OWN: tuple[Kind, ...] = ("slab_unreclaimable", "kernel_stack", "pagetables")
_UNNAMED = "pipe or unix socket buffers, BPF maps, io_uring"
_V1 = "slab, threads, page tables, pipes, sockets or BPF: cgroup v1 does not say"
_COUNT = (
    "have it hold less: count its descriptors (ls /proc/PID/fd), Threads in /proc/PID/status, memlock in "
    "fdinfo of BPF maps"
)


class _What(NamedTuple):
    """What the memory is: for the summary line, as a sentence, and how to reduce it."""

    text: str
    said: str
    less: str


#: Kinds that memory.stat names and that have no other finding: (kind, what it is, how to reduce it).
_KINDS: tuple[tuple[Kind, str, str], ...] = (
    ("zspages", "compressed swap (zswap)", "bound it: memory.zswap.max of the cgroup"),
    (
        "percpu",
        "per-CPU data",
        "have it hold less: BPF maps of the per-CPU kinds (bpftool map), cgroups, network namespaces",
    ),
    (
        "vmalloc",
        "vmalloc",
        "have it hold less: /proc/vmallocinfo shows the callers (BPF maps, packet rings)",
    ),
    (
        "slab_reclaimable",
        "inodes and names of files that are in use",
        "have it hold less: fewer open files, or remove files of a tmpfs (df -i)",
    ),
)
#: What to do about the rings and maps of one process.
_MAPS = "bpftool map, or memlock in /proc/{pid}/fdinfo, shows them; end it or make them smaller"
_RINGS = "ls -l /proc/{pid}/fd shows them; end it, or have it make fewer or smaller ones"
#: Fields of /proc/meminfo that grow on the machine while the cgroup fills.
_GREW: tuple[tuple[tuple[str, ...], str], ...] = (
    (("SUnreclaim", "SReclaimable"), "slab (inodes and names of files, sockets and the like)"),
    (("KernelStack",), "kernel stacks (threads)"),
    (("PageTables",), "page tables"),
    (("Percpu",), "per-CPU data"),
    (("VmallocUsed",), "vmalloc"),
)
#: Older recorder samples say nothing about this cgroup's growth.
_LATELY_USEC = 60_000_000


def find(case: Case) -> Claim | None:
    whole = case.ledger.whole_bytes
    if not case.in_cgroup or not whole:
        return None
    old = is_v1(case.report.memcg or Memcg()) is True
    kernel = _kernel(case)
    if kernel is None or kernel < HOLDS * whole:
        return None
    rest = case.ledger.held("kernel_rest") or case.ledger.held("rest") or 0
    unnamed = not old and rest >= _MOSTLY * kernel
    what = _what(case, kernel)
    # a named kind has its own finding, which is nearer to the cause
    named = max((case.ledger.held(kind) or 0 for kind in _OWN), default=0)
    held = rest if unnamed else kernel
    unknown = _V1 if old else _UNNAMED if unnamed else None
    tail = f"; {what.text}" if what is not None else f" ({unknown})" if unknown else ""
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical" if kernel >= _MOSTLY * whole else "warning",
            title=TITLE,
            explanation=f"The kernel holds {size(kernel)} for the cgroup, {percent(kernel, whole)} of its "
            "limit"
            + (f"; {size(rest)} of it has no name in memory.stat: {_UNNAMED}." if unnamed else ".")
            + (f" {what.said}" if what is not None else f" {_V1[0].upper()}{_V1[1:]}." if old else "")
            + " A kill frees it as far as the descriptors behind it are closed.",
            evidence={
                "kernel_bytes": kernel,
                "kernel_rest_bytes": rest,
                "whole_bytes": whole,
                "share_ratio": case.ledger.share(kernel),
            },
            advice=raised_first(case, what.less if what is not None else _COUNT)
            + " If it leaks, more only postpones the next kill.",
        ),
        cause=Cause(
            tier=Tier.HELD,
            text=f"the kernel's own memory holds {case.ledger.percent(held)} of it{tail}",
            excess_bytes=held,
        )
        if named < HOLDS * whole
        else None,
    )


def _kernel(case: Case) -> int | None:
    """The cgroup's kernel memory in bytes. Without a printed sum (v2 up to 5.17) it is the unnamed rest, and
    only if the request was for kernel memory: accounted huge pages (6.6+) have no name either."""
    memcg = case.report.memcg or Memcg()
    kernel, rest = kinds(memcg).kernel, case.ledger.held("rest")
    if kernel is not None or rest is None or (case.ledger.held("anon") is None and not memcg.stat):
        return kernel
    asked = purpose(case.report.trigger.call_trace)
    return rest if asked is not None or for_the_kernel(case.report.trigger.call_trace) else None


def _what(case: Case, kernel: int) -> _What | None:
    least = _MOSTLY * kernel
    asked = purpose(case.report.trigger.call_trace)
    last = f", asked for last: {asked.holds}" if asked is not None else ""
    within: set[int | str] = {task.pid for task in case.report.tasks}
    within |= {task.comm for task in case.report.tasks}
    for kind, holders, less in (
        ("BPF maps", case.facts.bpf, _MAPS),
        ("io_uring rings", case.facts.io_uring, _RINGS),
    ):
        most = next((h for h in holders if h.pid in within or h.name in within), None)
        if most is not None and most.amount >= least:
            text = f"{kind} of {harmless_name(most.name)} hold {size(most.amount)}"
            return _What(text, f"{text}.", less.format(pid=most.pid))
    for kind, text, less in _KINDS:
        if (case.ledger.held(kind) or 0) >= least:
            name = text[0].upper() + text[1:]
            said = f"{name} holds {size(case.ledger.held(kind) or 0)} of it{last}."
            return _What(text + last, said, asked.look if asked is not None and kind == "vmalloc" else less)
    tables = sum(task.pgtables_bytes or 0 for task in case.report.tasks)
    if tables >= least:
        said = f"Page tables of the listed processes hold {size(tables)} of it."
        less = "see who maps so much (VmPTE in /proc/PID/status), and map less or with huge pages"
        return _What("page tables", said, less)
    opened = by_count(case, within)
    if opened is not None:
        return _What(opened.text, f"{opened.text[0].upper()}{opened.text[1:]}.", opened.lever)
    threads = _many_threads(case, within)
    if threads is not None:
        less = "bound the number of threads (pids.max of the cgroup, the program's own pool)"
        return _What(threads, f"{threads[0].upper()}{threads[1:]}.", less)
    if asked is not None:
        said = f"Asked for last were {asked.holds}, by the call trace: most likely that is what fills it."
        return _What(f"asked for last: {asked.holds}", said, f"have less of them: {asked.look}")
    return _grew(case, least)


def _many_threads(case: Case, within: set[int | str]) -> str | None:
    """Live: a process of the cgroup that has enough threads for their stacks to matter."""
    most = next(
        (h for h in case.facts.threads if (h.pid in within or h.name in within) and h.amount >= _MANY), None
    )
    return None if most is None else f"{harmless_name(most.name)} has {most.amount} threads"


def _grew(case: Case, least: float) -> _What | None:
    """Live: the kind of kernel memory that grew on the machine by ``least`` bytes within the last minute."""
    if case.capture is None or case.at is None:
        return None
    looks = [meminfo(s) for s in case.capture.before if case.at.usec - s.usec <= _LATELY_USEC]
    grown = [(_more(case.meminfo_at, looks, names), text) for names, text in _GREW]
    most, text = max(grown)
    if most < least:
        return None
    said = f"The machine has {size(most)} more of {text} than in the minute before."
    return _What(f"{text} grew by {size(most)} in the machine", said, _COUNT)


def _more(now: Mapping[str, int], looks: Sequence[Mapping[str, int]], names: Sequence[str]) -> int:
    """How far the sum of these fields is above its lowest earlier sample."""
    known = [sum(look[name] for name in names) for look in looks if all(name in look for name in names)]
    return sum(now.get(name, 0) for name in names) - min(known) if known else 0
