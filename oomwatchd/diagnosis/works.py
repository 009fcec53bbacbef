"""What memory was for, by the functions of a call trace between the system call and the page allocator.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from oomwatchd.diagnosis.purpose import purpose


class Work(NamedTuple):
    """Functions that are called for this work alone; what it is; what to do; whether it is the cause."""

    functions: re.Pattern[str]
    words: str
    advice: str = ""
    decides: bool = False


_WORKS = (
    Work(
        re.compile(r"(?:do_)?populate_rootfs|unpack_to_rootfs|do_copy|flush_buffer|xwrite"),
        "the initramfs was being unpacked, and does not fit",
        "Give the machine more RAM, or make the initramfs smaller (MODULES=dep in initramfs.conf, no debug "
        "symbols in it): it needs room packed and unpacked at once.",
        decides=True,
    ),
    Work(
        re.compile(r"lru_gen_age_node|lru_gen_min_ttl"),
        "MGLRU's min_ttl_ms wanted the working set kept",
        "Lower /sys/kernel/mm/lru_gen/min_ttl_ms (0 is off): it prefers a kill to thrashing.",
        decides=True,
    ),
    Work(re.compile(r"should_failslab|should_fail_alloc_page|should_fail(?:_ex)?"), "fault injection"),
    Work(re.compile(r"do_coredump|elf_core_dump|vfs_coredump"), "a core dump was being written"),
    Work(re.compile(r"create_object|__?kmemleak_\w+"), "the kernel's own leak detector (kmemleak)"),
    Work(re.compile(r"shmem_\w+"), "shared memory (tmpfs)"),
    Work(re.compile(r"page_cache_ra_\w+|page_cache_readahead\w*|filemap_fault"), "reading a file"),
)
#: those before which what kernel memory was asked for is looked for
_GENERAL = 2
#: all of them: most functions of a trace are none
_ANY = re.compile("|".join(f"(?:{work.functions.pattern})" for work in _WORKS))


def work_of(trace: Sequence[str]) -> tuple[Work, str] | None:
    """The work that a trace tells of, and the function that does; None where it tells of none."""
    known = [function for function in trace if _called(_ANY, (function,))]
    asked = purpose(trace)
    works = list(_WORKS)
    if asked is not None:
        works.insert(-_GENERAL, Work(asked.functions, asked.words))
        known = list(trace)
    work = next((w for w in works if _called(w.functions, known)), None)
    return None if work is None else (work, next(f for f in known if _called(work.functions, (f,))))


def _called(pattern: re.Pattern[str], trace: Iterable[str]) -> bool:
    return any(pattern.fullmatch(function.partition(".")[0]) for function in trace)
