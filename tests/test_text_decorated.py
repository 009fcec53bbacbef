"""What people, terminals, web pages and trackers put around the lines of a report changes nothing.

Further kinds of carriers (:mod:`tests.test_text_carriers`): prefixes whose shape alternates, columns of one
width, identifiers, colours, line numbers, quotation, tables, HTML, text behind each line, others' lines
between, and how the bytes of a text are written.
"""

from __future__ import annotations

import html
import json
import re
import textwrap
import uuid
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from oomwatchd.sources.text import TextReader
from oomwatchd.sources.text.manner import judge
from oomwatchd.sources.text.stamped import cuts
from tests.field_score import reports
from tests.test_text_carriers import (
    CLOCKS,
    SHORT,
    STAMPS,
    START,
    Carrier,
    bare,
    by_line,
    carriers,
    hosts,
    inner,
    prefixes,
    tokens,
    trying,
    whole,
    words,
)
from tests.test_text_carriers import tables as records

__all__ = ["bare", "whole"]  # fixtures


def said(data: bytes) -> list[dict[str, Any]]:
    """Every field of the reports, but for clocks, and for lines that nobody understood: others' lines are
    such lines."""
    fields: list[dict[str, Any]] = [msgspec.to_builtins(report) for report in reports(data)[0]]
    return [_known(report) for report in fields]


def _known(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key not in CLOCKS | {"undecoded"}}


@st.composite
def alternating(draw: st.DrawFn) -> Carrier:
    """Prefixes of two shapes take turns."""
    several = [draw(st.lists(tokens(), min_size=1, max_size=4)) for _ in range(2)]
    gap = draw(st.sampled_from([" ", "  "]))
    return lambda lines: [
        gap.join(token(number) for token in several[number % len(several)]) + " " + line
        for number, line in enumerate(lines)
    ]


@st.composite
def columns(draw: st.DrawFn) -> Carrier:
    """Names and levels that are padded to one width."""
    names = draw(st.lists(hosts, min_size=2, max_size=3, unique=True))
    levels = draw(st.lists(st.sampled_from(["INFO", "WARNING", "ERROR", "D"]), min_size=1, max_size=3))
    width, bar = draw(st.integers(8, 20)), draw(st.sampled_from([" | ", " ", " : ", "  "]))
    stamp = draw(st.sampled_from(STAMPS))
    return lambda lines: [
        f"{names[number % len(names)]:<{width}}{bar}{stamp(START + timedelta(milliseconds=37 * number))} "
        f"{levels[number % len(levels)]:<8} {line}"
        for number, line in enumerate(lines)
    ]


IDENTIFIERS: list[Callable[[Random], str]] = [
    lambda chance: str(uuid.UUID(int=chance.getrandbits(128))),
    lambda chance: f"{chance.getrandbits(48):012x}",
    lambda chance: f"{chance.randrange(10**6) / 1000:.3f}s",
    lambda chance: f"10.0.{chance.randrange(256)}.{chance.randrange(256)}",
    lambda chance: f"/var/log/{chance.choice(['messages', 'kern.log', 'syslog'])}",
    lambda chance: f"{chance.choice(['node', 'web'])}{chance.randrange(20)}:{chance.randrange(9000)}",
]


@st.composite
def identifiers(draw: st.DrawFn) -> Carrier:
    """A number, a path or an address, the same or another on each line, perhaps after a time."""
    seed, same = draw(st.integers(0, 10**6)), draw(st.booleans())
    make, form = draw(st.sampled_from(IDENTIFIERS)), draw(st.sampled_from(["{} ", "{}: ", "{} - ", "[{}] "]))
    stamp = draw(st.sampled_from([None, *STAMPS]))

    def prefix(number: int) -> str:
        time = "" if stamp is None else f"{stamp(START + timedelta(seconds=number))} "
        return time + form.format(make(Random(seed if same else seed + number)))

    return lambda lines: [prefix(number) + line for number, line in enumerate(lines)]


