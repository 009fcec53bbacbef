"""How the fields of an event are named and spelled, for every medium that people read.

Values are text with visible characters only (names are escaped, :mod:`oomwatchd.words.escape`); each medium
escapes its own markup.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from oomwatchd.diagnosis import nearing
from oomwatchd.diagnosis.allocator import ZoneVerdict
from oomwatchd.diagnosis.attribution import names_of, short_id
from oomwatchd.diagnosis.badness import TaskScore
from oomwatchd.diagnosis.findings import Case
from oomwatchd.diagnosis.owners import called, home_of
from oomwatchd.event import OomEvent
from oomwatchd.records.capture import Mark, OomCapture, Snapshot, Source, Track
from oomwatchd.records.report import OomReport, TasksLeftOut, Victim
from oomwatchd.words.amounts import kib, percent, size
from oomwatchd.words.escape import harmless, harmless_name
from oomwatchd.words.text import path_cut, plural

KINDS_OF_EVENT = {
    "oom_kill": "OOM kill",
    "oom_no_victim": "OOM without a victim",
    "oom_panic": "OOM panic",
    "page_alloc_failure": "page allocation failure",
    "oomd_kill": "kill by systemd-oomd",
    "user_kill": "kill by a daemon",
    "oom_near": "OOM warning",
    "test": "TEST",
}
#: why a zone was not tried
EXCLUDED = {"class zone": "not for this request", "nodes": "not its node", "empty": "has no memory"}
#: how a holder of the ledger is drawn, where not by its own kind
_DRAWN = {
    "slab_reclaimable": "reclaimable",
    "slab_unreclaimable": "unreclaimable",
    "slab": "unreclaimable",
    "pagetables": "tables",
    "kernel_stack": "stacks",
    "percpu": "other",
    "vmalloc": "other",
    "zspages": "other",
    "bounce": "other",
    "held_back": "free",
    "cma": "free",
    "rest": "unnamed",
}
#: words of the kernel that a plain replacement of "_" by a blank would spoil
_KEPT = ("oom_score_adj", "oom_adj", "lowmem_reserve", "min_free_kbytes")


class MemoryShare(NamedTuple):
    """One part of RAM; the parts do not overlap."""

    kind: str
    title: str
    bytes: int


def case_of(event: OomEvent) -> Case:
    """The event as a case: the report and the host, for verdicts of zones and scores of tasks."""
    report = OomReport(
        kind="oom_kill" if event.kind == "test" else event.kind,
        complete=event.complete,
        page_size_bytes=event.page_size_bytes,
        trigger=event.trigger,
        constraint=event.constraint,
        memcg=event.memcg,
        memory=event.memory,
        tasks=event.tasks,
        victims=event.victims,
        chosen_pid=event.chosen_pid,
    )
    at = snapshots(event, "at")
    source = Source(kind="file", form="other")
    return Case(report, OomCapture(source=source, records=(), at=at[0] if at else None))


def snapshots(event: OomEvent, moment: str) -> tuple[Snapshot, ...]:
    """The host's files ``before`` (oldest first), ``at`` or ``after`` the report; empty offline."""
    found = (event.snapshots or {}).get(moment)
    if found is None:
        return ()
    return msgspec.convert(found if isinstance(found, list) else [found], tuple[Snapshot, ...])


def tracks(event: OomEvent, most: int) -> tuple[Track, ...]:
    """Who held how much in the minutes before: those that the report is about first, then the largest. The
    line of the whole machine is left out."""
    about = {victim.pid for victim in event.victims} - {None}
    paths = {a.cgroup for a in event.attribution if a.role == "victim"}
    if event.memcg is not None:
        paths |= {event.memcg.oom_path, event.memcg.task_path}
    drawn = [t for t in event.tracks if len(t.points) > 1 and (t.kind, t.name) != ("cgroup", "/")]
    chosen = [t for t in drawn if (t.pid in about if t.kind == "process" else t.name in paths)]
    return tuple([*chosen, *(t for t in drawn if t not in chosen)][:most])


def track_title(track: Track, most: int = 48) -> str:
    """What a track is of, in about so many characters."""
    name = harmless_name(track.name)
    if track.kind == "process":
        return f"{name} (pid {track.pid})"
    if len(name) <= most:
        return name
    found = called(track.name) if track.kind == "cgroup" else None
    if found is not None:
        named = harmless_name(found[1]) if found[0] == "unit" else f"{found[0]} {harmless_name(found[1])}"
        if len(named) <= most:
            return named
    return path_cut(name, most, most)


