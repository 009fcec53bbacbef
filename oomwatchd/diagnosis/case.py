"""The case that a finding examines: the report, the state of the host, and the figures that findings share.

The class is long because each figure that several findings need is a short property, computed on first use.
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
from oomwatchd.diagnosis.facts import Facts, Held, facts
from oomwatchd.diagnosis.ledger import Ledger, confined, installed_bytes, ledger, of_machine, total
from oomwatchd.diagnosis.signs import (
    age,
    foreign_modules,
    has_32_bit,
    is_crash_kernel,
    uncounted_balloon,
)
from oomwatchd.formats.dump_stack import unsure_symbols
from oomwatchd.formats.oom_kill import COMPACTION
from oomwatchd.procfs import HostZone, meminfo, zoneinfo
from oomwatchd.records.capture import OomCapture, Snapshot
from oomwatchd.records.report import OomReport, Victim, Zone
from oomwatchd.words.amounts import kib, size
from oomwatchd.words.deferred import deferred

#: Share of the whole that a cause must hold. Less would only have delayed the kill.
_DECIDES = 0.1
#: Share of the whole that one holder must have to be named as the cause.
HOLDS = 0.3
#: Share of RAM that makes the anonymous memory of all processes "most of RAM".
_TOGETHER = 0.6
#: Share of swap. Less free swap is unusable: each CPU allocates a cluster, and read-ahead needs neighbours.
_SWAP_LEFT = 0.02
#: Functions that print the report, and functions of the page and slab allocators.
_MM = deferred(
    r"(?:dump_|show_|oom_kill|_*out_of_memory|_*(?:alloc|get_free)_?(?:frozen_)?pages?|_*get_free_page|"
    r"get_page_from|warn_alloc|_*k[mvz]*alloc|krealloc|kmem_cache|allocate_slab|new_slab|_+slab|slab_|"
    r"_*cache_alloc|cache_grow|mem_cgroup|try_charge|charge_memcg|_+mem_cgroup|memcg|folio_alloc|_*vmalloc|"
    r"_+folio|alloc_slab|unwind|walk_stackframe|print_|fallback_alloc|kmalloc|kmemdup|mempool_|"
    r"alloc_from_pcs|_*pcs_|refill_objects|_*prefill_sheaf|alloc_slow|"
    # the DMA layer, between a driver and the page allocator
    r"_*dmam?_(?:direct_|common_|pool_|alloc|zalloc|map_)|_*iommu_(?:dma_)?alloc|x86_swiotlb_alloc|"
    r"arm_dma_alloc|_*alloc_(?:remap_)?buffer$|remap_allocator)"
)
_THREADS = deferred(
    r"kworker/|kswapd\d|kthreadd$|ksoftirqd/|khugepaged$|kcompactd\d|migration/|jbd2/|xfsaild/|rcu_|loop\d"
)
#: A module's function in a call trace (%pS).
_TRACED = deferred(r"^ *(?:\[<[0-9a-fx]+>\] )?[\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+ \[([\w-]+)\]")
#: PAGE_ALLOC_COSTLY_ORDER: up to this order the page allocator retries until it succeeds ...
COSTLY_ORDER = 3
#: ... except with these flags, and for zones below Normal, for which the kernel kills nobody.
_MAY_FAIL = frozenset(
    {
        *("__GFP_NORETRY", "__GFP_RETRY_MAYFAIL", "__GFP_REPEAT", "__GFP_MEMALLOC", "__GFP_THISNODE"),
        *("__GFP_DMA", "__GFP_DMA32"),
    }
)
#: Functions of suspend and hibernation (kernel/power, drivers/base/power).
_SUSPEND = deferred(
    r"(?:pm_suspend|suspend_devices_and_enter|enter_state|"
    r"dpm_(?:suspend|prepare|resume|complete|run_callback)\w*|"
    r"(?:__?)?device_(?:suspend|prepare|resume)\b|async_(?:suspend|resume)\b|"
    r"hibernat\w+|create_image|snapshot_(?:write|image)\w*)"
)
#: Functions that reclaim calls to write out a page or to shrink a cache.
_RECLAIM = deferred(r"shrink_(?:page_list|folio_list|inactive_list|slab)\b|do_shrink_slab\b")
_UNIT = deferred(r"\.(?:slice|service|scope)\b")
#: Microseconds since boot in which no kernel has started a service.
_STARTING = 2_000_000
#: Share of the memory in all allowed zones.
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
    def text(self) -> str:
        """All lines of the report."""
        return "\n".join([record.text for record in self.capture.records]) if self.capture is not None else ""

    @cached_property
    def request(self) -> Request | None:
        """The request to the page allocator; None if there was none (a cgroup's limit, sysrq) or it is
        unknown."""
        if self.report.constraint == "memcg":
            return None
        trigger, by_cpuset = self.report.trigger, self.report.constraint == "cpuset"
        request = request_of(trigger, by_cpuset=by_cpuset)
        if request is None and trigger.order is None:
            # a head that is cut before the order: any order needs at least what order 0 needs
            request = request_of(replace(trigger, order=0), by_cpuset=by_cpuset)
            return None if request is None else replace(request, order_unknown=True)
        if request is None or self.report.kind != "page_alloc_failure":
            return request  # a task that invokes the OOM killer is neither reclaiming nor a victim
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
        """The zone with the smallest shortfall: with that much more memory the request would have passed. If
        several are equal, it is the one that the kernel tried last. Small zones count if all are small."""
        ranked = list(enumerate([v for v in self.failing if not self.minor(v)] or self.failing))
        return min(ranked, key=lambda p: (p[1].shortfall_bytes or 0, -p[0]))[1] if ranked else None

    def minor(self, verdict: ZoneVerdict) -> bool:
        """Whether the zone has too little of the allowed memory to matter (DMA on most machines)."""
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
        """What holds how much of the whole: of RAM, or of the limit that a cgroup reached."""
        return ledger(self.report, self.meminfo_at)

    @cached_property
    def machine(self) -> Ledger:
        """The ledger of the machine's RAM, even if a cgroup ran out."""
        return of_machine(self.report.memory, self.meminfo_at) if self.in_cgroup else self.ledger

    @cached_property
    def container_names(self) -> dict[str, str]:
        """The runtimes' names of the containers that the report's processes were in, by id; live only."""
        if self.capture is None:
            return {}
        facts = self.capture.processes
        named = ((owner_of(f.cgroup).container_id, f.container_name) for f in facts if f.cgroup)
        seen = {container_id: name for container_id, name in named if container_id and name}
        return {**dict(self.capture.container_names), **seen}

    @property
    def in_cgroup(self) -> bool:
        """Whether a cgroup reached its limit, rather than the machine running out."""
        return self.report.constraint == "memcg"

    def lists(self, held: Held) -> bool:
        """Whether the report's table has that process: at a cgroup's limit, whether it lives there. A daemon
        in a container sees other pids than the log has; then the name tells."""
        members = {task.pid: task.comm for task in self.report.tasks}
        name = members.get(held.pid or -1)
        return held.name in members.values() if name is None else name == held.name

    @property
    def of(self) -> str:
        """The words for the whole in the summary line, which has already named a cgroup's limit."""
        return "of it" if self.in_cgroup else f"of {self.ledger.whole_name}"

    @cached_property
    def largest(self) -> Process | None:
        """The process that holds most, resident and in swap, by the task table or else by the kill line."""
        return max(self.processes, key=lambda p: p.rss_bytes + p.swap_bytes, default=None)

    @cached_property
    def resident_bytes(self) -> int:
        """What all :attr:`processes` hold in RAM; shared pages count once for each."""
        return sum([p.rss_bytes for p in self.processes])

    @cached_property
    def held_bytes(self) -> int:
        """What all :attr:`processes` hold, resident and in swap."""
        return self.resident_bytes + sum([p.swap_bytes for p in self.processes])

    @cached_property
    def processes(self) -> tuple[Process, ...]:
        """Every listed process of known size. If the table is cut, the kill line may add one."""
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
        """The machine's RAM in bytes, including what is reserved."""
        memory = self.report.memory
        return self.meminfo_at.get("MemTotal") if memory is None else installed_bytes(memory)

    @property
    def bound_bytes(self) -> int | None:
        """The memory that could be used: the cgroup's limit, else the machine's RAM."""
        return self.ledger.whole_bytes

    def decides(self, excess: int) -> bool:
        """Whether ``excess`` more bytes would have prevented the kill, not only delayed it: they cover the
        nearest zone's shortfall and a tenth of the whole."""
        return excess >= max(self.shortfall_bytes, int(_DECIDES * (self.bound_bytes or 0))) > 0

    @property
    def shortfall_bytes(self) -> int:
        """The nearest zone's shortfall; 0 if no zone is known to be short."""
        return (self.nearest.shortfall_bytes or 0) if self.nearest is not None else 0

    def spare(self, excess: int) -> str:
        """``without it the request would have passed, with 200 MiB to spare``."""
        if self.request is None and not self.in_cgroup:
            return ""
        over = excess - self.shortfall_bytes
        return f" Without it the request would have passed, with {size(over)} to spare." if over > 0 else ""

    def passing_with_min(self, factor: float) -> int | None:
        """The most bytes that a zone would have had to spare if every min watermark were ``factor`` times its
        value (__zone_watermark_ok()). None if no zone would have passed, or if one passes anyway."""
        if not self.failing or any(v.fits for v in self.verdicts):
            return None
        over = [
            v.usable_bytes - v.reserve_bytes - int(v.mark_bytes * factor)
            for v in self.failing
            if v.usable_bytes is not None and v.reserve_bytes is not None and v.mark_bytes is not None
        ]
        most = max(over, default=0)
        return most if most > 0 else None

    @staticmethod
    def short(verdict: ZoneVerdict) -> str:
        """``short by 84 kB``, or that it is at its mark."""
        short = verdict.shortfall_bytes or 0
        return f"short by {kib(short)}" if short else "exactly at its mark"

    def boosted(self, verdict: ZoneVerdict) -> bool:
        """Whether the request would have passed without the zone's watermark boost (5.0+)."""
        if self.request is None or not self.request.counts_boost:
            return False
        usable, required = verdict.usable_bytes, verdict.required_bytes
        boost = boost_bytes(verdict.record, self.report.page_size_bytes)
        return usable is not None and required is not None and usable > required - boost

    def barred(self, amount: int) -> bool:
        """Whether the request would have passed if it could have used ``amount`` more free bytes."""
        # a zone exactly at its mark is short, too: by less than a page
        short = self.nearest is not None and self.shortfall_bytes < amount
        return short and not any(v.fits for v in self.verdicts)

    @cached_property
    def of_processes(self) -> tuple[int, bool]:
        """The anonymous memory of all processes in bytes, and whether that is most of RAM."""
        own = self.ledger.held("anon") or 0
        return own, own >= _TOGETHER * (self.ledger.whole_bytes or 1 << 62)

    @property
    def swap_full(self) -> bool:
        """Whether the machine has swap, and nothing of it was free."""
        swap = self.report.memory.swap if self.report.memory is not None else None
        if swap is None or not swap.total_bytes or swap.free_bytes is None:
            return False
        return swap.free_bytes <= _SWAP_LEFT * swap.total_bytes

    @cached_property
    def swapped_bytes(self) -> int:
        """Bytes that are in swap although the machine has no swap left: swapoff is running (total_swap_pages
        falls first, then try_to_unuse() moves pages back). Otherwise 0."""
        swap = self.report.memory.swap if self.report.memory is not None else None
        if swap is None or swap.total_bytes != 0:
            return 0
        # nr_swap_pages falls by the whole area, too: it is negative by what is still in it
        listed = sum(task.swap_bytes or 0 for task in self.report.tasks)
        return max(listed, -(swap.free_bytes or 0))

    @cached_property
    def free_elsewhere(self) -> int | None:
        """The free memory of the zones that the report omits: the machine's total minus the printed zones.

        The kernel omits zones of nodes that the task may not use and, since 6.1, zones above the request's
        class zone. None if all zones are printed, or if no total is.
        """
        memory = self.report.memory
        free = memory.totals.get("free_bytes") if memory is not None else None
        if memory is None or free is None or not self.zones or not confined(memory):
            return None
        return max(free - sum(z.bytes_of("free") or 0 for z in self.zones), 0)

    @cached_property
    def caller(self) -> str | None:
        """The allocator's caller: the first function of the call trace outside mm. If the unwinder is unsure
        of every entry, it is the first such one."""
        return next((f for f in self.functions if not _MM.match(f)), None)

    @cached_property
    def functions(self) -> tuple[str, ...]:
        """The functions of the call trace, the nearest to the allocator first. Without a frame pointer or ORC
        the kernel marks every entry with a question mark: then they are what was found on the stack."""
        sure = self.report.trigger.call_trace
        if sure or self.capture is None:
            return sure
        return tuple(name for record in self.capture.records for name in unsure_symbols(record.text))

    @cached_property
    def trace_modules(self) -> tuple[str, ...]:
        """The modules with functions in the call trace, the nearest to the allocator first. Entries with a
        question mark do not count: they were only found on the stack."""
        texts = (record.text for record in self.capture.records) if self.capture is not None else ()
        found = (_TRACED.match(text) for text in texts if "+0x" in text)
        return tuple(dict.fromkeys(m[1] for m in found if m is not None))

    @property
    def kernel_thread(self) -> bool:
        """Whether a kernel thread made the request, by its name or by the start of its trace (kthread())."""
        trigger = self.report.trigger
        # a trace that is not its own may stand between the lines; kernel threads have no adjustment
        adjusted = bool(trigger.oom_score_adj)
        return bool(_THREADS.match(trigger.comm or "")) or ("kthread" in trigger.call_trace and not adjusted)

    @cached_property
    def reclaiming(self) -> bool:
        """Whether the requesting task was reclaiming memory (PF_MEMALLOC), by the call trace. No watermark
        applies to such a request."""
        return any(_RECLAIM.match(function) for function in self.report.trigger.call_trace)

    @cached_property
    def asker_is_victim(self) -> bool:
        """Whether the requesting task had already been killed. A request that may wait fails only for a task
        that the OOM killer chose before (__alloc_pages_slowpath()), or that reclaims."""
        trigger = self.report.trigger
        if self.report.kind != "page_alloc_failure" or not trigger.gfp_flags or trigger.order is None:
            return False
        if trigger.pid in (0, 1) or (trigger.comm or "").startswith("swapper"):
            return False  # the idle task and init are never chosen (oom_unkillable_task())
        if self.kernel_thread or self.stalled or self.reclaiming or self.suspending:
            return False  # never a victim; still waiting; may fail without a kill
        if "stack" in self.report.missing and not self.functions:
            return False  # the trace is not in the log: it may have been reclaim that asked
        flags = expand(trigger.gfp_flags)
        return trigger.order <= COSTLY_ORDER and "__GFP_DIRECT_RECLAIM" in flags and not flags & _MAY_FAIL

    @cached_property
    def may_wait(self) -> bool | None:
        """Whether the request may sleep and reclaim (__GFP_DIRECT_RECLAIM); None if its flags are unknown."""
        flags = expand(self.report.trigger.gfp_flags or ())
        return bool(flags & {"__GFP_DIRECT_RECLAIM", "__GFP_WAIT"}) if flags else None

    @cached_property
    def suspending(self) -> bool:
        """Whether the request was made while the machine was suspended or hibernated, by its call trace: the
        OOM killer is disabled then (oom_killer_disable())."""
        return any(_SUSPEND.match(function) for function in self.report.trigger.call_trace)

    @property
    def stalled(self) -> bool:
        """Whether the request has waited long and still waits (4.10 to 4.14: warn_alloc())."""
        return "stall" in (self.report.outcome or "").lower()

    @cached_property
    def compaction_off(self) -> bool:
        """Whether the kernel printed that it was built without CONFIG_COMPACTION (4.9+)."""
        return COMPACTION.pattern.search(self.text) is not None

    @cached_property
    def has_32_bit(self) -> bool:
        """Whether the kernel has 32 bit."""
        return has_32_bit(self.report, self.text)

    @cached_property
    def is_crash_kernel(self) -> bool:
        """Whether a crash kernel (kdump) made the report, in the RAM that crashkernel= set aside."""
        return is_crash_kernel(self.report)

    @cached_property
    def uncounted_balloon(self) -> str | None:
        """The hypervisor whose balloon is in no counter."""
        return uncounted_balloon(self.text)

    @cached_property
    def foreign_modules(self) -> tuple[str, ...] | None:
        """The out-of-tree or unsigned modules, by the report's lines (:func:`signs.foreign_modules`)."""
        return foreign_modules(self.text)

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
        """Whether no service runs yet: there is only process 1, or not even that."""
        tasks, began = self.report.tasks, self.report.first_usec
        if tasks:
            return all(task.pid <= 1 for task in tasks)
        if began is not None and 0 < began < _STARTING:
            return True
        return self.report.trigger.pid == 1 and "tasks" not in self.report.missing

    def kernel_at_least(self, major: int, minor: int) -> bool | None:
        """Whether the kernel has at least this release, by its name or else by the forms of its lines; None
        if they do not tell. Only for advice: the meaning of a line never depends on the release."""
        asked = (major, minor)
        match = re.match(r"(\d+)\.(\d+)", self.report.kernel or "")
        if match is not None:
            return (int(match[1]), int(match[2])) >= asked
        oldest, before = age(self.report)
        return True if oldest >= asked else False if before <= asked else None

    @property
    def confined(self) -> bool:
        """Whether the report omits zones."""
        if self.report.constraint in ("cpuset", "memory_policy"):
            return True
        return self.report.memory is not None and confined(self.report.memory)

    def total(self, name: str) -> int | None:
        """A machine-wide counter of the report in bytes ("shmem", "slab_unreclaimable" ...), from the totals
        or else summed over nodes or zones."""
        memory = self.report.memory
        if memory is None:
            return None
        return total(memory, name)

    @property
    def anon_bytes(self) -> int | None:
        """The memory that can only go to swap: anonymous memory and the shared memory on the same lists."""
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
        """Further facts about the host; live only."""
        return facts(self.at)

    @cached_property
    def zoneinfo_at(self) -> tuple[HostZone, ...]:
        """/proc/zoneinfo on detection; empty offline."""
        return zoneinfo(self.at) if self.at is not None else ()
