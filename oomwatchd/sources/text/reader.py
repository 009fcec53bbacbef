"""Bytes of a log in any form -> :class:`KmsgRecord`. No file, no clock: data is fed in.

The beginning of the text (:data:`HEAD` bytes) is held back until it was judged as a whole: whether and at
which width it was wrapped, how it was carried. From there on it is a stream in constant memory. A short
text is judged when it ends. So the records do not depend on how the data was cut into pieces.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from msgspec.structs import replace

from oomwatchd.formats.recognise import recognise
from oomwatchd.records.capture import SourceForm
from oomwatchd.records.kmsg import FACILITY_KERN, KmsgRecord, unescape
from oomwatchd.sources.text import dress, encodings
from oomwatchd.sources.text.prefix import QUOTE, PrefixParser, unescape_octal
from oomwatchd.sources.text.respace import respace
from oomwatchd.sources.text.structured import VERBOSE_MARK, ExportReader, JsonReader, VerboseReader
from oomwatchd.sources.text.wrap import (
    MAX_JOINED,
    LineKind,
    Piece,
    Widths,
    complete,
    goes_on,
    kind_of,
    mend_blanks,
    seam,
    split_headed,
    split_inner,
    split_stamps,
    split_written,
    stamps_in,
)

#: bytes that are judged as a whole before the first record comes out
HEAD: Final = 1 << 20
#: a longer line is cut into pieces of this size
MAX_LINE: Final = 64 * 1024

_STAMP: Final = re.compile(rb"\[ *\d{1,12}\.\d{6}\]")
_TWO_HEADS: Final = re.compile(rb" kernel: [^\n]* kernel: ")
_RAW: Final = re.compile(rb"\d{1,4},\d{1,20},\d{1,20},")
_RAW_LINES: Final = 200
#: bytes that tell UTF-16
_LOOK: Final = 32
_TIME_OF_DAY: Final = re.compile(rb"(?<!\d)(\d\d):(\d\d):(\d\d)(?!\d)")
#: certain breaks show the width but for the length of a word
_SLACK: Final = 8
_COLUMNS: Final = re.compile(r"\[ *pid *\](.*)")
# dictionary lines of a raw record: " SUBSYSTEM=pci"
_DICTIONARY: Final = re.compile(r" [A-Z_]{1,64}=")
#: kernel lines that some copies indent behind their stamp
_FLUSH_LEFT: Final = (
    "Memory cgroup",
    "Out of memory",
    "Killed process",
    "oom-kill:",
    "oom_reaper:",
    "[ ",
    "Mem-I",
)
# what a terminal multiplexer's status left at the end of a padded line
_STATUS: Final = re.compile(r"\[\d{1,7}/\d{1,7}\]$")


#: what is kept of a line and its copies
_COPIES_BYTES: Final = 16_384
#: what a line begins or ends with that may have to be mended on its way out
_LOOK_FIRST: Final = frozenset(("", " ", "\t", "["))
_LOOK_LAST: Final = frozenset((" ", "\t", "]"))


class Joiner:
    """Physical lines -> kernel lines. Holds one line until it is known that the next does not go on it."""

    def __init__(
        self,
        widths: Widths,
        *,
        strip: bool = False,
        together: bool = True,
        learning: bool = False,
        doubled: bool = False,
    ) -> None:
        self.widths = widths
        #: whether lines may have been run together, and whether any was found so
        self.together = together
        self.parted = False
        #: while the head is read for the first time
        self.learning = learning
        #: widths of lines that were certainly broken, and lengths at which one was broken inside a word
        self.broken: list[int] = []
        self.hard: Counter[int] = Counter()
        #: widths of lines that may have been broken
        self.possible: list[int] = []
        self._strip = strip
        #: every line of the text stands twice
        self.doubled = doubled
        self._line = b""
        self._held: KmsgRecord | None = None
        self._prefixed = False
        self._piece: Piece | None = None
        self._columns: int | None = None

    def push(self, record: KmsgRecord, prefixed: bool, out: list[KmsgRecord]) -> None:
        """Take one physical line; append to ``out`` what is known to be whole."""
        if prefixed:
            held = self._held
            if held is not None:
                if record.raw == self._line and (self.doubled or record.usec is not None):
                    self._twice(held, record)
                    return
                out.append(self._release(held))
            self._line = record.raw
            self._held = record
            self._prefixed = True
            self._piece = None
            return
        self._push_unprefixed(record, out)

    def _twice(self, held: KmsgRecord, record: KmsgRecord) -> None:
        """Two daemons wrote the same line, or a copy has it twice: the kernel does not print a line twice in
        one microsecond. Of a line that stands there any number of times some copies are kept."""
        if held.seq is None and len(held.raw) < _COPIES_BYTES:
            self._held = replace(held, raw=held.raw + b"\n" + record.raw)

    def flush(self, out: list[KmsgRecord]) -> None:
        """The input ended, or the next line is not the neighbour of the one held."""
        if self._held is not None:
            out.append(self._release(self._held))
            self._held = None
            self._piece = None

    def _release(self, record: KmsgRecord) -> KmsgRecord:
        """The record as it goes out."""
        text = record.text
        if record.seq is not None:
            return record
        as_it_is = self._piece is None and text[-1:] not in _LOOK_LAST
        if as_it_is and text[:1] not in _LOOK_FIRST and " " in text:
            return record
        if " " not in text:
            spaced = respace(text) if len(text) > 8 else text
            return record if spaced == text else replace(record, text=spaced)
        if as_it_is and text[:1] == "[" and "pid" not in text[:9]:
            return record
        if "pid" in text[:9] and (columns := _COLUMNS.match(text)) is not None:
            self._columns = len(columns[1].split()) - 1
        piece = self._piece
        mended = text
        if piece is not None and (piece.pieces > 1 or not self._prefixed):
            mended = mend_blanks(text, piece.kind)
        if mended[:1] in (" ", "\t"):
            stripped = mended.lstrip(" \t")
            if stripped.startswith(_FLUSH_LEFT) or (not self._prefixed and kind_of(stripped) is not None):
                mended = stripped
            elif not self._prefixed:
                mended = " " + stripped
        if mended[-1:] in (" ", "\t"):
            if self._strip:
                mended = mended.rstrip(" \t")
            elif mended[-12:] == " " * 12:
                mended = mended.rstrip(" ")
        elif mended[-1:] == "]" and (status := _STATUS.search(mended[-20:])) is not None:
            before = mended[: len(mended) - len(status[0])]
            if before[-12:] == " " * 12:
                mended = before.rstrip(" ")
        return record if mended is text else replace(record, text=mended)

    def _current(self) -> Piece:
        """What :mod:`.wrap` needs to know of the line that is held."""
        if self._piece is None:
            assert self._held is not None
            self._piece = self._first_piece(self._held, kind_of(self._held.text))
        return self._piece

    def _first_piece(self, record: KmsgRecord, kind: LineKind | None) -> Piece:
        line = record.raw.rpartition(b"\n")[2].decode("utf-8", "backslashreplace")
        line = line.rstrip(" \t") if self._strip else line
        quote = QUOTE.match(line)
        return Piece(
            text=record.text,
            kind=kind,
            prefixed=self._prefixed,
            width=len(line.rstrip(" \t")),
            length=len(line) - (quote.end() if quote else 0),
            pieces=1,
            columns=self._columns,
            foreign=self._prefixed and record.facility not in (None, FACILITY_KERN),
        )

    def _push_unprefixed(self, record: KmsgRecord, out: list[KmsgRecord]) -> None:
        text = record.text
        held = self._held
        if self.doubled:
            if held is not None and record.raw == self._line:
                self._twice(held, record)
                return
            self._line = record.raw
        if held is not None:
            if held.seq is not None and _DICTIONARY.match(text) is not None:
                return
            piece = self._current()
            if piece.foreign and self._is_under(held, text) and piece.length < MAX_JOINED:
                self._held = replace(held, raw=held.raw + b"\n" + record.raw)
                self._piece = piece._replace(length=piece.length + len(text))
                return
            start = kind_of(text)
            if self.learning and piece.prefixed and piece.kind is None and start is None and text.strip():
                self.possible.append(piece.width)
            if goes_on(piece, text, start, self.widths, together=self.together):
                self._join(held, piece, record, out)
                return
            self.flush(out)
        elif text.strip():
            start = kind_of(text)
        else:
            return
        # an empty line parts what is around it and says nothing
        if text.strip():
            self._begin(record, start, out)

    @staticmethod
    def _is_under(held: KmsgRecord, text: str) -> bool:
        """Whether journalctl printed this as a further line of a program's message: under its first."""
        first = held.raw.partition(b"\n")[0].decode("utf-8", "backslashreplace")
        return 8 < len(first) - len(held.text) == len(text) - len(text.lstrip(" ")) and bool(text.strip())

    def _begin(self, record: KmsgRecord, kind: LineKind | None, out: list[KmsgRecord]) -> None:
        text = record.text
        parts = split_inner(text) if self.together else [text]
        self.parted = self.parted or len(parts) > 1
        self._prefixed = False
        for part in parts:
            if self._held is not None:
                out.append(self._release(self._held))
            self._held = record if part is text else replace(record, text=part)
            self._piece = self._first_piece(self._held, kind if part is text else kind_of(part))
            if len(parts) > 1:
                self._piece = self._piece._replace(length=len(part))

    def _join(self, held: KmsgRecord, piece: Piece, record: KmsgRecord, out: list[KmsgRecord]) -> None:
        text = record.text
        if held.seq is not None:
            text = unescape(text.encode()).decode("utf-8", "backslashreplace")
        if piece.kind is not None and piece.kind.name == "summary":
            text = text.lstrip(" \t")  # one long word: blanks are the indentation of what quoted it
        elif text[:1] == "\t" or text[:2] == "  ":
            text = " " + text.lstrip(" \t")  # whoever wrapped it indented what goes on
        begun = held.text.rstrip(" \t") if self._strip else held.text
        if begun is not held.text:
            piece = piece._replace(text=begun)
        between, hard = seam(piece, text, self.widths)
        if self.learning and not complete(piece):
            self.broken.append(piece.width)
        if self.learning and hard and piece.length > 20:
            self.hard[piece.length] += 1
        joined = begun + between + text
        if piece.prefixed and held.seq is None:
            joined = unescape_octal(joined)
        kind = piece.kind
        if kind is None or piece.pieces == 1:
            kind = kind_of(joined) or kind
        after = Piece(
            text=joined,
            kind=kind,
            prefixed=piece.prefixed,
            width=len(record.raw.decode("utf-8", "backslashreplace").rstrip(" \t")),
            length=piece.length
            + len(between)
            + len(record.text.rstrip(" \t") if self._strip else record.text),
            pieces=piece.pieces + 1,
            columns=self._columns,
            foreign=piece.foreign,
        )
        self._held = replace(held, text=joined, raw=held.raw + b"\n" + record.raw)
        self._line = b""
        self._piece = after
        if piece.prefixed or not self.together:
            return
        parts = split_inner(joined)
        if len(parts) > 1:
            self.parted = True
            for part in parts[:-1]:
                self._held = replace(held, text=part, raw=self._held.raw)
                self._piece = after._replace(text=part, kind=kind_of(part))
                out.append(self._release(self._held))
            self._held = replace(held, text=parts[-1], raw=record.raw)
            self._piece = after._replace(
                text=parts[-1], kind=kind_of(parts[-1]), length=len(parts[-1]), pieces=1
            )


