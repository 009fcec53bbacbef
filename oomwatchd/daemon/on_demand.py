"""The daemon that is started by a kill and ends when it has told of it (``exit_after_idle_seconds``).

Whoever starts it holds a descriptor that becomes readable with a kill (packaging/ondemand, and
packaging/systemd/examples/oomwatchd-ondemand.socket) and passes it as ``trigger``: what is in it is of kills
that the ring buffer holds too, and is thrown away at the end, or the next start would come at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

#: what the ring buffer cannot hold: before its first record
BEFORE_ALL = -1
_MOST_READS = 4096


class OnDemand:
    """When to end. ``seconds``: how long nothing may have been under way; ``trigger``: passed descriptors."""

    def __init__(self, seconds: float, trigger: Sequence[int], now: float) -> None:
        self.seconds = seconds
        self._trigger = trigger
        self._busy_at = now

    def expired(self, busy: bool, now: float) -> bool:
        """Whether to end; ``busy``: something is under way."""
        if busy:
            self._busy_at = now
        return now - self._busy_at >= self.seconds

    def seconds_left(self, now: float) -> float:
        """Until it may end at the earliest."""
        return max(0.0, self._busy_at + self.seconds - now)

    def drain(self) -> None:
        """Take what the trigger holds. What comes afterwards starts the next one."""
        for descriptor in self._trigger:
            # whoever holds it besides may block in reading it
            blocking = os.get_blocking(descriptor)
            os.set_blocking(descriptor, False)
            try:
                for _ in range(_MOST_READS):
                    if not os.read(descriptor, 65536):
                        break
            except OSError:  # there is no more
                continue
            finally:
                os.set_blocking(descriptor, blocking)
