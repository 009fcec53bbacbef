"""How a document carries its lines: judged once, from its whole beginning, and then kept.

:func:`judge` is pure: bytes in, a :class:`Manner` out. :class:`Unwrapping` takes the lines of the file and
returns them as the kernel or the first collector wrote them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from oomwatchd.records.kmsg import Setting
from oomwatchd.sources.text import certain, decoration, encodings, mail, stamped
from oomwatchd.sources.text.layers import Stage, is_record
from oomwatchd.sources.text.learn import learn
from oomwatchd.sources.text.needles import has_needle
from oomwatchd.sources.text.setting import settings
from oomwatchd.sources.text.structured import VERBOSE_MARK
from oomwatchd.sources.text.wrap import split_headed, split_stamps, split_written, stamps_in
from oomwatchd.words.deferred import deferred

#: a text up to this size is judged even if no needle is found: it may be wrapped inside one
_SHORT: Final = 1 << 16
#: a longer line is cut into pieces of this size
MAX_LINE: Final = 64 * 1024

_STAMP: Final = deferred(rb"\[ *\d{1,12}\.\d{6}\]")
#: how far apart the stamps of lines may be that were run together
_ONE_CLOCK: Final = 10_000_000
_TAG: Final = b" kernel: "
_TWO_HEADS: Final = deferred(rb" kernel: [^\n]* kernel: ")
#: only a time between two stamps: all three are one prefix
_CLOCK_BETWEEN: Final = deferred(
    rb"\][^\[\n]{0,24}\d\d:\d\d:\d\d[^\[\nA-Za-z]{0,16}Z?[^\[\nA-Za-z]{0,4}\[ *\d{1,12}\.\d{6}\]"
)
#: a kernel line's end, and what certainly begins the next one
_KILL_BEHIND: Final = deferred(
    rb"[\w)] \[ *\d{1,12}\.\d{6}\] (?:[Kk]illed process \d|Out of memory|Memory cgroup out|oom[-_][kr])"
)
_RAW: Final = deferred(rb"\d{1,4},\d{1,20},\d{1,20},")
_RAW_LINES: Final = 200
#: no line of the kernel has so many blanks inside
_BLANKS: Final = b" " * 24
_GAP: Final = deferred(r"(?<=\S) {24,}(?=\S)")
_BEFORE_GAP: Final = deferred(rb"(?m)^([^\n]*?\S) {24,}(?=\S)")


class Manner(NamedTuple):
    """How a document carries its lines.

    ``mail``     it is mail with its headers, which say how its parts are encoded.
    ``carrier``  how the whole text was encoded.
    ``indent``   what stands before nearly every line.
    ``decoration``  what stands around the lines.
    ``stages``   the document's own prefixes and records, learned from it.
    ``spaced``   every line is followed by a blank line, which means nothing.
    ``padded``   most lines end in blanks that are not the kernel's.
    ``doubled``  every line is there twice.
    ``reflowed``, ``headed``, ``written``  lines run together: before stamps, before a syslog's headers,
                 with line ends written out.
    ``gapped``   a terminal broke lines at its width, and the copy has blanks in the place of the line end.
    ``verbose``  entries of ``journalctl -o verbose``.
    ``sure``     kernel text was seen in it.
    ``settings`` the lines of a report that stand in source code or prose.
    """

    mail: bool = False
    carrier: encodings.Carrier = encodings.PLAIN
    indent: bytes = b""
    decoration: decoration.Decoration = decoration.NONE
    stages: tuple[Stage, ...] = ()
    spaced: bool = False
    padded: bool = False
    doubled: bool = False
    reflowed: bool = False
    headed: bool = False
    written: bool = False
    gapped: bool = False
    verbose: bool = False
    sure: bool = False
    settings: dict[bytes, Setting] = {}

    @property
    def plain(self) -> bool:
        """Whether lines are read as they are."""
        return (
            self.carrier is encodings.PLAIN
            and self.decoration is decoration.NONE
            and not (self.mail or self.indent or self.stages or self.verbose)
            and not (self.reflowed or self.headed or self.written or self.gapped)
        )


def judge(head: Sequence[bytes], cuts: Sequence[stamped.Cut | None]) -> Manner:
    """The manner of a document that begins with these lines. ``cuts``: what :func:`stamped.cuts` knows of
    them."""
    together = b"\n".join(head)
    if stamped.all_prefixed(cuts):  # no line can be of the mail's headers
        return _judged(head, together, cuts)
    if mail.is_mail(together):
        transfer = mail.Transfer()
        head = [line for raw in head for line in transfer.take(raw)] + transfer.flush()
        return _judged(head, b"\n".join(head), ())._replace(mail=True)
    return _judged(head, together, cuts)


def _judged(head: Sequence[bytes], together: bytes, cuts: Sequence[stamped.Cut | None]) -> Manner:
    prefixed = stamped.all_prefixed(cuts)
    said = head if prefixed else [line for line in head if line.strip()]
    lines = len(said)
    carrier = encodings.judge(together)
    indent = b"" if prefixed else _indentation(said)
    found = decoration.NONE
    device = not prefixed and _is_device(said[:_RAW_LINES])
    if device:
        # nothing is removed from the device's own records
        carrier = carrier.of_raw_records()
    else:
        found = decoration.judge([line.removeprefix(indent) for line in said] if indent else said, together)
    padded = together.count(b" \n") + together.endswith(b" ")
    manner = Manner(
        carrier=carrier,
        indent=indent,
        decoration=found,
        # the first test is cheap and rules most texts out
        spaced=10 * (len(head) - lines) >= 9 * (lines - 1) and _is_spaced(head),
        padded=padded * 2 > lines,
        doubled=_is_doubled(said),
        reflowed=_is_reflowed(head, lines, stamped.behind(head, together, cuts)),
        headed=_TAG in together
        and _TWO_HEADS.search(together) is not None
        and any(len(split_headed(_bare(found, line))) > 1 for line in said),
        written=b"\\" in together
        and b"\\n" in together
        and any(
            line[:1] != b"{" and b"\\n" in line and len(split_written(_bare(found, line))) > 1
            for line in said
        ),
        gapped=_is_gapped(together),
        verbose=VERBOSE_MARK in together,
        sure=has_needle(together),
    )
    if device or manner.verbose or not (manner.sure or len(together) < _SHORT):
        return manner
    if manner.plain and not encodings.is_dirty(together):
        texts = together.decode("utf-8", "backslashreplace").split("\n")
        # each line of a log has its prefix, which source code and prose have not
        around = {} if prefixed else settings(head, texts)
        return manner._replace(stages=learn(texts, cuts), settings=around)
    unwrapping = Unwrapping(manner)
    texts, raws, shown = [], [], []
    for raw in head:
        pieces = list(unwrapping.take(raw))
        texts += [text for text, _ in pieces]
        raws += [part for _, part in pieces]
        # signs of quotation and comments are left for the eye
        as_it_is = not carrier.quoted_printable and len(pieces) == 1 and b"<" not in raw
        shown += [raw.decode("utf-8", "backslashreplace")] if as_it_is else [text for text, _ in pieces]
    return manner._replace(stages=learn(texts), settings=settings(raws, shown))


class Unwrapping:
    """Lines of the file -> lines of text: undoes everything except the learned layers."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._mail = mail.Transfer() if manner.mail else None
        #: a quoted-printable line that continues
        self._soft = b""
        self._split = manner.reflowed or manner.headed or manner.written or manner.gapped
        #: lines that show that a terminal or a serial line carried them
        self.console = 0

    def take(self, raw: bytes) -> Iterator[tuple[str, bytes]]:
        """The lines of text in one line of the file, each with its bytes."""
        for line in (raw,) if self._mail is None else self._mail.take(raw):
            yield from self._taken(line)

    def _taken(self, raw: bytes) -> Iterator[tuple[str, bytes]]:
        manner = self._manner
        if manner.spaced and not raw.strip():
            return
        if manner.indent:
            raw = raw.removeprefix(manner.indent)
        if manner.decoration is not decoration.NONE:
            raw = manner.decoration.undo(raw)
        if manner.carrier.quoted_printable:
            soft = raw.rstrip(b" \t\r")
            if soft.endswith(b"=") and len(self._soft) + len(soft) < MAX_LINE:
                self._soft += soft[:-1]
                return
            raw = encodings.quoted_printable(self._soft + raw)
            self._soft = b""
        yield from self._decoded(raw)

    def flush(self) -> Iterator[tuple[str, bytes]]:
        """The held part of a line whose continuation did not come."""
        for line in () if self._mail is None else self._mail.flush():
            yield from self._taken(line)
        soft, self._soft = self._soft, b""
        if soft:
            yield from self._decoded(soft)

    def _decoded(self, line: bytes) -> Iterator[tuple[str, bytes]]:
        carrier = self._manner.carrier
        if carrier is encodings.PLAIN:
            yield from self._cleaned(line)
            return
        parts = [line]
        if b'{"' in line and is_record(line):
            yield from self._cleaned(line)
            return
        if carrier.html:
            tagged, line = line, encodings.unmark(line)
            if not line.strip() and tagged.strip():
                return  # a line of tags alone is not a blank line
            parts = line.split(b"\n")
        for part in parts:
            if carrier.markdown:
                part = encodings.unescape_markdown(part)
            if carrier.bold:
                part = encodings.unbold(part)
            if carrier.typeset:
                part = encodings.untypeset(part)
            if carrier.coloured:
                part = encodings.uncolour(part)
            yield from self._cleaned(part)

    def _cleaned(self, line: bytes) -> Iterator[tuple[str, bytes]]:
        parts = encodings.clean(line)
        if parts != [line] and encodings.is_console(line):
            self.console += 1
        for part in parts:
            text = part.decode("utf-8", "backslashreplace")
            if self._split and text[:1] != "{":
                for piece in self._pieces(text):
                    yield piece, piece.encode("utf-8", "backslashreplace")
            else:
                yield text, part

    def _pieces(self, text: str) -> list[str]:
        """The lines that were run together in this one."""
        manner = self._manner
        pieces = [text]
        if manner.written:
            pieces = split_written(text)
        if manner.headed:
            pieces = [part for piece in pieces for part in split_headed(piece)]
        if manner.reflowed:
            pieces = [part for piece in pieces for part in split_stamps(piece)]
        if manner.gapped:
            pieces = [part for piece in pieces for part in _GAP.split(piece)]
        return pieces


