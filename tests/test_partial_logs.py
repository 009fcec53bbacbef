"""What short excerpts of reports tell, as people quote them: the verdict falls where the lines suffice."""

from __future__ import annotations

from oomwatchd.event import OomEvent, conclude
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.sources.text import TextReader
from tests.recorded import blocks

PC = "present:{present}kB managed:{managed}kB mlocked:0kB"
NEW = "active_anon:{anon}kB inactive_anon:0kB active_file:{file}kB inactive_file:0kB unevictable:0kB "
KERNEL = "CPU: 0 PID: 7 Comm: {0} Not tainted {1} #1"


def told(*lines: str) -> OomEvent:
    """The event of a pasted log."""
    reader = TextReader()
    text = "".join(f"[   10.{n:06d}] {line}\n" for n, line in enumerate(lines))
    records = [*reader.feed(text.encode()), *reader.flush()]
    block = blocks(records)[0]
    source = Source(kind="file", form="dmesg")
    concluded = conclude(OomCapture(source=source, records=block.records))
    return concluded[0] if isinstance(concluded, tuple) else concluded


def change(event: OomEvent) -> str:
    return next((f.advice for f in event.findings if f.advice), "")


def zone(
    name: str, free: int, low: int, managed: int, *, anon: int = 0, file: int = 0, more: str = ""
) -> str:
    marks = f"{name} free:{free}kB min:{low}kB low:{low * 5 // 4}kB high:{low * 3 // 2}kB "
    return marks + NEW.format(anon=anon, file=file) + PC.format(present=managed, managed=managed) + more


def test_free_blocks_of_the_high_order_reserve_serve_no_single_page() -> None:
    for head in (
        "app: page allocation failure: order:0, mode:0x2080020(GFP_ATOMIC)",
        "app invoked oom-killer: gfp_mask=0x24200ca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
    ):
        event = told(
            head,
            KERNEL.format("app", "4.9.0"),
            "Mem-Info:",
            zone("DMA32", 9000, 4000, 900_000, anon=800_000),
            "lowmem_reserve[]: 0 0 0 0",
            "DMA32: 250*4kB (H) 0*8kB 500*16kB (H) = 9000kB",
        )
        assert "DMA32 zone is held back for high-order atomic requests" in event.summary
        assert "enough again" not in event.summary


def test_a_reserve_without_free_blocks_is_counted_wrong() -> None:
    event = told(
        "app invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
        "Node 0 Normal free:90000kB boost:0kB min:40000kB low:50000kB high:60000kB "
        "reserved_highatomic:60000KB active_anon:0kB",
        "Node 0 Normal: 0*4kB 0*8kB 5625*16kB (UM) = 90000kB",
    )
    assert "held back for high-order atomic requests" in event.summary
    assert "6.12" in change(event)


def test_swapoff_shows_in_negative_free_swap() -> None:
    lines = (
        "app invoked oom-killer: gfp_mask=0x14200ca(GFP_HIGHUSER_MOVABLE), nodemask=(null), order=0, "
        "oom_score_adj=0",
        KERNEL.format("app", "4.16.0"),
        "Mem-Info:",
        "Node 0 " + zone("DMA32", 3000, 4000, 900_000, anon=800_000),
        "lowmem_reserve[]: 0 0 0 0 0",
    )
    assert "swapoff was under way" in told(*lines, "Free swap  = -240000kB", "Total swap = 0kB").summary
    assert "swapoff" not in told(*lines, "Free swap  = 0kB", "Total swap = 0kB").summary


def test_without_a_trace_nobody_is_said_to_have_been_killed_before() -> None:
    head = (
        "app: page allocation failure: order:0, mode:0xc00(GFP_NOIO), nodemask=(null),cpuset=/,mems_allowed=0"
    )
    mine = zone("Normal", 3000, 4000, 900_000)
    assert "aftershock" not in told(head, "Mem-Info:", mine).summary
    trace = ("Call Trace:", " dump_stack+0x1/0x2", " do_fault+0x1/0x2", " handle_mm_fault+0x1/0x2")
    assert "aftershock" in told(head, KERNEL.format("app", "5.10.0"), *trace, "Mem-Info:", mine).summary


