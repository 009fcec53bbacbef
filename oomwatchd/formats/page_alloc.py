"""mm/page_alloc.c, mm/nommu.c: a page allocation that failed without an OOM kill."""

from __future__ import annotations

import re

from oomwatchd.formats import Copies, Form, Match, Proof, Role, Section, rx
from oomwatchd.formats.parts import Parts
from oomwatchd.words.deferred import deferred

_CPUSET = deferred(r",cpuset=(.*),mems_allowed=([\d,-]*)$", re.DOTALL)


def _read_alloc_failure(parts: Parts, m: Match) -> None:
    parts.outcome.failure = True
    parts.outcome.outcome = m["what"].rstrip(",: ")
    trigger, mode = parts.trigger, m["mode"]
    trigger.comm = m["comm"]
    trigger.requests(f"gfp_mask={mode}")
    trigger.order = int(m["order"]) if m["order"] else None
    if cpuset := _CPUSET.search(mode):
        trigger.cpuset, trigger.mems = cpuset[1], cpuset[2]


ALLOC_FAILURE = Form(
    name="alloc_failure",
    section=Section.HEADER,
    role=Role.HEADER,
    pattern=rx(
        r"(?:(?P<comm>.{0,80}?): )?(?P<what>page allocation (?:failure[.:] ?|stalls? for [^,:]*[,:] ?)"
        r"order: ?(?P<order>-?\d+)"
        r"|vmalloc[: ].{0,200}?),? mode:"
        r"(?P<mode>0x[0-9a-f]+(?:\([^)]*\))?(?:,? nodemask=(?:\(null\)|[\d,-]+))?"
        r"(?:,cpuset=.*,mems_allowed=[\d,-]*)?\s*$|(?P<loose>.*$))"
    ),
    marks=("mode:0x",),
    opens=True,
    failure=True,
    proof=Proof.ALONE,
    needles=("mode:0x",),
    copies=Copies(
        start=r"(?:\S.{0,31}: )?page allocation (?:failure|stalls?\b)|\S.{0,31}: vmalloc[: ]",
        end=r"mode:0x\S+|nodemask=\S+|mems_allowed=\S+",
        words=r"mode:0x\S+|order:\d+,|nodemask=\S+|size|failed|to|allocate|pages,|for|secs:|\d+m?s?,?",
    ),
    reads=_read_alloc_failure,
    samples=(
        "kworker/0:1: page allocation failure. order:4, mode:0x201da",
        "kworker/0:1: page allocation failure: order:4, mode:0x24201ca(GFP_HIGHUSER_MOVABLE|__GFP_COLD)",
        "kworker/0:1: page allocation failure: order:4, mode:0x6200ca(GFP_HIGHUSER_MOVABLE), "
        "nodemask=(null),cpuset=/,mems_allowed=0",
        "a: page allocation stalls for 4ms, order:0, mode:0x14201ca(GFP_HIGHUSER_MOVABLE|__GFP_COLD), "
        "nodemask=(null)",
        "a: page allocation stall for 4 secs: order:0, mode:0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP) "
        "nodemask=(null),cpuset=/,mems_allowed=0",
        "page allocation failure: order:0, mode:0x2080020(GFP_ATOMIC)",
        "modprobe: vmalloc error: size 8192, failed to allocate pages, mode:0xcc2(GFP_KERNEL|__GFP_HIGHMEM), "
        "nodemask=(null),cpuset=/,mems_allowed=0",
    ),
    source="mm/page_alloc.c warn_alloc(), 2.6.27 to 7.3; 4.9 to 4.13 print the name apart, and may lose it",
)


def _read_nommu_failure(parts: Parts, m: Match) -> None:
    parts.outcome.failure = True
    parts.outcome.outcome = f"allocation of {m['length']} bytes failed"
    parts.trigger.pid, parts.trigger.comm = int(m["pid"]), m["comm"]


NOMMU_FAILURE = Form(
    name="nommu_failure",
    section=Section.HEADER,
    role=Role.HEADER,
    begins=("Allo",),
    pattern=rx(
        r"Allocation of length (?P<length>\d+) from process (?P<pid>\d+)(?: \((?P<comm>.*)\))? failed"
    ),
    opens=True,
    failure=True,
    proof=Proof.ALONE,
    needles=("Allocation of length ",),
    copies=Copies(
        start=r"Allocation of length\b", end=r"failed", words=r"\d+|from|process|\([^()]*\)|failed"
    ),
    reads=_read_nommu_failure,
    samples=(
        "Allocation of length 1048576 from process 312 failed",
        "Allocation of length 1048576 from process 312 (stress) failed",
    ),
    source="mm/nommu.c do_mmap_private(), 2.6.27 to 7.3",
)

FORMS = (ALLOC_FAILURE, NOMMU_FAILURE)
