"""One line for journals and lists: who, why, and who or what held the memory where one did. Its first 80
characters carry who and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from oomwatchd.diagnosis.attribution import called
from oomwatchd.diagnosis.badness import chosen_victim
from oomwatchd.records.report import Finding, OomReport
from oomwatchd.words.amounts import kib, size
from oomwatchd.words.escape import harmless, harmless_name
from oomwatchd.words.text import path_cut

#: what a list or a journal shows of a line, and the least of a cgroup's path that still tells something
_LINE, _PATH = 80, 25
#: what one holder must have of the memory there was, to be named
_HOLDS = 0.3
#: of RAM: what all processes have of their own
_TOGETHER = 0.6
#: finding -> who holds; its share_ratio says how much
_HOLDERS = {
    "shmem_large": "shared memory (tmpfs) holds {}",
    "slab_unreclaimable_large": "kernel slab holds {}",
    "unaccounted_memory": "{} is in no counter",
    "hugepages_reserved": "the huge page pool holds {}",
    "page_tables_large": "page tables hold {}",
    "dirty_or_writeback_stuck": "what waits to be written holds {}",
    "kernel_stacks_large": "kernel stacks hold {}",
    "mlocked_or_unevictable": "locked or unevictable memory holds {}",
}
#: a longer name of a unit or cgroup is not kept whole
_NAME = 50
#: around the path
_MEMCG_WORDS = ": cgroup  at its limit of 1.0 GiB"


def summarize(report: OomReport, findings: Sequence[Finding]) -> str:
    """Who died (or did not) and why, in one line that is safe to print: names are escaped.

    >>> summarize(report, findings)
    'java (pid 2543) killed: cgroup /system.slice/foo.service at its limit of 512 MiB'
    """
    unseen = next((f.evidence for f in findings if f.id == "kills_unseen"), None)
    if unseen is not None:
        kills = unseen["unseen_kills"]
        return f"{kills} kill{'' if kills == 1 else 's'} that the kernel counted and its log does not show"
    who = _who(report)
    why = _why(report, findings, max(_LINE - len(who) - len(_MEMCG_WORDS), _PATH))
    return f"{who}: {why}{_holder(report, findings)}"


def _task(comm: str | None, pid: int | None) -> str:
    name = harmless_name(comm) if comm is not None else "a process"
    return name if pid is None else f"{name} (pid {pid})"


def _who(report: OomReport) -> str:
    if report.kind == "page_alloc_failure":
        order = "" if report.trigger.order is None else f"order-{report.trigger.order} "
        return f"{order}allocation of {_task(report.trigger.comm, report.trigger.pid)} failed"
    if report.kind == "oom_panic":
        return "kernel panic"
    victim = chosen_victim(report) or next(iter(report.victims), None)
    if victim is None and "kill" in report.missing:
        return f"{_task(report.trigger.comm, report.trigger.pid)} asked for memory, victim not in the log"
    if victim is None:
        return "nobody killed"
    more = len(report.victims) - 1
    return f"{_task(victim.comm, victim.pid)}{f' and {more} more' if more else ''} killed"


def _why(report: OomReport, findings: Sequence[Finding], path: int) -> str:
    by_id: dict[str, list[Finding]] = {}
    for finding in findings:
        by_id.setdefault(finding.id, []).append(finding)
    fault = next((f for f in by_id.get("page_fault_oom", []) if f.severity == "critical"), None)
    spare = "" if fault is None else f"a failed page fault, with {_spare(fault)} to spare"
    if "panic_configured" in by_id:
        return f"{spare or 'out of memory'}, and vm.panic_on_oom is set"
    if "no_killable_process" in by_id and "sysrq_manual" in by_id:
        return "asked for by hand (SysRq f), and no process that may be killed"
    if "no_killable_process" in by_id:
        where = f" in {_cgroup(report, path)}" if report.constraint == "memcg" else ""
        return f"out of memory{where}, and no process that may be killed"
    if "sysrq_manual" in by_id:
        return "asked for by hand (SysRq f)"
    if spare:
        return spare
    if report.constraint == "memcg":
        return _memcg_reason(report, by_id.get("memcg_limit_reached", []), path)
    order = report.trigger.order or 0
    nodes = ""
    if "cpuset_or_mempolicy_bound" in by_id:
        bound = by_id["cpuset_or_mempolicy_bound"][0].evidence
        nodes = f"confined to node {bound['nodes']}" if bound.get("nodes") else "confined to some nodes"
        nodes += f" by its {'cpuset' if bound.get('constraint') == 'cpuset' else 'memory policy'}; "
        if bound.get("unsuited_free_bytes"):
            return f"{nodes}no memory of the kind asked for there"
    if any(f.severity != "info" for f in by_id.get("cma_only_free", [])):
        return f"{nodes}what is free in {_label(by_id['cma_only_free'][0])} belongs to CMA"
    if "fragmentation" in by_id:
        return f"{nodes}no free block of order {order} in {_label(by_id['fragmentation'][0])} zone"
    short = _nearest(by_id.get("zone_below_watermark", []))
    if short is not None and short.severity != "critical" and "request_fits_now" in by_id:
        short = None
    if short is not None:
        missing = short.evidence.get("shortfall_bytes")
        amount = f"{kib(missing)} short" if isinstance(missing, int) and missing else "at its mark, too low"
        again = by_id.get("request_fits_now", [])
        now = f", though {_label(again[0])} had enough again" if again else ""
        boosted = any(
            f.severity == "warning" and _label(f) == _label(short) for f in by_id.get("watermark_boosted", [])
        )
        boost = " (by a watermark boost)" if boosted else ""
        return f"{nodes}{_label(short)} zone {amount} for an order-{order} request{boost}{now}"
    if nodes:
        return f"{nodes}no memory there"
    if "request_fits_now" in by_id:
        return (
            f"out of memory, though {_label(by_id['request_fits_now'][0])} zone had enough again when printed"
        )
    if report.outcome is not None:
        return harmless(report.outcome)
    if "header_rate_limited" in by_id:
        return "out of memory (the kernel left out the report)"
    return "out of memory"


def _spare(finding: Finding) -> str:
    spare = finding.evidence.get("free_above_high_bytes")
    return size(spare) if isinstance(spare, int) else "memory"


def _holder(report: OomReport, findings: Sequence[Finding]) -> str:
    """``; shared memory (tmpfs) holds 74 % of RAM``: whoever or whatever holds most, if that is much."""
    if any(f.id == "sysrq_manual" for f in findings):
        return ""
    exempt = {f.evidence.get("pid") for f in findings if f.id == "protected_giant"}
    shares = [(share, text) for f in findings for share, text in _share(report, f, exempt)]
    share, text = max(shares, key=lambda one: one[0], default=(0.0, ""))
    return f"; {text}" if share >= _HOLDS else _all_together(report, findings)


def _all_together(report: OomReport, findings: Sequence[Finding]) -> str:
    """``; processes hold 97 % of RAM, and swap is full``: nobody stands out, or the table is not there."""
    if report.constraint == "memcg":
        return ""
    for finding in findings:
        state = {"swap_exhausted": "and swap is full", "swap_absent": "and there is no swap"}.get(finding.id)
        amounts = [finding.evidence.get(f"{name}_bytes") for name in ("anon", "shmem", "ram")]
        anon, shmem, ram = (a if isinstance(a, int) else 0 for a in amounts)
        if state and ram and anon - shmem >= _TOGETHER * ram:
            return f"; processes hold {round(100 * (anon - shmem) / ram)} % of RAM, {state}"
    return ""


def _share(report: OomReport, finding: Finding, exempt: Set[object]) -> Iterator[tuple[float, str]]:
    """The share of the memory there was, and the words for it."""
    tail = ""
    whole = "of it" if report.constraint == "memcg" else "of RAM"
    evidence = finding.evidence
    amounts = {name: v for name, v in evidence.items() if isinstance(v, int | float)}
    comm = harmless_name(str(evidence.get("comm")))
    if finding.id in _HOLDERS:
        share, words = amounts.get("share_ratio", 0.0), _HOLDERS[finding.id]
    elif finding.id == "page_cache_left":
        share, words, whole = (
            amounts.get("share_ratio", 0.0),
            "page cache holds {}",
            f"of {harmless(str(evidence.get('zones')))}",
        )
    elif finding.id == "memcg_limit_reached":
        share = amounts.get("kernel_bytes", 0) / (amounts.get("usage_bytes") or 1)
        words = "the kernel's own memory holds {}"
    elif finding.id in ("single_process_dominates", "many_small_processes"):
        # what is shared or was charged elsewhere is in rss as well: no more than their share of all rss
        share = amounts.get("rss_bytes", 0) / (amounts.get("bound_bytes") or 1 << 62)
        share = min(share, amounts.get("share_ratio", 0.0))
        tail = ", and is exempt" if "pid" in evidence and evidence["pid"] in exempt else ""
        dead = any(victim.pid == evidence.get("pid") for victim in report.victims[:1])
        who = f"{amounts.get('processes')} {comm if 'comm' in evidence else 'small'} processes hold"
        words = f"{comm} {'held' if dead else 'holds'} {{}}" if "pid" in evidence else f"{who} {{}}"
    else:
        return
    # where slab alone makes the kernel's memory up, slab is the better word
    rank = share - 0.05 if finding.id == "memcg_limit_reached" else share
    before, _, behind = words.rpartition("{}")  # a task's name may hold one, too
    yield rank, f"{before}{min(round(100 * share), 100)} % {whole}{behind}{tail}"


def _label(finding: Finding) -> str:
    zone, node = finding.evidence.get("zone"), finding.evidence.get("node")
    return harmless(str(zone)) if node is None else f"node {node} {harmless(str(zone))}"


def _nearest(short: Sequence[Finding]) -> Finding | None:
    """The zone that missed by the least, of equals the one tried last: with so much more in it the request
    would have passed. Small zones only where there is no other."""
    short = [f for f in short if f.severity == "critical"] or short

    def missing(item: tuple[int, Finding]) -> tuple[int, int]:
        amount = item[1].evidence.get("shortfall_bytes")
        return amount if isinstance(amount, int) else 0, -item[0]

    return min(enumerate(short), key=missing)[1] if short else None


def _cgroup(report: OomReport, limit: int) -> str:
    path = report.memcg.oom_path if report.memcg is not None else None
    if path is None:
        return "its cgroup"
    name = harmless_name(path)
    return (
        f"cgroup {name}"
        if len(name) <= limit
        else _known_as(path) or f"cgroup {path_cut(name, limit, _NAME)}"
    )


def _known_as(path: str) -> str | None:
    """What people call a cgroup whose path is too long to show; None where that is no shorter."""
    found = called(path)
    if found is None or (found[0] == "unit" and len(found[1]) > _NAME):
        return None
    kind, name = found
    return harmless_name(name) if kind == "unit" else f"{kind} {harmless_name(name)}"


def _memcg_reason(report: OomReport, found: Sequence[Finding], path: int) -> str:
    evidence = found[0].evidence if found else {}
    limit, which = evidence.get("limit_bytes"), evidence.get("limit_kind")
    kind = f" {which}" if which not in (None, "memory") else ""
    if evidence.get("reached") == 0:
        return f"{_cgroup(report, path)}, but not at its limit"
    if not isinstance(limit, int):
        return f"{_cgroup(report, path)} at its limit"
    return f"{_cgroup(report, path)} at its{kind} limit of {size(limit)}"