@st.composite
def coloured(draw: st.DrawFn) -> Carrier:
    """A colour for the whole line, or for a word before it; the escape may be written out."""
    escape = draw(st.sampled_from(["\x1b", "^[", "\\x1b", "\\033", "\u241b"]))
    colours = draw(st.lists(st.sampled_from(["31", "1;32", "0;33", "38;5;200"]), min_size=1, max_size=2))
    word = draw(st.one_of(st.none(), hosts))

    def coloured(number: int, text: str) -> str:
        return f"{escape}[{colours[number % len(colours)]}m{text}{escape}[0m"

    return lambda lines: [
        coloured(number, line) if word is None else f"{coloured(number, word)} {line}"
        for number, line in enumerate(lines)
    ]


@st.composite
def numbered(draw: st.DrawFn) -> Carrier:
    """``cat -n``, ``grep -n``, ``less -N``, lists."""
    first = draw(st.sampled_from([1, 97, 12345]))
    form = draw(st.sampled_from(["{:6d}\t", "{}:", "{:>7d} ", "{:4d}: ", "{}. ", "{}) ", "{:5d}| ", "L{}: "]))
    return lambda lines: [form.format(first + number) + line for number, line in enumerate(lines)]


_SIGNS = ["> ", ">", "> > ", ">> ", "| ", ">>> ", "   > ", "+", "+ ", "-", "- ", "    ", "\t", "# ", "// "]
_SIGNS += ["* ", "; ", "$ ", "% "]
quoted = st.sampled_from(_SIGNS).map(lambda sign: lambda lines: [sign + line for line in lines])


@st.composite
def tables(draw: st.DrawFn) -> Carrier:
    """The tables of databases, of Jira and of text markups, with their frames."""
    host, word = draw(hosts), draw(words)
    kind = draw(st.sampled_from(["grid", "mysql", "psql", "jira", "box", "markdown", "simple"]))

    def carry(lines: list[str]) -> list[str]:
        head, rows = ["host", word, "message"], [[host, f"{word}{n}", line] for n, line in enumerate(lines)]
        widths = [max(len(row[at]) for row in (head, *rows)) for at in range(3)]

        def padded(row: list[str], between: str) -> str:
            return between.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))

        def rule(sign: str, left: str = "+", middle: str = "+", right: str = "+") -> str:
            return left + middle.join(sign * (width + 2) for width in widths) + right

        bars = [f"| {padded(row, ' | ')} |" for row in rows]
        match kind:
            case "grid":
                body = [part for bar in bars for part in (bar, rule("-"))]
                return [rule("-"), f"| {padded(head, ' | ')} |", rule("="), *body]
            case "mysql":
                return [rule("-"), f"| {padded(head, ' | ')} |", rule("-"), *bars, rule("-")]
            case "psql":
                body = [f" {padded(row, ' | ')}".rstrip() for row in rows]
                return [f" {padded(head, ' | ')}", rule("-", "", "+", ""), *body, f"({len(rows)} rows)"]
            case "jira":
                return ["||" + "||".join(head) + "||", *("|" + "|".join(row) + "|" for row in rows)]
            case "box":
                body = ["\u2502 " + padded(row, " \u2502 ") + " \u2502" for row in (head, *rows)]
                top, bottom = rule("\u2500", *"\u250c\u252c\u2510"), rule("\u2500", *"\u2514\u2534\u2518")
                return [top, body[0], rule("\u2500", *"\u251c\u253c\u2524"), *body[1:], bottom]
            case "markdown":
                return ["| " + " | ".join(head) + " |", "|---|---|---|", *bars]
        edge = "  ".join("=" * width for width in widths)
        return [edge, padded(head, "  "), edge, *(padded(row, "  ").rstrip() for row in rows), edge]

    return carry


