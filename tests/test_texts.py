"""Every text that a user can see of every event of the corpora obeys rules that no wording may break.

A rule is a function: it yields what is wrong with one event. ``python -m tests.test_texts [RULE ...]``
prints all complaints. BROKEN names every rule that is broken today, strictly: whoever fixes a rule removes
its name.
"""

from __future__ import annotations

import ast
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import oomwatchd
from oomwatchd.event import OomEvent
from oomwatchd.render.fields import asked, change, died, why
from oomwatchd.render.terminal import render_text
from tests.conftest import corpus_directory
from tests.recorded import kinds, whole_corpus

WIDTH = 80
Complaints = Iterator[str]
Rule = Callable[["Seen"], Complaints]

#: rules that texts break today
BROKEN: set[str] = set()


class Seen(NamedTuple):
    """An event and what is said of it."""

    name: str
    event: OomEvent
    #: the four lines of the verdict
    verdict: dict[str, str]
    #: title, explanation and advice of each finding, and the summary
    texts: tuple[str, ...]
    terminal: str

    @property
    def advice(self) -> tuple[str, ...]:
        return tuple(f.advice for f in self.event.findings if f.advice)


@cache
def seen(corpus: Path) -> tuple[Seen, ...]:
    """One event of each kind in each file."""
    return tuple(_seen(path.name, event) for path in whole_corpus(corpus) for event in kinds(path))


def _seen(name: str, event: OomEvent) -> Seen:
    findings = [t for f in event.findings for t in (f.title, f.explanation, f.advice) if t]
    return Seen(
        name=name,
        event=event,
        verdict={"DIED": died(event), "ASKED": asked(event), "WHY": why(event), "CHANGE": change(event)},
        texts=(event.summary, *findings),
        terminal=render_text(event, width=WIDTH),
    )


# ---- what is known of the machine


def kernel(event: OomEvent) -> tuple[int, int] | None:
    """The version as the report prints it."""
    found = re.match(r"(\d+)\.(\d+)", event.kernel or "")
    return (int(found[1]), int(found[2])) if found else None


def cgroup_version(event: OomEvent) -> int | None:
    """mem_cgroup_print_oom_meminfo(): v1 prints memory+swap and kmem, v2 swap."""
    if event.memcg is None:
        return None
    if event.memcg.memory_swap is not None or event.memcg.kmem is not None:
        return 1
    return 2 if event.memcg.swap is not None else None


def systemd(event: OomEvent) -> bool | None:
    """Whether systemd runs there. Its helpers are in every whole table of a machine that has it; a table of a
    container or cgroup shows its own processes alone."""
    paths = f"{event.memcg.oom_path if event.memcg else ''} {event.trigger.cpuset}"
    names = [t.comm for t in event.tasks]
    if re.search(r"\.(slice|service|scope)\b", paths) or any(n.startswith("systemd") for n in names):
        return True
    if event.constraint == "none" and event.complete and names:
        return False
    return None


def booting(event: OomEvent) -> bool:
    """Before process 1 has started a program: who asks is the kernel's own first task."""
    return event.trigger.pid == 1 and (event.trigger.comm or "").startswith("swapper")


# ---- the rules


def control_characters(seen: Seen) -> Complaints:
    """Names are attacker-controlled: no text carries one that acts on a terminal (docs/event.md)."""
    for text in (*seen.texts, *seen.verdict.values(), seen.terminal.replace("\n", "")):
        for character in text:
            if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
                yield f"{character!a} in {text!a}"
                break


def share_over_100(seen: Seen) -> Complaints:
    """No part is more than its whole."""
    for text in (*seen.texts, seen.terminal):
        for share in re.findall(r"(\d+(?:\.\d+)?) ?%", text):
            if float(share) > 100:
                yield f"{share} % in {_around(text, f'{share} %')}"


def negative_amount(seen: Seen) -> Complaints:
    for text in (*seen.texts, seen.terminal):
        if found := re.search(r"(?<![\w.-])-\d[\d.]* ?(?:B|kB|[KMGT]iB|%|pages)\b", text):
            yield _around(text, found[0])


def placeholder(seen: Seen) -> Complaints:
    """Nothing that a program says to itself."""
    for text in (*seen.texts, *seen.verdict.values(), seen.terminal):
        if found := re.search(r"\b(?:None|nan|inf|null)\b(?! of)|\{[\w.]*\}", _without_names(seen, text)):
            yield _around(text, found[0])


