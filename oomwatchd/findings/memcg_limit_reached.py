"""A memory cgroup was at its limit.

The machine may have had plenty: the cgroup had not. The evidence says whose limit it was (``oom_memcg``:
the cgroup of the victim, or one above it, for which all cgroups below count), how full it was, how often
the limit was hit (``failcnt``), and what the memory consisted of. ``anon`` is the processes' own data and
can only go to swap, ``file`` is page cache including tmpfs (``shmem``), ``kernel`` is slab, stacks and page
tables charged to the cgroup.

Raise ``memory.max`` (cgroup v1: ``memory.limit_in_bytes``, systemd: ``MemoryMax=``, Kubernetes:
``resources.limits.memory``), or make the workload smaller. ``memory.high`` slows a cgroup down before it
is killed.
"""

from __future__ import annotations

from oomwatchd.attribution import called, owner_of
from oomwatchd.findings._case import Case
from oomwatchd.findings._memcg import kinds
from oomwatchd.findings._text import middle_cut
from oomwatchd.render.amounts import percent, size
from oomwatchd.render.escape import harmless_name
from oomwatchd.report import Finding, Memcg, MemcgCounter

ID = "memcg_limit_reached"
TITLE = "A memory cgroup is at its limit"

#: charges come in batches of up to 64 pages for each CPU: a cgroup refuses a little below its limit
_NEAR = 0.98


def find(case: Case) -> Finding | None:
    report = case.report
    if report.constraint != "memcg":
        return None
    memcg = report.memcg or Memcg()
    path = memcg.oom_path
    name = f"cgroup {middle_cut(path, 200)}" if path else "a cgroup"
    which, counter = _limit_hit(memcg)
    parts = kinds(memcg)
    return Finding(
        id=ID,
        severity="critical",
        title=TITLE,
        explanation=" ".join(
            s for s in (_level(memcg), _fill(name, which, counter), _composition(memcg)) if s
        ),
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
        },
        advice=_advice(path, which, counter),
    )


def _limit_hit(memcg: Memcg) -> tuple[str | None, MemcgCounter | None]:
    """The fullest counter among those that can refuse a charge."""
    counters = [("memory", memcg.memory), ("memory+swap", memcg.memory_swap), ("kmem", memcg.kmem)]
    full = [
        (c.usage_bytes / c.limit_bytes, -i, name, c)
        for i, (name, c) in enumerate(counters)
        if c is not None and c.limit_bytes
    ]
    if not full:
        return ("memory", memcg.memory) if memcg.memory is not None else (None, None)
    near = [f for f in full if f[0] >= _NEAR]
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
    limit = "without limit" if counter.limit_bytes is None else f"of {size(counter.limit_bytes)}"
    hits = f"; charges failed {counter.failcnt} times before" if counter.failcnt else ""
    return f"The {which} of {name} is {size(counter.usage_bytes)} {limit}{hits}."


def _composition(memcg: Memcg) -> str:
    parts = kinds(memcg)
    usage = memcg.memory.usage_bytes if memcg.memory is not None else 0
    named = [("anonymous", parts.anon), ("file", parts.file), ("kernel", parts.kernel)]
    texts = [f"{n} {size(b)} ({percent(b, usage)})" for n, b in named if b and usage]
    return f"It consists of: {', '.join(texts)}." if texts else ""


def _advice(path: str | None, which: str | None, counter: MemcgCounter | None) -> str:
    if counter is None or not counter.limit_bytes:
        return ""
    knob = _knob(path, which or "memory")
    return f"Raise {knob} above {size(counter.limit_bytes)}, or make what runs in it smaller."


def _knob(path: str | None, which: str) -> str:
    """The limit by the name under which whoever set it knows it."""
    name = f"cgroup {middle_cut(path, 200)}" if path else "the cgroup"
    if which == "memory+swap":
        return f"memory.memsw.limit_in_bytes (cgroup v2: memory.swap.max) of {name}"
    if which == "kmem":
        return f"memory.kmem.limit_in_bytes (deprecated: better without) of {name}"
    kind, what = called(path or "") or (None, "")
    owner = owner_of(path or "")
    if owner.pod_uid is not None and kind in ("container", "pod"):
        inside = f"container {what} of " if kind == "container" else ""
        return f"resources.limits.memory (Kubernetes) of {inside}pod {owner.pod_uid}"
    if kind == "container" and owner.container_runtime in ("docker", "podman"):
        return f"--memory ({owner.container_runtime}) of container {what}"
    if kind == "unit" and not what.startswith("kubepods"):  # the kubelet's, by what it reserves
        return f"MemoryMax= (systemd) of {harmless_name(what)}"
    return f"memory.max (cgroup v1: memory.limit_in_bytes) of {name}"
