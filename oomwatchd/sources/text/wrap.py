"""Which physical lines are one line of the kernel, and how they fit together.

People paste logs through mail programs, terminals and web forms, which break lines at a column, even inside
a number, break them between words, or run them together. What a kernel line looks like is known, so a break
can be mended: every kind of line has a *start*, most have an *end*, and the words between them have a shape.
A physical line continues the one before if that one has not reached its end and this one is not a start. In
doubt, the width at which the text was broken decides. Nothing here knows a kernel version.

The forms describe how lines look (``formats.Copies``).

Longer than others because every way in which lines are broken has its few lines here.
"""

from __future__ import annotations

import itertools
import re
from functools import cache
from typing import Final, NamedTuple

from oomwatchd.formats import COMM_BYTES, Form, Role, show_mem
from oomwatchd.formats.recognise import ALL
from oomwatchd.words.deferred import deferred

#: a line is mended from at most this many pieces and characters, so that hostile text costs linear time
MAX_PIECES: Final = 64
MAX_JOINED: Final = 16 * 1024
#: the end of a line is searched for only in this many last characters
_TAIL: Final = 400


class LineKind(NamedTuple):
    """One kind of kernel line, as described by ``formats.Copies``: that of a form, or another kind of kernel
    line that occurs in a report. ``word`` is the shape of its words."""

    name: str
    start: str
    end: str | None = None
    word: str | None = None
    closed: bool = True
    free: bool = False
    so_far: str | None = None
    mends: bool = False


KINDS: Final = (
    *(
        LineKind(
            form.name,
            form.copies.start,
            form.copies.end,
            form.copies.words,
            form.copies.closed,
            form.copies.free,
            form.copies.so_far,
            form.copies.mends,
        )
        for form in ALL
        if form.copies is not None
    ),
    LineKind("other_panic", r"Kernel panic - not syncing|---\[ end ", None, closed=False),
)

_BY_NAME: Final = {kind.name: kind for kind in KINDS}
_START: Final = deferred("|".join(f"(?P<{kind.name}>{kind.start})" for kind in KINDS))
_END: Final = {kind.name: deferred(f"(?:{kind.end})[ \t]*$") for kind in KINDS if kind.end is not None}
_SO_FAR: Final = {kind.name: deferred(kind.so_far) for kind in KINDS if kind.so_far is not None}
_WORD: Final = {kind.name: deferred(kind.word) for kind in KINDS if kind.word is not None}
_ROW_HEAD: Final = deferred(r"\[ *\d+\]((?: +-?\d+)+)(?: +(\S.*)?)?$")
#: marks that people write where they left something out
_ELISION: Final = deferred(
    r"\s*(?:\[?\(?(?:\.{2,}|…|snip|trim|cut|skipped)|<(?:snip|trim|cut|skip|\.\.)|-{3,}\s*8<|={6,}|-{6,}|#(?:\s|$)|`{3}|~{3}"
    r"|</(?:pre|code)>)",
    re.I,
)
_ELIDED_END: Final = deferred(r"(?:\.\.\.|…|\[\.\.\.\]|>)\s*$")

_FEW_WORDS: Final = 4

#: lines that begin with their node's name
_OF_A_NODE: Final = frozenset({"zone", "buddy", "pcp_zone", "hugepages"})
#: lines that name a task after its pid
_NAMES_TASK: Final = frozenset({"killed", "reaped", "reap_failed"})
_PID_LAST: Final = deferred(r"process \d{1,10},?[ \t]*$")
#: no line begins with these
_NEVER_FIRST: Final = ",;:)"

# Where a kernel line begins inside a longer text. Only what no word of another kernel line looks like.
_INNER: Final = deferred(
    # most places of a text end here
    r"(?:(?<=[ \t\"'`>=:)d\u2018\u201c])|(?<=[0-9B])(?=[MOo]))(?:"
    # after the quote of a kill line, or the field that holds it
    r"(?<=[ \t\"'`>=:\u2018\u201c])"
    r"(?:Memory cgroup out of memory|Out of [Mm]emory(?: \([a-z_]+\))?): (?:[Kk]ill|OOM victim)"
    # lines joined without even a blank
    r"|(?:(?<=\))|(?<=child))(?:(?:Memory cgroup out|Out) of memory: [Kk]ill(?:ed)?|Killed) process \d+ \("
    r"|(?<=[0-9B])(?:(?:Memory cgroup out|Out) of memory: [Kk]ill(?:ed)? process \d"
    r"|oom-kill:constraint=C|oom_reaper: reaped process \d)"
    r"|(?<=[\"'`>])[^\s\"'`>]{1,15} invoked oom-killer: "
    # another CPU's line with its level, inside a line
    r"|(?<=[ \t])<\d>(?=\S{1,15} invoked oom-killer: )"
    r"|(?<=[ \t])(?:"
    + "|".join(form.copies.inner for form in ALL if form.copies is not None and form.copies.inner is not None)
    + "))"
)

