"""mm/memcontrol.c: the memory cgroup part of a report."""

from __future__ import annotations

import re
from collections.abc import Sequence

from oomwatchd.formats import Copies, Form, Match, Proof, Role, Section, Unspaced, rx
from oomwatchd.formats.parts import Parts
from oomwatchd.records.report import MemcgCounter, MemcgStat
from oomwatchd.words.deferred import deferred


def _read_task_in(parts: Parts, m: Match) -> None:
    parts.memcg.claims.append(parse_task_in(m["path"]))


TASK_IN = Form(
    name="task_in",
    section=Section.MEMCG,
    role=Role.BODY,
    begins=("Task",),
    pattern=rx(r"Task in (?P<path>/.*)$"),
    open_ended=True,
    opens=True,
    proof=Proof.IN_TEXT,
    needles=("Task in /",),
    copies=Copies(
        start=r"Task in /",
        end=r"limit of /\S*",
        words=r"killed|as|a|result|of|limit|/\S*",
        closed=False,
        free=True,
        inner=r"Task in /\S* killed",
        unspaced=Unspaced(
            r"Taskin/\S*killedasaresultof",
            (("Taskin", "Task in "), ("killedasaresultoflimitof", " killed as a result of limit of ")),
        ),
    ),
    reads=_read_task_in,
    samples=("Task in /a.slice/b.service killed as a result of limit of /a.slice", "Task in /foo"),
    source="mm/memcontrol.c mem_cgroup_print_oom_info(), 2.6.30 to 4.20 (3.15 to 3.17 in two records)",
)


def _read_limit_of(parts: Parts, m: Match) -> None:
    parts.memcg.claims.append((None, m["path"]))


LIMIT_OF = Form(
    name="limit_of",
    section=Section.MEMCG,
    role=Role.BODY,
    begins=("kill",),
    pattern=rx(r"killed as a result of limit of (?P<path>.*)$"),
    open_ended=True,
    copies=Copies(
        start=r"killed as a(?: result\b|$)",
        end=r"limit of /\S*",
        words=r"result|of|limit|/\S*",
        closed=False,
        free=True,
    ),
    reads=_read_limit_of,
    samples=(" killed as a result of limit of /system.slice/foo.service",),
    source="mm/memcontrol.c mem_cgroup_print_oom_info(), 3.15 to 3.17",
)

LIMIT_REACHED = Form(
    name="limit_reached",
    section=Section.MEMCG,
    role=Role.BODY,
    begins=("Memo",),
    pattern=rx(r"Memory limit reached of cgroup (?P<path>.*)$"),
    open_ended=True,
    opens=True,
    proof=Proof.IN_TEXT,
    needles=("Memory limit reached of cgroup ",),
    copies=Copies(
        start=r"Memory limit reached\b",
        end=r"of cgroup /\S*",
        words=r"of|cgroup|/\S*",
        closed=False,
        free=True,
    ),
    reads=_read_limit_of,
    samples=("Memory limit reached of cgroup /system.slice/foo.service",),
    source="mm/memcontrol.c mem_cgroup_print_oom_info(), 4.1 to 4.20",
)


def _read_usage(parts: Parts, m: Match) -> None:
    parts.memcg.counters[m["counter"]] = counter(int(m["usage"]), int(m["limit"]), int(m["failcnt"]))


USAGE = Form(
    name="memcg_usage",
    section=Section.MEMCG,
    role=Role.BODY,
    begins=("memo", "kmem", "swap"),
    pattern=rx(
        r"(?P<counter>memory\+swap|memory|kmem|swap): ?usage (?P<usage>\d+) ?kB, "
        r"?limit (?P<limit>\d{1,20}) ?kB, ?failcnt (?P<failcnt>\d+)"
    ),
    opens=True,
    proof=Proof.IN_TEXT,
    copies=Copies(
        start=r"(?:memory(?:\+swap)?|swap|kmem): usage\b",
        end=r"failcnt \d+",
        words=r"usage|limit|\d+kB,|failcnt|\d+",
        inner=r"(?:memory(?:\+swap)?|kmem|swap): usage \d",
        unspaced=Unspaced(
            r"(?:memory(?:\+swap)?|swap|kmem):usage\d",
            ((":usage", ": usage "), (",limit", ", limit "), (",failcnt", ", failcnt ")),
        ),
    ),
    reads=_read_usage,
    samples=(
        "memory: usage 102400kB, limit 102400kB, failcnt 117",
        "memory+swap: usage 102400kB, limit 9007199254740988kB, failcnt 0",
        "kmem: usage 1432kB, limit 9007199254740988kB, failcnt 0",
        "swap: usage 0kB, limit 9007199254740988kB, failcnt 0",
    ),
    source="mm/memcontrol.c mem_cgroup_print_oom_meminfo(), 2.6.30 to 7.3",
)


def _read_stats(parts: Parts, m: Match) -> None:
    parts.memcg.stats_path = m["path"]
    figures = parse_kb_stats(m["stats"])
    parts.memcg.stats.append(MemcgStat(path=m["path"], stat=figures, unit_bytes=1024 if figures else 1))


