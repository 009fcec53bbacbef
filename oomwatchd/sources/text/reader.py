"""Bytes of a log in any form -> :class:`KmsgRecord`. No file, no clock: data is fed in.

The beginning of the text (:data:`HEAD` bytes) is held back and judged as a whole (:mod:`.manner`): how it is
encoded, which prefixes its lines have, whether and at which width it was wrapped. After that the text is
streamed in constant memory. A short text is judged when it ends. So the records do not depend on how the data
was cut into pieces. If the beginning held no kernel text, the text is judged again from the first line that
may hold some.

One long class: a line goes through its methods step by step, and may be finished at each step.
"""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from oomwatchd.records.capture import SourceForm
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.sources.text import encodings, stamped
from oomwatchd.sources.text.joiner import Joiner
from oomwatchd.sources.text.layers import Literals, literal, undo
from oomwatchd.sources.text.manner import MAX_LINE, Manner, Unwrapping, judge
from oomwatchd.sources.text.needles import has_needle
from oomwatchd.sources.text.order import in_order
from oomwatchd.sources.text.prefix import PrefixParser
from oomwatchd.sources.text.setting import marked
from oomwatchd.sources.text.stamped import Cut
from oomwatchd.sources.text.structured import ExportReader, JsonReader, VerboseReader
from oomwatchd.sources.text.wrap import Widths, whole_lines
from oomwatchd.words.deferred import deferred

