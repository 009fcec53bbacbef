"""Whether the verdict names the cause, and what its advice is.

Named: in WHY or the first finding, **yes**; in a later finding, **partly**; only the kind of memory,
**kind**; else **no**. Advice and lists of possible causes do not name a cause. CHANGE is mapped to the lever
whose words come first in it. Words that no lever knows are **unmapped**.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

import msgspec

from oomwatchd.words.escape import harmless_name
from tests.advice.run import Json, Ran, events
from tests.advice.scenarios import Change, Scenario

#: lever <- the words of CHANGE
LEVERS: tuple[tuple[str, str], ...] = (
    ("find_leak", r"[Ff]ind what .{1,40} keeps|find (the|what|its|this) leak|stop the leak|mend the leak"),
    ("end_holder", r"\b[Ee]nd (whoever|[^,.;]{1,40}\(pid \d+\))|^Have [^:]{1,80} hold less, or end it"),
    (
        "objects",
        r"^Have (fewer|less of what)|^Find why|max_user_watches|"
        r"nf_conntrack_max|Remove (cgroups|network namespaces)|nftables sets|"
        r"max_map_count|message queues|[Ff]ind (who has so many|whose queue)|pids\.max of their cgroup|"
        r"[Ff]ewer of what takes|^See [a-z][^:;]{3,60}: [^;]*\b(fewer|bound)",
    ),
    ("see_descriptors", r"/proc/(\*|\[0-9\]\*|PID|\d+)/(fd|fdinfo)\b|file descriptors|\blsof\b|ls -l /proc"),
    ("raise_memsw", r"memory\.memsw\.limit_in_bytes"),
    ("swap_max", r"allow swap in|memory\.swap\.max"),
    ("see_report", r"See the whole report"),
    ("look_before", r"^Look for (a kill|what changes)"),
    ("tmpfs_remove", r"[Ss]ee what it is \(df|\bipcrm\b|[Rr]emove (the |what|files|it)|[Dd]elete "),
    ("tmpfs_size", r"size= option|mount's size|with size=|See what fills"),
    ("oom_group", r"memory\.oom\.group|OOMPolicy=|singleProcessOOMKill"),
    ("protection", r"memory\.min\b(?!,)|memory\.low\b"),
    (
        "raise_limit",
        r"[Rr]aise (MemoryMax|memory\.(max|limit)|resources\.limits|the kubelet's bound|the memory of|"
        r"[\w ]*limit)",
    ),
    ("hugepages", r"nr_hugepages|hugepages="),
    ("min_free", r"[Ll]ower vm\.min_free_kbytes|vm\.min_free_kbytes (to|back)|Set vm\.min_free_kbytes"),
    ("more_reserve", r"raise vm\.min_free_kbytes"),
    ("lowmem_ratio", r"lowmem_reserve_ratio"),
    ("allocating", r"oom_kill_allocating_task"),
    ("overcommit", r"overcommit_(ratio|memory|kbytes)"),
    ("thp", r"transparent_hugepage|madvise"),
    ("bound_count", r"[Bb]ound how many|pids\.max|TasksMax=.*(pids|fork)"),
    ("threads", r"([Bb]ound )?the number of threads|threads-max"),
    ("mlock", r"LimitMEMLOCK|VmLck"),
    ("ramfs", r"\bramfs\b"),
    ("exempt", r"-1000\b|above -1000|OOMScoreAdjust"),
    ("tracing", r"buffer_size_kb"),
    ("zram", r"[Rr]eplace zram|\bzram\b.*(smaller|disksize)|mm_stat"),
    ("swapoff", r"swapoff"),
    ("swap", r"[Aa]dd (more )?swap|[Ss]wap (or zram|space|file)|[Mm]ore swap"),
    ("more_ram", r"[Mm]ore (RAM|memory)|[Aa]dd (RAM|memory)"),
    ("page_tables", r"page tables|VmPTE|tables smaller"),
    ("binding", r"[Ww]iden|numactl|cpuset\.mems"),
    ("dirty", r"dirty_(bytes|ratio|background)|let less wait|may wait"),
    ("fragment", r"pages in a row|smaller blocks|compaction|compact ahead"),
    ("kernelcore", r"kernelcore|movablecore|movable_node"),
    ("balloon", r"balloon"),
    ("reserved", r"crashkernel|boot log|\bmem="),
    ("see_kernel", r"what the kernel holds|memory\.stat|kmem\.slabinfo"),
    ("low_memory", r"64-bit kernel|low memory"),
    ("slab", r"which cache grows|^Find what takes|slabtop|/proc/slabinfo"),
    ("unaccounted", r"vmallocinfo|See drivers|page_owner|mem_profiling"),
    ("driver", r"\b[Dd]river\b|module|rmmod"),
    ("bound_process", r"[Bb]ound (?!how|what)[^:]*:|[Bb]ound its memory|its own settings"),
    ("cache", r"newer kernel"),
    ("cma", r"\bcma="),
    ("page_fault", r"empty huge page pool"),
    ("stuck", r"traces of all stalled|what pid \d+ waits for"),
    ("min_ttl", r"min_ttl_ms"),
    ("boost", r"watermark_boost_factor"),
    ("panic", r"panic_on_oom"),
    ("whole_report", r"See the whole report"),
    ("none", r"^no advice follows|[Nn]othing (has )?to (be )?(change|do)|^Nothing"),
)

#: where CHANGE sends people, by the words it has for that
PLACES = {
    "memory.stat": r"memory\.stat",
    "descriptors": r"/proc/\S+/fd\b|descriptors|lsof|file-nr",
    "fdinfo": r"fdinfo",
    "slabinfo": r"slabtop|slabinfo",
    "vmallocinfo": r"vmallocinfo",
    "packet": r"/proc/net/packet|packet rings",
    "mounts": r"df -t tmpfs|ipcs|ramfs|/proc/mounts",
    "zram": r"mm_stat|/sys/block/zram",
}

_LIST = re.compile(
    r"\([^()]*[;,][^()]*[;,][^()]*\)|(?:[\w/.()* -]{3,60}, ){2,}[\w/.()* -]{3,60}? or [\w/.*-]+"
)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one run's first event."""

    why: str = ""
    change: str = ""
    findings: tuple[str, ...] = ()
    named: str = "-"