_INVOKED: Final = " invoked oom-killer: "
#: characters of a prompt or a chat's speaker, rare in a name
_ODD: Final = frozenset("<>[]{}$#|=\"'`")

# "Memory cgroup stats for PATH:" and what follows it, or only pairs
_PAIRS: Final = deferred(
    r"(Memory cgroup stats for [^:]{1,4096}: )?(?:[a-z][a-z0-9_]{1,40} \d{1,20}(?: |$)){2,}"
)
_PAIR: Final = deferred(r"[a-z][a-z0-9_]{1,40} \d{1,20}(?: |$)")
_PAIR_ACROSS: Final = deferred(r"[a-z][a-z0-9_]{1,40}\n\d{1,20}(?: [a-z][a-z0-9_]{1,40} |$)")
# the name of a statistic, with its value still to come
_NAME: Final = deferred(r"(?:^|\n)[a-z][a-z_]{1,40}$")
_ESCAPE_ACROSS: Final = deferred(r"[^#]*#(?:\n0[0-3][0-7]|0\n[0-3][0-7]|0[0-3]\n[0-7])")
_LEVEL: Final = deferred(r"^<\d>")
_OWN_NODE: Final = deferred(r"(?:^| )Node \d+,? $")

#: a stamp, with a syslog header before it; a line with several stamps was several lines
_STAMPED: Final = deferred(
    r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S{1,255} kernel: )?"
    r"(?:<\d{1,3}>)?\[ *\d{1,12}\.\d{6}\](?=[ \[])"
)


def stamps_in(line: str) -> int:
    """How many stamps a line has."""
    return len(_STAMPED.findall(line))


def split_stamps(line: str) -> list[str]:
    """Split a line before each of its stamps except the first."""
    cuts = [match.start() for match in _STAMPED.finditer(line)][1:]
    return [line[a:b].rstrip(" \t") for a, b in itertools.pairwise((0, *cuts, len(line)))]


# a line of journalctl or syslog, whose tag is the kernel's
_HEADED: Final = deferred(r"[A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d (\S{1,255} )kernel: ")
#: signs of quotation, blanks
_BEFORE: Final = " \t>|"
# line ends that were written out, with a stamp behind
_WRITTEN: Final = deferred(r"\\n(?=(?:<\d{1,3}>)?\[ *\d{1,12}\.\d{6}\] )|\\n$")


def split_headed(line: str) -> list[str]:
    """Split a kernel line before each further syslog header of the same host."""
    first = _HEADED.match(line.lstrip(_BEFORE))
    if first is None:
        return [line]
    cuts = [match.start() for match in _HEADED.finditer(line) if match[1] == first[1]][1:]
    return [line[a:b].rstrip(" \t") for a, b in itertools.pairwise((0, *cuts, len(line)))]


def split_written(line: str) -> list[str]:
    """Split a stamped line at line ends that are written out (``\\n``)."""
    if _STAMPED.match(line.lstrip(_BEFORE)) is None:
        return [line]
    return [part for part in _WRITTEN.split(line) if part.strip()]


def kind_of(text: str) -> LineKind | None:
    """The kind of line that begins with this text; None for text of no kind."""
    match = _START.match(text.lstrip(" \t")[:200].rstrip(" \t"))
    return None if match is None or match.lastgroup is None else _BY_NAME[match.lastgroup]


def _is_closed(form: Form) -> bool:
    """Whether a full match is certainly the whole line. A piece of a totals line matches too, so it is
    not."""
    if not form.begins or form.open_ended or form.role is Role.NEIGHBOUR or form is show_mem.TOTALS:
        return False
    longer = (form.pattern.fullmatch(f"{sample} x") for sample in form.samples)
    return not any(match is not None and not _is_loose(match) for match in longer)


_LOOSE: Final = frozenset({"loose", "cut"})


def _is_loose(match: re.Match[str]) -> bool:
    """Whether the match took in text that only copies have."""
    groups = match.groupdict()
    return bool(groups.get("loose") or groups.get("cut"))


_BEGINS: Final = frozenset(beginning for form in ALL for beginning in form.begins)


