"""Parts of the daemon that the configuration switches on; the others are not even loaded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from oomwatchd.config import Config
from oomwatchd.daemon.boot_start import BootStart
from oomwatchd.daemon.worker import Worker
from oomwatchd.metrics import Metrics
from oomwatchd.observe.container import ContainerNames
from oomwatchd.observe.host import Host
from oomwatchd.observe.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oomwatchd.daemon.following import FollowedHosts
    from oomwatchd.daemon.nearing import Warnings
    from oomwatchd.daemon.on_demand import OnDemand
    from oomwatchd.daemon.textfile import Textfile


def warnings_of(
    config: Config,
    host: Host,
    recorder: Recorder | None,
    metrics: Metrics,
    worker: Worker,
    names: ContainerNames,
) -> Warnings | None:
    """Warnings before a kill, from the recorder's samples; a daemon that a kill starts comes too late for
    them, and would count each kill as missed."""
    if recorder is None or not config.warning.enabled or config.exit_after_idle_seconds > 0:
        return None
    from oomwatchd.daemon.nearing import Warnings  # a quarter MiB that others do without

    warnings = Warnings(config.warning, host, recorder, metrics, worker.serve, worker.later, names.get)
    worker.link_warnings(warnings.linked)
    return warnings


def on_demand_of(config: Config, trigger: Sequence[int], start: BootStart) -> OnDemand | None:
    """The end after a time without work, for a daemon that a kill starts."""
    if config.exit_after_idle_seconds <= 0:
        return None
    from oomwatchd.daemon.on_demand import BEFORE_ALL, OnDemand

    start.set_before_all(BEFORE_ALL)
    return OnDemand(config.exit_after_idle_seconds, trigger, time.monotonic())


def textfile_of(config: Config, metrics: Metrics, *, serves: bool) -> Textfile | None:
    """Metrics in a file; ``serves``: they are served over HTTP too."""
    if not config.metrics.textfile:
        return None
    from oomwatchd.daemon.textfile import Textfile

    return Textfile(Path(config.metrics.textfile), metrics, alone=not serves)


def following_of(config: Config, metrics: Metrics, worker: Worker) -> FollowedHosts | None:
    """Logs of other machines."""
    if not config.sources.follow:
        return None
    from oomwatchd.daemon.following import FollowedHosts

    return FollowedHosts(config.sources, metrics, worker.later, worker.take_followed)
