"""What was asked for."""

from __future__ import annotations

from collections.abc import Iterator

from oomwatchd.event import OomEvent
from oomwatchd.render.html.sections.shown import Fact
from oomwatchd.words.amounts import kib
from oomwatchd.words.escape import harmless_name


def request(event: OomEvent) -> Iterator[Fact]:
    trigger = event.trigger
    mask = None if trigger.gfp_mask is None else f"0x{trigger.gfp_mask:x}"
    flags = "|".join(trigger.gfp_flags) if trigger.gfp_flags else None
    owner = next((a for a in event.attribution if a.role == "trigger"), None)
    for title, value in (
        ("task", None if trigger.comm is None else harmless_name(trigger.comm)),
        ("pid", trigger.pid),
        ("uid", trigger.uid),
        ("cpu", trigger.cpu),
        ("unit", owner.unit if owner else None),
        ("cgroup", owner.cgroup if owner else None),
        ("gfp mask", " ".join(part for part in (mask, flags) if part) or None),
        ("order", trigger.order),
        ("highest zone", trigger.highest_zone),
        ("constraint", event.constraint),
        ("cpuset", trigger.cpuset),
        ("mems allowed", trigger.mems_allowed),
        ("node mask", trigger.nodemask),
        ("oom_score_adj", trigger.oom_score_adj),
        ("oom_adj", trigger.oom_adj),
        ("outcome", event.outcome),
        ("headers left out by the rate limit", event.suppressed_headers),
        ("machine", event.arch),
        ("page size", None if event.page_size_bytes is None else kib(event.page_size_bytes)),
    ):
        if value is not None:
            yield Fact(title, str(value))
