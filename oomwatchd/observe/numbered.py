"""Whose amounts a sample holds: a number for each name, so that a sample is bytes and no objects."""

from __future__ import annotations

from typing import Any

from oomwatchd.observe.history import Name

#: Names kept.
_MAX_NAMES = 1024
#: What has no number of its own is numbered from here on: cgroups count upward from 1, processes downward.
_FIRST = 1 << 62


class Numbered:
    """Names by their numbers, the newest so many."""

    def __init__(self) -> None:
        self._names: dict[int, Name] = {}
        self._numbers: dict[str, int] = {}
        self._next = _FIRST

    def __contains__(self, number: int) -> bool:
        return number in self._names

    @property
    def names(self) -> dict[int, Name]:
        """A copy."""
        return dict(self._names)

    def put(self, number: int, name: Name) -> None:
        """Remember whose number this is."""
        self._names[number] = name
        _forget_oldest(self._names)

    def number(self, kind: str, name: str) -> int:
        """The number of what has none of its own."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = self._next
            self._next += 1
            _forget_oldest(self._numbers)
        if number not in self._names:
            self.put(number, Name(kind, name))
        return number


def _forget_oldest(known: dict[Any, Any]) -> None:
    if len(known) > _MAX_NAMES:
        del known[next(iter(known))]
