"""Thousands of real kills through one daemon: counts equal, memory and descriptors flat."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Ledger, number
from tests.faults.storm import storm
from tests.kernel.running import RunningDaemon, wait_for

pytestmark = [pytest.mark.oom, pytest.mark.slow]

#: OOMWATCHD_SOAK_KILLS=10000 is the full run
KILLS = number("OOMWATCHD_SOAK_KILLS", 1000)
#: until what the flight recorder remembers of killed processes has reached its bounds
WARM_UP = 2000
FLAT_KIB = 1024


def rss_kib(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def test_a_soak_of_kills_leaves_counts_equal_and_the_daemon_as_it_was(
    daemon: RunningDaemon, cage: Path
) -> None:
    daemon.write_config("enabled = false", more="[recorder]\nminutes = 1\n[store]\nmax_events = 500")
    daemon.start()
    pid = daemon.process.pid
    counted = daemon.metric("oomwatchd_oom_kills_total")
    with storm(cage, WARM_UP) as running:
        assert running.finish(300) == WARM_UP
    daemon.settled()
    before = rss_kib(pid), descriptors(pid)
    began = time.monotonic()
    with storm(cage, KILLS) as running:
        assert running.finish(1200) == KILLS
    seconds = time.monotonic() - began
    daemon.settled()
    after = rss_kib(pid), descriptors(pid)
    print(f"{KILLS} kills, {seconds:.1f} s; RSS {before[0]} -> {after[0]} KiB, fds {before[1]} -> {after[1]}")
    assert daemon.metric("oomwatchd_oom_kills_total") - counted >= WARM_UP + KILLS
    assert daemon.metric("oomwatchd_queue_dropped_total") == 0
    assert after[0] - before[0] <= FLAT_KIB
    # the connection of the last question may not be closed yet
    wait_for("the descriptors of the beginning", lambda: descriptors(pid) <= before[1])


def test_the_ledger_balances_after_a_burst(daemon: RunningDaemon, cage: Path) -> None:
    daemon.start()
    ledger = Ledger(daemon)
    with storm(cage, 300) as running:
        assert running.finish(60) == 300
    assert ledger.balance() >= 300
