"""Real OOM kills, reported by the real daemon, compared with what the kernel itself says.

Others may be killed on this machine at the same time: each test knows its own victims by their names and
compares totals with the kernel's counter.
"""

from __future__ import annotations

import contextlib
import json
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest

from oomwatchd.cli import throwaway
from oomwatchd.cli.throwaway import Victim
from oomwatchd.sinks._message_ids import MESSAGE_IDS
from oomwatchd.store import Store
from tests.kernel.running import Bracket, RunningDaemon, oomwatchd, wait_for
from tests.test_sinks import journalctl
from tests.waiting import PATIENCE

pytestmark = pytest.mark.oom


def kill_one() -> Victim:
    """One OOM kill, over and cleaned up."""
    with throwaway.victim() as victim:
        victim.exceed()
        victim.wait(PATIENCE)
    return victim


def kill_with_a_whole_report(daemon: RunningDaemon) -> tuple[Victim, dict[str, Any]]:
    """One OOM kill and its event; again while the kernel's rate limit, used up by earlier tests, swallows
    the greater part of the report."""

    def attempt() -> tuple[Victim, dict[str, Any]] | None:
        victim = kill_one()
        (event,) = wait_for("the JSON line", lambda: daemon.lines_of(victim.comm))
        return None if "header" in event["missing"] else (victim, event)

    return wait_for("a report with its header", attempt)


def assert_names(event: dict[str, Any], victim: Victim) -> None:
    """The event is this victim's and nobody else's."""
    assert [(v["pid"], v["comm"], v["kills"]) for v in event["victims"]] == [(victim.pid, victim.comm, 1)]
    assert event["kind"] == "oom_kill"
    assert event["constraint"] == "memcg"


def test_one_kill_is_seen_by_everybody_who_asks(tmp_path: Path, journal: Path | str) -> None:
    socket = journal / "systemd/journal/socket" if isinstance(journal, Path) else None
    daemon = RunningDaemon(tmp_path, socket)
    try:
        daemon.start()
        bracket = Bracket(daemon)
        events_before = daemon.metric("oomwatchd_oom_events_total")
        victim, line = kill_with_a_whole_report(daemon)
        assert_names(line, victim)
        assert line["memcg"]["task_path"] == line["memcg"]["oom_path"] == victim.cgroup
        assert line["memcg"]["memory"]["limit_bytes"] == throwaway.LIMIT_BYTES
        assert line["complete"] is True
        assert line["missing"] == []
        assert line["historical"] is False
        assert 0 <= line["time"]["detection_latency_seconds"] < PATIENCE
        assert line["findings"]

        # the store, asked beside the running daemon
        listed = json.loads(daemon.events("list", "--json", "--limit", "1000").stdout)
        (row,) = [row for row in listed if row["id"] == line["id"]]
        assert row["victims"] == [{"pid": victim.pid, "comm": victim.comm}]
        shown = daemon.events("show", line["id"]).stdout
        assert str(victim.pid) in shown
        assert victim.comm in shown
        (stored,) = daemon.stored_of(victim.comm)
        assert stored["id"] == line["id"]
        assert_names(stored, victim)

        # the metrics and the kernel's own counter
        bracket.close()
        assert daemon.metric("oomwatchd_oom_events_total") > events_before
        assert daemon.metric("oomwatchd_detection_latency_seconds_count") >= 1
        labels = {name for found in daemon.samples().values() for labels, _ in found for name in labels}
        # neither names of processes nor pids
        known = {"kind", "constraint", "outcome", "sink", "le", "version", "python", "part", "unit", "cgroup"}
        assert labels <= known | {
            *("node", "memory_zone", "order", "share", "window_seconds", "found"),
            *("container", "pod", "namespace"),
        }

        if isinstance(journal, Path):
            message = f"MESSAGE_ID={MESSAGE_IDS['oom_kill']}"
            (entry,) = journalctl(journal, message, f"OOM_VICTIM_COMM={victim.comm}")
            assert entry["OOM_VICTIM_PID"] == str(victim.pid)
        else:
            warnings.warn(f"no journal entry was compared: {journal}", stacklevel=1)
    finally:
        daemon.kill()


