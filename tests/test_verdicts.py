"""What kernel developers concluded from reports of these kinds, on small made-up reports."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from oomwatchd.diagnosis.findings import Diagnosis, diagnose
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import (
    Finding,
    Memcg,
    MemcgCounter,
    Memory,
    Node,
    OomReport,
    SlabCache,
    Swap,
    Task,
    Trigger,
    Victim,
    Zone,
)
from oomwatchd.reports.decode import decode

MIB, GIB = 1 << 20, 1 << 30
KERNEL, USER = ("GFP_KERNEL",), ("GFP_HIGHUSER_MOVABLE",)


def zone(name: str, mib: int, *, free: int, minimum: int, reserve: int = 0, **kib: int) -> Zone:
    """Amounts in KiB but the size; ``reserve`` counts for all higher zones."""
    amounts = {"free": free, "min": minimum, "low": 2 * minimum, "high": 3 * minimum, "managed": mib << 10}
    own = ("DMA", "DMA32", "Normal").index(name)
    return Zone(
        node=0,
        zone=name,
        amounts={f"{k}_bytes": v << 10 for k, v in (amounts | {"present": mib << 10} | kib).items()},
        lowmem_reserve_bytes=tuple(0 if i <= own else reserve << 10 for i in range(4)),
    )


def memory(*zones: Zone, **totals: int) -> Memory:
    """Totals in MiB; what is not given is 0."""
    named = ("active_anon", "inactive_anon", "active_file", "inactive_file", "shmem", "slab_unreclaimable")
    known = dict.fromkeys((*named, "free"), 0) | totals
    return Memory(
        zones=zones,
        nodes=(Node(node=0),),
        totals={f"{k}_bytes": v << 20 for k, v in known.items()},
        swap=Swap(free_bytes=0, total_bytes=0),
    )


def said(
    flags: tuple[str, ...],
    memory: Memory | None = None,
    *,
    order: int | None = 0,
    trace: tuple[str, ...] = (),
    hardware: str = "",
    trigger: dict[str, Any] | None = None,
    **fields: Any,
) -> Diagnosis:
    """The diagnosis of a failed allocation, or of what ``fields`` make of it."""
    asker: dict[str, Any] = {"comm": "app", "pid": 10} | (trigger or {})
    values: dict[str, Any] = {
        "kind": "page_alloc_failure",
        "complete": memory is not None,
        "missing": () if memory is not None else ("mem_info",),
        "constraint": "none",
        "page_size_bytes": 4096,
        "trigger": Trigger(gfp_flags=flags, gfp_mask=1, order=order, call_trace=trace, **asker),
        "memory": memory,
        "outcome": f"page allocation failure: order:{order}",
    }
    text = f"Hardware name: {hardware}"
    record = KmsgRecord(level=4, facility=0, seq=1, usec=1, text=text)
    capture = OomCapture(source=Source(kind="file", form="dmesg"), records=(record,) if hardware else ())
    told = diagnose(OomReport(**(values | fields)), capture)
    assert not [f.evidence for f in told.findings if f.id == "finding_failed"]
    return told


def kill(flags: tuple[str, ...], memory: Memory, **fields: Any) -> Diagnosis:
    tasks = (Task(pid=10, comm="app", tgid=10, rss_bytes=8 * MIB, oom_score_adj=0),)
    victims = (Victim(pid=10, comm="app", anon_rss_bytes=8 * MIB),)
    return said(flags, memory, kind="oom_kill", kills=1, outcome=None, tasks=tasks, victims=victims, **fields)


def change(told: Diagnosis) -> str:
    return next((f.advice for f in told.findings if f.advice), "")


def one(told: Diagnosis, finding: str) -> Finding:
    return next(f for f in told.findings if f.id == finding)


def hidden(**fields: Any) -> Diagnosis:
    """A machine of 16 GiB of which 12 GiB are in no counter, with a reserve of the usual size."""
    low = zone("DMA32", 3072, free=60000, minimum=16000, reserve=52000)
    normal = zone("Normal", 13000, free=46000, minimum=51000)
    return kill(USER, memory(low, normal, active_anon=600, inactive_anon=2500, free=104), **fields)


def test_a_default_reserve_is_no_cause_beside_what_is_in_no_counter() -> None:
    told = hidden()
    assert "in no counter" in told.summary and "lowmem_reserve" not in change(told)


@pytest.mark.parametrize(
    ("hardware", "balloon"),
    [
        ("Microsoft Corporation Virtual Machine/Virtual Machine, BIOS 090008", "Hyper-V"),
        ("VMware, Inc. VMware20,1/440BX Desktop Reference Platform, BIOS VMW201", "VMware"),
        ("QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16", None),
        ("Microsoft Corporation Surface Pro/Surface Pro, BIOS 239", None),
    ],
)
def test_the_balloon_of_a_hypervisor_is_looked_at_first(hardware: str, balloon: str | None) -> None:
    told = hidden(hardware=hardware)
    assert ("balloon" in told.summary) is (balloon is not None)
    assert change(told).startswith(f"See what the balloon of {balloon}" if balloon else "See drivers")


def test_an_order_alone_tells_of_a_failed_allocation() -> None:
    trace = ("warn_alloc", "__dma_direct_alloc_pages.isra.0", "dma_direct_alloc", "wifi_alloc_table")
    told = said(("GFP_NOIO",), order=7, trace=trace)
    assert "128 pages in a row were not to be had" in told.summary
    assert "wifi_alloc_table asked" in change(told) and "kvmalloc" in change(told)
    assert "Without __GFP_IO" in one(told, "fragmentation").explanation
    assert "fragmentation" not in {f.id for f in said(("GFP_NOIO",), order=0).findings}


def test_a_costly_request_is_the_callers_business_beside_a_short_zone() -> None:
    short = memory(zone("Normal", 4096, free=40000, minimum=50000), free=39)
    assert "it needs 32 pages in a row" in said(("GFP_NOFS",), short, order=5).summary
    assert "32 pages in a row" in change(said(("GFP_NOFS",), short, order=5))
    assert "it needs" not in said(("GFP_NOFS", "__GFP_NORETRY"), short, order=1).summary


def test_a_request_that_may_not_wait_is_called_so() -> None:
    short = memory(zone("Normal", 4096, free=4000, minimum=90000), inactive_anon=4000, free=4)
    assert "order-0 request that may not wait" in said(("GFP_ATOMIC",), short).summary
    assert "may not wait" not in said(KERNEL, short).summary


def test_reclaim_cannot_reclaim_for_itself() -> None:
    short = memory(zone("Normal", 4096, free=4000, minimum=90000), inactive_anon=4000, free=4)
    kswapd = {"comm": "kswapd0", "pid": 60}
    trace = ("allocate_slab", "fs_clear_bit", "shrink_folio_list", "balance_pgdat", "kthread")
    told = said(("GFP_NOFS", "__GFP_NOMEMALLOC"), short, trace=trace, trigger=kswapd)
    assert "reclaim itself asked" in told.summary and "min_free_kbytes" in change(told)


def test_reserves_that_are_used_up_are_made_larger() -> None:
    none = memory(zone("Normal", 64, free=0, minimum=948), slab_unreclaimable=11)
    told = said(("GFP_NOIO",), none, trace=("rpc_malloc", "shrink_folio_list", "kthread"))
    # 11 MiB of slab are what any kernel has
    assert "without one page left" in told.summary and "slab" not in told.summary
    # no watermark applies, so none may be told
    zoned = one(told, "zone_below_watermark")
    assert zoned.advice.startswith("Raise vm.min_free_kbytes")
    assert "No watermark applies" in zoned.explanation and "at the mark" not in zoned.explanation


@pytest.mark.parametrize("pool", [True, False])
def test_flags_name_the_one_zone_where_the_log_has_none(pool: bool) -> None:
    trace = ("dma_atomic_pool_init",) if pool else ("card_probe",)
    told = said(("GFP_KERNEL", "GFP_DMA"), order=1, trace=trace)
    assert "only zone DMA may serve the request, and it did not" in told.summary
    assert ("coherent_pool=" if pool else "card_probe") in change(told)
    assert "only zone" not in said(KERNEL, order=1, trace=trace).summary


def test_a_zone_without_memory_serves_nobody() -> None:
    """A crash kernel of arm64 that was given no memory of zone DMA."""
    empty = zone("DMA", 0, free=0, minimum=0)
    plenty = zone("Normal", 4096, free=3 << 20, minimum=9000)
    told = said(("GFP_KERNEL", "GFP_DMA"), memory(empty, plenty, free=3072), order=6)
    assert "only zone DMA may serve the request, and it has no memory" in told.summary


def test_before_memory_is_handed_over_nothing_leaks() -> None:
    start = memory(zone("Normal", 4096, free=0, minimum=0))
    told = said(("__GFP_ZERO",), start, trigger={"comm": "swapper", "pid": 0}, trace=("set_fixmap",))
    assert "had no memory yet" in told.summary and "set_fixmap has to ask later" in change(told)
    later = said(("__GFP_ZERO",), start, trigger={"comm": "init", "pid": 1}, trace=("set_fixmap",))
    assert "had no memory yet" not in later.summary


def test_a_server_of_the_kernel_is_named_by_its_trace() -> None:
    full = memory(zone("Normal", 1024, free=20000, minimum=26000), inactive_anon=60, free=19)
    nfsd = {"comm": "nfsd", "pid": 537}
    told = kill(KERNEL, full, trace=("__alloc_pages_bulk", "svc_recv", "nfsd", "kthread"), trigger=nfsd)
    assert "nfsd asked for the NFS server's buffers" in told.summary
    assert "/proc/fs/nfsd/threads" in change(told) and "end nfsd" not in change(told).lower()


def test_a_header_alone_tells_how_many_pages_were_asked_for() -> None:
    told = said(KERNEL, order=3, kind="oom_no_victim", outcome=None)
    assert "out of memory for 8 pages in a row (order 3)" in told.summary
    assert "in a row" not in said(KERNEL, kind="oom_no_victim", outcome=None).summary


def test_a_log_that_says_nothing_says_where_the_rest_is() -> None:
    header = Trigger(gfp_mask=0xD0)
    bare = OomReport(kind="oom_no_victim", complete=False, missing=("mem_info",), trigger=header)
    assert "See the whole report" in change(diagnose(bare))


def test_a_failed_request_is_no_page_fault() -> None:
    trigger = Trigger(comm="app", pid=10, gfp_flags=(), gfp_mask=0, order=0)
    bare = OomReport(kind="oom_no_victim", complete=False, constraint="none", trigger=trigger)
    assert "page_fault_oom" in {f.id for f in diagnose(bare).findings}
    failed = OomReport(kind="page_alloc_failure", complete=False, constraint="none", trigger=trigger)
    assert "page_fault_oom" not in {f.id for f in diagnose(failed).findings}


def test_the_swap_cache_of_a_cgroup_is_told() -> None:
    memcg = Memcg(
        oom_path="/a",
        memory=MemcgCounter(usage_bytes=10 * MIB, limit_bytes=10 * MIB),
        swap=MemcgCounter(usage_bytes=4 * MIB, limit_bytes=None),
        stat={"anon": 5 * MIB, "file": 0, "kernel": 0, "swapcached": 6 * MIB},
        stat_unit_bytes=1,
    )
    told = said(KERNEL, kind="oom_kill", constraint="memcg", memcg=memcg, kills=1, outcome=None)
    # of the 6 MiB that are in swap too a process has at least 1 MiB mapped
    assert "swap cache 5120 kB (50.0 %)" in one(told, "memcg_limit_reached").explanation


def limited(mib: int, rss: int, **fields: Any) -> Diagnosis:
    """A cgroup of v1 at its limit, without its statistics."""
    memcg = Memcg(
        oom_path="/pod",
        memory=MemcgCounter(usage_bytes=mib * MIB, limit_bytes=mib * MIB),
        memory_swap=MemcgCounter(usage_bytes=mib * MIB, limit_bytes=None),
        kmem=MemcgCounter(usage_bytes=20 * MIB, limit_bytes=None),
    )
    tasks = (Task(pid=10, comm="app", tgid=10, rss_bytes=rss * MIB, oom_score_adj=0),)
    values: dict[str, Any] = {
        "constraint": "memcg",
        "memcg": memcg,
        "tasks": tasks,
        "kills": 1,
        "outcome": None,
    } | fields
    return said(KERNEL, kind="oom_kill", **values)


def test_what_no_process_of_a_cgroup_holds_is_cache() -> None:
    told = limited(500, 40)
    assert "its processes hold 8 % of it, the kernel 4 %; the rest is page cache or tmpfs" in told.summary
    assert "cache, shmem and dirty in its memory.stat" in change(told)
    assert "the rest is" not in limited(500, 400).summary
    assert "the rest is" not in limited(500, 40, missing=("tasks",)).summary


def test_a_cgroup_that_was_not_at_its_limit_is_watched() -> None:
    memcg = Memcg(oom_path="/cg2", memory=MemcgCounter(usage_bytes=4 * MIB, limit_bytes=900 * MIB))
    told = said(KERNEL, kind="oom_kill", constraint="memcg", memcg=memcg, kills=1, outcome=None)
    assert "Look for what changes memory.max of cgroup /cg2" in change(told)


@pytest.mark.parametrize(("usec", "words"), [(500_000, True), (900_000_000, False)])
def test_what_cannot_be_reclaimed_while_booting_is_the_initramfs(usec: int, words: bool) -> None:
    """A crash kernel of 192 MiB whose log lost its head and table."""
    small = memory(zone("DMA32", 92, free=3924, minimum=3928), unevictable=57, inactive_file=25, free=3)
    told = said(KERNEL, small, kind="oom_no_victim", outcome=None, missing=("header",), first_usec=usec)
    assert ("the unpacked initramfs" in told.summary) is words
    assert ("a larger crashkernel=" in change(told)) is words


def test_a_boost_comes_after_what_holds_the_memory() -> None:
    boosted = memory(
        zone("Normal", 4096, free=100 << 10, minimum=120 << 10, boost=110 << 10), inactive_anon=3900
    )
    tasks = (Task(pid=10, comm="app", tgid=10, rss_bytes=3800 * MIB, oom_score_adj=0),)
    told = said(USER, boosted, kind="oom_kill", kills=1, outcome=None, tasks=tasks)
    assert "(by a watermark boost)" in told.summary and change(told).startswith("Bound app")


def test_some_zones_alone_do_not_say_who_held_the_memory() -> None:
    zones = Memory(zones=(zone("DMA32", 4096, free=22000, minimum=44000, active_anon=2 << 20),))
    victims = (Victim(pid=10, comm="main", anon_rss_bytes=389 * MIB),)
    fields: dict[str, Any] = {"kind": "oom_kill", "outcome": None, "kills": 1, "victims": victims}
    told = said(USER, zones, complete=False, missing=("mem_info",), **fields)
    assert "main held 389 MiB" in told.summary and change(told).startswith("Bound main")


def test_what_passed_meanwhile_needs_no_change() -> None:
    above = zone("Normal", 4096, free=200 << 10, minimum=20 << 10)
    bare = Memory(zones=(Zone(node=0, zone="Normal", amounts=above.amounts),))
    told = said(USER, bare, complete=False, missing=("tasks",), kind="oom_no_victim", outcome=None)
    assert "was above its high mark when printed" in told.summary and "lacks" not in told.summary
    assert change(told).startswith("Nothing for one such kill")


def low(**kib: int) -> Zone:
    """Low memory of a 32-bit kernel, close to its min mark; no other zone is in the log."""
    whole = zone("Normal", 811, free=3880, minimum=3580, **kib)
    return Zone(node=None, zone="Normal", amounts=whole.amounts)


def test_low_memory_is_known_without_the_line_of_highmem() -> None:
    """More user memory than the printed zones could hold: the rest is in HighMem."""
    slab = {"slab_reclaimable": 730000, "slab_unreclaimable": 70000}
    account = ("GFP_KERNEL_ACCOUNT",)
    told = said(account, memory(low(**slab), inactive_anon=900, free=53), order=1, kind="oom_no_victim")
    assert "low memory is used up, and slab holds 96.3 % of it" in told.summary
    assert "/proc/slabinfo" in change(told) and "64-bit" in change(told)
    plain = said(account, memory(low(), inactive_anon=900, free=53), kind="oom_no_victim")
    assert "page tables, kernel stacks" in change(plain)
    # nothing shows that there is more than these zones
    alone = said(account, memory(low(), inactive_anon=500, free=53), kind="oom_no_victim")
    assert "low memory" not in alone.summary
    # user memory may be in HighMem
    user = said(USER, memory(low(**slab), inactive_anon=900, free=53), kind="oom_no_victim")
    assert "low memory" not in user.summary


def test_addresses_of_32_bit_and_a_reserve_show_low_memory() -> None:
    protected = Zone(
        node=None, zone="Normal", amounts=low().amounts, lowmem_reserve_bytes=(0, 0, 9 * MIB, 9 * MIB)
    )
    fields: dict[str, Any] = {"kind": "oom_no_victim", "outcome": None}
    short = memory(protected, inactive_anon=500, free=53)
    narrow = said(KERNEL, short, hardware="x [<c034a094>] (oom_kill_process)", **fields)
    assert "only low memory (Normal) may serve the request" in narrow.summary
    wide = said(KERNEL, short, hardware="x [<ffffffff8119080b>] oom_kill_process+0x3b", **fields)
    assert "low memory" not in wide.summary


def test_between_min_and_high_the_last_check_fails() -> None:
    cut = Memory(
        zones=(Zone(node=0, zone="DMA32", amounts=zone("DMA32", 484, free=3356, minimum=2668).amounts),)
    )
    fields: dict[str, Any] = {"complete": False, "missing": ("mem_info",), "outcome": None}
    told = said(USER, cut, kind="oom_no_victim", **fields)
    assert "at least 4648 kB short of the high mark that the last check before a kill demands" in told.summary
    assert "last check" not in said(USER, cut).summary


def test_stacks_that_no_listed_process_can_have_are_of_ended_tasks() -> None:
    mem = memory(
        zone("Normal", 2048, free=5700, minimum=5740), slab_unreclaimable=1200, kernel_stack=600, free=5
    )

    def told(mapped: int, **fields: Any) -> Diagnosis:
        tasks = tuple(
            Task(pid=p, comm="init", tgid=p, rss_bytes=MIB, total_vm_bytes=mapped, oom_score_adj=0)
            for p in (1, 2)
        )
        return said(USER, mem, kind="oom_kill", kills=1, outcome=None, tasks=tasks, **fields)

    assert "of tasks that have ended" in told(5 * MIB).summary
    assert "RCU stall" in change(told(5 * MIB))
    # mapped memory of 40 GiB may hold the stacks of so many threads; a cut table may lack who has them
    for other in (told(40 * GIB), told(5 * MIB, missing=("tasks",))):
        assert "have ended" not in other.summary


def test_no_pages_are_no_bytes_whatever_a_page_has() -> None:
    """Node 0 has room, node 1 has none, and the log lacks the lines that give the size of a page."""
    log = """oom02 invoked oom-killer: gfp_mask=0x280da, order=0, oom_adj=0, oom_score_adj=0