@cache  # of each beginning that forms have
def _closed(beginning: str) -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    """The closed forms of lines that begin so, each with its groups that match only in copies."""
    return tuple(
        (form.pattern, tuple(_LOOSE & form.pattern.groupindex.keys()))
        for form in ALL
        if beginning in form.begins and _is_closed(form)
    )


#: lines of a stack dump, registers, statistics of a cgroup, counts of pages
_CLOSED_ROW: Final = (
    r" (?:\[<[0-9a-f]{8,16}>\] )?(?:\? )?[\w.$]{1,128}\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}(?: \[\w{1,56}\])?"
    r"| </?[A-Z]{3,8}>|Call Trace:|(?: [0-9a-f]{8,16}){1,8}|[a-z][a-z0-9_]{1,40} \d{1,19}"
    r"|R[A-Z0-9]{2}: [0-9a-f]{16}(?: R[A-Z0-9]{2}: [0-9a-f]{16}){2}|RS?[PI]P: [0-9a-f]{2,4}:0x[0-9a-f]{1,16}"
    r"|\d{1,14} (?:total )?(?:pagecache )?pages?(?: [A-Za-z/ ]{1,32})?"
)
_CLOSED_ROW_ALONE: Final = deferred(_CLOSED_ROW)


def is_whole(text: str) -> bool:
    """Whether a text without a prefix is certainly one whole kernel line: nothing continues it, and nothing
    in it has to be split or mended. Rows of a task table are not covered."""
    beginning = text[:4]
    for pattern, loose in _closed(beginning) if beginning in _BEGINS else ():
        match = pattern.fullmatch(text)
        if match is not None:
            return text[-1] not in " \t" and not any(map(match.__getitem__, loose))
    return _CLOSED_ROW_ALONE.fullmatch(text) is not None


#: a row of a task table with a name of one word, by the number of columns before the name
_ROW: Final = rf"\[ *\d{{{{1,10}}}}\](?: +-?\d{{{{1,14}}}}){{{{{{}}}}}} +\S{{{{1,{COMM_BYTES}}}}}"
_ANY_COLUMNS: Final = "6,9"
_FIRST: Final = "|".join(map(re.escape, sorted(_BEGINS)))
_WHOLE: Final = deferred(
    rf"^(?:({_ROW.format(_ANY_COLUMNS)}|(?!{_FIRST})(?:{_CLOSED_ROW}))|[^\n]*)$", re.MULTILINE
)


def whole_lines(text: str) -> list[str]:
    """Each line of a text, if :func:`is_whole` or ``whole_row(None)`` knows it at a quick look; else ""."""
    return _WHOLE.findall(text)


@cache
def whole_row(columns: int | None) -> re.Pattern[str]:
    """The pattern of a task table's row with a name of one word; ``columns``: columns before the name."""
    return re.compile(_ROW.format(_ANY_COLUMNS if columns is None else columns))


@cache
def whole_rows(columns: int) -> re.Pattern[str]:
    """The pattern of lines joined with newlines, all of whose rows are such rows."""
    return re.compile(rf"(?:(?:{_ROW.format(columns)}|[^\[\n][^\n]*)(?:\n|\Z))*+")


def split_inner(text: str) -> list[str]:
    """The lines that were run together in a text; one element if there is nothing to split."""
    if len(text) < 40:
        return [text]
    cuts = [0]
    pairs = _PAIRS.match(text)
    if pairs is not None:
        # statistics of a memory cgroup, one "name value" a line
        cuts = [0] if pairs[1] is None else [0, pairs.end(1)]
        cuts += [match.end() for match in _PAIR.finditer(text, pairs.end(1) if pairs[1] else 0, pairs.end())]
        cuts = [cut for cut in cuts if cut < len(text)]
    for match in _INNER.finditer(text):
        before = text[cuts[-1] : match.start()]
        if before == text[: match.start()] and match[0].endswith(_INVOKED):
            # "Web Content", "CPU 0/KVM": a name of two words
            name = text[: match.end() - len(_INVOKED)].strip(" \t")
            if len(name) <= COMM_BYTES and before[-1:] in (" ", "\t") and _ODD.isdisjoint(before):
                continue
        if match.start() - cuts[-1] > 3 and before.strip() and not _OWN_NODE.search(before[-12:]):
            cuts.append(match.start())
    if len(cuts) == 1:
        return [text]
    cuts.append(len(text))
    return [_LEVEL.sub("", text[a:b]).rstrip(" \t") for a, b in itertools.pairwise(cuts)]


