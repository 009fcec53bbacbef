"""The kernel's own objects hold much memory and cannot be dropped.

Unreclaimable slab is kernel data: network buffers, file descriptors, inotify watches, cgroup structures,
a leak in a driver or filter. Kernels since 4.15 list the slab caches when unreclaimable slab is larger than
all user pages together. The finding names the largest caches, as printed.

``slabtop -s c`` and /proc/slabinfo show which cache grows. A cache that only grows is a kernel leak
(CONFIG_DEBUG_KMEMLEAK, slab_debug, memory allocation profiling since 6.10).
"""

from __future__ import annotations

from oomwatchd.diagnosis.caches import lever_for, meaning, often, queued
from oomwatchd.diagnosis.case import HOLDS, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.ledger import Kind
from oomwatchd.diagnosis.levers import is_v1, raised_first
from oomwatchd.diagnosis.purpose import purpose
from oomwatchd.diagnosis.sites import lever_of, said, site_of
from oomwatchd.diagnosis.suspects import Suspect, by_count, charged
from oomwatchd.records.report import Finding, Memcg
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name

ID = "slab_unreclaimable_large"
TITLE = "Unreclaimable slab is large"

#: Shares of the whole, above what busy servers use in normal operation.
_LARGE, _HUGE = 0.15, 0.40
#: Share of RAM that a healthy machine uses.
_USUAL = 0.04
#: Of slab, for one memory cgroup: its structures on each node, files in cgroupfs, lists of its objects.
_CGROUP_BYTES = 24 << 10
#: Where else an allocation site's memory may be.
_OTHERS: tuple[Kind, ...] = ("slab_reclaimable", "rest")
#: Bytes that any booted kernel uses, on however small a board.
_LEAST = 8 << 20


def find(case: Case) -> Claim | None:
    whole, slab = case.ledger.whole_bytes, case.ledger.held("slab_unreclaimable")
    # Up to 2.6.31 one figure covers both kinds. With this little page cache left, it is unreclaimable.
    both = slab is None
    slab = case.ledger.held("slab") if both else slab
    if slab is None or not whole or slab < _LARGE * whole:
        return None
    share = slab / whole
    printed = sorted(case.report.slab, key=lambda c: -c.total_bytes)[:3]
    caches = [(c.name, c.total_bytes) for c in printed] or _live(case)
    named = ", ".join(f"{harmless_name(name)} {size(held)}{meaning(name)}" for name, held in caches)
    evidence: dict[str, int | float | str | None] = {
        "slab_unreclaimable_bytes": slab,
        "whole_bytes": whole,
        "share_ratio": case.ledger.share(slab),
    }
    evidence |= {f"cache:{name}_bytes": held for name, held in caches}
    excess = slab if case.in_cgroup else max(slab - max(int(_USUAL * whole), _LEAST), 0)
    site = None if case.in_cgroup else site_of(case, slab, *_OTHERS)
    decides = share >= HOLDS if case.in_cgroup else case.decides(excess)
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical" if share >= _HUGE else "warning",
            title=TITLE,
            explanation=f"{'Slab' if both else 'Unreclaimable slab'} holds {size(slab)}, "
            f"{percent(slab, whole)} of "
            f"{case.ledger.whole_name}."
            + (f" The largest caches: {named}." if named else _UNLISTED)
            + case.spare(excess),
            evidence=evidence,
            advice=_advice(case, caches),
        ),
        cause=Cause(
            tier=Tier.HELD if case.in_cgroup else Tier.TAKEN,
            text=f"kernel slab holds {case.ledger.percent(slab)} {case.of}"
            + (_most(case, caches, slab) or _asked(case))
            + ("" if site is None else f"; allocated by {said(site)}"),
            excess_bytes=excess,
        )
        if decides
        else None,
    )


_UNLISTED = (
    " The report does not list the caches: often open files (filp), inodes and dentries, sockets, "
    "or a driver."
)


def _live(case: Case) -> list[tuple[str, int]]:
    held = case.facts.memcg_slab if case.in_cgroup else case.facts.slab
    return [(one.name, one.amount) for one in held[:3]]


def _most(case: Case, caches: list[tuple[str, int]], slab: int) -> str:
    """The one cache that holds most of the slab, and who keeps what has no name of its own."""
    keeper = _keeper(case, slab)
    kept = "" if keeper is None else f"; {keeper.text}"
    if not caches or caches[0][1] < _HUGE * slab:
        return kept
    name = harmless_name(caches[0][0])
    messages = "" if case.in_cgroup else queued(case, slab)
    whose = f"; {messages}" if messages else kept if not meaning(caches[0][0]) else ""
    return f", most of it {name}{meaning(caches[0][0])}{whose}"


def _keeper(case: Case, slab: int) -> Suspect | None:
    """Live: cgroups, or the process that keeps network namespaces open (their data is in many caches), or
    else the cgroup that it is charged to."""
    if case.in_cgroup:
        return None
    count = case.facts.memory_cgroups
    if count * _CGROUP_BYTES < _HUGE * slab:
        return by_count(case, kinds={"netns"}) or charged(case, slab, *_OTHERS, "pagetables", "kernel_stack")
    return Suspect(
        amount=0,
        text=f"there are {count} memory cgroups",
        lever=f"remove cgroups that nobody needs (/proc/cgroups counts {count} of memory; systemd-cgls), and "
        "find what makes them and leaves them behind",
    )


def _asked(case: Case) -> str:
    """What a cgroup at its limit requested last: if no cache is named, this is most likely what fills it."""
    asked = purpose(case.report.trigger.call_trace) if case.in_cgroup else None
    return f"; asked for last: {asked.holds}" if asked is not None else ""


def _advice(case: Case, caches: list[tuple[str, int]]) -> str:
    look = "slabtop -s c, or /proc/slabinfo"
    if case.in_cgroup:
        old = is_v1(case.report.memcg or Memcg())
        look = "memory.kmem.slabinfo" if old else "slabtop -s c of the host"
    if case.early:
        look = "booting with slab_nomerge and the caches in the next report"
    if case.in_cgroup:
        asked = purpose(case.report.trigger.call_trace)
        less = (
            f"have less of them ({asked.holds} were asked for last): {asked.look}"
            if asked is not None and not caches
            else f"see which cache grows ({look}): empty files and names of files (inodes, dentries), open "
            "files and sockets are of it"
        )
        return (
            f"{raised_first(case, less)} A cache that only grows is a leak, and more only postpones the next "
            "kill."
        )
    lever = "" if case.early or not caches else lever_for(case, caches[0][0])
    keeper = _keeper(case, case.ledger.held("slab_unreclaimable") or 0)
    site = site_of(case, case.ledger.held("slab_unreclaimable") or 0, *_OTHERS)
    if site is not None and not (lever and meaning(caches[0][0])):
        lever = lever_of(case, site)
    elif (
        keeper is not None
        and not queued(case, case.ledger.held("slab_unreclaimable") or 0)
        and (not caches or not meaning(caches[0][0]))
    ):
        lever = f"{keeper.lever[0].upper()}{keeper.lever[1:]}.{often(caches[0][0]) if caches else ''}"
    if lever:
        return f"{lever} A kill does not free the kernel's own objects (slabtop -s c shows them)."
    bound = " bound what makes them (LimitNOFILE=, fs.file-max for open files);" if not caches else ""
    return (
        f"See which cache grows ({look}):{bound} a kill does not free the kernel's own objects, and a cache "
        "that only grows is a kernel leak."
    )
