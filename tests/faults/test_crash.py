"""Killed at any moment, again and again, while real processes are killed: nothing lost, nothing twice."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Ledger, number
from tests.faults.storm import storm
from tests.kernel.running import RunningDaemon, command

pytestmark = [pytest.mark.oom, pytest.mark.slow]

#: two minutes of them
ROUNDS = number("OOMWATCHD_FAULT_KILLS", 200)
#: One life in so many catches up: where no life is long enough, because the machine is busy, the ring buffer
#: turns over and records are lost whatever the daemon does.
CAUGHT_UP = 4


def test_kill_9_at_random_moments_of_a_storm(daemon: RunningDaemon, cage: Path) -> None:
    dice = random.Random(ROUNDS)
    daemon.start()
    ledger = Ledger(daemon, cage)
    daemon.kill()
    with storm(cage, 1_000_000, pause=0.04) as running, daemon.log_file().open("ab") as log:
        for life in range(ROUNDS):
            if life % CAUGHT_UP == CAUGHT_UP - 1:
                daemon.start()
                daemon.kill()
                continue
            process = subprocess.Popen(
                command("run", "--config", str(daemon.config)),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            time.sleep(dice.uniform(0.05, 1.2))  # while it starts, reads the ring, stores, watches
            process.kill()
            process.wait()
            assert running.running
    daemon.start()
    kills = ledger.balance()
    assert kills > 5 * ROUNDS, "this was no storm"
    assert "corrupt" not in daemon.log()
    assert "Traceback" not in daemon.log()
    print(f"{ROUNDS} times kill -9 during {kills} kills")