def mark_said(mark: Mark) -> str:
    """A change of memory or swap, in words."""
    verb = {
        "memory_online": "memory block came online",
        "memory_offline": "memory block went offline",
        "swap_on": "swap area in use",
        "swap_off": "swap area out of use",
        "device_added": "device appeared",
        "device_removed": "device removed",
        "mem_total": "changed",
    }[mark.kind]
    amounts = [size(b) for b in (mark.before_bytes, mark.after_bytes) if b is not None]
    change = f" ({' -> '.join(amounts)})" if amounts else ""
    return f"{harmless_name(mark.name)}: {verb}{change}"


def detected_usec(event: OomEvent) -> int | None:
    """CLOCK_MONOTONIC on detection, in microseconds; None offline."""
    at = snapshots(event, "at")
    return at[0].usec if at else None


def marks(event: OomEvent, most: int) -> tuple[tuple[float | None, str], ...]:
    """The last changes of memory and swap: seconds before detection (None: unknown), and what changed."""
    at = detected_usec(event)
    return tuple(
        (None if at is None else (at - mark.usec) / 1e6, mark_said(mark)) for mark in event.marks[-most:]
    )


def ago(seconds: float | None) -> str:
    """How long before detection."""
    if seconds is None:
        return ""
    return f"{seconds:.0f} s before" if seconds >= 0 else f"{-seconds:.0f} s after"


def afterwards(event: OomEvent) -> tuple[tuple[str, str], ...]:
    """What became of it, as titles and values."""
    after = event.aftermath
    if after is None:
        return ()
    facts = []
    for title, before, later in (
        ("free", after.free_before_bytes, after.free_after_bytes),
        ("available", after.available_before_bytes, after.available_after_bytes),
    ):
        if before is not None and later is not None:
            sign = "+" if later >= before else "-"
            facts.append(
                (title, f"{amount(before)} -> {amount(later)} ({sign}{amount(abs(later - before))})")
            )
    if after.cgroup is not None:
        charge = after.cgroup
        limit = f" of {amount(charge.limit_bytes)}" if charge.limit_bytes is not None else ""
        facts.append(("cgroup at its limit", f"{amount(charge.usage_bytes)}{limit} charged"))
    if after.victims_left is not None:
        left = ", ".join(f"pid {pid}" for pid in after.victims_left[:8])
        facts.append(("victims", f"still there: {left}" if left else "gone"))
    for step in after.units:
        facts.append(
            (f"{step.seconds:+.3f} s", harmless(step.text) or f"{harmless_name(step.unit)}: {step.step}")
        )
    if not after.units and after.unit_watch_seconds is not None:
        facts.append(("unit", f"nothing in the journal within {after.unit_watch_seconds:.0f} s"))
    return tuple(facts)


# who and why


def died(event: OomEvent) -> str:
    """Who was killed, with what is known of it; or why nobody was."""
    if event.kind == "oom_panic":
        return f"nobody: the kernel panicked ({harmless(event.outcome or 'out of memory')})"
    if event.unseen is not None:
        return f"unknown: the log does not show it ({event.unseen.kills} by the kernel's count)"
    if event.oomd is not None:
        many = event.oomd.processes
        count = "number unknown" if many is None else plural(many, "process")
        return f"processes of {harmless_name(event.oomd.unit or event.oomd.cgroup or '')} ({count})"
    if event.user_kill is not None:
        kill = event.user_kill
        name = harmless_name(kill.comm) if kill.comm is not None else "unknown: the text does not name it"
        facts = [f"pid {kill.pid}"] if kill.pid is not None else []
        facts += [f"{amount(kill.rss_bytes)} resident"] if kill.rss_bytes is not None else []
        return f"{name} ({', '.join([*facts, f'{kill.signal} by {kill.program}'])})"
    if event.near is not None:
        return "nobody yet" if event.near.state == "near" else "nobody by this event"
    if not event.victims and "kill" in event.missing:
        return "unknown: no line of the log names who was killed"
    if event.kind == "test":
        return "nobody: this is a test"
    if not event.victims:
        if event.outcome is None:
            return "nobody: the log shows no kill"
        failed = ": a request for memory failed" if event.kind == "page_alloc_failure" else ""
        return f"nobody{failed} ({harmless(event.outcome)})"
    victim = next((v for v in event.victims if v.role == "selected"), event.victims[0])
    if not (event.kills or any(v.reaped for v in event.victims)):
        named = f"{harmless_name(victim.comm)} (pid {victim.pid})" if victim.comm else f"pid {victim.pid}"
        return f"unknown: {named} was chosen, no line of the log says that it was killed"
    held = resident(victim)
    facts = [f"pid {victim.pid}"]
    facts += [f"uid {victim.uid}"] if victim.uid is not None else []
    facts += [f"{amount(held)} resident"] if held is not None else []
    facts += [f"score {victim.score}"] if victim.score is not None else []
    more = len(event.victims) - 1
    text = f"{harmless_name(victim.comm)} ({', '.join(facts)}){f' and {more} more' if more else ''}"
    where = _home(event, victim)
    return f"{text}, in {where}" if where else text


