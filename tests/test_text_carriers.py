"""Reports are the same whatever a document puts around their lines.

Carriers are generated from templates of kinds of tokens, with random names and words, one in another; the
report without any carrier is what each must equal. With ``OOMWATCHD_EXAMPLES=50`` in the environment pytest
tries fifty times as many, others in each run.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from oomwatchd.formats.recognise import ALL
from oomwatchd.records.kmsg import parse_record
from oomwatchd.reports.assemble import Assembler, OomBlock
from tests.conftest import corpus_directory
from tests.field_score import reports

SHORT = """\
java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=934
memory: usage 102400kB, limit 102400kB, failcnt 434
Tasks state (memory values in pages):
[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
[  29454]  1000 29454   102454    25400   282624        0           934 java
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=abc,mems_allowed=0,oom_memcg=/docker/abc,\
task_memcg=/docker/abc,task=java,pid=29454,uid=1000
Memory cgroup out of memory: Killed process 29454 (java) total-vm:409816kB, anon-rss:88500kB, \
file-rss:13100kB, shmem-rss:0kB, UID:1000 pgtables:276kB oom_score_adj:934
""".splitlines()

#: what a carrier may add or take: clocks, and how long the kernel took by them
CLOCKS = {"first_usec", "kill_usec", "first_wall"}


def said(data: str) -> list[dict[str, Any]]:
    """Every field of the reports in a text, but for clocks."""
    found, _ = reports(data.encode())
    fields: list[dict[str, Any]] = [msgspec.to_builtins(report) for report in found]
    return [{key: value for key, value in report.items() if key not in CLOCKS} for report in fields]


#: how many times more examples than in the suite are tried, then at random
TIMES = int(os.environ.get("OOMWATCHD_EXAMPLES", "1"))


def trying(examples: int) -> settings:
    """So many examples, or as many times more as were asked for."""
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        derandomize=TIMES == 1,
        suppress_health_check=[HealthCheck.too_slow],
    )


Carrier = Callable[[list[str]], list[str]]
START = datetime(2024, 4, 29, 14, 55, 41, 678628, UTC)

#: words of the kernel's own lines: a prefix of them alone is such a line
_KERNELS = {
    word for form in ALL for sample in form.samples for word in re.findall(r"[a-z]{2,}", sample.lower())
}
words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=9).filter(lambda w: w not in _KERNELS)
hosts = st.from_regex(r"[a-z]{2,6}(-[a-z0-9]{1,5}){0,3}", fullmatch=True)
_numbers = st.integers(0, 99_999).map(str)

#: time stamps of many kinds, as functions of the moment
STAMPS: list[Callable[[datetime], str]] = [
    lambda t: t.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    lambda t: (t + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S+02:00"),
    lambda t: t.strftime("%Y-%m-%d %H:%M:%S,%f")[:-3],
    lambda t: t.strftime("%H:%M:%S"),
    lambda t: t.strftime("%H:%M:%S.%f"),
    lambda t: t.strftime("%b %d %H:%M:%S"),
    lambda t: t.strftime("%d/%b/%Y:%H:%M:%S +0000"),
    lambda t: t.strftime("%Y/%m/%d %H:%M:%S"),
    lambda t: t.strftime("%m-%d %H:%M:%S.%f")[:-3],
    lambda t: t.strftime("%a %b %d %H:%M:%S %Y"),
    lambda t: f"{t.timestamp():.6f}",
    lambda t: str(int(t.timestamp() * 1000)),
]
BRACKETS = ["{}", "[{}]", "({})", "<{}>", "{}:", "{} |", "| {} |", "{} -", "{{{}}}", '"{}"']
LEVELS = ["INFO", "WARN", "E", "I", "warning", "kern.err", "level=info", "notice"]


@st.composite
def tokens(draw: st.DrawFn) -> Callable[[int], str]:
    """One token of a prefix, as a function of the line's number."""
    kind = draw(st.sampled_from(["stamp", "word", "host", "number", "level", "label", "tag"]))
    # <N> is a syslog's priority: it says whose line it is
    bracket = draw(st.sampled_from([b for b in BRACKETS if kind != "number" or b != "<{}>"]))
    if kind == "stamp":
        stamp = draw(st.sampled_from(STAMPS))
        return lambda line: bracket.format(stamp(START + timedelta(milliseconds=line)))
    if kind == "number":
        first, step = draw(st.integers(0, 5000)), draw(st.sampled_from([0, 1, 17]))
        return lambda line: bracket.format(first + step * line)
    if kind == "level":
        levels = draw(st.lists(st.sampled_from(LEVELS), min_size=1, max_size=2))
        return lambda line: bracket.format(levels[line % len(levels)])
    if kind == "label":
        key, value = draw(words), draw(hosts)
        return lambda line: f'{{{key}="{value}"}}'
    if kind == "tag":
        tag, number = draw(words), draw(_numbers)
        return lambda line: f"{tag}[{number}]:"
    word = draw(hosts if kind == "host" else words)
    return lambda line: bracket.format(word)


@st.composite
def prefixes(draw: st.DrawFn) -> Carrier:
    """A prefix of one to five tokens."""
    several = draw(st.lists(tokens(), min_size=1, max_size=5))
    gap = draw(st.sampled_from([" ", "  ", "\t"]))
    return lambda lines: [
        gap.join(token(number) for token in several) + " " + line for number, line in enumerate(lines)
    ]


@st.composite
def objects(draw: st.DrawFn) -> Carrier:
    """An object of JSON a line, the text under any key, perhaps within another object."""
    keys = draw(st.lists(words, min_size=3, max_size=5, unique=True))
    deep, before = draw(st.booleans()), draw(st.sampled_from(["", "data: ", "2024-04-29T14:55:41Z "]))
    place = draw(st.integers(0, 2))

    def carry(lines: list[str]) -> list[str]:
        out = []
        for number, line in enumerate(lines):
            entry: dict[str, Any] = {key: f"{key}{number}" for key in keys}
            entry[keys[place]] = {"inner": line} if deep else line
            out.append(before + json.dumps(entry))
        return out

    return carry


@st.composite
def tables(draw: st.DrawFn) -> Carrier:
    """A column of a table."""
    delimiter = draw(st.sampled_from([",", ";", "\t"]))
    everywhere = draw(st.booleans())
    host, word = draw(hosts), draw(words)
    place = draw(st.integers(0, 2))

    def carry(lines: list[str]) -> list[str]:
        stream = io.StringIO()
        if everywhere:
            writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
        else:
            writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        for number, line in enumerate(lines):
            cells = [f"{START + timedelta(seconds=number)}", host, f"{word} {number}"]
            cells.insert(place, line)
            writer.writerow(cells)
        return stream.getvalue().splitlines()

    return carry


@st.composite
def fields(draw: st.DrawFn) -> Carrier:
    """logfmt and its relatives: labels with quoted values."""
    keys = draw(st.lists(words, min_size=3, max_size=3, unique=True))
    form = draw(st.sampled_from(['{}="{}"', '"{}"=>"{}"', '{}: "{}"', "'{}': '{}'"]))
    between = draw(st.sampled_from([" ", ", "]))
    place = draw(st.integers(0, 2))

    def carry(lines: list[str]) -> list[str]:
        out = []
        for number, line in enumerate(lines):
            quote = form[-1]
            values = [f"v{number}", f"{number * 3}", "x y"]
            values[place] = line.replace("\\", "\\\\").replace(quote, "\\" + quote)
            out.append(between.join(form.format(*pair) for pair in zip(keys, values, strict=True)))
        return out

    return carry


@st.composite
def documents(draw: st.DrawFn) -> Carrier:
    """A document of JSON as a whole: an array or an object, over as many lines as its indentation makes."""
    keys = draw(st.lists(words, min_size=2, max_size=4, unique=True))
    place = draw(st.integers(0, 1))
    indent = draw(st.sampled_from([1, 2, 4]))
    shape = draw(st.sampled_from(["strings", "objects", "under a key"]))

    def carry(lines: list[str]) -> list[str]:
        if shape == "strings":
            whole: object = lines
        else:
            whole = [
                {key: line if at == place else f"{key} {number}" for at, key in enumerate(keys)}
                for number, line in enumerate(lines)
            ]
        if shape == "under a key":
            whole = {keys[0]: whole}
        return json.dumps(whole, indent=indent).splitlines()

    return carry


@st.composite
def yamls(draw: st.DrawFn) -> Carrier:
    """YAML: a list of strings or of mappings, or one block of lines."""
    first, second = draw(st.lists(words, min_size=2, max_size=2, unique=True))
    shape = draw(st.sampled_from(["single", "double", "mapping", "block"]))

    def single(line: str) -> str:
        return "'" + line.replace("'", "''") + "'"

    def carry(lines: list[str]) -> list[str]:
        if shape == "block":
            return [f"{first}: x", f"{second}: |", *(f"  {line}" for line in lines)]
        if shape == "mapping":
            return [
                part
                for number, line in enumerate(lines)
                for part in (f"- {first}: {number}", f"  {second}: {single(line)}")
            ]
        return [f"- {single(line) if shape == 'single' else json.dumps(line)}" for line in lines]

    return carry


@st.composite
def pairs(draw: st.DrawFn) -> Carrier:
    """logfmt: values are quoted where they hold blanks."""
    keys = draw(st.lists(words, min_size=2, max_size=5, unique=True))
    place = draw(st.integers(0, len(keys) - 1))

    def carry(lines: list[str]) -> list[str]:
        return [
            " ".join(
                f"{key}={json.dumps(line) if at == place else f'{key[::-1]}{number % (at + 2)}'}"
                for at, key in enumerate(keys)
            )
            for number, line in enumerate(lines)
        ]

    return carry


@st.composite
def literals(draw: st.DrawFn) -> Carrier:
    """Strings of a program's text."""
    begin = draw(st.sampled_from(["b'{}\\n'", "'{}\\n'", '"{}\\n"', '"{}",', "b'{}',"]))
    indent = draw(st.sampled_from(["", "  ", "    "]))

    def carry(lines: list[str]) -> list[str]:
        quote = '"' if '"' in begin else "'"
        escaped = (line.replace("\\", "\\\\").replace(quote, "\\" + quote) for line in lines)
        return [indent + begin.format(line) for line in escaped]

    return carry


@st.composite
def cells(draw: st.DrawFn) -> Carrier:
    """A table as people write it, with bars."""
    host, word = draw(hosts), draw(words)
    place = draw(st.integers(0, 2))
    head = draw(st.booleans())

    def row(texts: list[str]) -> str:
        return "| " + " | ".join(texts) + " |"

    def carry(lines: list[str]) -> list[str]:
        out = [row([host, word, "text"]), row(["---"] * 3)] if head else []
        for number, line in enumerate(lines):
            texts = [host, f"{word}{number}"]
            texts.insert(place, line)
            out.append(row(texts))
        return out

    return carry


@st.composite
def unknown(draw: st.DrawFn) -> Carrier:
    """Any words and signs before each line, and behind it, with a count in them."""
    signs = "abcdefghijklmnopqrstuvwxyzABCDEFGH[](){}<>|=:;,.-+*#@!~/_ "
    before = draw(st.text(signs, min_size=2, max_size=24)).strip(" ")
    assume(_KERNELS.isdisjoint(re.findall(r"[a-z]{2,}", before.lower())))
    behind = draw(st.sampled_from(["", "", " [end]", " (x)", "  # y", " |"]))
    counted = draw(st.booleans())
    return lambda lines: [
        f"{before}{number if counted else ''} {line}{behind}" for number, line in enumerate(lines)
    ]


def stamped(lines: list[str]) -> list[str]:
    """dmesg's own stamps."""
    return [f"[{20409.613189 + number / 1e6:12.6f}] {line}" for number, line in enumerate(lines)]


by_line = st.one_of(prefixes(), objects(), tables(), fields(), pairs(), cells(), unknown())
carriers = st.one_of(by_line, documents(), yamls(), literals())
inner = st.one_of(st.just(stamped), st.just(list[str]))


def _whole_report() -> list[str]:
    """The lines of a whole report of a recorded kernel."""
    path = corpus_directory() / "samples" / "6.12-cg2.kmsg.gz"
    assembler = Assembler(early=False)
    signals: list[object] = []
    for line in gzip.decompress(path.read_bytes()).split(b"\n"):
        if (record := parse_record(line)) is not None:
            signals += assembler.feed(record)
    block = next(signal for signal in signals if isinstance(signal, OomBlock))
    return [part for record in block.records for part in record.text.split("\n")]


@pytest.fixture(scope="module")
def whole() -> tuple[list[str], list[dict[str, Any]]]:
    lines = _whole_report()
    found = said("\n".join(lines))
    assert len(found) == 1
    assert len(lines) > 40
    return lines, found


@pytest.fixture(scope="module")
def bare() -> list[dict[str, Any]]:
    found = said("\n".join(SHORT))
    assert len(found) == 1
    return found


@trying(300)
@given(outer=carriers, inner=inner)
def test_a_carrier(outer: Carrier, inner: Carrier, bare: list[dict[str, Any]]) -> None:
    text = "\n".join(outer(inner(SHORT)))
    assert said(text) == bare, text


@trying(200)
@given(outer=carriers, middle=carriers, inner=inner)
def test_a_carrier_in_another(
    outer: Carrier, middle: Carrier, inner: Carrier, bare: list[dict[str, Any]]
) -> None:
    text = "\n".join(outer(middle(inner(SHORT))))
    assert said(text) == bare, text


@trying(60)
@given(outer=carriers, inner=inner)
def test_a_whole_report_in_a_carrier(
    outer: Carrier, inner: Carrier, whole: tuple[list[str], list[dict[str, Any]]]
) -> None:
    lines, expected = whole
    assert said("\n".join(outer(inner(lines)))) == expected


@trying(100)
@given(width=st.integers(50, 140), inner=inner, anywhere=st.booleans())
def test_a_wrap_at_any_column(width: int, inner: Carrier, anywhere: bool, bare: list[dict[str, Any]]) -> None:
    pieces = [
        piece
        for line in inner(SHORT)
        for piece in (
            [line[at : at + width] for at in range(0, len(line), width)]
            if anywhere
            else textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)
        )
    ]
    assert said("\n".join(pieces)) == bare
