"""The records of one block -> OomReport.

Every line is read by its form; what no form knows is kept in ``undecoded``. ``decode`` cannot raise:
a line whose figures do not fit is undecoded too.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Literal

import msgspec

from oomwatchd.formats import (
    Section,
    dump_stack,
    gfp,
    memcontrol,
    neighbours,
    oom_kill,
    page_alloc,
    rx,
    show_mem,
    slab_common,
)
from oomwatchd.formats.recognise import recognise, recognise_row
from oomwatchd.formats.task_table import TaskTable
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import (
    Allocation,
    Constraint,
    FreeBlocks,
    Hugepages,
    Kind,
    Memcg,
    MemcgCounter,
    MemcgStat,
    Memory,
    Node,
    OomReport,
    Role,
    SlabCache,
    Swap,
    Trigger,
    Victim,
    Zone,
)

Match = re.Match[str]

_CONSTRAINTS: dict[str, Constraint] = {
    "CONSTRAINT_NONE": "none",
    "CONSTRAINT_CPUSET": "cpuset",
    "CONSTRAINT_MEMORY_POLICY": "memory_policy",
    "CONSTRAINT_MEMCG": "memcg",
}


def decode(
    records: Iterable[KmsgRecord],
    *,
    lost_records: int = 0,
    page_size_bytes: int | None = None,
    kernel: str | None = None,
    arch: str | None = None,
) -> OomReport:
    """Decode one block.

    ``page_size_bytes``, ``kernel`` and ``arch`` are the host's own, where it is known that the
    records are its; else they are taken from the text, or stay None.
    """
    decoder = _Decoder(page_size_bytes)
    decoder.take_all(records if isinstance(records, Sequence) else tuple(records))
    return decoder.report(lost_records=lost_records, kernel=kernel, arch=arch)


class _ZoneParts:
    """One zone's lines, as they come: amounts, lowmem_reserve, buddy list."""

    __slots__ = ("amounts", "blocks", "blocks_total", "node", "reserve", "zone")

    def __init__(self, node: int | None, zone: str) -> None:
        self.node = node
        self.zone = zone
        self.amounts: dict[str, int | bool] = {}
        self.reserve: tuple[int, ...] | None = None
        self.blocks: tuple[FreeBlocks, ...] | None = None
        self.blocks_total: int | None = None


class _VictimParts:
    """One victim's lines, as they come."""

    __slots__ = ("comm", "figures", "kills", "pid", "reaped", "role", "score", "uid")

    def __init__(self, pid: int, comm: str, role: Role) -> None:
        self.pid = pid
        self.comm = comm
        self.role: Role = role
        self.figures: dict[str, int] = {}
        self.uid: int | None = None
        self.score: int | None = None
        self.kills = 0
        self.reaped: bool | None = None


_PAGE_SIZES_KB = (4, 8, 16, 32, 64, 256)
_DUMPS = (dump_stack.CPU, dump_stack.PID)
_HEADERS = frozenset(
    form.name
    for form in (
        oom_kill.HEADER,
        oom_kill.BARE_HEADER,
        oom_kill.OPENVZ_HEADER,
        page_alloc.ALLOC_FAILURE,
        page_alloc.NOMMU_FAILURE,
    )
)

_PAGE_LINES = {
    "total pagecache pages": "pagecache",
    "pages RAM": "ram",
    "pages of RAM": "ram",
    "pages HighMem": "highmem",
    "pages HighMem/MovableOnly": "highmem",
    "pages reserved": "reserved",
    "reserved pages": "reserved",
    "pages cma reserved": "cma_reserved",
    "pages hwpoisoned": "hwpoisoned",
    "pages in swap cache": "swap_cache",
    "pages swap cached": "swap_cache",
}


