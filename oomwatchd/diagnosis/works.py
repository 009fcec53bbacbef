"""The work that needed the memory, by the functions of a call trace between system call and page allocator.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from oomwatchd.diagnosis.purpose import purpose


class Work(NamedTuple):
    """Functions that are called only for this work, its name, the advice, and whether it is the cause."""

    #: A regular expression, compiled with the first report: most hosts never have one.
    functions: str
    words: str
    advice: str = ""
    decides: bool = False


_WORKS = (
    Work(
        r"(?:do_)?populate_rootfs|unpack_to_rootfs|do_copy|flush_buffer|xwrite",
        "the initramfs was being unpacked, and does not fit",
        "Give the machine more RAM, or make the initramfs smaller (MODULES=dep in initramfs.conf, no debug "
        "symbols in it): it needs room packed and unpacked at once.",
        decides=True,
    ),
    Work(
        r"lru_gen_age_node|lru_gen_min_ttl",
        "MGLRU's min_ttl_ms wanted the working set kept",
        "Lower /sys/kernel/mm/lru_gen/min_ttl_ms (0 is off): it prefers a kill to thrashing.",
        decides=True,
    ),
    Work(r"should_failslab|should_fail_alloc_page|should_fail(?:_ex)?", "fault injection"),
    Work(r"do_coredump|elf_core_dump|vfs_coredump", "a core dump was being written"),
    Work(r"create_object|__?kmemleak_\w+", "the kernel's own leak detector (kmemleak)"),
    Work(r"shmem_\w+", "shared memory (tmpfs)"),
    Work(r"page_cache_ra_\w+|page_cache_readahead\w*|filemap_fault", "reading a file"),
)
#: Number of general works at the end of the list. The purpose of kernel memory is looked for before them.
_GENERAL = 2


def work_of(trace: Sequence[str]) -> tuple[Work, str] | None:
    """The work that a trace shows, and the function that shows it; None if it shows none."""
    called = [(function, _places(function.partition(".")[0])) for function in trace]
    asked = purpose(trace)
    for place, work in enumerate(_WORKS):
        if place == len(_WORKS) - _GENERAL and asked is not None:
            for function in trace:
                if re.fullmatch(asked.functions, function.partition(".")[0]):
                    return Work(asked.functions, asked.words), function
        for function, places in called:
            if place in places:
                return work, function
    return None


@lru_cache(maxsize=512)
def _places(function: str) -> tuple[int, ...]:
    """The places of the works that have this function."""
    return tuple(place for place, w in enumerate(_WORKS) if re.fullmatch(w.functions, function))
