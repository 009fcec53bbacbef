"""The main thread for as long as the daemon lives: read the log first, then do all that waits for a time."""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from oomwatchd.daemon.clocks import now
from oomwatchd.daemon.front import Front
from oomwatchd.daemon.kill_check import KillCheck
from oomwatchd.daemon.log import OncePerKind
from oomwatchd.daemon.naming import Naming
from oomwatchd.daemon.settings import Settings
from oomwatchd.daemon.waiting import FULL_CAPTURES
from oomwatchd.daemon.watch import Watch
from oomwatchd.daemon.worker import Worker
from oomwatchd.metrics import Metrics
from oomwatchd.notify import Notifier
from oomwatchd.observe.recorder import Recorder
from oomwatchd.observe.snapshot import Snapshots
from oomwatchd.sources.journal import JournalSource
from oomwatchd.sources.kmsg import KmsgSource

if TYPE_CHECKING:
    from oomwatchd.daemon.nearing import Warnings
    from oomwatchd.daemon.on_demand import OnDemand
    from oomwatchd.daemon.textfile import Textfile

log = logging.getLogger(__name__)

#: How long reading the ring as it stands may take: a flood must not delay the watch for ever.
CATCH_UP_SECONDS = 5.0
#: How often the kernel's own count is read for kills that the log did not show.
POLL_SECONDS = 10.0
#: It may be read this much sooner when the loop runs anyway: one wakeup serves it and the recorder.
POLL_SLACK_SECONDS = 3.0
#: How often the worker looks after the store and the sinks while nothing happens: each look is a wakeup.
TEND_SECONDS = 60.0
#: For a report that is due this soon the loop sleeps exactly: the selector knows whole milliseconds only.
SOON_SECONDS = 0.001


class Parts(NamedTuple):
    """What the loop drives."""

    settings: Settings
    watch: Watch
    check: KillCheck
    recorder: Recorder | None
    warnings: Warnings | None
    naming: Naming | None
    worker: Worker
    snapshots: Snapshots
    metrics: Metrics
    front: Front
    notifier: Notifier
    textfile: Textfile | None = None
    on_demand: OnDemand | None = None


