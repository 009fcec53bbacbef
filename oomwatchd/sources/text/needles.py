"""What every report holds, and how to look for it fast."""

from __future__ import annotations

import ctypes
from typing import Final

#: every report holds one of these in a line that can begin it. Each is a pass through the whole file, so they
#: are few; they stand in the lines of all forms that have needles (tests/test_text_source.py holds that)
NEEDLES: Final = (b"oom-kill", b"gfp_mask=0x", b"illed process ", b"page allocation ")

# bytes.find costs three times as much as libc's memmem, and this is all that is done with most of a file
_memmem: Final = ctypes.CDLL(None).memmem
_memmem.restype = ctypes.c_void_p
_memmem.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)


def has_needle(data: bytes) -> bool:
    """Whether a report may begin in this data."""
    size = len(data)
    return any(_memmem(data, size, needle, len(needle)) is not None for needle in NEEDLES)
