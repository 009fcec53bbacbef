"""Consoles that lose bytes: what is put right, what is left out, and that nothing is invented."""

from __future__ import annotations

import random
import time
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomwatchd.event import OomEvent
from oomwatchd.follow.board import Board
from oomwatchd.follow.mend import Mender
from oomwatchd.follow.wordings import is_rest_of, mend
from oomwatchd.formats import ESSENTIAL
from oomwatchd.formats.recognise import ALL
from oomwatchd.records.capture import Followed
from tests.follow.boards import KERNEL, console, events, expected, raw_records

KILL = (
    "Memory cgroup out of memory: Killed process 180 (dd) total-vm:63028kB, anon-rss:20256kB, file-rss:4kB,"
    " shmem-rss:1028kB, UID:0 pgtables:28kB oom_score_adj:-998"
)
ROW = "[    103]     0   103     6436     6232    86016        0             0 labbox"


def through(text: str | bytes) -> list[str]:
    mender = Mender()
    data = text if isinstance(text, bytes) else text.encode()
    return (mender.feed(data) + mender.flush()).decode(errors="replace").splitlines()


@pytest.mark.parametrize(
    ("came", "was"),
    [
        (KILL.replace("Killed", "illed"), KILL),
        (KILL.replace("process 1", "proess1"), KILL),
        (KILL.replace("(dd)", "dd)"), KILL),
        (KILL.replace("anon-rss:", "aon-rss").replace("UID", "ID"), KILL),
        (KILL.replace("shmem", "shm\x00m"), KILL),
        (KILL.replace("shmem", "shm~m"), KILL),
        # a digit that is certainly missing: the figure is left out
        (KILL.replace("20256", "0256").replace("file", "fle"), KILL.replace("20256", "")),
        ("dd invoked oom-kller: gfp_mask=0xcc0(GFP_KERNEL) order=0, oom_score_adj=0",
         "dd invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"),
        ("Mem-Ino:", None),
        ("Killed process 17 (a", None),
        ("Out of memory: Killed process 106 (dd) total-vm:2050268kB, anon-rss:18627", None),
        ("usb 1-1: new high-speed USB device number 5 using ehci", None),
        ("a program says: Killed my process 12 (by hand)", None),
    ],
)  # fmt: skip
def test_a_line_gets_the_letters_of_its_wording_back(came: str, was: str | None) -> None:
    assert mend(came) == was


@pytest.mark.parametrize("form", [form for form in ALL if form.role in ESSENTIAL], ids=lambda form: form.name)
def test_whole_lines_are_not_touched(form: object) -> None:
    for sample in form.samples:  # type: ignore[attr-defined]
        if "\n" not in sample:
            line = f"[   12.345678] {sample}"
            assert through(line + "\n") == [line]


def test_a_whole_log_is_not_touched() -> None:
    text = console(raw_records()[:3000])
    mender = Mender()
    assert mender.feed(text) == text.replace(b"\r\n", b"\n") and mender.left_out == 0


def test_the_process_is_that_of_the_lines_before() -> None:
    damage = "[   12.345600] dd invoked oom-kller: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    summary = (
        "[   12.345600] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
        "oom_memcg=/a,task_memcg=/a,task=dd,pid=180,uid=0"
    )
    kill = f"[   12.345600] {KILL}"
    spoilt = kill.replace("180 (dd)", "18 (d)")
    assert through("\n".join([damage, summary, spoilt, ""]))[-1] == kill
    # on a line that loses nothing, 18 and 180 are two processes
    assert through("\n".join([damage.replace("kller", "killer"), summary, spoilt, ""]))[-1] == spoilt


def test_sizes_are_those_of_the_row() -> None:
    damage = "[   12.345600] dd invoked oom-kller: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    row = "[   12.345600] [    180]     0   180    15757     5322    28672        0          -998 dd"
    kill = f"[   12.345600] {KILL}"
    for spoilt in (
        kill.replace("63028", "6302"),
        kill.replace("20256", "2056"),
        kill.replace("1028kB", "128kB"),
    ):
        assert through("\n".join([damage, row, spoilt, ""]))[-1] == kill


@pytest.mark.parametrize("at", [3, 17, 40, 50])
def test_a_row_that_lost_a_byte_of_its_figures_is_left_out(at: int) -> None:
    damage = "[   12.345600] dd invoked oom-kller: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
    assert len(through(f"{damage}[   12.345600] {ROW}\n")) == 2
    assert len(through(f"{damage}[   12.345600] {ROW[:at]}{ROW[at + 1 :]}\n")) == 1


