"""What the lines of one report say, part by part, as printed: in the kernel's units, nothing derived.

The readers of the forms write here, one line after the other; ``reports.decode`` builds the report from it.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from oomwatchd.formats.task_table import TaskTable
from oomwatchd.records.report import (
    Allocation,
    FreeBlocks,
    Hugepages,
    MemcgCounter,
    MemcgStat,
    Node,
    SlabCache,
)
from oomwatchd.records.report import Role as VictimRole
from oomwatchd.words.deferred import deferred

_ORDER = deferred(r"order=(-?\d{1,14})(?!\d)")
_NODEMASK = deferred(r"nodemask=(\(null\)|[\d,-]*\d)")


class TriggerLines:
    """Who asked for memory, and what for: the header and the lines after it that name the task."""

    __slots__ = (
        "comm", "cpu", "cpuset", "mems", "nodemask", "order", "panicked", "pid", "request", "sysrq", "uid",
    )  # fmt: skip

    def __init__(self) -> None:
        self.comm: str | None = None
        self.pid: int | None = None
        self.uid: int | None = None
        self.cpu: int | None = None
        self.request = ""  # what the header says behind the name: gfp_mask, order, ...
        self.order: int | None = None
        self.nodemask: str | None = None
        self.cpuset: str | None = None
        self.mems: str | None = None
        self.sysrq = False
        self.panicked: tuple[str, int] | None = None  # in whose name the kernel panicked, and its pid

    def requests(self, text: str) -> None:
        """Take ``gfp_mask=0xcc0(GFP_KERNEL), nodemask=(null), order=0, ...``."""
        self.request = text
        if order := _ORDER.search(text):
            self.order = int(order[1])
        if nodemask := _NODEMASK.search(text):
            self.nodemask = None if nodemask[1] == "(null)" else nodemask[1]


class DumpLines:
    """The stack dump: which kernel, and the lines of the call trace."""

    __slots__ = ("release", "stack")

    def __init__(self) -> None:
        self.release: str | None = None
        self.stack: list[str] = []


class MemcgLines:
    """The memory cgroup part."""

    __slots__ = ("beancounter", "claims", "counters", "group_path", "protection", "stats", "stats_path")

    def __init__(self) -> None:
        self.beancounter: str | None = None  # OpenVZ's, in the place of a cgroup
        self.claims: list[tuple[str | None, str | None]] = []  # the task's cgroup, the one at its limit
        self.group_path: str | None = None
        self.counters: dict[str, MemcgCounter] = {}
        self.stats: list[MemcgStat] = []
        self.stats_path: str | None = None
        self.protection: tuple[int, int] | None = None  # min, low, in bytes


class ZoneLines:
    """One zone's lines, as they come: amounts, lowmem_reserve, buddy list."""

    __slots__ = ("amounts", "blocks", "blocks_total", "node", "reserve", "zone")

    def __init__(self, node: int | None, zone: str) -> None:
        self.node = node
        self.zone = zone
        self.amounts: dict[str, int | bool] = {}
        self.reserve: tuple[int, ...] | None = None
        self.blocks: tuple[FreeBlocks, ...] | None = None
        self.blocks_total: int | None = None


class MemoryLines:
    """The Mem-Info part, amounts in pages but for those of zones and nodes."""

    __slots__ = (
        "buddy_page_size", "hugepages", "last_zone", "nodes", "other_pages", "pages", "swap_kb", "totals",
        "zones",
    )  # fmt: skip

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.nodes: dict[int, Node] = {}
        self.zones: dict[tuple[int | None, str], ZoneLines] = {}
        self.last_zone: ZoneLines | None = None
        self.pages: dict[str, int] = {}
        self.other_pages: dict[str, int] = {}
        self.swap_kb: dict[str, int] = {}
        self.hugepages: list[Hugepages] = []
        self.buddy_page_size: int | None = None

    def zone(self, node: str | None, zone: str) -> ZoneLines:
        """The lines of this zone so far; ``node`` as printed."""
        number = int(node) if node else None
        return self.zones.setdefault((number, zone), ZoneLines(number, zone))


class SlabLines:
    """Slab caches, and allocations by their places in the code."""

    __slots__ = ("allocations", "caches")

    def __init__(self) -> None:
        self.caches: list[SlabCache] = []
        self.allocations: list[Allocation] = []


class VictimLines:
    """One victim's lines, as they come."""

    __slots__ = ("comm", "figures", "kills", "pid", "reaped", "role", "score", "uid")

    def __init__(self, pid: int, comm: str, role: VictimRole) -> None:
        self.pid = pid
        self.comm = comm
        self.role: VictimRole = role
        self.figures: dict[str, int] = {}
        self.uid: int | None = None
        self.score: int | None = None
        self.kills = 0
        self.reaped: bool | None = None


class OutcomeLines:
    """Who was chosen, who was killed, and how it ended."""

    __slots__ = (
        "chosen", "failure", "kills", "message", "outcome", "panic", "summary", "suppressed", "victims",
    )  # fmt: skip

    def __init__(self) -> None:
        self.summary: tuple[str, str] | None = None  # constraint, the rest
        self.chosen: tuple[int, str, int | None] | None = None  # pid, name, score
        self.message: str | None = None
        self.victims: dict[int, VictimLines] = {}
        self.kills = 0
        self.outcome: str | None = None
        self.panic = False
        self.failure = False  # an allocation that failed, not the OOM killer's
        self.suppressed: int | None = None

    def victim(self, pid: int, comm: str, role: VictimRole) -> VictimLines:
        """The lines of this victim so far."""
        victim = self.victims.get(pid)
        if victim is None:
            victim = self.victims[pid] = VictimLines(pid, comm, role)
        return victim


class Parts:
    """The report being read. ``raw``: its records are whole records of /dev/kmsg, not copies by people."""

    __slots__ = ("dump", "elided", "memcg", "memory", "outcome", "raw", "slab", "table", "trigger")

    def __init__(self, *, raw: bool) -> None:
        self.raw = raw
        self.elided = False  # somebody left lines or figures out
        self.trigger = TriggerLines()
        self.dump = DumpLines()
        self.memcg = MemcgLines()
        self.memory = MemoryLines()
        self.slab = SlabLines()
        self.table = TaskTable(raw=raw)
        self.outcome = OutcomeLines()
