"""The init scripts for hosts without systemd, each run by its own init; and the RPM."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pages import block
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
#: stands for the daemon: says how it was called, and stays until it is told to end
DAEMON = """#!/bin/sh
echo "$0 $*" >>{log}
[ "$1" = check-config ] && exit 0
trap 'echo HUP >>{log}' HUP
trap 'echo TERM >>{log}; exit 0' TERM
while :; do sleep 0.1; done
"""


def daemon(directory: Path) -> tuple[Path, Path]:
    log, program = directory / "log", directory / "oomwatchd"
    program.write_text(DAEMON.format(log=log))
    program.chmod(0o755)
    log.touch()
    return program, log


def until(log: Path, words: str, count: int = 1) -> None:
    end = time.monotonic() + PATIENCE
    while log.read_text().count(words) < count:
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


SHELLS = [["dash"], *([["busybox", "sh"]] if shutil.which("busybox") else [])]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_script_for_busybox_starts_watches_over_reloads_and_ends(
    tmp_path: Path, shell: list[str]
) -> None:
    program, log = daemon(tmp_path)
    config = tmp_path / "config.toml"
    config.touch()
    environ = {
        **os.environ,
        "DEFAULTS": "/nowhere",
        "OOMWATCHD": str(program),
        "CONFIG": str(config),
        "PIDFILE": str(tmp_path / "pid"),
        "LOG": str(tmp_path / "said"),
        "STATE": str(tmp_path / "state"),
    }

    def script(action: str) -> int:
        command = [*shell, str(PACKAGING / "busybox/S90oomwatchd"), action]
        return subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, timeout=60).returncode

    assert script("status") == 3
    assert script("start") == 0
    try:
        until(log, f"run --config {config}")
        assert script("status") == 0
        assert script("start") == 0  # it runs: not a second one
        assert log.read_text().count("run --config") == 1
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
        assert script("reload") == 0
        until(log, "HUP")
        keeper = int((tmp_path / "pid").read_text())
        children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
        os.kill(int(children[0]), 9)  # and it is there again
        until(log, "run --config", 2)
    finally:
        assert script("stop") == 0
    until(log, "TERM")
    assert script("status") == 3
    assert not Path(f"/proc/{keeper}").exists()
    assert script("nonsense") == 64


@pytest.mark.skipif(not shutil.which("openrc-run") or os.geteuid() != 0, reason="needs openrc and root")
def test_openrc_starts_watches_over_and_ends(tmp_path: Path) -> None:
    """In namespaces of its own, where openrc was never booted and finds only this service."""
    program, log = daemon(tmp_path)
    script = f"""
set -e
mount -t tmpfs run /run
cp -a /etc {tmp_path}/etc
mount --bind {tmp_path}/etc /etc
rm -rf /etc/init.d && mkdir -p /etc/init.d /etc/conf.d
for one in daemons exclusive failed hotplugged inactive options scheduled started starting stopping; do
    mkdir -p /run/openrc/$one
