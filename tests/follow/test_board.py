"""One machine's log: netconsole's records, text, what is lost, what is bounded."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path

import pytest

from oomwatchd.event import OomEvent
from oomwatchd.event.identity import event_id
from oomwatchd.follow import board as boards_module
from oomwatchd.follow.board import BURST_EVENTS, MAX_QUEUED, Board
from oomwatchd.follow.netconsole import HOLD_SECONDS, MAX_FRAGMENTED, Sequence, is_extended
from oomwatchd.records.capture import Followed, OomCapture, Via
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord
from tests.follow.boards import console, datagrams, events, expected, raw_records, same
from tests.test_analyze_growing import report

WALL = 1_790_000_000.0


def board(via: Via = "netconsole", name: str = "board") -> Board:
    return Board(Followed(name=name, via=via), lambda: WALL)


def played(one: Board, pieces: list[bytes], *, step: float = 0.001) -> list[OomCapture]:
    """What the board reports after these arrive one after another and nothing more comes for two seconds."""
    found, now = [], 0.0
    for piece in pieces:
        now += step
        one.put(piece, now)
        found += one.work(now)
    for _ in range(8):
        now += 0.26
        found += one.rest(now)
    return found


def numbers(items: list[KmsgRecord | KmsgGap]) -> list[object]:
    return [item.seq if isinstance(item, KmsgRecord) else ("lost", item.lost) for item in items]


def record(seq: int, usec: int | None = None) -> bytes:
    return b"6,%d,%d,-;text %d\n" % (seq, 1000 * seq if usec is None else usec, seq)


# -- sequence ------------------------------------------------------------------------------------------


def test_datagrams_that_overtake_each_other_are_put_in_order() -> None:
    sequence = Sequence()
    found = [numbers(sequence.feed(record(seq), 0.0)) for seq in (5, 7, 6, 9, 8)]
    assert found == [[5], [], [6, 7], [], [8, 9]]
    assert not sequence.waits and sequence.lost == 0


def test_what_never_comes_is_waited_for_and_then_counted() -> None:
    sequence = Sequence()
    assert numbers([*sequence.feed(record(5), 0.0), *sequence.feed(record(8), 0.1)]) == [5]
    assert sequence.rest(0.2) == []
    assert numbers(sequence.rest(0.1 + HOLD_SECONDS)) == [("lost", 2), 8]
    assert sequence.lost == 2
    assert sequence.feed(record(6), 1.0) == []  # too late


def test_a_copy_is_left_out_and_a_reboot_begins_anew() -> None:
    sequence = Sequence()
    assert numbers(sequence.feed(record(900, 60_000_000), 0.0)) == [900]
    assert sequence.feed(record(900, 60_000_000), 0.0) == []
    assert numbers(sequence.feed(record(0, 0), 1.0)) == [0]
    assert numbers(sequence.feed(record(1, 10), 1.0)) == [1]


def test_a_reboot_lets_go_what_was_held() -> None:
    sequence = Sequence()
    sequence.feed(record(900, 60_000_000), 0.0)
    sequence.feed(record(902, 60_000_002), 0.0)
    assert numbers(sequence.feed(record(0, 0), 1.0)) == [("lost", 1), 902, 0]


def test_fragments_come_in_any_order() -> None:
    body = "".join(map(str, range(2000))).encode()
    line = b"6,77,1000,-,caller=T1;" + body
    pieces = list(datagrams([line]))
    assert len(pieces) > 5 and all(map(is_extended, pieces))
    for order in (pieces, pieces[::-1], random.Random(1).sample(pieces, len(pieces))):
        sequence = Sequence()
        (one,) = [item for piece in order for item in sequence.feed(piece, 0.0)]
        assert isinstance(one, KmsgRecord)
        assert (one.text.encode(), one.seq, one.caller) == (body, 77, "T1")


def test_a_record_that_lacks_a_fragment_is_lost() -> None:
    pieces = list(datagrams([b"6,77,1000,-;" + b"x" * 3000]))
    sequence = Sequence()
    found = [item for piece in pieces[:-1] for item in sequence.feed(piece, 0.0)]
    found += sequence.feed(record(78, 2000), 0.0)
    assert found == []
    assert numbers(sequence.rest(1.0)) == [("lost", 1), 78]


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"6,1,2,-",
        b"6,1,2,-,ncfrag=0/999999;x",
        b"6,1,2,-,ncfrag=900000/5;x",
        b"6,999999999999999999,999999999999999999,-;x",
        b"\xff\xfe\x00",
        b"6,1,2,-,ncfrag=9/5;" + b"x" * 60000,
    ],
)
def test_nothing_that_comes_raises(datagram: bytes) -> None:
    sequence = Sequence()
    for now in (0.0, 1.0, 2.0):
        sequence.feed(datagram, now)
        sequence.rest(now)


def test_what_is_held_is_bounded() -> None:
    sequence = Sequence()
    for seq in range(0, 4000, 2):
        sequence.feed(b"6,%d,%d,-,ncfrag=0/2000;%b" % (seq, seq, b"x" * 900), 0.0)
    assert len(sequence._parts) <= MAX_FRAGMENTED


# -- the same event --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mips() -> list[bytes]:
    return raw_records()


def told_of(found: list[OomCapture]) -> list[OomEvent]:
    return [event for event in events(found) if event.kills]


def test_netconsole_tells_the_same_events_as_the_ring_buffer(mips: list[bytes]) -> None:
    wanted = [event for event in expected(mips) if event.kills]
    shuffled = list(datagrams(mips, release=b"6.1.0"))
    for at in range(0, len(shuffled) - 1, 7):  # a few overtake their neighbours
        shuffled[at], shuffled[at + 1] = shuffled[at + 1], shuffled[at]
    found = told_of(played(board(), shuffled))
    assert len(wanted) > 20
    assert [same(event) for event in found] == [same(event) for event in wanted]
    assert all(event.host is not None and not event.host.trusted for event in found)
    assert len({event.id for event in found}) == len(found)


def test_a_serial_console_tells_the_same_kills_as_the_ring_buffer(mips: list[bytes]) -> None:
    mips = mips[:6000]
    wanted = [event for event in expected(mips) if event.kills]
    one = board("serial")
    text = console(mips)
    pieces = [text[at : at + 512] for at in range(0, len(text), 512)]
    found = told_of(played(one, pieces))

    def kills(all_of: list[OomEvent]) -> list[tuple[object, ...]]:
        # a name with a line break or an escape sequence in it does not survive a console
        return [(event.kills, event.victims[0].pid, event.constraint, event.trigger.pid) for event in all_of]

    assert kills(found) == kills(wanted)
    assert sum(event.complete for event in found) >= sum(event.complete for event in wanted) * 0.95


def test_one_datagram_in_a_hundred_lost_costs_lines_and_not_kills(mips: list[bytes]) -> None:
    wanted = sum(event.kills for event in expected(mips))
    draw = random.Random(18)
    kept = [piece for piece in datagrams(mips) if draw.random() >= 0.01]
    one = board()
    found = events(played(one, kept))
    assert one.lost > 0
    assert sum(event.kills for event in found) >= wanted * 0.95
    assert any(event.lost_records for event in found)


def test_ids_are_stable_and_tell_hosts_apart() -> None:
    text = [report(1).encode(), report(2, 200).encode()]
    first = [event_id(one) for one in played(board("serial"), text)]
    again = [event_id(one) for one in played(board("serial"), text)]
    other = [event_id(one) for one in played(board("serial", "other"), text)]
    assert first == again and len({*first, *other}) == 4


def test_the_same_words_without_stamps_are_another_event_at_another_time() -> None:
    line = (
        b"Out of memory: Killed process 7 (app) total-vm:104000kB, anon-rss:90000kB, file-rss:10000kB,"
        b" shmem-rss:0kB, UID:0 pgtables:220kB oom_score_adj:0\n"
    )
    moments = itertools.count(WALL, 3600)
    ids = set()
    for _ in range(2):  # the daemon was started again meanwhile
        one = Board(Followed(name="board", via="serial"), lambda: next(moments))
        ids |= {event_id(capture) for capture in played(one, [line])}
    assert len(ids) == 2


def test_a_log_that_is_read_again_tells_nothing_twice() -> None:
    one = board("command")
    ring = [report(1).encode(), report(2, 200).encode()]
    assert len(played(one, ring)) == 2
    assert played(one, ring) == []
    assert len(played(one, [report(3, 300).encode()])) == 1


# -- faults ----------------------------------------------------------------------------------------


def test_garbage_between_and_within() -> None:
    draw = random.Random(3)
    noise = draw.randbytes(20_000)
    found = events(played(board("serial"), [noise, b"\r\n", report(1).encode(), noise]))
    assert [event.victims[0].pid for event in found] == [1]


def test_a_reboot_in_the_middle_of_a_report() -> None:
    whole = report(1).encode().splitlines(keepends=True)
    boot = (
        b"\0\0U-Boot 2021.01\r\n[    0.000000] Linux version 6.1.0 (gcc) #1\r\n[    0.100000] Memory: 64M\r\n"
    )
    found = events(
        played(board("serial"), [b"".join(whole[:3]) + whole[3][:40], boot, report(2, 20).encode()])
    )
    assert found[-1].victims[0].pid == 2
    assert all(1 not in [victim.pid for victim in event.victims] for event in found)


def test_two_consoles_on_one_line() -> None:
    """A getty's words and a shell's come between the kernel's lines."""
    lines = report(1).encode().splitlines(keepends=True)
    mixed = b"".join(line + b"board login: root\r\n# ls -l /proc\r\n" for line in lines)
    found = events(played(board("serial"), [mixed]))
    assert [event.victims[0].pid for event in found] == [1]


