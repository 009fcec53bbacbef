"""Logs whose lines are fields: JSON objects and the journal's export format.

Sources: ``dmesg --json`` (util-linux), ``journalctl -o json`` / ``json-pretty`` / ``export``
(systemd.journal-fields(7), https://systemd.io/JOURNAL_EXPORT_FORMATS), Docker's json-file driver.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from oomwatchd.records.capture import SourceForm
from oomwatchd.records.kmsg import FACILITY_KERN, KmsgRecord, to_text
from oomwatchd.sources.text import certain
from oomwatchd.sources.text.prefix import FACILITY_USER, PrefixParser
from oomwatchd.words.deferred import deferred

#: how many fields and bytes of one entry are kept
MAX_FIELDS: Final = 512
MAX_VALUE: Final = 64 * 1024
#: how many objects, lists and values of one line of JSON are examined, and how deep
MAX_NODES: Final = 4096
MAX_DEPTH: Final = 8
_PAIR: Final = 2

# no two runs of blanks can be adjacent in these patterns: the blanks would be divided in every possible way
_FIELD: Final = deferred(r'[ \t]*"(?P<key>[^"\\]{1,128})"[ \t]*:[ \t]*(?P<value>\S.*)$')
_OPENS: Final = deferred(r"[ \t]*(?:\},?[ \t]*)?\{[ \t]*$")
_CLOSES: Final = deferred(r"[ \t]*\}[ \t]*(?:[,\]}]+[ \t]*)?$")
_FRAME: Final = deferred(r'[ \t]*(?:"[^"\\]{1,128}"[ \t]*:[ \t]*[\[{]|\[|[\]}][\]} \t]*,?|,)[ \t]*$')
# journalctl -o verbose: a time with the entry's cursor, then its fields, each on a line of its own
_VERBOSE: Final = deferred(
    r"[ \t]{0,64}(?:[^\W\d]{2,9}\.? )?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})?(?: \S{1,16})? "
    r"\[s=[0-9a-f]{1,32};i=[0-9a-f]{1,16};[^\]]{0,200}\]$"
)
_VERBOSE_TIME: Final = deferred(r";t=([0-9a-f]{1,15});")
_VERBOSE_FIELD: Final = deferred(r"[ \t]{0,64}([A-Z_][A-Z0-9_]{0,63})=(.*)$", re.S)
VERBOSE_MARK: Final = b" [s="
_LEVELS: Final = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value.replace("\0", "\\x00")
    if isinstance(value, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in value):
        return to_text(bytes(value))  # the journal's form for what is not UTF-8
    return None


def _field(line: str) -> tuple[str, str] | None:
    """Key and value of a line that is one field of an object, the value as written."""
    match = _FIELD.match(line)
    if match is None:
        return None
    return match["key"], match["value"].rstrip(" \t").removesuffix(",").rstrip(" \t")


def _string(line: str) -> str | None:
    """The text of a line that is one string (an element of a list), or a field of any name with kernel text
    in it."""
    key, written = _field(line) or (None, line.strip().removesuffix(","))
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        return None
    text = _text(value) if isinstance(value, str) else None
    return text if text is None or key is None or certain.holds(text) else None


def _number(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return None


def entry_record(entry: Mapping[str, Any], raw: bytes) -> tuple[KmsgRecord, SourceForm] | None:
    """One entry of fields -> record and form; None if it holds no known message."""
    text = _text(entry.get("MESSAGE"))
    if text is not None:
        return _journal_record(entry, text, raw), "journal-json"
    text = _text(entry.get("msg"))
    if text is None or not ("time" in entry or "pri" in entry):
        return None
    level, facility = entry.get("pri"), None
    number = _number(level)
    if number is not None:
        facility, number = number >> 3, number & 7
    elif isinstance(level, str) and level in _LEVELS:
        number = _LEVELS.index(level)
    if isinstance(entry.get("fac"), str):
        facility = FACILITY_KERN if entry["fac"] == "kern" else FACILITY_USER
    time = entry.get("time")
    caller = entry.get("caller") or entry.get("caller_id")
    return (
        KmsgRecord(
            text=text,
            facility=facility,
            level=number,
            usec=round(time * 1e6) if isinstance(time, int | float) and 0 <= time < 1e12 else None,
            caller=caller if isinstance(caller, str) else None,
            raw=raw,
        ),
        "dmesg",
    )


def _journal_record(entry: Mapping[str, Any], text: str, raw: bytes) -> KmsgRecord:
    transport = entry.get("_TRANSPORT")
    identifier = entry.get("SYSLOG_IDENTIFIER")
    if transport is None:
        facility = FACILITY_KERN if identifier == "kernel" else _number(entry.get("SYSLOG_FACILITY"))
    elif transport == "kernel":
        # user space writes to /dev/kmsg too; journald keeps the facility it gave
        facility = _number(entry.get("SYSLOG_FACILITY")) or FACILITY_KERN
    else:
        facility = _number(entry.get("SYSLOG_FACILITY")) or FACILITY_USER
    source = _number(entry.get("_SOURCE_MONOTONIC_TIMESTAMP"))
    realtime = _number(entry.get("__REALTIME_TIMESTAMP"))
    level = _number(entry.get("PRIORITY"))
    return KmsgRecord(
        text=text,
        facility=facility,
        level=level if level is not None and level < 8 else None,
        usec=source,
        wall=None if realtime is None else realtime / 1e6,
        raw=raw,
        whole=transport == "kernel",
    )


class JsonReader:
    """Lines of JSON -> records. :meth:`take` returns None for a line that is not JSON."""

    def __init__(self, parser: PrefixParser) -> None:
        self._parser = parser
        self._entry: dict[str, Any] | None = None
        self._lines: list[bytes] = []

    def take(self, line: str, raw: bytes) -> list[KmsgRecord] | None:
        """The records that the line completes, perhaps none; None if the line is not JSON."""
        if self._entry is not None:
            field = _field(line)
            if field is not None and len(self._entry) < MAX_FIELDS:
                key, value = field
                self._lines.append(raw)
                try:
                    self._entry[key] = json.loads(value)
                except (ValueError, RecursionError):
                    self._entry[key] = None
                return []
            if _OPENS.match(line) is not None or _CLOSES.match(line) is not None:
                records = self._finish()
                if _OPENS.match(line) is not None:
                    self._entry = {}
                return records
            self._entry = None
            self._lines = []
            return None
        begin = line.lstrip()[:1]
        if begin == "{" and len(line) > 2:
            return self._whole(line, raw)
        if begin == '"' and (text := _string(line)) is not None:
            return self._lines_of(text, raw)
        if _OPENS.match(line) is not None:
            self._entry = {}
            return []
        return [] if begin in ("[", "]", "}", '"', ",") and _FRAME.match(line) is not None else None

    def _finish(self) -> list[KmsgRecord]:
        assert self._entry is not None
        entry, raw = self._entry, b"\n".join(self._lines)
        found = entry_record(entry, raw)
        self._entry = None
        self._lines = []
        if found is None:
            return self._carried(entry, raw) or []
        self._count(found[1])
        return [found[0]]

    def _whole(self, line: str, raw: bytes) -> list[KmsgRecord] | None:
        try:
            entry = json.loads(line.rstrip().removesuffix(","))  # an element of an array
        except (ValueError, RecursionError):
            return None
        if not isinstance(entry, dict):
            return None
        if isinstance(entry.get("dmesg"), list):
            records = []
            for element in entry["dmesg"]:
                found = entry_record(element, raw) if isinstance(element, dict) else None
                if found is not None:
                    self._count(found[1])
                    records.append(found[0])
            return records
        found = entry_record(entry, raw)
        if found is not None:
            self._count(found[1])
            return [found[0]]
        return self._carried(entry, raw)

    def _carried(self, entry: Mapping[str, Any], raw: bytes) -> list[KmsgRecord] | None:
        """The records in a string with kernel text anywhere in the entry: log stores and shippers wrap a
        journal entry or a line of any form like this. None if there is no such string."""
        records: list[KmsgRecord] = []
        found = False
        waiting: list[tuple[object, int]] = [(entry, 0)]
        for _ in range(MAX_NODES):
            if not waiting:
                break
            value, depth = waiting.pop()
            if isinstance(value, dict):
                message = entry_record(value, raw) if "MESSAGE" in value else None
                if message is not None:
                    self._count(message[1])
                    records.append(message[0])
                    found = True
                elif depth < MAX_DEPTH:
                    waiting += [(inner, depth + 1) for inner in reversed(value.values())]
            elif isinstance(value, list):
                if depth < MAX_DEPTH:
                    waiting += [(inner, depth + 1) for inner in reversed(value[:MAX_NODES])]
            elif isinstance(value, str) and certain.holds(value):
                records += self._lines_of(value.replace("\0", "\\x00"), raw)
                found = True
        return records if found else None

    def _lines_of(self, text: str, raw: bytes) -> list[KmsgRecord]:
        return [self._parser.parse(part, raw) for part in text.rstrip("\r\n").split("\n")]

    def _count(self, form: SourceForm) -> None:
        self._parser.forms[form] = self._parser.forms.get(form, 0) + 1


class VerboseReader:
    """The entries of ``journalctl -o verbose``, line by line. Further lines of a value are indented to its
    first; any other line ends the entry."""

    def __init__(self, parser: PrefixParser) -> None:
        self._parser = parser
        self._entry: dict[str, str] | None = None
        self._field = ""
        self._value: list[str] = []
        self._room = MAX_VALUE
        self._under = 0
        self._raw: list[bytes] = []

    def take(self, line: str, raw: bytes) -> list[KmsgRecord] | None:
        """The records that the line completes, perhaps none; None if the line belongs to no entry. Then call
        :meth:`flush`: its records come before that line."""
        if _VERBOSE.match(line) is not None:
            records = self.flush()
            time = _VERBOSE_TIME.search(line)
            self._entry = {} if time is None else {"__REALTIME_TIMESTAMP": str(int(time[1], 16))}
            self._raw = [raw]
            return records
        if self._entry is None:
            return None
        if self._field and line[: self._under].isspace() and len(line) > self._under:
            self._room -= len(line) - self._under + 1
            if self._room >= 0:
                self._value.append(line[self._under :])
        elif (field := _VERBOSE_FIELD.match(line)) is not None and len(self._entry) < MAX_FIELDS:
            self._end_field()
            self._field = field[1]
            self._value = [field[2]]
            self._room = MAX_VALUE
            self._under = field.start(2)
        else:
            return None
        if len(self._raw) < MAX_FIELDS:
            self._raw.append(raw)
        return []

    def _end_field(self) -> None:
        if self._entry is not None and self._field:
            self._entry[self._field] = "\n".join(self._value)
        self._field = ""

    @property
    def waits(self) -> bool:
        """Whether an entry has begun."""
        return self._entry is not None

    def flush(self) -> list[KmsgRecord]:
        """The entry that has begun, as far as it was read."""
        self._end_field()
        entry, self._entry = self._entry, None
        found = None if entry is None else entry_record(entry, b"\n".join(self._raw))
        self._raw = []
        if found is None:
            return []
        self._parser.forms[found[1]] = self._parser.forms.get(found[1], 0) + 1
        return [found[0]]


class ExportReader:
    """The journal's export format: ``FIELD=value`` lines, a blank line after each entry; a value with a
    newline is ``FIELD``, a newline, its length as 64 bit little-endian, the bytes and a newline."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._entry: dict[str, str] = {}
        self._skip = 0

    def feed(self, data: bytes) -> list[KmsgRecord]:
        """The entries that end in this data."""
        self._data += data
        records: list[KmsgRecord] = []
        buffer = self._data
        at = 0
        while True:
            if self._skip:
                step = min(self._skip, len(buffer) - at)
                self._skip -= step
                at += step
                if self._skip:
                    break
            end = buffer.find(b"\n", at)
            if end < 0:
                if len(buffer) - at > MAX_VALUE:
                    at = len(buffer) - 1
                break
            if end == at:
                records += self.flush_entry()
                at = end + 1
                continue
            line = bytes(buffer[at:end])
            name, equals, value = line.partition(b"=")
            if equals:
                self._set(name, value)
                at = end + 1
                continue
            if len(buffer) < end + 9:
                break
            size = int.from_bytes(buffer[end + 1 : end + 9], "little")
            if size > MAX_VALUE:
                self._skip = size + 1 if size < 1 << 40 else 0
                at = end + 9
                continue
            if len(buffer) < end + 9 + size + 1:
                break
            self._set(name, bytes(buffer[end + 9 : end + 9 + size]))
            at = end + 10 + size
        del self._data[:at]
        return records

    def _set(self, name: bytes, value: bytes) -> None:
        if len(self._entry) < MAX_FIELDS:
            self._entry[to_text(name[:128])] = to_text(value[:MAX_VALUE])

    def flush_entry(self) -> list[KmsgRecord]:
        """The entry read so far, as at the end of the input."""
        entry, self._entry = self._entry, {}
        found = entry_record(entry, entry["MESSAGE"].encode()) if "MESSAGE" in entry else None
        return [] if found is None else [found[0]]