class TextReader:
    """A log's bytes -> records, whatever its form. Feed it, then :meth:`flush` it; it never raises.

    ``form`` may be read at any time: the form of most lines so far.
    """

    def __init__(self) -> None:
        self._parser = PrefixParser()
        self._json = JsonReader(self._parser)
        self._export: ExportReader | None = None
        self._verbose: VerboseReader | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        self._rest = bytearray()
        self._begun = False
        self._head: list[bytes] | None = []
        self._head_size = 0
        self._carrier = encodings.PLAIN
        #: what stands around its lines
        self._dress = dress.NONE
        self._soft = b""
        self._reflowed = False
        #: lines run together that have a syslog's headers, or line ends written out
        self._headed = False
        self._written = False
        self._console = 0
        self._joiner = Joiner(Widths())
        #: the text is carried as it is, and the head is done
        self._plain = False
        #: every line is followed by a blank one, which says nothing
        self._spaced = False
        #: what stands before nearly every line
        self._indent = b""

    @property
    def form(self) -> SourceForm:
        """The form that most lines have; ``other`` where none has a prefix."""
        if self._export is not None:
            return "journal-json"
        forms = self._parser.forms
        known = {form: count for form, count in forms.items() if form != "other"}
        if not known:
            return "other"
        best = max(known, key=lambda form: known[form])
        if best == "journal" and "syslog" in known:
            # the lines of programs look the same in both; only a syslog's kernel lines keep their stamps
            return "syslog"
        console = best == "dmesg" and self._console * 8 > sum(forms.values())
        return "console" if console else best

    def feed(self, data: bytes) -> list[KmsgRecord]:
        """Take data, cut anywhere; answer the records that are whole."""
        out: list[KmsgRecord] = []
        if not self._begun:
            self._rest += data
            if len(self._rest) < 64 and b"\n" not in self._rest:
                return out
            data = self._begin()
        elif self._decoder is not None:
            data = self._decoder.decode(data).encode("utf-8", "backslashreplace")
        if self._export is not None:
            return self._export.feed(data)
        self._take(data, out)
        return out

    def flush(self) -> list[KmsgRecord]:
        """The input has ended: the records that were held back."""
        out: list[KmsgRecord] = []
        if not self._begun:
            data = self._begin()
            if self._export is None:
                self._take(data, out)
            else:
                out += self._export.feed(data)
        if self._export is not None:
            return out + self._export.feed(b"\n") + self._export.flush_entry()
        if self._rest:
            line = bytes(self._rest)
            self._rest.clear()
            self._lines([line], out)
        if self._head is not None:
            self._judge(out, whole=True)
        if self._soft:
            soft, self._soft = self._soft, b""
            self._text(soft, out)
        self._end_entry(out)
        self._joiner.flush(out)
        return out

    def pause(self) -> list[KmsgRecord]:
        """Nothing more comes for now: what was fed so far is judged as it is, and the lines that are whole
        are given out. What is fed afterwards is read as this was."""
        out: list[KmsgRecord] = []
        if not self._begun or self._export is not None:
            return out
        if self._head is not None:
            self._judge(out, whole=True)
        self._end_entry(out)
        self._joiner.flush(out)
        return out

    def interrupt(self) -> list[KmsgRecord]:
        """What is fed next does not follow what was fed last (a part of the file was left out)."""
        out: list[KmsgRecord] = []
        if self._export is None and self._head is None:
            if self._rest:
                line = bytes(self._rest)
                self._rest.clear()
                self._lines([line], out)
            self._end_entry(out)
            self._joiner.flush(out)
        return out

    def _begin(self) -> bytes:
        """The first bytes: byte order marks, and the binary export format."""
        self._begun = True
        data = bytes(self._rest)
        self._rest.clear()
        for mark, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
            if data.startswith(mark):
                self._decoder = codecs.getincrementaldecoder(name)("backslashreplace")
                data = self._decoder.decode(data[len(mark) :]).encode("utf-8", "backslashreplace")
        if self._decoder is None and (found := _without_mark(data[:_LOOK])) is not None:
            self._decoder = codecs.getincrementaldecoder(found)("backslashreplace")
            data = self._decoder.decode(data).encode("utf-8", "backslashreplace")
        if data.startswith((b"__CURSOR=", b"__REALTIME_TIMESTAMP=")):
            self._export = ExportReader()
        return data

    def _take(self, data: bytes, out: list[KmsgRecord]) -> None:
        end = data.rfind(b"\n")
        if end < 0:
            self._rest += data
        else:
            if self._rest:
                self._rest += data[:end]
                whole = bytes(self._rest)
                self._rest.clear()
            else:
                whole = data[:end]
            self._rest += data[end + 1 :]
            lines = whole.split(b"\n")
            if self._plain and not encodings.is_dirty(whole):
                self._plain_lines(lines, out)
            else:
                self._lines(lines, out)
        while len(self._rest) > MAX_LINE:
            line = bytes(self._rest[:MAX_LINE])
            del self._rest[:MAX_LINE]
            self._lines([line], out)

    def _lines(self, lines: list[bytes], out: list[KmsgRecord]) -> None:
        size = sum(map(len, lines)) + len(lines)
        if self._head is not None and self._head_size + size < HEAD and len(max(lines, key=len)) <= MAX_LINE:
            self._head += lines
            self._head_size += size
            return
        for line in _bounded(lines):
            if self._head is None:
                self._physical(line, out)
                continue
            self._head.append(line)
            self._head_size += len(line) + 1
            if self._head_size >= HEAD:
                self._judge(out, whole=False)

    def _plain_lines(self, lines: list[bytes], out: list[KmsgRecord]) -> None:
        """The same as :meth:`_lines` for text that nothing has to be undone in."""
        parser = self._parser
        parse, parse_bare = parser.parse, parser.parse_bare
        push = self._joiner.push
        for line in filter(bytes.strip, lines) if self._spaced else lines:
            text = line.decode("utf-8", "backslashreplace")
            if (bare := parse_bare(text, line)) is not None:
                push(bare, True, out)
            elif len(line) > MAX_LINE:
                self._lines([line], out)
            elif text[:1] in _JSON_FIRST or text == "[":
                self._record(text, line, out)
            else:
                record = parse(text, line)
                if parser.before:
                    push(_before(parser), False, out)
                push(record, parser.prefixed, out)

    def _judge(self, out: list[KmsgRecord], *, whole: bool) -> None:
        """The head is complete: how was this text carried and wrapped? Then read it."""
        head = self._head
        assert head is not None
        self._head = None
        together = b"\n".join(head)
        self._carrier = encodings.judge(together)
        said = [line for line in head if line.strip()]
        lines = len(said)
        padded = together.count(b" \n") + together.endswith(b" ")
        stamps = 0
        if len(_STAMP.findall(together)) > lines:  # some line has more than one
            stamps = sum(
                max(0, stamps_in(line.decode("utf-8", "replace")) - 1)
                for line in head
                if line.count(b"[") > 1 and line[:1] != b"{" and len(_STAMP.findall(line)) > 1
            )
        self._reflowed = stamps >= 3 and stamps >= lines
        self._indent = _indentation(said)
        if 2 * sum(_RAW.match(line) is not None for line in said[:_RAW_LINES]) > len(said[:_RAW_LINES]):
            # of the device's own records nobody's words are taken away
            self._carrier = self._carrier.of_raw_records()
        else:
            bare = [line.removeprefix(self._indent) for line in said] if self._indent else said
            self._dress = dress.judge(bare, together)
        if _TWO_HEADS.search(together) is not None:
            self._headed = any(len(split_headed(self._bare(line))) > 1 for line in said)
        if b"\\n" in together:
            self._written = any(
                line[:1] != b"{" and b"\\n" in line and len(split_written(self._bare(line))) > 1
                for line in said
            )
        strip = padded * 2 > lines
        doubled = _is_doubled(said)
        # told by fewer steps where it cannot be
        self._spaced = 10 * (len(head) - lines) >= 9 * (lines - 1) and _is_spaced(head)
        # first with what is certain, to learn the widths; then with them
        saved = (dict(self._parser.forms), self._parser.kernel_tag_seen)
        self._joiner = trial = Joiner(Widths(), strip=strip, learning=True, doubled=doubled)
        trial_out: list[KmsgRecord] = []
        self._verbose = VerboseReader(self._parser) if VERBOSE_MARK in together else None
        self._plain = (
            self._verbose is None
            and self._carrier is encodings.PLAIN
            and self._dress is dress.NONE
            and not self._reflowed
            and not self._headed
            and not self._written
            and not self._indent
        )
        read = self._plain_lines if self._plain and not encodings.is_dirty(together) else self._all_physical
        read(head, trial_out)
        soft = max(trial.broken, default=None)
        if soft is None:
            trial.together = trial.parted
            trial.learning = False
            out += _in_order(trial_out, trial, whole)
            return
        hard = _hard_width(trial.hard, soft)
        soft = max([soft, *(width for width in trial.possible if width <= soft + _SLACK)])
        self._parser.forms, self._parser.kernel_tag_seen = dict(saved[0]), saved[1]
        self._soft = b""
        self._json = JsonReader(self._parser)
        if self._verbose is not None:
            self._verbose = VerboseReader(self._parser)
        self._console = 0
        widths = Widths(soft=soft, hard=hard)
        self._joiner = Joiner(widths, strip=strip, together=trial.parted, doubled=doubled)
        records: list[KmsgRecord] = []
        read(head, records)
        out += _in_order(records, self._joiner, whole)

    def _bare(self, line: bytes) -> str:
        return self._dress.undo(line).decode("utf-8", "replace")

    def _all_physical(self, lines: list[bytes], out: list[KmsgRecord]) -> None:
        for line in lines:
            self._physical(line, out)

    def _physical(self, raw: bytes, out: list[KmsgRecord]) -> None:
        """One line as it stands in the file."""
        if self._spaced and not raw.strip():
            return
        if self._indent:
            raw = raw.removeprefix(self._indent)
        if self._dress is not dress.NONE:
            raw = self._dress.undo(raw)
        if self._carrier.quoted_printable:
            soft = raw.rstrip(b" \t\r")
            if soft.endswith(b"=") and len(self._soft) + len(soft) < MAX_LINE:
                self._soft += soft[:-1]
                return
            line = encodings.quoted_printable(self._soft + raw)
            self._soft = b""
            self._text(line, out)
            return
        self._text(raw, out)

    def _text(self, line: bytes, out: list[KmsgRecord]) -> None:
        carrier = self._carrier
        if carrier is not encodings.PLAIN:
            if carrier.html:
                tagged, line = line, encodings.unmark(line)
                if not line.strip() and tagged.strip():
                    return  # tags alone are no blank line
                if b"\n" in line:
                    for part in line.split(b"\n"):
                        self._marked(part, out)
                    return
            self._marked(line, out)
            return
        self._cleaned(line, out)

    def _marked(self, line: bytes, out: list[KmsgRecord]) -> None:
        carrier = self._carrier
        if carrier.markdown:
            line = encodings.unescape_markdown(line)
        if carrier.typeset:
            line = encodings.untypeset(line)
        if carrier.coloured:
            line = encodings.uncolour(line)
        self._cleaned(line, out)

    def _cleaned(self, line: bytes, out: list[KmsgRecord]) -> None:
        parts = encodings.clean(line)
        if parts != [line] and encodings.is_console(line):
            self._console += 1
        for part in parts:
            text = part.decode("utf-8", "backslashreplace")
            if (self._reflowed or self._headed or self._written) and text[:1] != "{":
                for piece in self._pieces(text):
                    self._record(piece, piece.encode("utf-8", "backslashreplace"), out)
            else:
                self._record(text, part, out)

    def _pieces(self, text: str) -> list[str]:
        """The lines that one is made of."""
        pieces = [text]
        if self._written:
            pieces = split_written(text)
        if self._headed:
            pieces = [part for piece in pieces for part in split_headed(piece)]
        if self._reflowed:
            pieces = [part for piece in pieces for part in split_stamps(piece)]
        return pieces

    def _record(self, text: str, raw: bytes, out: list[KmsgRecord]) -> None:
        parser = self._parser
        if self._verbose is not None:
            records = self._verbose.take(text, raw)
            if records is not None:
                self._entries(records, out)
                return
            self._end_entry(out)
        if (text[:1] in _JSON_FIRST and text.lstrip()[:1] in _JSON_BEGIN) or text == "[":
            records = self._json.take(text, raw)
            if records is not None:
                self._entries(records, out)
                return
        record = parser.parse(text, raw)
        if parser.before:
            self._joiner.push(_before(parser), False, out)
        self._joiner.push(record, parser.prefixed, out)

    def _entries(self, records: list[KmsgRecord], out: list[KmsgRecord]) -> None:
        """Records that came out of fields."""
        for record in records:
            if record.whole:
                self._joiner.flush(out)
                out.append(record)
            else:
                self._joiner.push(record, True, out)

    def _end_entry(self, out: list[KmsgRecord]) -> None:
        if self._verbose is not None and self._verbose.waits:
            self._entries(self._verbose.flush(), out)


