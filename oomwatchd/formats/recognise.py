"""Which form is this line? One table for all modules of this room."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter

from oomwatchd.formats import (
    COMM_BYTES,
    Form,
    Section,
    dump_stack,
    memcontrol,
    neighbours,
    oom_kill,
    page_alloc,
    printed_bytes,
    show_mem,
    slab_common,
)

ALL: tuple[Form, ...] = (
    *oom_kill.FORMS,
    *memcontrol.FORMS,
    memcontrol.STAT,
    *show_mem.FORMS,
    show_mem.PAGES,
    *slab_common.FORMS,
    slab_common.SLAB_ROW,
    slab_common.ALLOCATION,
    *dump_stack.FORMS,
    *page_alloc.FORMS,
    *neighbours.FORMS,
)

Recognised = tuple[Form, re.Match[str]]

_BY_BEGINNING: dict[str, tuple[Form, ...]] = {}
for _form in ALL:
    for _beginning in _form.begins:
        _BY_BEGINNING[_beginning] = (*_BY_BEGINNING.get(_beginning, ()), _form)

#: what a row, an indented line or an escape begins with; "" too
_ROW_BEGINS = frozenset("[- \t\\0123456789") | {""}

#: of a raw record: nothing but known fields may follow, or a cgroup's name could pose as a header
_HEADER_REST = re.compile(r"gfp_mask=\S*?,?(?: +\w+=\S*)*\s*$")


@lru_cache(maxsize=128)  # who decodes a report asks again what who cut it asked
def recognise(text: str, *, raw: bool = False) -> Recognised | None:
    """The form of a line, with its match; None for a line that is not of a report.

    ``raw``: the text is one whole record of /dev/kmsg, so names in it can be held to their size.
    Rows that only their place tells (memcg statistics, slab rows, allocation rows, stack lines) are
    left to ``recognise_row``.
    """
    if oom_kill.HEADER_MARK in text and (found := _header(text, raw)):
        return found
    text = text.lstrip(" \t")
    for form in _BY_BEGINNING.get(text[:4], ()):
        if m := form.pattern.match(text):
            return form, m
    first = text[:1]
    if first == "[":
        if m := oom_kill.TASKS_ROW.pattern.match(text):
            return oom_kill.TASKS_ROW, m
    elif (first.isdigit() or first == "-") and "page" in text and (m := show_mem.PAGES.pattern.match(text)):
        return show_mem.PAGES, m
    if "mems_allowed=" in text and (m := oom_kill.CPUSET.pattern.match(text)) and _is_comm(m["comm"], raw):
        return oom_kill.CPUSET, m
    if (
        "mode:0x" in text
        and (m := page_alloc.ALLOC_FAILURE.pattern.match(text))
        and _is_comm(m["comm"] or "", raw)
    ):
        return page_alloc.ALLOC_FAILURE, m
    return None


_BEGINNING, _END = itemgetter(slice(0, 4)), itemgetter(slice(-2, None))
_ANYWHERE = (oom_kill.HEADER_MARK, "mems_allowed=", "mode:0x")


def nothing_recognised(records: str, count: int) -> bool:
    """Whether it is plain that ``recognise`` knows none of these, and none continues another: ``count`` raw
    records of /dev/kmsg, a line each."""
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
    """How many of these lines, none with a NUL, are plainly not known to ``recognise``, up to the first that
    may be."""
    count = 0
    for text in texts:
        beginning = text.lstrip(" \t")[:4]
        if beginning in _BY_BEGINNING or beginning[:1] in ("[", "-") or beginning[:1].isdigit():
            break
        count += 1
    joined = "\0".join(texts[:count])
    for words in _ANYWHERE:
        if words in joined:
            joined = joined.partition(words)[0]
            count = joined.count("\0")
    return count


def _header(text: str, raw: bool) -> Recognised | None:
    if not raw and not text.startswith(oom_kill.HEADER_MARK):
        text = text.lstrip(" \t")  # an indent; in a raw record the name itself begins with blanks
    m = oom_kill.HEADER.pattern.match(text)
    if m and _is_comm(m["comm"], raw) and (not raw or _HEADER_REST.match(m["rest"] or "")):
        return oom_kill.HEADER, m
    if m := oom_kill.OPENVZ_HEADER.pattern.match(text):
        return oom_kill.OPENVZ_HEADER, m
    return None


def _is_comm(name: str, raw: bool) -> bool:
    return not raw or printed_bytes(name) <= COMM_BYTES


def recognise_row(text: str, section: Section) -> Recognised | None:
    """Rows that only their place in the report tells."""
    text = text.lstrip(" \t")
    if section == Section.MEMCG:
        if m := memcontrol.STAT.pattern.match(text):
            return memcontrol.STAT, m
    elif section == Section.SLAB:
        if m := slab_common.ALLOCATION.pattern.match(text):
            return slab_common.ALLOCATION, m
        if m := slab_common.SLAB_ROW.pattern.match(text):
            return slab_common.SLAB_ROW, m
    return None
