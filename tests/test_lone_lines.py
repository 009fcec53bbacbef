"""One line of a report alone, which others may have printed, needs a second line or the kernel's count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatchd.daemon.crosscheck import Counted
from oomwatchd.formats import Proof, Role
from oomwatchd.formats.oom_kill import KILLED
from oomwatchd.formats.recognise import ALL
from tests.test_carriers import KILLED as KILL_LINE
from tests.test_daemon import Rig, metric

REAPED = "oom_reaper: reaped process 7 (x), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"
FORGED = "oomwatchd_kmsg_forged_records_total"
#: lines that prove a report, of each form but the kill line
ALONE = [
    form.samples[0]
    for form in ALL
    if form.proof is Proof.ALONE and form is not KILLED and not form.open_ended and form.role != Role.BEFORE
]


class Lone(Rig):
    """Begun, with the kernel's count at ``counted``; lines come 100 ms apart."""

    def begin(self) -> None:
        self.usec, self.seq = 10_000_000, 100
        self.watch.catch_up_done()
        self.counted(7)
        self.watch.rest()
        self.watch.rest()

    def counted(self, kills: int | None) -> None:
        (self.root / "vmstat").write_text("nr_free 1\n" if kills is None else f"oom_kill {kills}\n")

    def say(self, *texts: str) -> None:
        for text in texts:
            self.write(f"3,{self.seq},{self.usec},-;{text}")
            self.seq += 1
        self.read_at(self.usec + 10_000)
        self.usec += 100_000

    def settle(self) -> int:
        """How many reports were handed over for good."""
        self.usec += 20_000_000
        self.watch.tick()
        return sum(capture.settled for capture in self.captures)


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Lone]:
    made = Lone(tmp_path)
    made.begin()
    yield made
    made.close()


def test_a_kill_line_that_the_kernel_did_not_count_is_none(lone: Lone) -> None:
    lone.say(KILL_LINE)
    lone.say(KILL_LINE.replace("7 (x)", "8 (y)"))
    assert lone.settle() == 0 and lone.captures == []
    assert metric(lone.metrics, FORGED) == 2


def test_kill_lines_that_the_kernel_counted_are_kills(lone: Lone) -> None:
    """As of a storm in which the headers are rate limited."""
    lone.counted(8)
    lone.say(KILL_LINE)
    lone.counted(10)
    lone.say(KILL_LINE.replace("7 (x)", "8 (y)"))
    lone.say(KILL_LINE.replace("7 (x)", "9 (z)"))
    assert lone.settle() == 3
    assert metric(lone.metrics, FORGED) == 0


def test_a_forged_line_before_it_costs_no_genuine_kill(lone: Lone) -> None:
    lone.say(KILL_LINE.replace("7 (x)", "1 (systemd)"))
    lone.counted(8)
    lone.say(KILL_LINE)
    lone.say(KILL_LINE.replace("7 (x)", "1 (systemd)"))
    assert lone.settle() == 1
    assert "Killed process 7 (x)" in lone.captures[0].records[0].text
    assert metric(lone.metrics, FORGED) == 2


def test_the_reapers_word_is_a_second_line(lone: Lone) -> None:
    lone.say(KILL_LINE)
    lone.say(REAPED)
    assert lone.settle() == 1


def test_a_kernel_without_a_count_is_believed(lone: Lone) -> None:
    lone.counted(None)
    lone.say(KILL_LINE)
    assert lone.settle() == 1


@pytest.mark.parametrize("text", ALONE)
def test_another_line_alone_is_nothing(lone: Lone, text: str) -> None:
    lone.say(text, "usb 1-1: new device", "eth0: link is up")
    assert lone.settle() == 0


def test_another_line_alone_beside_lost_records_is_what_was_left(lone: Lone) -> None:
    lone.say("Out of memory and no killable processes...")
    assert lone.settle() == 0
    lone.say("a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0")
    lone.seq += 40
    lone.say("usb 1-1: new device")
    assert lone.settle() == 1


def test_the_books() -> None:
    count = [5]
    books = Counted(lambda: count[0])
    assert books.confirms(1, 1)  # before the first rest: of this whole boot
    books.rest()
    books.rest()
    assert not books.confirms(1, 1)
    assert books.confirms(1, 0)  # of a whole report, though its count was not seen yet
    count[0] = 7  # that kill, and another
    assert books.confirms(1, 1)
    assert not books.confirms(1, 1)
    count[0] = 8
    assert books.confirms(2, 2)  # one of them is that kill
    assert not books.confirms(1, 1)