def _home(event: OomEvent, victim: Victim) -> str:
    """Where the victim lived: container and pod, unit or cgroup. Empty where nothing is known, or where the
    reason names the same cgroup."""
    whose = next((a for a in event.attribution if a.role == "victim" and a.pid == victim.pid), None)
    if whose is None:
        return ""
    said = event.memcg is not None and event.memcg.oom_path == whose.cgroup
    home = home_of(whose)
    if whose.container_id is not None and home is not None:
        if whose.container_name is not None:
            kind = "" if names_of(whose).pod is None else "container "
            return f"{kind}{harmless_name(home)} ({harmless_name(short_id(whose.container_id))})"
        if whose.container_unnamed is not None:
            return f"{harmless_name(home)} (name unknown: {harmless_name(whose.container_unnamed)})"
        return "" if said and whose.pod_uid is None else harmless_name(home)
    if said:
        return ""
    if home not in (None, whose.cgroup):
        return harmless_name(home or "")
    named = whose.cgroup not in (None, "", "/")
    return f"cgroup {path_cut(harmless_name(whose.cgroup or ''), 60, 60)}" if named else ""


def resident(victim: Victim) -> int | None:
    """What the kill line says it held in RAM; None where it says nothing."""
    parts = (victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes)
    return victim.rss_bytes if all(p is None for p in parts) else sum(p or 0 for p in parts)


def asked(event: OomEvent) -> str:
    """Whose allocation failed, and what it asked for."""
    trigger = event.trigger
    if event.oomd is not None:
        return "nobody: systemd-oomd acts before an allocation fails"
    if event.user_kill is not None:
        return f"nobody: {event.user_kill.program} acts before an allocation fails"
    if event.near is not None:
        stands = event.near.state == "near"
        nobody, grows = ("nobody yet", "grows") if stands else ("nobody", "grew")
        if event.near.growers:
            return f"{nobody}; {nearing.grower_called(event.near.growers[0])} {grows}"
        who = nearing.who_said(event.near, event.tasks)
        return nobody if who is None else f"{nobody}; {who}"
    if trigger.sysrq:
        return "somebody, by hand (SysRq f)"
    if trigger.comm is None and trigger.panicked_comm is not None:
        pid = "" if trigger.panicked_pid is None else f" (pid {trigger.panicked_pid})"
        return f"{harmless_name(trigger.panicked_comm)}{pid}, by the line behind the panic"
    if trigger.comm is None:
        return "unknown: the report's first line is missing"
    facts = [f"pid {trigger.pid}"] if trigger.pid is not None else []
    facts += [f"order {trigger.order}"] if trigger.order is not None else []
    if trigger.gfp_flags:
        facts.append("|".join(trigger.gfp_flags))
    elif trigger.gfp_mask is not None:
        facts.append(f"gfp 0x{trigger.gfp_mask:x}")
    return harmless_name(trigger.comm) + (f" ({harmless(', '.join(facts))})" if facts else "")


def why(event: OomEvent) -> str:
    """The second half of the summary. (The first half says who, in which a name may hold a colon.)"""
    if event.near is not None:
        return f"{nearing.place(event.near)}: {nearing.became_said(event.near)}"
    victim = next((v for v in event.victims if v.role == "selected"), next(iter(event.victims), None))
    start = 0
    for comm in (victim.comm if victim else None, event.trigger.comm):
        name = harmless_name(comm) if comm is not None else ""
        if name and (at := event.summary.find(f"{name} (pid ")) >= 0:
            start = at + len(name)
            break
    _, colon, reason = event.summary[start:].partition(": ")
    return reason if colon else event.summary


def change(event: OomEvent) -> str:
    """The advice of the gravest finding that has one."""
    advice = next((f.advice for f in event.findings if f.advice), "")
    return harmless(advice) if advice else "no advice follows from these figures"


