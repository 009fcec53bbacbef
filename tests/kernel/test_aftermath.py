"""What the real daemon learns from a real journald: of units, and of systemd-oomd."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oomwatchd.sources.manager import OOMD_KILL_ID, STEPS
from tests.kernel.manager import JOURNALD
from tests.kernel.running import RunningDaemon, command, wait_for
from tests.kernel.test_leak import LIMIT, leaky_unit, removed
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.oom, pytest.mark.slow]

NUMBERS = {str(step): number for number, step in STEPS.items()}
#: systemd's own hierarchy: journald reads the unified one where there is one
HIERARCHIES = [Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd")]
OOMD = "system.slice/systemd-oomd.service"
PRESSURE = (
    "Killed /system.slice/web.service due to memory pressure for /system.slice being 67.81% > 50.00% for >"
    " 20s with reclaim activity"
)


class Manager:
    """``tests.kernel.manager``, running."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                sys.executable,
                "-m",
                "tests.kernel.manager",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer("ready")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.journal = Path(f"/proc/{children[0]}/root/run/log/journal")
        wait_for("journald", lambda: list(self.journal.glob("*/system.journal")))

    def says(self, message: str, **fields: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"MESSAGE": message, **fields}) + "\n")
        self.process.stdin.flush()
        self._answer("sent")

    def of_unit(self, step: str, unit: str, message: str, **fields: str) -> None:
        self.says(message, MESSAGE_ID=NUMBERS[step], UNIT=unit, **fields)

    def _answer(self, word: str) -> None:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline().strip()
        if answer != word:
            pytest.skip(f"no journald in a namespace of its own here: {answer!r}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def manager() -> Iterator[Manager]:
    if os.geteuid() != 0 or not Path(JOURNALD).exists() or shutil.which("unshare") is None:
        pytest.skip("needs root, systemd-journald and unshare")
    made = Manager()
    try:
        yield made
    finally:
        made.close()


class ListeningDaemon(RunningDaemon):
    """The daemon on a host whose journal is the manager's."""

    journal: Path

    def spawn(self) -> None:
        # a directory of another mount namespace cannot be bound here
        script = (
            "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/log"
            f' && ln -s {self.journal} /run/log/journal && exec "$@"'
        )
        words = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
            *command("run", "--config", str(self.config)),
        ]
        with self.log_file().open("ab") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@pytest.fixture
def listening(tmp_path: Path, manager: Manager) -> Iterator[ListeningDaemon]:
    running = ListeningDaemon(tmp_path, None)
    running.journal = manager.journal
    try:
        running.start()
        yield running
    finally:
        running.kill()


@contextlib.contextmanager
def unit_cgroup(path: str = OOMD) -> Iterator[str]:
    """A cgroup from which journald takes a sender for a unit, systemd-oomd if none is named."""
    present = [path for path in HIERARCHIES if (path / "cgroup.procs").exists()]
    if not present:
        pytest.skip("no hierarchy of systemd's")
    directory = present[0] / path
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield str(directory)
    finally:
        wait_for("the cgroup to be empty", lambda: removed(directory))
        removed(directory.parent)


def test_what_became_of_the_unit_is_in_the_stored_event(manager: Manager, listening: ListeningDaemon) -> None:
    unit = "leaky.service"

    def stored(steps: int) -> dict[str, Any] | None:
        # the ring may hold an earlier one, which is history to this daemon
        (found,) = [found for found in listening.stored_of("leaky") if found["id"] == event["id"]]
        return found if len((found["aftermath"] or {}).get("units", ())) >= steps else None

    manager.of_unit("failed", unit, "an earlier failure", UNIT_RESULT="signal")
    with leaky_unit() as child:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
        child.wait(2 * PATIENCE)
        manager.of_unit(
            "oom_kill", unit, f"{unit}: A process of this unit has been killed by the OOM killer."
        )
        manager.of_unit("failed", unit, f"{unit}: Failed with result 'oom-kill'.", UNIT_RESULT="oom-kill")
        manager.of_unit("failed", unit, "forged", UNIT_RESULT="success", _from="other")
        (event,) = wait_for("the event", lambda: listening.lines_of("leaky"))
        wait_for("what the manager said", lambda: stored(2))
    # that comes after the report had settled
    text = f"{unit}: Scheduled restart job, restart counter is at 1."
    manager.of_unit("restart_scheduled", unit, text, N_RESTARTS="1")
    seen = wait_for("the restart", lambda: stored(3))
    after = seen["aftermath"]
    assert [(u["step"], u["unit"], u["result"], u["restarts"]) for u in after["units"]] == [
        ("oom_kill", unit, None, None),
        ("failed", unit, "oom-kill", None),
        ("restart_scheduled", unit, None, 1),
    ]
    assert all(-0.1 <= step["seconds"] < 30 for step in after["units"])
    assert after["victims_left"] == []
    if event["memcg"] is not None:  # else the kernel left out which cgroup it was: others kill here, too
        assert after["cgroup"]["path"] == event["memcg"]["oom_path"]
        # all that lived there was killed, and is charged next to nothing
        assert after["cgroup"]["limit_bytes"] == LIMIT
        assert after["cgroup"]["usage_bytes"] < LIMIT / 2
    assert after["available_after_bytes"] > 0
    assert text in " ".join(listening.events("show", event["id"]).stdout.split())  # lines are broken
    assert len(listening.lines_of("leaky")) == 1
    listening.settled()


