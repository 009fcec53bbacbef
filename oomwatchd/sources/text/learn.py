"""Learn from a document what stands before and behind its kernel lines.

Kernel text is recognisable by itself (:mod:`.certain`). Where a line certainly holds some and the known
prefixes do not account for what stands before it, that is the document's own: a collector's columns, a
field of a record, a cell of a table. It is learned as a template of kinds of tokens from the lines that are
certain, and holds for all lines. What is carried twice is learned layer by layer.

Pure: the same lines give the same layers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from oomwatchd.formats.oom_kill import HEADER_MARK
from oomwatchd.sources.text import certain
from oomwatchd.sources.text.layers import (
    DELIMITERS,
    Column,
    Json,
    Label,
    Layer,
    Literals,
    Stage,
    Template,
    json_in,
    leaves,
    literal,
    row,
    undo,
)
from oomwatchd.sources.text.prefix import FACILITY_USER, PrefixParser
from oomwatchd.sources.text.structured import JsonReader

#: layers in each other
MAX_STAGES: Final = 5
#: lines that are learned from, shapes of one layer, and characters of a prefix
SAMPLE: Final = 512
MAX_SHAPES: Final = 16
MAX_PREFIX: Final = 512
_MAX_TOKENS: Final = 96
#: lines on which it is tried where the known prefixes begin
_TRIED: Final = 6
#: the text is told by its first letters
_TEXT: Final = 12
_FORMS_FOR_SUFFIX: Final = 3

_TOKEN: Final = re.compile(rf"[ \t]+|[^{DELIMITERS}]+|.", re.S)
_WORD: Final = f"[^{DELIMITERS}]"
_LABEL: Final = re.compile(r"""([A-Za-z_@][\w.@/-]{0,63})["']?[ \t]*(?:=>|[:=])[ \t]*[bu]?(["'])""")
_STRONG: Final = frozenset("[]{}()<>\"|=")
_CLOSES: Final = {'"': '"', "'": "'", "[": "]", "(": ")", "{": "}", "<": ">", "|": "|"}
_QUOTES: Final = frozenset("\"'")
_DELIMITERS: Final = (",", ";", "\t", "|")


class Sample(NamedTuple):
    """A line that holds kernel text, where that begins, and of which form it is."""

    line: str
    at: int
    form: str


def learn(lines: Sequence[str]) -> tuple[Stage, ...]:
    """What is to be taken off the lines of a document before its known prefixes, outermost first."""
    stages: list[Stage] = []
    for _ in range(MAX_STAGES):
        stage = _stage(lines)
        if not stage:
            break
        stages.append(stage)
        lines = [text for line in lines for text, _, _ in undo((stage,), line)]
    return tuple(stages)


def _stage(lines: Sequence[str]) -> Stage:
    samples = list(islice(_samples(lines), SAMPLE))
    wrong = _wrong(lines, samples)
    if not wrong or (len(wrong) == 1 and not _alone(wrong[0], lines)):
        return ()
    layers: list[Layer] = []
    if paths := _json_paths(wrong):
        layers.append(Json(paths))
        wrong = [sample for sample in wrong if layers[0].undo(sample.line) is None]
    if len(wrong) > 1 and all(literal(sample.line) for sample in wrong):
        return (*layers, Literals(any(sample.line.rstrip(" \t,;)\\+")[:-1].endswith("\\n") for sample in wrong)))
    if wrong and (column := _column(wrong)) is not None:
        layers.append(column)
        wrong = [sample for sample in wrong if column.undo(sample.line) is None]
    if wrong:
        labels = [_label_of(sample) for sample in wrong]
        counted = Counter(label for label in labels if label)
        layers += [Label.of(label) for label, count in counted.most_common(MAX_SHAPES) if count > 1 or len(wrong) < 4]
        wrong = [sample for sample, label in zip(wrong, labels, strict=True) if not label]
    if wrong:
        fine = [sample for sample in samples if sample not in set(wrong)]
        layers += _templates(wrong, fine)
    return tuple(layers)


def _samples(lines: Sequence[str]) -> Sequence[Sample]:
    return (  # type: ignore[return-value]
        Sample(line, found.at, found.form.name)
        for line in lines
        if len(line) > 8 and (found := certain.find(line)) is not None
    )


def _wrong(lines: Sequence[str], samples: Sequence[Sample]) -> list[Sample]:
    """The samples that the known prefixes do not lead to the text of."""
    parser = PrefixParser()
    reader = JsonReader(parser)
    wrong = []
    read: list[Sample] = []
    texts = 0
    for sample in samples:
        line, at, _ = sample
        record = parser.parse(line, line.encode("utf-8", "backslashreplace"))
        if record.text.lstrip(" \t").startswith(line[at : at + _TEXT]):
            continue
        if record.facility == FACILITY_USER:
            continue  # a program quotes the kernel
        if at <= MAX_PREFIX or line.lstrip(" \t")[:1] in ("{", "["):
            wrong.append(sample)
    if any(sample.line.lstrip(" \t")[:1] in ("{", '"') for sample in wrong):
        for line in lines:
            found = reader.take(line, line.encode("utf-8", "backslashreplace"))
            if found is not None:
                texts += sum(certain.find(record.text) is not None for record in found)
                if line.lstrip(" \t")[:1] in ("{", '"'):
                    read += [sample for sample in wrong if sample.line is line]
        if read and 10 * texts >= 8 * len(read):
            wrong = [sample for sample in wrong if sample not in set(read)]
    return wrong


def _alone(sample: Sample, lines: Sequence[str]) -> bool:
    """Whether another line, of a report's header, is carried as this one."""
    count = sum(HEADER_MARK in line for line in lines)
    return count > 0


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
    """The column in which the text stands, in nearly every line."""
    for delimiter in _DELIMITERS:
        if 10 * sum(delimiter in line[:at] or delimiter in line[-64:] for line, at, _ in wrong) < 9 * len(wrong):
            continue
        places: Counter[tuple[int, int]] = Counter()
        quoted = 0
        for line, _, _ in wrong:
            cells = row(line, delimiter)
            quoted += '"' in line
            index = next((i for i, cell in enumerate(cells) if certain.find(cell) is not None), None)
            if index is not None and len(cells) > 1:
                places[index, len(cells)] += 1
        if not places or (delimiter in "|," and not quoted):
            continue
        (index, count), lines = places.most_common(1)[0]
        if 20 * lines >= 19 * len(wrong):
            return Column(delimiter, index, count)
    return None


def _label_of(sample: Sample) -> str:
    """The label of the quoted string in which the text stands; "" if it stands in none."""
    line, at, _ = sample
    for match in reversed(list(_LABEL.finditer(line, 0, at))):
        quote = match[2]
        between = line[match.end() : at].replace("\\\\", "").replace("\\" + quote, "")
        if quote not in between:
            return match[1]
    return ""


# -- templates -------------------------------------------------------------------------------------


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _shape(tokens: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        " " if token[0] in " \t" else "w" if re.match(_WORD, token) else token for token in tokens
    )


def _templates(wrong: Sequence[Sample], fine: Sequence[Sample]) -> list[Layer]:
    shapes: dict[tuple[str, ...], list[tuple[Sample, list[str]]]] = {}
    for sample in wrong:
        tokens = _tokens(sample.line[: sample.at])
        if tokens and len(tokens) <= _MAX_TOKENS:
            shapes.setdefault(_shape(tokens), []).append((sample, tokens))
    groups = sorted(shapes.items(), key=lambda item: -len(item[1]))
    templates: list[Layer] = []
    rest: list[Sample] = []
    for shape, group in groups:
        if len(templates) >= MAX_SHAPES or (len(group) == 1 and len(wrong) > 2):
            rest += [sample for sample, _ in group]
            continue
        template = _template(shape, group)
        if template is not None and _harmless(template, fine):
            templates.append(template)
    rest = [sample for sample in rest if all(template.undo(sample.line) is None for template in templates)]
    if len(rest) > 2 and (tail := _tail_template(rest)) is not None and _harmless(tail, fine):
        templates.append(tail)
    return templates


def _template(shape: tuple[str, ...], group: Sequence[tuple[Sample, list[str]]]) -> Template | None:
    length = _known_from([sample for sample, _ in group[:_TRIED]], group)
    if length == 0:
        return None
    columns = [[tokens[index] for _, tokens in group] for index in range(length)]
    strong = any(kind in _STRONG for kind in shape[:length]) or any(
        kind == "w" and all(token[:1].isdigit() for token in column)
        for kind, column in zip(shape, columns, strict=False)
    )
    pattern = "".join(
        _pattern(kind, column, strong, index == length - 1)
        for index, (kind, column) in enumerate(zip(shape[:length], columns, strict=True))
    )
    prefix = re.compile(pattern)
    ends = [
        (sample.form, sample.line[match.end() :])
        for sample, _ in group
        if (match := prefix.match(sample.line)) is not None
    ]
    before = "".join(group[0][1][:length]).rstrip(" \t")
    quote = before[-1:] if before[-1:] in _QUOTES else ""
    return Template(prefix, _suffix(ends, _CLOSES.get(before[-1:] or " ", "")), quote)


def _known_from(samples: Sequence[Sample], group: Sequence[tuple[Sample, list[str]]]) -> int:
    """How many tokens stand before the prefixes that are known; all, if none is."""
    count = len(group[0][1])
    best = count
    for length in range(1, count):
        if all(_leads_to_text(sample, len("".join(tokens[:length]))) for sample, tokens in group[: len(samples)]):
            best = length
            break
    return best


def _leads_to_text(sample: Sample, at: int) -> bool:
    line = sample.line[at:]
    parser = PrefixParser()
    record = parser.parse(line, line.encode("utf-8", "backslashreplace"))
    wanted = sample.line[sample.at : sample.at + _TEXT]
    return parser.prefixed and not parser.before and record.text.lstrip(" \t").startswith(wanted)


def _pattern(kind: str, column: Sequence[str], strong: bool, last: bool) -> str:
    if kind == " ":
        return f"[ \\t]{{{min(map(len, column))}}}" if last else "[ \\t]+"
    if kind != "w":
        return re.escape(kind)
    values = set(column)
    if all(value.isdigit() and value.isascii() for value in values):
        return "[0-9]+"
    if all(value[0].isdigit() for value in values):
        return f"[0-9]{_WORD}*"
    if strong or any(character.isdigit() for value in values for character in value):
        return f"{_WORD}+"
    return "(?:" + "|".join(map(re.escape, sorted(values, key=len, reverse=True)[:64])) + ")"


def _suffix(ends: Sequence[tuple[str, str]], closes: str) -> re.Pattern[str] | None:
    """What stands behind every text."""
    tokens = [_tokens(end.rstrip(" \t\r")) for _, end in ends]
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
        if len(set(column)) > 1 and not all(token.isdigit() or token[0] in " \t" for token in column):
            break
        kind = kinds.pop()
        patterns.append(_pattern(kind, column, True, False) if kind != "w" or column[0].isdigit() else re.escape(column[0]))
        text = column[0] + text
    while patterns and text[:1].isalnum():  # whole words of the text may be the same too
        text = text[len(first[-len(patterns)]) :]
        patterns.pop()
    forms = len({form for form, _ in ends})
    enough = forms >= _FORMS_FOR_SUFFIX or (closes and text.lstrip()[:1] == closes)
    if not enough or not text.strip() or all(character.isalnum() or character in " \t" for character in text):
        return None
    return re.compile("[ \\t]*" + "".join(reversed(patterns)) + r"[ \t\r]*$")


def _tail_template(rest: Sequence[Sample]) -> Template | None:
    """Prefixes of no one shape that end alike."""
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
    return Template(prefix, _suffix(ends, _CLOSES.get(quote, "")), quote if quote in _QUOTES else "")


def _harmless(template: Template, fine: Sequence[Sample]) -> bool:
    """Whether it takes nothing away from lines that are read well without it."""
    return all(
        (match := template.prefix.match(sample.line)) is None
        or (match.end() <= sample.at and _leads_to_text(sample, match.end()))
        for sample in fine
    )


Learner = Callable[[Sequence[str]], tuple[Stage, ...]]
