"""OomEvent -> Markdown to copy into a ticket or a chat: the verdict, what it rests on, the largest tasks.

It is short; the page and the JSON have everything. Texts of the kernel are escaped twice:
made visible (:mod:`oomwatchd.words.escape`), then kept from being markup (:mod:`oomwatchd.words.markup`).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from oomwatchd.diagnosis.findings import Case
from oomwatchd.event import OomEvent
from oomwatchd.render import fields
from oomwatchd.render.fields import amount
from oomwatchd.words.amounts import percent
from oomwatchd.words.escape import harmless, harmless_name
from oomwatchd.words.markup import markdown

_TOP_TASKS = 10


def render_markdown(event: OomEvent, *, host: str | None = None) -> str:
    """The report in GitHub-flavoured Markdown, with a newline at the end. ``host``: where it happened."""
    case = fields.case_of(event)
    sections = (
        _verdict(event, host),
        _findings(event),
        _table("Memory", ("held by", "amount", "share"), _memory(case)),
        _table("Zones, in kB", ("zone", "free", "min", "needs", "verdict"), _zones(case)),
        _table(
            f"Tasks, the {_TOP_TASKS} of the highest score",
            ("pid", "name", "resident", "swap", "score"),
            _tasks(case),
        ),
    )
    return "\n\n".join(section for lines in sections if (section := "\n".join(lines))) + "\n"


def _verdict(event: OomEvent, host: str | None) -> Iterator[str]:
    yield f"### {fields.KINDS_OF_EVENT[event.kind]}: {_safe(fields.why(event) or event.summary)}"
    yield ""
    yield from _rows(
        ("", ""),
        [
            (f"**{title}**", value)
            for title, value in (
                ("Died", fields.died(event)),
                ("Asked", fields.asked(event)),
                ("Why", fields.why(event)),
                ("Change", fields.change(event)),
                ("Host", host or ""),
                ("When", ", ".join(fields.origin(event))),
                ("Event", event.id),
            )
            if value
        ],
        marked=1,
    )


def _findings(event: OomEvent) -> Iterator[str]:
    if event.findings:
        yield "**Findings**"
        yield ""
    for finding in event.findings:
        advice = f" **→** {_safe(finding.advice)}" if finding.advice else ""
        head = f"- {finding.severity}: **{_safe(finding.title)}** (`{finding.id}`)."
        yield f"{head} {_safe(finding.explanation)}{advice}"


def _memory(case: Case) -> Iterator[Sequence[str]]:
    ram = case.ram_bytes
    for share in fields.memory_shares(case) if ram else ():
        yield share.title, amount(share.bytes), percent(share.bytes, ram or 0)


def _zones(case: Case) -> Iterator[Sequence[str]]:
    for verdict in case.verdicts:
        needed = verdict.required_bytes
        held = (verdict.record.bytes_of(name) for name in ("free", "min"))
        yield (
            verdict.label,
            *("" if value is None else str(value // 1024) for value in held),
            "" if needed is None or not verdict.allowed else f"more than {needed // 1024}",
            fields.zone_said(verdict),
        )


def _tasks(case: Case) -> Iterator[Sequence[str]]:
    dead = {victim.pid for victim in case.report.victims}
    for row in case.scores.rows[:_TOP_TASKS] if case.scores is not None else ():
        task = row.task
        name = harmless_name(task.comm) + (", killed" if task.pid in dead else "")
        yield str(task.pid), name, amount(task.rss_bytes), amount(task.swap_bytes), fields.score(row)


def _table(title: str, heads: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    found = list(rows)
    if found:
        yield f"**{title}**"
        yield ""
        yield from _rows(heads, found)


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]], marked: int = 0) -> Iterator[str]:
    """A table; the first ``marked`` cells of a row are Markdown already."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join([*row[:marked], *(_safe(cell) for cell in row[marked:])])} |"


def _safe(text: str) -> str:
    return markdown(harmless(text))
