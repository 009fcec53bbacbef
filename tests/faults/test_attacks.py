"""What a hostile neighbour can do to a running daemon. docs/reliability.md, 'What was tried', has figures."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatchd.cli import throwaway
from oomwatchd.store import FILE_NAME, Store, StoreError
from tests.attacked import Attacked, attacked
from tests.kernel.running import command
from tests.test_store_attacked import locked


def stored(one: Attacked) -> int:
    try:
        with contextlib.closing(Store.open_reader(one.directory / "state")) as store:
            return len(store.list(limit=1000))
    except StoreError:  # a file that is only just being made
        return -1


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
        first.until(lambda: stored(first) == 20)
        done = subprocess.run(
            command("selftest", "--config", str(second.config)), capture_output=True, text=True, check=False
        )
        assert done.returncode and done.stdout == ""
        [said] = done.stderr.splitlines()
        assert "keeps no store to compare with" in said
        assert f"process {first.process.pid}, another oomwatchd, has {first.directory / 'state'}" in said
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
@pytest.mark.slow
def test_a_store_that_was_removed_is_noticed_without_an_event(tmp_path: Path) -> None:
    with attacked(tmp_path) as one:
        one.begin()
        one.report(7000)
        one.until(lambda: one.kills == 1)
        (tmp_path / "state" / FILE_NAME).unlink()
        one.until(lambda: "was removed: a new one begun" in one.said(), 90)
        one.report(7100, "/b")
        one.until(lambda: stored(one) == 1)


# -- reports of many tasks -----------------------------------------------------------------------------------


@contextlib.contextmanager
def limited() -> Iterator[str]:
    """Python that puts its process into a memory cgroup of the unit's size."""
    hierarchy = throwaway.memory_hierarchy()
    group = Path(hierarchy.mount) / f"oomwatchd-test-{os.getpid()}"
    group.mkdir(exist_ok=True)
    try:
        (group / hierarchy.files.limit).write_text(str(96 << 20))
        yield f"open('{group}/cgroup.procs', 'w').write('0')\n"
    finally:
        group.rmdir()


@pytest.mark.oom
@pytest.mark.slow
def test_reports_of_30_000_tasks_without_end(tmp_path: Path) -> None:
    with limited() as before, attacked(tmp_path) as one:
        one.begin(before)
        for n in range(12):
            one.report(200_000 + 50_000 * n, f"/b{n}.service", rows=30_000)
        one.until(lambda: one.kills == 12, 60)
        one.until(lambda: stored(one) == 12)
        peak = one.memory("VmHWM")
        assert one.stop() == 0
    assert peak <= 64 << 20


DIES = """
import os, signal
import oomwatchd.daemon.completion as w
def dies(capture, conclude=w.conclude):
    if len(capture.records) > 3000:
        os.kill(os.getpid(), signal.SIGKILL)
    return conclude(capture)
w.conclude = dies
"""


def test_a_start_behind_its_own_death_reads_on(tmp_path: Path) -> None:
    said = "the last daemon died while it handled the report at record 1000: only the lines"
    with attacked(tmp_path) as one:
        one.begin(DIES)
        one.report(7000, rows=4000)
        assert one.process.wait(20) == -9
        for n in range(1, 4):  # the ring still has it; the same fault is still there
            one.seq = 1000
            one.begin(DIES)
            one.report(7000, rows=4000)
            one.seq += 1000 * n
            one.report(7000 + 100 * n, f"/b{n}")
            one.until(lambda n=n: stored(one) == 1 + n)  # type: ignore[misc]
            assert one.stop() == 0
        assert one.said().count(said) == 1
        with contextlib.closing(Store.open_reader(tmp_path / "state")) as store:
            assert sum(row.kills for row in store.list()) == 4


# -- signals and limits ----------------------------------------------------------------------------------


def test_a_storm_of_reloads_delays_no_report(tmp_path: Path) -> None:
    with attacked(tmp_path) as one:
        one.begin()
        with one.config.open("a") as config:
            config.write("\nbroken = [\n")
        for _ in range(3000):
            one.process.send_signal(signal.SIGHUP)
            time.sleep(0.0003)
        began = time.monotonic()
        one.report(7000)
        one.until(lambda: one.told_of(7000), 5)
        assert time.monotonic() - began < 1.5
        assert 1 <= one.said().count("configuration not changed") <= 3
        one.configure()
        one.process.send_signal(signal.SIGHUP)
        one.until(lambda: "configuration reloaded" in one.said())
        assert one.stop() == 0


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR"])
def test_signals_of_others_do_not_end_it(tmp_path: Path, name: str) -> None:
    with attacked(tmp_path) as one:
        one.begin()
        one.process.send_signal(signal.Signals[name])
        one.report(7000)
        one.until(lambda: one.kills == 1)
        assert one.stop() == 0


def test_too_few_open_files_are_more_where_the_hard_limit_allows_it(tmp_path: Path) -> None:
    with attacked(tmp_path) as one:
        one.begin("import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (24, 4096))\n")
        one.report(7000)
        one.until(lambda: one.kills == 1)
        assert "may be open" not in one.said()
        assert one.stop() == 0


@pytest.mark.parametrize("limit", [8, 16, 24, 40, 60])
def test_too_few_open_files_are_said_with_the_mend(tmp_path: Path, limit: int) -> None:
    with attacked(tmp_path) as one:
        one.run(f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({limit}, {limit}))\n")
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert one.process.wait(4) == 69
        assert "LimitNOFILE= of the unit" in one.said()
        assert "Traceback" not in one.said()
