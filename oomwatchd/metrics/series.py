"""A family of counters by names that others choose: bounded, and each series begins with a 0 that is scraped.

When there is no room for a new series, the one that grew least recently is dropped and its count is added to
``other``, so that the sum of the family stays right. A new series shows 0 at the first scrape and for a
minute after it, so that ``increase()`` of a second server, too, sees its first kill.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping

#: characters that are kept of a series' names
LABEL_CHARACTERS = 128
#: after the first scrape; as long as scrapes are commonly apart
ZERO_SECONDS = 60.0

Labels = tuple[str, ...]


class Series:
    """Counts by label values; ``fixed`` ones are always there, the first of them for what has no room."""

    def __init__(
        self, name: str, most: int, fixed: tuple[Labels, ...], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._most = most
        self._fixed = fixed
        self._clock = clock
        #: the least recently grown first
        self._counts: dict[Labels, float] = {}
        self._held = dict.fromkeys(fixed, 0.0)
        #: when a new series was first shown; None: not yet
        self._new: dict[Labels, float | None] = {}
        self._gone: list[Labels] = []

    def add(self, labels: Labels, number: float) -> None:
        """Count."""
        if labels in self._held:
            self._held[labels] += number
            return
        if labels not in self._counts:
            self._new[labels] = None
        self._counts[labels] = self._counts.pop(labels, 0.0) + number
        if len(self._counts) > self._most:
            oldest = next(iter(self._counts))
            self._held[self._fixed[0]] += self._counts.pop(oldest)
            self._new.pop(oldest, None)
            self._gone.append(oldest)

    def counts(self) -> dict[Labels, float]:
        """What was counted, by label values."""
        return {**self._held, **self._counts}

    def seen(self) -> None:
        """Nobody looks at what is new twice: it need not begin at 0."""
        self._new.clear()

    def shown(self) -> Iterator[tuple[Labels, float]]:
        """Label values and counts for a scrape."""
        yield from self._held.items()
        now = self._clock()
        for labels, number in self._counts.items():
            if labels in self._new:
                since = self._new[labels]
                if since is None:
                    self._new[labels] = now
                if since is None or now - since < ZERO_SECONDS:
                    yield labels, 0.0
                    continue
                del self._new[labels]
            yield labels, number

    def saved(self) -> dict[str, float]:
        """What :meth:`load` takes up, by names of the store; NaN for what is to be forgotten there."""
        gone = {self._saved_as(labels): math.nan for labels in self._gone if labels not in self._counts}
        self._gone.clear()
        kept = {**self._held, **self._counts}
        return gone | {self._saved_as(labels): number for labels, number in kept.items() if number}

    def load(self, counters: Mapping[str, float]) -> None:
        """Take up what an earlier process saved; it was seen, and does not begin at 0."""
        for name, number in counters.items():
            kind, blank, rest = name.partition(" ")
            if blank and kind == self._name:
                labels = tuple(rest.split("\t"))
                self.add(labels, number)
                self._new.pop(labels, None)

    def _saved_as(self, labels: Labels) -> str:
        return f"{self._name} " + "\t".join(labels)