@st.composite
def markup(draw: st.DrawFn) -> Carrier:
    """HTML, with its signs escaped once or twice."""
    tag, quotes = draw(st.sampled_from(["", "pre", "p", "li", "td", "div"])), draw(st.booleans())

    def carry(lines: list[str]) -> list[str]:
        safe = [html.escape(line, quote=quotes) for line in lines]
        if tag == "pre":
            return ["<pre><code>" + safe[0], *safe[1:], "</code></pre>"]
        return [f"<{tag}>{line}</{tag}>" for line in safe] if tag else safe

    return carry


@st.composite
def followed(draw: st.DrawFn) -> Carrier:
    """A time before and something behind each line."""
    word, host, stamp = draw(words), draw(hosts), draw(st.sampled_from(STAMPS))
    ends: list[Callable[[int], str]] = [
        lambda _: f" host={host}",
        lambda _: f' {{"{word}":"{host}"}}',
        lambda number: f" ({number})",
        lambda number: f" ({word}.c:{100 + number})",
        lambda number: f" [{uuid.UUID(int=number * 7919 + 1 << 60)}]",
        lambda number: f" {word}={number} host={host}",
    ]
    end = draw(st.sampled_from(ends))
    return lambda lines: [
        f"{stamp(START + timedelta(seconds=number))} {line}{end(number)}" for number, line in enumerate(lines)
    ]


OTHERS = (
    "eth0: link becomes ready",
    "starting nightly backup of volume 7",
    "GET /index.html 200 12ms",
    "user root logged in",
    "usb 1-1: new high-speed USB device number 4",
)


@st.composite
def interleaved(draw: st.DrawFn) -> Carrier:
    """Others' lines between, which then get the same prefix."""
    every = draw(st.integers(1, 3))
    return lambda lines: [
        part
        for number, line in enumerate(lines)
        for part in ((line, OTHERS[number % len(OTHERS)]) if number % every == 0 else (line,))
    ]


WRITTEN: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "CR LF": lambda text: text.replace("\n", "\r\n").encode(),
    "UTF-16 LE with a mark": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "UTF-16 BE with a mark": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 LE": lambda text: text.encode("utf-16-le"),
    "UTF-8 with a mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "hard blanks": lambda text: text.replace(" ", "\xa0").encode(),
    "some hard blanks": lambda text: text.replace("  ", " \xa0").encode(),
    "unseen": lambda text: "\n".join(f"\u200b{line}\u200b" for line in text.split("\n")).encode(),
    "blanks behind": lambda text: "\n".join(
        line + " " * (number % 5) for number, line in enumerate(text.split("\n"))
    ).encode(),
    "padded": lambda text: "\n".join(line.ljust(240) for line in text.split("\n")).encode(),
    "blank lines between": lambda text: text.replace("\n", "\n\n").encode(),
}

decorated = st.one_of(
    alternating(),
    columns(),
    identifiers(),
    coloured(),
    numbered(),
    quoted,
    tables(),
    markup(),
    followed(),
)
#: those that are the same on all lines
uniform = st.one_of(columns(), identifiers(), numbered(), quoted, markup())
Reports = list[dict[str, Any]]


@trying(100)
@given(outer=decorated, inner=inner)
def test_a_decoration(outer: Carrier, inner: Carrier, bare: Reports) -> None:
    text = "\n".join(outer(inner(SHORT)))
    assert said(text.encode()) == [_known(report) for report in bare], text


@trying(60)
@given(outer=uniform, middle=by_line, inner=inner)
def test_a_decoration_around_a_carrier(
    outer: Carrier, middle: Carrier, inner: Carrier, bare: Reports
) -> None:
    text = "\n".join(outer(middle(inner(SHORT))))
    assert said(text.encode()) == [_known(report) for report in bare], text


