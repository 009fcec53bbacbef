"""The call trace says what the memory was for.

The functions between the system call and the page allocator often name the work: an initramfs that is
unpacked and does not fit, a core dump, a new thread's stack, a network driver's buffer. Where it is the
kernel's own work the process that is named as the asker has little to do with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.escape import harmless_name

ID = "trace_tells_who"
TITLE = "The call trace says what the memory was for"


class _Work(NamedTuple):
    """Functions that are called for this work alone; what it is; what to do; whether it is the cause."""

    functions: re.Pattern[str]
    words: str
    advice: str = ""
    decides: bool = False


_WORKS = (
    _Work(
        re.compile(r"(?:do_)?populate_rootfs|unpack_to_rootfs|do_copy|flush_buffer|xwrite"),
        "the initramfs was being unpacked, and does not fit",
        "Give the machine more RAM, or make the initramfs smaller (MODULES=dep in initramfs.conf, no debug "
        "symbols in it): it needs room packed and unpacked at once.",
        decides=True,
    ),
    _Work(
        re.compile(r"lru_gen_age_node|lru_gen_min_ttl"),
        "MGLRU's min_ttl_ms wanted the working set kept",
        "Lower /sys/kernel/mm/lru_gen/min_ttl_ms (0 is off): it prefers a kill to thrashing.",
        decides=True,
    ),
    _Work(re.compile(r"should_failslab|should_fail_alloc_page|should_fail(?:_ex)?"), "fault injection"),
    _Work(re.compile(r"do_coredump|elf_core_dump|vfs_coredump"), "a core dump was being written"),
    _Work(re.compile(r"create_object|__?kmemleak_\w+"), "the kernel's own leak detector (kmemleak)"),
    _Work(
        re.compile(r"copy_process|dup_task_struct|alloc_thread_stack_node|kernel_clone|_?do_fork"),
        "a new task",
    ),
    _Work(re.compile(r"pgd_alloc|mm_init|__pte_alloc|pte_alloc_one|__p[mu]d_alloc"), "page tables"),
    _Work(
        re.compile(
            r"__?alloc_skb|__netdev_alloc_skb|napi_alloc_skb|sock_alloc_send_pskb|skb_page_frag_refill"
        ),
        "a network buffer",
    ),
    _Work(re.compile(r"drm_\w+|ttm_\w+|i915_\w+|amdgpu_\w+|dma_heap_\w+|ion_\w+"), "a graphics buffer"),
    _Work(re.compile(r"io_uring_\w+|io_\w*_submit_sqes?|__io_uring_\w+"), "io_uring"),
    _Work(re.compile(r"bpf_map_\w+|map_create|__sys_bpf"), "a BPF map"),
    _Work(re.compile(r"pipe_write|anon_pipe_write"), "a pipe"),
    _Work(re.compile(r"shmem_\w+"), "shared memory (tmpfs)"),
    _Work(re.compile(r"page_cache_ra_\w+|page_cache_readahead\w*|filemap_fault"), "reading a file"),
)
#: all of them: most functions of a trace are none
_ANY = re.compile("|".join(f"(?:{work.functions.pattern})" for work in _WORKS))


def find(case: Case) -> Claim | None:
    trace = case.report.trigger.call_trace
    known = [function for function in trace if _called(_ANY, (function,))]
    work = next((w for w in _WORKS if _called(w.functions, known)), None)
    if work is None:
        return None
    asker = case.report.trigger.comm
    who = f"{harmless_name(asker)} asked" if asker else "The request came"
    finding = Finding(
        id=ID,
        severity="warning" if work.decides else "info",
        title=TITLE,
        explanation=f"{who} for {work.words}, by the call trace."
        if not work.decides
        else f"By the call trace {work.words}.",
        evidence={"function": next(f for f in trace if _called(work.functions, (f,)))},
        advice=work.advice,
    )
    cause = Cause(tier=Tier.MANNER, text=work.words) if work.decides and not case.in_cgroup else None
    return Claim(finding=finding, cause=cause)


def _called(pattern: re.Pattern[str], trace: Iterable[str]) -> bool:
    return any(pattern.fullmatch(function.partition(".")[0]) for function in trace)