def unknown_as_zero(seen: Seen) -> Complaints:
    """A row of the memory table has its figure in the report."""
    memory = seen.event.memory
    if memory is None:
        return
    rows = {
        "anonymous": ("active_anon", "inactive_anon", "anon"),
        "shared (tmpfs, shm)": ("shmem",),
        "file cache": ("active_file", "inactive_file", "active", "inactive", "pagecache"),
        "slab, reclaimable": ("slab_reclaimable",),
        "slab, unreclaimable": ("slab_unreclaimable",),
        "page tables": ("pagetables",),
        "kernel stacks": ("kernel_stack",),
        "unevictable": ("unevictable",),
        "free": ("free",),
    }
    printed = {name for name, amount in memory.totals.items() if amount is not None}
    for amounts in (*(z.amounts for z in memory.zones), *(n.amounts for n in memory.nodes)):
        printed |= set(amounts)
    printed |= {"pagecache_bytes"} if memory.pagecache_bytes is not None else set()
    for label, names in rows.items():
        row = re.search(rf"^{re.escape(label)} +0(?: B| kB)? ", seen.terminal, re.M)
        if row and not any(f"{name}_bytes" in printed for name in names):
            yield f"{row[0]!r}: the report has none of {names}"
    if memory.swap is None and re.search(r"^swap +(?:none|0)", seen.terminal, re.M):
        yield "swap: the report does not say"


def nothing_as_amount(seen: Seen) -> Complaints:
    """'If 0 kB are what it needs', 'processes hold 0 kB': nothing is no amount to act on."""
    for text in (*seen.advice, *seen.verdict.values()):
        if found := re.search(r"(?<![\d.])0 (B|kB|MiB) (are|is)\b|\b(hold|holds|held) 0 (B|kB|MiB)\b", text):
            yield _around(text, found[0])


def resident_unknown(seen: Seen) -> Complaints:
    """'0 resident' of a victim whose kill line says nothing of it."""
    first = next(iter(seen.event.victims), None)
    amounts = first and (first.anon_rss_bytes, first.file_rss_bytes, first.shmem_rss_bytes)
    if amounts == (None, None, None) and re.search(r"\b0(?: k?B)? resident", seen.verdict["DIED"]):
        yield seen.verdict["DIED"]


