"""The warning before the kill: on simulated memory, looked at as the flight recorder looks."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomwatchd.warning.budget import Budget
from oomwatchd.warning.incidents import Incidents, Reading
from oomwatchd.warning.projection import project
from oomwatchd.warning.series import MOST_POINTS, Series, slope
from tests.growing import (
    MB,
    Run,
    Shape,
    churn,
    linear,
    noisy,
    ramp,
    ratchet,
    run,
    sawtooth,
    settling,
    stairs,
)
from tests.near.replay import replay

EXHAUSTIONS: dict[str, tuple[Shape, float]] = {
    **{f"a leak of {s} s": (linear(s), s) for s in (35, 45, 60, 90, 180, 600)},
    **{f"from half of it in {s} s": (linear(s, base=0.5, start=60), s) for s in (45, 90, 300)},
    **{f"with noise in {s} s": (noisy(linear(s), 0.02), s) for s in (60, 300)},
    "with much noise": (noisy(linear(300), 0.05), 273),
    "in steps": (stairs(linear(120), 12), 120),
    "in large steps": (stairs(linear(600), 60), 600),
    "ever faster": (lambda at: 0.02 * 50 ** (at / 80), 80),
    **{
        f"a collector that keeps {kept} of each {period} s": (ratchet(0.1, swing, kept, period), 0.0)
        for kept, swing, period in ((0.02, 0.2, 10), (0.02, 0.3, 30), (0.01, 0.3, 13), (0.04, 0.15, 20))
    },
    "after a plateau": (lambda at: ramp(0.6, 10)(at) + max(0.0, at - 300) * 0.4 / 90, 90),
}
CALM: dict[str, Shape] = {
    "flat": lambda at: 0.6,
    "full and flat": lambda at: 0.95,
    "nearly full, with noise": noisy(lambda at: 0.93, 0.01),
    **{f"settles at {v} in {t} s": settling(v, t) for v in (0.7, 0.85, 0.93) for t in (5, 15, 40, 120)},
    **{f"straight to {v} in {t} s": ramp(v, t, 20) for v in (0.5, 0.7, 0.8) for t in (5, 10, 20)},
    "a steep collector": sawtooth(0.5, 0.9, 14),
    "small jobs": churn(0.3, 0.1, 1, 1),
    "larger jobs": churn(0.4, 0.2, 2, 3),
    "long jobs": churn(0.55, 0.13, 3, 10),
    **{f"jobs of 20 s, {seed}": churn(0.4, 0.1, seed, 20) for seed in range(4, 8)},
    **{f"jobs of 5 s, {seed}": churn(0.5, 0.15, seed, 5) for seed in range(4)},
    "a batch to 94 % again and again": lambda at: 0.94 * min(1.0, (at % 27) / 13) if at % 27 < 16 else 0.02,
    "in a quarter of its room, slowly": lambda at: min(0.25, at / 4000),
}


def watched(name: str) -> Run:
    shape, _ = EXHAUSTIONS[name]
    return run(shape, 1500, phase=3)


@pytest.mark.parametrize("name", EXHAUSTIONS)
def test_an_exhaustion_is_announced(name: str) -> None:
    found = watched(name)
    assert found.exhausted is not None
    assert [one.state for one in found.warnings] == ["came_true"]
    assert found.lead > 0
    told = found.warnings[0]
    # the range holds the end, as far as the growth goes on as it did
    if "noise" not in name and "faster" not in name and "steps" not in name and "keeps" not in name:
        assert told.soonest_seconds * 0.9 - 2 <= found.lead <= (told.latest_seconds or math.inf) * 1.1 + 2


def test_a_growth_that_gets_faster_is_announced_before_half_of_it_is_used() -> None:
    for base, seconds in ((50, 80), (20, 100), (30, 180)):
        found = run(lambda at, b=base, s=seconds: b ** (at / s - 1), 1500, phase=0)  # type: ignore[misc]
        assert found.warnings[0].used_bytes < 0.5 * found.warnings[0].capacity_bytes
        assert found.lead > 0.25 * seconds


def test_a_ratchet_is_announced_once_and_before_half_of_its_time() -> None:
    for kept, swing, period in ((0.02, 0.2, 10), (0.02, 0.3, 30), (0.01, 0.3, 13)):
        found = run(ratchet(0.1, swing, kept, period), 6000)
        assert found.exhausted is not None
        assert found.lead > 0.5 * found.exhausted


def test_half_of_the_leads_are_60_percent_of_the_growth() -> None:
    # a cgroup that was just made is looked at every second from its beginning
    leads = sorted(run(linear(s), 4000, phase=0).lead / s for s in (60, 75, 90, 120, 180, 300, 600, 900))
    assert leads[len(leads) // 2] >= 0.6


@pytest.mark.parametrize("name", CALM)
def test_what_does_not_end_is_not_announced(name: str) -> None:
    assert run(CALM[name], 1200, phase=3).warnings == []


@pytest.mark.parametrize(("low", "high", "period"), [(0.3, 0.8, 30), (0.3, 0.7, 60), (0.2, 0.9, 120)])
def test_a_level_that_was_left_again_is_announced_once(low: float, high: float, period: float) -> None:
    found = run(sawtooth(low, high, period), 1800).warnings
    assert [(one.state, one.passed) for one in found] == [("passed", "freed")]


def test_a_plateau_passes_and_says_why() -> None:
    (told,) = run(ramp(0.75, 60), 600).warnings
    assert (told.state, told.passed) == ("passed", "stopped")
    assert told.peak_bytes == int(0.75 * 512 * MB)
    assert told.ended_usec is not None
    assert told.ended_usec > told.usec


RECORDED = Path(__file__).parent / "data/near.jsonl.gz"


def recorded() -> list[dict[str, Any]]:
    """Loads of tests.near.unseen that ran in a cgroup, looked at once a second."""
    found = [json.loads(line) for line in gzip.decompress(RECORDED.read_bytes()).splitlines()]
    for one in found:
        one["seen"] = [(at, *(1024 * amount for amount in amounts)) for at, *amounts in one["seen"]]
    return found


@pytest.mark.parametrize("found", [pytest.param(one, id=one["name"]) for one in recorded()])
@pytest.mark.parametrize("alone", [False, True])
def test_real_loads_are_announced_if_they_end_in_a_kill(found: dict[str, Any], *, alone: bool) -> None:
    done = replay(found, alone=alone)
    assert [one.state for one in done.warnings] == (["came_true"] if found["killed"] else [])


def test_half_of_the_real_loads_are_announced_early() -> None:
    shares = [replay(one, alone=False) for one in recorded() if one["killed"]]
    assert median(one.lead / one.growth for one in shares) >= 0.58


def readings(usec: int, **used: int) -> list[Reading]:
    return [
        Reading(
            cgroup=None if path == "machine" else path.replace("_", "/"),
            usec=usec,
            used_bytes=n,
            capacity_bytes=c,
        )
        for path, (n, c) in ((path, divmod(both, 1 << 40)) for path, both in used.items())
    ]


def both(used: float, capacity: int) -> int:
    return (int(used) << 40) + capacity


def test_one_growth_is_one_warning() -> None:
    """A cgroup, the one around it and the machine: the one that ends first is told."""
    incidents = Incidents(horizon_seconds=1800)
    opened = []
    for second in range(100):
        used = second * 4 * MB
        opened += incidents.take(
            readings(
                second * 1_000_000,
                machine=both(used + 512 * MB, 2048 * MB),
                _a=both(used + 10 * MB, 800 * MB),
                _a_b=both(used, 400 * MB),
            ),
            second * 1_000_000,
            float(second),
        )
    assert [(one.cgroup, one.state) for one in opened] == [("/a/b", "near")]


def test_a_kill_of_the_machine_belongs_to_what_grew_in_its_cgroup_and_later_kills_too() -> None:
    incidents = Incidents(horizon_seconds=1800)
    for second in range(50):
        used = both(second * 8 * MB, 512 * MB)
        incidents.take(readings(second * 1_000_000, _a=used), second * 1_000_000, float(second))
    first = incidents.killed(None, "/a/worker", 50_000_000, 50.0)
    assert first is not None
    told, lead, ended = first
    assert (told.state, told.cgroup, ended) == ("came_true", "/a", True)
    assert told.lead_seconds == pytest.approx(lead)
    again = incidents.killed("/a", "/a", 51_000_000, 51.0)
    assert again is not None
    assert again[1] == pytest.approx(lead + 1)
    assert not again[2]
    assert incidents.killed("/b", "/b", 51_000_000, 51.0) is None
    assert incidents.killed("/a", "/a", 200_000_000, 200.0) is None


def test_the_cgroup_ends_before_its_memory_does() -> None:
    incidents = Incidents(horizon_seconds=1800)
    changed = []
    for second in range(70):
        given = readings(second * 1_000_000, _a=both(second * 8 * MB, 512 * MB)) if second < 50 else []
        changed += incidents.take(given, second * 1_000_000, float(second))
    assert [(one.state, one.passed) for one in changed] == [("near", None), ("passed", "gone")]


class Unit:
    """A cgroup that is made anew with each start of its unit, looked at once a second."""

    def __init__(self) -> None:
        self.incidents = Incidents(horizon_seconds=1800)
        self.second = 0

    def live(self, shape: Shape, seconds: int, *, killed: bool = False) -> list[tuple[str, float]]:
        """One life; the states of its warnings, with the share that was held at the warning."""
        changed = []
        for at in range(seconds + 20):
            held = int(shape(at) * 512 * MB)
            given = readings(self.second * 1_000_000, _a=both(held, 512 * MB)) if at < seconds else []
            changed += self.incidents.take(given, self.second * 1_000_000, float(self.second))
            self.second += 1
            if killed and at == seconds - 1:
                self.incidents.killed("/a", "/a", self.second * 1_000_000, float(self.second))
        self.second += 3600
        return [(one.state, one.used_bytes / one.capacity_bytes) for one in changed]


def test_a_start_to_the_same_level_is_announced_once() -> None:
    unit = Unit()
    assert [state for state, _ in unit.live(ramp(0.75, 60), 200)] == ["near", "passed"]
    for _ in range(3):
        assert unit.live(ramp(0.75, 60), 200) == []
    # what goes beyond is announced there
    ((state, held),) = unit.live(linear(60), 59, killed=True)
    assert state == "near"
    assert 0.8 <= held < 0.85
    # and its kill makes all of it forgotten
    assert unit.live(linear(60), 59, killed=True)[0][1] < 0.5


def test_a_job_is_announced_until_it_has_ended_twice() -> None:
    unit = Unit()
    assert [len(unit.live(linear(70), 60)) for _ in range(4)] == [2, 2, 0, 0]


def test_earlier_lives_are_forgotten_after_a_week() -> None:
    unit = Unit()
    unit.live(ramp(0.75, 60), 200)
    unit.second += 9 * 86_400
    assert len(unit.live(ramp(0.75, 60), 200)) == 2


def test_thousands_of_cgroups_that_grow_at_once_are_no_flood() -> None:
    incidents, opened = Incidents(horizon_seconds=1800), []
    for second in range(240):
        turn = second // 60  # new ones come as soon as some are gone
        at = second * 1_000_000
        below = [f"/evil.slice/{turn}/{n}" for n in range(80)] + [f"/a.slice/b{n}.service" for n in range(3)]
        given = [
            Reading(cgroup=path, usec=at, used_bytes=second % 60 * 8 * MB, capacity_bytes=512 * MB)
            for path in below
        ]
        opened += [one for one in incidents.take(given, at, float(second)) if one.state == "near"]
    whose = [str(one.cgroup).split("/")[1] for one in opened]
    assert whose.count("evil.slice") == 32
    # nobody uses up the warnings of others
    assert whose.count("a.slice") >= 3
    assert incidents.withheld >= 3 * (80 - 32)


def test_a_budget_is_full_again_after_ten_minutes() -> None:
    budget = Budget()
    taken = [budget.take(f"/a/b/c/{n}", n) for n in range(12)]
    assert taken == [True] * 8 + [False] * 4
    assert all(budget.take(None, 12) for _ in range(100))
    assert not budget.take("/a/b/c", 599_000_000)
    assert budget.take("/a/b/c", 601_000_000)
    for n in range(200):
        budget.take(f"/{n}", 602_000_000)
    assert not budget.take("/elsewhere", 602_000_001)


def test_a_cgroup_that_is_made_and_removed_all_the_time_is_no_news() -> None:
    incidents = Incidents(horizon_seconds=1800)
    for tenth in range(3000):
        at = tenth * 100_000
        given = readings(at, _a=both(500 * MB, 512 * MB)) if tenth % 2 else []
        assert incidents.take(given, at, 0.0) == []


@pytest.mark.parametrize(
    ("limits", "ends"),
    [
        ([512] * 40 + [2048] * 40, ["near", "passed room"]),
        ([512] * 40 + [None] * 40, ["near", "passed room"]),
        ([512] * 40 + [400] * 40, ["near"]),
        ([None] * 20 + [512] * 40, ["near"]),
    ],
)
def test_a_limit_that_is_changed(limits: list[int | None], ends: list[str]) -> None:
    incidents, told = Incidents(horizon_seconds=1800, lost=lambda _path: "room"), []
    for second, limit in enumerate(limits):
        given = []
        if limit is not None:
            given = readings(second * 1_000_000, _a=both(second * 4 * MB + 100 * MB, limit * MB))
        changed = incidents.take(given, second * 1_000_000, 0.0)
        told += [f"{one.state} {one.passed or ''}".strip() for one in changed]
    assert told == ends


def test_names_that_never_come_again_push_nobody_out() -> None:
    unit = Unit()
    for _ in range(2):
        unit.live(ramp(0.75, 60), 200)
    for number in range(2000):
        given = [
            Reading(cgroup=f"/run-{number}", usec=unit.second * 1_000_000, used_bytes=1, capacity_bytes=2)
        ]
        unit.incidents.take(given, unit.second * 1_000_000, 0.0)
        unit.second += 1
    assert unit.live(ramp(0.75, 60), 200) == []


@pytest.mark.parametrize(("full", "refaults"), [(0.3, 0), (None, 40 * MB)])
def test_thrashing_is_told_where_next_to_nothing_is_left(full: float | None, refaults: int) -> None:
    def opened(used: int) -> list[str]:
        found: list[str] = []
        incidents = Incidents(horizon_seconds=1800)
        for second in range(10):
            reading = Reading(
                cgroup="/a",
                usec=second * 1_000_000,
                used_bytes=used,
                capacity_bytes=512 * MB,
                pressure_full_ratio=full,
                refaults_bytes=second * refaults,
            )
            found += [one.reason for one in incidents.take([reading], second * 1_000_000, float(second))]
        return found

    assert opened(505 * MB) == ["thrashing"]
    # the working set of page cache lives at the limit: what cannot be dropped leaves room
    assert opened(400 * MB) == []


def test_who_is_quiet_is_not_told_of() -> None:
    incidents = Incidents(horizon_seconds=1800, quiet=lambda path: path == "/a")
    for second in range(60):
        used = both(second * 8 * MB, 512 * MB)
        assert incidents.take(readings(second * 1_000_000, _a=used), second * 1_000_000, 0.0) == []


def test_what_bounds_a_growth_keeps_it_from_being_announced() -> None:
    points = [(second * 1_000_000, second * 8 * MB) for second in range(40)]
    found = project(points, 512 * MB, horizon_seconds=1800)
    assert found is not None
    assert found.near
    for bound, near in ((50 * MB, False), (400 * MB, True)):
        bounded = project(points, 512 * MB, horizon_seconds=1800, bound_bytes=bound)
        assert bounded is not None
        assert bounded.near is near


def test_a_job_is_told_of_only_shortly_before_the_end() -> None:
    def told(job: bool, seconds: int) -> bool:
        points = [(second * 1_000_000, second * 4 * MB) for second in range(seconds)]
        found = project(points, 512 * MB, horizon_seconds=1800, job=job)
        return found is not None and found.near

    assert [told(False, s) for s in (30, 60, 90, 110)] == [False, True, True, True]
    assert [told(True, s) for s in (30, 60, 80, 110)] == [False, False, False, True]


def test_a_job_that_gets_faster_is_a_job_nevertheless() -> None:
    def told(job: bool, seconds: int) -> bool:
        points = [(at * 1_000_000, int((0.03 + (at / 150) ** 2) * 512 * MB)) for at in range(seconds)]
        found = project(points, 512 * MB, horizon_seconds=1800, job=job)
        return found is not None and found.near

    assert [told(False, s) for s in (60, 90, 135)] == [False, True, True]
    # its present pace counts alone
    assert [told(True, s) for s in (60, 90, 120, 145)] == [False, False, False, True]


AMOUNTS = st.lists(st.tuples(st.integers(1, 60_000_000), st.integers(0, 1 << 40)), min_size=1, max_size=200)


@settings(max_examples=200, deadline=None)
@given(AMOUNTS, st.integers(1, 1 << 40))
def test_any_series_is_bounded_and_told_of_once(steps: list[tuple[int, int]], capacity: int) -> None:
    incidents, usec, open_ = Incidents(horizon_seconds=1800), 0, 0
    series = Series()
    for step, used in steps:
        usec += step
        series.add(usec, used, capacity)
        assert len(series.points) <= MOST_POINTS
        reading = Reading(cgroup="/a", usec=usec, used_bytes=used, capacity_bytes=capacity)
        for told in incidents.take([reading], usec, usec / 1e6):
            open_ += 1 if told.state == "near" else -1
            assert told.left_bytes >= 0
            assert told.latest_seconds is None or told.soonest_seconds <= told.latest_seconds + 0.2
        assert open_ in (0, 1)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 1 << 30), st.integers(3, 60), st.randoms(use_true_random=False))
def test_a_slope_stands_firm_against_wild_points(rate: int, count: int, drawn: object) -> None:
    import random

    assert isinstance(drawn, random.Random)
    points = [(n * 1_000_000, n * rate) for n in range(count)]
    for n in drawn.sample(range(count), count // 5):
        points[n] = (points[n][0], drawn.randrange(1 << 40))
    assert slope(points[:2] if count < 10 else points) == pytest.approx(rate, rel=0.35) or count < 10


def test_the_core_keeps_no_more_than_it_says() -> None:
    incidents = Incidents(horizon_seconds=1800)
    for number in range(200):
        given_ = [
            Reading(cgroup=f"/{n}", usec=number * 1_000_000, used_bytes=1, capacity_bytes=2)
            for n in range(100)
        ]
        incidents.take(given_, number * 1_000_000, 0.0)
    assert len(incidents.outlook) <= 20


def test_the_room_names_no_file() -> None:
    room = Path(__file__).parents[1] / "oomwatchd/warning"
    assert all("open(" not in path.read_text() for path in room.glob("*.py"))
