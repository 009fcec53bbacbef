"""Properties of every input: no line is lost, pieces give the same as the whole, ids stay."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from oomwatchd.formats import Section
from oomwatchd.formats.recognise import recognise, recognise_row
from oomwatchd.records.kmsg import KmsgRecord
from tests.blocks import blocks_of, read_records, report_of
from tests.conftest import corpus_directory
from tests.fuzz.targets import conclude_all, read_text

#: a line that no form knows
FOREIGN = "zzq {} of another kind"


@cache
def recorded() -> tuple[tuple[KmsgRecord, ...], ...]:
    """The longest report of each recorded kernel, as whole records."""
    found = []
    for path in sorted(corpus_directory().glob("samples/*.kmsg.gz")):
        found.append(max((block.records for block in blocks_of(read_records(path))), key=len))
    return tuple(found)


@cache
def logs() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(corpus_directory().glob("field/*.log")))


#: a report by its number, for a message that can be read
reports = st.integers(0, len(list(corpus_directory().glob("samples/*.kmsg.gz"))) - 1)


def renumbered(records: Sequence[KmsgRecord]) -> list[KmsgRecord]:
    usec = records[0].usec or 0
    return [replace(record, seq=n, usec=usec + n, flag="-") for n, record in enumerate(records)]


def sections(records: Sequence[KmsgRecord]) -> list[Section]:
    """How far the report has come after each record."""
    section = Section.BEFORE
    found = []
    for record in records:
        if m := recognise(record.text, raw=True) or recognise_row(record.text, section):
            section = max(section, m[0].section)
        found.append(section)
    return found


@settings(max_examples=300, deadline=None)
@given(number=reports, data=st.data())
def test_a_line_that_nobody_knows_is_kept(number: int, data: st.DataObject) -> None:
    """Put between any two lines of a report it is in ``undecoded``, but for the stack dump, whose lines are
    words and registers of any kind."""
    records = recorded()[number]
    at = data.draw(st.integers(1, len(records) - 1))
    foreign = FOREIGN.format(data.draw(st.text("abcxyz 0123456789,:", max_size=20))).rstrip()
    there = renumbered([*records[:at], replace(records[at], text=foreign), *records[at:]])
    far = sections(records)[at - 1]
    if not Section.HEADER <= far < Section.KILL:
        return  # outside the report
    (block,) = [block for block in blocks_of(there) if any(r.text == foreign for r in block.records)]
    if far > Section.STACK:
        assert foreign in report_of(block).undecoded
    assert report_of(block).kills == report_of(blocks_of(renumbered(records))[0]).kills


@settings(max_examples=300, deadline=None)
@given(number=reports, data=st.data())
def test_a_line_that_was_spoilt_is_kept(number: int, data: st.DataObject) -> None:
    """Behind the stack dump every line of a report is told by some form or is in ``undecoded``."""
    records = recorded()[number]
    at = data.draw(st.integers(1, len(records) - 1))
    text = records[at].text
    cut = data.draw(st.integers(0, max(0, len(text) - 1)))
    spoilt = text[:cut] + data.draw(st.sampled_from(["\x01", "~~", " ", "9", "é"])) + text[cut + 1 :]
    there = renumbered([*records[:at], replace(records[at], text=spoilt), *records[at + 1 :]])
    for block in blocks_of(there):
        report = report_of(block)
        section = Section.BEFORE
        known = 0
        for record in block.records:
            if m := recognise(record.text, raw=True) or recognise_row(record.text, section):
                section = max(section, m[0].section)
                known += 1
            elif section > Section.STACK and record.text.strip():
                assert record.text in report.undecoded
        assert known >= 1


@settings(max_examples=150, deadline=None)
@given(number=st.integers(0, 200), cuts=st.lists(st.integers(0, 20_000), max_size=8))
def test_pieces_give_the_same_events(number: int, cuts: list[int]) -> None:
    log = logs()[number % len(logs())]
    whole = [event.id for event in conclude_all(read_text(log))]
    pieces = read_text(log, [cut for cut in cuts if cut < len(log)])
    assert [event.id for event in conclude_all(pieces)] == whole


@settings(max_examples=100, deadline=None)
@given(number=reports, begin=st.integers(0, 60))
def test_records_read_again_have_the_same_ids(number: int, begin: int) -> None:
    there = recorded()[number][begin:]
    first, again = conclude_all(there), conclude_all(list(there))
    assert [event.id for event in first] == [event.id for event in again]
    assert first == again
