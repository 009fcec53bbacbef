"""What the lines around tell of a line of a report: source code or prose that quotes it, or a log.

A whole report proves itself. A header or a kill line alone also stands in programs, their tests, rules,
manuals and posts. Code encloses it in a string or a comment; prose stands before or behind it. Both are told
by shape, not by language: quotes and what closes them, statements and calls, sentences.

Only lines that may begin a report are looked at, each with the lines near it, so that a log costs nothing.

Pure: the same lines give the same settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from oomwatchd.records.kmsg import KmsgRecord, Setting
from oomwatchd.sources.text import certain
from oomwatchd.sources.text.layers import literal
from oomwatchd.sources.text.needles import NEEDLES
from oomwatchd.words.deferred import deferred

#: a text in which more lines may begin a report is a log
_MAX_LINES: Final = 64
#: how many lines before and behind a line are looked at, and how many characters of each
_NEAR: Final = 12
_LOOK: Final = 400
#: the most lines of a string, and of kernel text behind the first
_LONGEST_STRING: Final = 200
_PIECES: Final = 6

_BEGINS: Final = (*(needle.decode() for needle in NEEDLES), "ill process ")

#: a string over several lines begins: triple quotes, or a quote after an assignment, a call, a keyword; a
#: here document
_OPENS: Final = deferred(
    r"<<[-~]?\s*[\"']?(?P<word>[A-Z_]{2,32})\b"
    r"|(?:(?:[=(,\[>?+]|:\s|\b(?:return|in|do)\b|@\w+)\s*[a-zA-Z@$]{0,2}|^\s*(?=[\"']{3}))"
    r"(?P<hashes>#{0,3})(?P<quote>\"\"\"|'''|(?<!`)`(?!`)|\"|')(?P<rest>[^\"'`]*)$"
    r"|=\s*\[(?P<level>=*)\[\s*$"
)
#: what such a line has at least
_MARKS: Final = ('"', "'", "`", "<<", "[[", "[=")
#: what follows the end of a string that is code
_BEHIND_STRING: Final = r"\s*(?:[;,)\]}.:+]|#\s*\w|$)"
#: a line of a program: a definition, a statement, a call, a value with its name
_CODE: Final = deferred(
    r"\s*(?:"
    r"(?:def|class|func|fn|let|const|var|import|package|using|return|public|private|protected|static|export"
    r"|describe|defmodule|local|require|namespace|struct|impl|for|if|while|with|INSERT|SELECT|CREATE)\b"
    r"[ (].{0,300}[({\[;:=)\"'`]\s*$|(?:import|package|use|require|local|from) [\w.:/\"'{} ,-]{1,80};?\s*$"
    r"|assert\w*\b[ (!]|#(?:include|define|ifdef|ifndef|endif|\[)|@\w+[\w.]*(?:\(.*)?$|end\)?;?\s*$|<\?php"
    r"|[\w.:>\[\]*&\s-]{1,80}(?::=|\+=|=)\s*\S.{0,200}[;,({\[\"'`)]\s*$|[\w.:>\[\]*&\s-]{1,80} = \S{1,80}\s*$"
    r"|[\w.:!>-]{0,80}\(.{0,300}\)[;,{:]\s*$|[\w.:!>-]{1,80}\((?:.{0,300}\))?$|[})\]]+[;,)]+\s*$|\}\s*\w*\s*[({]"
    r"|[A-Za-z_]\w*:\s+\S.*,$|\{\s*\w+:\s|[^.]{0,300};\s*\}?$|[A-Z]{2,8},$"
    r")"
)
#: a call with a string: a whole statement
_CALL: Final = deferred(r"\s*(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*\(.*[\"'`]\)[;,]?$")
#: a pattern of such lines: the file is about them
_PATTERN: Final = deferred(r"\\[dwsS][+*]|\(\.[+*]\??\)|\[\^[^\]]+\]|%\{[A-Z]+:|%[sdlu]\b|\[0-9\]\+")
_COMMENT: Final = deferred(r"\s*(#+|//+!?|--|;+|%+|\*|/\*+)[ \t]+(\S.*)$")
#: a quoted value, alone or behind a name, a bracket, a comma
_LITERAL: Final = deferred(r"\s*(?:[^\"'`]{0,200}[=(,:\[{+]\s*)?(?:- )?(?:[a-zA-Z]{1,2}#?)?[\"'`]")
_WORDS: Final = deferred(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_TIMED: Final = deferred(r"\d\d:\d\d|\[ *\d+\.\d+\]|^\W*\d{4}-\d\d")
#: no sentence has these: a message, addresses, sizes
_MESSAGE: Final = deferred(
    r"\W{0,8}[A-Z]{2,}\w*:|.*(?:\b0x[0-9a-f]|\dkB|\b[0-9a-f]{8}\b|\w:\d|/\w+/\w+/|\[#?\d|\S  +\S|\w@\w|[|~$])"
)
#: no program and no post has these: noise of a serial line
_NOISE: Final = deferred(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffd]")
#: so many more lines of the kernel with a time are a log
_MANY: Final = 3
#: words that a sentence has at least; letters, in a script without blanks between words
_SENTENCE: Final = 7
_LONG: Final = 16


def settings(lines: Sequence[bytes], texts: Sequence[str]) -> dict[bytes, Setting]:
    """The setting of each line of a report that does not stand as in a log, by the line; ``texts`` are the
    same lines."""
    numbers = list(islice(_candidates(texts), _MAX_LINES + 1))
    if not 0 < len(numbers) <= _MAX_LINES:
        return {}
    texts = ["" if _NOISE.search(text) is not None else _shortened(text) for text in texts]
    strings = _strings(texts, numbers)
    found: dict[bytes, Setting] = {}
    log: set[bytes] = set()
    for number in sorted(set(_with_pieces(numbers, texts))):
        line = lines[number].rstrip(b"\r")
        setting = "code" if number in strings else _setting(number, texts)
        body = literal(texts[number]) if setting == "code" else None
        for key in (line,) if body is None else (line, body.encode()):
            if setting is None or found.get(key, setting) != setting:
                log.add(key)
            else:
                found[key] = setting
    return {line: setting for line, setting in found.items() if line not in log}


def marked(records: Sequence[KmsgRecord], found: dict[bytes, Setting]) -> list[KmsgRecord]:
    """The records, each with the setting of its first line that has one."""
    from msgspec.structs import replace

    return [
        record if (setting := _of_record(record, found)) is None else replace(record, setting=setting)
        for record in records
    ]


def _of_record(record: KmsgRecord, found: dict[bytes, Setting]) -> Setting | None:
    for line in record.raw.split(b"\n", _PIECES):
        if (setting := found.get(line.rstrip(b"\r"))) is not None:
            return setting
    return None


def _candidates(texts: Sequence[str]) -> Iterator[int]:
    """The numbers of the lines that may begin a report."""
    for number, text in enumerate(texts):
        for begin in _BEGINS:
            if begin in text:
                yield number
                break


def _shortened(text: str) -> str:
    text = text.rstrip()
    return text if len(text) <= _LOOK else f"{text[: _LOOK // 2]}{text[-_LOOK // 2 :]}"


def _with_pieces(numbers: Sequence[int], texts: Sequence[str]) -> Iterator[int]:
    """These lines, and the lines of a report before and behind them."""
    for number in numbers:
        yield number
        for near in range(max(0, number - _PIECES), min(len(texts), number + _PIECES)):
            if near != number and _is_kernels(texts[near]):
                yield near


def _is_kernels(text: str) -> bool:
    return len(text) > 8 and certain.holds(text)


def _setting(number: int, texts: Sequence[str]) -> Setting | None:
    """What the lines near this one show it to stand in; None: a log."""
    text = texts[number]
    around = [*texts[max(0, number - _NEAR) : number], *texts[number + 1 : number + 1 + _NEAR]]
    kernels = list(filter(_is_kernels, around))
    near = [line for line in around if line.strip() and line not in kernels]
    comment = _COMMENT.match(text)
    if comment is not None:
        beside = [
            other for line in near if (other := _COMMENT.match(line)) is not None and other[1] == comment[1]
        ]
        if len(beside) < len(near) and any(len(_WORDS.findall(other[2])) > 2 for other in beside):
            return "code"
    if _CALL.match(text) is not None:
        return "code"
    if _LITERAL.match(text) is not None:
        code = sum(_CODE.match(line) is not None for line in near)
        if code > 1 and 2 * code >= len(near):
            return "code"
        if _TIMED.search(text) is None and any(map(_PATTERN.search, near)):
            return "code"
    if sum(_TIMED.search(line) is not None for line in kernels) >= _MANY:
        return None
    sentences = sum(map(_is_sentence, near))
    timed = sum(_TIMED.search(line) is not None for line in near)
    return "prose" if sentences > 1 and sentences > timed else None


def _is_sentence(line: str) -> bool:
    """Whether a line is made of words, as people write it, in any language."""
    if _TIMED.search(line, 0, 40) is not None or _MESSAGE.match(line) is not None:
        return False
    words = _WORDS.findall(line)
    letters = sum(map(len, words))
    if 10 * letters < 7 * (len(line) - line.count(" ")):
        return False
    if line.isascii() or " " in line.strip():
        plain = sum(word.islower() for word in words)
        return len(words) >= _SENTENCE and 3 * plain >= 2 * len(words)
    return letters >= _LONG


def _strings(texts: Sequence[str], numbers: Sequence[int]) -> set[int]:
    """The lines near these that stand in strings which go over several lines."""
    found: set[int] = set()
    number = 0
    for near in numbers:
        number = max(number, near - _LONGEST_STRING)
        while number < near:
            text = texts[number]
            opened = (
                _OPENS.search(text) if any(map(text.__contains__, _MARKS)) and "```" not in text else None
            )
            end = None if opened is None else _end(opened, number, texts)
            if end is not None:
                found.update(range(number, end + 1))
            number = number + 1 if end is None else end + 1
    return found


def _end(opened: re.Match[str], number: int, texts: Sequence[str]) -> int | None:
    """The line that ends the string which this one opens; None if none does."""
    if opened["word"] is not None:
        ends = re.compile(rf"\s*{opened['word']}\s*$")
    elif opened["level"] is not None:
        ends = re.compile(rf".*\]{opened['level']}\]{_BEHIND_STRING}")
    else:
        ends = re.compile(rf"(?:.*?[^\\]|\s*){re.escape(opened['quote'] + opened['hashes'])}{_BEHIND_STRING}")
    for later in range(number + 1, min(len(texts), number + _LONGEST_STRING)):
        if ends.match(texts[later]) is not None:
            return later
    return None
