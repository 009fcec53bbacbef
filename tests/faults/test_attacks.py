"""What a hostile neighbour does to a running daemon. docs/reliability.md, 'What was tried', has figures."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from oomwatchd.store import FILE_NAME, Store
from tests.attacked import Attacked, attacked
from tests.test_store_attacked import locked


def stored(one: Attacked) -> int:
    with contextlib.closing(Store.open_reader(one.directory / "state")) as store:
        return len(store.list(limit=1000))


# -- one state directory ---------------------------------------------------------------------------------


def test_a_second_daemon_on_one_store_ends_and_takes_nothing(tmp_path: Path) -> None:
    with attacked(tmp_path / "first") as first, attacked(tmp_path / "second") as second:
        first.begin()
        second.config.write_text(second.config.read_text().replace("second/state", "first/state"))
        second.run()
        assert second.process.wait(20) == 73
        lines = second.said().splitlines()
        assert [line for line in lines if "has the state directory" in line] == lines[-1:]
        assert f"process {first.process.pid})" in lines[-1]
        for n in range(20):
            first.report(7000 + 30 * n, f"/a{n}")
        first.until(lambda: first.kills == 20)
        first.until(lambda: stored(first) == 20)
        assert first.stop() == 0


def test_a_second_daemon_watches_without_a_store_if_asked(tmp_path: Path) -> None:
    with attacked(tmp_path / "first") as first, attacked(tmp_path / "second") as second:
        first.begin()
        second.configure('[store]\nin_use = "memory"')
        second.config.write_text(second.config.read_text().replace("second/state", "first/state"))
        second.begin()
        assert second.metric("oomwatchd_store_up") == 0
        for n in range(20):
            for one in (first, second):
                one.report(7000 + 30 * n, f"/a{n}")
        for one in (first, second):
            one.until(lambda one=one: one.kills == 20)  # type: ignore[misc]
        assert stored(first) == 20
        assert (first.stop(), second.stop()) == (0, 0)


def test_the_next_daemon_may_begin_when_the_last_was_killed(tmp_path: Path) -> None:
    with attacked(tmp_path) as one:
        one.begin()
        one.process.kill()
        one.process.wait()
        one.begin()
        assert one.metric("oomwatchd_store_up") == 1


# -- the store's file --------------------------------------------------------------------------------------


def test_kills_are_told_at_once_while_the_store_is_locked(tmp_path: Path) -> None:
    with attacked(tmp_path) as one:
        one.begin()
        with locked(tmp_path / "state" / FILE_NAME):
            one.report(7000)
            one.until(lambda: one.told_of(7000), 5)
            for n in range(1, 11):
                one.report(7000 + 30 * n, f"/a{n}")
            one.until(lambda: one.told_of(7300), 2)
            assert one.kills == 11
        # no event need come
        one.until(lambda: one.metric("oomwatchd_store_up") == 1, 25)
        assert stored(one) == 11


@pytest.mark.slow
def test_a_store_that_was_removed_is_noticed_without_an_event(tmp_path: Path) -> None:
    with attacked(tmp_path) as one:
        one.begin()
        one.report(7000)
        one.until(lambda: one.kills == 1)
        (tmp_path / "state" / FILE_NAME).unlink()
        one.until(lambda: "was removed: a new one begun" in one.said(), 25)
        one.report(7100, "/b")
        one.until(lambda: stored(one) == 1)