def test_a_crash_kernel_needs_a_larger_reservation() -> None:
    def of(present: int) -> OomEvent:
        return told(
            "swapper/0 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
            "Node 0 DMA free:484kB min:4kB low:4kB high:4kB active_anon:0kB active_file:0kB "
            f"present:{present}kB managed:484kB",
            "Node 0 DMA32 free:1400kB min:1428kB low:1784kB high:2140kB active_anon:0kB active_file:0kB "
            "present:261560kB managed:133752kB",
            "Out of memory and no killable processes...",
        )

    assert change(of(568)).startswith("Reserve more for the crash kernel")
    assert "crash kernel" not in change(of(15992))


def test_a_full_node_beside_an_empty_one() -> None:
    event = told(
        "app invoked oom-killer: gfp_mask=0x200da, order=0, oom_score_adj=0",
        "app cpuset=/ mems_allowed=0-1",
        "Node 0 " + zone("Normal", 5000, 4000, 900_000, more=" writeback_tmp:0kB"),
        "lowmem_reserve[]: 0 0 0 0",
        "Node 1 " + zone("Normal", 800_000, 4000, 900_000, more=" writeback_tmp:0kB"),
    )
    assert "node 0 was full, and node 1 Normal had" in event.summary
    assert "numactl" in change(event)


def test_much_free_high_memory_tells_that_low_memory_was_asked_for() -> None:
    event = told(
        "HighMem free:600000kB min:512kB low:3000kB high:6000kB active_anon:20000kB inactive_anon:0kB "
        "active_file:0kB inactive_file:0kB unevictable:0kB present:900000kB mlocked:0kB",
        "lowmem_reserve[]: 0 0 0 0",
        "Total swap = 0kB",
        "Out of memory: kill process 45 (app) score 38 or a child",
        "Killed process 45 (app)",
    )
    assert "low memory is used up; HighMem has" in event.summary
    assert "64-bit" in change(event)


def test_zone_lines_alone_tell_that_the_kernel_holds_it() -> None:
    def of(anon: int) -> OomEvent:
        return told(
            zone("Normal", 9000, 4000, 900_000, anon=anon),
            "Out of memory and no killable processes...",
            "Kernel panic - not syncing: System is deadlocked on memory",
        )

    assert "the kernel or its drivers hold 99 % of RAM" in of(0).summary
    assert "drivers" not in of(850_000).summary


def test_memory_and_swap_share_one_limit() -> None:
    event = told(
        "app invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0",
        KERNEL.format("app", "3.10.0"),
        "Task in /a killed as a result of limit of /a",
        "memory: usage 50000kB, limit 100000kB, failcnt 20",
        "memory+swap: usage 200000kB, limit 200000kB, failcnt 60",
        "kmem: usage 0kB, limit 9007199254740988kB, failcnt 0",
        "Memory cgroup stats for /a: cache:0KB rss:50000KB rss_huge:0KB mapped_file:0KB swap:150000KB "
        "inactive_anon:30000KB active_anon:20000KB inactive_file:0KB active_file:0KB unevictable:0KB",
        "[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name",
        "[   72]     0    72    67404      102       9       15             0 app",
        "[   73]     0    73    67404     6605      83    31751             0 app",
        "Memory cgroup out of memory: Kill process 73 (app) score 750 or sacrifice child",
        "Killed process 73 (app) total-vm:269616kB, anon-rss:24064kB, file-rss:2356kB, shmem-rss:0kB",
    )
    assert "memory+swap limit of 195 MiB (146 MiB of it in swap); app held 77 % of it" in event.summary


def test_a_stall_without_anything_to_drop_is_no_lock() -> None:
    def of(anon: int, file: int) -> OomEvent:
        return told(
            "app: page allocation stalls for 12000ms, order:0, mode:0x24200ca(GFP_HIGHUSER_MOVABLE)",
            "Mem-Info:",
            f"active_anon:{anon // 4} inactive_anon:0 isolated_anon:0",
            f" active_file:{file // 4} inactive_file:0 isolated_file:0",
            " free:1000 free_pcp:0 free_cma:0",
            zone("DMA32", 4000, 4500, 900_000, anon=anon, file=file),
            "DMA32: 1000*4kB (U) = 4000kB",
        )

    thrashing = of(860_000, 2_000)
    assert "stalled for 12 s; anonymous and shared memory holds" in thrashing.summary
    assert "bound it" in change(thrashing)
    assert "lockup" in change(of(300_000, 500_000))


def test_atomic_requests_of_high_order_are_their_callers_business() -> None:
    event = told(
        "app: page allocation failure: order:7, mode:0x40a20(GFP_ATOMIC|__GFP_COMP), nodemask=(null)",
        KERNEL.format("app", "5.13.14"),
        "Call Trace:",
        " __alloc_pages+0x169/0x1d0",
        " kmem_cache_alloc+0x109/0x120",
        " frob_dump+0x19/0xf0 [frob]",
    )
    assert change(event).startswith("Have module frob (by the call trace) ask for single pages")


