"""The daemon: one ``selectors`` loop that hurries, one worker that may wait, and what ties them together.

The class is longer than others because it owns everything that lives as long as the daemon: each method is
one thing that its loop does (start, signals, marks, polls, reload, end).
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from oomwatchd import __version__, plugs
from oomwatchd.config import Config, KmsgSection, load
from oomwatchd.daemon import imports, protect
from oomwatchd.daemon.clocks import now
from oomwatchd.daemon.crosscheck import LASTING_USEC, Balance, Totals, Witness
from oomwatchd.daemon.host_memory import HostView
from oomwatchd.daemon.live_facts import LiveFacts
from oomwatchd.daemon.log import OncePerKind, is_journal, start_logging
from oomwatchd.daemon.naming import Naming
from oomwatchd.daemon.panics import panics, roots
from oomwatchd.daemon.waiting import FULL_CAPTURES
from oomwatchd.daemon.watch import Watch
from oomwatchd.daemon.worker import Worker
from oomwatchd.errors import ConfigError, OomwatchdError, PermissionDeniedError, UnavailableError
from oomwatchd.event import OomEvent
from oomwatchd.metrics import Metrics
from oomwatchd.notify import Notifier, take_descriptors
from oomwatchd.observe.container import ContainerNames
from oomwatchd.observe.group import Group
from oomwatchd.observe.hierarchy import memory_hierarchy
from oomwatchd.observe.holders import Holders
from oomwatchd.observe.host import read_host
from oomwatchd.observe.recorder import Recorder
from oomwatchd.observe.snapshot import Snapshots
from oomwatchd.records.capture import OomCapture, Source, Unseen
from oomwatchd.sources.journal import JournalSource
from oomwatchd.sources.kmsg import KmsgSource
from oomwatchd.sources.tracefs import MarkedVictims
from oomwatchd.words.escape import harmless

if TYPE_CHECKING:
    from oomwatchd.daemon.serving import Serving
    from oomwatchd.web.shown import State

log = logging.getLogger(__name__)

#: How long the ring as it stood may take to be read; a flood must not put off the watch for ever.
CATCH_UP_SECONDS = 5.0
#: How often the kernel's own count is read for kills that the log did not show.
POLL_SECONDS = 10.0
#: How often the worker looks after the store and the sinks while nothing happens: each look is a wakeup.
TEND_SECONDS = 60.0
#: It may be read so much sooner when the loop comes round anyway: one wakeup serves it and the recorder.
POLL_SLACK_SECONDS = 3.0
#: What is left to be stored at the end gets this long.
DRAIN_SECONDS = 5.0
#: The same fault of the configuration is said again after so long.
SAID_AGAIN_SECONDS = 5.0
#: Signals of others that end a process by default; nothing here has a use for them.
_IGNORED = (
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO),
    signal.SIGPWR,
)
#: The rest of a report that began is waited for so long without sleeping: a slow console takes longer.
AT_ONCE_USEC = 2_000
#: A report that is issued this soon is waited for, since the selector knows whole milliseconds only.
SOON_SECONDS = 0.001
#: So much of the journal before the newest stored report is read again: as long as a run of repeats may last,
#: and what the log clock may lag behind CLOCK_MONOTONIC.
JOURNAL_AGAIN_USEC = 1_200_000_000
_PASSED = "kernel log passed by the service manager"
#: applied only at start
_FIXED = ("state_directory", "kmsg", "store", "recorder", "witness")


class Daemon:
    """One run of the daemon, from its configuration to its exit status."""

    def __init__(self, path: Path | None, *, debug: bool = False) -> None:
        protect.keep_small()
        few = protect.raise_descriptors()
        self._path = path
        self._debug = debug
        self._config, self._read_from = _load(path)
        start_logging(self._level(self._config))
        if few is not None:
            log.warning("%s", few)
        self._notifier = Notifier()
        descriptors = take_descriptors()
        self._host = read_host()
        self._snapshots = Snapshots(self._host)
        self._recorder: Recorder | None = None
        if self._config.recorder.enabled:
            self._recorder = Recorder(
                self._host, self._config.recorder, command_line=self._config.capture.command_line
            )
        passed = descriptors.get("kmsg")
        self._passed = bool(passed)
        self._source: KmsgSource | JournalSource
        if passed:
            self._source = KmsgSource.adopt(passed[0], _PASSED)
        else:
            self._source = self._open_log()
        self._metrics = Metrics(sinks=plugs.names("oomwatchd.sinks"))
        self._view = HostView(self._host, self._recorder.cgroups if self._recorder is not None else None)
        self._metrics.observe(self._view)
        #: why it does not work; None while it does
        self._trouble: str | None = "starting"
        self._serving = self._serve(self._config, descriptors.get("http", ()))
        names = ContainerNames(Path(self._config.capture.host_root), self._host.proc)
        opened = {name: descriptors[name][0] for name in ("slabinfo", "vmallocinfo") if descriptors.get(name)}
        self._worker = Worker(
            self._config,
            self._metrics,
            self._on_event,
            boot_id=self._host.boot_id,
            live_facts=LiveFacts(
                Holders(self._host, opened, self._known_cgroups),
                memory_hierarchy(self._host),
                self._host.page_size_bytes,
            ),
            names=names,
        )
        self._naming: Naming | None = None
        if self._recorder is not None:
            self._naming = Naming(names, self._recorder.cgroups, self._worker.later)
        self._worker.open()
        boot_id = self._host.boot_id
        self._witness = Witness()
        self._marks = self._open_marks()
        self._overrun = False
        counters = self._worker.load_counters(boot_id)
        self._metrics.load(counters)
        self._balance = Balance(
            self._metrics.told_unseen, self._count_in_cgroups, LASTING_USEC[self._source.kind]
        )
        self._began = f"began_{'seq' if self._source.kind == 'kmsg' else 'usec'}"
        began = counters.get(self._began)
        if isinstance(self._source, JournalSource) and began is not None:
            stored = self._worker.last_usec(boot_id)
            if stored is not None:
                self._source.skip_to(stored - JOURNAL_AGAIN_USEC)
        self._watch = Watch(
            self._source,
            self._host,
            self._snapshots,
            self._metrics,
            self._worker.submit,
            now,
            command_line=self._config.capture.command_line,
            position=self._worker.position(boot_id),
            began_seq=None if began is None else int(began),
            covered=self._worker.covered(boot_id),
            on_victim=(lambda _pid, _usec: None) if self._marks is None else self._witness.named,
            on_report=self._worker.look_around,
            recorder=self._recorder,
        )
        self._started = time.time()
        self._failures = OncePerKind(log)
        #: lines of the recorder about what it does without that were said
        self._said = 0
        self._stop_asked = False
        self._reload_asked = False
        #: what is wrong with the present configuration file, and when that was said
        self._config_fault: tuple[str, float] | None = None
        self._status = 0

    def _known_cgroups(self) -> Iterable[Group]:
        return () if self._recorder is None else self._recorder.cgroups.table.values()

    def _open_log(self) -> KmsgSource | JournalSource:
        """The ring buffer; where it is closed to us the journal, in which the same lines arrive later and
        without numbers. Raises what the ring buffer's opening raised when there is no journal either, or
        when the configuration names another device."""
        try:
            return KmsgSource.open(self._config.kmsg.device)
        except (PermissionDeniedError, UnavailableError) as closed:
            if self._config.kmsg.device != KmsgSection().device:
                raise
            try:
                source = JournalSource.open()
            except OomwatchdError as absent:
                log.debug("no journal instead of %s: %s", self._config.kmsg.device, absent)
                raise closed from None
            log.warning("%s; reading the kernel's lines from the journal instead", closed)
            return source

    def run(self) -> int:
        """Watch until told to end; the exit status."""
        with selectors.DefaultSelector() as selector:
            for number in _IGNORED:
                signal.signal(number, signal.SIG_IGN)
            signals = _catch_signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            selector.register(signals, selectors.EVENT_READ)
            try:
                selector.register(self._source, selectors.EVENT_READ)
            except PermissionError:  # a file or a directory, which epoll does not take
                name, hint = harmless(self._config.kmsg.device), "see `device` in [kmsg]"
                if self._passed:
                    name, hint = _PASSED, "see ListenSpecial= of its socket unit"
                raise UnavailableError(f"{name}: not a kernel log: it cannot be polled", hint=hint) from None
            if self._recorder is not None:
                for descriptor, told in self._recorder.descriptors():
                    selector.register(descriptor, selectors.EVENT_READ, told)
            for descriptor in () if self._marks is None else self._marks.descriptors():
                selector.register(descriptor, selectors.EVENT_READ, descriptor)
            try:
                self._start()
                while not self._stop_asked:
                    self._turn(selector, signals)
            except UnavailableError as error:
                log.error("%s", error)
                self._metrics.kmsg_up(False)
                self._ready(error.message)
                self._status = error.exit_status
            return self._end()

    # -- beginning and end -------------------------------------------------------------------------

    def _start(self) -> None:
        log.info("oomwatchd %s, configuration: %s", __version__, self._read_from or "defaults")
        if self._snapshots.absent:
            log.info("runs without these files, which this host lacks: %s", ", ".join(self._snapshots.absent))
        self._record()
        try:
            protect.warm_up()
        except Exception as error:
            log.error("the decoder fails on its own sample report: %s", error, exc_info=error)
        if self._serving is not None:
            self._serving.start()
        self._worker.start()
        self._worker.look_afterwards(self._host)
        self._catch_up()
        self._worker.store.when_renewed(self._begin_anew)
        self._worker.later(self._report_panics)
        protect.freeze()
        if (obstacle := protect.lock_memory()) is not None:
            log.info("works without locked memory: %s", obstacle)
        self._metrics.kmsg_up(True)
        self._ready()
        self._notifier("READY=1", f"STATUS={self._status_line()}")
        log.info("%s", self._status_line())

    def _catch_up(self) -> None:
        """Read the ring as it stands. The kernel's count belongs to the moment at which the log was
        empty: read before a reading that finds nothing."""
        until = time.monotonic() + CATCH_UP_SECONDS
        kernel_kills, seq = self._snapshots.oom_kills(), -1
        self._balance.agree(self._totals(kernel_kills or 0))
        while time.monotonic() < until:
            if self._worker.waiting > FULL_CAPTURES // 2:
                time.sleep(0.01)  # nothing hurries yet: no report need lose its details
            elif self._watch.read():
                if self._source.last_seq in (None, seq):
                    break
                kernel_kills, seq = self._snapshots.oom_kills(), self._source.last_seq or 0
        self._watch.catch_up_done()
        self._metrics.kernel_kills(kernel_kills)
        self._worker.later(self._save_beginning)
        self._polled = self._fed = self._tended = time.monotonic()

    def _end(self) -> int:
        self._notifier("STOPPING=1")
        self._ready("ending")
        self._watch.flush()
        if not self._worker.stop(DRAIN_SECONDS):
            left = self._worker.waiting
            log.error("%d reports were not stored in time; the next start reads them from the ring", left)
        if self._serving is not None:
            self._serving.stop()
        log.info("ended")
        if self._marks is not None:
            self._marks.close()
        self._snapshots.close()
        if self._recorder is not None:
            self._recorder.close()
        self._source.close()
        self._notifier.close()
        return self._status

    # -- the loop ----------------------------------------------------------------------------------

    def _turn(self, selector: selectors.BaseSelector, signals: socket.socket) -> None:
        for key, _ in selector.select(self._timeout()):
            if key.fileobj is signals:
                self._on_signals(signals.recv(64))
            elif isinstance(key.data, int):
                self._on_mark(key.data)
            elif key.data is not None:
                self._tell(key.data)
        self._watch.read()
        if (seconds := self._watch.seconds_until_due()) is not None and seconds <= SOON_SECONDS:
            time.sleep(seconds)
            self._watch.read()
        self._record()
        if self._naming is not None:
            self._naming.run(time.monotonic(), usec_since_kill=self._watch.usec_since_kill)
        if self._serving is not None:
            self._serving.health.beat()
        moment = time.monotonic()
        if moment >= self._polled + POLL_SECONDS - POLL_SLACK_SECONDS:
            self._poll(moment)
        interval = self._notifier.watchdog_seconds
        if interval is not None and moment >= self._fed + interval:
            self._notifier("WATCHDOG=1")
            self._fed = moment

    def _record(self) -> None:
        """A sample if one is due, behind the log: a fault of the recorder costs that sample."""
        moment = now()
        if self._recorder is None or self._recorder.seconds_until_due(moment.monotonic_usec) > 0:
            return
        began, well = time.thread_time(), False
        try:
            self._recorder.run(moment.monotonic_usec, moment.wall)
            well = True
        except Exception as error:
            self._failures.failed("the flight recorder", error)
        self._metrics.part("recorder", up=well, seconds=time.thread_time() - began)
        if self._recorder.hurried(moment.monotonic_usec):
            self._worker.look_early(moment.monotonic_usec)
        for line in self._recorder.obstacles[self._said :]:
            self._said += 1
            log.info("%s", line)

    def _tell(self, told: Callable[[int, float], None]) -> None:
        moment = now()
        try:
            told(moment.monotonic_usec, moment.wall)
        except Exception as error:
            self._failures.failed("the flight recorder", error)

    def _on_mark(self, pipe: int) -> None:
        """A report begins, or a victim was marked: the rest comes now. The log itself would wake us with the
        timer tick only (irq_work, lazy, in kernel/printk/printk.c), up to 10 ms later."""
        if self._marks is None:
            return
        usec = now().monotonic_usec
        since, until = usec - AT_ONCE_USEC, usec + AT_ONCE_USEC
        while True:
            for victim in self._witness.marked(self._marks.read(pipe)):
                self._watch.foresee(victim.pid, victim.comm)
            self._watch.read()
            awaited = self._witness.awaits(since) or self._watch.is_in_report(AT_ONCE_USEC)
            if not awaited or now().monotonic_usec >= until:
                break

    def _timeout(self) -> float:
        if self._watch.behind:
            return 0.0
        moment = time.monotonic()
        due = [self._polled + POLL_SECONDS - moment]
        if self._recorder is not None:
            due.append(self._recorder.seconds_until_due(now().monotonic_usec))
        if self._naming is not None and (seconds := self._naming.seconds_until_due(moment)) is not None:
            due.append(seconds)
        if self._notifier.watchdog_seconds is not None:
            due.append(self._fed + self._notifier.watchdog_seconds - moment)
        if (seconds := self._watch.seconds_until_due()) is not None:
            due.append(seconds)
        return max(0.0, min(due))

    def _poll(self, moment: float) -> None:
        """Compare with the kernel's own count, at a moment when what it counted has reached us too."""
        kernel_kills = self._snapshots.oom_kills()
        drained = self._watch.read()
        if self._marks is not None:
            self._compare_marks(self._marks)
        if drained and self._watch.quiet and self._worker.idle:
            self._metrics.kernel_kills(kernel_kills)
            self._watch.rest()
            self._weigh()
        if moment >= self._tended + TEND_SECONDS or self._worker.store.failure is not None:
            self._worker.later(self._worker.tend)
            self._tended = moment
        if self._config.http.web_config and self._serving is not None:
            self._metrics.part("web_config", up=self._serving.web_config_failure is None)
        self._polled = moment

    def _weigh(self) -> None:
        """Tell of kills that the kernel counted and its log does not show."""
        kernel_kills, _, unaccounted = self._metrics.kills_now()
        if kernel_kills is None or unaccounted is None:
            return
        unseen = self._balance.weigh(self._totals(kernel_kills), unaccounted, now().monotonic_usec)
        if unseen is not None:
            capture = self._capture_of(unseen)
            self._worker.later(lambda: self._worker.take([capture]))

    def _totals(self, kernel_kills: float) -> Totals:
        return Totals(
            kernel_kills=kernel_kills,
            reported_kills=self._metrics.kills_now()[1],
            lost_records=self._metrics.lost_records,
            dropped_reports=self._worker.dropped,
        )

    def _capture_of(self, unseen: Unseen) -> OomCapture:
        kind = self._source.kind
        return OomCapture(
            source=Source(kind=kind, form=kind, boot_id=self._host.boot_id),
            records=(),
            settled=True,
            detected=now().wall,
            page_size_bytes=self._host.page_size_bytes,
            kernel=self._host.kernel,
            arch=self._host.machine,
            unseen=unseen,
        )

    def _count_in_cgroups(self) -> dict[str, int]:
        """The kernel's own counts of kills; a cgroup that came after the last walk is not among them."""
        if self._recorder is None:
            return {}
        cgroups = self._recorder.cgroups
        return {group.path: kills for group in cgroups if (kills := cgroups.kills(group))}

    def _compare_marks(self, marks: MarkedVictims) -> None:
        self._witness.marked(marks.read())
        if marks.overruns and not self._overrun:
            self._overrun = True
            log.warning("the trace point's buffer was overwritten before it was read: victims may be missing")
        missing = self._witness.missing(now().monotonic_usec)
        self._balance.marked(missing)
        for victim in missing:
            log.warning("the log does not say that it was killed: %s (pid %d)", victim.comm, victim.pid)
        self._metrics.witness(self._witness.victims, self._witness.unreported)

    def _open_marks(self) -> MarkedVictims | None:
        if not self._config.witness.mark_victim:
            return None
        try:
            return MarkedVictims.open()
        except UnavailableError as error:
            log.warning("works without a second witness: %s", error)
            return None

    def _on_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGHUP:
                if not self._reload_asked:  # what is asked for again before it began is one reload
                    self._reload_asked = True
                    self._worker.later(self._reload)
            else:
                log.info("%s: ending", signal.Signals(number).name)
                self._stop_asked = True

    # -- in the worker's thread --------------------------------------------------------------------

    def _on_event(self, event: OomEvent) -> None:
        # the journal's own entry of the event says the same in more words
        twice = self._worker.sends_to("journal") and is_journal(2, os.environ)
        log.log(logging.DEBUG if twice else logging.WARNING, "%s", event.summary)
        self._notifier(f"STATUS={self._status_line(event)}")

    def _state(self) -> State:
        """For the first page; in the thread that makes the pages."""
        from oomwatchd.web.shown import State

        serving = self._serving
        kernel_kills, kills, unaccounted = self._metrics.kills_now()
        absent = list(self._snapshots.absent)
        absent += self._recorder.obstacles if self._recorder is not None else ["the flight recorder"]
        if serving is not None and serving.web_config_failure is not None:
            absent.append(f"the present web configuration: {serving.web_config_failure}")
        return State(
            started=self._started,
            trouble=self._trouble if serving is None else serving.health.not_ready(),
            kernel_kills=kernel_kills,
            kills=kills,
            unaccounted=unaccounted,
            stored=self._worker.stored_events,
            store_failure=self._worker.store_failure,
            without=tuple(absent),
            distance=self._view(),
            deliveries=self._metrics.deliveries(),
        )

    def _status_line(self, last: OomEvent | None = None) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._started))
        line = f"watching since {since}, {self._worker.stored_events} events stored"
        return f"{line}, last: {last.summary}" if last else line

    def _report_panics(self) -> None:
        """What ended earlier boots, each once: the store knows those that were told."""
        try:
            self._worker.take(panics(roots(), time.time()))
        except OomwatchdError as error:
            log.info("works without the panics that pstore kept: %s", error)

    def _save_beginning(self) -> None:
        """From which record on, and from which kernel count on, this boot is watched."""
        began = {self._began: float(self._watch.began_seq or 0)}
        self._worker.save_counters(self._host.boot_id, {**self._metrics.saved(), **began})

    def _begin_anew(self) -> None:
        """Into a new store that took the place of a corrupt one: what was read until now is counted, and
        must not be counted again by the next daemon, which will find none of it stored."""
        began = {self._began: float(self._watch.newest)}
        self._worker.save_counters(self._host.boot_id, {**self._metrics.saved(), **began})

    def _reload(self) -> None:
        """Apply a changed configuration as far as a running daemon can; a wrong one changes nothing."""
        self._reload_asked = False
        self._notifier("RELOADING=1", f"MONOTONIC_USEC={now().monotonic_usec}")
        try:
            new, self._read_from = _load(self._path)
            self._apply(new)
            self._config_fault = None
        except ConfigError as error:
            fault, moment = str(error), time.monotonic()
            said, since = self._config_fault or ("", 0.0)
            if fault != said or moment - since > SAID_AGAIN_SECONDS:
                log.error("configuration not changed: %s", fault)
                self._config_fault = fault, moment
        finally:  # else the manager waits for it until its patience ends
            self._notifier("READY=1")

    def _apply(self, new: Config) -> None:
        old, self._config = self._config, new
        changed = [name for name in Config.__struct_fields__ if getattr(old, name) != getattr(new, name)]
        start_logging(self._level(new))
        self._watch.command_line = new.capture.command_line
        if self._recorder is not None:
            self._recorder.command_line = new.capture.command_line
        # whether changed or not: files that they name may have been, and what was absent may be there now
        self._worker.later(lambda: self._worker.reopen_sinks(new))
        self._apply_http(new)
        waiting = [name for name in changed if name in _FIXED]
        applied = [name for name in changed if name not in _FIXED]
        log.info("configuration reloaded; changed: %s", ", ".join(applied) or "nothing")
        if waiting:
            log.warning("these changes need a restart: %s", ", ".join(waiting))

    def _serve(self, config: Config, passed: Sequence[int] = ()) -> Serving | None:
        """The HTTP side, not started; None where nobody wants it, and then it is not even loaded. Raises
        ConfigError."""
        if not passed and not config.http.addresses:
            return None
        from oomwatchd.daemon.serving import Serving

        return Serving(config.http, self._metrics, self._state, lambda: self._worker.store, passed)

    def _apply_http(self, new: Config) -> None:
        if self._serving is not None:
            self._serving.apply(new.http)
            return
        try:
            serving = self._serve(new)
        except ConfigError as error:
            log.error("metrics and pages are not served: %s", error)
            return
        if serving is not None:
            serving.health.ready(self._trouble)
            serving.start()
            self._serving = serving

    def _ready(self, trouble: str | None = None) -> None:
        """The watch works; or, with a reason, does not."""
        self._trouble = trouble
        if self._serving is not None:
            self._serving.health.ready(trouble)

    def _level(self, config: Config) -> str:
        return "debug" if self._debug else config.log_level


def _load(path: Path | None) -> tuple[Config, Path | None]:
    try:
        return load(path)
    finally:
        imports.forget("tomllib")


def _catch_signals(*numbers: signal.Signals) -> socket.socket:
    """A socket that becomes readable with the number of each signal that comes."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, _woken)
    return reading


def _woken(_number: int, _frame: FrameType | None) -> None:
    """The byte in the wakeup socket is all that is wanted."""