def _is_device(said: Sequence[bytes]) -> bool:
    """Whether most lines are records of /dev/kmsg."""
    return 2 * sum(_RAW.match(line) is not None for line in said) > len(said)


def _bare(found: decoration.Decoration, line: bytes) -> str:
    return found.undo(line).decode("utf-8", "replace")


def _is_reflowed(head: Sequence[bytes], lines: int, behind: bytes) -> bool:
    """Whether stamped lines were run together. ``behind``: all text in which a second stamp may be."""
    if _KILL_BEHIND.search(behind) is not None and any(
        _KILL_BEHIND.search(line) is not None and _is_two(line) for line in head
    ):
        return True
    if len(_STAMP.findall(behind)) < lines:
        return False
    stamps = sum(
        max(0, stamps_in(line.decode("utf-8", "replace")) - 1)
        for line in head
        if line.count(b"[") > 1
        and line[:1] != b"{"
        and _are_of_one_clock(_STAMP.findall(line))
        and _CLOCK_BETWEEN.search(line) is None
    )
    return stamps >= 3 and stamps >= lines


def _is_two(line: bytes) -> bool:
    """Whether the line holds two lines of the kernel, each behind its stamp."""
    parts = split_stamps(line.decode("utf-8", "replace").lstrip(" \t>|"))
    texts = [part.partition("] ")[2] for part in parts]
    return len(texts) > 1 and all(map(certain.is_at_once, texts))


