"""Give a kernel line its blanks back, where a copy lost all of them.

Some web forms and extracted PDFs drop every blank. Which ones a line had is known from its kind; only the
rows of a task table cannot be read any more, for nothing parts their numbers.
"""

from __future__ import annotations

import re
from typing import Final

_COMM: Final = r".{1,15}?"
_ZONES: Final = r"(?:DMA32|DMA|Normal|HighMem|Movable|Device)"

# (the whole line without blanks, substitutions that put them back)
_LINES: Final[tuple[tuple[re.Pattern[str], tuple[tuple[re.Pattern[str], str], ...]], ...]] = tuple(
    (re.compile(line), tuple((re.compile(pattern), by) for pattern, by in marks))
    for line, marks in (
        (
            rf"{_COMM}invokedoom-killer:",
            (
                ("invokedoom-killer:", " invoked oom-killer: "),
                (r",(?=(?:order|nodemask|oom_score_adj|oom_adj|oomkilladj)=)", ", "),
            ),
        ),
        (rf"{_COMM}cpuset=\S*mems_allowed=[\d,-]+$", (("(?=cpuset=)|(?=mems_allowed=)", " "),)),
        (
            r"(?:CPU:\d+(?:UID:\d+)?PID:\d+Comm:|Pid:\d+,comm:)",
            (
                (r"^(CPU|Pid):", r"\1: "),
                (r"(?<=\d)(PID|UID):", r" \1: "),
                (r"(?<=\d)Comm:", " Comm: "),
                (r",comm:", ", comm: "),
                (r"Nottainted", " Not tainted "),
                (r"(?=Tainted:)", " "),
                (r"(?=#\d)", " "),
                (r"(?<=: \d)UID", " UID"),
            ),
        ),
        (
            r"(?:Memorycgroupoutofmemory|Outofmemory):[Kk]ill|[Kk]illedprocess\d",
            (
                ("^Memorycgroupoutofmemory:", "Memory cgroup out of memory: "),
                ("^Outofmemory:", "Out of memory: "),
                (r"([Kk]ill(?:ed)?)process(\d+)(,?)", r"\1 process \2\3 "),
                (r"\)(?=total-vm:|vsz:)", ") "),
                (r",(?=(?:anon|file|shmem)-rss:|UID:)", ", "),
                (r"(?<=\d)(?=pgtables:\d+kB)|(?<=kB)(?=oom_score_adj:)", " "),
                (r"\)score(-?\d+)or(sacrifice|a)child$", r") score \1 or \2 child"),
            ),
        ),
        (
            r"oom_reaper:reapedprocess\d",
            (
                (r"oom_reaper:reapedprocess(\d+)", r"oom_reaper: reaped process \1 "),
                (r"\),now(?=anon-rss:)", "), now "),
                (r",(?=(?:file|shmem)-rss:)", ", "),
            ),
        ),
        ("Outofmemoryandnokillable", (("Outofmemoryandnokillable", "Out of memory and no killable "),)),
        (
            r"Kernelpanic-notsyncing:",
            (
                ("Kernelpanic-notsyncing:", "Kernel panic - not syncing: "),
                ("Outofmemoryandnokillable", "Out of memory and no killable "),
                ("Outofmemory:", "Out of memory: "),
                ("system-widepanic_on_oomisenabled", "system-wide panic_on_oom is enabled"),
                ("compulsorypanic_on_oomisenabled", "compulsory panic_on_oom is enabled"),
                ("Systemisdeadlockedonmemory", "System is deadlocked on memory"),
            ),
        ),
        (
            r"Taskin/\S*killedasaresultof",
            (("Taskin", "Task in "), ("killedasaresultoflimitof", " killed as a result of limit of ")),
        ),
        (
            r"Tasksin/\S*aregoingtobekilled",
            (
                ("Tasksin", "Tasks in "),
                (
                    r"aregoingtobekilledduetomemory\.oom\.groupset",
                    " are going to be killed due to memory.oom.group set",
                ),
            ),
        ),
        (
            r"(?:memory(?:\+swap)?|swap|kmem):usage\d",
            ((":usage", ": usage "), (",limit", ", limit "), (",failcnt", ", failcnt ")),
        ),
        (
            rf"(?:Node\d+)?{_ZONES}free:\d|Node\d+active_anon:",
            (
                (r"^Node(\d+)", r"Node \1 "),
                ("(?=free:)", " "),
                (r"(?<=[kK]B)(?=[a-zA-Z])", " "),
                (r"(?<=\d)(?=all_unreclaimable)", " "),
                (r"unreclaimable\?(yes|no)", r"unreclaimable? \1 "),
            ),
        ),
        (
            rf"(?:Node\d+)?{_ZONES}:\d+\*\d+kB",
            (
                (r"^Node(\d+)", r"Node \1 "),
                (r"(?<=[A-Za-z0-9]):(?=\d)", ": "),
                (r"(?<=kB)(?=[\d(=])|(?<=\))(?=[\d=])", " "),
                (r"=(?=\d)", "= "),
            ),
        ),
        (
            r"(?:active_anon|active_file|unevictable|slab_reclaimable|mapped|sec_pagetables|free):\d+[a-z]",
            ((r"(?<=\d)(?=[a-z])", " "),),
        ),
        (
            r"(?:Node\d+)?hugepages_total=\d",
            ((r"^Node(\d+)", r"Node \1 "), (r"(?<=\d)(?=hugepages_)", " ")),
        ),
        (
            r"Swapcachestats:add",
            (("Swapcachestats:add", "Swap cache stats: add "), (",(delete|find)", r", \1 ")),
        ),
        (
            r"Memorycgroupminprotection\d",
            (
                ("Memorycgroupminprotection", "Memory cgroup min protection "),
                ("--lowprotection", " -- low protection "),
            ),
        ),
        (r"\d+totalpagecachepages$", (("totalpagecachepages", " total pagecache pages"),)),
        (r"\d+pagesinswapcache$", (("pagesinswapcache", " pages in swap cache"),)),
        (r"\d+pages(?:RAM|HighMem\S*|reserved|shared|non-shared|hwpoisoned)$", (("pages", " pages "),)),
        (r"\d+pagescmareserved$", (("pagescmareserved", " pages cma reserved"),)),
        (r"(?:Free|Total)swap=\d+kB$", (("Freeswap=", "Free swap  = "), ("Totalswap=", "Total swap = "))),
    )
)


def respace(text: str) -> str:
    """The line with its blanks, if it has none and is of a kind that must have some; else as it is."""
    for line, marks in _LINES:
        if line.match(text) is not None:
            for pattern, by in marks:
                text = pattern.sub(by, text)
            return text.strip(" ")
    return text