@trying(60)
@given(outer=st.one_of(decorated, carriers), inner=inner, written=st.sampled_from(sorted(WRITTEN)))
def test_how_the_bytes_are_written(outer: Carrier, inner: Carrier, written: str, bare: Reports) -> None:
    text = "\n".join(outer(inner(SHORT)))
    assert said(WRITTEN[written](text)) == [_known(report) for report in bare], text


@trying(60)
@given(outer=st.one_of(uniform, tables(), prefixes()), inner=inner, others=interleaved())
def test_lines_of_others_between(outer: Carrier, inner: Carrier, others: Carrier, bare: Reports) -> None:
    text = "\n".join(outer(inner(others(SHORT))))
    assert said(text.encode()) == [_known(report) for report in bare], text


@trying(20)
@given(outer=decorated, inner=inner)
def test_a_whole_report_decorated(outer: Carrier, inner: Carrier, whole: tuple[list[str], Reports]) -> None:
    lines, expected = whole
    text = "\n".join(outer(inner(lines)))
    assert said(text.encode()) == [_known(report) for report in expected], text


@trying(60)
@given(
    inner=inner,
    width=st.integers(60, 140),
    indent=st.sampled_from(["", "  ", "    ", "\t"]),
)
def test_a_wrap_between_words_with_an_indent(inner: Carrier, width: int, indent: str, bare: Reports) -> None:
    text = "\n".join(
        piece
        for line in inner(SHORT)
        for piece in textwrap.wrap(
            line, width, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent
        )
    )
    assert said(text.encode()) == [_known(report) for report in bare], text


def hard(lines: list[str], width: int) -> list[str]:
    """Broken at a column, also inside words."""
    return [line[at : at + width] for line in lines for at in range(0, len(line), width)]


def soft(lines: list[str], width: int) -> list[str]:
    """Broken between words, as editors do it."""
    return [
        piece
        for line in lines
        for piece in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)
    ]


_SAYING = re.compile(r"[^\W\d_]{3}|[\[\](){}<>\"|=]|\d\d:\d\d")
_MARKED = re.compile(r"[\[\](){}<>\"|=]|\d\d:\d\d")
wraps = st.sampled_from([hard, soft])


@trying(60)
@given(sign=quoted, wrap=wraps, width=st.integers(60, 140), inner=inner)
def test_broken_and_then_quoted(
    sign: Carrier,
    wrap: Callable[[list[str], int], list[str]],
    width: int,
    inner: Carrier,
    bare: Reports,
) -> None:
    text = "\n".join(sign(wrap(inner(SHORT), width)))
    assert said(text.encode()) == [_known(report) for report in bare], text


@trying(60)
@given(sign=quoted, wrap=wraps, width=st.integers(60, 140), inner=inner)
def test_quoted_and_then_broken(
    sign: Carrier,
    wrap: Callable[[list[str], int], list[str]],
    width: int,
    inner: Carrier,
    bare: Reports,
) -> None:
    text = "\n".join(wrap(sign(inner(SHORT)), width))
    assert said(text.encode()) == [_known(report) for report in bare], text


@trying(60)
@given(outer=prefixes(), inner=inner, room=st.integers(70, 140))
def test_a_prefix_and_then_a_wrap_between_words(
    outer: Carrier, inner: Carrier, room: int, bare: Reports
) -> None:
    """A line keeps some words of its text, or nobody could tell them from the prefix. Figures or two letters
    alone could be the text's."""
    lines = outer(inner(SHORT))
    assume(_SAYING.search(lines[1][: -len(SHORT[1])]))
    text = "\n".join(soft(lines, room + len(lines[1]) - len(SHORT[1])))
    assert said(text.encode()) == [_known(report) for report in bare], text


@trying(40)
@given(
    outer=alternating(),
    middle=alternating(),
    within=alternating(),
    inner=inner,
    end=st.sampled_from([" host=web", " (x)", " [end]", "  # y", " |"]),
)
def test_a_suffix_behind_prefixes_that_alternate(
    outer: Carrier, middle: Carrier, within: Carrier, inner: Carrier, end: str, bare: Reports
) -> None:
    text = "\n".join(line + end for line in outer(middle(within(inner(SHORT)))))
    assert said(text.encode()) == [_known(report) for report in bare], text