@pytest.mark.parametrize(
    "stamp", ["   12.345678] ", "[   1.345678] ", "[   12.34678] ", "[   12345678] ", "[   12.345678]"]
)
def test_a_spoilt_stamp_is_that_of_the_line_before(stamp: str) -> None:
    text = f"[   12.345600] Mem-Info:\n{stamp}{KILL}\n"
    assert through(text)[1] == f"[   12.345600] {KILL}"


def test_lines_whose_ends_were_lost() -> None:
    lines = [f"[   12.345600] {KILL}", "[   12.345700] Mem-Info:"]
    assert through(f"{lines[0]}\r{lines[1]}\r\n") == through(f"{lines[0]}\n{lines[1]}\n") == lines


@given(st.binary(max_size=400), st.lists(st.integers(0, 500), max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_bytes_cut_anywhere_come_out_the_same(noise: bytes, cuts: list[int]) -> None:
    data = noise + b"\n" + KILL.replace("memory", "memry").encode() + b"\n" + noise
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    mender = Mender()
    pieces = [mender.feed(data[a:b]) for a, b in pairwise(places)]
    assert b"".join(pieces) + mender.flush() == (whole := Mender()).feed(data) + whole.flush()


def test_a_line_full_of_beginnings_is_soon_given_up() -> None:
    fields = (",mems_allowed=0", ",oom_memcg=", ",task_memcg=", ",task=", ",pid=1")
    line = "oom-kil:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/" + "".join(
        one * 20 for one in fields
    )
    began = time.thread_time()
    assert mend(line) is None
    assert time.thread_time() - began < 0.2


@given(st.text("abcd0123", min_size=1, max_size=12), st.data())
def test_the_rest_of_a_word(word: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(word) - 1))
    assert is_rest_of(word[:at] + word[at + 1 :], word, 1)
    assert not is_rest_of(word + "x", word)


# -- one byte in a hundred is lost ---------------------------------------------------------------------


@cache
def log(path: Path) -> tuple[list[bytes], dict[int, OomEvent], int]:
    raw = raw_records(path)[:1200]
    wanted = [event for event in expected(raw) if event.kills]
    by_pid = {victim.pid: event for event in wanted for victim in event.victims}
    return raw, by_pid, sum(event.kills for event in wanted)


def damaged(path: Path, seed: int) -> list[OomEvent]:
    draw = random.Random(seed)
    text = bytes(byte for byte in console(log(path)[0]) if draw.random() >= 0.01)
    one = Board(Followed(name="board", via="serial"), lambda: 1_790_000_000.0)
    found, now = [], 0.0
    for at in range(0, len(text), 512):
        now += 0.001
        one.put(text[at : at + 512], now)
        found += one.work(now)
    while one.waits:
        now += 0.26
        found += one.rest(now)
    return [event for event in events(found) if event.kills]


FIGURES = ("total_vm_bytes", "anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes", "oom_score_adj")


def judged(path: Path, seed: int) -> Counter[str]:
    """Kills told, and figures of victims that are right, not there and wrong."""
    _, wanted, kills = log(path)
    count = Counter(kills=kills)
    for event in damaged(path, seed):
        count["told"] += event.kills
        for victim in event.victims:
            count["victims"] += 1
            if victim.pid not in wanted:
                count["wrong process"] += 1
                continue
            true = next(one for one in wanted[victim.pid].victims if one.pid == victim.pid)
            for name in FIGURES:
                figure, truth = getattr(victim, name), getattr(true, name)
                count["right" if figure == truth else "absent" if figure is None else "wrong"] += 1
    return count


@pytest.mark.parametrize("path", sorted(KERNEL.glob("*.kmsg.gz")), ids=lambda path: path.name[:12])
def test_one_byte_in_a_hundred_is_lost(path: Path) -> None:
    seed = random.randrange(10**6)  # another one in each run; it is shown
    print("seed", seed)
    count = sum((judged(path, seed + n) for n in range(2)), Counter())
    # over 20 seeds: 92 to 96 % told, 0.4 % wrong processes, 1.1 % wrong figures; a single seed is worse
    assert count["told"] >= count["kills"] * 0.75, count
    assert count["wrong process"] <= count["victims"] * 0.1, count
    assert count["wrong"] <= (count["right"] + count["wrong"]) * 0.08, count
    assert count["right"] >= count["wrong"] + count["absent"], count