def origin(event: OomEvent) -> tuple[str, ...]:
    """When and where, and what the log lacks."""
    facts = []
    if event.host is not None:
        address = f" from {harmless(event.host.address)}" if event.host.address else ""
        facts.append(f"host {harmless(event.host.name)} by {event.host.via}{address}, not proven")
        if event.host.mended_lines:
            facts.append(f"{event.host.mended_lines} lines lost bytes and were mended")
    if event.time.wall is not None:
        facts.append(event.time.wall)
    if event.time.kernel_seconds is not None:
        facts.append(f"{event.time.kernel_seconds:.6f} s after boot")
    if event.kernel is not None:
        facts.append(f"Linux {harmless(event.kernel)}")
    if not event.complete:
        facts.append(f"incomplete: {_lacks(event)}")
    if event.doubt:
        facts.append(f"doubtful: {event.doubt}")
    if event.lost_records:
        facts.append(f"{event.lost_records} records lost")
    if event.warned is not None:
        facts.append(f"warned {event.warned.lead_seconds:.0f} s before (event {harmless(event.warned.id)})")
    if event.repeats:
        facts.append(f"repeated {_times(event)}")
    return tuple(facts)


def _lacks(event: OomEvent) -> str:
    parts = [part for part in event.missing if part != "elided"]
    cut = "lines were cut out of the log"
    if not parts:
        return cut if "elided" in event.missing else "cut short"
    missing = f"{', '.join(parts)} missing"
    return f"{cut}, {missing}" if "elided" in event.missing else missing


def _times(event: OomEvent) -> str:
    """How often a report was repeated, and for how long."""
    times = f"{event.repeats} times"
    first, last = event.time.kernel_seconds, event.time.last_kernel_seconds
    return times if first is None or last is None else f"{times} within {last - first:.3f} s"


# amounts and verdicts


def amount(value: int | None) -> str:
    """An amount of memory for people; empty where the kernel printed none."""
    return "" if value is None else size(value) if value else "0"


def left_out(rest: TasksLeftOut) -> str:
    """Tasks that the kernel listed and that are kept only as sums."""
    said = f"{plural(rest.count, 'smaller task')} left out"
    held = [
        f"{amount(held)} {where}"
        for held, where in ((rest.rss_bytes, "resident"), (rest.swap_bytes, "in swap"))
        if held
    ]
    return f"{said}, together {' and '.join(held)}" if held else said


def memory_shares(case: Case) -> tuple[MemoryShare, ...]:
    """RAM by what it is used for, as the ledger has it: the parts do not overlap."""
    if case.report.memory is None:
        return ()
    # one row for what is free, as in the table of zones
    free = sum(h.bytes for h in case.machine.holders if _DRAWN.get(h.kind, h.kind) == "free")
    shares = [
        MemoryShare(_DRAWN.get(h.kind, h.kind), h.title, h.bytes)
        for h in case.machine.holders
        if _DRAWN.get(h.kind, h.kind) != "free"
    ]
    return (*shares, *([MemoryShare("free", "free", free)] if free else []))


def zone_said(verdict: ZoneVerdict) -> str:
    """A zone's answer to the request."""
    if not verdict.allowed:
        return EXCLUDED[verdict.excluded_by or "empty"]
    if verdict.shortfall_bytes is not None:
        least = "at least " if verdict.at_least else ""
        short = f"{least}{kib(verdict.shortfall_bytes)} short"
        return short if verdict.shortfall_bytes else "exactly at the mark"
    if verdict.fits is False:
        return "no block large enough"
    return "fits" if verdict.fits else "unknown"


def score(row: TaskScore) -> str:
    """A task's points on the scale of /proc/PID/oom_score; in pages where the total is unknown."""
    if row.points is None:
        return "exempt"
    if row.permille is not None:
        return str(row.permille)
    return f"{row.points} pages" if row.points >= 0 else "below 0"


def field_title(name: str) -> str:
    """A field's name for people, without its unit: ``free_bytes`` -> ``free``."""
    for unit in ("_bytes", "_ratio", "_seconds"):
        name = name.removesuffix(unit)
    return name if name in _KEPT else name.replace("_", " ")


def field_value(name: str, value: int | float | str) -> str:
    """A figure with the unit that its name carries; memory exact, and rounded where that is easier read."""
    if isinstance(value, bool | str):
        return harmless(str(value))
    if name.endswith("_per_minute_bytes"):
        return f"{size(int(value))} a minute"
    if name.endswith("_bytes"):
        exact, rounded = kib(int(value)), size(int(value))
        return exact if exact == rounded else f"{exact} ({rounded})"
    if name.endswith("_ratio"):
        return percent(round(value * 1_000_000), 1_000_000)
    return f"{value:g} s" if name.endswith("seconds") else str(value)