class Loop:
    """One turn of it waits, reads the log, and does what is due."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._failures = OncePerKind(log)
        #: lines of the recorder about what it does without that were said
        self._said = 0
        #: nothing was under way for as long as the configuration says: the daemon is to end
        self.expired = False
        self._polled = self._fed = self._tended = time.monotonic()

    def catch_up(self, source: KmsgSource | JournalSource) -> None:
        """Read the ring as it stands. The kernel's count belongs to the moment at which the log was empty: it
        is read before a reading that finds nothing. All intervals start now."""
        watch, worker, snapshots = self._parts.watch, self._parts.worker, self._parts.snapshots
        until = time.monotonic() + CATCH_UP_SECONDS
        kernel_kills, seq = snapshots.oom_kills(), -1
        self._parts.check.agree(kernel_kills or 0)
        while time.monotonic() < until:
            if worker.waiting > FULL_CAPTURES // 2:
                time.sleep(0.01)  # nothing hurries yet: no report need lose its details
            elif watch.read():
                if source.last_seq in (None, seq):
                    break
                kernel_kills, seq = snapshots.oom_kills(), source.last_seq or 0
        watch.catch_up_done()
        self._parts.metrics.kernel_kills(kernel_kills)
        self._polled = self._fed = self._tended = time.monotonic()

    def register(self, selector: selectors.BaseSelector) -> None:
        """What wakes the loop, besides the log and signals."""
        recorder, check = self._parts.recorder, self._parts.check
        if recorder is not None:
            for descriptor, tell in recorder.descriptors():
                selector.register(descriptor, selectors.EVENT_READ, tell)
        for descriptor in check.descriptors():
            selector.register(descriptor, selectors.EVENT_READ, descriptor)

    def wake(self, woken: int | Callable[[int, float], None]) -> None:
        """One of what was registered became readable."""
        if isinstance(woken, int):
            self._parts.check.on_mark(woken, self._parts.watch)
            return
        moment = now()
        try:
            woken(moment.monotonic_usec, moment.wall)
        except Exception as error:
            self._failures.failed("the flight recorder", error)

    def turn(self) -> None:
        """The log, then what is due. Raises UnavailableError when the log ended."""
        watch, naming, notifier = self._parts.watch, self._parts.naming, self._parts.notifier
        watch.read()
        if (seconds := watch.seconds_until_due()) is not None and seconds <= SOON_SECONDS:
            time.sleep(seconds)
            watch.read()
        self.record()
        if naming is not None:
            naming.run(time.monotonic(), usec_since_kill=watch.usec_since_kill)
        self._parts.front.beat()
        moment = time.monotonic()
        if moment >= self._polled + POLL_SECONDS - POLL_SLACK_SECONDS:
            self._poll(moment)
        if (on_demand := self._parts.on_demand) is not None and on_demand.expired(self._is_busy(), moment):
            log.info("idle for %d s: ending", on_demand.seconds)
            self.expired = True
        interval = notifier.watchdog_seconds
        if interval is not None and moment >= self._fed + interval:
            notifier("WATCHDOG=1")
            self._fed = moment

    def _is_busy(self) -> bool:
        """Whether a report is under way, or a sink is taking what it has not."""
        watch, worker = self._parts.watch, self._parts.worker
        return not (watch.quiet and worker.idle) or worker.sending

    def timeout(self) -> float:
        """How long the next turn may wait, in seconds."""
        watch, recorder, naming, notifier = (
            self._parts.watch,
            self._parts.recorder,
            self._parts.naming,
            self._parts.notifier,
        )
        if watch.behind:
            return 0.0
        moment = time.monotonic()
        due = [self._polled + POLL_SECONDS - moment]
        if recorder is not None:
            due.append(recorder.seconds_until_due(now().monotonic_usec))
        if naming is not None and (seconds := naming.seconds_until_due(moment)) is not None:
            due.append(seconds)
        if notifier.watchdog_seconds is not None:
            due.append(self._fed + notifier.watchdog_seconds - moment)
        if (seconds := watch.seconds_until_due()) is not None:
            due.append(seconds)
        if self._parts.on_demand is not None:
            due.append(self._parts.on_demand.seconds_left(moment))
        return max(0.0, min(due))

    def record(self) -> None:
        """Take a sample if one is due, after the log was read: a fault of the recorder costs that sample."""
        moment, recorder = now(), self._parts.recorder
        if recorder is None or recorder.seconds_until_due(moment.monotonic_usec) > 0:
            return
        began, well = time.thread_time(), False
        try:
            recorder.run(moment.monotonic_usec, moment.wall)
            if self._parts.warnings is not None:
                self._parts.warnings.look(moment.monotonic_usec, moment.wall)
            well = True
        except Exception as error:
            self._failures.failed("the flight recorder", error)
        self._parts.metrics.part("recorder", up=well, seconds=time.thread_time() - began)
        if recorder.hurried(moment.monotonic_usec):
            self._parts.worker.look_early(moment.monotonic_usec)
        for line in recorder.obstacles[self._said :]:
            self._said += 1
            log.info("%s", line)

    def _poll(self, moment: float) -> None:
        """Compare with the kernel's own count, at a moment when everything that it counted was read."""
        watch, check, worker = self._parts.watch, self._parts.check, self._parts.worker
        kernel_kills = self._parts.snapshots.oom_kills()
        drained = watch.read()
        check.compare_marks()
        if drained and watch.quiet and worker.idle:
            self._parts.metrics.kernel_kills(kernel_kills)
            watch.rest()
            check.weigh()
        if moment >= self._tended + TEND_SECONDS or worker.store.failure is not None:
            worker.later(worker.tend)
            self._tended = moment
        if self._parts.textfile is not None:
            worker.later(self._parts.textfile.write)
        if self._parts.settings.config.http.web_config:
            self._parts.front.check_web_config()
        self._polled = moment