class _Decoder:
    """Takes the records of one block in their order and keeps what they say in the kernel's units."""

    def __init__(self, page_size_bytes: int | None) -> None:
        self._given_page_size = page_size_bytes
        self._buddy_page_size: int | None = None
        self._section = Section.BEFORE
        self._seen: set[str] = set()
        self._first: KmsgRecord | None = None
        self._raw = False
        self._kill_usec: int | None = None
        self._undecoded: list[str] = []
        self._stack: list[str] = []
        self._elided = False
        # trigger
        self._comm: str | None = None
        self._pid: int | None = None
        self._uid: int | None = None
        self._cpu: int | None = None
        self._header_rest = ""
        self._mask_names: tuple[str, ...] | None = None
        self._order: int | None = None
        self._cpuset: str | None = None
        self._mems: str | None = None
        self._nodemask: str | None = None
        self._sysrq = False
        self._release: str | None = None
        # memory cgroup
        self._oom_path: str | None = None
        self._task_path: str | None = None
        self._group_path: str | None = None
        self._counters: dict[str, MemcgCounter] = {}
        self._stats: list[MemcgStat] = []
        self._stats_path: str | None = None
        self._protection: tuple[int, int] | None = None
        # memory
        self._totals: dict[str, int] = {}
        self._nodes: dict[int, Node] = {}
        self._zones: dict[tuple[int | None, str], _ZoneParts] = {}
        self._last_zone: _ZoneParts | None = None
        self._pages: dict[str, int] = {}
        self._other_pages: dict[str, int] = {}
        self._swap_kb: dict[str, int] = {}
        self._hugepages: list[Hugepages] = []
        self._slab: list[SlabCache] = []
        self._allocations: list[Allocation] = []
        # tasks
        self._table = TaskTable()
        # outcome
        self._summary: tuple[str, str] | None = None
        self._chosen: tuple[int, str, int] | None = None
        self._message: str | None = None
        self._victims: dict[int, _VictimParts] = {}
        self._kills = 0
        self._outcome: str | None = None
        self._panic = False
        self._suppressed: int | None = None
        self._failure = False

    # -- lines -------------------------------------------------------------------------------------

    def take_all(self, records: Sequence[KmsgRecord]) -> None:
        """Read the records, the rows of the task table all at once."""
        at = 0
        while at < len(records):
            if self._section is Section.TASKS:
                at += self._table.take_rows([record.text for record in islice(records, at, None)])
                if at == len(records):
                    return
            self.take(records[at])
            at += 1

    def take(self, record: KmsgRecord) -> None:
        """Read one record."""
        if self._first is None:
            self._first = record
            self._raw = record.is_whole
        text = record.text
        if self._section is Section.TASKS and self._table.takes(text):
            return
        found = recognise(text, raw=self._raw) or recognise_row(text, self._section)
        if found is None:
            self._unknown(record)
            return
        form, m = found
        if form in _DUMPS and self._section > Section.STACK and not self._seen & _HEADERS and not self._panic:
            return  # behind the summary stands another report's, which broke into this one
        self._seen.add(form.name)
        self._section = max(self._section, form.section)
        try:
            _HANDLERS[form.name](self, m)
        except (ValueError, OverflowError, msgspec.ValidationError):
            self._undecoded.append(text)
        if form is oom_kill.KILLED and self._kill_usec is None:
            self._kill_usec = record.usec

    def _unknown(self, record: KmsgRecord) -> None:
        if Section.HEADER <= self._section <= Section.STACK:
            self._stack.append(record.text)
        elif record.text.strip():
            self._undecoded.append(record.text)
        if not self._raw and _ELISION.match(record.text) and not self._in_stack_dump():
            self._elided = True

    def _in_stack_dump(self) -> bool:
        """MIPS ends the hex words of its stack with dots of its own."""
        return len(self._stack) > 1 and bool(_HEX_WORDS.search(self._stack[-2][-80:]))

    def _header(self, m: Match) -> None:
        self._comm = m["comm"] if self._raw or not m["comm"] else m["comm"].lstrip(_QUOTES) or m["comm"]
        self._header_rest = m["rest"] or ""
        if order := _ORDER.search(self._header_rest):
            self._order = int(order[1])
        if nodemask := _NODEMASK.search(self._header_rest):
            self._nodemask = None if nodemask[1] == "(null)" else nodemask[1]

    def _openvz_header(self, m: Match) -> None:
        self._comm, self._pid = m["comm"], int(m["pid"])
        self._header_rest = f"gfp_mask={m['mask']}"

    def _alloc_failure(self, m: Match) -> None:
        self._failure = True
        self._comm = m["comm"]
        self._outcome = m["what"].rstrip(",: ")
        self._order = int(m["order"]) if m["order"] else None
        self._header_rest = "gfp_mask=" + m["mode"]
        if nodemask := _NODEMASK.search(m["mode"]):
            self._nodemask = None if nodemask[1] == "(null)" else nodemask[1]
        if cpuset := _FAILURE_CPUSET.search(m["mode"]):
            self._cpuset, self._mems = cpuset[1], cpuset[2]

    def _nommu_failure(self, m: Match) -> None:
        self._failure = True
        self._pid = int(m["pid"])
        self._comm = m["comm"]
        self._outcome = f"allocation of {m['length']} bytes failed"

    def _cpuset_line(self, m: Match) -> None:
        self._cpuset, self._mems = m["cpuset"], m["mems"]

    def _cpu_line(self, m: Match) -> None:
        if self._pid is not None and self._release is not None:
            return  # a second dump_stack() inside the block is not the trigger's
        if self._panic:
            self._release = self._release or m["release"]
            return  # panic()'s own
        groups = m.groupdict()
        self._pid = int(m["pid"])
        self._cpu = int(groups["cpu"]) if groups.get("cpu") else None
        self._uid = int(groups["uid"]) if groups.get("uid") else None
        self._release = m["release"]
        if self._release is not None and not self._raw:
            self._release = _BEHIND_RELEASE.sub("", self._release)
        # the same name stands in the header; in text one of the two may have lost its first word to a
        # prefix, or kept a rest of one
        header, name = self._comm, m["comm"]
        if header is None or (
            not self._raw
            and (name.endswith(f" {header}") or header.endswith(f" {name}") or name.lstrip(_QUOTES) == header)
        ):
            self._comm = name

    def _ignore(self, m: Match) -> None:
        """A line that only marks a place."""

    def _task_in(self, m: Match) -> None:
        self._task_path, oom = memcontrol.parse_task_in(m["paths"])
        self._oom_path = oom if oom is not None else self._oom_path

    def _limit_of(self, m: Match) -> None:
        self._oom_path = m["path"]

    def _usage(self, m: Match) -> None:
        self._counters[m["counter"]] = memcontrol.counter(int(m["usage"]), int(m["limit"]), int(m["failcnt"]))

    def _stats_line(self, m: Match) -> None:
        self._stats_path = m["path"]
        figures = memcontrol.parse_kb_stats(m["stats"])
        self._stats.append(MemcgStat(path=m["path"], stat=figures, unit_bytes=1024 if figures else 1))

    def _stat_row(self, m: Match) -> None:
        figures = memcontrol.parse_stats(m[0])
        if self._stats and self._stats[-1].unit_bytes == 1:
            self._stats[-1].stat.update(figures)
        else:
            self._stats.append(MemcgStat(path=self._stats_path, stat=figures, unit_bytes=1))

    def _protection_line(self, m: Match) -> None:
        self._protection = (int(m["min"]) * 1024, int(m["low"]) * 1024)

    def _totals_line(self, m: Match) -> None:
        self._totals.update(show_mem.parse_totals(m[0]))
        self._elided = self._elided or "..." in m[0] or "\u2026" in m[0]

    def _node(self, m: Match) -> None:
        node = int(m["node"])
        self._nodes[node] = Node(node=node, amounts=show_mem.parse_amounts(m["amounts"]))

    def _zone_of(self, m: Match) -> _ZoneParts:
        node = int(m["node"]) if m["node"] else None
        return self._zones.setdefault((node, m["zone"]), _ZoneParts(node, m["zone"]))

    def _zone(self, m: Match) -> None:
        self._last_zone = self._zone_of(m)
        self._last_zone.amounts = show_mem.parse_amounts(m["amounts"])

    def _lowmem_reserve(self, m: Match) -> None:
        if self._last_zone is not None:
            self._last_zone.reserve = tuple(int(pages) for pages in m["pages"].split())

    def _buddy(self, m: Match) -> None:
        blocks, total, page_size = show_mem.parse_buddy(m["orders"])
        parts = self._zone_of(m)
        parts.blocks, parts.blocks_total = blocks, total
        self._buddy_page_size = self._buddy_page_size or page_size

    def _hugepages_line(self, m: Match) -> None:
        self._hugepages.append(
            Hugepages(
                node=int(m["node"]) if m["node"] else None,
                total=int(m["total"]),
                free=int(m["free"]),
                surplus=int(m["surplus"]),
                size_bytes=int(m["size"]) * 1024,
            )
        )

    def _swap_line(self, m: Match) -> None:
        self._swap_kb[m["what"]] = int(m["kb"])

    def _pages_line(self, m: Match) -> None:
        name = _PAGE_LINES.get(m["what"])
        if name:
            self._pages[name] = int(m["pages"])
        else:
            self._other_pages[m["what"]] = int(m["pages"])

    def _slab_row(self, m: Match) -> None:
        self._slab.append(
            SlabCache(name=m["name"], used_bytes=int(m["used"]) * 1024, total_bytes=int(m["total"]) * 1024)
        )

    def _allocation(self, m: Match) -> None:
        self._allocations.append(
            slab_common.parse_allocation(m["size"], m["calls"], m["location"], m["module"], m["function"])
        )

    def _tasks_header(self, m: Match) -> None:
        self._table.header(m["columns"].split()[:-1])

    def _tasks_row(self, m: Match) -> None:
        text = m.string.lstrip(" \t")
        if not self._table.takes(text):
            self._table.take_without_header(text, m["figures"].split())

    def _summary_line(self, m: Match) -> None:
        self._summary = (m["constraint"], m["rest"])

    def _intent(self, m: Match) -> None:
        self._chosen = (int(m["pid"]), m["comm"], int(m["score"]))
        self._message = self._message or m["message"]

    def _victim(self, pid: int, comm: str, role: Role) -> _VictimParts:
        victim = self._victims.get(pid)
        if victim is None:
            victim = self._victims[pid] = _VictimParts(pid, comm, role)
        return victim

    def _killed(self, m: Match) -> None:
        role: Role = "group" if self._group_path is not None else "selected"
        victim = self._victim(int(m["pid"]), m["comm"], role)
        figures = oom_kill.sizes(m["sizes"] or "")
        uid = figures.pop("UID", None) if "UID" in figures else m["uid_before"] or m["uid_after"]
        if len(figures) > len(victim.figures) or victim.kills == 0:  # the first whole line counts
            victim.figures = figures
            victim.uid = int(uid) if uid is not None else victim.uid
        victim.kills += 1
        self._kills += 1
        self._message = self._message or m["message"]

    def _sharing(self, m: Match) -> None:
        self._victim(int(m["pid"]), m["comm"], "shares_mm")

    def _already_exiting(self, m: Match) -> None:
        self._outcome = "already exiting"
        self._message = self._message or m["message"]
        self._chosen = self._chosen or (int(m["pid"]), m["comm"], 0)

    def _spared(self, m: Match) -> None:
        self._outcome = "spared"
        self._chosen = self._chosen or (int(m["pid"]), m["comm"], 0)

    def _group(self, m: Match) -> None:
        self._group_path = m["path"]

    def _reaped(self, m: Match) -> None:
        if victim := self._victims.get(int(m["pid"])):
            victim.reaped = True

    def _reap_failed(self, m: Match) -> None:
        if victim := self._victims.get(int(m["pid"])):
            victim.reaped = False

    def _no_killable(self, m: Match) -> None:
        self._outcome = "no killable processes"

    def _panic_line(self, m: Match) -> None:
        self._panic = True
        self._outcome = m["why"].removesuffix("]---").strip()

    def _sysrq_line(self, m: Match) -> None:
        self._sysrq = True

    def _suppressed_line(self, m: Match) -> None:
        self._suppressed = int(m["count"])

    # -- the whole ---------------------------------------------------------------------------------

    def report(self, *, lost_records: int, kernel: str | None, arch: str | None) -> OomReport:
        """What the lines say together."""
        summary = self._parsed_summary()
        page_size = self._page_size()
        constraint, basis = self._constraint(summary)
        victims = self._victim_list(summary)
        memory = self._memory(page_size)
        memcg = self._memcg(summary)
        missing = self._missing(constraint)
        release = self._release or kernel
        chosen_pid, chosen_comm = (self._chosen[0], self._chosen[1]) if self._chosen else (None, None)
        if summary and summary.pid is not None and chosen_pid is None:
            chosen_pid, chosen_comm = summary.pid, summary.task
        return OomReport(
            kind=self._kind(victims),
            complete=not missing and lost_records == 0,
            missing=missing,
            lost_records=lost_records,
            first_usec=self._first.usec if self._first else None,
            kill_usec=self._kill_usec,
            first_wall=self._first.wall if self._first else None,
            kernel=release,
            arch=arch or dump_stack.architecture(release, self._stack),
            page_size_bytes=page_size,
            trigger=self._trigger(summary),
            constraint=constraint,
            constraint_basis=basis,
            memcg=memcg,
            memory=memory,
            tasks=self._table.tasks(page_size),
            slab=tuple(self._slab),
            allocations=tuple(self._allocations),
            kills=self._kills,
            victims=victims,
            chosen_pid=chosen_pid,
            chosen_comm=chosen_comm,
            allocating_task="oom_kill_allocating_task" in (self._message or ""),
            outcome=self._outcome,
            suppressed_headers=self._suppressed,
            undecoded=(*self._undecoded, *self._table.rejected),
        )

    def _kind(self, victims: tuple[Victim, ...]) -> Kind:
        if self._failure:
            return "page_alloc_failure"
        if victims:
            return "oom_kill"
        return "oom_panic" if self._panic else "oom_no_victim"

    def _parsed_summary(self) -> oom_kill.Summary | None:
        if self._summary is None:
            return None
        constraint, rest = self._summary
        summary = oom_kill.parse_summary(constraint, rest)
        known = None
        if summary.pid in self._victims:
            known = self._victims[summary.pid].comm
        elif summary.pid is not None:
            listed = dict(zip(self._table.pids, self._table.names, strict=True))
            known = listed.get(summary.pid)
        return oom_kill.parse_summary(constraint, rest, known) if known is not None else summary

    def _constraint(
        self, summary: oom_kill.Summary | None
    ) -> tuple[Constraint | None, Literal["line", "text", "inferred", "trace"] | None]:
        """The constraint and how it is known; a constant that no table knows (BPF policies print
        their own) leaves it to the other words of the report."""
        if self._failure:
            return None, None
        in_memcg = (
            (self._message or "").startswith("Memory cgroup")
            or bool(self._counters)
            or bool(self._stats)
            or self._oom_path is not None
        )
        if summary:
            printed = _CONSTRAINTS.get(summary.constraint)
            if printed == "none" and (in_memcg or summary.oom_memcg is not None) and not summary.global_oom:
                return "memcg", "text"  # 5.2-mm and 5.3-rc printed NONE for a limit's OOM
            if printed:
                return printed, "line"
            if summary.oom_memcg is not None:
                return "memcg", "text"
        if in_memcg:
            return "memcg", "text"
        if self._message and "MPOL_BIND" in self._message:
            return "memory_policy", "text"
        if self._message and "cpuset" in self._message:
            return "cpuset", "text"
        if self._message and self._message.startswith(("Out of memory", "Out of Memory")):
            return "none", "inferred"
        if any(words in (self._outcome or "") for words in _SYSTEM_WIDE):
            return "none", "inferred"
        if any("mem_cgroup_out_of_memory" in line for line in self._stack) or any(
            name in _CHARGING for line in self._stack for name in dump_stack.symbols(line)
        ):
            return "memcg", "trace"
        return None, None

    def _trigger(self, summary: oom_kill.Summary | None) -> Trigger:
        mask = _MASK.search(self._header_rest)
        bits = int(mask[1], 16) if mask else None
        flags: tuple[str, ...] | None = None
        if mask and mask[2] is not None:
            flags = tuple(name for name in _FLAG_END.split(re.sub(r"\s", "", mask[2])) if name)
            flags = None if "..." in flags else flags
        elif (
            bits is not None
            and not self._seen & _NAMES_ARE_PRINTED
            and not self._table.has("pgtables_bytes")
            and not gfp.is_later(bits)
        ):
            flags = gfp.names(
                bits,
                gfp.era_of(
                    bits,
                    oomkilladj="oomkilladj=" in self._header_rest or oom_kill.BARE_HEADER.name in self._seen,
                    since_4_1="free_pcp" in self._totals or self._table.has("nr_pmds"),
                    since_4_5=any("shmem-rss" in victim.figures for victim in self._victims.values()),
                ),
            )
        adj = _SCORE_ADJ.search(self._header_rest)
        old_adj = _OLD_ADJ.search(self._header_rest)
        return Trigger(
            comm=self._comm,
            pid=self._pid,
            uid=self._uid,
            cpu=self._cpu,
            gfp_mask=bits,
            gfp_flags=flags,
            highest_zone=gfp.highest_zone(
                flags if flags is not None or bits is None else gfp.zone_flags(bits)
            ),
            order=self._order,
            oom_score_adj=int(adj[1]) if adj else None,
            oom_adj=int(old_adj[1]) if old_adj else None,
            cpuset=summary.cpuset if summary and summary.cpuset is not None else self._cpuset,
            mems_allowed=summary.mems_allowed if summary and summary.mems_allowed else self._mems,
            nodemask=summary.nodemask if summary and summary.nodemask else self._nodemask,
            call_trace=tuple(name for line in self._stack for name in dump_stack.symbols(line)),
            sysrq=self._sysrq or self._order == -1,
        )

    def _memcg(self, summary: oom_kill.Summary | None) -> Memcg | None:
        oom_path = summary.oom_memcg if summary and summary.oom_memcg is not None else self._oom_path
        task_path = summary.task_memcg if summary and summary.task_memcg is not None else self._task_path
        if not self._raw:  # of a path that was shortened by hand nobody knows the whole
            oom_path, task_path = (
                None if path is not None and _ELIDED_PATH.search(path) else path
                for path in (oom_path, task_path)
            )
        own = next((stat for stat in self._stats if stat.path == oom_path), None)
        own = own or (self._stats[0] if self._stats else None)
        if oom_path is None and own is not None and own.path:
            oom_path = own.path
        memcg = Memcg(
            oom_path=oom_path,
            task_path=task_path,
            group_path=self._group_path,
            memory=self._counters.get("memory"),
            swap=self._counters.get("swap"),
            memory_swap=self._counters.get("memory+swap"),
            kmem=self._counters.get("kmem"),
            stat=own.stat if own else {},
            stat_unit_bytes=own.unit_bytes if own and own.stat else None,
            descendants=tuple(stat for stat in self._stats if stat is not own),
            min_protection_bytes=self._protection[0] if self._protection else None,
            low_protection_bytes=self._protection[1] if self._protection else None,
        )
        return None if memcg == Memcg() else memcg

    def _memory(self, page_size: int | None) -> Memory | None:
        if not (self._totals or self._zones or self._nodes or self._pages or self._swap_kb):
            return None

        def in_bytes(pages: int | None) -> int | None:
            return None if pages is None or page_size is None else pages * page_size

        swap = None
        if self._swap_kb or "swap_cache" in self._pages:
            free, total = self._swap_kb.get("Free"), self._swap_kb.get("Total")
            swap = Swap(
                free_bytes=None if free is None else free * 1024,
                total_bytes=None if total is None else total * 1024,
                cache_bytes=in_bytes(self._pages.get("swap_cache")),
            )
        return Memory(
            totals={f"{name}_bytes": in_bytes(pages) for name, pages in self._totals.items()},
            nodes=tuple(self._nodes.values()),
            zones=tuple(
                Zone(
                    node=parts.node,
                    zone=parts.zone,
                    amounts=parts.amounts,
                    lowmem_reserve_bytes=(
                        tuple(pages * page_size for pages in parts.reserve)
                        if parts.reserve is not None and page_size is not None
                        else None
                    ),
                    free_blocks=parts.blocks,
                    free_blocks_total_bytes=parts.blocks_total,
                )
                for parts in self._zones.values()
            ),
            swap=swap,
            pagecache_bytes=in_bytes(self._pages.get("pagecache")),
            ram_bytes=in_bytes(self._pages.get("ram")),
            highmem_bytes=in_bytes(self._pages.get("highmem")),
            reserved_bytes=in_bytes(self._pages.get("reserved")),
            cma_reserved_bytes=in_bytes(self._pages.get("cma_reserved")),
            hwpoisoned_bytes=in_bytes(self._pages.get("hwpoisoned")),
            hugepages=tuple(self._hugepages),
            other_pages=self._other_pages,
        )

    def _page_size(self) -> int | None:
        """The buddy list's order 0 block; else a victim's total-vm in kB against its row in pages;
        else the host's own."""
        if self._buddy_page_size:
            return self._buddy_page_size
        for victim in self._victims.values():
            kb = victim.figures.get("total-vm", victim.figures.get("vsz"))
            pages = self._table.figure(victim.pid, "total_vm")
            if kb and pages and kb % pages == 0 and kb // pages in _PAGE_SIZES_KB:
                return kb // pages * 1024
        return self._given_page_size

    def _victim_list(self, summary: oom_kill.Summary | None) -> tuple[Victim, ...]:
        if not self._victims and self._outcome is None and not self._raw:
            # a text that ends with the choice: who was chosen is the best that it tells
            if self._chosen:
                self._victim(self._chosen[0], self._chosen[1], "selected")
            elif summary and summary.pid is not None:
                self._victim(summary.pid, summary.task or "", "selected")
        return tuple(self._one_victim(victim, summary) for victim in self._victims.values())

    def _one_victim(self, parts: _VictimParts, summary: oom_kill.Summary | None) -> Victim:
        kb = parts.figures

        def in_bytes(*names: str) -> int | None:
            return next((kb[name] * 1024 for name in names if name in kb), None)

        pgtables = in_bytes("pgtables")
        if pgtables and self._table.figure(parts.pid, "pgtables_bytes") == kb["pgtables"]:
            pgtables = kb["pgtables"]  # 5.4.0 printed bytes as kB
        uid = parts.uid
        if uid is None and summary and summary.pid == parts.pid:
            uid = summary.uid
        score = self._chosen[2] if self._chosen and self._chosen[0] == parts.pid else None
        if self._outcome == "already exiting":
            score = None
        return Victim(
            pid=parts.pid,
            comm=parts.comm,
            uid=uid,
            score=score,
            total_vm_bytes=in_bytes("total-vm", "vsz", "vm"),
            anon_rss_bytes=in_bytes("anon-rss"),
            file_rss_bytes=in_bytes("file-rss"),
            shmem_rss_bytes=in_bytes("shmem-rss"),
            pgtables_bytes=pgtables,
            oom_score_adj=kb.get("oom_score_adj"),
            role=parts.role,
            kills=parts.kills,
            reaped=parts.reaped,
        )

    def _missing(self, constraint: Constraint | None) -> tuple[str, ...]:
        """The parts that such a report has and this one lacks.

        A report without task table is whole where vm.oom_dump_tasks is 0: nothing of the table is
        there, and its neighbours are. The stack stands behind every header.
        """
        missing = ["elided"] if self._elided else []
        header = bool(self._seen & _HEADERS)
        if not header:
            missing.append("header")
        elif not self._stack and oom_kill.BARE_HEADER.name not in self._seen:
            missing.append("stack")
        if constraint == "memcg":
            if not self._is_memcg_whole():
                missing.append("memcg")
        elif not self._is_mem_info_whole():
            missing.append("mem_info")
        if self._failure:
            return tuple(missing)
        if self._is_table_cut(header):
            missing.append("tasks")
        if not (self._kills or self._outcome):
            missing.append("kill")
        if self._summary is None and self._summary_expected(header):
            missing.append("constraint")
        return tuple(missing)

    def _is_memcg_whole(self) -> bool:
        """Up to 3.8 a cgroup's report has the zones, from 3.9 on the cgroup's statistics in their place."""
        return bool(self._zones) or bool(self._counters and self._stats)

    def _is_mem_info_whole(self) -> bool:
        """Each zone is printed twice: its amounts, then its free blocks."""
        return (
            bool(self._zones)
            and bool(self._totals or show_mem.MEM_INFO.name in self._seen)
            and all(zone.amounts and zone.blocks for zone in self._zones.values())
        )

    def _is_table_cut(self, header: bool) -> bool:
        """The table lacks its header, or rows: that of the victim, which is always listed."""
        has_head = oom_kill.TASKS_HEADER.name in self._seen
        if not self._table:
            if not has_head:
                return not header
            return not self._raw and self._outcome is None  # it is empty where no task is eligible
        listed, names = set(self._table.pids), set(self._table.names)
        return not has_head or any(
            victim.pid not in listed and victim.comm not in names  # the kill line may name a thread
            for victim in self._victims.values()
            if victim.role == "selected"
        )

    def _summary_expected(self, header: bool) -> bool:
        """5.4 and later print a summary line with every header; a lone kill line has lost its own."""
        if any("pgtables" in victim.figures for victim in self._victims.values()):
            return True
        return not header and self._kills > 0 and self._chosen is None


