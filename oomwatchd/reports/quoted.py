"""Tell a report from quoted lines of one: source code, a test, a sentence, a sample.

A whole report proves itself. A header or a kill line alone is believed if it stands as in a log: at the
beginning of its line, or after a log's prefix. Only text is judged: a record of the ring buffer or the
journal has nothing around it.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from oomwatchd.formats import Role, oom_kill
from oomwatchd.formats.recognise import recognise
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.words.deferred import deferred

Standing = Literal["certain", "unstamped", "told", "quoted"]
"""``certain``: nothing speaks against it. ``unstamped``: bare lines without a time, and nothing else of a
report: they may be a sample. ``told``: the same with a time, between sentences. ``quoted``: it is no
report."""

#: so many lines of a report in a string of a program are a report that was saved there
_SAVED = 8

#: a line that begins so is a line of a log
_STAMPED = deferred(
    r"\s*(?:[\[({<\"']{0,2}\d{1,4}[-/:.,]\d|<\d|\[ *\d|(?:[A-Z][a-z]{2},? +){1,2}\d|\d{9,}\b"
    r"|[{\"'>|`]*\s*\[ *\d)"
)
_CLOCK = deferred(r"\d\d:\d\d:\d\d")
#: what opens a string in source code: after an assignment, a call or a keyword; not ``key="``
_IN_CODE = deferred(
    r"(?:[\w\])>*]\s*(?::?=|=>|\+|<<<?|\?)\s+|[\w\])]\s*\(\s*|\(\s*[\w.-]{1,40}\s+"
    r"|\b(?:return|echo|printf(?:\s+'[^']{0,40}')?|printf?|e?grep|case|assert\w*|in)\s+|^\s*)"
    r"(?:[a-zA-Z]{1,2}#?|String\.raw)?(?<!=)(?:[\"'`]{3}|(?<=[\w\s(#])[\"'`])\s*$"
)
#: the same with words between: ``Log["Log: '``
_IN_CALL = deferred(r"\w[\[(]\s*[a-zA-Z]{0,2}[\"'`]")
#: the first value in braces, without a key: no JSON, but a list of values in C, Go, Rust
_IN_BRACES = deferred(r"^\s*[\w.&*]*\{\s*[\"'`]\s*$")
#: signs of quotation that no log uses
_OPENS, _CLOSES = "`\u201c\u300c\u300e\u00ab", "`\u201d\u300d\u300f\u00bb"
#: what closes a string in source code: ``";``, ``")``, ``"`` and a blank and more code
_CODE_ENDS = deferred(r"^\s*(?:\\n)?[\"'`]{1,3}\s*(?:[;)+]|\.\w+\(|,\s*[\w\"'`(&]+\)|\|\s*\w|\s`\w)")
#: a string that gets a name, as a statement of its own
_DECLARED = deferred(r"^\s*(?:[\w<>:*&]+\s+){0,5}\w+(?:\[\])?\s*:?=\s*[a-zA-Z@$]{0,2}[\"'`][^\"'`]*$")
_STATEMENT_ENDS = deferred(rb"[\"'`]\s*;\s*\Z")
_COMMENT = deferred(r"^\s*(?:(?://+!?|#+|/\*+|\*|--|;+|%+|<!--|REM\b)\s*[^\W\d_]|//|/\*)")
#: two words of a sentence before the text
_SENTENCE = deferred(r"(?<![=\w-])(?!kernel\b|kern\b)[A-Za-z]?[a-z]+ (?!kernel\b)[a-z]{2,}(?![=\w-])")
# \S+ is tried only where a word begins, and a time only where its digits begin: otherwise a long word takes
# quadratic time
_BEFORE_KERNEL = deferred(r"(?<!\S)\S+ +kernel: *$")


def standing(records: Sequence[KmsgRecord]) -> Standing:
    """How certain it is that these records of a block are a report. Never raises."""
    if _is_code(records):
        return "quoted"
    lone: list[KmsgRecord] = []
    titles: list[KmsgRecord] = []
    bare_header = False
    for record in records:
        if record.is_whole:
            return "certain"
        found = recognise(record.text)
        if found is None:
            continue
        form, m = found
        if form.role in (Role.BODY, Role.DUMP, Role.BEFORE, Role.AFTER):
            if any(map(str.isdigit, record.text)):
                return "certain"
            titles.append(record)  # the kernel's source has these words, too
            continue
        if form is oom_kill.HEADER and not (m["rest"] or "").strip(" ."):
            bare_header = True
            continue
        lone.append(record)
    if not all(map(_is_quoted, titles)):
        return "certain"
    if not lone:
        return "quoted" if bare_header or titles else "certain"
    return _standing_of(lone)


def _standing_of(lone: Sequence[KmsgRecord]) -> Standing:
    """The same for lines that prove nothing alone."""
    if all(map(_is_quoted, lone)):
        return "quoted"
    if len(lone) == 1 and _names_nobody(lone[0]):
        return "quoted"
    timed = any(record.usec is not None or record.wall is not None for record in lone)
    if all(record.setting is not None for record in lone):
        return "told" if timed or any(_CLOCK.search(_around(record)[0]) for record in lone) else "quoted"
    return "certain" if timed or any(_around(record)[0].strip(" \t>|") for record in lone) else "unstamped"


def _is_code(records: Sequence[KmsgRecord]) -> bool:
    """Whether all lines of a report stand in source code, and are few or have names."""
    if records and not records[0].is_whole and all(map(_is_declared, records)):
        return True
    if len(records) >= _SAVED or all(record.setting != "code" for record in records):
        return False
    return all(record.setting == "code" for record in records if recognise(record.text) is not None)


def _is_declared(record: KmsgRecord) -> bool:
    """Whether the line is a string that source code assigns to a name or lists, as a test's data."""
    before = _around(record)[0]
    if _IN_BRACES.match(_without_time(before)):
        return True
    return _STATEMENT_ENDS.search(record.raw[-80:]) is not None and _DECLARED.search(before) is not None


