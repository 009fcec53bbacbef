"""The configuration in force, and the change to another one while the daemon runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from oomwatchd.config import Config, load
from oomwatchd.daemon import imports
from oomwatchd.errors import ConfigError

log = logging.getLogger(__name__)

#: The same fault of the configuration is said again after so long.
SAID_AGAIN_SECONDS = 5.0
#: applied only at start
_FIXED = (
    "state_directory",
    "kmsg",
    "store",
    "recorder",
    "warning",
    "witness",
    "sources",
    "metrics",
    "exit_after_idle_seconds",
)


class Settings:
    """What the file at ``path`` says, or the defaults. Raises ConfigError where it is wrong at start."""

    def __init__(self, path: Path | None, *, debug: bool = False) -> None:
        self._path = path
        self._debug = debug
        self.config, self.read_from = _load(path)
        #: what is wrong with the present configuration file, and when that was said
        self._fault: tuple[str, float] | None = None

    @property
    def level(self) -> str:
        """What is logged: --debug is stronger than the file."""
        return "debug" if self._debug else self.config.log_level

    def reload(self, apply: Callable[[Config], None]) -> None:
        """Read the file again and have it applied, as far as a running daemon can; a wrong one changes
        nothing and is said once."""
        try:
            new, self.read_from = _load(self._path)
        except ConfigError as error:
            fault, moment = str(error), time.monotonic()
            said, since = self._fault or ("", 0.0)
            if fault != said or moment - since > SAID_AGAIN_SECONDS:
                log.error("configuration not changed: %s", fault)
                self._fault = fault, moment
            return
        old, self.config = self.config, new
        apply(new)
        self._fault = None
        changed = [name for name in Config.__struct_fields__ if getattr(old, name) != getattr(new, name)]
        waiting = [name for name in changed if name in _FIXED]
        applied = [name for name in changed if name not in _FIXED]
        log.info("configuration reloaded; changed: %s", ", ".join(applied) or "nothing")
        if waiting:
            log.warning("these changes need a restart: %s", ", ".join(waiting))


def _load(path: Path | None) -> tuple[Config, Path | None]:
    try:
        return load(path)
    finally:
        imports.forget("tomllib")
