"""What kernels print about running out of memory: one module for each kernel file that prints it.

A *form* is one wording: where it stands in a report, how it begins, a pattern, and real samples.
Lines that describe themselves (``key:NkB`` lists, ``name value`` rows, tables with a header) have one
form for all kernels; prose has one form per wording. No form asks for the kernel's version:
distributions backport.

Names of processes and cgroups are hostile: every pattern is anchored at the beginning of the record,
and what follows a name is anchored at its end.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from enum import IntEnum

import msgspec


class Section(IntEnum):
    """The parts of a report in the order the kernel prints them (dump_header(), oom_kill_process())."""

    BEFORE = 0
    HEADER = 1
    CPUSET = 2
    STACK = 3
    MEMCG = 4
    MEM_INFO = 5
    SLAB = 6
    TASKS = 7
    SUMMARY = 8
    INTENT = 9
    KILL = 10
    AFTER = 11


class Form(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """One wording.

    ``begins``   the first four characters of such a line (of the text without leading blanks), or
                 () where a line begins with a name or a number.
    ``pattern``  matched at the beginning of the text (leading blanks removed).
    ``opens``    such a line alone proves that a report is here: a block may begin with it.
    ``samples``  real lines.
    ``source``   kernel file and function, and the versions the wording was read in.
    """

    name: str
    section: Section
    pattern: re.Pattern[str]
    begins: tuple[str, ...] = ()
    opens: bool = False
    samples: tuple[str, ...]
    source: str


def rx(pattern: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    r"""A pattern for a line of the kernel's.

    ``.`` also takes the newlines that hostile names hold. ``\d+`` takes 14 digits at most: no machine
    has more pages or kilobytes, and a figure in bytes still fits 64 bits when pages are 64 KiB. A line
    with longer figures is not the kernel's; it stays undecoded.
    """
    return re.compile(pattern.replace(r"\d+", r"\d{1,14}(?!\d)"), re.DOTALL | flags)