def test_lines_broken_at_a_column_even_inside_the_word_that_tells() -> None:
    text = report(1).encode().replace(b"\n", b"\r\n")
    wrapped = b"\r\n".join(
        line[at : at + 61] for line in text.split(b"\r\n") for at in range(0, max(len(line), 1), 61)
    )
    found = events(played(board("serial"), [wrapped + b"\r\n"]))
    assert [(event.victims[0].pid, event.kills) for event in found] == [(1, 1)]


def test_records_of_programs_make_no_event() -> None:
    forged = b"12,5,1000,-;Out of memory: Killed process 7 (app) total-vm:1kB, anon-rss:1kB, file-rss:0kB\n"
    assert played(board(), [forged]) == []


# -- bounds ----------------------------------------------------------------------------------------


def test_what_waits_is_bounded_and_counted() -> None:
    one = board("serial")
    for _ in range(100):
        one.put(b"x" * 10_000, 0.0)
    assert one.held <= MAX_QUEUED
    assert one.dropped["bytes"] == 100 * 10_000 - one.held


def test_events_are_bounded_and_counted() -> None:
    line = (
        b"[  %d.000000] Out of memory: Killed process %d (app) total-vm:104000kB, anon-rss:90000kB,"
        b" file-rss:10000kB, shmem-rss:0kB, UID:0 pgtables:220kB oom_score_adj:0\n"
    )
    one = board("serial")
    found = played(one, [line % (10 + pid, pid) for pid in range(1, BURST_EVENTS * 2)], step=0.0001)
    assert BURST_EVENTS <= len(found) <= BURST_EVENTS + 5
    assert one.dropped["event"] >= BURST_EVENTS - 6


def test_text_without_a_report_is_searched_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards_module, "GrowingLog", None)
    one = board("serial")
    line = b"[   12.345678] usb 1-1: new high-speed USB device number 5 using ehci\r\n"
    began = time.thread_time()
    for turn in range(200):
        one.put(line * 200, turn / 10)
        assert one.work(turn / 10) == []
    assert not one.waits and one.held == 0
    assert time.thread_time() - began < 2.0


def test_pages_and_samples_of_the_corpus_do_not_raise(corpus: Path) -> None:
    for path in sorted((corpus / "samples").rglob("*.txt"))[:20]:
        data = path.read_bytes()[:200_000]
        played(board("serial"), [data[at : at + 4096] for at in range(0, len(data), 4096)])