def test_a_caller_that_forbids_to_try_hard_falls_back() -> None:
    event = told(
        "app: page allocation failure: order:9, mode:0x190cc2(GFP_HIGHUSER|__GFP_NORETRY|__GFP_NOMEMALLOC), "
        "nodemask=(null),cpuset=/,mems_allowed=0",
        KERNEL.format("app", "5.11.0"),
        "Call Trace:",
        " frob_alloc+0x2a3/0x630 [frob]",
    )
    assert change(event).startswith("Nothing to change if nothing else failed: frob_alloc")


def test_the_pool_of_the_dma_api_is_filled_just_in_case() -> None:
    head = "swapper/0: page allocation failure: order:10, mode:0xcc1(GFP_KERNEL|GFP_DMA), nodemask=(null)"
    trace = ("Call Trace:", " atomic_pool_expand+0x4a/0x200", " dma_atomic_pool_init+0xad/0x13f")
    small = "Node 0 DMA free:160kB min:0kB low:0kB high:0kB present:15996kB managed:15360kB"
    for more in ((), (small, "lowmem_reserve[]: 0 0 0 0 0")):
        event = told(head, KERNEL.format("swapper/0", "5.14.0"), *trace, *more)
        assert change(event).startswith("Nothing to change unless a driver fails afterwards")


def test_entries_with_question_marks_are_better_than_no_caller() -> None:
    head = "app: page allocation failure: order:5, mode:0x40dc0(GFP_KERNEL|__GFP_COMP|__GFP_ZERO)"
    unsure = ("Call Trace:", " ? kmalloc_order+0x24/0x64", " ? frob_state+0x1a/0x4d")
    assert "frob_state asked" in change(told(head, KERNEL.format("app", "5.9.0"), *unsure))
    sure = (*unsure, " do_frob+0x1/0x2")
    assert "do_frob asked" in change(told(head, KERNEL.format("app", "5.9.0"), *sure))


def test_much_that_could_be_reclaimed_is_left_for_a_small_order() -> None:
    def of(slab: int) -> OomEvent:
        return told(
            "app invoked oom-killer: gfp_mask=0x24040c0(GFP_KERNEL|__GFP_COMP), order=3, oom_score_adj=0",
            KERNEL.format("app", "4.7.2"),
            "Mem-Info:",
            "Node 0 "
            + zone("Normal", 4000, 4100, 900_000, anon=400_000, file=90_000)
            + f" slab_reclaimable:{slab}kB slab_unreclaimable:9000kB",
            "lowmem_reserve[]: 0 0 0 0",
            "Node 0 Normal: 1000*4kB (U) = 4000kB",
        )

    assert "that could be reclaimed hold 43 % of RAM" in of(300_000).summary
    assert "reclaimed" not in of(30_000).summary


def test_a_device_that_resumes_may_not_wait() -> None:
    event = told(
        "kworker/u32:45: page allocation failure: order:4, mode:0x40c00(GFP_NOIO|__GFP_COMP)",
        KERNEL.format("kworker/u32:45", "6.8.0"),
        "Call Trace:",
        " frob_resume+0x32/0x60 [frob]",
        " dpm_run_callback+0x8c/0x1e0",
        " device_resume+0x104/0x340",
        " async_resume+0x1d/0x30",
    )
    assert "the machine was being suspended" in event.summary


def test_the_swapper_is_never_a_victim() -> None:
    trace = ("Call Trace:", " __alloc_pages_nodemask+0x4d1/0x810", " pagecache_get_page+0xf3/0x1c0")
    for comm, pid, aftershock in (("swapper/0", 1, False), ("app", 77, True)):
        failure = f"{comm}: page allocation failure: order:0, mode:0x50(GFP_NOFS)"
        cpu = f"CPU: 0 PID: {pid} Comm: {comm} Not tainted 4.0.0 #4"
        event = told(failure, cpu, *trace)
        assert ("asker_was_killed_before" in {f.id for f in event.findings}) == aftershock, comm