def test_a_storm_of_kills_is_counted_to_the_last(daemon: RunningDaemon) -> None:
    """25 cgroups run out of memory at once; the kernel prints at most 10 headers in 5 s."""
    bracket = Bracket(daemon)
    with contextlib.ExitStack() as stack:
        victims = [stack.enter_context(throwaway.victim()) for _ in range(25)]
        for victim in victims:
            victim.exceed()
        for victim in victims:
            victim.wait(PATIENCE)
    wanted = sorted((victim.pid, victim.comm) for victim in victims)
    comms = {victim.comm for victim in victims}

    def reported() -> list[tuple[int, str]]:
        named = [v for line in daemon.lines() for v in line["victims"] if v["comm"] in comms]
        assert all(v["kills"] == 1 for v in named)
        return sorted((v["pid"], v["comm"]) for v in named)

    wait_for("25 kills", lambda: reported() == wanted)
    bracket.close()
    events = [line for line in daemon.lines() if comms & {v["comm"] for v in line["victims"]}]
    headless = [line for line in events if "header" in line["missing"]]
    assert headless, "the kernel dropped no header: this was no storm"
    assert not any(line["complete"] for line in headless)


def write_to_kernel_log(line: str) -> None:
    """Opened anew for each line: the kernel limits what one opener may write (devkmsg_write())."""
    Path("/dev/kmsg").write_bytes(line.encode()[:900])


def test_what_user_space_writes_into_the_log_is_never_believed(daemon: RunningDaemon) -> None:
    victim, line = kill_with_a_whole_report(daemon)
    with contextlib.closing(Store.open_reader(daemon.state)) as store:
        capture = store.get(line["id"])
    assert capture is not None
    forged_before = daemon.metric("oomwatchd_kmsg_forged_records_total")
    forged_comm = victim.comm[::-1]
    for record in capture.records:
        for text in record.text.split("\n"):
            write_to_kernel_log(f"<4>{text.replace(victim.comm, forged_comm)}")
    later = kill_one()  # the log keeps its order: when this is reported, all of the above was read
    wait_for("the kill after the forged report", lambda: daemon.lines_of(later.comm))
    daemon.settled()
    assert daemon.lines_of(forged_comm) == []
    assert daemon.stored_of(forged_comm) == []
    assert len(daemon.lines_of(victim.comm)) == 1
    assert daemon.metric("oomwatchd_kmsg_forged_records_total") > forged_before


def test_selftest_is_answered_by_the_running_daemon(daemon: RunningDaemon) -> None:
    def attempt() -> dict[str, Any] | None:
        done = oomwatchd("selftest", "--config", str(daemon.config), "--json")
        result: dict[str, Any] = json.loads(done.stdout)
        assert result["whole_seconds"] < 2
        return result if result["cgroup_compared"] else None  # else the rate limit of earlier tests

    result = wait_for("a comparison of everything", attempt)
    assert result["daemon"] == f"127.0.0.1:{daemon.port}"
    (event,) = daemon.stored_of(result["comm"])
    assert event["id"] == result["event_id"]
    assert event["victims"][0]["pid"] == result["pid"]
    assert event["memcg"]["task_path"] == result["cgroup"]
    counted = result["daemon_oom_kills"]
    assert counted["after"] > counted["before"]


def test_sighup_reads_the_configuration_again_and_sigterm_ends_clean(daemon: RunningDaemon) -> None:
    daemon.write_config("enabled = false", 'log_level = "debug"')
    daemon.process.send_signal(signal.SIGHUP)
    wait_for("the word of it", lambda: "configuration reloaded" in daemon.log())
    daemon.write_config("enabled = false", 'log_levle = "debug"')
    daemon.process.send_signal(signal.SIGHUP)
    wait_for("the complaint", lambda: "log_levle" in daemon.log())
    victim = kill_one()
    wait_for("an event afterwards", lambda: daemon.lines_of(victim.comm))
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log()


def test_a_killed_daemon_loses_nothing_and_doubles_nothing(daemon: RunningDaemon) -> None:
    first = kill_one()
    wait_for("the first event", lambda: daemon.lines_of(first.comm))
    daemon.settled()
    bracket = Bracket(daemon)
    daemon.kill()
    second = kill_one()
    daemon.start()
    wait_for("the kill that nobody watched", lambda: daemon.stored_of(second.comm))
    third = kill_one()
    wait_for("the third event", lambda: daemon.stored_of(third.comm))
    daemon.settled()
    for victim in (first, second, third):
        (event,) = daemon.stored_of(victim.comm)
        assert_names(event, victim)
        assert len(daemon.lines_of(victim.comm)) == 1
    bracket.close()
