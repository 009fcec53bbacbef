"""Many records taken at once say what each taken alone says."""

from __future__ import annotations

import gzip
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.assemble import Assembler, Signal
from oomwatchd.formats.recognise import nothing_recognised, recognise
from oomwatchd.formats.task_table import TaskTable
from oomwatchd.kmsg import KmsgGap, KmsgRecord, parse_record, parse_records, whole_text

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


def taken_at_once(items: list[KmsgRecord | KmsgGap]) -> list[Signal]:
    assembler, signals = Assembler(), list[Signal]()
    for begin in range(0, len(items), BITE):
        bite, at = items[begin : begin + BITE], 0
        while at < len(bite):
            rows = assembler.take_rows(bite, at)
            if not rows:
                signals += assembler.feed(bite[at])
            at += rows or 1
    return signals + assembler.flush()


def test_recordings_are_the_same_in_bites(corpus: Path) -> None:
    rows = 0
    for pieces in recordings(corpus):
        alone = [parse_record(piece) for piece in pieces]
        at_once = [r for n in range(0, len(pieces), BITE) for r in parse_records(pieces[n : n + BITE])]
        assert at_once == alone
        items: list[KmsgRecord | KmsgGap] = [record for record in alone if record is not None]
        assembler = Assembler()
        signals = [signal for item in items for signal in assembler.feed(item)] + assembler.flush()
        assert taken_at_once(items) == signals
        rows += sum(isinstance(item, KmsgRecord) and item.text.startswith("[ ") for item in items)
    assert rows > 1000


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
    alone.header(["total_vm"])
    at_once.header(["total_vm"])
    for text in texts:
        if not alone.takes(text):
            break
    count = at_once.take_rows(texts)
    assert all(at_once.takes(text) for text in texts[count : len(alone._texts)])
    assert at_once._texts == alone._texts
    assert at_once.tasks(4096) == alone.tasks(4096)
