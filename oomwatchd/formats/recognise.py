"""Which form is this line? One table for all modules of this room."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter

from oomwatchd import plugs
from oomwatchd.formats import COMM_BYTES, Form, Match, Role, Section, oom_kill, printed_bytes, show_mem


def _tables() -> list[tuple[Form, ...]]:
    """``FORMS`` of each module of this room: the forms of a report in its order, then the neighbours."""
    room, _, own = __name__.rpartition(".")
    modules = [plugs.plug(room, name) for name in plugs.names(room) if name != own]
    tables: list[tuple[Form, ...]] = [module.FORMS for module in modules if hasattr(module, "FORMS")]
    return sorted(tables, key=lambda forms: (forms[0].role is Role.NEIGHBOUR, forms[0].section))


ALL: tuple[Form, ...] = tuple(form for table in _tables() for form in table)

Recognised = tuple[Form, Match]

_BY_BEGINNING: dict[str, tuple[Form, ...]] = {}
_BY_MARK: dict[str, tuple[Form, ...]] = {}
_BY_SECTION: dict[Section, tuple[Form, ...]] = {}
for _form in ALL:
    for _beginning in _form.begins:
        _BY_BEGINNING[_beginning] = (*_BY_BEGINNING.get(_beginning, ()), _form)
    for _mark in _form.marks:
        _BY_MARK[_mark] = (*_BY_MARK.get(_mark, ()), _form)
    if _form.in_place:
        _BY_SECTION[_form.section] = (*_BY_SECTION.get(_form.section, ()), _form)
#: a header's name may hold the beginning of any other line, so it is looked for first
_HEADERS = _BY_MARK[oom_kill.HEADER_MARK]
_MARKED = tuple((mark, forms) for mark, forms in _BY_MARK.items() if mark != oom_kill.HEADER_MARK)

#: what a row, an indented line or an escape begins with; "" too
_ROW_BEGINS = frozenset("[- \t\\0123456789") | {""}


@lru_cache(maxsize=128)  # each line is asked for twice: to cut the report, then to decode it
def recognise(text: str, *, raw: bool = False) -> Recognised | None:
    """The form of a line, with its match; None for a line that is not of a report.

    ``raw``: the text is one whole record of /dev/kmsg. Then a form must match all of it, to its end, without
    what only copies have (groups ``loose``, ``cut``) and without a name longer than a process name.
    Rows that are known only by their place (memcg statistics, slab rows, allocation rows, stack lines) are
    left to ``recognise_row``.
    """
    if oom_kill.HEADER_MARK in text:
        # an indent; in a raw record the name itself begins with blanks
        named = text if raw or text.startswith(oom_kill.HEADER_MARK) else text.lstrip(" \t")
        if found := _first(_HEADERS, named, raw):
            return found
    text = text.lstrip(" \t")
    if (forms := _BY_BEGINNING.get(text[:4])) and (found := _first(forms, text, raw)):
        return found
    first = text[:1]
    if first == "[":
        if found := _first((oom_kill.TASKS_ROW,), text, raw):
            return found
    elif (
        (first.isdigit() or first == "-")
        and "page" in text
        and (found := _first((show_mem.PAGES,), text, raw))
    ):
        return found
    for mark, forms in _MARKED:
        if mark in text and (found := _first(forms, text, raw)):
            return found
    return None


def _first(forms: tuple[Form, ...], text: str, raw: bool) -> Recognised | None:
    for form in forms:
        m = form.pattern.match(text)
        if m is not None and (not raw or _is_whole(form, m)):
            return form, m
    return None


#: groups that hold a process name, and groups that match only in copies
_NAMES = frozenset({"comm", "by"})
_IN_COPIES = frozenset({"loose", "cut"})
_GROUPS: dict[Form, tuple[tuple[str, ...], tuple[str, ...]]] = {}


def _groups(form: Form) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of its pattern, remembered."""
    names = form.pattern.groupindex.keys()
    return _GROUPS.setdefault(form, (tuple(_IN_COPIES & names), tuple(_NAMES & names)))


def prepare() -> None:
    """Compile the patterns of all forms, which are compiled on first use otherwise."""
    for form in ALL:
        _groups(form)
        form.pattern.match("")


def _is_whole(form: Form, m: Match) -> bool:
    """Whether a match is all of a raw record, as a kernel prints it. Lines that are no part of a report need
    not be whole."""
    in_copies, names = _GROUPS.get(form) or _groups(form)
    end, text = m.end(), m.string
    if end != len(text) and not text[end:].isspace():
        return form.role is Role.NEIGHBOUR
    for name in in_copies:
        if m[name] or (name == "cut" and m[name] is not None):  # a line may be cut before its first letter
            return False
    for name in names:
        comm = m[name]
        if comm and len(comm) > COMM_BYTES and printed_bytes(comm) > COMM_BYTES:
            return False
    return True


_BEGINNING, _END = itemgetter(slice(0, 4)), itemgetter(slice(-2, None))
_ANYWHERE = tuple(_BY_MARK)


def nothing_recognised(records: str, count: int) -> bool:
    """Whether a quick look shows that ``recognise`` knows none of these ``count`` raw records of /dev/kmsg
    (one line each), and that none continues another."""
    parts = records.split(";")
    beginnings = set(map(_BEGINNING, parts[1:]))
    plain = len(parts) == count + 1 and set(map(_END, parts[:-1])) == {",-"}
    if not plain or "\n" in "".join(beginnings):  # callers, semicolons in a text, a text of a few letters
        if records.count(",-;") + records.count(",-,") != count:
            return False  # some are continued
        beginnings = {line.partition(";")[2][:4] for line in records.split("\n")[:count]}
    return (
        beginnings.isdisjoint(_BY_BEGINNING)
        and _ROW_BEGINS.isdisjoint([beginning[:1] for beginning in beginnings])
        and not any(words in records for words in _ANYWHERE)
    )


def unknown_count(texts: Sequence[str]) -> int:
    """The number of lines, counted from the first, that ``recognise`` surely does not know. No line holds a
    NUL."""
    count = 0
    for text in texts:
        beginning = text.lstrip(" \t")[:4]
        first = beginning[:1]
        if beginning in _BY_BEGINNING or (first == "[" and beginning[1:2] != "<"):
            break
        if (first.isdigit() or first == "-") and "page" in text:
            break
        count += 1
    joined = "\0".join(texts[:count])
    for words in _ANYWHERE:
        if words in joined:
            joined = joined.partition(words)[0]
            count = joined.count("\0")
    return count


def recognise_row(text: str, section: Section, *, raw: bool = False) -> Recognised | None:
    """The form of a row that is known only by its place in the report; ``raw`` as for ``recognise``."""
    forms = _BY_SECTION.get(section)
    return _first(forms, text.lstrip(" \t"), raw) if forms else None
