"""The warning at work: readings with each sample of the flight recorder, events to the worker, and which kill
had been announced.

Looks and decisions are the loop's, for they follow its samples; candidates are read and events are made in
the worker. Between the two stands one lock, which neither holds while it reads a file that may wait."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import msgspec

from oomwatchd.config import WarningSection
from oomwatchd.daemon.log import OncePerKind
from oomwatchd.diagnosis import nearing  # noqa: F401  # now, not when memory is short
from oomwatchd.diagnosis.attribution import owner_of, short_id
from oomwatchd.event import OomEvent
from oomwatchd.event.identity import near_id
from oomwatchd.metrics import Metrics
from oomwatchd.observe.history import History
from oomwatchd.observe.host import Host
from oomwatchd.observe.looks import Looks, candidates
from oomwatchd.observe.recorder import Recorder
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.nearing import Candidate, Nearing, Warned
from oomwatchd.store import Store, StoreError
from oomwatchd.warning.incidents import Incidents

log = logging.getLogger(__name__)

#: The next sample comes within this part of the time that is left, and not sooner than this.
_LOOKS, _LEAST_SECONDS = 20, 1.0
#: While a warning stands, what becomes of it is looked at so often.
_OPEN_SECONDS = 2.0
#: An end that is further away needs no tracks of processes; one that is further than so many horizons no look
#: at what may bound the growth.
_SIGHT_SECONDS, _DEEPER_HORIZONS = 300.0, 1.5
#: Kills whose warning is remembered, for their later revisions.
_KEPT = 256
#: Warnings that are looked at for one without an end.
_LEFT_OPEN = 64
#: Kills without a warning within this time are one exhaustion.
_SAME_USEC = 30_000_000


class Warnings:
    """``look`` belongs to the loop, ``linked`` and ``left_open`` to the worker."""

    def __init__(
        self,
        section: WarningSection,
        host: Host,
        recorder: Recorder,
        metrics: Metrics,
        submit: Callable[[Callable[[], OomCapture]], None],
        later: Callable[[Callable[[], None]], None],
        names: Callable[[str], str | None] = lambda _id: None,
    ) -> None:
        """``submit`` has the worker make and serve a capture, ``later`` has it do something after that;
        ``names`` knows what a container is called."""
        self._host = host
        self._recorder = recorder
        self._metrics = metrics
        self._submit = submit
        self._later = later
        self._names = names
        self._quiet = tuple(section.quiet)
        self._hook = Path(section.hook_directory) if section.hook_directory else None
        self._lock = threading.Lock()
        self._looks = Looks(host, recorder.cgroups)
        self._incidents = Incidents(
            horizon_seconds=section.horizon_seconds,
            quiet=self._is_quiet,
            bound=self._looks.bound,
            is_job=self._looks.is_job,
            lost=self._looks.lost,
        )
        self._candidates: dict[str, tuple[Candidate, ...]] = {}
        self._linked: dict[str, Warned | None] = {}
        self._missed: dict[str | None, int] = {}
        self._withheld = 0
        self._failures = OncePerKind(log)

    # -- the loop's --------------------------------------------------------------------------------

    def look(self, usec: int, wall: float) -> None:
        """A sample was taken: does it bring an end into sight, or out of it?"""
        parts = self._recorder.parts(usec)
        if parts is None:
            return
        with self._lock:
            readings = self._looks.readings(parts, usec)
            changed = self._incidents.take(readings, usec, wall)
            outlook = self._incidents.outlook
            sight, withheld = self._incidents.sight, self._incidents.withheld
        self._metrics.outlook(outlook)
        if withheld > self._withheld:
            if not self._withheld:
                log.warning("too many warnings at once: oomwatchd_warnings_withheld_total counts the others")
            self._metrics.withheld(withheld - self._withheld)
            self._withheld = withheld
        if any(one.open for one in outlook):
            self._recorder.look_within(usec, _OPEN_SECONDS)
        if sight:
            self._recorder.look_within(usec, max(_LEAST_SECONDS, min(sight.values()) / _LOOKS))
            self._recorder.expect({path for path, left in sight.items() if left < _SIGHT_SECONDS}, usec)
            farthest = _DEEPER_HORIZONS * self._incidents.horizon_seconds
            seen = {one.cgroup: one for one in readings}  # the last of each is the newest
            near = [(seen[p], left) for p, left in sight.items() if left <= farthest and p in seen]
            self._looks.look_deeper(near, usec)
        for told in changed:
            self._say(told, usec)

    def _say(self, told: Nearing, usec: int) -> None:
        history = self._recorder.history(usec)
        pids = self._looks.members(told.cgroup) if told.state == "near" else []
        self._submit(partial(self._capture, told, history, pids))
        if told.state == "near":  # whoever is called finds the event in the store
            self._later(partial(self._call_hook, near_id(self._host.boot_id, told)))

    def _is_quiet(self, path: str | None) -> bool:
        if not self._quiet:
            return False
        owner = owner_of(path) if path is not None else None
        known = ["machine"] if path is None else [path]
        if owner is not None:
            known += [name for name in (owner.unit, owner.slice, owner.container_id) if name]
            if owner.container_id is not None:
                known.append(short_id(owner.container_id))
                called = self._names(owner.container_id)
                known += [called, *called.split("/")] if called else []
        return any(fnmatchcase(name, pattern) for name in known for pattern in self._quiet)

    # -- the worker's ------------------------------------------------------------------------------

    def _capture(self, told: Nearing, history: History | None, pids: list[int]) -> OomCapture:
        event_id = near_id(self._host.boot_id, told)
        if told.state == "near":
            self._candidates[event_id] = candidates(self._host, pids)
        else:
            self._metrics.warned(told.state)
        known = self._candidates.get(event_id, told.candidates)
        if told.state != "near":
            self._candidates.pop(event_id, None)
        capture = OomCapture(
            source=Source(kind="recorder", form="near", boot_id=self._host.boot_id),
            records=(),
            revision=int(told.state != "near"),
            settled=told.state != "near",
            detected=told.wall,
            page_size_bytes=self._host.page_size_bytes,
            kernel=self._host.kernel,
            arch=self._host.machine,
            nearing=msgspec.structs.replace(told, candidates=known),
        )
        if history is None or told.state != "near":
            return capture
        pids_known = {one.pid for one in known[:8]}
        paths = {told.cgroup} if told.cgroup is not None else set()
        return history.before(pids_known, paths).added_to(capture)

    def left_open(self, store: Store) -> list[OomCapture]:
        """The warnings that an earlier daemon left without an end: those of this boot are watched on, of
        others nobody knows what became of them."""
        found = []
        with suppress(StoreError):
            for row in store.list(limit=_LEFT_OPEN, kind="oom_near"):
                capture = None if row.settled else store.get(row.id)
                if capture is None or capture.nearing is None or capture.source.followed is not None:
                    continue
                if capture.source.boot_id == self._host.boot_id is not None:
                    with self._lock:
                        self._looks.follow(capture.nearing.cgroup, self._recorder.newest_usec)
                        self._incidents.resume(capture.nearing, self._recorder.newest_usec)
                    continue
                self._metrics.warned("unknown")
                told = msgspec.structs.replace(capture.nearing, state="unknown")
                found.append(
                    msgspec.structs.replace(
                        capture, revision=capture.revision + 1, settled=True, nearing=told
                    )
                )
        return found

    def linked(self, capture: OomCapture, event: OomEvent) -> OomCapture:
        """A kill's capture with the warning that it had, if it had one; the warning has come true then."""
        here = capture.source.boot_id == self._host.boot_id and capture.detected is not None
        if event.kind not in ("oom_kill", "oom_panic") or not here or capture.warned is not None:
            return capture
        if event.id not in self._linked:
            self._linked[event.id] = self._warning_of(capture, event)
            if len(self._linked) > _KEPT:
                del self._linked[next(iter(self._linked))]
        warned = self._linked[event.id]
        return capture if warned is None else msgspec.structs.replace(capture, warned=warned)

    def _warning_of(self, capture: OomCapture, event: OomEvent) -> Warned | None:
        limit = event.memcg.oom_path if event.memcg is not None and event.constraint == "memcg" else None
        victim = event.victims[0].pid if event.victims else None
        whose = next((one.cgroup for one in event.attribution if one.pid == victim and one.cgroup), None)
        live = not capture.historical and capture.unseen is None
        stamp = capture.records[0].usec if capture.records and not live else None
        wall = capture.at.wall if capture.at is not None else capture.detected or 0.0
        with self._lock:
            usec = capture.at.usec if capture.at is not None else stamp or self._recorder.newest_usec
            found = self._incidents.killed(limit, whose, usec, wall, live=live)
        if found is None and not live:  # nobody watched
            return None
        if found is None:
            if usec >= self._missed.get(limit, -_SAME_USEC) + _SAME_USEC:
                self._metrics.warned("missed")
            self._missed[limit] = usec
            if len(self._missed) > _KEPT:
                del self._missed[next(iter(self._missed))]
            return None
        told, lead, first = found
        if first:
            told = msgspec.structs.replace(told, kill_id=event.id)
            self._submit(partial(self._capture, told, None, []))
        return Warned(id=near_id(self._host.boot_id, told), lead_seconds=round(lead, 3))

    def _call_hook(self, event_id: str) -> None:
        """An empty file named like the event, for the path unit that runs ``oomwatchd-near@.service``."""
        if self._hook is None:
            return
        try:
            self._hook.mkdir(mode=0o755, exist_ok=True)
            (self._hook / event_id).touch(mode=0o644)
        except OSError as error:
            self._failures.failed("calling the hook of warnings", error)
