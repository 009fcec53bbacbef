"""A memory cgroup was at its limit.

The machine may have had plenty of free memory, but the cgroup had none left. The evidence says whose limit it
was (``oom_memcg``: the victim's cgroup or one of its ancestors, whose limit covers all cgroups below), how
full the cgroup was, how often it hit the limit (``failcnt``), and what its memory consisted of. ``anon`` is
the processes' own data and can only go to swap, ``file`` is page cache including tmpfs (``shmem``),
``kernel`` is slab, stacks and page tables charged to the cgroup.

If no printed counter of the cgroup is at its limit, the finding says so. Then the limit was raised or removed
meanwhile, memory was freed, or something other than the limit called the OOM killer for the cgroup (a BPF
program). A separate finding names what holds most of the memory.

Raise ``memory.max`` (cgroup v1: ``memory.limit_in_bytes``, systemd: ``MemoryMax=``, Kubernetes:
``resources.limits.memory``), or make the workload smaller. ``memory.high`` slows a cgroup down before it
is killed.
"""

from __future__ import annotations

from collections.abc import Mapping

from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.diagnosis.case import HOLDS, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Refusal, Tier
from oomwatchd.diagnosis.levers import begin_with, is_v1, of_all_pods, own_settings, raise_it
from oomwatchd.diagnosis.memcg import at_limit, charge_bytes, kinds, limit_hit
from oomwatchd.diagnosis.owners import called, owned
from oomwatchd.diagnosis.summary import room_for_path
from oomwatchd.records.report import Finding, Memcg, MemcgCounter
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import middle_cut, path_cut, plural

ID = "memcg_limit_reached"
TITLE = "A memory cgroup is at its limit"


def find(case: Case) -> Claim | None:
    report = case.report
    if not case.in_cgroup:
        return None
    memcg = report.memcg or Memcg()
    path = memcg.oom_path
    name = f"cgroup {middle_cut(path, 200)}" if path else "a cgroup"
    which, counter = limit_hit(report)
    reached = counter is None or at_limit(counter, charge_bytes(report))
    parts = kinds(memcg)
    texts = (
        _level(memcg),
        _fill(name, which, counter),
        "" if reached else _OTHERWISE,
        _composition(case, memcg),
        _swap_tied(memcg) or _no_swap(memcg),
    )
    finding = Finding(
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
        advice=_advice(case, memcg, counter) if reached else _look_for_who(case, memcg),
    )
    return Claim(
        finding=finding,
        refusal=Refusal(text=_refused(case, memcg, which, counter, reached), rank=30),
        # the finding of the holder comes first; the limit is the lever only if no finding names a holder
        cause=Cause(tier=Tier.TOGETHER, text=_held_together(case) if reached else ""),
    )


def _by_itself(case: Case) -> str:
    """How to make the largest process smaller; empty if no process is large enough."""
    largest, whole = case.largest, case.ledger.whole_bytes
    if largest is None or not whole or largest.bytes < HOLDS * whole:
        return ""
    return f": {harmless_name(largest.comm)} by {own_settings(largest.comm)}"


def _held_together(case: Case) -> str:
    """What holds most of the memory, for a report in which no finding names one holder."""
    anon, file = case.ledger.held("anon") or 0, case.ledger.held("file") or 0
    anon += case.ledger.held("swapped") or 0
    whole = case.ledger.whole_bytes or 1 << 62
    if anon >= max(HOLDS * whole, file):
        count = len(case.report.tasks)
        who = f"{count} processes together hold" if count > 1 else "anonymous memory holds"
        return f"{who} {case.ledger.percent(anon)} of it"
    if file >= HOLDS * whole:
        return f"page cache that was not dropped holds {case.ledger.percent(file)} of it"
    huge, rest = case.ledger.held("hugepages") or 0, case.ledger.held("rest") or 0
    if huge >= HOLDS * whole:
        return f"huge pages of the pool hold {case.ledger.percent(huge)} of it"
    cached = case.ledger.held("swapcache") or 0
    if cached >= HOLDS * whole:
        return f"swap cache that was not dropped holds {case.ledger.percent(cached)} of it"
    if rest >= HOLDS * whole and case.ledger.held("anon") is not None:
        # memory_hugetlb_accounting (6.6+) charges huge pages; memory.stat lists them only since 6.13
        return f"{case.ledger.percent(rest)} of it is in no counter (accounted huge pages have none)"
    return ""


def _refused(case: Case, memcg: Memcg, which: str | None, counter: MemcgCounter | None, reached: bool) -> str:
    name = _called(memcg.oom_path, room_for_path(case.report), case.container_names)
    if memcg.oom_path is None:
        name += _lived(case)
    if not reached:
        return f"{name}, but not at its limit"
    limit = counter.limit_bytes if counter is not None else None
    kind = f" {which}" if which not in (None, "memory") else ""
    text = f"{name} at its{kind} limit" + (f" of {size(limit)}" if limit is not None else "")
    return f"{text} (memory+swap too)" if _swap_tied(memcg) else text