done
touch /run/openrc/softlevel
install -m 755 {PACKAGING}/openrc/oomwatchd {PACKAGING}/openrc/oomwatchd-ondemand /etc/init.d/
printf '#!/sbin/openrc-run\\nstart() {{ :; }}\\n' >/etc/init.d/localmount && chmod 755 /etc/init.d/localmount
cat >/etc/conf.d/oomwatchd <<END
oomwatchd_command={program}
oomwatchd_config=/nowhere
oomwatchd_oom_score_adj=300
oomwatchd_log={tmp_path}/said
END
rc-service oomwatchd start
until grep -q run {log}; do sleep 0.1; done
rc-service oomwatchd status
pid=$(pgrep -f '^/bin/sh {program} run')
cat /proc/$pid/oom_score_adj
rc-service oomwatchd reload
until grep -q HUP {log}; do sleep 0.1; done
kill -9 "$pid"
until [ "$(grep -c run {log})" -ge 2 ]; do sleep 0.1; done
rc-service oomwatchd stop
until grep -q TERM {log}; do sleep 0.1; done
rc-service oomwatchd status && exit 1
echo well
"""
    # the shell is the first process of its namespace, and takes care of orphans
    words = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        "--propagation",
        "private",
    ]
    done = subprocess.run(
        ["timeout", "60", *words, "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.rstrip().endswith("well"), done.stdout + done.stderr + log.read_text()
    assert "\n300\n" in done.stdout  # not every test machine allows less than 0


def test_procd_is_told_what_to_run(tmp_path: Path) -> None:
    """procd's functions stand in for it: OpenWrt is not in Debian."""
    functions = """
procd_open_instance() { :; }
procd_close_instance() { :; }
procd_set_param() { echo "$@"; }
mkdir() { :; }
chmod() { :; }
uci() { echo "$ONDEMAND"; }
"""
    script = (PACKAGING / "procd/oomwatchd").read_text()
    shell = ["busybox", "sh"] if shutil.which("busybox") else ["sh"]
    for on_demand, command in (
        ("0", "command /usr/bin/oomwatchd run"),
        ("1", "command /usr/libexec/oomwatchd-ondemand"),
    ):
        done = subprocess.run(
            [*shell, "-c", functions + script + "\nstart_service"],
            env={**os.environ, "ONDEMAND": on_demand},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert command in done.stdout and "respawn 3600 1 0" in done.stdout


@pytest.mark.parametrize(
    "name", ["openrc/oomwatchd", "openrc/oomwatchd-ondemand", "busybox/S90oomwatchd", "procd/oomwatchd"]
)
def test_no_shell_stumbles(name: str) -> None:
    assert subprocess.run(["dash", "-n", str(PACKAGING / name)]).returncode == 0
    if shutil.which("shellcheck"):
        # variables that the caller sets or reads; functions that it calls
        left_out = "--exclude=SC2034,SC2329,SC2317,SC1091,SC1008,SC3043,SC2015,SC1090"
        done = subprocess.run(
            ["shellcheck", "-s", "sh", left_out, str(PACKAGING / name)], capture_output=True, text=True
        )
        assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("rpmbuild"), reason="needs rpmbuild")
def test_the_rpm_is_built_and_holds_what_it_must(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for part in ("oomwatchd", "packaging"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in (
        "pyproject.toml",
        "MANIFEST.in",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "config.example.toml",
    ):
        shutil.copy(ROOT / part, checkout)
    # Debian's rpm knows no package of Debian's, and its setuptools may be too old
    defined = f'--define "_topdir {tmp_path}/top" --define "python3 {sys.executable}"'
    defined += ' --define "pip_options --no-input --disable-pip-version-check"'
    here = {"python3 -": f"{sys.executable} -", "rpmbuild -bb": f"rpmbuild -bb --nodeps {defined}"}
    script = f"set -e\n{block('install', 'sh', 'rpmbuild', here)}"
    done = subprocess.run(["sh", "-c", script], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (rpm,) = (tmp_path / "top").rglob("*.rpm")
    held = subprocess.run(["rpm", "-qpl", str(rpm)], capture_output=True, text=True).stdout.splitlines()
    assert {
        "/usr/bin/oomwatchd",
        "/usr/lib/systemd/system/oomwatchd.service",
        "/usr/lib/systemd/system/oomwatchd-near.path",
        "/usr/libexec/oomwatchd-ondemand",
    } <= set(held)
    modules = [one for one in held if one.endswith(".py")]
    assert any(one.endswith("/oomwatchd/daemon/main.py") for one in modules)
    assert len(modules) == len([*(ROOT / "oomwatchd").rglob("*.py")])
    assert any(one.endswith(("oomwatchd.8.gz", "oomwatchd.8")) for one in held)
    needs = subprocess.run(["rpm", "-qpR", str(rpm)], capture_output=True, text=True).stdout
    assert re.search(r"^python3-msgspec$", needs, re.M)
