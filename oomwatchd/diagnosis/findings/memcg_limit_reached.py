"""A memory cgroup was at its limit.

The machine may have had plenty: the cgroup had not. The evidence says whose limit it was (``oom_memcg``:
the cgroup of the victim, or one above it, for which all cgroups below count), how full it was, how often
the limit was hit (``failcnt``), and what the memory consisted of. ``anon`` is the processes' own data and
can only go to swap, ``file`` is page cache including tmpfs (``shmem``), ``kernel`` is slab, stacks and page
tables charged to the cgroup.

Where no counter of the cgroup is printed at its limit, that is said: the limit was raised or lifted
meanwhile, memory was freed, or something else than the limit called the OOM killer for the cgroup (a BPF
program). Where the kernel's own memory (slab, sockets, stacks) is most of it, a kill frees little: it goes
when what it stands for goes (files, connections, namespaces), or never, if it leaks.

Raise ``memory.max`` (cgroup v1: ``memory.limit_in_bytes``, systemd: ``MemoryMax=``, Kubernetes:
``resources.limits.memory``), or make the workload smaller. ``memory.high`` slows a cgroup down before it
is killed.
"""

from __future__ import annotations

from oomwatchd.diagnosis.attribution import called, owner_of
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.memcg import at_limit, charge_bytes, kinds
from oomwatchd.records.report import Finding, Memcg, MemcgCounter
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import middle_cut, plural

ID = "memcg_limit_reached"
TITLE = "A memory cgroup is at its limit"

#: of the usage: then that is what the cgroup is about
_MOSTLY = 0.5


def find(case: Case) -> Finding | None:
    report = case.report
    if report.constraint != "memcg":
        return None
    memcg = report.memcg or Memcg()
    path = memcg.oom_path
    name = f"cgroup {middle_cut(path, 200)}" if path else "a cgroup"
    unit = charge_bytes(report)
    which, counter = _limit_hit(memcg, unit)
    reached = counter is None or at_limit(counter, unit)
    parts = kinds(memcg)
    kernel = parts.kernel if parts.kernel is not None else 0
    mostly_kernel = memcg.memory is not None and kernel >= _MOSTLY * memcg.memory.usage_bytes > 0
    texts = (
        _level(memcg),
        _fill(name, which, counter),
        "" if reached else _OTHERWISE,
        _composition(memcg),
        "That is the kernel's own memory for it, not its processes': a kill frees little of it."
        if mostly_kernel
        else "",
    )
    return Finding(
        id=ID,
        severity="critical",
        title=TITLE if reached else "Killed for a memory cgroup that is not at its limit",
        explanation=" ".join(text for text in texts if text),
        evidence={
            "oom_memcg": path,
            "task_memcg": memcg.task_path,
            "limit_kind": which,
            "usage_bytes": counter.usage_bytes if counter else None,
            "limit_bytes": counter.limit_bytes if counter else None,
            "failcnt": counter.failcnt if counter else None,
            "anon_bytes": parts.anon,
            "file_bytes": parts.file,
            "shmem_bytes": parts.shmem,
            "kernel_bytes": parts.kernel,
            "reached": int(reached),
        },
        advice=_advice(memcg, which, counter, mostly_kernel) if reached else "",
    )


#: the kubelet's cgroups above those of the pods
_ALL_PODS = ("kubepods", "kubepods-burstable", "kubepods-besteffort", "burstable", "besteffort")

_OTHERWISE = (
    "None of its counters is at a limit now: it was raised, or memory came back, in between, or something "
    "else called the OOM killer for this cgroup (a BPF program)."
)


def _limit_hit(memcg: Memcg, unit: int) -> tuple[str | None, MemcgCounter | None]:
    """The fullest counter among those that can refuse a charge."""
    counters = [("memory", memcg.memory), ("memory+swap", memcg.memory_swap), ("kmem", memcg.kmem)]
    full = [
        (c.usage_bytes / c.limit_bytes, -i, name, c)
        for i, (name, c) in enumerate(counters)
        if c is not None and c.limit_bytes
    ]
    if not full:
        return ("memory", memcg.memory) if memcg.memory is not None else (None, None)
    near = [f for f in full if at_limit(f[3], unit)]
    # of those at their limit the first (memory) is what a reader knows; else the fullest
    best = max(near, key=lambda f: f[1]) if near else max(full, key=lambda f: f[0])
    return best[2], best[3]


