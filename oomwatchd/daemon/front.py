"""What others see of the daemon: whether it is ready, metrics and pages, its line for the service manager."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from oomwatchd.config import HttpSection
from oomwatchd.daemon.host_memory import HostMemory
from oomwatchd.daemon.worker import Worker
from oomwatchd.errors import ConfigError
from oomwatchd.event import OomEvent
from oomwatchd.metrics import Metrics

if TYPE_CHECKING:
    from oomwatchd.daemon.serving import Serving
    from oomwatchd.web.shown import State

log = logging.getLogger(__name__)


class Front:
    """Readiness, and the HTTP side where there is one. ``worker`` is asked for when it is there; ``absent``
    gives what the daemon works without."""

    def __init__(
        self,
        metrics: Metrics,
        memory: HostMemory,
        worker: Callable[[], Worker],
        absent: Callable[[], list[str]],
    ) -> None:
        self._metrics = metrics
        self._memory = memory
        self._worker = worker
        self._absent = absent
        self._serving: Serving | None = None
        #: why it does not work; None while it does
        self._trouble: str | None = "starting"
        self._started = 0.0

    @property
    def serves(self) -> bool:
        """Whether there is an HTTP side."""
        return self._serving is not None

    def open(self, http: HttpSection, passed: Sequence[int] = ()) -> None:
        """Make the HTTP side, not started; where nobody wants it, it is not even loaded. Raises
        ConfigError."""
        if not passed and not http.addresses:
            return
        from oomwatchd.daemon.serving import Serving

        self._serving = Serving(http, self._metrics, self._state, lambda: self._worker().store, passed)

    def start(self) -> None:
        """The daemon begins: serve."""
        self._started = self._started or time.time()
        if self._serving is not None:
            self._serving.start()

    def stop(self) -> None:
        """End at once."""
        if self._serving is not None:
            self._serving.stop()

    def apply(self, http: HttpSection) -> None:
        """Change to another section of the configuration."""
        if self._serving is not None:
            self._serving.apply(http)
            return
        try:
            self.open(http)
        except ConfigError as error:
            log.error("metrics and pages are not served: %s", error)
            return
        self.ready(self._trouble)
        self.start()

    def ready(self, trouble: str | None = None) -> None:
        """The watch works; or, with a reason, does not."""
        self._trouble = trouble
        if self._serving is not None:
            self._serving.health.ready(trouble)

    def beat(self) -> None:
        """The loop came round."""
        if self._serving is not None:
            self._serving.health.beat()

    def check_web_config(self) -> None:
        """Count whether the present web configuration is in force."""
        if self._serving is not None:
            self._metrics.part("web_config", up=self._serving.web_config_failure is None)

    def status_line(self, last: OomEvent | None = None) -> str:
        """For the service manager."""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._started))
        line = f"watching since {since}, {self._worker().store.events} events stored"
        return f"{line}, last: {last.summary}" if last else line

    def _state(self) -> State:
        """For the first page; in the thread that makes the pages."""
        from oomwatchd.web.shown import State

        serving, worker = self._serving, self._worker()
        kernel_kills, kills, unaccounted = self._metrics.kills_now()
        absent = self._absent()
        if serving is not None and serving.web_config_failure is not None:
            absent.append(f"the present web configuration: {serving.web_config_failure}")
        return State(
            started=self._started,
            trouble=self._trouble if serving is None else serving.health.not_ready(),
            kernel_kills=kernel_kills,
            kills=kills,
            unaccounted=unaccounted,
            stored=worker.store.events,
            store_failure=worker.store.failure or (None if worker.directory else "no directory for them"),
            without=tuple(absent),
            headroom=self._memory(),
            deliveries=self._metrics.deliveries(),
        )
