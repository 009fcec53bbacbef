"""``[[sources.follow]]``: the logs of other machines, in a thread of their own, loaded if some are named.

What this thread hands over is bounded; nothing of it reaches the watch, nor any counter of this host.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from oomwatchd.config import SourcesSection
from oomwatchd.follow.address import places_of
from oomwatchd.follow.follower import Follower
from oomwatchd.metrics import Following, Metrics
from oomwatchd.records.capture import OomCapture

log = logging.getLogger(__name__)

#: captures that may wait for the worker, of all machines
MAX_WAITING = 32
#: at the end the thread gets this long
_STOP_SECONDS = 3.0


class FollowedHosts:
    """The thread. ``take`` is called in the worker's thread, by way of ``later``."""

    def __init__(
        self,
        section: SourcesSection,
        metrics: Metrics,
        later: Callable[[Callable[[], None]], None],
        take: Callable[[OomCapture], None],
    ) -> None:
        """Opens nothing yet. Raises ConfigError for a source that is none."""
        places = places_of(section)
        self._metrics, self._later, self._take = metrics, later, take
        self._room = threading.BoundedSemaphore(MAX_WAITING)
        self._waker, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._ending = False
        self._follower = Follower(places, self._hand_over, say=lambda line: log.warning("%s", line))
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)

    def start(self) -> None:
        """Begin; without a thread this host is watched all the same."""
        try:
            self._thread.start()
        except RuntimeError as error:
            log.error("other hosts are not followed: %s", error)

    def stop(self) -> None:
        """End; what is under way is told."""
        self._ending = True
        with suppress(OSError):
            os.write(self._wake, b".")
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        follower = self._follower
        try:
            follower.wake_by(self._waker, lambda: None)
            follower.open()
            self._tell()
            while not self._ending:
                follower.turn()
                self._tell()
            follower.finish()
        except Exception as error:  # nothing of this may end the daemon
            self._metrics.internal_error()
            log.error("other hosts are not followed any more: %s", error, exc_info=error)
        finally:
            follower.close()

    def _tell(self) -> None:
        follower = self._follower
        self._metrics.following(Following(follower.states(), follower.bytes(), follower.dropped()))

    def _hand_over(self, capture: OomCapture) -> bool:
        if not self._room.acquire(blocking=False):
            return False

        def take() -> None:
            try:
                self._take(capture)
            finally:
                self._room.release()

        self._later(take)
        return True
