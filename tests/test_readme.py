"""Every command of the README is run: here, in the system of tests/vm, or as this very test run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest

from oomwatchd.config import load
from tests.readme import IN_THE_SYSTEM, README, blocks, system_configuration, system_script

ROOT = README.parent
#: run by these tests, or by what runs them (.ci/run)
SET_UP = ["sh bootstrap.sh run\n", "sh bootstrap.sh test\n"]


def test_every_command_is_run_somewhere() -> None:
    shell = blocks("sh")
    assert [block.text for block in shell if block.heading == ""] == SET_UP
    assert "bootstrap.sh test" in (ROOT / ".ci" / "run").read_text()
    assert {block.heading for block in shell} - {""} == set(IN_THE_SYSTEM)
    assert {block.language for kind in ("sh", "console", "toml", "promql", "") for block in blocks(kind)} == {
        "sh",
        "console",
        "toml",
        "promql",
    }
    # and what tests/vm installs is built as `make deb` does it
    assert "make deb" in {line for block in shell for line in block.text.splitlines()}
    made = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "-C", str(ROOT), "deb"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout == "sh packaging/debian/build.sh dist\n"
    assert subprocess.run(["sh", "-n"], input=system_script(), text=True, check=False).returncode == 0


def test_the_configuration_is_one(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(system_configuration("http://127.0.0.1:9/"))
    assert tomllib.loads(file.read_text())["sinks"]["webhook"]["url"] == "http://127.0.0.1:9/"
    load(file)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_metrics_it_names_exist() -> None:
    known = set(re.findall(r"`(oomwatchd_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    (alerts,) = blocks("promql")
    assert set(re.findall(r"oomwatchd_\w+", alerts.text)) <= known


def test_analyze_prints_what_is_shown(corpus: Path) -> None:
    (shown,) = [block.text for block in blocks("console") if "oomwatchd analyze" in block.text]
    log = corpus / "seed" / "mips-3.10-highmem.log"
    printed = oomwatchd("analyze", str(log)).splitlines()
    position = 0
    for line in shown.splitlines()[1:]:
        if line != "...":
            assert line in printed[position:], line
            position = printed.index(line, position) + 1


@pytest.mark.oom
def test_selftest_prints_what_is_shown() -> None:
    (shown,) = [block.text for block in blocks("console") if "oomwatchd selftest" in block.text]
    # what is watched by nobody is watched by the command itself, which says so
    wanted = [line.partition(":")[0] for line in shown.splitlines()[1:] if not line.startswith("daemon:")]
    printed = [line.partition(":")[0] for line in oomwatchd("selftest").splitlines()]
    assert [label for label in wanted if label not in printed] == []


@pytest.mark.oom
@pytest.mark.slow
def test_the_first_command_on_a_clean_checkout(tmp_path: Path) -> None:
    """The daemon as a newcomer starts it; then its own self-test, and what the README says to look at."""
    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = [name for name in subprocess.check_output(listed).split(b"\0") if name]
    for name in files:
        source, target = ROOT / os.fsdecode(name), tmp_path / os.fsdecode(name)
        if source.is_file() and not os.fsdecode(name).startswith("tests/"):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    said = tmp_path / "said"
    # as on a machine where it never ran
    environ = {**os.environ, "STATE_DIRECTORY": str(tmp_path / "state")}
    with said.open("wb") as output:
        daemon = subprocess.Popen(
            ["sh", "bootstrap.sh", "run"],
            cwd=tmp_path,
            env=environ,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 600
        while "watching since" not in said.read_text():
            assert daemon.poll() is None and time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        program = str(tmp_path / ".venv" / "bin" / "oomwatchd")
        tested = subprocess.run(
            [program, "selftest"], env=environ, capture_output=True, text=True, check=False
        )
        assert tested.returncode == 0, tested.stdout + tested.stderr + said.read_text()
        assert "reported by: the running daemon (127.0.0.1:10053)" in tested.stdout
        (event,) = re.findall(r"^event: +(\w+)$", tested.stdout, re.MULTILINE)
        for words in (["list", "--limit", "1000"], ["show", event]):
            shown = subprocess.check_output([program, "events", *words], env=environ, text=True)
            assert (event if words[0] == "list" else "DIED     oomtest") in shown
        with urllib.request.urlopen("http://127.0.0.1:10053/metrics", timeout=10) as answer:
            assert b"\noomwatchd_oom_kills_unaccounted 0" in answer.read()
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
    assert daemon.wait(20) == 0, said.read_text()


def oomwatchd(*arguments: str) -> str:
    command = [sys.executable, "-m", "oomwatchd", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