#: bytes that are judged as a whole before the first record comes out
HEAD: Final = 1 << 20
#: bytes that tell UTF-16
_LOOK: Final = 32
#: certain breaks show the width, except for the length of one word
_SLACK: Final = 8
_BARE_QUOTE: Final = deferred(r'(?<!\\)"')
_JSON_FIRST: Final = frozenset(' \t{}]",')
_JSON_BEGIN: Final = frozenset('{}]",[')


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
        #: the lines held back to be judged; None once the manner is known
        self._head: list[bytes] | None = []
        self._head_size = 0
        self._joiner = Joiner(Widths())
        self._console = 0
        self._hold(Manner())

    def _hold(self, manner: Manner) -> None:
        """Use this manner from now on."""
        self._manner = manner
        self._unwrapping = Unwrapping(manner)
        self._plain = manner.plain
        self._literals = bool(manner.stages) and any(
            isinstance(layer, Literals) and layer.ended for layer in manner.stages[0]
        )
        self._open = ""
        self._json = JsonReader(self._parser)
        self._verbose = VerboseReader(self._parser) if manner.verbose else None

    @property
    def form(self) -> SourceForm:
        """The form of most lines; ``other`` if no line has a prefix."""
        if self._export is not None:
            return "journal-json"
        forms = self._parser.forms
        known = {form: count for form, count in forms.items() if form != "other"}
        if not known:
            return "other"
        best = max(known, key=lambda form: known[form])
        if best == "journal" and "syslog" in known:
            # lines of programs look the same in both forms; only a syslog's kernel lines keep their stamps
            return "syslog"
        console = self._console + self._unwrapping.console
        return "console" if best == "dmesg" and console * 8 > sum(forms.values()) else best

    def feed(self, data: bytes) -> list[KmsgRecord]:
        """Take data, cut anywhere; return the whole records."""
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
        """The input has ended: return the records that were held back."""
        out: list[KmsgRecord] = []
        if not self._begun:
            data = self._begin()
            if self._export is None:
                self._take(data, out)
            else:
                out += self._export.feed(data)
        if self._export is not None:
            return out + self._export.feed(b"\n") + self._export.flush_entry()
        self._end_line(out)
        self._end(out, whole=True)
        return out

    def pause(self) -> list[KmsgRecord]:
        """Nothing more comes for now: judge the data so far and return its whole lines. Later data is read in
        the same manner."""
        out: list[KmsgRecord] = []
        if self._begun and self._export is None:
            self._end(out, whole=True)
        return out

    def interrupt(self) -> list[KmsgRecord]:
        """The next data does not follow the last directly (a part of the file was skipped)."""
        out: list[KmsgRecord] = []
        if self._begun and self._export is None:
            self._end_line(out)
            self._end(out, whole=False)
        return out

    def _end_line(self, out: list[KmsgRecord]) -> None:
        if self._rest:
            line = bytes(self._rest)
            self._rest.clear()
            self._lines([line], out)

    def _end(self, out: list[KmsgRecord], *, whole: bool) -> None:
        if self._head is not None:
            self._judge(out, whole=whole)
        for text, raw in self._unwrapping.flush():
            self._text(text, raw, out)
        if self._open:
            self._end_literal(b"", out)
        self._end_entry(out)
        self._joiner.flush(out)

    def _begin(self) -> bytes:
        """Read the first bytes: byte order marks, and the binary export format."""
        self._begun = True
        data = bytes(self._rest).removeprefix(codecs.BOM_UTF8)
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
            self._lines(whole.split(b"\n"), out)
        while len(self._rest) > MAX_LINE:
            line = bytes(self._rest[:MAX_LINE])
            del self._rest[:MAX_LINE]
            self._lines([line], out)

    def _lines(self, lines: Sequence[bytes], out: list[KmsgRecord]) -> None:
        """Take whole lines: they fill the head, which is then judged; later lines are read in the same
        manner."""
        head = self._head
        if head is None:
            self._behind_head(lines, out)
            return
        if len(max(lines, key=len)) > MAX_LINE:
            lines = list(_bounded(lines))
        if self._head_size + sum(map(len, lines)) + len(lines) < HEAD:
            head += lines
            self._head_size += sum(map(len, lines)) + len(lines)
            return
        for taken, line in enumerate(lines, 1):
            head.append(line)
            self._head_size += len(line) + 1
            if self._head_size >= HEAD:
                self._judge(out, whole=False)
                self._behind_head(lines[taken:], out)
                return

    def _behind_head(self, lines: Sequence[bytes], out: list[KmsgRecord]) -> None:
        """Take many whole lines after the head. If the head had no kernel text, the text is judged again from
        the first line that has some."""
        together = b"\n".join(lines)
        if not self._manner.sure and has_needle(together):
            first = next((at for at, line in enumerate(lines) if has_needle(line)), 0)
            self._behind_judged(lines[:first], together, out)
            self._begin_anew(out)
            self._lines(lines[first:], out)
        else:
            self._behind_judged(lines, together, out)

    def _behind_judged(self, lines: Sequence[bytes], together: bytes, out: list[KmsgRecord]) -> None:
        if self._plain and not encodings.is_dirty(together):
            self._plain_lines(lines, out)
        else:
            for line in _bounded(lines):
                self._physical(line, out)

    def _begin_anew(self, out: list[KmsgRecord]) -> None:
        """Judge again from here: the first line with kernel text in a document whose beginning had none."""
        self._end(out, whole=False)
        self._head = []
        self._head_size = 0

    def _plain_lines(
        self, lines: Sequence[bytes], out: list[KmsgRecord], cuts: Sequence[Cut | None] = ()
    ) -> None:
        """The same as :meth:`_lines`, for text in which nothing has to be undone. ``cuts``: what is known of
        the lines."""
        if self._manner.spaced:
            lines, cuts = list(filter(bytes.strip, lines)), ()
        for number, begin in enumerate(range(0, len(lines), stamped.BATCH)):
            batch = lines[begin : begin + stamped.BATCH]
            together = b"\n".join(batch)
            found = cuts[number] if cuts else stamped.cut(batch, together)
            if found is None:
                self._without_stamps(batch, together, out)
            else:
                self._batch(batch, together, found, out)

    def _batch(self, lines: Sequence[bytes], together: bytes, found: Cut, out: list[KmsgRecord]) -> None:
        made, others = stamped.records(lines, together, found)
        at = 0
        for stop in [*others, len(lines)]:
            if at < stop:
                self._parser.count_plain(found.shape.form, stop - at, tagged=found.shape.tagged)
                self._joiner.take_run(made[at:stop], out)
            if stop < len(lines):
                self._each((lines[stop],), out)
            at = stop + 1

    def _without_stamps(self, lines: Sequence[bytes], together: bytes, out: list[KmsgRecord]) -> None:
        self._each(lines[:1], out)
        if self._parser.prefixed:
            self._each(lines[1:], out)
            return
        texts = whole_lines(together.decode("utf-8", "backslashreplace"))
        texts.append("")
        at, end = 1, len(lines)
        while at < end:
            stop = texts.index("", at)
            if at < stop and not self._whole_run(texts[at:stop], lines[at:stop], out):
                # the line after one that is not whole may go on with it
                self._each(lines[at : at + 1], out)
                at += 1
                if at < stop and not self._whole_run(texts[at:stop], lines[at:stop], out):
                    self._each(lines[at:stop], out)
            at = stop
            while stop < end and not texts[stop]:
                stop += 1
            self._each(lines[at:stop], out)
            at = stop

    def _whole_run(self, texts: list[str], lines: Sequence[bytes], out: list[KmsgRecord]) -> bool:
        """Take whole lines without a prefix together; return whether they were taken."""
        if self._parser.prefixed or not self._joiner.take_whole_run(texts, lines, out):
            return False
        self._parser.count_other(len(texts))
        return True

    def _each(self, lines: Iterable[bytes], out: list[KmsgRecord]) -> None:
        """Take lines one by one."""
        parser = self._parser
        parse, parse_bare = parser.parse, parser.parse_bare
        push, take_whole = self._joiner.push, self._joiner.take_whole
        for line in lines:
            text = line.decode("utf-8", "backslashreplace")
            if not parser.prefixed and take_whole(text, line, out):
                parser.count_other()
            elif (bare := parse_bare(text, line)) is not None:
                push(bare, True, out)
            elif len(line) > MAX_LINE:
                for part in _bounded((line,)):
                    self._physical(part, out)
            elif text[:1] in _JSON_FIRST or text == "[":
                self._record(text, line, out)
            else:
                record = parse(text, line)
                if parser.before:
                    push(_before(parser), False, out)
                push(record, parser.prefixed, out)

    def _judge(self, out: list[KmsgRecord], *, whole: bool) -> None:
        """The head is complete: judge how the text is encoded and wrapped, then read it."""
        head = self._head
        assert head is not None
        self._head = None
        cuts = stamped.cuts(head)
        manner = judge(head, cuts)
        # the first pass joins only certain breaks, to learn the widths; the second pass uses these
        saved = (dict(self._parser.forms), self._parser.kernel_tag_seen)
        trial = Joiner(Widths(), strip=manner.padded, learning=True, doubled=manner.doubled)
        records = self._read(head, manner, trial, cuts)
        soft = max(trial.broken, default=None)
        if soft is None:
            trial.together = trial.parted
            trial.learning = False
        else:
            hard = _hard_width(trial.hard, soft)
            soft = max([soft, *(width for width in trial.possible if width <= soft + _SLACK)])
            self._parser.forms, self._parser.kernel_tag_seen = saved
            records = self._read(
                head,
                manner,
                Joiner(
                    Widths(soft=soft, hard=hard),
                    strip=manner.padded,
                    together=trial.parted,
                    doubled=manner.doubled,
                ),
                cuts,
            )
        if whole:
            self._joiner.flush(records)
            records = in_order(records)
        if manner.settings:
            records = marked(records, manner.settings)
        out += records

    def _read(
        self, head: list[bytes], manner: Manner, joiner: Joiner, cuts: Sequence[Cut | None]
    ) -> list[KmsgRecord]:
        self._console += self._unwrapping.console
        self._hold(manner)
        self._joiner = joiner
        records: list[KmsgRecord] = []
        if self._plain and not encodings.is_dirty(b"\n".join(head)):
            self._plain_lines(head, records, cuts)
        else:
            for line in head:
                self._physical(line, records)
        return records

    def _physical(self, raw: bytes, out: list[KmsgRecord]) -> None:
        """Take one line as it is in the file."""
        for text, part in self._unwrapping.take(raw):
            self._text(text, part, out)

    def _text(self, text: str, raw: bytes, out: list[KmsgRecord]) -> None:
        """Take one line whose encoding is undone; remove the learned layers."""
        stages = self._manner.stages
        if not stages:
            self._record(text, raw, out)
            return
        if self._literals:
            body = literal(text)
            if body is not None:
                self._open += body
                if self._open.endswith("\\n") or len(self._open) > MAX_LINE:
                    self._end_literal(raw, out)
                return
            self._end_literal(raw, out)
        self._learned(text, raw, out)

    def _end_literal(self, raw: bytes, out: list[KmsgRecord]) -> None:
        body, self._open = self._open, ""
        if body:
            quoted = _BARE_QUOTE.sub('\\\\"', body)  # it may have been inside quotes of the other kind
            self._learned(f'"{quoted}"', raw, out)

    def _learned(self, text: str, raw: bytes, out: list[KmsgRecord]) -> None:
        for inner, before, cut in undo(self._manner.stages, text):
            self._record(inner, raw, out, before=before, cut=cut)

    def _record(
        self, text: str, raw: bytes, out: list[KmsgRecord], *, before: str = "", cut: bool = False
    ) -> None:
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
        if parser.before and not cut:
            self._joiner.push(_before(parser), False, out)
        if cut:
            record = parser.under(before, record)
        self._joiner.push(record, parser.prefixed or cut, out)

    def _entries(self, records: list[KmsgRecord], out: list[KmsgRecord]) -> None:
        """Take records that were read from fields."""
        for record in records:
            if record.whole:
                self._joiner.push_whole(record, out)
            else:
                self._joiner.push(record, True, out)

    def _end_entry(self, out: list[KmsgRecord]) -> None:
        if self._verbose is not None and self._verbose.waits:
            self._entries(self._verbose.flush(), out)


def _without_mark(data: bytes) -> str | None:
    """The encoding of UTF-16 text without a byte order mark: nearly every second byte is NUL."""
    if len(data) < _LOOK or data.count(0) < _LOOK // 2 - 4:
        return None
    even, odd = data[::2], data[1::2]
    if all(even):
        return "utf-16-le"
    return "utf-16-be" if all(odd) else None


def _before(parser: PrefixParser) -> KmsgRecord:
    return KmsgRecord(text=parser.before, raw=parser.before.encode())


def _bounded(lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        if len(line) <= MAX_LINE:
            yield line
        else:
            for at in range(0, len(line), MAX_LINE):
                yield line[at : at + MAX_LINE]


def _hard_width(lengths: Counter[int], widest: int) -> int | None:
    """The column at which lines were broken: most lengths are multiples of it; among equals, the width of the
    widest broken line wins. Each earlier break may have added one blank."""
    if not lengths:
        return None

    def explained(width: int) -> tuple[int, bool]:
        return sum(
            count for length, count in lengths.items() if length % width < max(1, length // width)
        ), width == widest

    candidates = [width for width, _ in lengths.most_common(16)]
    best = max([*candidates, widest], key=explained)
    return best if explained(best)[0] else None
