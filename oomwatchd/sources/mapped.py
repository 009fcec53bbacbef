"""Release the memory of mapped journal files.

libsystemd maps journal files in windows of 8 MiB and keeps them mapped. The daemon locks each of its pages
when it is first used, in later mappings too (mlockall(2), MCL_FUTURE with MCL_ONFAULT). After a journal of
72 MiB was read, 58 MiB stayed locked, in a unit with MemoryMax=96M. So the pages are unlocked and dropped
after each reading. They stay mapped and are read again from the page cache.

Sources: munlock(2), madvise(2), proc_pid_maps(5).
"""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from pathlib import Path

_MADV_DONTNEED = 4
_MAPPED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) r[^/\n]*/[^\n]*\.journal~?(?: \(deleted\))?$", re.MULTILINE)


def release_journals(maps: Path = Path("/proc/self/maps")) -> int:
    """Unlock all mapped journal files of this process and drop their pages; returns how many bytes are
    mapped. Never raises: where the C library lacks these calls nothing is locked either."""
    total = 0
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for found in _MAPPED.finditer(maps.read_bytes()):
            start, end = int(found[1], 16), int(found[2], 16)
            address, length = ctypes.c_void_p(start), ctypes.c_size_t(end - start)
            library.munlock(address, length)
            library.madvise(address, length, _MADV_DONTNEED)
            total += end - start
    return total