def test_a_vmalloc_is_told_by_its_trace_or_by_what_is_free() -> None:
    head = "modprobe: page allocation failure: order:0, mode:0x24000c0(GFP_KERNEL)"
    much = zone("Normal", 201260, 1908, 227584)

    def ids(*lines: str) -> set[str]:
        return {f.id for f in told(head, *lines).findings}

    totals = (
        "Mem-Info:",
        "active_anon:438 inactive_anon:30 isolated_anon:0",
        " free:50315 slab_reclaimable:305 slab_unreclaimable:635",
        much,
        "lowmem_reserve[]: 0 0",
    )
    assert "vmalloc_failed" in ids(*totals)
    full = (*totals[:2], " free:315 slab_reclaimable:305", zone("Normal", 1260, 1908, 227584), totals[-1])
    assert "vmalloc_failed" not in ids(*full)
    vmalloc = ("Call Trace:", " warn_alloc_failed+0x114/0x160", " __vmalloc_node_range+0x304/0x340")
    assert "vmalloc_failed" in ids(KERNEL.format("modprobe", "4.4.0"), *vmalloc)
    # the page allocator failed below a vmalloc: pages were short
    pages = (vmalloc[0], vmalloc[1], " __alloc_pages_nodemask+0x4d1/0x810", vmalloc[2])
    assert "vmalloc_failed" not in ids(KERNEL.format("modprobe", "4.4.0"), *pages)


def test_a_hash_table_of_the_boot_is_made_smaller() -> None:
    event = told(
        "swapper/0: page allocation failure: order:0, mode:0x2080020(GFP_ATOMIC)",
        "CPU: 0 PID: 0 Comm: swapper/0 Not tainted 4.6.0 #3",
        "Call Trace:",
        " warn_alloc_failed+0x114/0x160",
        " __vmalloc_node_range+0x304/0x340",
        " __vmalloc+0x6c/0x90",
        " alloc_large_system_hash+0x1b8/0x2c0",
        " vfs_caches_init+0x8c/0x13c",
        " dcache_init+0x8c/0x13c",
    )
    assert "boot-time hash table" in event.summary
    assert "dhash_entries=" in event.findings[0].advice


def test_who_goes_on_with_smaller_blocks_needs_no_change() -> None:
    head = "allocator@2.0-s: page allocation failure: order:4, mode:0x140dc2(GFP_HIGHUSER|__GFP_COMP)"
    allocator = ("Call trace:", " warn_alloc+0x134/0x1b8", " __alloc_pages_slowpath+0xb0c/0xb3c")
    for caller, harmless in (("ion_page_pool_alloc", True), ("usb_alloc_urb", False)):
        event = told(head, *allocator, f" {caller}+0x60/0x10c", " ioctl+0x120/0x280")
        assert change(event).startswith("Nothing to change") == harmless, caller


def test_the_larger_zone_without_a_block_comes_before_cma_of_a_small_one() -> None:
    def of(blocks: str) -> OomEvent:
        return told(
            "app invoked oom-killer: gfp_mask=0x27000c0(GFP_KERNEL_ACCOUNT|__GFP_NOTRACK), order=2, "
            "oom_score_adj=0",
            zone("Node 0 DMA32", 83292, 61984, 3512924),
            "lowmem_reserve[]: 0 0 0",
            zone("Node 0 Normal", 5448, 5316, 420724, more=" free_cma:4004kB"),
            "lowmem_reserve[]: 0 0 0",
            f"Node 0 DMA32: 9514*4kB (UME) 3085*8kB (ME) {blocks} 0*32kB 0*64kB = 83292kB",
            "Node 0 Normal: 203*4kB (UEC) 400*8kB (UEC) 107*16kB (HC) 5*32kB (C) 0*64kB = 5884kB",
        )

    assert "no free block of order 2 in node 0 DMA32" in of("0*16kB").summary
    assert "DMA32" not in of("1284*16kB (M)").summary.split(";")[0]


def test_zone_lines_alone_tell_that_processes_hold_it() -> None:
    def of(anon: int) -> OomEvent:
        return told(
            "cc1 invoked oom-killer: gfp_mask=0x24200ca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
            zone("DMA32", 3764, 3796, 987556, anon=anon, file=2000, more=" slab_unreclaimable:100532kB"),
        )

    assert "processes' own memory is 80 % of DMA32 zone" in of(790000).summary
    assert change(of(790000)).startswith("Run less at once")
    assert "own memory" not in of(300000).summary


