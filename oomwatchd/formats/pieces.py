"""Lines that some kernels print a word at a time, each word a record of its own.

``show_free_areas()`` and ``show_node()`` (mm/page_alloc.c) said ``printk(" %ld", ...)`` up to 4.9, which
since 4.9 begins a new record without a sign that it continues a line: ``lowmem_reserve[]:``, `` 0``,
`` 808``; ``Node 0 ``, ``DMA: ``, ``4*4kB ``, ``(U) ``, ``= 24kB``. The beginning of such a line says which
words may follow, so one rule joins both the records and the text of such a kernel.
"""

from __future__ import annotations

from typing import Final

from oomwatchd.words.deferred import deferred

#: no joined line is longer
MAX_JOINED: Final = 4096

_ZONES: Final = "(?:DMA32|DMA|Normal|HighMem|Movable|Device)"
_NODE: Final = r"Node \d{1,4}"
_ORDER: Final = r"\d{1,14}\*\d{1,14}kB|\([A-Z]{1,8}\)"
#: beginning of a line -> what may follow it
_LINES: Final = (
    (deferred(rf"{_NODE} ?$"), deferred(rf"{_ZONES}(?::[ \t]*$| free:\d| per-cpu:)")),
    (
        deferred(r"(?:lowmem_reserve|protections)\[\]:(?: +-?\d{1,14})* ?$"),
        deferred(r"(?: ?-?\d{1,14})+ ?$"),
    ),
    (
        deferred(rf"(?:{_NODE} )?{_ZONES}:(?: +(?:{_ORDER}))* ?$"),
        deferred(rf"(?:(?:{_ORDER}|= \d{{1,14}}kB|=|(?<== )\d{{1,14}}kB) ?)+$"),
    ),
)
#: the first letters of such a beginning; the first letters of what may follow
BEGUN: Final = frozenset({"Node", "lowm", "prot", "DMA:", "DMA3", "Norm", "High", "Mova", "Devi"})
GOES_ON: Final = frozenset(" -0123456789(=DNHM")


def joined(begun: str, more: str) -> str | None:
    """The line joined with these words; None where they do not belong to it."""
    if begun[:4] not in BEGUN or more[:1] not in GOES_ON or len(begun) + len(more) > MAX_JOINED:
        return None
    for line, words in _LINES:
        if line.match(begun) is not None:
            return f"{begun.rstrip(' ')} {more.strip(' ')}" if words.match(more) is not None else None
    return None


def is_begun(text: str) -> bool:
    """Whether this is such a line and more of it may follow."""
    return text[:4] in BEGUN and any(line.match(text) is not None for line, _ in _LINES)
