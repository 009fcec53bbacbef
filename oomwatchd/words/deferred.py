"""A pattern that is compiled when it is first used: most of a program's patterns are not, in most runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING


class Deferred:
    """Stands for ``re.compile(pattern, flags)`` where its methods are called."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self.pattern = pattern
        self._flags = flags

    if TYPE_CHECKING:
        match = re.compile("").match
        search = re.compile("").search
        fullmatch = re.compile("").fullmatch
        finditer = re.compile("").finditer
    else:

        def __getattr__(self, name: str) -> object:
            if name not in ("match", "search", "fullmatch", "finditer"):
                raise AttributeError(name)
            compiled = re.compile(self.pattern, self._flags)
            # from now on they are found without this function
            self.match, self.search = compiled.match, compiled.search
            self.fullmatch, self.finditer = compiled.fullmatch, compiled.finditer
            return getattr(self, name)
