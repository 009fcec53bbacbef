"""Records taken in a batch give the same result as records taken one by one."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from oomwatchd.formats import Section
from oomwatchd.formats.memcontrol import stat_count
from oomwatchd.formats.recognise import ALL, nothing_recognised, recognise, recognise_row, unknown_count
from oomwatchd.formats.task_table import TaskTable
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord, parse_record, parse_records, whole_text
from oomwatchd.reports.assemble import Assembler, Signal
from oomwatchd.sources.text import TextReader, stamped

BITE = 256


def recordings(corpus: Path) -> list[list[bytes]]:
    """The raw recordings, each as the reads that gave it: a record with its dictionary lines."""
    found = []
    for path in sorted((corpus / "kernel").glob("*.kmsg.gz")):
        pieces: list[bytes] = []
        for line in gzip.decompress(path.read_bytes()).splitlines(keepends=True):
            if line[:1] == b" " and pieces:
                pieces[-1] += line
            else:
                pieces.append(line)
        found.append(pieces)
    assert found
    return found


def taken_at_once(items: list[KmsgRecord | KmsgGap], most: int = BITE) -> list[Signal]:
    assembler, signals = Assembler(), list[Signal]()
    for begin in range(0, len(items), most):
        bite, at = items[begin : begin + most], 0
        while at < len(bite):
            rows = assembler.take_run(bite, at)
            if not rows:
                signals += assembler.feed(bite[at])
            at += rows or 1
    return signals + assembler.flush()


def test_recordings_are_the_same_in_bites(corpus: Path) -> None:
    rows = statistics = 0
    for pieces in recordings(corpus):
        alone = [parse_record(piece) for piece in pieces]
        at_once = [r for n in range(0, len(pieces), BITE) for r in parse_records(pieces[n : n + BITE])]
        assert at_once == alone
        items: list[KmsgRecord | KmsgGap] = [record for record in alone if record is not None]
        assembler = Assembler()
        signals = [signal for item in items for signal in assembler.feed(item)] + assembler.flush()
        assert taken_at_once(items) == signals
        texts = [item.text for item in items if isinstance(item, KmsgRecord)]
        rows += sum(text.startswith("[ ") for text in texts)
        statistics += sum(stat_count([text]) for text in texts)
    assert rows > 1000 and statistics > 1000


@given(st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,20} [0-9]{1,19}", fullmatch=True), max_size=6))
def test_statistics_are_no_other_line(texts: list[str]) -> None:
    assert stat_count(texts) == len(texts)
    assert stat_count([*texts, ""]) == stat_count([*texts, "x: 1"]) == len(texts)
    for text in texts:
        assert recognise(text, raw=True) is None
        assert recognise_row(text, Section.MEMCG)


HEADS = [
    *{beginning for form in ALL for beginning in form.begins},
    "\u0663 pages RAM",
    "-5 pages RAM",
    "[ 1]",
    " ",
    "",
    "7 pages RAM",
]
CHARACTERS = st.characters(exclude_characters="\0")  # which no record's text holds
ANY_LINES = st.lists(
    st.one_of(
        st.text(CHARACTERS, max_size=20),
        st.tuples(
            st.sampled_from([form.samples[0] for form in ALL] + HEADS), st.text(CHARACTERS, max_size=9)
        ).map("".join),
        st.sampled_from(["a invoked oom-killer: b", "x mode:0x0", "b mems_allowed=0"]),
    ),
    max_size=6,
)


@given(ANY_LINES)
def test_what_is_plainly_unknown_is_recognised_by_nobody(texts: list[str]) -> None:
    count = unknown_count(texts)
    assert not any(recognise(text, raw=raw) for text in texts[:count] for raw in (True, False))
    assert count == len(texts) or unknown_count(texts[count:]) == 0


def test_disturbed_recordings_are_the_same_in_bites(corpus: Path) -> None:
    """Records lost, user space writing between, stamps that fall back or jump ahead, other callers."""
    chance = Random(7)
    for pieces in recordings(corpus):
        items: list[KmsgRecord | KmsgGap] = []
        for record in filter(None, map(parse_record, pieces)):
            what = chance.randrange(60)
            if what == 0:
                items.append(KmsgGap(1))
                continue
            if what == 1:
                record = structs.replace(record, facility=1)
            elif what == 2:
                record = structs.replace(
                    record, usec=(record.usec or 0) + chance.choice([-3_000_000, -9, 4000])
                )
            elif what == 3:
                record = structs.replace(record, caller=chance.choice(["T1", "T2"]))
            elif what == 4:
                record = structs.replace(record, flag=chance.choice("c+"))
            items.append(record)
        assembler = Assembler()
        signals = [signal for item in items for signal in assembler.feed(item)] + assembler.flush()
        for most in (3, 20, BITE):
            assert taken_at_once(items, most) == signals


def test_what_is_passed_over_is_recognised_by_nobody(corpus: Path) -> None:
    passed = 0
    for pieces in recordings(corpus):
        for n in range(0, len(pieces), 16):
            bite = pieces[n : n + 16]
            text = whole_text(bite)
            if text is not None and nothing_recognised(text, len(bite)):
                passed += len(bite)
                records = [record for piece in bite if (record := parse_record(piece))]
                assert not any(recognise(record.text, raw=True) for record in records)
                assert all(record.flag == "-" for record in records)
    assert passed > 100


HIDING = st.tuples(
    st.sampled_from([",-;", ",c;", ",-,caller=T1;", ";"]),
    st.text("a;,-c", max_size=6),
    st.sampled_from(["", "x", "Out of memory: Killed process 1 (a)", "Mem-Info:", "Node 0 Normal free:1kB"]),
)


@given(st.lists(HIDING, min_size=1, max_size=6))
def test_no_text_hides_a_line_of_a_report(parts: list[tuple[str, str, str]]) -> None:
    """Semicolons, commas and flags in the text of one record do not pass for those of another."""
    pieces = [f"6,{n},1{mark}{text or said}\n".encode() for n, (mark, text, said) in enumerate(parts)]
    text = whole_text(pieces)
    assert text is not None
    if nothing_recognised(text, len(pieces)):
        records = [record for piece in pieces if (record := parse_record(piece))]
        assert not any(recognise(record.text, raw=True) for record in records)


RECORD = rb"[0-9]{1,3},[0-9]{1,4},[0-9]{1,4},[-c],?(caller=T1)?;[a-z\\x5c \[\]]{0,9}\n"
PIECES = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=30),
        st.from_regex(RECORD, fullmatch=True),
        st.sampled_from(
            [b"6,1,2,-;x\n SUBSYSTEM=net\n", b"6,1,2,-;a\n6,2,3,-;b\n", b"6,9,9,-;c", b"6,1,1,-;\n"]
        ),
    ),
    min_size=1,
    max_size=6,
)


@given(PIECES)
def test_any_pieces_are_the_same_at_once(pieces: list[bytes]) -> None:
    assert parse_records(pieces) == [parse_record(piece) for piece in pieces]


ROWS = st.text(st.sampled_from("[]0123456789 -x\u0663"), max_size=30)


@given(st.lists(st.one_of(ROWS, ROWS.map(lambda row: f"[ 12] {row}")), max_size=6))
def test_any_rows_are_the_same_at_once(texts: list[str]) -> None:
    alone, at_once = TaskTable(), TaskTable()
    alone.header(["uid", "tgid", "total_vm"])
    at_once.header(["uid", "tgid", "total_vm"])
    for text in texts:
        if not alone.takes(text):
            break
    count = at_once.take_rows(texts)
    assert all(at_once.takes(text) for text in texts[count : len(alone._texts)])
    assert at_once._texts == alone._texts
    assert at_once.tasks(4096) == alone.tasks(4096)


@pytest.mark.parametrize(
    "row", ["[   12]0 1 2 a", "[   12 ] 0 1 2 a", "[ 1,2]  0  1  2 a", "[   12]  0  1,3  2 a"]
)
def test_a_row_of_another_shape_moves_no_figure(row: str) -> None:
    table = TaskTable()
    table.header(["uid", "tgid", "total_vm"])
    assert table.take_rows([row, "[   13]     7    13        5 name"]) == 2
    assert [(task.pid, task.uid, task.comm) for task in table.tasks(4096)] == [(13, 7, "name")]
    assert table.rejected == [row]


def _lines_of(text: str) -> list[KmsgRecord]:
    reader = TextReader()
    data = text.encode()
    return reader.feed(data) + reader.flush()


#: prefixes of lines, by the stamp in microseconds
PREFIXES: dict[str, Callable[[int], str]] = {
    "dmesg": lambda usec: f"[{usec // 10**6:5}.{usec % 10**6:06}] ",
    "syslog": lambda usec: (
        f"May  1 10:00:{usec // 10**6 % 60:02} h-1 kernel: [{usec // 10**6:5}.{usec % 10**6:06}] "
    ),
    "journal": lambda usec: f"May 01 10:00:{usec // 10**6 % 60:02} h.x kernel: ",
    "bare": lambda usec: "",
}


@pytest.mark.parametrize("form", PREFIXES)
@pytest.mark.parametrize("number", range(4))
def test_disturbed_lines_of_a_text_are_the_same_at_once(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, number: int, form: str
) -> None:
    chance = Random(number)
    record_of = [record for piece in recordings(corpus)[number] if (record := parse_record(piece))][:1500]
    lines = [
        PREFIXES[form](record.usec or 0) + part for record in record_of for part in record.text.split("\n")
    ]
    program = "May  1 10:00:00 h-1 sshd[12]: said"
    for _ in range(60):
        at = chance.randrange(len(lines))
        line = lines[at]
        cut = chance.randrange(len(line) + 1)
        disturbed = [
            [], [line, line], [line[:cut], line[cut:]], [line[:cut]], [line + " "], ["", line], [" " + line],
            [line + "#012more"], [line + " kernel: x"], [program, line], [line.replace("[", "(")],
        ]  # fmt: skip
        lines[at : at + 1] = chance.choice(disturbed)
    text = "\n".join(lines)
    at_once = _lines_of(text)
    if form != "bare":
        assert stamped.cut(text.encode().split(b"\n"), text.encode()) is not None
    monkeypatch.setattr("oomwatchd.sources.text.stamped.cut", lambda lines, together: None)
    monkeypatch.setattr(
        "oomwatchd.sources.text.reader.whole_lines", lambda text: [""] * (text.count("\n") + 1)
    )
    assert at_once == _lines_of(text)