def test_systemd_oomd_is_told_counted_and_stored_once(manager: Manager, listening: ListeningDaemon) -> None:
    def mine() -> list[dict[str, Any]]:
        return [line for line in listening.lines() if line["kind"] == "oomd_kill"]

    def counted() -> float:
        events = listening.samples()["oomwatchd_oom_events_total"]
        return sum(value for labels, value in events if labels["kind"] == "oomd_kill")

    with unit_cgroup() as cgroup:
        manager.says("Swap is currently not detected", _from=cgroup)
        manager.says(PRESSURE, _from=cgroup)
    manager.says(PRESSURE.replace("web", "forged"), _from="other")
    told = "web.service: systemd-oomd killed 3 process(es) in this unit."
    manager.says(told, MESSAGE_ID=OOMD_KILL_ID, UNIT="web.service", N_PROCESSES="3")
    (event,) = wait_for("the event", mine)
    assert (event["kills"], event["victims"], event["source"]["kind"]) == (0, [], "journal")
    said = event["oomd"]
    assert (said["unit"], said["slice"], said["cgroup"]) == (
        "web.service",
        "system.slice",
        "/system.slice/web.service",
    )
    assert (said["processes"], said["reason"], said["watched_cgroup"]) == (
        3,
        "memory_pressure",
        "/system.slice",
    )
    assert counted() == 1
    listening.settled()  # what the kernel counted, and no more
    assert listening.stop() == 0
    listening.start()
    manager.says(told.replace("web", "other"), MESSAGE_ID=OOMD_KILL_ID, UNIT="other.service")
    wait_for("another one", lambda: len(mine()) == 2)
    assert counted() == 2
    stored = [one for one in listening.stored() if one["kind"] == "oomd_kill"]
    assert sorted(one["oomd"]["unit"] for one in stored) == ["other.service", "web.service"]
    assert "Traceback" not in listening.log()


def earlyoom() -> list[str]:
    """What the real one says while it kills the largest process of a PID namespace of its own, in which there
    is one that holds memory."""
    if (program := shutil.which("earlyoom", path="/usr/bin:/usr/sbin")) is None:
        pytest.skip("needs earlyoom")
    victim = (
        "import ctypes, time; held = bytearray(50 << 20); ctypes.CDLL(None).prctl(15, b'victim', 0, 0, 0)"
    )
    script = (
        f'{sys.executable} -c "{victim}; time.sleep(60)" & sleep 2; '
        f"exec timeout 4 {program} -m 99 -s 100 -r 1 --prefer '^victim$'"
    )
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script]
    done = subprocess.run(namespace, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    if not any(line.startswith("sending SIG") and '"victim"' in line for line in lines):
        pytest.skip(f"earlyoom found nobody to kill here: {lines[-3:]}")
    return lines


def test_earlyooms_kill_is_an_event_of_its_own_kind(manager: Manager, listening: ListeningDaemon) -> None:
    def mine() -> list[dict[str, Any]]:
        return [line for line in listening.lines() if line["kind"] == "user_kill"]

    lines = earlyoom()
    [sent] = [line for line in lines if line.startswith("sending SIG") and '"victim"' in line]
    manager.says(sent.replace("victim", "forged"), _from="other", SYSLOG_IDENTIFIER="earlyoom")
    with unit_cgroup("system.slice/earlyoom.service") as cgroup:
        for line in lines[: lines.index(sent) + 2]:
            manager.says(line, _from=cgroup)
        [event] = wait_for("the event", mine)
    said = event["user_kill"]
    assert (said["program"], said["comm"], said["signal"]) == ("earlyoom", "victim", "SIGTERM")
    assert said["available_ratio"] > 0 and event["kills"] == 0
    listening.settled()  # the kernel counted nothing
    assert listening.stop() == 0
    listening.start()
    wait_for("the store", lambda: [one["kind"] for one in listening.stored()].count("user_kill") == 1)
    assert len(mine()) == 1
    assert "Traceback" not in listening.log()