@trying(40)
@given(outer=alternating(), within=followed(), inner=inner)
def test_what_follows_each_line_behind_prefixes_that_alternate(
    outer: Carrier, within: Carrier, inner: Carrier, bare: Reports
) -> None:
    text = "\n".join(outer(within(inner(SHORT))))
    assert said(text.encode()) == [_known(report) for report in bare], text


@trying(60)
@given(several=st.lists(st.lists(tokens(), min_size=1, max_size=4), min_size=3, max_size=3), inner=inner)
def test_prefixes_of_three_shapes(
    several: list[list[Callable[[int], str]]], inner: Carrier, bare: Reports
) -> None:
    """A bare word before two lines could be the text's; a sign or a time is none."""
    assume(all(_MARKED.search(" ".join(token(0) for token in tokens)) for tokens in several))
    text = "\n".join(
        " ".join(token(number) for token in several[number % 3]) + " " + line
        for number, line in enumerate(inner(SHORT))
    )
    assert said(text.encode()) == [_known(report) for report in bare], text


@trying(60)
@given(outer=prefixes(), middle=records(), inner=inner)
def test_a_table_with_some_quoted_cells_behind_a_prefix(
    outer: Carrier, middle: Carrier, inner: Carrier, bare: Reports
) -> None:
    text = "\n".join(outer(middle(inner(SHORT))))
    assert said(text.encode()) == [_known(report) for report in bare], text


@trying(60)
@given(
    key=words,
    inner=inner,
    end=st.sampled_from(["<br>", "<br/>", "<br />", "<BR>", "<br>\n", "<br/>\n"]),
    escaped=st.booleans(),
    apart=st.booleans(),
)
def test_html_in_json(key: str, inner: Carrier, end: str, escaped: bool, apart: bool, bare: Reports) -> None:
    lines = [html.escape(line, quote=False) if escaped else line for line in inner(SHORT)]
    texts = [line + end for line in lines] if apart else [end.join(lines)]
    document = "\n".join(json.dumps({"n": number, key: text}) for number, text in enumerate(texts))
    assert said(document.encode()) == [_known(report) for report in bare], document


@trying(60)
@given(outer=coloured(), within=coloured(), inner=inner)
def test_colours_within_colours(outer: Carrier, within: Carrier, inner: Carrier, bare: Reports) -> None:
    text = "\n".join(outer(within(inner(SHORT))))
    assert said(text.encode()) == [_known(report) for report in bare], text


@trying(60)
@given(outer=by_line, within=coloured(), inner=inner)
def test_colours_within_a_carrier(outer: Carrier, within: Carrier, inner: Carrier, bare: Reports) -> None:
    text = "\n".join(outer(within(inner(SHORT))))
    assert said(text.encode()) == [_known(report) for report in bare], text


@pytest.mark.parametrize("written", sorted(WRITTEN))
def test_each_way_of_writing_a_bare_report(written: str, bare: Reports) -> None:
    assert said(WRITTEN[written]("\n".join(SHORT))) == [_known(report) for report in bare]


@pytest.mark.parametrize(
    "time",
    ["2024-04-29T14:55:41.678628Z", "Mon Apr 29 14:55:41 2024", "lun. avril 29 14:55:41 2024"],
)
def test_a_time_in_brackets_before_the_kernels_own_stamp(time: str, bare: Reports) -> None:
    """Also where only one line has it, or lines are wrapped, and nothing can be learned."""
    lines = [f"[{time}] [20409.613189] {line}" for line in SHORT]
    assert said("\n".join(lines).encode()) == [_known(report) for report in bare]
    (killed,) = said(f"{lines[-1]}\n".encode())
    assert killed["victims"][0]["comm"] == "java"
    wrapped = "\n".join(part for line in lines for part in textwrap.wrap(line, 100, break_on_hyphens=False))
    assert said(wrapped.encode())[0]["victims"] == bare[0]["victims"]


