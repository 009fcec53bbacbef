"""What kernels print about running out of memory: one module for each kernel file that prints it.

A *form* is one wording, and says all that is known of it: where it stands in a report, what it means for
cutting reports, how it is read, how it looks where people wrapped it or lost its blanks, real samples.
Lines that describe themselves (``key:NkB`` lists, ``name value`` rows, tables with a header) have one
form for all kernels; prose has one form per wording. No form asks for the kernel's version:
distributions backport.

**A new kernel wording is one entry in ``FORMS`` of its module and its reader beside it**; a module is found
by being here, and nobody else lists forms:

* ``reports.decode`` calls its reader, which writes what the line says into its part (``formats.parts``);
* ``recognise`` finds the form of a line by ``begins`` and ``pattern`` (or ``marks``, where a line begins
  with a name);
* ``reports`` cuts and joins records by ``role``, ``section``, ``opens`` and ``proof``;
* ``sources/text`` mends wrapped, run-together and unspaced copies by ``copies``, and passes over whole
  files by ``needles``.

``tests/test_forms.py`` walks all forms.

Names of processes and cgroups are hostile: every pattern is anchored at the beginning of the record,
and what follows a name is anchored at its end. Other lines of the kernel's begin with words that a user
chooses (``NAME[PID]: segfault at ...``, a firewall's log prefix): a raw record is of a form only if all of
it is, to its end, and names in it keep to their size (``recognise``).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, IntEnum, auto
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from oomwatchd.formats.parts import Parts

Match = re.Match[str]

#: a process name has 15 bytes (TASK_COMM_LEN 16 with its end)
COMM_BYTES = 15
#: with these a copy's line may begin, and a task's name hardly
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

    ``NEIGHBOUR`` is no part of a report. ``BEFORE`` stands before one and tells of it. ``REFUSED`` says
    that what was asked for by hand came to nothing. ``HEADER`` begins one. ``DUMP`` heads a stack dump, of
    anybody: it begins a report only where the OOM killer stands in the call trace. ``BODY`` goes on with one.
    ``VICTIM`` names who is chosen. ``KILL`` says that a process is killed, ``OUTCOME`` ends a report without
    that. ``EXTRA`` stands beside the kill lines. ``AFTER`` tells of a process that was killed.
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


#: lines that must not be lost of a report, however much of it has to go: who was killed, and why
ESSENTIAL = frozenset({Role.HEADER, Role.VICTIM, Role.KILL, Role.OUTCOME, Role.EXTRA})


class Proof(IntEnum):
    """What one line proves without any other of its report. ``IN_TEXT``: that a report was here, if a text
    has nothing more of it; among raw records, which are all there, it needs the others. ``ALONE``: that the
    kernel printed it, so that a report is here."""

    NONE = 0
    IN_TEXT = 1
    ALONE = 2


class Unspaced(msgspec.Struct, frozen=True, gc=False):
    """A copy of a line that lost all its blanks: a pattern of its beginning, and substitutions (``re.sub``),
    in their order, that put the blanks back."""

    start: str
    blanks: tuple[tuple[str, str], ...]


class Copies(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a line looks in what people paste: all that is needed to put it together again. Patterns as text,
    for whoever mends copies compiles those of all forms together, in the order of ``recognise.ALL``.

    ``start``    how such a line begins (leading blanks removed): as little of it as tells it from all other
                 text, for the line may be broken behind any word; an alternative may end with ``$``.
    ``end``      what stands at its end; what is held is complete when it comes to it. "": complete after
                 any word; None: nobody can say by its text (a name ends it, or free words).
    ``words``    the shape of each of its words, by which a piece of it is told from other text; None: any.
    ``closed``   nothing follows ``end``; False where free words or a name may.
    ``free``     most of it is one long word, a path, or prose: it goes on until ``end``, whatever comes.
    ``so_far``   all of it as far as it may have come, where only that tells what goes on with it.
    ``mends``    a blank inside a word (``28k B``) is closed again where ``words`` knows the joined word only.
    ``inner``    how it begins inside a longer text of several lines run together: only what no word of
                 another line looks like; None: it is not looked for.
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
                 section MEMCG is the cgroup at its limit. Groups ``loose`` and ``cut`` are what is taken in
                 copies only: no kernel prints it so.
    ``open_ended`` free words or a path stand at its end, so that all that begins alike is such a line. Among
                 raw records it counts only beside lines that nobody else can print.
    ``begins``   the first four characters of such a line (of the text without leading blanks), or
                 () where a line begins with a name or a number.
    ``marks``    words one of which stands in such a line, where it begins with a name.
    ``in_place`` only its place tells such a line (a row of a table): it is looked for in its section alone.
    ``opens``    a block may begin with such a line: the head of the report was lost.
    ``proof``    what such a line proves by itself; a block none of whose lines proves a report is dropped.
    ``failure``  a header of an allocation that failed, not of the OOM killer.
    ``once``     a report has it once: a second one is another report's.
    ``once_by``  groups of the pattern: a report has one such line of the same values.
    ``repeats_comm`` its ``comm`` is that of the header.
    ``needles``  words one of which stands in every such line, for a search through whole files; of each
                 report at least one line has needles. () for lines that are not looked for.
    ``copies``   how it looks in what people paste; None: such a line is not put together again.
    ``reads``    takes the match's figures into the parts of the report. ValueError or OverflowError where
                 they do not fit: the line is kept as undecoded.
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
    return re.compile(pattern.replace(r"\d+", r"\d{1,14}(?!\d)"), re.DOTALL | flags)


_HEX = re.compile(r"\\x[0-9a-f]{2}")


def printed_bytes(text: str) -> int:
    """Bytes that the kernel's string had: ``\\xNN`` stands for one."""
    return len(_HEX.sub("?", text).encode("utf-8", "surrogatepass"))
