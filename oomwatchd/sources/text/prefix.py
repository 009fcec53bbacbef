"""The prefix of a log line, before the kernel's text: who wrote it and when.

Layers are removed from the left, one after another, until none is recognised: a syslog header, then the
``[stamp]`` of printk.time, then the caller. Every line is read by itself, so the form may change inside a
file. The forms are those of dmesg(1) (util-linux ``sys-utils/dmesg.c``), journalctl(1),
RFC 3164, RFC 5424, ISO 8601 syslog, ``/proc/kmsg`` (``<level>[stamp]``), Documentation/ABI/testing/dev-kmsg
and the Kubernetes and Docker log files.

Longer than others because every kind of layer has its pattern and its few lines here.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from oomwatchd.formats.recognise import ALL
from oomwatchd.records.capture import SourceForm
from oomwatchd.records.kmsg import FACILITY_KERN, KmsgRecord, parse_record
from oomwatchd.words.deferred import deferred

FACILITY_USER: Final = 1

#: syslog(3); util-linux and sd-daemon use the short names
_LEVELS: Final = {
    name: level
    for level, name in enumerate(("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"))
}
_LEVEL_NAMES: Final = {**_LEVELS, "warning": 4, "error": 3, "panic": 0}
_FACILITIES: Final = {
    name: number
    for number, name in enumerate(
        ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")
    )
}

#: the tags under which kernel text is logged
_KERNEL_TAGS: Final = frozenset({"kernel", "klogd", "dmesg", "kmsg", "vmunix"})

# Amlogic's kernels add the CPU: [  123.456789@0]
_STAMP: Final = r"\[ *(?P<sec>\d{1,12})\.(?P<frac>\d{1,9})(?:@\d{1,3})?\]"
_CALLER: Final = r"\[ *(?P<caller>[TC]\d{1,10})\]"
_ISO: Final = (
    r"(?P<iso>\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)? ?(?P<zone>Z|UTC|[+-]\d\d:?\d\d)?)"
)
# names of time zones, so that a task's name in capitals is not taken for one
_ZONES: Final = (
    r"(?:UTC|GMT|W?EST|WET|WAT|[CE]ES?T|[CE]AT|MSK|SAST|[ACEMP][SD]T|AK[SD]T|HST|BRT|ART|BST|IST|TRT|PKT|SGT|HKT|PHT"
    r"|[JK]ST|A[CEW][SD]T|NZ[SD]T)"
)
# RFC 3164's month may be in the reader's language, as journalctl and ls print it
_BSD: Final = (
    r"(?:(?:[^\W\d]{2,9}\.? )?(?:[^\W\d]{1,9}\.? {1,2}\d{1,2}|\d{1,2} [^\W\d]{1,9}\.?|\d{1,2}月 {1,2}\d{1,2})"
    r"(?: \d{4})? )?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: (?P<bsdzone>" + _ZONES + r"|[+-]\d{2,4}))?"
)
# beginnings of kernel lines that look like a host name and a tag: the forms' first words, and the registers
# of a stack dump
_HEADS: Final = "|".join(
    sorted(
        {
            re.sub(r"\\d\+|[0-9]+", r"[0-9]{1,4}", re.escape(head[0]))
            for form in ALL
            for sample in form.samples
            if (head := re.match(r"(?:[^\s:]+ ){0,2}[^\s:]+(?=:)", sample.lstrip(" "))) is not None
        }
    )
)
_NO_HOST: Final = rf"(?!(?:{_HEADS}|Code|Stack ?|R[A-Z\d]{{2}}|E[A-Z]{{2}}):)"
_TAG: Final = _NO_HOST + r"(?P<tag>[^\s:\[\]]{1,128})(?:\[\d{1,10}\])?:(?: |$)"
_HOST: Final = _NO_HOST + r"(?P<host>\S{0,254}[^\s:])"

_DMESG = deferred(rf"(?:<(?P<pri>\d{{1,3}})>)?{_STAMP}(?: ?{_CALLER})? ?(?P<text>.*)", re.S)
_SYSLOG = deferred(
    rf"[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d {_HOST} {_TAG}(?:{_STAMP}(?: ?{_CALLER})? ?)?(?P<text>.*)",
    re.S,
)
_ISO_SYSLOG = deferred(rf"{_ISO} {_HOST} {_TAG}(?:{_STAMP}(?: ?{_CALLER})? ?)?(?P<text>.*)", re.S)
# dmesg -T and -x in English; their other shapes are read layer by layer
_DMESG_T = deferred(
    rf"\[[A-Z][a-z]{{2}} [A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d \d{{4}}\](?: ?{_CALLER})? ?(?P<text>.*)", re.S
)
_DMESG_X = deferred(rf"kern *:(?P<level>{'|'.join(_LEVELS)}) *: {_STAMP}(?: ?{_CALLER})? ?(?P<text>.*)", re.S)
# the most frequent form: plain dmesg without a caller before the text (or a task's row)
_DMESG_BARE = deferred(r"\[ *(\d{1,12})\.(\d{6})\] ((?! {0,2}[-.]?\(\d|[(\[]|$)[^\n]*|\[ *\d{1,10}\] [^\n]*)")
_KMSG = deferred(r"\d{1,4},\d{1,20},\d{1,20}(?:,[^;\s]{0,200})?;")

_VENDOR_FIRST: Final = frozenset("([-. <")


def _may_be(line: str) -> tuple[re.Pattern[str], ...]:
    """The shapes that a line may have, by a few of its characters: their patterns are slow to compile and to
    try."""
    first = line[:1]
    if first == "[":
        return (_DMESG, _DMESG_T)
    if first == "<":
        return (_DMESG,)
    if first == "k":
        return (_DMESG_X,)
    if first.isdigit():
        return (_ISO_SYSLOG, _KMSG) if line[4:5] == "-" else (_KMSG,)
    return (_SYSLOG,) if line[9:10] == ":" else ()


#: mail quoting and the bars of quoted or piped output, with the indentation around them
QUOTE = deferred(r"(?:[ \t]{0,64}[>|])+[ \t]?")

_PRI = deferred(r"<(\d{1,3})>(?P<rfc5424>1 )?")
# RFC 5424: TIMESTAMP HOST APP PROCID MSGID [SD-ELEMENT]... MSG
_RFC5424 = deferred(
    rf"(?:{_ISO}|-) (?P<host>\S{{1,255}}) (?P<tag>\S{{1,128}}) \S{{1,128}} \S{{1,128}} "
    r"(?:-|(?:\[[A-Za-z][^\]]{0,2048}\]){1,8})(?: |$)\ufeff?"
)
# the same without the priority, as in rsyslog's file template
_RFC5424_BARE = deferred(
    rf"{_ISO} (?P<host>\S{{1,255}}) (?P<tag>[^\s:]{{1,128}}) (?:-|\d{{1,10}}) (?:-|\S{{1,32}}) "
    r"(?:-|(?:\[[A-Za-z][^\]]{0,2048}\]){1,8})(?: |$)\ufeff?"
)
_TIME_HOST_TAG = deferred(
    rf"(?:(?:[^\W\d]{{2,9}}\.? )?{_ISO}(?: {_ZONES})?|{_BSD}|(?P<unix>\d{{9,10}}\.\d{{1,9}}))[ \t]+"
    rf"(?:{_HOST} )?{_TAG}"
)
_TIME = deferred(rf"(?:{_ISO}(?: {_ZONES})?|{_BSD})(?: |$)")
_TIMED: Final = (_TIME_HOST_TAG, _RFC5424_BARE, _TIME)
# each of these holds one such time so early
_HAS_TIME: Final = deferred(r"\d:\d\d|\d{9}\.\d")
_TIME_WITHIN: Final = 64
# Talos puts the node's name first and the time last
_DECODED = deferred(
    rf"(?:[\w.:-]{{1,255}}: +)?(?P<facility>[a-z]{{3,8}}\d?) *: *(?P<level>{'|'.join(_LEVEL_NAMES)}) *:"
    rf"(?: \[{_ISO}\]:)? ?"
)
_STAMP_DELTA = deferred(r"\[ *(?P<sec>\d{1,12})\.(?P<frac>\d{1,9}) +<[ +\d.]{1,20}>\] ?")
_STAMP_PLAIN = deferred(_STAMP + " ?")
# dmesg --time-format=delta and =reltime
_RELATIVE = deferred(r"\[(?:<[ +\d.]{1,20}>| *\+\d{1,9}\.\d{1,9}|[^\W\d]{1,9}\.? {0,2}\d{1,2} \d\d:\d\d)\] ?")
# dmesg -T, also where the words of the date are not English, and terminal programs' time marks
_HUMAN = deferred(r"\[(?P<human>[^\[\]]{0,48}\d{1,2}:\d\d:\d\d[^\[\]]{0,24})\] ?")
_HUMAN_ISO = deferred(_ISO)
_CALLER_PLAIN = deferred(_CALLER + " ?")
_KERNEL_TAG = deferred(r"kernel(?:\[\d{1,10}\])?:(?: |$)")
_HOST_MONOTONIC = deferred(rf"{_HOST} {_TAG}")
# vendors' own callers behind the stamp: (0)[123:comm] of MediaTek, [0:  comm:  123] of Samsung
_VENDOR = deferred(
    r" {0,3}(?:<\d>)?[-.]?(?:\(\d{1,3}\))?"
    r"\[(?:\d{1,2}: *[^\]\[]{1,16}: *)?(?P<pid>\d{1,10})(?::[^\]\[]{1,24})?\] ?"
)
# an unknown prefix, followed by the kernel's own stamp or name
_ANYTHING = deferred(r"(?P<before>\S[^\n]{0,200}?)[\s\]](?=\[ *\d{1,12}\.\d{6}\](?:[ \[]|$))")
_CLOCK = deferred(r"(?<!\d)\d\d:\d\d:\d\d(?!\d)|^\d{9,19}$")  # or seconds since the epoch, or smaller units
_KERNEL_LAST = deferred(r"(?<![\w/-])kernel(?:\[\d{1,10}\])?:?[ \t]*$")
_OCTAL = deferred(r"#(0[0-3][0-7]|177)")


def unescape_octal(text: str) -> str:
    """Undo rsyslog's ``$EscapeControlCharactersOnReceive``, which joins the lines of one record."""
    if "#" not in text or _OCTAL.search(text) is None:
        return text
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _usec(seconds: str, fraction: str) -> int:
    if len(fraction) == 6:
        return int(seconds) * 1_000_000 + int(fraction)
    return int(seconds) * 1_000_000 + int(f"{fraction:0<6.6}")