oom02 cpuset=/ mems_allowed=0-1
Mem-Info:
Node 0 Normal free:4605172kB min:4828kB low:6032kB high:7240kB active_anon:10688kB inactive_anon:6100kB active_file:3964kB inactive_file:13696kB unevictable:0kB present:4912640kB mlocked:0kB dirty:12kB pages_scanned:0 all_unreclaimable? no
lowmem_reserve[]: 0 0 0 0
Node 1 Normal free:7960kB min:8136kB low:10168kB high:12204kB active_anon:7968052kB inactive_anon:32kB active_file:52kB inactive_file:0kB unevictable:0kB present:8273920kB mlocked:0kB dirty:0kB pages_scanned:0 all_unreclaimable? no
lowmem_reserve[]: 0 0 0 0
"""  # noqa: E501 - as the kernel prints it
    records = [KmsgRecord(text=line, facility=0) for line in log.splitlines()]
    report = decode(records, lost_records=0)
    assert report.page_size_bytes is None
    told = diagnose(report)
    assert "node 1 was full, and node 0 Normal had 4.4 GiB to spare: bound to node 1" in told.summary
    assert "cpuset.mems" in change(told)


@pytest.mark.parametrize(("node", "lever"), [(None, "vmalloc="), (0, "its memory cgroup at its limit")])
def test_a_vmalloc_that_fails_with_memory_free_is_short_of_something_else(
    node: int | None, lever: str
) -> None:
    free = zone("Normal", 1024, free=600 << 10, minimum=3000)
    mem = memory(Zone(node=node, zone="Normal", amounts=free.amounts), free=600)
    mem = msgspec.structs.replace(mem, highmem_bytes=GIB if node is None else None, ram_bytes=2 * GIB)
    told = said(KERNEL, mem, order=None, outcome="vmalloc error: size 1052672, failed to allocate pages")
    assert "a vmalloc failed with 600 MiB free" in told.summary and lever in change(told)
    assert "vmalloc" not in said(KERNEL, mem).summary


def test_the_age_of_a_kernel_is_known_by_its_lines() -> None:
    """What newer kernels have is no advice for one that prints no managed memory (before 3.9)."""
    full = zone("Normal", 4096, free=4000, minimum=9000)
    old = Zone(node=0, zone="Normal", amounts={k: v for k, v in full.amounts.items() if "managed" not in k})
    told = kill(USER, msgspec.structs.replace(memory(old, inactive_anon=1500, free=4), nodes=()))
    assert "in no counter" in told.summary
    assert "mem_profiling" not in change(told) and "BPF" not in change(told)
    assert "mem_profiling" in change(kill(USER, memory(full, inactive_anon=1500, free=4)))


@pytest.mark.parametrize(
    ("signs", "zfs"),
    [
        ({"tasks": (Task(pid=9, comm="zed", tgid=9, rss_bytes=MIB, oom_score_adj=0),)}, True),
        ({"trace": ("__alloc_pages", "abd_alloc_chunks", "arc_get_data_abd", "zfs_read")}, True),
        ({"tasks": (Task(pid=9, comm="zebra", tgid=9, rss_bytes=MIB, oom_score_adj=0),)}, False),
    ],
)
def test_the_cache_of_zfs_is_in_no_counter(signs: dict[str, Any], zfs: bool) -> None:
    mem = memory(zone("Normal", 8192, free=4000, minimum=9000), inactive_anon=3000, free=4)
    told = said(USER, mem, kind="oom_kill", kills=1, outcome=None, **signs)
    assert ("cache of ZFS" in told.summary) is zfs and ("zfs_arc_max" in change(told)) is zfs


def test_a_request_that_may_not_wait_comes_before_what_could_be_reclaimed() -> None:
    mem = memory(
        zone("Normal", 4096, free=4000, minimum=90000), inactive_anon=1600, shmem=1600, active_file=2200
    )
    told = said(("GFP_ATOMIC",), mem)
    assert change(told).startswith("If they come often, raise vm.min_free_kbytes")
    assert "tmpfs" in change(said(KERNEL, mem, kind="oom_kill", kills=1, outcome=None))


def test_a_head_that_lost_its_order_fails_where_any_order_fails() -> None:
    fields: dict[str, Any] = {"kind": "oom_no_victim", "outcome": None, "order": None}
    short = memory(zone("Normal", 4096, free=4000, minimum=9000), inactive_anon=4000, free=4)
    told = said(KERNEL, short, **fields)
    assert "Normal zone at least 5000 kB short for a request of unknown order" in told.summary
    # what order 0 may have, a larger order may not
    room = memory(zone("Normal", 4096, free=90000, minimum=9000), inactive_anon=3900, free=88)
    assert "enough again" not in said(KERNEL, room, **fields).summary


def test_locked_memory_is_a_better_clue_than_half_as_much_in_no_counter() -> None:
    def mem(locked: int) -> Memory:
        return memory(
            zone("Normal", 1024, free=4000, minimum=9000), unevictable=locked, inactive_anon=200, free=4
        )

    assert "locked or unevictable memory holds" in kill(USER, mem(600)).summary
    assert "in no counter" in kill(USER, mem(250)).summary


def test_a_block_that_large_is_rare_in_any_zone() -> None:
    told = said(("GFP_KERNEL", "GFP_DMA32"), order=7, trace=("wifi_alloc_table",))
    assert "128 pages in a row were not to be had" in told.summary and "128 pages in a row" in change(told)


def test_a_failure_while_suspending_is_no_aftershock() -> None:
    """Nobody was killed before: the OOM killer is disabled then."""
    full = memory(zone("Normal", 8192, free=4000, minimum=9000), inactive_anon=4000, active_file=3900, free=4)
    flags = ("GFP_NOIO", "__GFP_HIGHMEM", "__GFP_HARDWALL")
    trace = ("ttm_pool_alloc", "amdgpu_device_evict_resources", "dpm_prepare", "pm_suspend", "state_store")
    told = said(flags, full, trace=trace, trigger={"comm": "systemd-sleep"})
    assert "the machine was being suspended" in told.summary and "aftershock" not in told.summary
    assert "before the machine suspends" in change(told)
    assert "aftershock" in said(flags, full, trace=trace[:2]).summary


def test_the_leak_detector_is_switched_off_not_searched() -> None:
    mem = memory(
        zone("Normal", 4096, free=4000, minimum=9000), slab_unreclaimable=2400, inactive_anon=1500, free=4
    )
    slab = (SlabCache(name="kmemleak_object", used_bytes=GIB, total_bytes=2 * GIB),)
    assert "kmemleak=off" in change(kill(USER, mem, slab=slab))


@pytest.mark.parametrize(("cma", "used_up"), [(0, True), (100 << 10, False)])
def test_low_memory_between_min_and_high_fails_the_last_check(cma: int, used_up: bool) -> None:
    """Zone DMA fits by itself, but 16 MiB of it are no answer; free HighMem is none either."""
    dma = zone("DMA", 15, free=3600, minimum=68, reserve=3200)
    full = zone("Normal", 826, free=4228 + cma, minimum=3636, active_file=780 << 10, free_cma=cma)
    above = Zone(node=None, zone="HighMem", amounts=zone("Normal", 1100, free=1 << 20, minimum=512).amounts)
    zones = [
        Zone(node=None, zone=z.zone, amounts=z.amounts, lowmem_reserve_bytes=(0, 0, 0, 0))
        for z in (dma, full)
    ]
    mem = msgspec.structs.replace(memory(*zones, above, active_file=800, free=1031), highmem_bytes=GIB)
    told = said(("GFP_USER",), mem, kind="oom_no_victim", outcome=None)
    assert ("low memory is used up" in told.summary) is used_up
    assert ("the cache of block devices" in change(told)) is used_up
