"""Cases in which other detectors failed, with a real kernel and the running daemon.

The numbers are those of ``tests/test_peers.py``, which has all twenty on records. Cases 3 (ring overrun) and
4 (restart) are in test_outside.py and test_crash.py, 5 (a fake report) is in tests/kernel.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from oomwatchd.cli import throwaway
from tests.faults.storm import LIMIT_BYTES, storm
from tests.kernel.running import RunningDaemon, wait_for
from tests.test_peers import HOSTILE_CGROUPS, HOSTILE_COMMS

pytestmark = [pytest.mark.oom, pytest.mark.slow]

#: what a process may be called (TASK_COMM_LEN, without its end)
COMM_BYTES = 15


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    daemon = RunningDaemon(tmp_path_factory.mktemp("peers"), None)
    daemon.start()
    yield daemon
    daemon.kill()


@contextlib.contextmanager
def cage_called(name: str) -> Iterator[Path]:
    with throwaway._directory(name) as directory:
        (directory / throwaway.memory_hierarchy().files.limit).write_text(str(LIMIT_BYTES))
        yield directory


def killed(daemon: RunningDaemon, cage: Path, comm: bytes) -> dict[str, Any]:
    """A process of this name is killed in this cgroup: its event."""
    before = {line["id"] for line in daemon.lines()}
    with storm(cage, 1, name=comm) as running:
        assert running.finish(60) == 1
    shown = comm[:COMM_BYTES].decode("utf-8", "backslashreplace")

    def found() -> dict[str, Any] | None:
        return next((line for line in daemon.lines_of(shown) if line["id"] not in before), None)

    return wait_for(f"the event of {comm!r}", found)


@pytest.mark.parametrize("comm", [comm for comm in HOSTILE_COMMS if comm])
def test_7_9_and_10_the_name_of_a_real_process_is_only_a_name(
    watching: RunningDaemon, cage: Path, comm: bytes
) -> None:
    event = killed(watching, cage, comm)
    assert (event["kind"], event["kills"], len(event["victims"])) == ("oom_kill", 1, 1)
    if event["memcg"] is not None:  # else the kernel left the report out: its rate limit
        assert event["memcg"]["task_path"].endswith(f"/{cage.name}")


@pytest.mark.parametrize("cgroup", HOSTILE_CGROUPS)
def test_6_and_8_the_name_of_a_real_cgroup_rewrites_nothing(watching: RunningDaemon, cgroup: bytes) -> None:
    token = secrets.token_hex(4)
    name = cgroup.decode().lstrip("/").replace("/", "_")[: 255 - len(token)] + token
    with cage_called(name) as cage:

        def whole() -> dict[str, Any] | None:
            time.sleep(0.6)  # ten reports in five seconds are printed whole
            event = killed(watching, cage, b"v" + token.encode())
            return None if event["memcg"] is None else event

        event = wait_for("a whole report", whole, 60)
    assert [(v["comm"], v["kills"]) for v in event["victims"]] == [(f"v{token}", 1)]
    for which in ("oom_path", "task_path"):
        assert event["memcg"][which].endswith(f"/{name}")
    assert event["constraint"] == "memcg"


def test_1_forty_fast_kills_are_forty(watching: RunningDaemon, cage: Path) -> None:
    name = f"f{secrets.token_hex(4)}"
    with storm(cage, 40, name=name.encode()) as running:
        assert running.finish(60) == 40
    wait_for("all forty", lambda: len(watching.lines_of(name)) >= 40)
    events = watching.lines_of(name)
    assert len({event["id"] for event in events}) == len({e["victims"][0]["pid"] for e in events}) == 40
    assert sum(event["kills"] for event in events) == 40


def test_20_time_is_that_of_the_kill_before_and_after_a_restart(daemon: RunningDaemon, cage: Path) -> None:
    daemon.start()
    for _ in range(2):
        began = time.time()
        event = killed(daemon, cage, f"t{secrets.token_hex(4)}".encode())
        wall = datetime.fromisoformat(event["time"]["wall"]).timestamp()
        # rounded to milliseconds; and the kernel log's clock is known to some of them
        assert began - 0.02 <= wall <= time.time()
        assert daemon.stop() == 0
        daemon.start()
        (stored,) = (one for one in daemon.stored() if one["id"] == event["id"])
        assert stored["time"]["wall"] == event["time"]["wall"]