class Widths(NamedTuple):
    """The columns at which a text was broken: ``soft`` between words, ``hard`` anywhere; None: not broken."""

    soft: int | None = None
    hard: int | None = None


class Piece(NamedTuple):
    """The line so far: its text, its kind, the width of its last physical line (without quote signs and
    trailing blanks), its length so far, and the number of its pieces; ``foreign``: its prefix says that a
    program wrote it."""

    text: str
    kind: LineKind | None
    prefixed: bool
    width: int
    length: int
    pieces: int
    columns: int | None
    foreign: bool = False


def _row_complete(text: str, columns: int | None) -> bool:
    match = _ROW_HEAD.match(text.strip())
    if match is None:
        return True
    numbers = len(match[1].split())
    if columns is not None:
        # a name may be a number
        return numbers > columns or (numbers == columns and match[2] is not None)
    return numbers >= 6 and match[2] is not None


def complete(piece: Piece) -> bool:
    """Whether the line has reached the end of its kind; lines of no kind are always whole."""
    kind = piece.kind
    if kind is None:
        return True
    if _ELIDED_END.search(piece.text[-8:]):
        return True
    if kind.name == "tasks_row":
        return _row_complete(piece.text, piece.columns)
    end = _END.get(kind.name)
    return end is None or end.search(piece.text[-_TAIL:]) is not None


def _full(piece: Piece, first: str, widths: Widths) -> bool:
    """Whether the break after this line can come from a width: the next word would not have fitted."""
    if widths.hard is not None and piece.length % widths.hard in (0, widths.hard - 1, widths.hard - 2):
        return piece.length > 0
    return (
        widths.soft is not None and piece.width + 1 + len(first) > widths.soft and piece.width <= widths.soft
    )


def _word_of(kind: LineKind, word: str) -> bool:
    pattern = _WORD.get(kind.name)
    return pattern is not None and pattern.fullmatch(word) is not None


def _first_word(text: str) -> str:
    return text.replace("\t", " ").lstrip(" ").partition(" ")[0]


def _last_word(text: str) -> str:
    return text.replace("\t", " ").rstrip(" ").rpartition(" ")[2]


def _escape_across(before: str, after: str) -> bool:
    """Whether the break divides a syslog's ``#012``."""
    return "#" in before[-3:] and _ESCAPE_ACROSS.match(f"{before[-3:]}\n{after[:3]}") is not None


def _begins_across(before: str, after: str) -> bool:
    """Whether a line's start lies across the break: "Out of memory: Killed" before "process 1"."""
    before = before.strip(" \t")
    if len(before) > 100:
        return False
    for between in (" ", ""):
        match = _START.match(before + between + after[:100])
        if match is None or (match.lastgroup == "memcg_stat" and not after.isdigit()):
            continue
        if match.end() > len(before) + len(between):
            return True
    return False


def _parts_across(before: str, after: str) -> bool:
    """The same for run-together text: whether a line that begins near the end of ``before`` continues in
    ``after``."""
    if _PAIR_ACROSS.match(f"{before[-50:].strip()}\n{after[:100].lstrip()}"):
        return True
    tail = before[-48:].rstrip(" \t") + " "
    for match in _INNER.finditer(tail + after[:100].lstrip(" \t")):
        if match.start() >= len(tail):
            return False
        if match.end() > len(tail):
            return True
    return False