class Outcome(msgspec.Struct, kw_only=True):
    """One run of a scenario, with the result of following the advice."""

    name: str
    cause: str
    rc: int | None = None
    reports: int = 0
    offline: Verdict = Verdict()
    live: Verdict | None = None
    lever: str = ""
    did: str = ""
    #: cured, by doing less, by the next step, leads there, leads nowhere, not cured, unmapped,
    #: not followable, no OOM
    end: str = ""
    note: str = ""

    @property
    def best(self) -> Verdict:
        """What the user of the daemon sees, else what ``analyze`` says."""
        return self.live or self.offline


def analyze(kmsg: bytes) -> list[Json]:
    """The events of raw records, as the command line gives them."""
    with tempfile.NamedTemporaryFile(suffix=".kmsg") as file:
        file.write(kmsg)
        file.flush()
        words = [sys.executable, "-m", "oomwatchd", "analyze", "--format", "jsonl", file.name]
        return events(subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines())


def counted(found: Iterable[Json], scenario: Scenario, ran: Ran) -> list[Json]:
    """Events of this run. For the whole machine, those inside a cgroup are left out: they are bounded on
    purpose."""
    # what was told before the kill is no report of it
    found = [e for e in found if e.get("kind") != "oom_near"]
    out = [e for e in found if not ran.group or ran.group in str(e.get("memcg")) + str(e.get("trigger"))]
    if scenario.whole:
        out = [e for e in out if e.get("constraint") != "memcg"]
    return out


def says(event: Json) -> tuple[str, str]:
    """WHY and CHANGE as the terminal has them."""
    summary: str = event.get("summary") or ""
    start = 0
    chosen = [v for v in event.get("victims") or () if v.get("role") == "selected"]
    people: list[Any] = [*chosen[:1], *(event.get("victims") or ())[:1], event.get("trigger")]
    for who in people:
        name = harmless_name(who["comm"]) if who and who.get("comm") else ""
        if name and f"{name} (pid " in summary:
            start = summary.index(f"{name} (pid ") + len(name)
            break
    why = summary[start:].partition(": ")[2] or summary
    change = next((f["advice"] for f in event["findings"] if f.get("advice")), "no advice follows")
    return why, change


def definite(text: str) -> str:
    """``text`` without lists of possible causes ("slab, threads, pipes or sockets"): a cause in such a list
    is not named."""
    return _LIST.sub("", text)


def verdict(event: Json | None, scenario: Scenario, group: str = "") -> Verdict:
    """Judge one event."""
    if event is None:
        return Verdict()
    why, change = says(event)

    def own(text: str) -> str:  # this run's cgroups are called after the scenario
        return text.replace(f"/{group}", "").replace(group, "") if group else text

    texts = [own(f"{f['title']} {f['explanation']}") for f in event["findings"]]
    first = f"{own(why)} {texts[0] if texts else ''}"
    if re.search(scenario.named, definite(first), re.I):
        named = "yes"
    elif any(re.search(scenario.named, definite(text), re.I) for text in texts):
        named = "partly"
    elif re.search(scenario.near, first, re.I):
        named = "kind"
    else:
        named = "no"
    return Verdict(
        why=own(why), change=own(change), findings=tuple(f["id"] for f in event["findings"]), named=named
    )