def free_contradicts_zones(seen: Seen) -> Complaints:
    """The table's 'free' is what the report counts as free."""
    memory = seen.event.memory
    row = re.search(r"^free +(\d+(?:\.\d+)?) (B|kB|MiB|GiB)", seen.terminal, re.M)
    total = None if memory is None else memory.totals.get("free_bytes")
    if row and total is not None:
        unit = {"B": 1, "kB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[row[2]]
        shown = float(row[1]) * unit
        if abs(shown - total) > max(unit, 0.006 * total):
            yield f"{row[0]!r}, counted {total >> 10} kB"


def advice_of_other_cgroup_version(seen: Seen) -> Complaints:
    """No key of v2 on v1, none of v1 on v2."""
    wrong = {
        1: r"memory\.(max|high|low|min|swap\.max|oom\.group|events)\b",
        2: r"memory\.(limit_in_bytes|memsw|soft_limit|kmem\.|oom_control|failcnt)",
        None: r"(?!)",
    }[cgroup_version(seen.event)]
    yield from (text for text in seen.advice if re.search(wrong, text))


def advice_of_newer_kernel(seen: Seen) -> Complaints:
    """No knob that this kernel does not have."""
    version = kernel(seen.event)
    knobs = (
        (r"compaction_proactiveness", (5, 9)),
        (r"watermark_boost_factor", (5, 0)),
        (r"watermark_scale_factor", (4, 6)),
        (r"mem_profiling|memory allocation profiling", (6, 10)),
        (r"memory\.oom\.group", (4, 19)),
        (r"memory\.(max|high|swap\.max)\b|MemoryHigh=|MemorySwapMax=", (4, 5)),
        (r"pids\.max|TasksMax=", (4, 3)),
        (r"\bzswap\b", (3, 11)),
        (r"\bzram\b", (3, 14)),
        (r"MemoryMax=|MemoryLimit=|OOMScoreAdjust=|LimitMEMLOCK=", (2, 6)),
    )
    if version is None:
        return
    for text in seen.advice:
        yield from (f"{knob}: {text}" for knob, since in knobs if version < since and re.search(knob, text))


def advice_of_systemd(seen: Seen) -> Complaints:
    """No setting of a unit where no systemd runs."""
    if systemd(seen.event) is False:
        keys = r"\b(MemoryMax|MemoryHigh|TasksMax|LimitMEMLOCK|OOMScoreAdjust|OOMPolicy)=|systemctl|\bunit\b"
        yield from (text for text in seen.advice if re.search(keys, text))


def advice_while_booting(seen: Seen) -> Complaints:
    """Nothing that needs a shell before there is a program."""
    if booting(seen.event):
        yield from (t for t in seen.advice if re.search(r"slabtop|MemoryMax=|/proc/PID|ipcs|df -t|ulimit", t))


def advice_bounds_init(seen: Seen) -> Complaints:
    """Process 1 is not bounded by a unit."""
    event = seen.event
    if event.trigger.pid == 1 and not any(t.comm == event.trigger.comm for t in event.tasks if t.pid != 1):
        yield from (text for text in seen.advice if text.startswith(f"Bound {event.trigger.comm}:"))


def advice_of_swap(seen: Seen) -> Complaints:
    """No 'add swap' where swap is there and not full."""
    swap = seen.event.memory.swap if seen.event.memory else None
    if swap is None or not swap.total_bytes or swap.free_bytes is None:
        return
    if swap.free_bytes > swap.total_bytes // 10:
        yield from (t for t in seen.advice if re.search(r"^(Swap or zram|Add swap|More swap)", t))


def advice_of_numa(seen: Seen) -> Complaints:
    """No binding policy to widen where there is one node."""
    memory = seen.event.memory
    nodes = {z.node for z in memory.zones} if memory else set()
    if memory and nodes == {None}:
        yield from (t for t in seen.advice if re.search(r"numactl|mbind|--membind", t))


def change_expects_kills(seen: Seen) -> Complaints:
    """CHANGE is something to do."""
    if re.search(r"[Ee]xpect (further|more) kills", seen.verdict["CHANGE"]):
        yield seen.verdict["CHANGE"]


def died_nobody(seen: Seen) -> Complaints:
    if seen.verdict["DIED"].strip().lower() == "nobody":
        yield seen.verdict["DIED"]


def counts_of_nothing(seen: Seen) -> Complaints:
    """'Of 1 listed processes 0 are exempt', 'Nobody left to kill: 3 of 41 exempt'."""
    for text in (*seen.texts, *seen.verdict.values()):
        if found := re.search(r"[Oo]f 1 (listed )?process|\b0 (of them )?are exempt", text):
            yield _around(text, found[0])
        found = re.search(r"[Nn]obody left to kill: (\d+) of (\d+)[^;:]*exempt(?! ?[,;:(])", text)
        if found and int(found[2]) - int(found[1]) > 1:
            yield text


def wrong_number(seen: Seen) -> Complaints:
    """'1 processes', '1 pages'."""
    for text in (*seen.texts, *seen.verdict.values()):
        if found := re.search(
            r"(?<![\w.,/-])1 (?:\w+ )?(processes|tasks|pages|kills|reports|times|threads|blocks)\b", text
        ):
            yield _around(text, found[0])


def sentence_to_take_apart(seen: Seen) -> Complaints:
    """Words that nobody can read: see docs/findings.md for what replaced them."""
    for text in (*seen.texts, *seen.verdict.values(), seen.terminal):
        for words in ("at its mark, too low", "not asked (class zone)", "taken before the allocator began"):
            if words in " ".join(text.split()):
                yield words


def kill_claimed(seen: Seen) -> Complaints:
    """What speaks of 'the kill' has one."""
    if not seen.event.kills:
        yield from (_around(t, "kill was") for t in seen.texts if re.search(r"\bthe kill was\b", t))


def wider_than_80(seen: Seen) -> Complaints:
    yield from (line for line in seen.terminal.splitlines() if len(line) > WIDTH)


def _without_names(seen: Seen, text: str) -> str:
    """``text`` without what a process is called: that may be anything."""
    event = seen.event
    names = {t.comm for t in event.tasks} | {v.comm for v in event.victims} | {event.trigger.comm}
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = text.replace(name, "")
    return text


def _around(text: str, found: str) -> str:
    at = max(text.find(found), 0)
    return repr(text[max(at - 60, 0) : at + 60])


RULES: tuple[Rule, ...] = (
    control_characters,
    share_over_100,
    negative_amount,
    placeholder,
    unknown_as_zero,
    nothing_as_amount,
    resident_unknown,
    free_contradicts_zones,
    advice_of_other_cgroup_version,
    advice_of_newer_kernel,
    advice_of_systemd,
    advice_while_booting,
    advice_bounds_init,
    advice_of_swap,
    advice_of_numa,
    change_expects_kills,
    died_nobody,
    counts_of_nothing,
    wrong_number,
    sentence_to_take_apart,
    kill_claimed,
    wider_than_80,
)


def _name(rule: Rule) -> str:
    return getattr(rule, "__name__", "")


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, marks=pytest.mark.xfail(strict=True) if _name(rule) in BROKEN else ())
        for rule in RULES
    ],
    ids=_name,
)
def test_texts(rule: Rule, corpus: Path) -> None:
    complaints = [f"{s.name}: {complaint}" for s in seen(corpus) for complaint in rule(s)]
    assert complaints == []


def test_no_text_of_the_program_says() -> None:
    """What the corpora's reports do not lead to, live findings among it."""
    words = ("expect further kills", "at its mark, too low", "not asked (class zone)")
    said = [
        f"{path.name}: {word}"
        for path in sorted(Path(oomwatchd.__file__).parent.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in words
        if word in node.value.lower()
    ]
    assert said == []


def test_there_is_something_to_read(corpus: Path) -> None:
    assert len(seen(corpus)) > 300
    assert sum(len(s.advice) for s in seen(corpus)) > 300


def main() -> None:
    """Print what is wrong, with how often."""
    wanted = sys.argv[1:]
    for rule in RULES:
        if wanted and _name(rule) not in wanted:
            continue
        complaints = [(s.name, c) for s in seen(corpus_directory()) for c in rule(s)]
        print(f"{_name(rule)}: {len(complaints)} in {len({name for name, _ in complaints})} files")
        for name, complaint in complaints if wanted else complaints[:4]:
            print(f"    {name}: {complaint}")


if __name__ == "__main__":
    main()