def _without_mark(data: bytes) -> str | None:
    """The encoding of text that is UTF-16 and does not say so: every second byte is none."""
    if len(data) < _LOOK or data.count(0) < _LOOK // 2 - 2:
        return None
    even, odd = data[::2], data[1::2]
    if not any(odd) and all(even):
        return "utf-16-le"
    return "utf-16-be" if not any(even) and all(odd) else None


def _indentation(said: list[bytes]) -> bytes:
    """What whoever pasted the text indented nearly every line by: widths are counted from there."""
    room = len(said) // 10
    for line in said:  # most texts are not, which soon shows
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


def _is_spaced(lines: list[bytes]) -> bool:
    """Whether a blank line stands behind every line, as rich text written out as paragraphs has it."""
    said = [bool(line.strip()) for line in lines]
    apart = sum(a > b for a, b in pairwise(said))
    return apart >= 3 and 10 * apart >= 9 * (sum(said) - 1)


def _is_doubled(said: list[bytes]) -> bool:
    """Whether every line stands twice, one copy behind the other, as two log daemons or inputs write them."""
    twice = sum(a == b for a, b in pairwise(said))
    return len(said) >= 6 and 5 * twice >= 2 * len(said) and len(set(said)) > 2


def _before(parser: PrefixParser) -> KmsgRecord:
    return KmsgRecord(text=parser.before, raw=parser.before.encode())


