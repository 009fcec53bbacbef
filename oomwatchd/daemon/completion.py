"""What this host knows of a report beyond the kernel's words: added to its capture, one step after another.

Each step is in a try of its own: a fault there is logged and counted, and costs no report.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time

import msgspec

from oomwatchd.daemon.incident import Incident
from oomwatchd.daemon.live_facts import LiveFacts
from oomwatchd.daemon.log import OncePerKind
from oomwatchd.daemon.waiting import CUT_CAPTURES, Waiting, key_of
from oomwatchd.diagnosis.attribution import has_name
from oomwatchd.event import OomEvent, conclude
from oomwatchd.metrics import Metrics
from oomwatchd.observe.container import NOT_FOUND, ContainerNames
from oomwatchd.observe.host import Host
from oomwatchd.observe.members import LEAST, crowds
from oomwatchd.records.capture import OomCapture

#: after so long, a pid of the task table may be another's
_PLACED_SECONDS = 10.0


class Completion:
    """Makes events of captures. Belongs to the worker's thread."""

    def __init__(
        self,
        metrics: Metrics,
        failures: OncePerKind,
        clock: Callable[[], float],
        live_facts: LiveFacts | None,
        names: ContainerNames,
    ) -> None:
        self._metrics = metrics
        self._failures = failures
        self._clock = clock
        self._live_facts = live_facts
        self._names = names
        self._incident = Incident()
        self._latencies: dict[int, float] = {}
        #: where the pids of reports can be looked up, None: nowhere
        self.host: Host | None = None
        #: a kill's capture with the warning that it had
        self.warned: Callable[[OomCapture, OomEvent], OomCapture] | None = None

    def with_moment(self, waiting: Waiting) -> OomCapture:
        """The capture with what was seen before the report and while it came."""
        before, facts = waiting.before, self._live_facts
        capture = waiting.capture
        if before is not None:
            capture = self._with("the time before", lambda one: before().added_to(one), capture)
        capture = self._with("names of containers", self._names.with_names, capture)
        if facts is not None:
            capture = self._with("who holds what", facts.added_to, capture)
        return capture

    def explained(self, capture: OomCapture, named_at: float | None) -> tuple[OomCapture, OomEvent]:
        """Capture and event, with what can be looked up now that the event says whom it is about."""
        capture = self._with("the reports behind it", self._incident.added_to, capture)
        event = self.concluded(capture)
        self._incident.note(capture, event)
        more = self._with("where its processes are", lambda one: self._placed(one, event), capture)
        more = self._with("names of containers", lambda one: self._called(one, event), more)
        if self.warned is not None:
            warned = self.warned
            more = self._with("its warning", lambda one: warned(one, event), more)
        if more is not capture:
            capture, event = more, self.concluded(more)
        return self._timed(capture, event, named_at)

    def concluded(self, capture: OomCapture) -> OomEvent:
        """The event; a fault of its explanation is logged and counted."""
        event, error = conclude(capture)
        if error is not None:
            self._metrics.internal_error()
            self._failures.failed("explaining a report", error)
        return event

    def _with(self, what: str, more: Callable[[OomCapture], OomCapture], capture: OomCapture) -> OomCapture:
        try:
            return more(capture)
        except Exception as error:
            self._metrics.internal_error()
            self._failures.failed(f"adding {what} to a report", error)
            return capture

    def _called(self, capture: OomCapture, event: OomEvent) -> OomCapture:
        """With the names of containers that the report names by cgroup only, because no process of theirs was
        seen alive."""
        paths = {one.cgroup for one in event.attribution if one.container_id and one.container_name is None}
        if event.memcg is not None:
            paths |= {event.memcg.oom_path, event.memcg.task_path}
        if event.near is not None:
            paths |= {one.cgroup if one.kind == "process" else one.name for one in event.near.growers}
        names = self._names.named(path for path in paths if path is not None)
        known = {one.container_id for one in event.attribution if one.container_name is not None}
        held = dict(capture.container_names)
        if names.keys() - held.keys() - known:
            capture = msgspec.structs.replace(capture, container_names=tuple((held | names).items()))
        unnamed = {one.container_id for one in event.attribution if has_name(one)} - known - names.keys()
        if unnamed and capture.names_obstacle is None:
            capture = msgspec.structs.replace(capture, names_obstacle=self._names.obstacle or NOT_FOUND)
        return capture

    def _placed(self, capture: OomCapture, event: OomEvent) -> OomCapture:
        """With what is in the cgroup at its limit, and with the cgroups of a large task table: many small
        processes are found by them, too."""
        late = capture.detected is None or time() - capture.detected > _PLACED_SECONDS
        if late or capture.settled:
            return capture
        placed = capture
        if self._live_facts is not None and event.memcg is not None:
            placed = self._live_facts.look_into(placed, event.memcg.oom_path)
        if self.host is not None and len(event.tasks) >= LEAST:
            found = crowds(self.host, (task.pid for task in event.tasks))
            placed = msgspec.structs.replace(placed, crowds=found) if found else placed
        return placed

    def _timed(
        self, capture: OomCapture, event: OomEvent, named_at: float | None
    ) -> tuple[OomCapture, OomEvent]:
        """The detection latency is the first issue's; later revisions of the report keep it."""
        key = key_of(capture)
        latency = self._latencies.pop(key, None)
        if latency is None and named_at is not None:
            latency = max(0.0, self._clock() - named_at)
        if latency is None:
            return capture, event
        if not capture.settled:
            self._latencies[key] = latency
            if len(self._latencies) > CUT_CAPTURES:
                del self._latencies[next(iter(self._latencies))]
        capture = msgspec.structs.replace(capture, detection_latency_seconds=latency)
        timed = msgspec.structs.replace(event.time, detection_latency_seconds=latency)
        return capture, msgspec.structs.replace(event, time=timed)