def _iso_seconds(text: str | None, zone: str | None) -> float | None:
    """Seconds since the epoch of an ISO time; None without a zone, because the time is ambiguous then."""
    if text is None or zone is None:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(
            text.replace(" UTC", "Z").replace("UTC", "Z").replace(",", ".")
        ).timestamp()
    except ValueError:
        return None


class PrefixParser:
    """Physical line -> :class:`KmsgRecord`; remembers which shape matched last.

    After each :meth:`parse`, ``prefixed`` says whether the line had a prefix, and ``before`` holds the text
    before a stamp in the middle of the line (a program's output on the same console). ``forms`` counts the
    forms.
    """

    def __init__(self) -> None:
        self.forms: dict[SourceForm, int] = {}
        self.prefixed = False
        self.before = ""
        #: the prefix of the last line was unknown, except for the kernel's stamp in it
        self.guessed = False
        self.kernel_tag_seen = False
        self._last_before = ""
        self._shape = _DMESG

    def parse_bare(self, line: str, raw: bytes) -> KmsgRecord | None:
        """The short way for a line of plain dmesg, the most frequent form; None for all others."""
        match = _DMESG_BARE.fullmatch(line)
        if match is None or self._shape is not _DMESG or "kernel: " in line:
            return None
        self.prefixed = True
        self.before = ""
        seconds, fraction, text = match.groups()
        self.forms["dmesg"] = self.forms.get("dmesg", 0) + 1
        return KmsgRecord(text=text, usec=int(seconds) * 1_000_000 + int(fraction), raw=raw)

    def count_plain(self, form: SourceForm, count: int, *, tagged: bool) -> None:
        """Count lines with a prefix that were not parsed here; ``tagged``: it names the kernel."""
        self.prefixed = True
        self.before = ""
        self.kernel_tag_seen = self.kernel_tag_seen or tagged
        self.forms[form] = self.forms.get(form, 0) + count

    def bare_at(self, line: str) -> int | None:
        """Where the text of such a line begins, as :meth:`parse` would find it; None for all others."""
        if self._shape is not _DMESG or self.guessed or "kernel: " in line:
            return None
        match = _DMESG_BARE.fullmatch(line)
        return None if match is None else match.start(3)

    def parse(self, line: str, raw: bytes) -> KmsgRecord:
        """Parse one line, given without its newline. ``raw`` is kept in the record. Never raises."""
        shape = self._shape
        if shape is _KMSG:
            record = parse_record(raw) if line[:1].isdigit() else None
            if record is not None:
                self.prefixed = True
                self.before = ""
                self._count("kmsg")
                return record
            return self._parse_slowly(line, raw)
        match = shape.match(line)
        if match is None:
            return self._parse_slowly(line, raw)
        self.prefixed = True
        self.before = ""
        if shape is _DMESG:
            pri, seconds, fraction, caller, text = match.groups()
            if _has_layers(text):
                return self._peel(line, raw)
            if caller is None and text[:1] in _VENDOR_FIRST:
                vendor = _vendor(text, 0)
                if vendor is not None:
                    caller, text = f"T{vendor['pid']}", text[vendor.end() :]
            self._count("dmesg")
            if pri is None:
                return KmsgRecord(text=text, usec=_usec(seconds, fraction), caller=caller, raw=raw)
            number = int(pri)
            return KmsgRecord(
                text=text,
                facility=number >> 3,
                level=number & 7,
                usec=_usec(seconds, fraction),
                caller=caller,
                raw=raw,
            )
        if shape is _DMESG_T:
            caller, text = match.groups()
            if text[:1] == "[" and _STAMP_PLAIN.match(text) is not None:
                return self._peel(line, raw)
            self._count("dmesg-T")
            return KmsgRecord(text=text, caller=caller, raw=raw)
        if shape is _DMESG_X:
            self._count("dmesg")
            level, seconds, fraction, caller, text = match.groups()
            return KmsgRecord(
                text=text,
                facility=FACILITY_KERN,
                level=_LEVELS[level],
                usec=_usec(seconds, fraction),
                caller=caller,
                raw=raw,
            )
        iso, zone = match.group("iso", "zone") if shape is _ISO_SYSLOG else (None, None)
        tag, seconds, fraction, caller, text = match.group("tag", "sec", "frac", "caller", "text")
        unescaped = unescape_octal(text)
        escaped = unescaped is not text
        text = unescaped
        # journalctl and syslog files look alike, but only a syslog keeps the kernel's stamp or escapes
        # newlines
        self._count("syslog" if seconds is not None or escaped else "journal")
        return KmsgRecord(
            text=text,
            facility=self._facility_of(tag),
            usec=None if seconds is None else _usec(seconds, fraction),
            caller=caller,
            wall=None if zone is None else _iso_seconds(iso, zone),
            raw=raw,
        )

    def under(self, before: str, record: KmsgRecord) -> KmsgRecord:
        """The record of the last line, completed from an unknown prefix: a time with its zone, the kernel's
        tag."""
        wall = record.wall
        if wall is None and (iso := _HUMAN_ISO.search(before)) is not None:
            wall = _iso_seconds(iso["iso"], iso["zone"])
        facility = record.facility
        if facility is None and _KERNEL_LAST.search(before) is not None:
            facility = self._facility_of("kernel")
            self._count("syslog")
        if wall == record.wall and facility == record.facility:
            return record
        return replace(record, wall=wall, facility=facility)

    def _facility_of(self, tag: str) -> int | None:
        """kern for the kernel's tag; user for another tag, but only if the kernel's tag was seen in this log:
        a log whose kernel lines have a strange tag is still read."""
        if tag in _KERNEL_TAGS:
            self.kernel_tag_seen = True
            return FACILITY_KERN
        return FACILITY_USER if self.kernel_tag_seen else None

    def count_other(self, count: int = 1) -> None:
        """Count lines without a prefix that were not parsed here."""
        self.forms["other"] = self.forms.get("other", 0) + count

    def _count(self, form: SourceForm) -> None:
        self.forms[form] = self.forms.get(form, 0) + 1

    def _parse_slowly(self, line: str, raw: bytes) -> KmsgRecord:
        self.before = ""
        self.guessed = False
        for shape in _may_be(line):
            if shape is not self._shape and shape.match(line) is not None:
                if shape is _KMSG and parse_record(raw) is None:
                    continue
                self._shape = shape
                return self.parse(line, raw)
        return self._peel(line, raw)

    def _peel(self, line: str, raw: bytes) -> KmsgRecord:
        """Remove layer after layer; the rest is the text."""
        end = len(line)
        quote = QUOTE.match(line)
        at = quote.end() if quote else 0
        text_at = at
        fields = _Fields()
        for _ in range(8):
            while at < end and line[at] in " \t":
                at += 1
            if at == end:
                break
            if fields.form is None and _KMSG.match(line, at) is not None:
                record = parse_record(line[at:].encode())
                if record is not None:
                    self.prefixed = True
                    self._count("kmsg")
                    return record
            after = self._layer(line, at, fields)
            if after is None:
                break
            at = text_at = after
        if fields.form is None:
            found = _ANYTHING.match(line, at) if "[" in line else None
            if found is not None:
                rest = self._peel(line[found.end() :], raw)
                if rest.usec is not None:
                    self.guessed = True
                    return self._after(found["before"].strip(), rest)
                self.before = ""
        self.prefixed = fields.form is not None
        self._count(fields.form or "other")
        text = line[text_at:]
        return KmsgRecord(
            text=unescape_octal(text) if fields.form in ("syslog", "journal") else text,
            facility=fields.facility,
            level=fields.level,
            usec=fields.usec,
            caller=fields.caller,
            wall=fields.wall,
            raw=raw,
        )

    def _after(self, before: str, rest: KmsgRecord) -> KmsgRecord:
        """The record after an unknown prefix: a collector's own columns, which hold a time or were on the
        line before too, or a program's output on the same console."""
        collector = before == self._last_before or _CLOCK.search(before) is not None
        self._last_before = before
        self.before = "" if collector else before
        iso = _HUMAN_ISO.search(before) if collector else None
        wall = None if iso is None else _iso_seconds(iso["iso"], iso["zone"])
        return rest if wall is None or rest.wall is not None else replace(rest, wall=wall)

    def _layer(self, line: str, at: int, fields: _Fields) -> int | None:  # noqa: C901 - one branch for each kind of layer
        """The end of the layer that begins at ``at``; None if none begins there."""
        first = line[at]
        if first == "<":
            return _pri(line, at, fields, self)
        if first == "[" or (first == "(" and fields.stamped):
            return _bracket(line, at, fields)
        if ":" not in line[at : at + 512] and " | " not in line[at : at + 128]:
            return None
        if (match := _DECODED.match(line, at)) is not None and (
            match["facility"] in _FACILITIES or match["facility"].startswith("local")
        ):
            fields.facility = _FACILITIES.get(match["facility"], 16)
            fields.level = _LEVEL_NAMES[match["level"]]
            fields.form = "dmesg"
            if match["iso"]:
                fields.wall = _iso_seconds(match["iso"], match["zone"])
            return match.end()
        if (match := _KERNEL_TAG.match(line, at)) is not None:
            fields.form = "syslog"
            fields.facility = self._facility_of("kernel")
            return match.end()
        for pattern in _TIMED if _HAS_TIME.search(line, at, at + _TIME_WITHIN) is not None else ():
            match = pattern.match(line, at)
            if match is None:
                continue
            group = match.groupdict()
            tag = group.get("tag")
            if tag is not None:
                fields.facility = self._facility_of(tag)
            if group.get("unix"):
                fields.wall = float(group["unix"])
            else:
                fields.wall = _iso_seconds(group.get("iso"), group.get("zone"))
            fields.form = (
                "journal" if tag else "dmesg" if group.get("iso") and "," in group["iso"] else "other"
            )
            return match.end()
        if fields.stamped and not fields.tagged:
            # journalctl -o short-monotonic: the stamp comes before host and tag
            match = _HOST_MONOTONIC.match(line, at)
            if match is not None and match["tag"] in _KERNEL_TAGS:
                fields.tagged = True
                fields.facility = self._facility_of(match["tag"])
                fields.form = "journal"
                return match.end()
        return None


