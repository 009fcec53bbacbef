"""A storm of kills at once, in a cgroup each: how many are attributed to the right one?

python -m tests.kernel.storm [ROUNDS]     as root, with a daemon of its own; exit status 1 below 95 %
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from oomwatchd.cli import throwaway
from tests.kernel.running import RunningDaemon, wait_for
from tests.waiting import PATIENCE

KILLS = 40
#: of the kills must be attributed to the right cgroup, and none to another
SHARE = 0.95


class Outcome(NamedTuple):
    """Of one storm. ``lone`` kill lines came without the report that names the cgroup."""

    right: Counter[str]
    wrong: list[dict[str, Any]]
    missing: list[int]
    lone: int

    def __str__(self) -> str:
        learnt = ", ".join(f"{how} {count}" for how, count in self.right.most_common())
        return (
            f"{self.right.total()} of {KILLS} right ({learnt}), {len(self.wrong)} wrong, "
            f"{len(self.missing)} unknown; {self.lone} lone kill lines"
        )


def storm(daemon: RunningDaemon) -> Outcome:
    """KILLS children exceed the limits of their own cgroups at the same time."""
    with contextlib.ExitStack() as stack:
        victims = [stack.enter_context(throwaway.victim()) for _ in range(KILLS)]
        for victim in victims:
            victim.exceed()
        for victim in victims:
            victim.wait(PATIENCE)
        events = wait_for(f"{KILLS} events", lambda: _reported(daemon, {v.comm for v in victims}))
    cgroups = {victim.pid: victim.cgroup for victim in victims}
    found = {
        a["pid"]: a
        for event in events
        for a in event["attribution"]
        if a["role"] == "victim" and a["pid"] in cgroups and a["cgroup"] is not None
    }
    return Outcome(
        Counter(a["learnt"] for pid, a in found.items() if a["cgroup"] == cgroups[pid]),
        [a for pid, a in found.items() if a["cgroup"] != cgroups[pid]],
        [pid for pid in cgroups if pid not in found],
        sum(event["memcg"] is None for event in events),
    )


def _reported(daemon: RunningDaemon, comms: set[str]) -> list[dict[str, Any]] | None:
    events = [line for line in daemon.lines() if comms & {v["comm"] for v in line["victims"]}]
    return events if comms <= {v["comm"] for event in events for v in event["victims"]} else None


def main(rounds: int) -> int:
    right = wrong = 0
    with _daemon() as daemon:
        for number in range(rounds):
            outcome = storm(daemon)
            print(f"storm {number + 1}: {outcome}", flush=True)
            right, wrong = right + outcome.right.total(), wrong + len(outcome.wrong)
            time.sleep(1)
    version = throwaway.memory_hierarchy().version
    print(f"cgroup v{version}: {right} of {rounds * KILLS} right, {wrong} wrong")
    return 0 if right >= SHARE * rounds * KILLS and not wrong else 1


@contextlib.contextmanager
def _daemon() -> Iterator[RunningDaemon]:
    with tempfile.TemporaryDirectory() as directory:
        daemon = RunningDaemon(Path(directory), None)
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.kill()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