#: outcomes of a global OOM; a "compulsory" panic_on_oom (2) takes place under any constraint
_SYSTEM_WIDE = ("no killable processes", "deadlocked on memory", "system-wide", "panic_on_oom is selected")
#: who charges a cgroup, and finds it at its limit
_CHARGING = frozenset({
    "mem_cgroup_oom_synchronize", "mem_cgroup_handle_oom", "__mem_cgroup_try_charge", "try_charge",
    "try_charge_memcg",
})  # fmt: skip
#: with these a copy's line may begin, and a task's name hardly
_QUOTES = "\"'`\u2018\u201c\u201d"
#: what a copy's line has behind the release: quotation marks, commas
_BEHIND_RELEASE = re.compile(r"[\"',;`\u201d].*")
_ELIDED_PATH = re.compile(r"/(?:\.{3}|\u2026)(?:/|$)")
#: what people write where they left lines out
_ELISION = re.compile(
    r"\s*(?!-{3,}\[ cut here)"
    r"(?:[\[<(*~=-]{1,8}\s*"
    r"(?:\.{2,}|\u2026|(?:\w{1,12} ){0,4}(?:snip|cut|trim|skip|omit|truncat|remov)|\u7701\u7565)"
    r"|\.{2,}\s*(?:snip|cut|trim|skip|omit|$)|\u2026|\.{3,})",
    re.IGNORECASE,
)
_HEX_WORDS = re.compile(r"(?:\b[0-9a-f]{8,16}\b\s*){2,}$")
_MASK = rx(r"gfp_mask=(0x[0-9a-f]{1,16}|[0-9a-f]{1,16})(?:\(([^)]*)\)?)?")
#: text may have lost the "|" to a reader that took it for a quotation mark
_FLAG_END = re.compile(r"\||(?<=[A-Z0-9])(?=__GFP_)")
_ORDER = rx(r"order=(-?\d+)")
_NODEMASK = re.compile(r"nodemask=(\(null\)|[\d,-]*\d)")
_SCORE_ADJ = rx(r"oom_score_adj=(-?\d+)")
_OLD_ADJ = rx(r"(?:oom_adj|oomkilladj)=(-?\d+)")
_FAILURE_CPUSET = re.compile(r",cpuset=(.*),mems_allowed=([\d,-]*)$", re.DOTALL)