class _Fields:
    """The values found in the layers of one line."""

    __slots__ = ("caller", "facility", "form", "level", "stamped", "tagged", "usec", "wall")

    def __init__(self) -> None:
        self.form: SourceForm | None = None
        self.facility: int | None = None
        self.level: int | None = None
        self.usec: int | None = None
        self.caller: str | None = None
        self.wall: float | None = None
        self.stamped = False
        self.tagged = False


def _pri(line: str, at: int, fields: _Fields, parser: PrefixParser) -> int | None:
    match = _PRI.match(line, at)
    if match is None or int(match[1]) > 191:
        return None
    number = int(match[1])
    after = match.end()
    if match["rfc5424"] is not None:
        header = _RFC5424.match(line, after)
        if header is None:
            return None
        fields.wall = _iso_seconds(header["iso"], header["zone"])
        after = header.end()
    fields.facility = number >> 3
    fields.level = number & 7
    fields.form = "syslog" if match["rfc5424"] else "dmesg"
    return after


def _has_layers(text: str) -> bool:
    """Whether another prefix stands behind the stamp: the kernel's tag, a vendor's clock."""
    if text[:1] == "[":
        return _HUMAN.match(text) is not None
    return "kernel: " in text[:80] and _HOST_MONOTONIC.match(text) is not None


