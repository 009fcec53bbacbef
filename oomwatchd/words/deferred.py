"""A pattern that is compiled when it is first used: most of a program's patterns are not, in most runs."""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast


def deferred(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """``re.compile(pattern, flags)``, which is done when one of its methods or groups is asked for.

    A faulty pattern raises ``re.error`` then and not here; a test compiles all.
    """
    return cast("re.Pattern[AnyStr]", _Deferred(pattern, flags))


class _Deferred:
    """Stands for a pattern; has its attributes as soon as one was asked for."""

    def __init__(self, pattern: str | bytes, flags: int) -> None:
        self.pattern = pattern
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(re.compile(self.pattern, self._flags), name)
        setattr(self, name, found)  # from now on it is found without this function
        return found
