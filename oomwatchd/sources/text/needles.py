"""What every report holds, and how to look for it fast."""

from __future__ import annotations

import ctypes
import string
from typing import Final

#: every report holds one of these in a line that can begin it. Each is a pass through the whole file, so they
#: are few; they stand in the lines of all forms that have needles (tests/test_text_source.py holds that)
NEEDLES: Final = (b"oom-kill", b"gfp_mask=0x", b"illed process ", b"mode:0x", b"llocation of length ")

#: the letters of what stands in a line that proves a report, of the kernel's or of another killer's, for text
#: that may be wrapped, indented or marked inside a word
_SPELT: Final = (
    b"oom", b"OOM", b"gfpmask", b"illprocess", b"illedprocess", b"utofmemory", b"modex", b"llocationoflength",
    b"anonrss", b"totalvm", b"sksstate", b"failcnt", b"asaresultof", b"emorycgroup", b"imitreachedof",
    b"tobekilled", b"ernelpanic", b"nohang",
)  # fmt: skip
_NO_LETTERS: Final = bytes(sorted(set(range(256)) - set(string.ascii_letters.encode())))

# bytes.find costs three times as much as libc's memmem, and this is all that is done with most of a file
_memmem: Final = ctypes.CDLL(None).memmem
_memmem.restype = ctypes.c_void_p
_memmem.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)


def _has(data: bytes, needles: tuple[bytes, ...]) -> bool:
    size = len(data)
    return any(_memmem(data, size, needle, len(needle)) is not None for needle in needles)


def has_needle(data: bytes) -> bool:
    """Whether a report may begin in this data."""
    return _has(data.replace(b"\0", b"") if b"\0" in data else data, NEEDLES)


def spells_needle(data: bytes) -> bool:
    """Whether a report may begin in this data, however its lines are broken. Colours stand inside words."""
    return b"\x1b" in data or _has(data.translate(None, _NO_LETTERS), _SPELT)
