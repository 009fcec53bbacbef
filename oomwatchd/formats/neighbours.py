"""Lines that stand near a report and are not part of it.

They are known so that they neither open a block nor count as undecoded: OOM notifiers that give
memory back before a kill, drivers and allocators that complain, the killer's own switch at suspend.
"""

from __future__ import annotations

from oomwatchd.formats import Form, Role, Section, marks_a_place, rx


def _neighbour(
    name: str, begins: tuple[str, ...], pattern: str, samples: tuple[str, ...], source: str
) -> Form:
    return Form(
        name=name,
        section=Section.BEFORE,
        role=Role.NEIGHBOUR,
        begins=begins,
        pattern=rx(pattern),
        copies=None,
        reads=marks_a_place,
        samples=samples,
        source=source,
    )


#: it dumps memory and tasks like the OOM killer
LOWMEMORYKILLER = _neighbour(
    "lowmemorykiller",
    ("send", "lowm"),
    r"send sigkill to \d+ \(|lowmemorykiller: Killing '",
    (
        "send sigkill to 2543 (com.example.app), adj 529, size 9120",
        "lowmemorykiller: Killing 'com.example.app' (2543), adj 529,\n   to free 36480kB",
    ),
    "drivers/staging/android/lowmemorykiller.c, 2.6.29 to 4.11: not the OOM killer",
)

FORMS = (
    _neighbour(
        "i915_purge",
        ("Purg",),
        r"Purging GPU memory, \d+ (?:bytes|pages) freed",
        (
            "Purging GPU memory, 1024 bytes freed, 12 bytes still pinned.",
            "Purging GPU memory, 1024 pages freed, 12 pages still pinned, 0 pages left available.",
        ),
        "drivers/gpu/drm/i915 i915_gem_shrinker_oom(), 4.1+",
    ),
    _neighbour(
        "balloon",
        ("virt", "hv_b"),
        r"virtio_balloon virtio\d+: Out of puff!|hv_balloon: Balloon request will be partially fulfilled",
        (
            "virtio_balloon virtio0: Out of puff! Can't get 256 pages",
            "hv_balloon: Balloon request will be partially fulfilled. Balloon floor reached.",
        ),
        "drivers/virtio/virtio_balloon.c fill_balloon(); drivers/hv/hv_balloon.c balloon_up()",
    ),
    _neighbour(
        "overcommit_refused",
        ("__vm",),
        r"__vm_enough_memory: pid: \d+, comm: ",
        (
            "__vm_enough_memory: pid: 120, comm: dd, no enough memory for the allocation",
            "__vm_enough_memory: pid: 120, comm: dd, bytes: 1258291200 not enough memory for the allocation",
        ),
        "mm/util.c __vm_enough_memory(), 6.1+",
    ),
    _neighbour(
        "slab_oom",
        ("SLUB", "SLAB"),
        r"SL[AU]B: Unable to allocate memory on ",
        (
            "SLUB: Unable to allocate memory on node 0 (gfp=0x201da)",
            "SLAB: Unable to allocate memory on node 0, gfp=0x24201ca(GFP_HIGHUSER_MOVABLE|__GFP_COLD)",
        ),
        "mm/slub.c slab_out_of_memory(), 2.6.31+; mm/slab.c, 3.4 to 6.6",
    ),
    _neighbour(
        "slab_oom_cache",
        ("cach",),
        r"cache: .*, object size: \d+, (?:buffer size|order): \d+",
        (
            "  cache: kmalloc-4096, object size: 4096, buffer size: 4096, default order: 3, min order: 1",
            "  cache: size-4096, object size: 4096, order: 0",
        ),
        "mm/slub.c slab_out_of_memory(), mm/slab.c",
    ),
    _neighbour(
        "slab_oom_node",
        ("node",),
        r"node \d+: slabs: \d+",
        ("  node 0: slabs: 212, objs: 1696, free: 0", "  node 0: slabs: 212/212, objs: 1696/1696"),
        "mm/slub.c slab_out_of_memory(), mm/slab.c",
    ),
    _neighbour(
        "killer_state",
        ("OOM ",),
        r"OOM killer (?:dis|en)abled\.",
        ("OOM killer disabled.", "OOM killer enabled."),
        "mm/oom_kill.c oom_killer_disable(), 4.12+: frames every suspend",
    ),
    _neighbour(
        "pagefault_leak",
        ("Huh ",),
        r"Huh VM_FAULT_OOM leaked out to the #PF handler",
        ("Huh VM_FAULT_OOM leaked out to the #PF handler. Retrying PF",),
        "mm/oom_kill.c pagefault_out_of_memory(), 5.16+",
    ),
    _neighbour(
        "vm_killing",
        ("VM: ",),
        r"VM: killing process ",
        ("VM: killing process dd",),
        "arch page fault handlers, 2.6.27 to 3.10: killed without a report",
    ),
    _neighbour(
        "badness_debug",
        ("OOMk",),
        r"OOMkill: task \d+ \(.*\) got \d+ points",
        ("OOMkill: task 2543 (stress) got 901 points",),
        "mm/oom_kill.c badness(), 2.6.27 to 2.6.35",
    ),
    _neighbour(
        "kill_refused",
        ("trie",),
        r"tried to kill (?:init|an mm-less task)",
        ("tried to kill init!", "tried to kill an mm-less task 2543 (stress)!"),
        "mm/oom_kill.c __oom_kill_task(), 2.6.27 to 2.6.35",
    ),
    _neighbour(
        "reaper_start_failed",
        ("Unab",),
        r"Unable to start OOM reaper -?\d+",
        ("Unable to start OOM reaper -12. Continuing regardless",),
        "mm/oom_kill.c oom_init(), 4.6 to 4.14",
    ),
    _neighbour(
        "openvz_exited",
        ("OOM ",),
        r"OOM killed process .* \(pid=\d+, ve=\d+\) exited|OOM killer in rage, \d+ tasks killed",
        (
            "OOM killed process httpd (pid=2543, ve=101) exited, free=12345 gen=3.",
            "OOM killer in rage, 16 tasks killed in ub 1234",
        ),
        "OpenVZ 2.6.32-042stab",
    ),
    LOWMEMORYKILLER,
    _neighbour(
        "vmalloc_failure",
        ("vmal",),
        r"vmalloc: allocation failure",
        ("vmalloc: allocation failure: 1073741824 bytes",),
        "mm/vmalloc.c, 3.2 to 4.8: an extra record before the allocation failure",
    ),
)