def test_a_counter_below_zero_is_no_memory() -> None:
    event = told(
        "fork invoked oom-killer: gfp_mask=0x27000c0(GFP_KERNEL_ACCOUNT|__GFP_NOTRACK), order=2, "
        "oom_score_adj=0",
        zone("Node 0 DMA32", 6372, 6492, 508600).replace("present:508600", "present:2080632"),
        "Node 0 Normal free:0kB min:0kB low:0kB high:0kB present:18446744073708015752kB managed:0kB",
        zone("Node 0 Movable", 29588, 19256, 1500964).replace("present:1500964", "present:1535864"),
    )
    assert event.memory is not None
    assert sum(z.amounts["present_bytes"] for z in event.memory.zones) == 2080632 * 1024
    assert "EiB" not in "".join(f.explanation for f in event.findings)


def test_small_counts_that_agree_to_the_page_tell_the_page_size() -> None:
    def of(second: int) -> OomEvent:
        return told(
            "logger invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
            "Mem-Info:",
            "active_anon:5 inactive_anon:6 isolated_anon:0",
            " active_file:26 inactive_file:39 isolated_file:0",
            " slab_reclaimable:280 slab_unreclaimable:7473",
            " free:5472 free_pcp:46 free_cma:0",
            f"Node 0 active_anon:20kB inactive_anon:{second}kB active_file:{second + 80}kB unevictable:0kB",
        )

    assert of(24).page_size_bytes == 4096
    assert "kernel slab holds" in of(24).summary
    assert of(23).page_size_bytes is None


def test_a_giant_of_the_kill_line_is_bounded() -> None:
    line = "Killed process 20531 (store) total-vm:896712980kB, anon-rss:{0}kB, file-rss:0kB, shmem-rss:0kB"
    assert change(told(line.format(15196192))).startswith("Bound store")
    assert "Bound" not in change(told(line.format(65000)))


def test_a_trace_of_another_task_makes_no_kernel_thread() -> None:
    for adjustment, thread in ((0, True), (1000, False)):
        event = told(
            "app invoked oom-killer: gfp_mask=0x6202c2(GFP_HIGHUSER|__GFP_NOWARN), nodemask=(null), order=0, "
            f"oom_score_adj={adjustment}",
            KERNEL.format("app", "4.20.0"),
            "Call Trace:",
            " pagecache_get_page+0x53a/0xf00",
            " wb_workfn+0xee9/0x1790",
            " kthread+0x35a/0x440",
        )
        assert ("kernel_thread_asked" in {f.id for f in event.findings}) == thread


def test_the_work_of_a_kernel_thread_is_named() -> None:
    def of(work: str) -> str:
        return told(
            "kworker/u2:1 invoked oom-killer: gfp_mask=0x6082c2(GFP_KERNEL|__GFP_HIGHMEM), nodemask=(null), "
            "order=0, oom_score_adj=0",
            KERNEL.format("kworker/u2:1", "4.19.35"),
            f"Workqueue: {work}",
            "Call Trace:",
            " dump_stack+0x78/0x8c",
        ).summary

    assert "(rx_work() of module wifi)" in of("wifi_wq/mmc0:0001:1 rx_work [wifi]")
    assert "(file system, network or driver)" in of("writeback wb_workfn (flush-8:0)")


def test_page_tables_of_a_victim_count() -> None:
    line = (
        "Out of memory: Killed process 57 (mapper) total-vm:137436863812kB, anon-rss:1024kB, file-rss:0kB, "
    )
    event = told(line + "shmem-rss:1756kB, UID:0 pgtables:1039444kB oom_score_adj:0")
    assert "2780 kB and 1015 MiB of page tables" in event.summary
    assert change(event).startswith("Have mapper map less")
    assert "page tables" not in told(line + "shmem-rss:1756kB, UID:0 pgtables:44kB oom_score_adj:0").summary


def test_a_memory_limit_cannot_grow_into_a_full_memsw() -> None:
    def of(both: int) -> OomEvent:
        return told(
            "app invoked oom-killer: gfp_mask=0xd0(GFP_KERNEL), order=0, oom_score_adj=0",
            "Task in /app killed as a result of limit of /app",
            "memory: usage 8192kB, limit 8192kB, failcnt 485",
            f"memory+swap: usage {both}kB, limit 16384kB, failcnt 15",
            "Memory cgroup out of memory: Kill process 7 (app) score 980 or sacrifice child",
            "Killed process 7 (app) total-vm:942652kB, anon-rss:8000kB, file-rss:0kB, shmem-rss:0kB",
        )

    assert "memory.memsw.limit_in_bytes of cgroup /app above 16 MiB first" in change(of(16316))
    assert change(of(9000)).startswith("Raise memory.limit_in_bytes")
