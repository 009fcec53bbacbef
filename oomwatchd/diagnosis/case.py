"""What a finding is asked about: the report, the host around it, and the shared arithmetic, once.

One long class: each figure that several findings need is a short property, computed when first asked for.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import NamedTuple

from msgspec.structs import replace

from oomwatchd.diagnosis.allocator import (
    Request,
    ZoneVerdict,
    boost_bytes,
    expand,
    request_of,
    zone_verdicts,
)
from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.diagnosis.badness import ScoreTable, chosen_victim, score_table
from oomwatchd.diagnosis.facts import Facts, facts
from oomwatchd.diagnosis.ledger import Ledger, confined, installed_bytes, ledger, of_machine, total
from oomwatchd.formats.oom_kill import COMPACTION
from oomwatchd.procfs import HostZone, meminfo, zoneinfo
from oomwatchd.records.capture import OomCapture, Snapshot
from oomwatchd.records.report import OomReport, Victim, Zone
from oomwatchd.words.amounts import size

#: of the whole: what a cause must hold to decide, beyond the moment
_DECIDES = 0.1
#: of the whole: what one holder must have, to be named as the cause
HOLDS = 0.3
#: of RAM: what all processes have of their own
_TOGETHER = 0.6
#: functions of the report itself and of the page and slab allocators
_MM = re.compile(
    r"(?:dump_|show_|oom_kill|_*out_of_memory|_*(?:alloc|get_free)_?pages?|alloc_pages|_*get_free_page|"
    r"get_page_from|warn_alloc|_*k[mvz]*alloc|kmem_cache|allocate_slab|new_slab|_+slab|slab_|cache_alloc|"
    r"cache_grow|mem_cgroup|try_charge|charge_memcg|_+mem_cgroup|memcg|folio_alloc|_*vmalloc|"
    r"_+folio|alloc_slab|unwind|walk_stackframe|print_|fallback_alloc|kmalloc)"
)
_THREADS = re.compile(
    r"kworker/|kswapd\d|kthreadd$|ksoftirqd/|khugepaged$|kcompactd\d|migration/|jbd2/|xfsaild/|rcu_|loop\d"
)
#: a function of a module in a call trace (%pS)
_TRACED = re.compile(r"^ *(?:\[<[0-9a-fx]+>\] )?[\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+ \[([\w-]+)\]")
#: PAGE_ALLOC_COSTLY_ORDER: up to here the page allocator tries until it succeeds
COSTLY_ORDER = 3
#: but for these, and for zones below Normal, where nobody is killed
_MAY_FAIL = frozenset(
    {
        *("__GFP_NORETRY", "__GFP_RETRY_MAYFAIL", "__GFP_REPEAT", "__GFP_MEMALLOC", "__GFP_THISNODE"),
        *("__GFP_DMA", "__GFP_DMA32"),
    }
)
#: what reclaim calls to write a page out, or to shrink a cache
_RECLAIM = re.compile(r"shrink_(?:page_list|folio_list|inactive_list|slab)\b|do_shrink_slab\b")
_UNIT = re.compile(r"\.(?:slice|service|scope)\b")
#: of the memory in all allowed zones
_MINOR_SHARE = 0.1


class Process(NamedTuple):
    """One process of the table, or of the kill line."""

    pid: int
    comm: str
    rss_bytes: int
    swap_bytes: int

    @property
    def bytes(self) -> int:
        """Resident and in swap."""
        return self.rss_bytes + self.swap_bytes


class Case:
    """One report under diagnosis. Everything is computed on first use and kept."""

    def __init__(self, report: OomReport, capture: OomCapture | None = None) -> None:
        self.report = report
        self.capture = capture

    @cached_property
    def request(self) -> Request | None:
        """What was asked of the page allocator; None where it was not asked (a cgroup's limit, sysrq) or
        nobody can say."""
        if self.report.constraint == "memcg":
            return None
        request = request_of(self.report.trigger, by_cpuset=self.report.constraint == "cpuset")
        if request is None or self.report.kind != "page_alloc_failure":
            return request  # who invokes the OOM killer is neither
        free = self.reclaiming or (self.asker_is_victim and self.kernel_at_least(4, 14) is False)
        return replace(
            request,
            no_watermarks=request.no_watermarks or (free and request.spares),
            victim=self.asker_is_victim and not free,
        )

    @cached_property
    def verdicts(self) -> tuple[ZoneVerdict, ...]:
        """Each printed zone's answer to the request, in zonelist order; empty without a request."""
        return zone_verdicts(self.report, self.request) if self.request is not None else ()

    @cached_property
    def failing(self) -> tuple[ZoneVerdict, ...]:
        """The allowed zones whose usable memory is not above what the request needs."""
        return tuple(v for v in self.verdicts if v.shortfall_bytes is not None)

    @cached_property
    def nearest(self) -> ZoneVerdict | None:
        """The zone that missed by the least: with so much more in it the request would have passed. Of
        equals the one tried last; small zones only where there is no other."""
        ranked = list(enumerate([v for v in self.failing if not self.minor(v)] or self.failing))
        return min(ranked, key=lambda p: (p[1].shortfall_bytes or 0, -p[0]))[1] if ranked else None

    def minor(self, verdict: ZoneVerdict) -> bool:
        """A zone of so little of the allowed memory (DMA on most machines) decides nothing."""
        return (verdict.managed_bytes or 0) < _MINOR_SHARE * self.allowed_bytes

    @cached_property
    def allowed_bytes(self) -> int:
        """The memory of all zones that the request may use."""
        return sum(v.managed_bytes or 0 for v in self.verdicts if v.allowed)

    @cached_property
    def scores(self) -> ScoreTable | None:
        """The score table; None without a task table."""
        swap_total = self.meminfo_at.get("SwapTotal")
        return score_table(self.report, swap_total_bytes=swap_total)

    @cached_property
    def victim(self) -> Victim | None:
        """The selected victim."""
        return chosen_victim(self.report)

    @cached_property
    def ledger(self) -> Ledger:
        """Who holds what of the whole: RAM, or the limit of the cgroup that was at it."""
        return ledger(self.report, self.meminfo_at)

    @cached_property
    def machine(self) -> Ledger:
        """The same of the machine's RAM, whatever ran out."""
        return of_machine(self.report.memory, self.meminfo_at)

    @cached_property
    def container_names(self) -> dict[str, str]:
        """What runtimes call the containers that processes of the report were in, by id; live only."""
        if self.capture is None:
            return {}
        facts = self.capture.processes
        named = ((owner_of(f.cgroup).container_id, f.container_name) for f in facts if f.cgroup)
        seen = {container_id: name for container_id, name in named if container_id and name}
        return {**dict(self.capture.container_names), **seen}

    @property
    def in_cgroup(self) -> bool:
        """A cgroup's limit ran out, not the machine's memory."""
        return self.report.constraint == "memcg"

    @property
    def of(self) -> str:
        """How the line calls the whole: a cgroup's limit stands in front of it."""
        return "of it" if self.in_cgroup else f"of {self.ledger.whole_name}"

    @cached_property
    def largest(self) -> Process | None:
        """The process that holds most, resident and in swap; by the table, else by the kill line."""
        return max(self.processes, key=lambda p: p.bytes, default=None)

    @cached_property
    def processes(self) -> tuple[Process, ...]:
        """Every listed process whose size is known. A cut table has one more in the kill line."""
        listed = [
            Process(t.pid, t.comm, t.rss_bytes, t.swap_bytes or 0)
            for t in self.report.tasks
            if t.rss_bytes is not None
        ]
        victim = self.victim or next(iter(self.report.victims), None)
        if (
            victim is not None
            and victim.pid not in {p.pid for p in listed}
            and (not listed or {"tasks", "elided"} & set(self.report.missing))
        ):
            sizes = (victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes)
            if any(amount is not None for amount in sizes):
                listed.append(Process(victim.pid, victim.comm, sum(amount or 0 for amount in sizes), 0))
        return tuple(listed)

    @cached_property
    def ram_bytes(self) -> int | None:
        """The machine's RAM, with what is reserved of it."""
        memory = self.report.memory
        return self.meminfo_at.get("MemTotal") if memory is None else installed_bytes(memory)

    @property
    def bound_bytes(self) -> int | None:
        """The memory that there was: the cgroup's limit, else the machine's RAM."""
        return self.ledger.whole_bytes

    def decides(self, excess: int) -> bool:
        """Whether so much more memory would have let the request pass, and not only for a moment: the nearest
        zone's shortfall, and a tenth of the whole."""
        return excess >= max(self.shortfall_bytes, int(_DECIDES * (self.bound_bytes or 0))) > 0

    @property
    def shortfall_bytes(self) -> int:
        """What the nearest zone was short of; 0 where no zone is known to be."""
        return (self.nearest.shortfall_bytes or 0) if self.nearest is not None else 0

    def spare(self, excess: int) -> str:
        """``without it the request would have passed, with 200 MiB to spare``."""
        if self.request is None and not self.in_cgroup:
            return ""
        over = excess - self.shortfall_bytes
        return f" Without it the request would have passed, with {size(over)} to spare." if over > 0 else ""

    def passing_with_min(self, factor: float) -> int | None:
        """Were every min watermark ``factor`` of what it is: the most that a zone would have had to spare
        (__zone_watermark_ok()); None where none would have passed, or where one did anyway."""
        if not self.failing or any(v.fits for v in self.verdicts):
            return None
        over = [
            v.usable_bytes - v.reserve_bytes - int(v.mark_bytes * factor)
            for v in self.failing
            if v.usable_bytes is not None and v.reserve_bytes is not None and v.mark_bytes is not None
        ]
        most = max(over, default=0)
        return most if most > 0 else None

    def boosted(self, verdict: ZoneVerdict) -> bool:
        """Without the zone's watermark boost (5.0+) the request would have passed."""
        if self.request is None or not self.request.counts_boost:
            return False
        usable, required = verdict.usable_bytes, verdict.required_bytes
        boost = boost_bytes(verdict.record, self.report.page_size_bytes)
        return usable is not None and required is not None and usable > required - boost

    def barred(self, amount: int) -> bool:
        """Whether so much, free but not for this request, would have let it pass."""
        return not any(v.fits for v in self.verdicts) and 0 < self.shortfall_bytes < amount

    @cached_property
    def of_processes(self) -> tuple[int, bool]:
        """What all processes have of their own, and whether that is most of RAM."""
        own = self.ledger.held("anon") or 0
        return own, own >= _TOGETHER * (self.ledger.whole_bytes or 1 << 62)

    @cached_property
    def swapped_bytes(self) -> int:
        """What listed processes have in swap though no swap is in use: swapoff is taking it out of use
        (total_swap_pages falls first, try_to_unuse() follows); 0 where that is not so."""
        swap = self.report.memory.swap if self.report.memory is not None else None
        if swap is None or swap.total_bytes != 0:
            return 0
        return sum(task.swap_bytes or 0 for task in self.report.tasks)

    @cached_property
    def free_elsewhere(self) -> int | None:
        """The machine's free memory less that of the printed zones: what the zones had that this report
        leaves out (of nodes that the task may not use; since 6.1 also above the request's class zone). None
        where all are printed, or no total is."""
        memory = self.report.memory
        free = memory.totals.get("free_bytes") if memory is not None else None
        if memory is None or free is None or not self.zones or not confined(memory):
            return None
        return max(free - sum(z.bytes_of("free") or 0 for z in self.zones), 0)

    @cached_property
    def caller(self) -> str | None:
        """Who called the allocator: the first function of the call trace above mm's own."""
        return next((f for f in self.report.trigger.call_trace if not _MM.match(f)), None)

    @cached_property
    def trace_modules(self) -> tuple[str, ...]:
        """The modules whose functions the call trace passes, the nearest to the allocator first; what is
        behind a question mark was only found on the stack."""
        texts = (record.text for record in self.capture.records) if self.capture is not None else ()
        found = (_TRACED.match(text) for text in texts if "+0x" in text)
        return tuple(dict.fromkeys(m[1] for m in found if m is not None))

    @property
    def kernel_thread(self) -> bool:
        """A thread of the kernel asked: by its name, or by where its call trace begins (kthread())."""
        trigger = self.report.trigger
        return bool(_THREADS.match(trigger.comm or "")) or "kthread" in trigger.call_trace

    @cached_property
    def reclaiming(self) -> bool:
        """Who asked was freeing memory (PF_MEMALLOC), by the call trace: the request is one of reclaim's own,
        and no watermark holds for it."""
        return any(_RECLAIM.match(function) for function in self.report.trigger.call_trace)

    @cached_property
    def asker_is_victim(self) -> bool:
        """A request that may wait failed: only a task fails that was chosen by the OOM killer before
        (__alloc_pages_slowpath()), or that reclaims."""
        trigger = self.report.trigger
        if self.report.kind != "page_alloc_failure" or not trigger.gfp_flags or trigger.order is None:
            return False
        if self.kernel_thread or self.stalled or self.reclaiming:
            return False  # has no memory to be killed for; is still being served; may fail without any kill
        flags = expand(trigger.gfp_flags)
        return trigger.order <= COSTLY_ORDER and "__GFP_DIRECT_RECLAIM" in flags and not flags & _MAY_FAIL

    @property
    def stalled(self) -> bool:
        """The request has waited for long and is still being served (4.10 to 4.14: warn_alloc())."""
        return "stall" in (self.report.outcome or "").lower()

    @cached_property
    def compaction_off(self) -> bool:
        """The kernel was built without CONFIG_COMPACTION, and says so (4.9+)."""
        records = self.capture.records if self.capture is not None else ()
        return any(COMPACTION.pattern.search(record.text) for record in records)

    @cached_property
    def systemd(self) -> bool | None:
        """Whether systemd runs there. Its helpers are in every whole table of a machine that has it; a table
        of a cgroup or a container shows its own processes alone."""
        memcg, tasks = self.report.memcg, self.report.tasks
        paths = f"{(memcg.oom_path if memcg else '') or ''} {self.report.trigger.cpuset or ''}"
        if self.facts.init is not None:
            return self.facts.init == "systemd"
        if _UNIT.search(paths) or any(t.comm.startswith("systemd") for t in tasks):
            return True
        return False if self.report.constraint == "none" and self.report.complete and tasks else None

    @cached_property
    def early(self) -> bool:
        """Before any service runs: process 1 is all there is, or not even that."""
        tasks = self.report.tasks
        if tasks:
            return all(task.pid <= 1 for task in tasks)
        return self.report.trigger.pid == 1 and "tasks" not in self.report.missing

    def kernel_at_least(self, major: int, minor: int) -> bool | None:
        """Whether the kernel is so new, by its own release; None where the report does not name it. For
        advice alone: what lines mean is read from the lines."""
        match = re.match(r"(\d+)\.(\d+)", self.report.kernel or "")
        return None if match is None else (int(match[1]), int(match[2])) >= (major, minor)

    @property
    def confined(self) -> bool:
        """Not all zones are printed."""
        if self.report.constraint in ("cpuset", "memory_policy"):
            return True
        return self.report.memory is not None and confined(self.report.memory)

    def total(self, name: str) -> int | None:
        """A machine-wide counter of the report in bytes ("shmem", "slab_unreclaimable" ...), from the
        totals, else the sum over nodes or zones."""
        memory = self.report.memory
        if memory is None:
            return None
        return total(memory, name)

    @property
    def anon_bytes(self) -> int | None:
        """What only swap can take: anonymous memory and, on the same lists, shared memory."""
        amounts = [self.total(name) for name in ("active_anon", "inactive_anon")]
        return None if all(a is None for a in amounts) else sum(a or 0 for a in amounts)

    @cached_property
    def zones(self) -> tuple[Zone, ...]:
        """The printed zones."""
        return self.report.memory.zones if self.report.memory is not None else ()

    @cached_property
    def at(self) -> Snapshot | None:
        """The host on detection, live only."""
        return self.capture.at if self.capture is not None else None

    @cached_property
    def meminfo_at(self) -> dict[str, int]:
        """/proc/meminfo on detection; empty offline."""
        return meminfo(self.at) if self.at is not None else {}

    @cached_property
    def facts(self) -> Facts:
        """What the host said of itself beyond that, live only."""
        return facts(self.at)

    @cached_property
    def zoneinfo_at(self) -> tuple[HostZone, ...]:
        """/proc/zoneinfo on detection; empty offline."""
        return zoneinfo(self.at) if self.at is not None else ()