#: forms of kernels that print flag names; where one of them is seen a bare number stays a number
_NAMES_ARE_PRINTED = frozenset({oom_kill.SUMMARY.name, show_mem.NODE.name, oom_kill.TASKS_TITLE.name})

_HANDLERS: dict[str, Callable[[_Decoder, Match], None]] = {
    oom_kill.HEADER.name: _Decoder._header,
    oom_kill.BARE_HEADER.name: _Decoder._header,
    oom_kill.OPENVZ_HEADER.name: _Decoder._openvz_header,
    oom_kill.COMPACTION.name: _Decoder._ignore,
    oom_kill.CPUSET.name: _Decoder._cpuset_line,
    oom_kill.TASKS_TITLE.name: _Decoder._ignore,
    oom_kill.TASKS_HEADER.name: _Decoder._tasks_header,
    oom_kill.TASKS_ROW.name: _Decoder._tasks_row,
    oom_kill.SUMMARY.name: _Decoder._summary_line,
    oom_kill.INTENT.name: _Decoder._intent,
    oom_kill.KILLED.name: _Decoder._killed,
    oom_kill.SHARING.name: _Decoder._sharing,
    oom_kill.ALREADY_EXITING.name: _Decoder._already_exiting,
    oom_kill.SPARED.name: _Decoder._spared,
    oom_kill.GROUP.name: _Decoder._group,
    oom_kill.MM_PINNED.name: _Decoder._ignore,
    oom_kill.REAPED.name: _Decoder._reaped,
    oom_kill.REAP_FAILED.name: _Decoder._reap_failed,
    oom_kill.NO_KILLABLE.name: _Decoder._no_killable,
    oom_kill.PANIC.name: _Decoder._panic_line,
    oom_kill.SYSRQ.name: _Decoder._sysrq_line,
    oom_kill.SYSRQ_REFUSED.name: _Decoder._ignore,
    oom_kill.SUPPRESSED.name: _Decoder._suppressed_line,
    memcontrol.TASK_IN.name: _Decoder._task_in,
    memcontrol.LIMIT_OF.name: _Decoder._limit_of,
    memcontrol.LIMIT_REACHED.name: _Decoder._limit_of,
    memcontrol.USAGE.name: _Decoder._usage,
    memcontrol.STATS.name: _Decoder._stats_line,
    memcontrol.STAT.name: _Decoder._stat_row,
    memcontrol.PROTECTION.name: _Decoder._protection_line,
    show_mem.MEM_INFO.name: _Decoder._ignore,
    show_mem.PCP_ZONE.name: _Decoder._ignore,
    show_mem.PCP_CPU.name: _Decoder._ignore,
    show_mem.FREE_PAGES.name: _Decoder._ignore,
    show_mem.TOTALS.name: _Decoder._totals_line,
    show_mem.NODE.name: _Decoder._node,
    show_mem.ZONE.name: _Decoder._zone,
    show_mem.LOWMEM_RESERVE.name: _Decoder._lowmem_reserve,
    show_mem.BUDDY.name: _Decoder._buddy,
    show_mem.HUGEPAGES.name: _Decoder._hugepages_line,
    show_mem.SWAP_KB.name: _Decoder._swap_line,
    show_mem.SWAP_CACHE_STATS.name: _Decoder._ignore,
    show_mem.PAGES.name: _Decoder._pages_line,
    slab_common.SLAB_TITLE.name: _Decoder._ignore,
    slab_common.SLAB_HEADER.name: _Decoder._ignore,
    slab_common.ALLOCATIONS_TITLE.name: _Decoder._ignore,
    slab_common.SLAB_ROW.name: _Decoder._slab_row,
    slab_common.ALLOCATION.name: _Decoder._allocation,
    dump_stack.CPU.name: _Decoder._cpu_line,
    dump_stack.PID.name: _Decoder._cpu_line,
    dump_stack.HARDWARE.name: _Decoder._ignore,
    dump_stack.CALL_TRACE.name: _Decoder._ignore,
    page_alloc.ALLOC_FAILURE.name: _Decoder._alloc_failure,
    page_alloc.NOMMU_FAILURE.name: _Decoder._nommu_failure,
    **{form.name: _Decoder._ignore for form in neighbours.FORMS},
}
