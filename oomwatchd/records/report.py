"""What a decoded OOM report is made of: the types between the decoder and everything that reads it.

Amounts are bytes, whatever unit the kernel printed; absent is None ("the kernel did not say"), and 0
is "the kernel said 0". Names are the kernel's own and those of the event contract (docs/event.md).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal[
    "oom_kill", "oom_no_victim", "oom_panic", "page_alloc_failure", "oomd_kill", "user_kill", "oom_near"
]
Constraint = Literal["none", "cpuset", "memory_policy", "memcg"]
Role = Literal["selected", "group", "shares_mm"]
Severity = Literal["info", "warning", "critical"]


class Part(msgspec.Struct, frozen=True, kw_only=True, gc=True):
    """Base of all parts: immutable, keyword-only."""


class Finding(Part, frozen=True, kw_only=True):
    """One point of the diagnosis.

    ``evidence`` maps names to the figures it rests on (units in the names: ``free_bytes``,
    ``share_ratio``); ``advice`` names the knob, empty when the figures carry none.
    """

    id: str
    severity: Severity
    title: str
    explanation: str
    evidence: dict[str, int | float | str | None] = {}
    advice: str = ""


class Trigger(Part, frozen=True, kw_only=True):
    """The task whose allocation failed (``current`` in dump_header())."""

    comm: str | None = None
    pid: int | None = None
    uid: int | None = None
    cpu: int | None = None
    gfp_mask: int | None = None
    #: names as that kernel names them; () for a printed but empty mask, None when nobody can say
    gfp_flags: tuple[str, ...] | None = None
    #: the highest zone the mask allows (gfp_zone()), e.g. "Normal"; None when unknown
    highest_zone: str | None = None
    order: int | None = None
    oom_score_adj: int | None = None
    #: the older scale of -17..15 (up to 3.6)
    oom_adj: int | None = None
    cpuset: str | None = None
    mems_allowed: str | None = None
    nodemask: str | None = None
    call_trace: tuple[str, ...] = ()
    #: asked for by hand (sysrq-f)
    sysrq: bool = False
    #: the task that the kernel ran when it panicked: who asked, where no header says it
    panicked_comm: str | None = None
    panicked_pid: int | None = None


class MemcgCounter(Part, frozen=True, kw_only=True):
    """One page counter of a memory cgroup; ``limit_bytes`` None is "no limit"."""

    usage_bytes: int
    limit_bytes: int | None
    failcnt: int | None = None


class MemcgStat(Part, frozen=True, kw_only=True):
    """The statistics of one cgroup, as printed; ``unit_bytes`` says what a memory figure counts."""

    path: str | None
    stat: dict[str, int]
    unit_bytes: int


class Memcg(Part, frozen=True, kw_only=True):
    """The memory cgroup part of a report."""

    #: the cgroup whose limit was hit
    oom_path: str | None = None
    #: where the victim lived
    task_path: str | None = None
    #: "Tasks in PATH are going to be killed due to memory.oom.group set"
    group_path: str | None = None
    memory: MemcgCounter | None = None
    swap: MemcgCounter | None = None
    memory_swap: MemcgCounter | None = None
    kmem: MemcgCounter | None = None
    #: name -> figure as printed; unit_bytes is 1024 for the one-line form of 3.9 to 5.2, else 1
    stat: dict[str, int] = {}
    stat_unit_bytes: int | None = None
    #: the same for the cgroups below (3.9 to 5.2 print one line each)
    descendants: tuple[MemcgStat, ...] = ()
    min_protection_bytes: int | None = None
    low_protection_bytes: int | None = None


class FreeBlocks(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One order of the buddy list; ``migratetypes`` are the kernel's letters (U M E H C I R)."""

    order: int
    count: int
    migratetypes: str | None = None


class Zone(Part, frozen=True, kw_only=True):
    """One zone line with its lowmem_reserve and buddy lines.

    ``amounts`` holds every printed ``name:amount`` under ``<name>_bytes`` (``free_bytes``,
    ``min_bytes`` ..., unknown ones too), ``pages_scanned`` and ``all_unreclaimable`` under their own
    names.
    """

    node: int | None
    zone: str
    amounts: dict[str, int | bool] = {}
    lowmem_reserve_bytes: tuple[int, ...] | None = None
    free_blocks: tuple[FreeBlocks, ...] | None = None
    free_blocks_total_bytes: int | None = None

    def bytes_of(self, name: str) -> int | None:
        """The amount printed as ``name`` ("free", "min", "managed" ...), in bytes."""
        return self.amounts.get(f"{name}_bytes")

    @property
    def managed_bytes(self) -> int | None:
        """What the zone's allocator has to give, which may be nothing; up to 3.7, which print no such
        figure, what is present."""
        managed = self.bytes_of("managed")
        return managed if managed is not None else self.bytes_of("present")


class Node(Part, frozen=True, kw_only=True):
    """One "Node N active_anon:..." line (4.8+); ``amounts`` as in Zone."""

    node: int
    amounts: dict[str, int | bool] = {}


class Swap(Part, frozen=True, kw_only=True):
    """The swap lines of the memory part."""

    free_bytes: int | None = None
    total_bytes: int | None = None
    cache_bytes: int | None = None


