"""The Debian package's own files agree with the project's; tests/vm builds and installs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from oomwatchd import __version__

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = ROOT / "packaging" / "debian"
UNITS = (".service", ".socket", ".path")


def test_the_changelog_has_the_version_of_the_project() -> None:
    newest = re.match(r"oomwatchd \(([^)]+)\)", (DEBIAN / "changelog").read_text())
    assert newest is not None
    assert newest[1] == __version__


def test_all_that_it_installs_exists() -> None:
    for name in ("oomwatchd.install", "oomwatchd.docs", "oomwatchd.examples"):
        for line in (DEBIAN / name).read_text().splitlines():
            assert list(ROOT.glob(line.split()[0])), f"{name}: {line}"


def test_no_example_takes_the_place_of_another() -> None:
    """dh_installexamples puts all files into one directory, and directories as they are."""
    listed = (DEBIAN / "oomwatchd.examples").read_text().splitlines()
    names = [path.name for line in listed for path in ROOT.glob(line)]
    assert sorted(names) == sorted(set(names))


def test_every_unit_is_installed() -> None:
    installed = (DEBIAN / "oomwatchd.install").read_text()
    units = [path for path in (ROOT / "packaging/systemd").glob("*.*") if path.suffix in UNITS]
    assert len(units) >= 2
    assert [unit.name for unit in units if f"/{unit.name} " not in installed] == []


def test_the_autopkgtest_passes_with_the_command_of_the_checkout(tmp_path: Path) -> None:
    command = [ROOT / "packaging" / "debian" / "tests" / "smoke"]
    there = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AUTOPKGTEST_TMP": str(tmp_path),
        "EXAMPLE": str(ROOT / "config.example.toml"),
    }
    done = subprocess.run(command, env=there, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