#: Longer names of units and cgroups are cut.
_NAME = 50


def _called(path: str | None, room: int, names: Mapping[str, str]) -> str:
    """The container's name if it is known, or a shorter name if the path is too long to show."""
    if path is None:
        return "its cgroup"
    name = harmless_name(path)
    if len(name) <= room and owner_of(path).container_id not in names:
        return f"cgroup {name}"
    found = called(path, names)
    if found is None or (found[0] == "unit" and len(found[1]) > _NAME):
        return f"cgroup {path_cut(name, room, _NAME)}"
    kind, known = found
    return harmless_name(known) if kind == "unit" else f"{kind} {harmless_name(known)}"


def _lived(case: Case) -> str:
    """Live: where the victim lived, if the log does not say whose limit it was."""
    pid = case.victim.pid if case.victim is not None else None
    processes = case.capture.processes if case.capture is not None else ()
    home = next((f.cgroup for f in processes if f.pid == pid and f.cgroup), None)
    if home is None:
        return ""
    kind, name = called(home, case.container_names) or ("unit", path_cut(home, _NAME, _NAME))
    return f" ({harmless_name(name)})" if kind == "unit" else f" ({kind} {harmless_name(name)})"


_OTHERWISE = (
    "None of its counters is at a limit now: it was raised, or memory came back, in between, or something "
    "else called the OOM killer for this cgroup (a BPF program)."
)


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


def _composition(case: Case, memcg: Memcg) -> str:
    parts = kinds(memcg)
    whole = case.ledger.whole_bytes
    if not whole:
        return ""
    known = memcg.memory is not None
    swapped = case.ledger.held("swapped")
    named = [("in swap", swapped), ("anonymous", parts.anon), ("file", parts.file), ("kernel", parts.kernel)]
    cached = case.ledger.held("swapcache") or 0
    named += [
        (n, b) for n, b in (("sockets", parts.sock), ("swap cache", cached)) if (b or 0) >= whole // 100
    ]
    texts = [f"{n} {size(b)}" + (f" ({percent(b, whole)})" if known else "") for n, b in named if b]
    return f"It consists of: {', '.join(texts)}." if texts else ""


def _swap_tied(memcg: Memcg) -> str:
    memory, both = memcg.memory, memcg.memory_swap
    if memory is None or both is None or not both.limit_bytes or both.limit_bytes != memory.limit_bytes:
        return ""
    return "Memory and swap together (memsw) have the same limit: nothing can go to swap."


def _no_swap(memcg: Memcg) -> str:
    if memcg.swap is None or memcg.swap.limit_bytes != 0:
        return ""
    return "It may use no swap (memory.swap.max 0), so nothing anonymous can be moved out."


def _best_effort(case: Case, memcg: Memcg) -> str | None:
    """The setting of the victim's container, if its pod has no limit."""
    path = memcg.task_path or ""
    classes = (one.removesuffix(".slice").removeprefix("kubelet-") for one in path.split("/"))
    if not any(one in ("besteffort", "kubepods-besteffort") for one in classes):
        return None
    found = owned(path, case.container_names)
    return found.what if found is not None and found.kind in ("container", "pod") else None


def _look_for_who(case: Case, memcg: Memcg) -> str:
    """The advice for a cgroup that was not at its limit."""
    name = f"cgroup {harmless_name(middle_cut(memcg.oom_path, 60))}" if memcg.oom_path else "the cgroup"
    file = "memory.limit_in_bytes" if is_v1(memcg) else "memory.max"
    bpf = (
        ""
        if case.kernel_at_least(6, 12) is False
        else ", or calls the OOM killer by BPF (bpftool struct_ops)"
    )
    return f"Look for what changes {file} of {name}{bpf}, or ends in it, at that moment."


def _advice(case: Case, memcg: Memcg, counter: MemcgCounter | None) -> str:
    if memcg.oom_path is None and (counter is None or counter.limit_bytes is None):
        return ""
    if of_all_pods(memcg):
        pod = _best_effort(case, memcg)
        if pod is not None:
            return (
                f"Set {pod}: without a limit (best-effort) it may take all that the kubelet leaves the pods "
                "of the node; what is reserved for others is not the cause."
            )
        return (
            "Run less on the node, or give its pods requests and limits (resources.limits.memory): all pods "
            f"together are at what the kubelet leaves them; or {raise_it(case).lower()}."
        )
    return (
        f"{raise_it(case)}, or make what runs in it smaller{_by_itself(case)}.{begin_with(case)} "
        "If it leaks, more only postpones the next kill: watch its usage grow."
    )