class Hugepages(Part, frozen=True, kw_only=True):
    """One "Node N hugepages_total=..." line."""

    node: int | None
    total: int
    free: int
    surplus: int
    size_bytes: int


class Memory(Part, frozen=True, kw_only=True):
    """The Mem-Info part. ``totals`` are the machine-wide counters under ``<name>_bytes``; a value is
    None when the page size is unknown."""

    totals: dict[str, int | None] = {}
    nodes: tuple[Node, ...] = ()
    zones: tuple[Zone, ...] = ()
    #: None: the report has no swap lines, which is "unknown", not "no swap"
    swap: Swap | None = None
    pagecache_bytes: int | None = None
    ram_bytes: int | None = None
    highmem_bytes: int | None = None
    reserved_bytes: int | None = None
    cma_reserved_bytes: int | None = None
    hwpoisoned_bytes: int | None = None
    hugepages: tuple[Hugepages, ...] = ()
    #: further "N pages ..." lines under their printed names, in pages
    other_pages: dict[str, int] = {}


class Task(msgspec.Struct, frozen=True, gc=False):
    """One row of the task table (dump_tasks()). ``page_tables`` counts page-table pages (nr_ptes,
    up to 4.14), newer kernels print ``pgtables_bytes``. ``extra`` holds unknown columns."""

    pid: int
    uid: int | None = None
    tgid: int | None = None
    comm: str = ""
    total_vm_bytes: int | None = None
    rss_bytes: int | None = None
    rss_anon_bytes: int | None = None
    rss_file_bytes: int | None = None
    rss_shmem_bytes: int | None = None
    pgtables_bytes: int | None = None
    page_tables: int | None = None
    swap_bytes: int | None = None
    oom_score_adj: int | None = None
    extra: dict[str, int] | None = None


class SlabCache(Part, frozen=True, kw_only=True):
    """One row of "Unreclaimable slab info" (dump_unreclaimable_slab())."""

    name: str
    used_bytes: int
    total_bytes: int


class Allocation(Part, frozen=True, kw_only=True):
    """One row of memory allocation profiling (6.10+)."""

    bytes: int
    calls: int
    location: str
    module: str | None
    function: str


class Victim(Part, frozen=True, kw_only=True):
    """One process that was killed. ``kills`` counts the kill lines that name it (the first victim of
    a group kill is named twice); ``reaped`` None is "no word of the reaper"."""

    pid: int
    comm: str
    uid: int | None = None
    score: int | None = None
    total_vm_bytes: int | None = None
    anon_rss_bytes: int | None = None
    file_rss_bytes: int | None = None
    shmem_rss_bytes: int | None = None
    #: OpenVZ prints these alone
    rss_bytes: int | None = None
    swap_bytes: int | None = None
    pgtables_bytes: int | None = None
    oom_score_adj: int | None = None
    role: Role = "selected"
    kills: int = 1
    reaped: bool | None = None


class TasksLeftOut(Part, frozen=True, kw_only=True):
    """The smallest of the tasks that the kernel listed, where it listed more than are kept: how many, and
    what they held together. Amounts are None where the page size is unknown."""

    count: int
    rss_bytes: int | None = None
    swap_bytes: int | None = None
    pgtables_bytes: int | None = None


class OomReport(Part, frozen=True, kw_only=True):
    """One OOM invocation (or page allocation failure), decoded from its records alone."""

    kind: Kind
    complete: bool
    #: names of absent parts: header, cpu, memcg, mem_info, tasks, constraint, kill
    missing: tuple[str, ...] = ()
    lost_records: int = 0
    first_usec: int | None = None
    #: stamp of the first kill line
    kill_usec: int | None = None
    first_wall: float | None = None
    kernel: str | None = None
    arch: str | None = None
    page_size_bytes: int | None = None
    trigger: Trigger = Trigger()
    constraint: Constraint | None = None
    #: how the constraint is known: "line" (oom-kill:), "text" (the wording), "inferred", "trace"
    constraint_basis: Literal["line", "text", "inferred", "trace"] | None = None
    memcg: Memcg | None = None
    memory: Memory | None = None
    tasks: tuple[Task, ...] = ()
    #: listed tasks that are not among ``tasks``
    tasks_left_out: TasksLeftOut | None = None
    slab: tuple[SlabCache, ...] = ()
    allocations: tuple[Allocation, ...] = ()
    #: kill lines: what the kernel's oom_kill counter counts
    kills: int = 0
    victims: tuple[Victim, ...] = ()
    #: the victim the kernel chose (intent line, or oom-kill: line), which may differ from who died
    chosen_pid: int | None = None
    chosen_comm: str | None = None
    #: the kill line says that vm.oom_kill_allocating_task chose: who asked was killed
    allocating_task: bool = False
    #: "already exiting", "panic_on_oom", "no killable processes" ... as printed
    outcome: str | None = None
    #: headers the kernel's rate limit swallowed before this report
    suppressed_headers: int | None = None
    #: lines inside the block that no form knows
    undecoded: tuple[str, ...] = ()