def goes_on(  # noqa: C901 - one branch for each shape of a broken line
    piece: Piece, text: str, start: LineKind | None, widths: Widths, *, together: bool = True
) -> bool:
    """Whether ``text``, a physical line without a prefix of its own, is the rest of ``piece``.

    ``start`` is the kind of line that begins there, if one does. ``together``: lines of this text may
    have been run together.
    """
    if piece.pieces >= MAX_PIECES or piece.length + len(text) > MAX_JOINED:
        return False
    if together and not piece.prefixed and _parts_across(piece.text, text):
        return True
    stripped = text.strip(" \t")
    if not stripped or not piece.text.strip(" \t"):
        # a stamp alone: the next word was too long for its line. Two blank lines are two
        return bool(stripped) and piece.prefixed and piece.pieces == 1
    if _ELISION.match(text):
        return False
    kind = piece.kind
    first = _first_word(stripped)
    whole = complete(piece)
    if start is not None and start.name == "bare_header" and kind is not None and kind.name == "header":
        start = start if whole else None  # a header broken behind "invoked"
    if kind is not None:
        if (
            kind.name == "intent"
            and not whole
            and start is not None
            and start.name in ("killed", "kill_sharing")
        ):
            # "Memory cgroup out of memory:" broken before "Killed process"
            return piece.text.rstrip().endswith(("memory", "memory:", ")", "):"))
        if start is None or (
            start.name in ("totals", "memcg_stat") and not whole and kind.name not in ("totals", "memcg_stat")
        ):
            last = _last_word(piece.text)
            if _word_of(kind, first) and not (whole and kind.name == "tasks_row"):
                return True
            if _word_of(kind, last + first) and not (whole and _word_of(kind, last)):
                return True
    if _escape_across(piece.text, text):
        return True
    if kind is not None and piece.text.rstrip(" \t").endswith("\\"):
        return True
    if piece.prefixed and piece.text.endswith("\n"):
        return True  # a syslog record continues after its #012
    full = widths.hard is not None and (
        piece.length % widths.hard == 0
        or (piece.pieces > 1 and widths.soft is not None and piece.width >= widths.soft)
    )
    if full and piece.prefixed and start is not None and start.name in ("memcg_stat", "totals"):
        # "eed 0" is not a statistic if it follows a full line
        return True
    if start is not None and piece.foreign and _full(piece, first, widths):
        return True  # a program's line that quotes the kernel was broken before the quotation
    if start is not None:
        return start.name in _OF_A_NODE and _OWN_NODE.fullmatch(piece.text.strip() + " ") is not None
    if kind is None and _begins_across(piece.text, stripped):
        return True
    if stripped[0] in _NEVER_FIRST and kind is not None:
        return True
    if stripped[0] == "(" and kind is not None and kind.name in _NAMES_TASK and _PID_LAST.search(piece.text):
        return True
    if kind is None and piece.text.endswith((" ?", "\t?", " ? ")):
        return True  # the unwinder's mark of doubt (?) without its function
    if full and kind is not None:
        return True
    if whole:
        return (kind is None or not kind.closed) and _full(piece, first, widths)
    assert kind is not None
    if kind.name == "tasks_row":
        return len(stripped) <= COMM_BYTES or _full(piece, first, widths)
    if piece.prefixed and kind.name == "summary":
        return stripped.count(" ") < _FEW_WORDS  # one long word, except for blanks in names
    if piece.prefixed and (so_far := _SO_FAR.get(kind.name)) is not None:
        begun = piece.text.strip(" \t")
        return any(so_far.fullmatch(begun + between + stripped) for between in (" ", ""))
    if kind.free:
        # one long word, a path or prose: no shape tells
        return True
    return _full(piece, first, widths) or piece.prefixed


def seam(piece: Piece, text: str, widths: Widths) -> tuple[str, bool]:
    """What stood between the two parts (nothing or a blank), and whether their words alone tell it."""
    if piece.text[-1:] in ("", " ", "\t") or text[:1] in (" ", "\t"):
        return "", False
    last = _last_word(piece.text)
    first = _first_word(text)
    kind = piece.kind
    if first[0] in ",;:" or _escape_across(piece.text, text):
        return "", True
    if last[-1] == "-" and last[-2:-1].isalnum() and first[0].isalnum():
        # mail programs break after a hyphen too
        return "", False
    if (
        kind is not None
        and kind.name in ("memcg_stat", "memcg_stats")
        and first[0].isdigit()
        and _NAME.search(last)
    ):
        return " ", False
    if kind is not None and kind.name in _WORD:
        one = _word_of(kind, last + first)
        two = _word_of(kind, last) and _word_of(kind, first)
        if one and not two:
            return "", True
        if two and not one:
            return " ", False
    if widths.hard is not None and piece.length % widths.hard == 0:
        return "", False
    if kind is not None and kind.name == "summary" and last[-1] == ",":
        return "", False
    if kind is not None and kind.name == "summary" and (widths.soft is None or piece.width >= widths.soft):
        # a word longer than the line
        return "", False
    return " ", False


#: kernel words with a unit are shorter; a word that grew with each piece would take quadratic time
_LONGEST_WORD = 256


def mend_blanks(text: str, kind: LineKind | None) -> str:
    """Remove blanks that an earlier break left inside words: ``28k B`` becomes ``28kB``."""
    if kind is None or not kind.mends:
        return text
    words = text.split(" ")
    mended = [words[0]]
    for word in words[1:]:
        last = mended[-1]
        begun = word[:1] == ":" or ":" in last or "*" in last
        if (
            begun
            and word
            and len(last) < _LONGEST_WORD
            and not (_word_of(kind, last) and _word_of(kind, word))
            and _word_of(kind, last + word)
        ):
            mended[-1] = last + word
        else:
            mended.append(word)
    return " ".join(mended)
