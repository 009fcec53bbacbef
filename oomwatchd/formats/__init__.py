"""What kernels print about running out of memory: one module for each kernel file that prints it.

A *form* describes one wording completely: where it stands in a report, what it means for cutting reports,
how it is read, how wrapped or unspaced copies of it look, and real samples.
Lines that describe themselves (``key:NkB`` lists, ``name value`` rows, tables with a header) have one
form for all kernels; prose has one form per wording. No form asks for the kernel's version:
distributions backport.

**A new kernel wording is one entry in ``FORMS`` of its module and its reader beside it.** Every module of
this package is found by itself; forms are listed nowhere else:

* ``reports.decode`` calls its reader, which writes what the line says into its part (``formats.parts``);
* ``recognise`` finds the form of a line by ``begins`` and ``pattern`` (or ``marks``, where a line begins
  with a name);
* ``reports`` cuts and joins records by ``role``, ``section``, ``opens`` and ``proof``;
* ``sources/text`` mends wrapped, run-together and unspaced copies by ``copies``, and passes over whole
  files by ``needles``.

``tests/test_forms.py`` walks all forms.

Names of processes and cgroups are hostile: every pattern is anchored at the beginning of the record,
and what follows a name is anchored at its end. Some other kernel lines begin with words that a user chooses
(``NAME[PID]: segfault at ...``, a firewall's log prefix). So a raw record has a form only if the form
matches all of it and no name in it is too long (``recognise``).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, IntEnum, auto
from typing import TYPE_CHECKING

import msgspec

from oomwatchd.words.deferred import deferred

if TYPE_CHECKING:
    from oomwatchd.formats.parts import Parts

Match = re.Match[str]

#: a process name has 15 bytes (TASK_COMM_LEN 16 with its end)
COMM_BYTES = 15
#: quotation marks: a copied line may begin with one, a task's name hardly ever does
QUOTES = "\"'`\u2018\u201c\u201d"


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


class Role(Enum):
    """What a line means for cutting reports.

    ``NEIGHBOUR`` is no part of a report. ``BEFORE`` stands before a report and announces it. ``REFUSED``: an
    OOM kill was requested by hand (sysrq) and refused. ``HEADER`` begins a report. ``DUMP`` is the head of a
    stack dump, which may be anybody's: it begins a report only if the OOM killer is in the call trace.
    ``BODY`` continues a report. ``VICTIM`` names the chosen process. ``KILL`` says that a process is killed;
    ``OUTCOME`` ends a report without a kill. ``EXTRA`` stands beside the kill lines. ``AFTER`` is about a
    process that was killed before.
    """

    NEIGHBOUR = auto()
    BEFORE = auto()
    REFUSED = auto()
    HEADER = auto()
    DUMP = auto()
    BODY = auto()
    VICTIM = auto()
    KILL = auto()
    OUTCOME = auto()
    EXTRA = auto()
    AFTER = auto()


#: lines that say who was killed and why: they are kept however much of a report must be dropped
ESSENTIAL = frozenset({Role.HEADER, Role.VICTIM, Role.KILL, Role.OUTCOME, Role.EXTRA})


class Proof(IntEnum):
    """What one line proves without the other lines of its report.

    ``IN_TEXT``: in a text, where the rest may be lost, it proves a report; among raw records, which are
    complete, it needs the other lines. ``ALONE``: only the kernel prints it, so it always proves a report.
    """

    NONE = 0
    IN_TEXT = 1
    ALONE = 2


class Unspaced(msgspec.Struct, frozen=True, gc=False):
    """A copied line that lost all its blanks: a pattern for its beginning, and the substitutions (``re.sub``,
    in this order) that put the blanks back."""

    start: str
    blanks: tuple[tuple[str, str], ...]


class Copies(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a line looks in what people paste: all that is needed to put it together again. Patterns are text,
    because those of all forms are compiled together, in the order of ``recognise.ALL``.

    ``start``    how the line begins (leading blanks removed). The pattern is as short as still tells the line
                 from other text, because the line may be broken after any word; an alternative may end
                 with ``$``.
    ``end``      what stands at its end: the line is complete once this was read. "": it is complete after
                 any word; None: its text cannot tell (it ends with a name or free words).
    ``words``    the shape of its words, which tells a piece of it from other text; None: any.
    ``closed``   nothing follows ``end``; False where free words or a name may.
    ``free``     most of it is one long word, a path or prose: whatever comes belongs to it, up to ``end``.
    ``so_far``   matches every part of the line that may have been read so far; needed where only that tells
                 what may continue it.
    ``mends``    a blank inside a word (``28k B``) is removed where ``words`` matches the joined word only.
    ``inner``    how it begins inside several lines run together: only what no word of another line looks
                 like; None: it is not looked for.
    ``unspaced`` how it looks without its blanks; None: they cannot be put back, or it has none.
    """

    start: str
    end: str | None = None
    words: str | None = None
    closed: bool = True
    free: bool = False
    so_far: str | None = None
    mends: bool = False
    inner: str | None = None
    unspaced: Unspaced | None = None


