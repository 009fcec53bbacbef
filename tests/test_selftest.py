"""``oomwatchd selftest`` without a daemon, and what it makes: real cgroups, real kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oomwatchd.cli import throwaway
from oomwatchd.cli.selftest import selftest
from oomwatchd.config import Config, HttpSection
from oomwatchd.errors import OomwatchdError
from tests.kernel.running import command, kernel_oom_kills, wait_for

NO_DAEMON = Config(http=HttpSection(listen=""))


def cgroups_left() -> list[Path]:
    mount = throwaway.memory_hierarchy().mount
    return [Path(found) for found, _, _ in os.walk(mount) if "oomwatchd-selftest-" in found]


@pytest.mark.oom
def test_without_a_daemon_it_watches_by_itself() -> None:
    before = kernel_oom_kills()
    result = selftest(NO_DAEMON, 10)
    assert result.daemon is None
    assert result.daemon_oom_kills is None
    assert result.pid_compared
    assert result.kernel_oom_kills.before >= before
    assert kernel_oom_kills() >= result.kernel_oom_kills.after > result.kernel_oom_kills.before
    assert 0 < result.report_seconds <= result.whole_seconds < 2
    assert not any(result.comm in str(path) for path in cgroups_left())


@pytest.mark.oom
def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[http]\nlisten = ""\n')
    done = subprocess.run(
        command("selftest", "--config", str(config)), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok: the OOM kill of process ")
    assert "no daemon answers" in done.stdout


def test_without_the_right_it_says_so() -> None:
    done = subprocess.run(
        [
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
            *(sys.executable, "-c", "from oomwatchd.cli import main; raise SystemExit(main())", "selftest"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 77, done.stderr
    assert done.stderr.count("\n") == 1
    assert "root" in done.stderr


@pytest.mark.oom
def test_a_child_that_is_never_let_go_leaves_nothing_behind() -> None:
    with throwaway.victim() as victim:
        assert Path(f"/proc/{victim.pid}/comm").read_text() == f"{victim.comm}\n"
        assert Path(f"/proc/{victim.pid}/oom_score_adj").read_text() == "1000\n"
        assert throwaway.cgroup_of(victim.pid) == victim.cgroup
    assert not Path(f"/proc/{victim.pid}").exists()
    assert not any(victim.cgroup.rpartition("/")[2] in str(path) for path in cgroups_left())


@pytest.mark.oom
def test_the_child_stops_by_itself_if_the_limit_does_not_hold() -> None:
    hierarchy = throwaway.memory_hierarchy()
    with throwaway.victim() as victim:
        limit = Path(hierarchy.mount, victim.cgroup.lstrip("/"), hierarchy.files.limit)
        limit.write_text(str(4 * throwaway.CHILD_BOUND_BYTES))
        victim.exceed()
        with pytest.raises(OomwatchdError, match="64 MiB under a limit of 16 MiB"):
            victim.wait(10)


@pytest.mark.oom
def test_the_child_dies_with_who_started_it() -> None:
    program = """
import os, sys, time
from oomwatchd.cli import throwaway
with throwaway.victim() as victim:
    print(victim.pid, victim.cgroup, flush=True)
    time.sleep(60)
"""
    starter = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid, cgroup = starter.stdout.readline().split()
    starter.kill()
    starter.communicate()
    wait_for("the child to end", lambda: not Path(f"/proc/{pid}").exists())
    Path(throwaway.memory_hierarchy().mount, cgroup.lstrip("/")).rmdir()  # nobody was left to do it


@pytest.mark.oom
def test_sigterm_cleans_up_too(tmp_path: Path) -> None:
    """Ended in the middle, by a service manager or a timeout."""
    config = tmp_path / "config.toml"
    config.write_text('[http]\nlisten = ""\n')
    before = set(cgroups_left())
    process = subprocess.Popen(
        command("selftest", "--config", str(config)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for("its cgroup", lambda: set(cgroups_left()) - before or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) in (128 + signal.SIGTERM, 0)
    assert set(cgroups_left()) - before == set()