@pytest.mark.parametrize(
    "time", ["2024-04-29T14:55:41Z", "2024-04-29 14:55:41,678", "Mon Apr 29 14:55:41 2024"]
)
def test_a_time_between_two_stamps_is_a_prefix(time: str, bare: Reports) -> None:
    lines = [f"[1714402541.67862{n}] {time} [1714402541.67862{n}] " for n in range(len(SHORT))]
    text = "\n".join(prefix + line for prefix, line in zip(lines, SHORT, strict=True))
    assert said(text.encode()) == [_known(report) for report in bare]


def test_the_head_of_a_table_is_no_structured_data() -> None:
    """RFC 5424's [SD-ELEMENT] begins with a name; a wrapped line may end with "[  pid  ]"."""
    line = "2024-04-29T14:55:41.681628Z 2024-04-29T14:55:41.681628Z Apr 29 14:55:41 "
    report = "\n".join(line + text for text in SHORT)
    wrapped = report.replace("[  pid  ]   uid", "[  pid  ]\nuid").replace("29454]  1000", "29454]\n1000")
    assert [task["pid"] for task in said(wrapped.encode())[0]["tasks"]] == [29454]


def test_others_lines_behind_the_header_are_no_call_trace(bare: Reports) -> None:
    lines = [SHORT[0], "eth0: link becomes ready 1714402541679", *SHORT[1:]]
    stamped = "\n".join(f"[{20409 + number}.613189] {line}" for number, line in enumerate(lines))
    assert said(stamped.encode())[0]["missing"] == bare[0]["missing"]


def test_lines_that_were_joined_without_a_blank(bare: Reports) -> None:
    glued = [*SHORT[:4], "".join(SHORT[4:])]
    assert said("\n".join(glued).encode())[0]["victims"] == bare[0]["victims"]
    header = SHORT[0] + SHORT[5] + SHORT[6] + "oom_reaper: reaped process 29454 (java), now anon-rss:0kB"
    (report,) = said(header.encode())
    assert [(victim["comm"], victim["pid"]) for victim in report["victims"]] == [("java", 29454)]
    assert report["memcg"]["oom_path"] == "/docker/abc"


def test_further_lines_that_dmesg_indents_are_no_broken_lines() -> None:
    stamp, names = "[20409.613189] ", ("anon", "file", "kernel_stack", "pagetables")
    statistics = [f"{stamp}{' ' * 27}{name} {number}" for number, name in enumerate(names, 4096)]
    text = "\n".join([stamp + SHORT[0], f"{stamp}Memory cgroup stats for /a: x 1", *statistics])
    reader = TextReader()
    records = reader.feed(text.encode()) + reader.flush()
    assert [record.text.lstrip() for record in records[2:]] == [
        line.removeprefix(stamp).lstrip() for line in statistics
    ]
    assert all(record.usec == 20409613189 for record in records)
    lines = text.encode().split(b"\n")
    assert judge(lines, cuts(lines)).plain


@pytest.mark.parametrize(("width", "blanks"), [(80, 117), (96, 24), (70, 60)])
def test_a_terminals_lines_with_blanks_in_the_place_of_line_ends(
    width: int, blanks: int, bare: Reports
) -> None:
    stamped = [f"[20409.{number:06}] {line}" for number, line in enumerate(SHORT, 613189)]
    pieces = [[line[at : at + width] for at in range(0, len(line), width)] for line in stamped]
    text = "\n".join((" " * blanks).join(parts) for parts in pieces)
    assert said(text.encode())[0]["victims"] == bare[0]["victims"]
    assert said(text.encode())[0]["trigger"] == bare[0]["trigger"]
