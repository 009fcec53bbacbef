"""Several witnesses of kills are compared: a difference is reported once, and only after it has lasted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from oomwatchd.daemon.crosscheck import LASTING_USEC, MAX_CGROUPS, MAX_NAMES, TELL_USEC, Balance, Totals
from oomwatchd.daemon.suppression import Suppression
from oomwatchd.event import conclude
from oomwatchd.metrics import Metrics
from oomwatchd.records.capture import OomCapture, Source, Unseen
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.render.html import render_html_page
from oomwatchd.render.json import encode
from oomwatchd.render.terminal import render_text
from oomwatchd.reports.assemble import OomBlock
from oomwatchd.sources.tracefs import Marked
from oomwatchd.store import Store

LASTING = LASTING_USEC["kmsg"]


class Scale:
    """A balance with the counts that it weighs."""

    def __init__(self, told: float = 0.0) -> None:
        self.kernel = 100.0
        self.reported = 40.0
        self.baseline = 60.0
        self.lost = 0
        self.cgroups = {"/a": 5}
        self.balance = Balance(told, lambda: dict(self.cgroups))

    def weigh(self, usec: int) -> Unseen | None:
        totals = Totals(kernel_kills=self.kernel, reported_kills=self.reported, lost_records=self.lost)
        return self.balance.weigh(totals, self.kernel - self.baseline - self.reported, usec)


def test_a_lasting_difference_is_told_once() -> None:
    scale = Scale()
    assert scale.weigh(0) is None
    scale.kernel += 5
    scale.reported += 3
    scale.lost = 700
    scale.cgroups = {"/a": 6, "/b": 4}
    scale.balance.marked([Marked(1, 7, "leak"), Marked(2, 8)])
    assert scale.weigh(1_000_000) is None
    assert scale.weigh(1_000_000 + LASTING - 1) is None
    assert scale.weigh(1_000_000 + LASTING) == Unseen(
        kills=2,
        kernel_kills=5,
        reported_kills=3,
        unaccounted_kills=2,
        lost_records=700,
        cgroups=(("/b", 4), ("/a", 1)),
        marked=((7, "leak"), (8, None)),
    )
    assert all(scale.weigh(n * TELL_USEC) is None for n in range(2, 9))


def test_a_kill_line_that_comes_late_is_no_difference() -> None:
    scale = Scale()
    for n in range(20):
        scale.kernel += 1
        assert scale.weigh(n * LASTING) is None
        scale.reported += 1
        assert scale.weigh((n + 1) * LASTING - 1) is None


def test_only_what_has_lasted_is_told_and_the_rest_later() -> None:
    scale = Scale()
    scale.weigh(0)
    scale.kernel += 3
    scale.weigh(LASTING)
    scale.kernel += 4  # of these nobody can say yet
    first = scale.weigh(2 * LASTING)
    assert first is not None and (first.kills, first.unaccounted_kills) == (3, 3)
    assert scale.weigh(3 * LASTING) is None
    assert scale.weigh(5 * LASTING) is None  # not more often
    second = scale.weigh(2 * LASTING + TELL_USEC)
    assert second is not None and (second.kills, second.unaccounted_kills) == (4, 7)


def test_what_an_earlier_daemon_told_is_not_told_again() -> None:
    scale = Scale(told=2.0)
    scale.kernel += 2
    assert [scale.weigh(n * LASTING) for n in range(5)] == [None] * 5
    scale.kernel += 1
    assert scale.weigh(5 * LASTING) is None
    found = scale.weigh(6 * LASTING)
    assert found is not None and (found.kills, found.unaccounted_kills) == (1, 3)


def test_what_a_restart_found_again_makes_room_for_new_ones() -> None:
    scale = Scale(told=2.0)
    assert scale.weigh(0) is None  # both were in the ring after all
    scale.kernel += 1
    scale.weigh(LASTING)
    found = scale.weigh(2 * LASTING)
    assert found is not None and found.kills == 1


def test_what_is_told_is_bounded() -> None:
    scale = Scale()
    scale.weigh(0)
    scale.kernel += 1000
    scale.cgroups = {f"/{n}": n for n in range(1000)}
    scale.balance.marked(Marked(n, n, "x") for n in range(1000))
    scale.weigh(1)
    found = scale.weigh(1 + LASTING)
    assert found is not None
    assert found.cgroups == tuple((f"/{n}", n) for n in range(999, 999 - MAX_CGROUPS, -1))
    assert [pid for pid, _ in found.marked] == list(range(1000 - MAX_NAMES, 1000))


def unseen_capture(kills: int = 2) -> OomCapture:
    return OomCapture(
        source=Source(kind="kmsg", form="kmsg", boot_id="b" * 32),
        records=(),
        settled=True,
        detected=1_700_000_000.5,
        unseen=Unseen(
            kills=kills,
            kernel_kills=kills,
            reported_kills=0,
            unaccounted_kills=kills,
            cgroups=(("/a<script>\x1b[31m", 2),),
            marked=((7, "x\ny\x1b[2J"),),
        ),
    )


def test_its_event_has_no_kill_line_and_says_so_in_every_medium() -> None:
    event = conclude(unseen_capture()).event
    assert (event.kind, event.kills, event.victims, event.complete) == ("oom_kill", 0, (), False)
    assert event.summary == "2 kills that the kernel counted and its log does not show"
    assert conclude(unseen_capture(1)).event.summary.startswith("1 kill that")
    assert event.time.wall == event.time.detected == "2023-11-14T22:13:20.500Z"
    assert [finding.id for finding in event.findings] == ["kills_unseen"]
    assert event == conclude(unseen_capture()).event
    text = render_text(event, width=80)
    assert "\x1b" not in text and "the log does not show it (2 by the kernel's count)" in text
    page = render_html_page([event], {event.id: ()})
    assert "<script>\x1b" not in page and "a<script>" not in page and "\x1b" not in page
    assert b'"unseen":{"kills":2' in encode(event)


def test_it_is_stored_once_and_moves_no_count_of_kills(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.kernel_kills(10)
    metrics.kernel_kills(12)
    capture = unseen_capture()
    with_store = Store.open(tmp_path)
    assert with_store.put(capture, conclude(capture).event, metrics.count) == "new"
    assert with_store.put(capture, conclude(capture).event, metrics.count) == "known"
    assert metrics.kills_now() == (12, 0, 2)
    assert metrics.told_unseen == 2
    (row,) = with_store.list()
    assert (row.kind, row.kills, row.wall) == ("oom_kill", 0, 1_700_000_000.5)
    assert with_store.get(row.id) == capture
    again = Metrics()
    again.load(with_store.load_counters("b" * 32))
    assert again.told_unseen == 2
    with_store.close()


# -- headers that the kernel suppressed ----------------------------------------------------------------

SUPPRESSED = "oom_kill_process: {} callbacks suppressed"
HEADER = "x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
KILL = "Memory cgroup out of memory: Killed process 7 (x) total-vm:1kB, anon-rss:1kB, file-rss:0kB"


def block(*lines: str) -> OomBlock:
    return OomBlock(records=tuple(KmsgRecord(text=line, facility=0, seq=n) for n, line in enumerate(lines)))


WHOLE, LONE = block(HEADER, KILL), block(KILL)


@pytest.mark.parametrize(
    ("from_the_first", "blocks", "expected"),
    [
        (True, [WHOLE, LONE, LONE, block(SUPPRESSED.format(2), HEADER, KILL)], [None, None, None, 2]),
        (False, [LONE, LONE, block(SUPPRESSED.format(2), HEADER, KILL)], [None, None, None]),
        (
            False,
            [block(SUPPRESSED.format(9), HEADER), LONE, WHOLE, block(SUPPRESSED.format(4), HEADER, KILL)],
            [None, None, None, 1],
        ),
    ],
)
def test_reports_without_a_header_are_counted_between_two_words_of_the_kernel(
    from_the_first: bool, blocks: Sequence[OomBlock], expected: list[int | None]
) -> None:
    suppression = Suppression()
    if from_the_first:
        suppression.from_the_first_record()
    assert [suppression.take(each) for each in blocks] == expected
