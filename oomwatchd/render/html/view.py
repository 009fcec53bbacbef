"""OomEvent -> what its page shows, in the page's order: lines of text, charts, tables.

Texts of the kernel are not escaped here: the template's own filter does that for all of them
(:mod:`oomwatchd.render.html.page`). Names are spelled for people here (an empty one must be visible).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Sequence

from oomwatchd.event import OomEvent
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import Finding
from oomwatchd.render import fields
from oomwatchd.render.html.sections import cgroup, memory, request, tables, tasks, timeline
from oomwatchd.render.html.sections.shown import MARKS, EventView, Fact, Shown

#: findings on the first screen, and how many of one id (a zone each) among them
_TOP_FINDINGS, _TOP_ALIKE = 3, 2


def view(event: OomEvent, records: Sequence[KmsgRecord] = ()) -> EventView:
    """What the page of ``event`` shows; ``records`` are the raw report."""
    case = fields.case_of(event)
    top = _top(event.findings)
    strip, memory_bars, note = memory.memory(case)
    limits, split = cgroup.cgroup(event)
    ranked = tasks.ranked(case)
    return EventView(
        id=event.id,
        kind=fields.KINDS_OF_EVENT[event.kind],
        grave=bool(event.kills) or event.kind == "oom_panic",
        when=event.time.wall or _stamp(event.time.kernel_seconds),
        summary=event.summary,
        origin=fields.origin(event),
        died=fields.died(event),
        asked=fields.asked(event),
        why=fields.why(event),
        change=fields.change(event),
        top=tuple(_shown(f) for f in top),
        more=tuple(_shown(f) for f in event.findings if f not in top),
        memory_strip=strip,
        memory=memory_bars,
        memory_note=note,
        zones=tuple(memory.zones(case)),
        zones_asked=bool(case.verdicts),
        blocks=tuple(memory.blocks(case)),
        blocks_note=memory.blocks_note(case),
        tasks=tuple(tasks.top_tasks(event, ranked)),
        tasks_swapped=any(t.swap_bytes for t in event.tasks),
        tasks_note=tasks.tasks_note(event),
        cgroup=limits,
        cgroup_facts=tuple(cgroup.cgroup_facts(event)),
        cgroup_split=split,
        near=tuple(timeline.near(event)),
        before=tuple(timeline.before(event)),
        marks=tuple(
            Fact(f"{number}. {fields.ago(seconds)}".strip(), said)
            for number, (seconds, said) in enumerate(fields.marks(event, MARKS), 1)
        ),
        after=tuple(Fact(title, value) for title, value in fields.afterwards(event)),
        victims=tasks.victims(event),
        request=() if event.near is not None else tuple(request.request(event)),
        call_trace=event.trigger.call_trace,
        task_table=tasks.task_table(event, ranked),
        zone_table=tables.holders("Zones as printed, in kB", case.zones, memory.zone_title),
        node_table=tables.holders("Nodes as printed, in kB", memory.nodes(case), tables.node_title),
        totals_table=tables.totals_table(event),
        stat_tables=tuple(cgroup.stat_tables(event)),
        slab_table=tables.slab_table(event),
        allocation_table=tables.allocation_table(event),
        snapshots=tuple(tables.snapshots(event)),
        undecoded=event.undecoded,
        raw=tuple(tables.raw(records)),
        raw_title="The report as the kernel printed it" if event.oomd is None else "What the journal says",
    )


def _stamp(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.6f} s after boot"


# findings


def _top(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings at the top: the gravest; remarks only where there is nothing graver."""
    top: list[Finding] = []
    for finding in [f for f in findings if f.severity != "info"] or findings:
        if len(top) < _TOP_FINDINGS and sum(f.id == finding.id for f in top) < _TOP_ALIKE:
            top.append(finding)
    return tuple(top)


def _shown(finding: Finding) -> Shown:
    return Shown(
        id=finding.id,
        severity=finding.severity,
        title=finding.title,
        explanation=finding.explanation,
        advice=finding.advice,
        evidence=tuple(
            (fields.field_title(name), fields.field_value(name, value))
            for name, value in finding.evidence.items()
            if value is not None
        ),
    )