def _is_gapped(together: bytes) -> bool:
    """Whether stamped lines have a gap, most of them at the same column: the width of a terminal."""
    if _BLANKS not in together:
        return False
    widths = Counter(
        len(before)
        for before in _BEFORE_GAP.findall(together)
        # dmesg indents the further lines of a record: blanks behind the stamp alone
        if (stamp := _STAMP.search(before)) is not None and stamp.end() < len(before)
    )
    most = max(widths.values(), default=0)
    return most >= 3 and 2 * most > widths.total()


def _are_of_one_clock(stamps: list[bytes]) -> bool:
    """Whether the stamps of a line are all the kernel's; a collector's stamps are of another clock."""
    seconds = [float(stamp.strip(b"[] ")) for stamp in stamps]
    return len(seconds) > 1 and max(seconds) - min(seconds) < _ONE_CLOCK


def _indentation(said: Sequence[bytes]) -> bytes:
    """The indent of nearly every line, which the author of the paste added: widths are counted from there."""
    room = len(said) // 10
    for line in said:  # most texts are not indented, which soon shows
        if line[:1] not in (b" ", b"\t"):
            room -= 1
            if room < 0:
                return b""
    blanks = Counter(line[: len(line) - len(line.lstrip(b" \t"))][:64] for line in said)
    common = [
        begin
        for begin, _ in blanks.most_common(8)
        if (begin[:1] == b"\t" or len(begin) > 1)
        and 10 * sum(line.startswith(begin) for line in said) >= 9 * len(said)
    ]
    return max(common, key=len, default=b"")


def _is_spaced(lines: Sequence[bytes]) -> bool:
    """Whether a blank line follows every line, as in rich text that was saved as paragraphs."""
    said = [bool(line.strip()) for line in lines]
    apart = sum(a > b for a, b in pairwise(said))
    return apart >= 3 and 10 * apart >= 9 * (sum(said) - 1)


def _is_doubled(said: Sequence[bytes]) -> bool:
    """Whether every line is there twice, one copy after the other, as two log daemons or inputs write it."""
    twice = sum(a == b for a, b in pairwise(said))
    return len(said) >= 6 and 5 * twice >= 2 * len(said) and len(set(said)) > 2