def _level(memcg: Memcg) -> str:
    if memcg.task_path is None or memcg.oom_path is None or memcg.task_path == memcg.oom_path:
        return ""
    return f"The victim lived in {middle_cut(memcg.task_path, 200)}; the limit is that of a cgroup above it."


def _fill(name: str, which: str | None, counter: MemcgCounter | None) -> str:
    if counter is None:
        return f"A charge to {name} failed; the report does not say how full it was."
    limited = counter.limit_bytes is not None
    limit = "without limit" if counter.limit_bytes is None else f"of {size(counter.limit_bytes)}"
    hits = (
        f"; it hit that limit {plural(counter.failcnt, 'time')} so far" if limited and counter.failcnt else ""
    )
    return f"The {which} of {name} is {size(counter.usage_bytes)} {limit}{hits}."


def _composition(memcg: Memcg) -> str:
    parts = kinds(memcg)
    usage = memcg.memory.usage_bytes if memcg.memory is not None else 0
    named = [("anonymous", parts.anon), ("file", parts.file), ("kernel", parts.kernel)]
    named += [("sockets", parts.sock)] if (parts.sock or 0) >= usage // 100 else []
    texts = [f"{n} {size(b)} ({percent(b, usage)})" for n, b in named if b and usage]
    return f"It consists of: {', '.join(texts)}." if texts else ""


def _advice(memcg: Memcg, which: str | None, counter: MemcgCounter | None, mostly_kernel: bool) -> str:
    limit = counter.limit_bytes if counter is not None else None
    if memcg.oom_path is None and limit is None:
        return ""
    if mostly_kernel:
        return (
            "See what the kernel holds for it (slab, sock, kernel_stack in memory.stat; v1: "
            f"memory.kmem.slabinfo); to {_raise(memcg, which, limit)} only buys time."
        )
    advice = _raise(memcg, which, limit)
    instead = "run less on the node" if _of_all_pods(memcg) else "make what runs in it smaller"
    return f"{advice[0].upper()}{advice[1:]}, or {instead}."


def _of_all_pods(memcg: Memcg) -> bool:
    last = (memcg.oom_path or "").rstrip("/").rpartition("/")[2]
    return last.removesuffix(".slice") in _ALL_PODS


def _raise(memcg: Memcg, which: str | None, limit: int | None) -> str:
    """``raise WHAT above HOW MUCH``: the knob that whoever manages the cgroup turns."""
    above = f" above {size(limit)}" if limit else ""
    if which == "kmem":
        return f"raise or lift memory.kmem.limit_in_bytes{above} (deprecated)"
    # memory+swap and kmem have counters of their own in cgroup v1 alone, swap in v2 alone
    file = None
    if which == "memory+swap":
        file = "memory.memsw.limit_in_bytes"
    elif memcg.memory_swap is not None or memcg.kmem is not None:
        file = "memory.limit_in_bytes"
    elif memcg.swap is not None:
        file = "memory.max"
    knob = file or "memory.max; cgroup v1: memory.limit_in_bytes"
    path = memcg.oom_path or ""
    owner = owner_of(path)
    if _of_all_pods(memcg):
        # the kubelet's own: node capacity less what is reserved, or less what better pods requested
        now = f" (now {size(limit)})" if limit else ""
        return f"raise the kubelet's bound for all pods{now} with a smaller --kube-reserved"
    kind, name = called(path) or (None, "")
    if owner.pod_uid is not None and kind in ("container", "pod"):
        whose = f"container {name} of" if kind == "container" else "the containers of"
        return f"raise resources.limits.memory of {whose} pod {owner.pod_uid}{above} ({knob})"
    if kind == "container" and owner.container_runtime in ("docker", "podman"):
        option = "--memory-swap" if which == "memory+swap" else "--memory"
        return f"raise the limit of container {name}{above} ({owner.container_runtime} update {option})"
    if kind == "unit" and which != "memory+swap":
        return f"raise MemoryMax= of {harmless_name(middle_cut(name, 60))}{above} ({knob})"
    where = f" of cgroup {harmless_name(middle_cut(path, 60))}" if path else " of the cgroup"
    return f"raise {file}{where}{above}" if file else f"raise the memory limit{where}{above} ({knob})"
