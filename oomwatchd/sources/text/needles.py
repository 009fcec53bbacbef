"""Words that every report holds, and how to search for them fast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, cast

from oomwatchd.words.deferred import deferred

#: every report holds one of these in a line that can begin it. Each costs a pass through the whole file, so
#: there are few; all forms with needles are covered (tests/test_text_source.py checks that)
NEEDLES: Final = (b"oom-kill", b"gfp_mask=0x", b"illed process ", b"mode:0x", b"llocation of length ")

#: the letters of words that prove a report, of the kernel or of another killer, for text that may be wrapped,
#: indented or marked inside a word
_SPELT: Final = (
    b"oom", b"OOM", b"gfpmask", b"illprocess", b"illedprocess", b"utofmemory", b"modex", b"llocationoflength",
    b"anonrss", b"totalvm", b"sksstate", b"failcnt", b"asaresultof", b"emorycgroup", b"imitreachedof",
    b"tobekilled", b"ernelpanic", b"nohang",
    b"ncodingbase",  # a mail in base64 shows no word of its text
)  # fmt: skip
#: a row of the task table, some of which prove a report
_ROW: Final = deferred(rb"\[ {0,6}\d{1,10}\](?: {1,12}-?\d{1,14}){6} ")
_NO_LETTERS: Final = bytes(code for code in range(256) if not (code < 128 and chr(code).isalpha()))

#: in less than this a needle is found before ctypes is loaded
_LITTLE: Final = 1 << 16
_Search = Callable[[bytes, int, bytes, int], int | None]


@functools.cache
def _memmem() -> _Search:
    """libc's, three times as fast as bytes.find; most of a file is only searched."""
    import ctypes

    memmem = ctypes.CDLL(None).memmem
    memmem.restype = ctypes.c_void_p
    memmem.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    return cast(_Search, memmem)


def _has(data: bytes, needles: tuple[bytes, ...]) -> bool:
    size = len(data)
    if size < _LITTLE:
        return any(needle in data for needle in needles)
    find = _memmem()
    return any(find(data, size, needle, len(needle)) is not None for needle in needles)


def has_needle(data: bytes) -> bool:
    """Whether a report may begin in this data."""
    return _has(data.replace(b"\0", b"") if b"\0" in data else data, NEEDLES)


def spells_needle(data: bytes) -> bool:
    """Whether a report may begin in this data, however its lines are broken or coloured."""
    return b"\x1b" in data or _has(data.translate(None, _NO_LETTERS), _SPELT) or _ROW.search(data) is not None
