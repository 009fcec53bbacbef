"""What several sinks say of an event in the same words: severity, owner, place."""

from __future__ import annotations

from typing import Literal

from oomwatchd.diagnosis.attribution import Attribution, Names, names_in, names_of, place_of
from oomwatchd.diagnosis.owners import home_of
from oomwatchd.event import OomEvent

Gravity = Literal["critical", "error", "warning", "test"]

#: what each kind of event is called where alerts are
ALERTNAMES = {
    "oom_kill": "KernelOomKill",
    "oom_no_victim": "KernelOomNoVictim",
    "oom_panic": "KernelOomPanic",
    "page_alloc_failure": "PageAllocationFailure",
    "oomd_kill": "SystemdOomdKill",
    "user_kill": "UserSpaceOomKill",
    "oom_near": "OomNear",
    "test": "OomwatchdTest",
}
#: ``source.kind`` of what ``oomwatchd notify-test`` sends
TEST_SOURCE = "test"


def is_test(event: OomEvent) -> bool:
    """Whether the event was made by ``oomwatchd notify-test``: nothing has happened."""
    return event.kind == "test"


def severity(event: OomEvent) -> Gravity:
    """A panic is critical. A kill because the whole system ran out, or no process left to kill, is an error.
    A cgroup at its own limit, memory that is nearly exhausted or an allocation that may fail is a warning. A
    test event has a severity of its own."""
    if event.kind == "test":
        return "test"
    if event.kind == "oom_panic":
        return "critical"
    at_limit = event.kind == "oom_kill" and event.constraint == "memcg"
    if at_limit or event.kind in ("page_alloc_failure", "oom_near"):
        return "warning"
    return "error"


def victim_attribution(event: OomEvent) -> Attribution | None:
    """Whose the first victim was, as far as it is known."""
    pid = event.victims[0].pid if event.victims else None
    return next((a for a in event.attribution if a.role == "victim" and a.pid == pid), None)


def names(event: OomEvent) -> Names:
    """The names of the first victim's container, as far as they are known."""
    return names_of(victim_attribution(event))


def place(event: OomEvent) -> str | None:
    """Where the first victim lived (container, unit or cgroup), what systemd-oomd killed, or what is nearly
    exhausted."""
    if event.oomd is not None:
        return event.oomd.unit or event.oomd.cgroup
    if event.near is not None:
        known = place_of(names_in(event.near.container_name), container_id=event.near.container_id)
        return known or event.near.unit or event.near.cgroup
    return home_of(victim_attribution(event)) or limit_cgroup(event)


def unit_of(event: OomEvent) -> str | None:
    """The first victim's systemd unit, the one that systemd-oomd killed, or whose limit is near."""
    whose = victim_attribution(event)
    if whose is None:
        about = event.oomd or event.near
        return about.unit if about else None
    return whose.unit


def limit_cgroup(event: OomEvent) -> str | None:
    """The cgroup whose limit was hit; None for the whole system."""
    return event.memcg.oom_path if event.memcg else None
