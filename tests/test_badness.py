"""The score table against hand-computed sums, against printed scores and against the kernel's choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oomwatchd.diagnosis.badness import ScoreTable, score_table
from oomwatchd.records.report import (
    Memcg,
    MemcgCounter,
    Memory,
    OomReport,
    Swap,
    Task,
    Trigger,
    Victim,
    Zone,
)
from tests.recorded import kernel_recordings, logs, reports

PAGE = 4096
RAM = 1_000_000  # pages


def task(pid: int, rss: int, **fields: Any) -> Task:
    """``rss``, ``swap``, ``total_vm`` in pages."""
    swap, total_vm = fields.pop("swap", 0), fields.pop("total_vm", rss)
    fields.setdefault("oom_score_adj", 0)
    fields.setdefault("pgtables_bytes", 0)
    return Task(
        pid=pid,
        uid=fields.pop("uid", 1000),
        comm=f"t{pid}",
        rss_bytes=rss * PAGE,
        total_vm_bytes=total_vm * PAGE,
        swap_bytes=None if swap is None else swap * PAGE,
        **fields,
    )


def report(*tasks: Task, victim: int | None = None, score: int | None = None, **fields: Any) -> OomReport:
    memory = Memory(
        zones=(
            Zone(node=0, zone="Normal", amounts={"managed_bytes": RAM * PAGE, "present_bytes": RAM * PAGE}),
        ),
        swap=Swap(free_bytes=0, total_bytes=0),
    )
    values: dict[str, Any] = {"constraint": "none", "memory": memory, "page_size_bytes": PAGE}
    victims = () if victim is None else (Victim(pid=victim, comm=f"t{victim}", score=score),)
    return OomReport(kind="oom_kill", complete=True, tasks=tasks, victims=victims, **(values | fields))


def table(found: OomReport, **fields: Any) -> ScoreTable:
    scores = score_table(found, **fields)
    assert scores is not None
    return scores


def points(found: OomReport, **fields: Any) -> dict[int, int | None]:
    return {r.task.pid: r.points for r in table(found, **fields).rows}


def test_rss_swap_and_page_tables_count() -> None:
    assert points(report(task(2, 100, swap=20, pgtables_bytes=3 * PAGE))) == {2: 123}


def test_page_table_pages_of_older_tables_count_with_their_middle_level() -> None:
    old = task(2, 100, pgtables_bytes=None, page_tables=5, extra={"nr_pmds": 2})
    assert points(report(old)) == {2: 107}


def test_an_adjustment_weighs_thousandths_of_all_memory() -> None:
    found = report(task(2, 500_000), task(3, 1000, oom_score_adj=600), task(4, 700_000, oom_score_adj=-300))
    assert points(found) == {3: 601_000, 2: 500_000, 4: 400_000}
    assert [r.task.pid for r in table(found).rows] == [3, 2, 4]
    assert table(found).exact


def test_the_exempt_come_last_and_have_no_points() -> None:
    found = report(task(1, 900), task(2, 800, oom_score_adj=-1000), task(3, 1))
    assert [(r.task.pid, r.points, r.excluded_by) for r in table(found).rows] == [
        (3, 1, None),
        (1, None, "init"),
        (2, None, "oom_score_adj"),
    ]


def test_equal_points_share_a_rank() -> None:
    scores = table(report(task(2, 10), task(3, 10), task(4, 5)))
    assert [scores.rank(r) for r in scores.rows] == [1, 1, 3]


@pytest.mark.parametrize(
    ("printed", "rule", "expected"),
    [(500, "none", 500_000), (485, "three_percent", 485_000), (470, "thirty_permille", 470_000)],
)
def test_the_root_rule_is_the_one_that_gives_the_printed_score(
    printed: int, rule: str, expected: int
) -> None:
    root = task(2, 500_000, uid=0, pgtables_bytes=None, page_tables=0)
    scores = table(report(root, victim=2, score=printed))
    assert (scores.root_rule, scores.computed_score) == (rule, printed)
    assert scores.rows[0].points == expected


def test_permille_kernels_without_a_swap_column() -> None:
    old = [
        task(2, 500_000, uid=0, swap=None, pgtables_bytes=None, oom_score_adj=0),
        task(3, 400_000, swap=None, pgtables_bytes=None, oom_score_adj=100),
    ]
    scores = table(report(*old, victim=2, score=470))
    assert scores.formula == "permille"
    assert {r.task.pid: r.points for r in scores.rows} == {2: 470, 3: 500}
    assert not scores.exact


def test_the_oldest_formula_is_an_approximation_by_total_vm_and_shift() -> None:
    old = [
        task(2, 1, total_vm=1000, swap=None, pgtables_bytes=None, oom_score_adj=None, extra={"oom_adj": 2}),
        task(3, 1, total_vm=9000, swap=None, pgtables_bytes=None, oom_score_adj=None, extra={"oom_adj": -17}),
        task(4, 1, total_vm=8000, swap=None, pgtables_bytes=None, oom_score_adj=None, extra={"oom_adj": -1}),
    ]
    scores = table(report(*old))
    assert (scores.formula, scores.exact) == ("total_vm", False)
    assert [(r.task.pid, r.points) for r in scores.rows] == [(2, 4000), (4, 4000), (3, None)]


def test_all_memory_of_a_cgroup_is_its_limit_and_the_swap_it_may_use() -> None:
    limit = MemcgCounter(usage_bytes=0, limit_bytes=1000 * PAGE)
    free = MemcgCounter(usage_bytes=0, limit_bytes=None)
    none = MemcgCounter(usage_bytes=0, limit_bytes=0)
    tasks = (task(2, 10, oom_score_adj=100), task(3, 50))
    cgroup = report(*tasks, constraint="memcg", memory=None, memcg=Memcg(memory=limit, swap=none))
    assert table(cgroup).total_bytes == 1000 * PAGE
    assert table(cgroup).exact
    swaps = report(*tasks, constraint="memcg", memory=None, memcg=Memcg(memory=limit, swap=free))
    assert not table(swaps).exact  # how much swap the host has is not printed
    live = table(swaps, swap_total_bytes=500 * PAGE)
    assert (live.total_bytes, live.exact) == (1500 * PAGE, True)
    # a share of a total that is not known is none; the points stand
    assert [(r.points, r.permille) for r in table(swaps).rows] == [(110, None), (50, None)]
    assert [r.permille for r in live.rows] == [73, 33]


def test_all_memory_of_a_cpuset_is_that_of_its_nodes() -> None:
    zones = tuple(
        Zone(node=n, zone="Normal", amounts={"present_bytes": (n + 1) * 1000 * PAGE}) for n in range(3)
    )
    found = report(
        task(2, 1, oom_score_adj=10),
        constraint="cpuset",
        trigger=Trigger(mems_allowed="1-2"),
        memory=Memory(zones=zones, swap=Swap(total_bytes=7 * PAGE), ram_bytes=10**9),
    )
    assert table(found).total_bytes == 5007 * PAGE


def test_points_below_one_counted_as_one_up_to_5_8() -> None:
    """Three tasks of a pod at -998: the smallest is killed, as all are equal."""
    pod = [task(2, 9000, oom_score_adj=-998), task(3, 10, oom_score_adj=-998)]
    floored = table(report(*pod, victim=3))
    assert floored.floored
    assert [r.points for r in floored.rows] == [1, 1]
    kept = table(report(*pod, victim=2))
    assert not kept.floored
    assert kept.rows[0].task.pid == 2


def test_no_table_and_no_page_size_are_no_scores() -> None:
    assert score_table(report()) is None
    assert score_table(report(task(2, 1), page_size_bytes=None)) is None


# real kernels


def test_every_printed_score_is_reproduced(corpus: Path) -> None:
    """Kernels up to 5.0 print the score; the table gives exactly that wherever total memory is printed."""
    checked = 0
    for path in (*kernel_recordings(corpus), *logs(corpus)):
        for found in reports(path):
            scores = score_table(found)
            if scores is None or scores.printed_score is None or scores.computed_score is None:
                continue
            assert scores.computed_score == scores.printed_score, path.name
            checked += 1
    assert checked >= 60