Reader = Callable[["Parts", Match], None]


def marks_a_place(parts: Parts, m: Match) -> None:
    """Read nothing: the line only says which part of the report follows, or is no part of it."""


class Form(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """One wording.

    ``section``  where it stands in a report.
    ``role``     what it means for cutting reports.
    ``pattern``  matched at the beginning of the text (leading blanks removed). Groups that mean the same
                 have the same name everywhere: ``comm`` and ``pid`` are a process, ``path`` of a line of
                 section MEMCG is the cgroup at its limit. Groups ``loose`` and ``cut`` match only in copies:
                 no kernel prints them.
    ``open_ended`` the line ends with free words or a path, so it matches any line with the same beginning.
                 Among raw records it counts only beside lines that only the kernel can print.
    ``begins``   the first four characters of such a line (of the text without leading blanks), or
                 () where a line begins with a name or a number.
    ``marks``    for a line that begins with a name: such a line holds one of these words.
    ``in_place`` the line is known only by its place (a row of a table), so it is looked for only in its
                 section.
    ``opens``    a block may begin with such a line: the head of the report was lost.
    ``proof``    what such a line proves by itself; a block is dropped if none of its lines proves a report.
    ``failure``  a header of an allocation that failed, not of the OOM killer.
    ``once``     a report has at most one such line: a second one belongs to another report.
    ``once_by``  groups of the pattern: a report has at most one such line with the same values in them.
    ``repeats_comm`` its ``comm`` is that of the header.
    ``needles``  for a search through whole files: every such line holds one of these words. At least one line
                 of each report has needles. () for lines that are not searched for.
    ``copies``   how it looks in what people paste; None: such a line is not put together again.
    ``reads``    writes the match's figures into the parts of the report. It raises ValueError or
                 OverflowError if they do not fit: the line is kept as undecoded.
    ``samples``  real lines.
    ``source``   kernel file and function, and the versions the wording was read in.
    """

    name: str
    section: Section
    role: Role
    pattern: re.Pattern[str]
    begins: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    in_place: bool = False
    open_ended: bool = False
    opens: bool = False
    proof: Proof = Proof.NONE
    failure: bool = False
    once: bool = False
    once_by: tuple[str, ...] = ()
    repeats_comm: bool = False
    needles: tuple[str, ...] = ()
    copies: Copies | None
    reads: Reader
    samples: tuple[str, ...]
    source: str


def rx(pattern: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    r"""A pattern for a line of the kernel's.

    ``.`` also takes the newlines that hostile names hold. ``\d+`` takes 14 digits at most: no machine
    has more pages or kilobytes, and a figure in bytes still fits 64 bits when pages are 64 KiB. A line
    with longer figures is not the kernel's; it stays undecoded.
    """
    return deferred(pattern.replace(r"\d+", r"\d{1,14}(?!\d)"), re.DOTALL | flags)


_HEX = deferred(r"\\x[0-9a-f]{2}")


def printed_bytes(text: str) -> int:
    """Bytes that the kernel's string had: ``\\xNN`` stands for one."""
    return len(_HEX.sub("?", text).encode("utf-8", "surrogatepass"))