STATS = Form(
    name="memcg_stats",
    section=Section.MEMCG,
    role=Role.BODY,
    begins=("Memo",),
    # a path may hold whatever follows it. A run of statistics is matched as a whole (possessive): otherwise
    # each of its colons would be tried in turn, up to the run's end
    pattern=rx(
        r"Memory cgroup stats(?: for (?P<path>(?>(?<!\w)(?:\w+: ?\d+KB ?)+(?!$)|.)*?))?"
        r": *(?P<stats>(?:\w+: ?\d+KB ?)*)$"
    ),
    opens=True,
    proof=Proof.IN_TEXT,
    copies=Copies(
        start=r"Memory cgroup stats",
        end=r":|unevictable:\d+KB",
        words=r"\w+:\d+KB",
        free=True,
        inner=r"Memory cgroup stats for",
    ),
    reads=_read_stats,
    samples=(
        "Memory cgroup stats for /foo: cache:0KB rss:102400KB swap:0KB unevictable:0KB",
        "Memory cgroup stats for /system.slice/foo.service:",
    ),
    source="mm/memcontrol.c mem_cgroup_print_oom_info(), 3.9+",
)


def _read_stat(parts: Parts, m: Match) -> None:
    read_stats(parts, m[0])


def read_stats(parts: Parts, text: str) -> None:
    """Read rows of statistics, one or many."""
    stats = parts.memcg.stats
    figures = parse_stats(text)
    if stats and stats[-1].unit_bytes == 1:
        stats[-1].stat.update(figures)
    else:
        stats.append(MemcgStat(path=parts.memcg.stats_path, stat=figures, unit_bytes=1))


STAT = Form(
    name="memcg_stat",
    section=Section.MEMCG,
    role=Role.BODY,
    in_place=True,
    pattern=rx(r"[a-z][a-z0-9_]* \d{1,19}(?:\n[a-z][a-z0-9_]* \d{1,19})*(?:\n[a-z0-9_]* ?)?$"),
    copies=Copies(start=r"[a-z][a-z0-9_]{1,40} \d+(?:$|\n)", end=r"\d"),
    reads=_read_stat,
    samples=("anon 20918272", "anon 20815872\nfile 0\nkernel_stack 0\nperc"),
    source="mm/memcontrol.c memory_stat_format(), 5.3+ (one record for all until 6.4)",
)


def _read_protection(parts: Parts, m: Match) -> None:
    parts.memcg.protection = (int(m["min"]) * 1024, int(m["low"]) * 1024)


PROTECTION = Form(
    name="memcg_protection",
    section=Section.SLAB,
    role=Role.BODY,
    begins=("Memo",),
    pattern=rx(r"Memory cgroup min protection (?P<min>\d+)kB -- low protection (?P<low>\d+)kB"),
    copies=Copies(
        start=r"Memory cgroup min protection",
        end=r"low protection \d+kB",
        words=r"\d+kB|--|low|min|protection",
        inner=r"Memory cgroup min protection",
        unspaced=Unspaced(
            r"Memorycgroupminprotection\d",
            (
                ("Memorycgroupminprotection", "Memory cgroup min protection "),
                ("--lowprotection", " -- low protection "),
            ),
        ),
    ),
    reads=_read_protection,
    samples=("Memory cgroup min protection 0kB -- low protection 1048576kB",),
    source="mm/memcontrol.c mem_cgroup_show_protected_memory(), 6.19+",
)

FORMS = (TASK_IN, LIMIT_OF, LIMIT_REACHED, USAGE, STATS, PROTECTION, STAT)

#: the greatest page counter of 32-bit kernels with 4 KiB pages; from 2^52 kB on every value is one of
#: the "no limit" marks of 64-bit kernels (kernel-formats: unlimited_kB)
_UNLIMITED_32_KB = 8589934588
_UNLIMITED_FROM_KB = 1 << 52


def counter(usage_kb: int, limit_kb: int, failcnt: int) -> MemcgCounter:
    """A usage line's figures; limits that mean "none" become None."""
    unlimited = limit_kb >= _UNLIMITED_FROM_KB or limit_kb == _UNLIMITED_32_KB
    return MemcgCounter(
        usage_bytes=usage_kb * 1024, limit_bytes=None if unlimited else limit_kb * 1024, failcnt=failcnt
    )


_LIMIT_OF = " killed as a result of limit of "


def parse_task_in(paths: str) -> tuple[str, str | None]:
    """``A killed as a result of limit of B`` -> (A, B); A lies in B's tree, which settles the cut."""
    at = paths.find(_LIMIT_OF)
    first = at
    while at >= 0:
        task, oom = paths[:at], paths[at + len(_LIMIT_OF) :]
        if task == oom or task.startswith(oom if oom.endswith("/") else oom + "/"):
            return task, oom
        at = paths.find(_LIMIT_OF, at + 1)
    if first >= 0:
        return paths[:first], paths[first + len(_LIMIT_OF) :]
    return paths, None


_STATS = deferred(r"(?: *[a-z][a-z0-9_]* \d{1,19}(?:\0|\Z))+", re.ASCII)


def stat_count(texts: Sequence[str]) -> int:
    """The number of lines, counted from the first, that are statistics with one row each."""
    joined = "\0".join(texts)
    rows = _STATS.match(joined)
    if rows is None:
        return 0
    return joined.count("\0", 0, rows.end()) + (rows.end() == len(joined) and joined[-1] != "\0")


_KB_STAT = rx(r"(\w{1,64}+): ?(\d{1,20}+)KB")
_STAT = rx(r"^([a-z][a-z0-9_]*) (\d{1,19})$", re.MULTILINE)


def parse_kb_stats(text: str) -> dict[str, int]:
    """``cache:0KB rss:102400KB`` -> figures in KB by name."""
    return {name: int(figure) for name, figure in _KB_STAT.findall(text)}


def parse_stats(text: str) -> dict[str, int]:
    """``anon 20918272`` rows, one or many -> figures by name. A row cut at the record's end is left
    out unless its figure is followed by the end of the text (then it may be short: kept as printed)."""
    return {name: int(figure) for name, figure in _STAT.findall(text)}