def lever(change: str) -> str:
    """The lever that CHANGE names first."""
    found = [
        (m.start(), at, name) for at, (name, words) in enumerate(LEVERS) if (m := re.search(words, change))
    ]
    return min(found)[2] if found else "unmapped"


def next_lever(change: str) -> str | None:
    """The lever for the case that the first did not suffice, if CHANGE has one: ``If X fills that, too``."""
    then = re.search(r"\bIf [^.:]{1,60}\btoo\b.*", change)
    return lever(then[0]) if then is not None else None


def begun(change: str, step: Change) -> Change:
    """``step`` with the first amount of CHANGE (``begin with 118 MiB``)."""
    amount = re.search(r"begin with ([\d.]+) ([KMG])iB", change)
    kib = int(float(amount[1]) * 1024 ** "KMG".index(amount[2])) if amount is not None else 0
    env = {name: value.replace("{begin}", str(kib)) for name, value in step.env.items()}
    return msgspec.structs.replace(step, env=env)


def looked(scenario: Scenario, change: str, ran: Ran) -> dict[str, bool]:
    """Whether the cause shows at the places that CHANGE names and this scenario knows."""
    return {
        name: bool(re.search(look.shows, ran.looks.get(name, "")))
        for name, look in scenario.looks.items()
        if re.search(PLACES[name], change)
    }


def cured(again: Ran, bad: list[Json], scenario: Scenario, change: Change) -> str:
    """How the second run ended."""
    if again.rc == 0 and (not bad or scenario.innocents):
        return "by doing less" if change.less else "cured"
    return "not cured"


# ---- the table

_ENDS = (
    *("cured", "by doing less", "by the next step", "leads there"),
    *("not cured", "leads nowhere", "not followable", "unmapped"),
)


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def table(outcomes: list[Outcome]) -> str:
    """A row for each scenario and place, with all its runs; then the sums."""
    rows = [
        "| scenario | cause made | WHY | CHANGE | named live / offline | lever, what was done | end |",
        "|---|---|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(o.name for o in outcomes))
    for name in names:
        runs = [o for o in outcomes if o.name == name]
        last = runs[-1]
        if not last.reports:
            rows.append(f"| {name} | {_cell(last.cause)} | | | | | {_counts(o.end for o in runs)} |")
            continue
        live = _counts(o.live.named if o.live else "-" for o in runs)
        named = f"{live} / {_counts(o.offline.named for o in runs)}"
        said = (last.best.why, last.best.change)
        cells = (name, last.cause, *said, named, f"{last.lever}: {last.did}", _counts(o.end for o in runs))
        rows.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join((*rows, "", sums(outcomes)))


def _counts(values: Iterable[str]) -> str:
    seen: dict[str, int] = {}
    for value in values:
        seen[value] = seen.get(value, 0) + 1
    return ", ".join(name if len(seen) == 1 and n == 1 else f"{name} ×{n}" for name, n in seen.items())


def sums(outcomes: list[Outcome]) -> str:
    """One paragraph of figures."""
    done = [o for o in outcomes if o.reports]
    n = len(done) or 1

    def share(count: int) -> str:
        return f"{count} ({100 * count / n:.0f} %)"

    named = {k: sum(o.best.named == k for o in done) for k in ("yes", "partly", "kind", "no")}
    ends = {k: sum(o.end == k for o in done) for k in _ENDS}
    worse = [o.name for o in done if o.live and _rank(o.live.named) > _rank(o.offline.named)]
    parts = (
        f"{len(outcomes)} runs, {len(done)} ended in an OOM.",
        f"The cause is named in WHY or the first finding in {share(named['yes'])}, in a later one in",
        f"{share(named['partly'])}, only its kind in {share(named['kind'])},",
        f"not at all in {share(named['no'])}.",
        f"The advice cured in {share(ends['cured'])}, cured by doing less in {share(ends['by doing less'])},",
        f"by the next step that it names in {share(ends['by the next step'])},",
        f"led to the cause in {share(ends['leads there'])}; it did not cure in {share(ends['not cured'])},",
        f"led nowhere in {share(ends['leads nowhere'])}, could not be followed in",
        f"{share(ends['not followable'])}, had no known lever in {share(ends['unmapped'])}.",
        f"Live said less than offline: {', '.join(worse) or 'never'}.",
    )
    return " ".join(parts)


def _rank(named: str) -> int:
    return ("yes", "partly", "kind", "no", "-").index(named)
