"""Physical lines -> kernel lines: join broken lines, split lines that were run together.

:mod:`.wrap` knows how kernel lines look; the class here holds a line until the next one is seen.
One long class: every rule compares the held line with the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import repeat
from typing import Final

from msgspec.structs import replace

from oomwatchd.formats import pieces
from oomwatchd.records.kmsg import FACILITY_KERN, KmsgRecord, unescape
from oomwatchd.sources.text import certain
from oomwatchd.sources.text.prefix import QUOTE, unescape_octal
from oomwatchd.sources.text.whitespace import restore_blanks
from oomwatchd.sources.text.wrap import (
    MAX_JOINED,
    LineKind,
    Piece,
    Widths,
    complete,
    goes_on,
    is_whole,
    kind_of,
    mend_blanks,
    seam,
    split_inner,
    whole_row,
    whole_rows,
)
from oomwatchd.words.deferred import deferred

_COLUMNS: Final = deferred(r"\[ *pid *\](.*)")
# dictionary lines of a raw record: " SUBSYSTEM=pci"
_DICTIONARY: Final = deferred(r" [A-Z_]{1,64}=")
# the rest of a terminal multiplexer's status at the end of a padded line
_STATUS: Final = deferred(r"\[\d{1,7}/\d{1,7}\]$")

#: bytes kept of a line and its copies
_COPIES_BYTES: Final = 16_384
#: first and last characters of a line that may need mending before it is released
_LOOK_FIRST: Final = frozenset(("", " ", "\t", "["))
_LOOK_LAST: Final = frozenset((" ", "\t", "]"))


_NONE: Final = repeat(None)


class Joiner:
    """Physical lines -> kernel lines. Holds one line until it is clear that the next does not continue it."""

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
        #: whether lines may have been run together, and whether such a line was found
        self.together = together
        self.parted = False
        #: true while the head is read for the first time
        self.learning = learning
        #: widths of lines that were certainly broken, and lengths at which one was broken inside a word
        self.broken: list[int] = []
        self.hard: Counter[int] = Counter()
        #: widths of lines that may have been broken
        self.possible: list[int] = []
        self._strip = strip
        #: every line of the text is there twice
        self.doubled = doubled
        self._line = b""
        self._held: KmsgRecord | None = None
        self._prefixed = False
        self._piece: Piece | None = None
        self._columns: int | None = None
        self._row = whole_row(None)
        #: the held line is whole and has no prefix
        self._whole = False
        self._may_be_whole = widths == Widths() and not strip and not doubled

    def take_whole(self, text: str, raw: bytes, out: list[KmsgRecord]) -> bool:
        """Take a line without a prefix that needs no mending (the short way); return whether it was one."""
        if not self._may_be_whole:
            return False
        if text[:2] == "  ":
            text = text.lstrip(" ")  # a further line of a message is indented; whole lines are not
        if text[:1] == "[":
            if self._row.fullmatch(text) is None:
                return False
        elif not is_whole(text):
            return False
        record = KmsgRecord(text=text, raw=raw)
        held = self._held
        if held is None or self._whole:
            if held is not None:
                out.append(held)
            self._held = record
            self._prefixed = False
            self._piece = None
        else:
            self._push_unprefixed(record, out)
        self._whole = self._held is record
        return True

    def take_whole_run(self, texts: list[str], lines: Sequence[bytes], out: list[KmsgRecord]) -> bool:
        """Take lines without a prefix that :func:`.wrap.whole_lines` knows; return whether they were taken.
        ``lines``: their bytes."""
        held = self._held
        if not self._may_be_whole or (held is not None and not self._whole):
            return False
        if self._columns is not None and whole_rows(self._columns).fullmatch("\n".join(texts)) is None:
            return False
        if held is not None:
            out.append(held)
        out += map(KmsgRecord, texts, _NONE, _NONE, _NONE, _NONE, repeat("-"), _NONE, _NONE, lines)
        self._held = out.pop()
        self._prefixed, self._piece, self._whole = False, None, True
        return True

    def push(self, record: KmsgRecord, prefixed: bool, out: list[KmsgRecord]) -> None:
        """Take one physical line; append lines to ``out`` that are certainly whole."""
        self._whole = False
        if prefixed:
            held = self._held
            if held is not None:
                again = record.raw == self._line and record.text == held.text
                if again and (self.doubled or record.usec is not None):
                    self._twice(held, record)
                    return
                if held.text[:4] in pieces.BEGUN and self._continues(held, record):
                    return
                out.append(self._release(held))
            self._line = record.raw
            self._held = record
            self._prefixed = True
            self._piece = None
            return
        self._push_unprefixed(record, out)

    def take_run(self, records: list[KmsgRecord], out: list[KmsgRecord]) -> None:
        """Take lines with a prefix that are whole and need no mending."""
        at = 0
        while at == 0 or (at < len(records) and self._held is not records[at - 1]):
            self.push(records[at], True, out)  # it may be a further word of the held line
            at += 1
        if rest := records[at:]:
            out.append(records[at - 1])
            self._held = last = rest.pop()
            self._line = last.raw
            out += rest

    def push_whole(self, record: KmsgRecord, out: list[KmsgRecord]) -> None:
        """Take a record that is whole in itself, unless the kernel printed the line in pieces."""
        self._whole = False
        held = self._held
        if held is not None and self._continues(held, record):
            return
        self.flush(out)
        if pieces.is_begun(record.text):
            self._held = record
            self._prefixed = True
            self._line = b""
        else:
            out.append(record)

    def _continues(self, held: KmsgRecord, record: KmsgRecord) -> bool:
        """If the record is a further word of the held line, add it; return whether it was."""
        text = pieces.joined(held.text, record.text)
        if text is None:
            return False
        self._held = replace(held, text=text, raw=held.raw + b"\n" + record.raw)
        self._piece = None
        return True

    def _twice(self, held: KmsgRecord, record: KmsgRecord) -> None:
        """Drop a second copy of the held line: two daemons wrote it, or the text has it twice. The kernel
        does not print a line twice in one microsecond. If there are many copies, the bytes of only some are
        kept."""
        if held.seq is None and len(held.raw) < _COPIES_BYTES:
            self._held = replace(held, raw=held.raw + b"\n" + record.raw)

    def flush(self, out: list[KmsgRecord]) -> None:
        """Release the held line: the input ended, or the next line does not follow it directly."""
        if self._held is not None:
            out.append(self._release(self._held))
            self._held = None
            self._piece = None

    def _release(self, record: KmsgRecord) -> KmsgRecord:  # noqa: C901 - one branch for each way a line may go on
        """The record in its final form."""
        text = record.text
        if record.seq is not None:
            return record
        as_it_is = self._piece is None and text[-1:] not in _LOOK_LAST
        if as_it_is and text[:1] not in _LOOK_FIRST and " " in text:
            return record
        if " " not in text:
            spaced = restore_blanks(text) if len(text) > 8 else text
            return record if spaced == text else replace(record, text=spaced)
        if as_it_is and text[:1] == "[" and "pid" not in text[:9]:
            return record
        if "pid" in text[:9] and (columns := _COLUMNS.match(text)) is not None:
            self._columns = len(columns[1].split()) - 1
            self._row = whole_row(self._columns)
        piece = self._piece
        mended = text
        if piece is not None and (piece.pieces > 1 or not self._prefixed):
            mended = mend_blanks(text, piece.kind)
        if mended[:1] in (" ", "\t"):
            stripped = mended.lstrip(" \t")
            if certain.is_flush_left(stripped) or (not self._prefixed and kind_of(stripped) is not None):
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
        """The held line as :mod:`.wrap` needs it."""
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
        # an empty line separates its neighbours and says nothing itself
        if text.strip():
            self._begin(record, start, out)

    @staticmethod
    def _is_under(held: KmsgRecord, text: str) -> bool:
        """Whether journalctl printed this under the first line of a program's message, as a further line."""
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

    def _join(self, held: KmsgRecord, piece: Piece, record: KmsgRecord, out: list[KmsgRecord]) -> None:  # noqa: C901 - one branch for each way a line may go on
        text = record.text
        broken = held.text.rstrip(" \t")
        if broken.endswith("\\"):  # a shell's sign that the line continues
            held = replace(held, text=broken[:-1])
            piece = piece._replace(text=broken[:-1])
            text = text.lstrip(" \t")
        if held.seq is not None:
            text = unescape(text.encode()).decode("utf-8", "backslashreplace")
        if piece.kind is not None and piece.kind.name == "summary":
            text = text.lstrip(" \t")  # one long word: leading blanks are the indent of a quotation
        elif text[:1] == "\t" or text[:2] == "  ":
            text = " " + text.lstrip(" \t")  # the wrapping indented the rest
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
