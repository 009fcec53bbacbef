"""Learn from a document what stands before and after its kernel lines.

Kernel text is recognisable by itself (:mod:`.certain`). If a line certainly holds kernel text and no known
prefix explains what stands before it, that prefix is the document's own: a collector's columns, a field of a
record, a cell of a table. It is learned from the certain lines as a template of token kinds, and used for all
lines. Nested prefixes are learned layer by layer.

Pure: the same lines give the same layers.

Longer than others because learning is one chain of small steps, each used only by the next.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, islice
from typing import Final, NamedTuple

from oomwatchd.formats import neighbours
from oomwatchd.formats.recognise import ALL, recognise
from oomwatchd.records.kmsg import FACILITY_KERN
from oomwatchd.sources.text import certain, encodings
from oomwatchd.sources.text.layers import (
    BAR,
    DELIMITERS,
    Column,
    Encoded,
    Json,
    Label,
    Layer,
    Literals,
    Others,
    Stage,
    Template,
    json_in,
    leaves,
    literal,
    row,
    undo,
)
from oomwatchd.sources.text.needles import has_needle
from oomwatchd.sources.text.prefix import PrefixParser
from oomwatchd.sources.text.stamped import BATCH, Cut
from oomwatchd.sources.text.structured import JsonReader
from oomwatchd.sources.text.wrap import kind_of
from oomwatchd.words.deferred import deferred

#: nested layers at most
MAX_STAGES: Final = 5
#: lines that are learned from, shapes of one layer, and characters of a prefix
SAMPLE: Final = 512
MAX_SHAPES: Final = 16
MAX_PREFIX: Final = 512
_MAX_TOKENS: Final = 192
#: a function's line in a call trace, which no carrier looks like
_IN_A_TRACE: Final = "+0x"
#: how many lines are tried to find where the known prefixes begin
_TRIED: Final = 6
#: how many of its first letters identify a text
_TEXT: Final = 12
_FORMS_FOR_SUFFIX: Final = 3
#: texts that are looked at before all are
_FEW: Final = 16
#: lines of a text that is searched for broken lines; how many words of each are tried; kinds
#: of lines whose beginning is any word
_SHORT: Final = 256
_TOKENS_TRIED: Final = 16
_BLANK: Final = deferred(r"(?<![ \t])[ \t]++(?=\S)")  # a line of blanks is passed once
_ANYWHERE: Final = frozenset({"totals", "memcg_stat", "bare_header", "header"})
#: letters before so many lines are a prefix
_OFTEN: Final = 3
_FIGURES: Final = deferred("[0-9]+")

_TOKEN: Final = deferred(rf"[ \t]+|[^{DELIMITERS}]+|.", re.S)
_WORD: Final = f"[^{DELIMITERS}]"
_IN_A_WORD: Final = deferred(_WORD)
_LABEL: Final = deferred(r"""([A-Za-z_@][\w.@/-]{0,63})["']?[ \t]*(?:=>|[:=])[ \t]*[bu]?(["'])""")
_STRONG: Final = frozenset('[]{}()<>"|=')
_CLOSES: Final = {'"': '"', "'": "'", "[": "]", "(": ")", "{": "}", "<": ">", "|": "|"}
_STAMP: Final = deferred(r"\[ *\d{1,12}\.\d{6}\]")
# a clock, printk's stamp, or a time since the epoch in seconds or smaller units
_TIME: Final = deferred(
    r"\d\d:\d\d|\[ *\d{1,12}\.\d{6}\]|(?<![\w.])1\d{9}(?:\.\d{1,9}|\d{3}|\d{6}|\d{9})?(?![\w.])"
)
_TIME_SOON: Final = deferred(r".{0,64}?(?:\d\d:\d\d|\[ *\d{1,12}\.\d{6}\])")
_CLOCK: Final = deferred(r"\d\d:\d\d:\d\d")
_LETTERS: Final = deferred(r"[A-Za-z]{3,}")
#: numbers of things, as long as chance does not make words of these letters: 12-digit addresses, UUIDs
_HEXADECIMAL: Final = deferred(r"(?=.{0,30}[0-9])(?=.{0,30}[A-Fa-f])[0-9A-Fa-f-]{6,64}")
#: words of the kernel's reports
_VOCABULARY: Final = frozenset(
    word
    for form in ALL
    if form not in neighbours.FORMS
    for sample in form.samples
    for word in _LETTERS.findall(sample)
    if word != "kernel"
)
#: at least one in so many lines must have the prefix: others may be wrapped, or other fields
_MIN_COVERED: Final = 5
#: with more different words than this in one place, any word fits there
_MAX_WORDS: Final = 12
#: facilities that kernel text may have; None: the line names none
_KERNELS: Final = (None, FACILITY_KERN)
_NOTHING: Final = deferred("")
_NEVER: Final = deferred("(?!)")
_QUOTES: Final = frozenset("\"'")
#: what may follow the last quote of a list's element or an argument
_BEHIND_QUOTE: Final = r"[ \t,;.)\]}]*$"
_CLOSED: Final = deferred("[\"']" + _BEHIND_QUOTE)
_DELIMITERS: Final = (",", ";", "\t", BAR)


class Sample(NamedTuple):
    """A line that holds kernel text, where the text begins, and its form."""

    line: str
    at: int
    form: str


def learn(lines: Sequence[str], cuts: Sequence[Cut | None] = ()) -> tuple[Stage, ...]:
    """The layers to remove from the lines of a document before its known prefixes, outermost first. ``cuts``:
    what :func:`.stamped.cuts` knows of the lines."""
    if _is_plain(lines, cuts):
        return ()
    stages: list[Stage] = []
    for _ in range(MAX_STAGES):
        stage = _stage(lines) or (() if stages else _marked(lines))
        if not stage:
            break
        stages.append(stage)
        lines = [text for line in lines for text, _, _ in undo((stage,), line)]
        if encoded := _encoded(lines):
            stages.append(encoded)
            lines = [text for line in lines for text, _, _ in undo((encoded,), line)]
    return tuple(stages)


def _marked(lines: Sequence[str]) -> Stage:
    """The layer of records one string of which holds lines with HTML's breaks between them."""
    paths = {
        path
        for line in lines
        if '{"' in line and encodings.is_marked(line) and (inside := json_in(line)) is not None
        for path, text in leaves(inside[1])
        if encodings.is_marked(text) and has_needle(text.encode("utf-8", "backslashreplace"))
    }
    return (Json(frozenset(paths)),) if paths else ()


def _encoded(lines: Sequence[str]) -> Stage:
    """The layer for HTML and colours in these lines, which records held."""
    if not any("<" in line or "&" in line or "0m" in line or "\x1b" in line for line in lines):
        return ()
    together = "\n".join(lines).encode("utf-8", "backslashreplace")
    carrier = encodings.judge(together)
    if carrier.html or carrier.coloured or b"\x1b" in together:
        return (Encoded(carrier.html, carrier.coloured),)
    return ()


def _stage(lines: Sequence[str]) -> Stage:
    samples = list(islice(_samples(lines), SAMPLE))
    if len(lines) <= _SHORT and len({sample.form for sample in samples}) <= _FORMS_FOR_SUFFIX:
        samples = list(islice(_broken(lines, samples), SAMPLE))
    wrong = _wrong(lines, samples)
    if not wrong:
        return _behind(samples)
    if literal(wrong[0].line) is not None and (literals := _literals(lines)) is not None:
        return (literals,)
    count = len(wrong)
    layers: list[Layer] = []
    if paths := _json_paths(wrong):
        layers.append(Json(paths))
        wrong = [sample for sample in wrong if layers[0].undo(sample.line) is None]
    if wrong and (column := _column(wrong)) is not None:
        layers.append(column)
        wrong = [sample for sample in wrong if column.undo(sample.line) is None]
    if wrong:
        labels = [_label_of(sample) for sample in wrong]
        counted = Counter(label for label in labels if label)
        layers += [
            Label.of(label) for label, times in counted.most_common(MAX_SHAPES) if times > 1 or len(wrong) < 4
        ]
        wrong = [sample for sample, label in zip(wrong, labels, strict=True) if not label]
    if wrong:
        others = set(wrong)
        layers += _templates(wrong, [sample for sample in samples if sample not in others], lines)
        wrong = [sample for sample in wrong if all(layer.undo(sample.line) is None for layer in layers)]
    if layers and not wrong and count == len(samples) and all(map(_is_of_fields, layers)):
        layers.append(Others())
    elif any(isinstance(layer, Template) for layer in layers):
        layers = _with_suffix(layers, samples)
    # layers that explain only a few of many lines match by chance: those lines were broken or run together
    return tuple(layers) if layers and 2 * len(wrong) <= count else _behind(samples)


def _with_suffix(layers: list[Layer], samples: Sequence[Sample]) -> list[Layer]:
    """The layers with the suffix that all lines of the document have, whatever stands before their texts."""
    suffix = None
    if len({sample.form for sample in samples}) >= _FORMS_FOR_SUFFIX:
        suffix = _suffix([(sample.form, sample.line[sample.at :]) for sample in samples], "")
    if suffix is None:
        return layers
    return [
        *(
            layer._replace(suffix=suffix) if isinstance(layer, Template) and layer.suffix is None else layer
            for layer in layers
        ),
        Template(_NOTHING, _NOTHING, suffix),
    ]


def _is_of_fields(layer: Layer) -> bool:
    """Whether the layer is a record's field: lines without it are other fields."""
    return bool(layer.quote) if isinstance(layer, Template) else isinstance(layer, Label | Json | Column)


def _behind(samples: Sequence[Sample]) -> Stage:
    """The suffix of lines that have no unknown prefix."""
    if len({sample.form for sample in samples}) < _FORMS_FOR_SUFFIX:
        return ()
    if (column := _column(samples)) is not None:
        return (column,)
    # most texts do not end alike, which the last letters of a few show
    last = {sample.line.rstrip(" \t\r")[-1:] for sample in samples[:_FEW]}
    if len(last) > 1 and not all(map(_IN_A_WORD.match, last)):
        return ()
    suffix = _suffix([(sample.form, sample.line[sample.at :]) for sample in samples], "")
    return () if suffix is None else (Template(_NOTHING, _NOTHING, suffix),)


def _samples(lines: Iterable[str]) -> Iterable[Sample]:
    return (
        Sample(line, found.at, found.form.name)
        for line in lines
        if len(line) > 8 and (found := certain.find(line)) is not None
    )


def _broken(lines: Sequence[str], samples: Sequence[Sample]) -> Iterator[Sample]:
    """The samples, and those of lines that were broken before their kind is certain, in order."""
    waiting = iter(samples)
    following = next(waiting, None)
    for line in lines:
        if following is not None and line == following.line:
            yield following
            following = next(waiting, None)
            continue
        for tried, blank in enumerate(_BLANK.finditer(line)):
            if tried == _TOKENS_TRIED:
                break
            kind = kind_of(line[blank.end() :])
            if kind is not None and kind.closed and kind.name not in _ANYWHERE:
                yield Sample(line, blank.end(), kind.name)
                break


def _is_plain(lines: Sequence[str], cuts: Sequence[Cut | None]) -> bool:
    """Whether there is nothing to learn, as those lines show that are no plain rows of a task table or of a
    call trace: these are read well and would not change that."""
    if not any(cuts):
        return False
    told: list[str] = []
    for number, part in enumerate(cuts):
        batch = lines[number * BATCH : (number + 1) * BATCH]
        told += batch if part is None else compress(batch, map(_tells, part.texts))
    samples = list(islice(_samples(told), SAMPLE))
    return not _wrong(lines, samples) and not _behind(samples)


def _tells(text: str) -> bool:
    """Whether the line is looked at, by its text if it is plain."""
    first = text[:1]
    return first != "[" and (first != " " or _IN_A_TRACE not in text)


def _wrong(lines: Sequence[str], samples: Sequence[Sample]) -> list[Sample]:  # noqa: C901 - one branch for each reason
    """The samples whose text is not found by removing known prefixes."""
    parser = PrefixParser()
    if all(parser.bare_at(sample.line) == sample.at for sample in samples):
        return []
    reader = JsonReader(parser)
    for line in lines:
        if " kernel: " in line:  # whether the kernel's lines are marked
            parser.parse(line, b"")
            if parser.kernel_tag_seen:
                break
    wrong = []
    read: list[Sample] = []
    texts = 0
    for sample in samples:
        line, at, _ = sample
        if parser.bare_at(line) == at:
            continue
        record = parser.parse(line, line.encode("utf-8", "backslashreplace"))
        if not parser.guessed and record.text.lstrip(" \t").startswith(line[at : at + _TEXT]):
            continue
        if record.facility not in _KERNELS:
            continue  # a program quotes the kernel
        known = recognise(record.text) is not None or kind_of(record.text) is not None
        if (known and not parser.guessed) or _is_kernels(line[:at]):
            continue  # several lines run together
        if at <= MAX_PREFIX or line.lstrip(" \t")[:1] in ("{", "["):
            wrong.append(sample)
    if any(sample.line.lstrip(" \t")[:1] in ("{", '"') for sample in wrong):
        for line in lines:
            found = reader.take(line, line.encode("utf-8", "backslashreplace"))
            if found is not None:
                if not parser.guessed:  # the prefix is a known one
                    texts += sum(certain.is_at_once(record.text) for record in found)
                # a list of strings is a layer, which may hold others
                if line.lstrip(" \t")[:1] in ("{", '"') and literal(line) is None:
                    read += [sample for sample in wrong if sample.line is line]
        if read and 10 * texts >= 8 * len(read):
            wrong = [sample for sample in wrong if sample not in set(read)]
    return wrong


def _is_kernels(before: str) -> bool:
    """Whether the text is preceded by the end of another kernel line."""
    if '"' in before or "{" in before or _CLOCK.search(before) is not None:
        return False  # no line of a report has any of these
    words = _LETTERS.findall(before)
    return 2 * sum(word in _VOCABULARY for word in words) > len(words) > 1


def _literals(lines: Sequence[str]) -> Literals | None:
    """The layer of source code whose lines are all string literals; None for other documents."""
    found = [body for line in lines if (body := literal(line)) is not None]
    if 2 * len(found) < sum(bool(line.strip()) for line in lines):
        return None
    return Literals(any(body.endswith("\\n") for body in found))


def _json_paths(wrong: Sequence[Sample]) -> frozenset[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for sample in wrong:
        inside = json_in(sample.line)
        if inside is None or inside[0] > sample.at:
            continue
        for path, text in leaves(inside[1]):
            if any(certain.find(part) is not None for part in text.split("\n")):
                found[path] += 1
    return frozenset(found)


def _column(wrong: Sequence[Sample]) -> Column | None:
    """The column that holds the text in nearly every line."""
    for delimiter in _DELIMITERS:
        room = len(wrong) // 10  # lines that may be without it
        for line, at, _ in wrong:
            if delimiter not in line[:at] and delimiter not in line[-64:]:
                room -= 1
                if room < 0:
                    break
        if room < 0:
            continue
        if all(_is_within_label(sample, delimiter) for sample in wrong[:_TRIED]):
            continue
        places: Counter[tuple[int, int]] = Counter()
        quoted, others = 0, False
        for line, _, _ in wrong:
            cells = row(line, delimiter)
            quoted += '"' in line
            index = next((i for i, cell in enumerate(cells) if certain.find(cell) is not None), None)
            if index is not None and len(cells) > 1:
                places[index, len(cells)] += 1
                others = others or any(cell.strip() for cell in (*cells[:index], *cells[index + 1 :]))
        if not places or (delimiter == "," and not quoted):
            continue
        if delimiter != BAR and not others:
            continue  # the text is indented with tabs
        (index, count), lines = places.most_common(1)[0]
        if 20 * lines >= 19 * len(wrong):
            return Column(delimiter, index, count)
    return None


def _is_within_label(sample: Sample, delimiter: str) -> bool:
    """Whether the first delimiter stands before the text, inside the quoted string that holds the text."""
    label, at = _label_at(sample)
    return bool(label) and at < sample.line.find(delimiter) < sample.at


def _label_of(sample: Sample) -> str:
    """The label of the outermost quoted string that holds the text; "" if there is none."""
    return _label_at(sample)[0]


def _label_at(sample: Sample) -> tuple[str, int]:
    """The same, and where it begins."""
    line, at, _ = sample
    for match in _LABEL.finditer(line, 0, at):
        quote = match[2]
        between = line[match.end() : at].replace("\\\\", "").replace("\\" + quote, "").replace(quote * 2, "")
        if quote not in between:
            return (match[1] if _has(Label.of(match[1]), sample) else ""), match.start()
    return "", 0


def _has(label: Label, sample: Sample) -> bool:
    cut = label.undo(sample.line)
    return cut is not None and any(certain.find(line) is not None for line in cut.lines)


# -- templates -------------------------------------------------------------------------------------


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _shape(tokens: Sequence[str]) -> tuple[str, ...]:
    return tuple(" " if token[0] in " \t" else "w" if _IN_A_WORD.match(token) else token for token in tokens)


def _templates(wrong: Sequence[Sample], fine: Sequence[Sample], lines: Sequence[str]) -> list[Layer]:
    """Templates of the prefixes of these samples, if most of the lines around them have one too."""
    shapes: dict[tuple[str, ...], list[tuple[Sample, list[str]]]] = {}
    for sample in wrong:
        tokens = _tokens(sample.line[: sample.at])
        if tokens and len(tokens) <= _MAX_TOKENS:
            shapes.setdefault(_shape(tokens), []).append((sample, tokens))
    # a table may quote only the cells that need it: such quotes are left to the table's layer
    unquoted = {_shape(_tokens(sample.line[: sample.at])) for sample in fine} | shapes.keys()
    cells = {shape for shape in unquoted if (*shape, '"') in shapes}
    for shape in cells:
        shapes.setdefault(shape, []).extend(
            (sample._replace(at=sample.at - 1), tokens[:-1]) for sample, tokens in shapes.pop((*shape, '"'))
        )
    groups = sorted(shapes.items(), key=lambda item: -len(item[1]))
    first, last = lines.index(wrong[0].line), len(lines) - 1 - lines[::-1].index(wrong[-1].line)
    around = [line for line in lines[first : last + 1] if line.strip()]
    templates: list[Layer] = []
    weak: list[Template] = []
    rest: list[Sample] = []
    for shape, group in groups:
        if len(templates) >= MAX_SHAPES or not _is_custom(group, len(wrong) + len(fine)):
            rest += [sample for sample, _ in group]
            continue
        for free in (True, False):
            template, strong = _template(shape, group, free=free, whole=shape in cells)
            # any word: then it must not take a part of another prefix
            if _harmless(template, [*fine, *wrong] if free else fine):
                if strong or _is_on_all([template], group, around):
                    templates.append(template._replace(suffix=None) if shape in cells else template)
                    break
                if not free:
                    weak.append(template)
    templates += _together(weak, templates, [pair for _, group in groups for pair in group], around)
    templates.sort(key=_specific, reverse=True)
    rest = [sample for sample in rest if all(template.undo(sample.line) is None for template in templates)]
    if len(rest) > 2 and (tail := _tail_template(rest)) is not None and _harmless(tail, fine):
        templates.append(tail)
    covered = sum(any(template.undo(line) is not None for template in templates) for line in around)
    return templates if _MIN_COVERED * covered >= len(around) else []


def _is_one_phrase(shape: Sequence[str], columns: Sequence[Sequence[str]]) -> bool:
    """Whether the prefix is frequent and always has the same words."""
    words = [column for kind, column in zip(shape, columns, strict=True) if kind == "w"]
    return (
        len(columns[0]) > 2
        and all(len({_uncounted(word) for word in column}) == 1 for column in words)
        and any(_says_something(_uncounted(column[0]), len(column)) for column in words)
    )


def _counted(words: set[str]) -> str:
    """The pattern of one word with a figure behind it, as lines are counted; "" if these are other words."""
    first = _uncounted(next(iter(words)))
    if any(map(str.isalpha, first)) and all(
        re.fullmatch(re.escape(first) + "[0-9]+", word) for word in words
    ):
        return f"{re.escape(first)}[0-9]+"
    return ""


def _uncounted(word: str) -> str:
    """A word without the figures that count it: ``node17``."""
    return _FIGURES.sub("", word) or "0"


def _says_something(word: str, times: int) -> bool:
    """Whether it is a word, or letters that stand there so often that they are no part of the text."""
    return _LETTERS.search(word) is not None or (times > _OFTEN and any(map(str.isalpha, word)))


def _is_on_all(
    templates: Sequence[Layer], group: Sequence[tuple[Sample, list[str]]], around: Sequence[str]
) -> bool:
    """Whether nearly every line has one of the prefixes: then any words or figures are accepted in it."""
    if len({sample.form for sample, _ in group}) < _FORMS_FOR_SUFFIX:
        return False
    prefixes = [template.prefix for template in templates if isinstance(template, Template)]
    having = sum(any(prefix.match(line) is not None for prefix in prefixes) for line in around)
    return 10 * having >= 9 * len(around)


def _together(
    weak: Sequence[Template],
    templates: Sequence[Layer],
    samples: Sequence[tuple[Sample, list[str]]],
    around: Sequence[str],
) -> Sequence[Template]:
    """The shape may alternate, also with known prefixes: each is on some lines, and together they are on
    all."""
    if not weak:
        return ()
    unread = [line for line in around if not _is_prefixed(line)]
    return weak if _is_on_all([*templates, *weak], samples, unread) else ()


def _specific(layer: Layer) -> int:
    """How specific a template is: of two that match, the longer one is right."""
    return len(layer.prefix.pattern) if isinstance(layer, Template) else 0


def _is_prefixed(line: str) -> bool:
    """Whether the line has a known prefix."""
    parser = PrefixParser()
    parser.parse(line, b"")
    return parser.prefixed and not parser.guessed


def _is_custom(group: Sequence[tuple[Sample, list[str]]], samples: int) -> bool:
    """Whether the prefix belongs to the document: it occurs again, or holds a time. After the kernel's own
    stamp it is more likely the rest of another line."""
    line, at, _ = group[0][0]
    stamp = _STAMP.match(line.lstrip(" \t>"))
    if stamp is not None and _TIME.search(line, line.index("]") + 1, at) is None:
        return len(group) > 2 and 2 * len(group) > samples
    return len(group) > 1 or samples == 1 or _TIME.search(line, 0, at) is not None


def _template(
    shape: tuple[str, ...], group: Sequence[tuple[Sample, list[str]]], *, free: bool, whole: bool
) -> tuple[Template, bool]:
    """The template for prefixes of one shape, and whether it could hardly match the kernel's own text.
    ``free``: it also accepts words that were not seen. ``whole``: it includes known prefixes too."""
    length = len(shape) if whole else _known_from(group)
    columns = [[tokens[index] for _, tokens in group] for index in range(length)]
    cuts = [(sample.line, sample.at, len("".join(tokens[:length]))) for sample, tokens in group]
    marked = any(kind in _STRONG for kind in shape[:length]) or all(
        _TIME.search(line[:cut]) is not None for line, _, cut in cuts
    )
    own = marked or _is_one_phrase(shape[:length], columns)
    # or a time in the known prefix behind: then it must be there
    ahead = (
        not own
        and length < len(shape)
        and all(_TIME_SOON.match(line[cut:at]) is not None for line, at, cut in cuts)
    )
    strong = own or ahead

    def pattern(*, any_word: bool) -> str:
        exact = not (any_word or marked or ahead)
        return "".join(
            _pattern(kind, column, free=any_word, last=index == length - 1, exact=exact)
            for index, (kind, column) in enumerate(zip(shape[:length], columns, strict=True))
        )

    # a phrase is known by its words alone
    prefix, loose = pattern(any_word=free and (marked or ahead)), pattern(any_word=True)
    if ahead:
        # a further line of a message has the same words, and no time
        figures = any(character.isdigit() for column in columns for token in column for character in token)
        soon = f"(?={_TIME_SOON.pattern})"
        same = "" if figures else f"{pattern(any_word=False)}|"
        prefix, loose = f"{same}{prefix}{soon}", f"{loose}{soon}"
    learned = deferred(prefix)
    ends = [
        (sample.form, sample.line[match.end() :])
        for sample, _ in group
        if (match := learned.match(sample.line)) is not None
    ]
    begun = "".join(group[0][1][:length])
    before = begun.rstrip(" \t")
    if before != begun and before[-1:] in _QUOTES and before.count(before[-1]) % 2 == 0:
        before = ""  # the quote ends a value of the prefix
    quote = before[-1:] if before[-1:] in _QUOTES else ""
    return Template(
        learned, deferred(loose), _suffix(ends, _CLOSES.get(before[-1:] or " ", "")), quote
    ), strong


def _known_from(group: Sequence[tuple[Sample, list[str]]]) -> int:
    """How many tokens stand before the known prefixes; all tokens, if no prefix is known."""
    count = len(group[0][1])
    best = count
    for length in range(1, count):
        if group[0][1][length][0] in " \t":
            continue
        if all(_leads_to_text(sample, len("".join(tokens[:length]))) for sample, tokens in group[:_TRIED]):
            best = length
            break
    return best


def _leads_to_text(sample: Sample, at: int) -> bool:
    line = sample.line[at:]
    parser = PrefixParser()
    record = parser.parse(line, line.encode("utf-8", "backslashreplace"))
    wanted = sample.line[sample.at : sample.at + _TEXT]
    if record.facility not in _KERNELS:
        return False
    return parser.prefixed and not parser.guessed and record.text.lstrip(" \t").startswith(wanted)


def _pattern(kind: str, column: Sequence[str], *, free: bool, last: bool, exact: bool = False) -> str:
    """The pattern for one token of a prefix. It accepts only words that were seen, or any word if ``free``;
    ``exact``: also no other figures than those in a word."""
    if kind == " ":
        return f"[ \\t]{{{min(map(len, column))}}}" if last else "[ \\t]+"
    if kind != "w":
        return re.escape(kind)
    values = set(column)
    if all(value.isdigit() and value.isascii() for value in values):
        return "[0-9]+"
    if all(map(_HEXADECIMAL.fullmatch, values)):
        return "[0-9A-Fa-f-]+"
    if all(value[0].isdigit() for value in values):
        return f"[0-9]{_WORD}*"
    if exact and len(values) == 1:
        return re.escape(values.pop())
    if not free and len(values) > 1 and (counted := _counted(values)):
        return counted
    if (
        free
        or len(values) > _MAX_WORDS
        or any(character.isdigit() for value in values for character in value)
    ):
        return f"{_WORD}+"
    return "(?:" + "|".join(map(re.escape, sorted(values, key=len, reverse=True))) + ")"


def _suffix(ends: Sequence[tuple[str, str]], closes: str) -> re.Pattern[str] | None:
    """The suffix of every text; None: there is none, or there is no text."""
    if not ends:
        return None
    if closes in _QUOTES and all(_CLOSED.search(end) for _, end in ends):
        return re.compile(re.escape(closes) + "+" + _BEHIND_QUOTE)
    # the last element of a list has no comma behind its quote
    comma = re.compile(re.escape(closes) + r",(?=[ \t]|$)") if closes in _QUOTES else _NEVER
    few = [_tokens(comma.sub(closes, end.rstrip(" \t\r"))) for _, end in ends[:_FEW]]
    if not _end_alike(few):  # most texts do not, which a few of them show
        return None
    tokens = few + [_tokens(comma.sub(closes, end.rstrip(" \t\r"))) for _, end in ends[_FEW:]]
    first = tokens[0]
    patterns: list[str] = []
    text = ""
    for place in range(1, len(first)):
        if any(len(other) <= place for other in tokens):
            break
        column = [other[-place] for other in tokens]
        kinds = {_shape([token])[0] for token in column}
        if len(kinds) > 1:
            break
        kind = kinds.pop()
        figures = all(token[0].isdigit() for token in column)
        if kind == "w" and not figures and len(set(column)) > 1:
            break
        patterns.append(_pattern(kind, column, free=figures, last=False) + ",?" * (kind == closes))
        text = column[0] + text
    while patterns and text[:1].isalnum():  # the texts may end with the same words too
        text = text[len(first[-len(patterns)]) :]
        patterns.pop()
    forms = len({form for form, _ in ends})
    enough = forms >= _FORMS_FOR_SUFFIX or (closes and text.lstrip()[:1] == closes)
    if not enough or not text.strip() or all(character.isalnum() or character in " \t" for character in text):
        return None
    return re.compile("[ \\t]*" + "".join(reversed(patterns)) + r"[ \t\r]*$")


def _end_alike(tokens: Sequence[Sequence[str]]) -> bool:
    """Whether the last tokens of these texts may be one suffix."""
    if any(len(some) < 2 for some in tokens):
        return False
    column = [some[-1] for some in tokens]
    kinds = {_shape([token])[0] for token in column}
    if len(kinds) > 1:
        return False
    return kinds != {"w"} or len(set(column)) == 1 or all(token[0].isdigit() for token in column)


def _tail_template(rest: Sequence[Sample]) -> Template | None:
    """A template for prefixes of different shapes with the same end."""
    tokens = [_tokens(sample.line[: sample.at]) for sample in rest]
    tail = ""
    for place in range(1, min(map(len, tokens)) + 1):
        column = {other[-place] for other in tokens}
        if len(column) > 1:
            break
        tail = column.pop() + tail
    if len(tail.strip()) < 2 or all(character.isalnum() or character in " \t" for character in tail):
        return None
    prefix = re.compile(f".{{0,{MAX_PREFIX}}}?" + re.escape(tail))
    if any((match := prefix.match(sample.line)) is None or match.end() != sample.at for sample in rest):
        return None
    quote = tail.rstrip(" \t")[-1:]
    ends = [(sample.form, sample.line[sample.at :]) for sample in rest]
    return Template(prefix, prefix, _suffix(ends, _CLOSES.get(quote, "")), quote if quote in _QUOTES else "")


def _harmless(template: Template, fine: Sequence[Sample]) -> bool:
    """Whether the template leaves lines unchanged that are read well without it."""
    return all(
        (match := template.prefix.match(sample.line)) is None
        or match.end() == sample.at
        or (match.end() < sample.at and _leads_to_text(sample, match.end()))
        for sample in fine
    )