def _vendor(text: str, at: int) -> re.Match[str] | None:
    """A vendor's own caller; brackets without a name in them are a row of the task table."""
    match = _VENDOR.match(text, at)
    return match if match is not None and ":" in match[0] else None


def _bracket(line: str, at: int, fields: _Fields) -> int | None:
    for pattern in (_STAMP_PLAIN, _STAMP_DELTA):
        match = pattern.match(line, at)
        if match is not None and fields.usec is None:
            fields.usec = _usec(match["sec"], match["frac"])
            fields.stamped = True
            fields.form = "syslog" if fields.form in ("journal", "syslog") else fields.form or "dmesg"
            return match.end()
    match = _CALLER_PLAIN.match(line, at)
    if match is not None and fields.form is not None and fields.caller is None:
        fields.caller = match["caller"]
        return match.end()
    if fields.stamped and fields.caller is None and (match := _vendor(line, at)) is not None:
        fields.caller = f"T{match['pid']}"
        return match.end()
    match = _HUMAN.match(line, at)
    if match is not None and (not fields.stamped or fields.usec is not None):
        iso = _HUMAN_ISO.search(match["human"])
        if iso is not None:
            fields.wall = _iso_seconds(iso["iso"], iso["zone"])
        fields.stamped = True
        fields.form = fields.form or "dmesg-T"
        return match.end()
    match = _RELATIVE.match(line, at)
    if match is not None and not fields.stamped:
        fields.form = fields.form or "dmesg"
        return match.end()
    return None
