"""The daemon: what lives as long as it does, how it begins and how it ends.

One ``selectors`` loop never waits (``loop``), one worker may (``worker``).
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from oomwatchd import __version__, plugs
from oomwatchd.config import Config
from oomwatchd.daemon import protect
from oomwatchd.daemon.boot_start import BootStart
from oomwatchd.daemon.clocks import now
from oomwatchd.daemon.front import Front
from oomwatchd.daemon.host_memory import HostMemory
from oomwatchd.daemon.kill_check import KillCheck
from oomwatchd.daemon.live_facts import LiveFacts
from oomwatchd.daemon.log import is_journal, start_logging
from oomwatchd.daemon.log_source import cannot_be_polled, open_source
from oomwatchd.daemon.loop import Loop, Parts
from oomwatchd.daemon.naming import Naming
from oomwatchd.daemon.optional import following_of, on_demand_of, textfile_of, warnings_of
from oomwatchd.daemon.panics import panics, roots
from oomwatchd.daemon.settings import Settings
from oomwatchd.daemon.signals import catch
from oomwatchd.daemon.watch import Watch
from oomwatchd.daemon.worker import Worker
from oomwatchd.errors import OomwatchdError, UnavailableError
from oomwatchd.event import OomEvent
from oomwatchd.metrics import Metrics
from oomwatchd.notify import Notifier, take_descriptors
from oomwatchd.observe.container import ContainerNames
from oomwatchd.observe.group import Group
from oomwatchd.observe.hierarchy import cgroup_namespace, memory_hierarchy
from oomwatchd.observe.holders import Holders
from oomwatchd.observe.host import read_host
from oomwatchd.observe.recorder import Recorder
from oomwatchd.observe.snapshot import Snapshots

log = logging.getLogger(__name__)

#: At the end, storing what is left may take this long.
DRAIN_SECONDS = 5.0
UNHURRIED_SECONDS = 60.0


class Daemon:
    """One run of the daemon, from its configuration to its exit status."""

    def __init__(self, path: Path | None, *, debug: bool = False) -> None:
        protect.keep_small()
        few = protect.raise_descriptors()
        self._settings = Settings(path, debug=debug)
        config = self._settings.config
        start_logging(self._settings.level)
        if few is not None:
            log.warning("%s", few)
        self._notifier = Notifier()
        descriptors = take_descriptors()
        host = read_host()
        self._host = replace(host, cgroup_namespace=cgroup_namespace(host))
        self._snapshots = Snapshots(self._host)
        self._recorder: Recorder | None = None
        if config.recorder.enabled:
            command_line = config.capture.command_line
            self._recorder = Recorder(self._host, config.recorder, command_line=command_line)
        self._passed = descriptors.get("kmsg", ())
        self._source = open_source(config.kmsg.device, self._passed)
        self._metrics = Metrics(sinks=plugs.names("oomwatchd.sinks"))
        memory = HostMemory(self._host, self._recorder.cgroups if self._recorder is not None else None)
        self._metrics.observe(memory)
        self._front = Front(self._metrics, memory, lambda: self._worker, self._absent)
        self._front.open(config.http, descriptors.get("http", ()))
        names = ContainerNames(Path(config.capture.host_root), self._host.proc)
        opened = {name: descriptors[name][0] for name in ("slabinfo", "vmallocinfo") if descriptors.get(name)}
        self._worker = Worker(
            config,
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
        naming: Naming | None = None
        if self._recorder is not None:
            naming = Naming(names, self._recorder.cgroups, self._worker.later)
        self._warnings = warnings_of(config, self._host, self._recorder, self._metrics, self._worker, names)
        self._worker.open()
        boot_id = self._host.boot_id
        self._boot_start = BootStart(self._source.kind, self._worker, self._metrics, boot_id)
        self._check = KillCheck(
            self._source.kind,
            self._host,
            self._metrics,
            self._worker,
            self._recorder,
            marks=config.witness.mark_victim,
        )
        self._on_demand = on_demand_of(config, descriptors.get("trigger", ()), self._boot_start)
        self._textfile = textfile_of(config, self._metrics, serves=self._front.serves)
        self._following = following_of(config, self._metrics, self._worker)
        self._boot_start.skip_known(self._source)
        earlier = self._worker.earlier(boot_id)
        self._watch = Watch(
            self._source,
            self._host,
            self._snapshots,
            self._metrics,
            self._worker.submit,
            now,
            command_line=config.capture.command_line,
            position=earlier.position(),
            began_seq=self._boot_start.number,
            covered=earlier.covered(),
            on_victim=self._check.on_victim,
            on_report=self._worker.look_around,
            recorder=self._recorder,
        )
        self._loop = Loop(
            Parts(
                self._settings,
                self._watch,
                self._check,
                self._recorder,
                self._warnings,
                naming,
                self._worker,
                self._snapshots,
                self._metrics,
                self._front,
                self._notifier,
                self._textfile,
                self._on_demand,
            )
        )
        self._stop_asked = False
        self._reload_asked = False
        self._status = 0

    def _known_cgroups(self) -> Iterable[Group]:
        return () if self._recorder is None else self._recorder.cgroups.table.values()

    def run(self) -> int:
        """Watch until told to end; the exit status."""
        with selectors.DefaultSelector() as selector:
            signals = catch(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            selector.register(signals, selectors.EVENT_READ)
            try:
                selector.register(self._source, selectors.EVENT_READ)
            except PermissionError:
                raise cannot_be_polled(self._settings.config.kmsg.device, self._passed) from None
            self._loop.register(selector)
            try:
                self._start()
                while not self._stop_asked:
                    for key, _ in selector.select(self._loop.timeout()):
                        if key.fileobj is signals:
                            self._on_signals(signals.recv(64))
                        elif key.data is not None:
                            self._loop.wake(key.data)
                    self._loop.turn()
                    self._stop_asked = self._stop_asked or self._loop.expired
            except UnavailableError as error:
                log.error("%s", error)
                self._metrics.kmsg_up(False)
                self._front.ready(error.message)
                self._status = error.exit_status
            return self._end()

    # -- beginning and end -------------------------------------------------------------------------

    def _start(self) -> None:
        log.info("oomwatchd %s, configuration: %s", __version__, self._settings.read_from or "defaults")
        if self._snapshots.absent:
            log.info("runs without these files, which this host lacks: %s", ", ".join(self._snapshots.absent))
        self._loop.record()
        # what a kill started has its report before it and ends soon: nothing is loaded in advance or locked
        resident = self._on_demand is None
        if resident:
            try:
                protect.warm_up()
            except Exception as error:
                log.error("the decoder fails on its own sample report: %s", error, exc_info=error)
        self._front.start()
        self._worker.start()
        self._worker.look_afterwards(self._host)
        if (warnings := self._warnings) is not None:
            self._worker.later(lambda: self._worker.take(warnings.left_open(self._worker.store)))
        self._loop.catch_up(self._source)
        self._worker.later(lambda: self._boot_start.save(self._watch.began_seq or 0))
        self._worker.store.when_renewed(self._count_anew)
        self._worker.later(self._report_panics)
        protect.freeze()
        if resident and (obstacle := protect.lock_memory()) is not None:
            log.info("works without locked memory: %s", obstacle)
        self._metrics.kmsg_up(True)
        if self._following is not None:
            self._following.start()
        self._front.ready()
        self._notifier("READY=1", f"STATUS={self._front.status_line()}")
        log.info("%s", self._front.status_line())

    def _end(self) -> int:
        self._notifier("STOPPING=1")
        self._front.ready("ending")
        self._watch.flush()
        if self._following is not None:
            self._following.stop()
        if self._on_demand is not None:
            self._on_demand.drain()
            self._watch.read()  # what came until then is told, what comes now starts the next one
            self._watch.flush()
        if self._textfile is not None:
            self._worker.later(self._textfile.write)
        # who started it on demand waits for its file, and nobody else waits
        if not self._worker.stop(DRAIN_SECONDS if self._on_demand is None else UNHURRIED_SECONDS):
            left = self._worker.waiting
            log.error("%d reports were not stored in time; the next start reads them from the ring", left)
        self._front.stop()
        log.info("ended")
        self._check.close()
        self._snapshots.close()
        if self._recorder is not None:
            self._recorder.close()
        self._source.close()
        self._notifier.close()
        return self._status

    # -- what the loop is told ---------------------------------------------------------------------

    def _on_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGHUP:
                if not self._reload_asked:  # a second request before the reload began is the same reload
                    self._reload_asked = True
                    self._worker.later(self._reload)
            else:
                log.info("%s: ending", signal.Signals(number).name)
                self._stop_asked = True

    def _absent(self) -> list[str]:
        """What it works without, in words; in the thread that makes the pages."""
        obstacles = self._recorder.obstacles if self._recorder is not None else ["the flight recorder"]
        return [*self._snapshots.absent, *obstacles]

    # -- in the worker's thread --------------------------------------------------------------------

    def _on_event(self, event: OomEvent) -> None:
        # the journal's own entry of the event says the same in more words
        twice = self._worker.sends_to("journal") and is_journal(2, os.environ)
        log.log(logging.DEBUG if twice else logging.WARNING, "%s", event.summary)
        self._notifier(f"STATUS={self._front.status_line(event)}")

    def _report_panics(self) -> None:
        """Panics that ended earlier boots, each once: the store knows those it has."""
        try:
            self._worker.take(panics(roots(), time.time()))
        except OomwatchdError as error:
            log.info("panics that pstore kept are not read: %s", error)

    def _count_anew(self) -> None:
        """A new store replaced a corrupt one: the next daemon finds nothing of what was read stored, and must
        not count it again."""
        self._boot_start.save(self._watch.newest)

    def _reload(self) -> None:
        """Apply a changed configuration as far as a running daemon can; a wrong one changes nothing."""
        self._reload_asked = False
        self._notifier("RELOADING=1", f"MONOTONIC_USEC={now().monotonic_usec}")
        try:
            self._settings.reload(self._apply)
        finally:  # else the service manager waits until its timeout
            self._notifier("READY=1")

    def _apply(self, new: Config) -> None:
        start_logging(self._settings.level)
        self._watch.command_line = new.capture.command_line
        if self._recorder is not None:
            self._recorder.use_command_line(new.capture.command_line)
        # whether changed or not: files that they name may have been, and what was absent may be there now
        self._worker.later(lambda: self._worker.reopen_sinks(new))
        self._front.apply(new.http)
