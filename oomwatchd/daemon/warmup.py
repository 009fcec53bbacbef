"""One real report (Linux 6.12, Debian; registers and part of the stack left out) as /dev/kmsg gives it."""

# ruff: noqa: E501 - the kernel's lines are as long as they are

RECORDS = r"""
4,23195,71042323,-;labbox invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), order=0, oom_score_adj=0
4,23196,71042497,-;CPU: 0 UID: 0 PID: 543 Comm: labbox Tainted: G        W          6.12.94+deb13-cloud-amd64 #1  Debian 6.12.94-1
4,23197,71042561,-;Call Trace:
4,23198,71042596,-; <TASK>
4,23199,71042627,-; dump_stack_lvl+0x5d/0x80
4,23200,71042676,-; dump_header+0x43/0x1aa
4,23201,71042697,-; oom_kill_process.cold+0x8/0x8d
4,23202,71042717,-; out_of_memory+0x219/0x4b0
4,23203,71042746,-; __alloc_pages_slowpath.constprop.0+0xc27/0xdc0
4,23204,71042785,-; __alloc_pages_noprof+0x2fb/0x310
4,23205,71042862,-; do_anonymous_page+0x33f/0x870
4,23206,71043003,-; exc_page_fault+0x7e/0x180
4,23207,71043023,-; asm_exc_page_fault+0x26/0x30
4,23208,71043170,-; </TASK>
4,23209,71043180,-;Mem-Info:
4,23210,71043244,-;active_anon:14884 inactive_anon:0 isolated_anon:0\x0a active_file:0 inactive_file:0 isolated_file:0\x0a unevictable:0 dirty:0 writeback:0\x0a slab_reclaimable:217 slab_unreclaimable:2216\x0a mapped:590 shmem:697 pagetables:117\x0a sec_pagetables:0 bounce:0\x0a kernel_misc_reclaimable:0\x0a free:28525 free_pcp:214 free_cma:0
4,23211,71043311,-;Node 1 active_anon:58304kB inactive_anon:0kB active_file:0kB inactive_file:0kB unevictable:0kB isolated(anon):0kB isolated(file):0kB mapped:1580kB dirty:0kB writeback:0kB shmem:1576kB shmem_thp:0kB shmem_pmdmapped:0kB anon_thp:0kB writeback_tmp:0kB kernel_stack:600kB pagetables:176kB sec_pagetables:0kB all_unreclaimable? no
4,23212,71043348,-;Node 1 DMA32 free:280kB boost:0kB min:580kB low:724kB high:868kB reserved_highatomic:0KB active_anon:58300kB inactive_anon:0kB active_file:0kB inactive_file:0kB unevictable:0kB writepending:0kB present:130944kB managed:72152kB mlocked:0kB bounce:0kB free_pcp:856kB local_pcp:576kB free_cma:0kB
4,23213,71043388,-;lowmem_reserve[]: 0 0 0 0 0
4,23214,71043435,-;Node 1 DMA32: 4*4kB (UM) 1*8kB (M) 1*16kB (U) 4*32kB (UM) 1*64kB (M) 0*128kB 0*256kB 0*512kB 0*1024kB 0*2048kB 0*4096kB = 232kB
4,23215,71043573,-;Node 1 hugepages_total=0 hugepages_free=0 hugepages_surp=0 hugepages_size=2048kB
4,23216,71043587,-;697 total pagecache pages
4,23217,71043597,-;0 pages in swap cache
4,23218,71043606,-;Free swap  = 0kB
4,23219,71043614,-;Total swap = 0kB
4,23220,71043625,-;65406 pages RAM
4,23221,71043633,-;0 pages HighMem/MovableOnly
4,23222,71043641,-;15480 pages reserved
4,23223,71043649,-;0 pages hwpoisoned
6,23224,71043658,-;Tasks state (memory values in pages):
6,23225,71043666,-;[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name
6,23226,71043732,-;[    543]     0   543    14660    14302    14144        0       158   151552        0             0 labbox
6,23227,71043758,-;oom-kill:constraint=CONSTRAINT_CPUSET,nodemask=(null),cpuset=cs,mems_allowed=1,global_oom,task_memcg=/cs,task=labbox,pid=543,uid=0
3,23228,71044040,-;Out of memory: Killed process 543 (labbox) total-vm:58640kB, anon-rss:56576kB, file-rss:0kB, shmem-rss:632kB, UID:0 pgtables:148kB oom_score_adj:0
"""