def _is_quoted(record: KmsgRecord) -> bool:
    before, after = _around(record)
    if not before.strip(" \t>|") and not after.strip():
        return False
    if _COMMENT.match(before) or _IN_CODE.search(_without_time(before)) or _IN_CALL.search(before):
        return True
    if _IN_BRACES.match(_without_time(before)):
        return True
    if _is_in_words(_without_time(before), record.text[-80:] + after[:80]):
        return True
    if _STAMPED.match(before):
        return False
    if _CODE_ENDS.match(after) and not before.lstrip(" \t-").startswith(("{", '"')):
        return True
    return _SENTENCE.search(_BEFORE_KERNEL.sub("", _without_time(before))) is not None


def _names_nobody(record: KmsgRecord) -> bool:
    """Whether it is a bare summary line without a pid, as texts about such lines have it."""
    bare = record.usec is None and not _around(record)[0].strip(" \t>|")
    return bare and record.text.startswith("oom-kill:") and "pid=" not in record.text


def _is_in_words(before: str, after: str) -> bool:
    """Whether the text stands between signs of quotation, with words before it, in any language."""
    opens = before.rstrip()[-1:]
    return (
        bool(opens)
        and opens in _OPENS
        and any(sign in after for sign in _CLOSES)
        and any(map(str.isalpha, before))
    )


def _around(record: KmsgRecord) -> tuple[str, str]:
    """What stands in the line before and after the kernel's text, as it was read. If a header's name has
    several words, all but the last count as standing before the text."""
    line = record.raw.decode("utf-8", "replace")
    text = record.text.strip()
    if (found := recognise(record.text)) is not None and found[0] is oom_kill.HEADER:
        named = found[1]["comm"].strip()
        name = re.split(r"[ \"'`(\u201c\u300c\u300e\u00ab]", named)[-1]
        text = text[len(named) - len(name) :] if text.startswith(named) else text
    at = line.find(text[:24])
    if at < 0 or not text:
        return "", ""
    end = line.rfind(text[-12:])
    return line[:at], "" if end < at else line[end + len(text[-12:]) :]


_TAIL_TIME = deferred(
    r"(?:(?:\b[A-Z][a-z]{2},? +){0,2}\d{1,2} +)?"
    r"(?<![\d:.T/-])[\d:.T/-]*\d\d:\d\d:\d\d[\d.,]*(?:Z|[+-]\d\d:?\d\d)?"
    r"(?: +\d{4})?"
    r"|\[ *[\d.]+\]|(?<!\S)\S+ +kernel:"
)


def _without_time(before: str) -> str:
    """``before`` without stamps and syslog header, which may stand between a quote and the kernel's text."""
    return _TAIL_TIME.sub("", before).rstrip(" \t") if before else before
