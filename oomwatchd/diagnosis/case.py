"""What a finding is asked about: the report, the host around it, and the shared arithmetic, once."""

from __future__ import annotations

from functools import cached_property

from oomwatchd.diagnosis.allocator import Request, ZoneVerdict, request_of, zone_verdicts
from oomwatchd.diagnosis.badness import ScoreTable, chosen_victim, score_table
from oomwatchd.diagnosis.memcg import kinds
from oomwatchd.procfs import HostZone, meminfo, zoneinfo
from oomwatchd.records.capture import OomCapture, Snapshot
from oomwatchd.records.report import OomReport, Victim, Zone

#: some of RAM may be in no zone that is printed (ZONE_DEVICE) or be counted by other rules (old ARM)
_WHOLE = 0.9
#: of the memory in all allowed zones
_MINOR_SHARE = 0.1


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
        return request_of(self.report.trigger, by_cpuset=self.report.constraint == "cpuset")

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
    def ram_bytes(self) -> int | None:
        """The memory that the kernel manages (RAM less what was reserved at boot), of the whole machine."""
        memory = self.report.memory
        if memory is None:
            return self.meminfo_at.get("MemTotal")
        if self.confined:
            return self.boot_bytes
        return self._sum_of_zones("managed") or self.boot_bytes or self._sum_of_zones("present")

    @property
    def bound_bytes(self) -> int | None:
        """The memory that there was: the cgroup's limit, else the machine's RAM."""
        memcg = self.report.memcg
        if self.report.constraint == "memcg":
            return memcg.memory.limit_bytes if memcg is not None and memcg.memory is not None else None
        return self.ram_bytes

    def measure(self, kind: str, name: str) -> tuple[int | None, int | None, str]:
        """How much of a kind there is, of what, and what that is called: the cgroup's where one was at its
        limit (what the machine holds of it was not what ran out), else the machine's."""
        memcg = self.report.memcg
        if self.report.constraint != "memcg":
            return self.total(name), self.ram_bytes, "RAM"
        if memcg is None or memcg.memory is None:
            return None, None, ""
        amount: int | None = getattr(kinds(memcg), kind)
        return amount, memcg.memory.usage_bytes, "the cgroup's memory"

    @property
    def whole_name(self) -> str:
        """What evidence calls the whole that ``measure`` gives."""
        return "usage_bytes" if self.report.constraint == "memcg" else "ram_bytes"

    @property
    def confined(self) -> bool:
        """Not all zones are printed: those of nodes that the asking task may not use are left out
        (SHOW_MEM_FILTER_NODES), whatever the constraint, but their pages stay in the totals and in
        "N pages RAM". The same where a log has lost a zone's line."""
        if self.report.constraint in ("cpuset", "memory_policy"):
            return True
        printed = self._sum_of_zones("managed") or self._sum_of_zones("present")
        return bool(printed and self.boot_bytes and printed < _WHOLE * self.boot_bytes)

    @property
    def boot_bytes(self) -> int | None:
        """RAM less what was reserved at boot, of all zones, printed or not."""
        memory = self.report.memory
        if memory is None or memory.ram_bytes is None:
            return None
        return memory.ram_bytes - (memory.reserved_bytes or 0)

    def _sum_of_zones(self, name: str) -> int | None:
        amounts = [z.bytes_of(name) for z in self.zones]
        return None if None in amounts else sum(a for a in amounts if a is not None)

    def total(self, name: str) -> int | None:
        """A machine-wide counter of the report in bytes ("shmem", "slab_unreclaimable" ...), from the
        totals, else the sum over nodes or zones."""
        memory = self.report.memory
        if memory is None:
            return None
        known = memory.totals.get(f"{name}_bytes")
        if known is not None:
            return known
        for holders in (memory.nodes, memory.zones):
            amounts = [h.amounts.get(f"{name}_bytes") for h in holders]
            if any(a is not None for a in amounts):
                return sum(a or 0 for a in amounts)
        return None

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
    def zoneinfo_at(self) -> tuple[HostZone, ...]:
        """/proc/zoneinfo on detection; empty offline."""
        return zoneinfo(self.at) if self.at is not None else ()