_JSON_FIRST: Final = frozenset(' \t{}]",')
_JSON_BEGIN: Final = frozenset('{}]",[')


def _bounded(lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        if len(line) <= MAX_LINE:
            yield line
        else:
            for at in range(0, len(line), MAX_LINE):
                yield line[at : at + MAX_LINE]


def _hard_width(lengths: Counter[int], widest: int) -> int | None:
    """The column at which lines were broken: the one of which most such lengths are multiples, and the
    widest broken line's before others. Each break before may have been given a blank too much."""
    if not lengths:
        return None

    def explained(width: int) -> tuple[int, bool]:
        return sum(
            count for length, count in lengths.items() if length % width < max(1, length // width)
        ), width == widest

    candidates = [width for width, _ in lengths.most_common(16)]
    best = max([*candidates, widest], key=explained)
    return best if explained(best)[0] else None


def _clock(record: KmsgRecord) -> tuple[bool, float] | None:
    """The time that a line says, and whether it is the log clock's."""
    if record.usec is not None:
        return True, record.usec / 1e6
    match = _TIME_OF_DAY.search(record.raw, 0, 120)
    return None if match is None else (False, int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3]))


def _newest_first(records: list[KmsgRecord]) -> bool:
    """Whether a log goes back in time, line by line, and its reports with it: clocks that fall may be those
    of several logs in one mail."""
    clocks: dict[bool, list[float]] = {True: [], False: []}
    for record in records:
        if (clock := _clock(record)) is None:
            continue
        kind, seconds = clock
        if kind and clocks[kind] and seconds > clocks[kind][-1]:  # time goes on: most logs are done with here
            return False
        clocks[kind].append(seconds)
    said = clocks[True] if len(clocks[True]) >= len(clocks[False]) else clocks[False]
    if len(said) < 3 or said[0] == said[-1] or any(a < b for a, b in pairwise(said)):
        return False
    sections = [found[0].section for record in records if (found := recognise(record.text)) is not None]
    return sum((a > b) - (a < b) for a, b in pairwise(sections)) >= 0


def _in_order(records: list[KmsgRecord], joiner: Joiner, whole: bool) -> list[KmsgRecord]:
    """A short log that was printed newest first (``journalctl -r``, log viewers) is turned round."""
    if not whole:
        return records
    joiner.flush(records)
    if not _newest_first(records):
        return records
    groups: list[list[KmsgRecord]] = []
    for record in records:
        if _clock(record) is None and groups:
            groups[-1].append(record)
        else:
            groups.append([record])
    return [record for group in reversed(groups) for record in group]
