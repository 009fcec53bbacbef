"""Score the field corpora: compare every truth value with the result of text reader, assembler and decoder.

``python -m tests.field_score [STEM ...]`` prints a line per file and every difference.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from oomwatchd.records.report import OomReport
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.reports.decode import decode
from oomwatchd.sources.text import TextReader
from tests.conftest import corpus_directory


class Difference(NamedTuple):
    """One truth value that was not met."""

    stem: str
    field: str
    expected: object
    got: object


class Score(NamedTuple):
    """One file: how many values it has, and which were missed."""

    stem: str
    form: str
    values: int
    differences: list[Difference]


def reports(data: bytes) -> tuple[list[OomReport], str]:
    """The OOM reports of a log, in the order of the text, and the form it has."""
    reader = TextReader()
    assembler = Assembler(early=False)
    blocks: dict[int, OomBlock] = {}
    order: list[int] = []
    signals = []
    for record in reader.feed(data) + reader.flush():
        signals += assembler.feed(record)
    signals += assembler.flush()
    for signal in signals:
        if isinstance(signal, OomBlock):
            key = id(signal.records[0])
            if key not in blocks:
                order.append(key)
            blocks[key] = signal
    decoded = [decode(blocks[key].records, lost_records=blocks[key].lost_records) for key in order]
    return [report for report in decoded if report.kind != "page_alloc_failure"], reader.form


def _kb(amount: int | None) -> int | None:
    return None if amount is None else amount // 1024


def _values(event: dict[str, Any], report: OomReport | None) -> list[tuple[str, object, object]]:
    """(field, expected, got) of one event. ``null`` is 'the text does not say': nothing may be invented; a
    field that the truth does not have was not read by hand. Only the names of flags are not compared where
    the text has a bare mask: the decoder knows them."""
    got = report
    trigger = got.trigger if got else None
    memcg = got.memcg if got else None
    pairs: list[tuple[str, object, object]] = [
        ("trigger_comm", event.get("trigger_comm"), trigger and trigger.comm),
        ("trigger_pid", event.get("trigger_pid"), trigger and trigger.pid),
        (
            "gfp_mask",
            None if event.get("gfp_mask") is None else int(event["gfp_mask"], 16),
            trigger and trigger.gfp_mask,
        ),
        ("order", event.get("order"), trigger and trigger.order),
        ("oom_score_adj", event.get("oom_score_adj"), trigger and trigger.oom_score_adj),
        ("constraint", event.get("constraint"), got and got.constraint),
        ("oom_memcg", event.get("oom_memcg"), memcg and memcg.oom_path),
        ("task_memcg", event.get("task_memcg"), memcg and memcg.task_path),
        ("outcome", event.get("outcome"), _outcome(got)),
        (
            "zones",
            event["zones"],
            # a zone that only its list of free blocks names has no line of its own
            sum(bool(zone.amounts) for zone in got.memory.zones) if got and got.memory else 0,
        ),
        ("tasks", event["tasks"], len(got.tasks) if got else 0),
        ("complete", event.get("complete"), got and got.complete),
        ("victims", [v["pid"] for v in event["victims"]], [v.pid for v in got.victims] if got else []),
    ]
    pairs = [pair for pair in pairs if pair[0] in event]
    if event.get("gfp_flags") is not None:
        flags = None if trigger is None or trigger.gfp_flags is None else sorted(trigger.gfp_flags)
        pairs.append(("gfp_flags", sorted(event["gfp_flags"]), flags))
    old = event.get("oom_adj", event.get("oomkilladj"))
    if old is not None:
        pairs.append(("oom_adj", old, trigger and trigger.oom_adj))
    victims = {victim.pid: victim for victim in got.victims} if got else {}
    for truth in event["victims"]:
        victim = victims.get(truth["pid"])
        name = f"victim {truth['pid']}"
        for field in ("comm", "uid", "oom_score_adj"):
            if field in truth:
                pairs.append((f"{name} {field}", truth[field], getattr(victim, field) if victim else None))
        for field in ("total_vm", "anon_rss", "file_rss", "shmem_rss", "pgtables"):
            amount = getattr(victim, f"{field}_bytes") if victim else None
            if f"{field}_kb" in truth:
                pairs.append((f"{name} {field}_kb", truth[f"{field}_kb"], _kb(amount)))
    return pairs


def _outcome(report: OomReport | None) -> str:
    if report is None:
        return "none"
    if report.kind == "oom_panic":
        return "panic"
    return "killed" if report.victims else "unknown"


def score(log: Path, data: bytes | None = None) -> Score:
    """Compare one log with its truth file; ``data`` is read in the place of the log."""
    events = json.loads(log.with_suffix(".json").read_text())["events"]
    found, form = reports(log.read_bytes() if data is None else data)
    differences: list[Difference] = []
    values = 1
    if len(found) != len(events):
        differences.append(Difference(log.stem, "events", len(events), len(found)))
    for index, (event, report) in enumerate(_matched(events, found)):
        for field, expected, got in _values(event, report):
            values += 1
            if expected != got:
                differences.append(Difference(log.stem, f"event {index} {field}", expected, got))
    return Score(log.stem, form, values, differences)


def _matched(
    events: list[dict[str, Any]], found: list[OomReport]
) -> list[tuple[dict[str, Any], OomReport | None]]:
    """Pair events with reports in order; if the counts differ, leave out the side that does not fit."""
    if len(events) == len(found):
        return list(zip(events, found, strict=True))
    pairs: list[tuple[dict[str, Any], OomReport | None]] = []
    rest = list(found)
    for event in events:
        match = next((report for report in rest if _alike(event, report)), None)
        if match is not None:
            rest.remove(match)
        pairs.append((event, match))
    return pairs


def _alike(event: dict[str, Any], report: OomReport) -> bool:
    pids = {victim["pid"] for victim in event["victims"]}
    if pids and pids & {victim.pid for victim in report.victims}:
        return True
    return event.get("trigger_comm") is not None and event["trigger_comm"] == report.trigger.comm


def logs() -> list[Path]:
    """The logs of the field corpora."""
    return sorted(
        (log for corpus in ("field", "field2") for log in (corpus_directory() / corpus).glob("*.log")),
        key=lambda log: log.stem,
    )


def main(stems: list[str]) -> int:
    """Print the score."""
    total = missed = 0
    for log in logs():
        if stems and log.stem not in stems:
            continue
        result = score(log)
        total += result.values
        missed += len(result.differences)
        mark = "" if not result.differences else f"  {len(result.differences)} missed"
        print(f"{result.stem:52} {result.form:12} {result.values:4}{mark}")
        for difference in result.differences:
            print(f"    {difference.field}: expected {difference.expected!r}, got {difference.got!r}")
    print(f"{total - missed} of {total}: {100 * (total - missed) / max(total, 1):.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
