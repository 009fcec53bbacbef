"""The release recipe, on a clone: the version in its places, the packages that come of it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.readme import blocks
from tools.release import (
    PLACES,
    ROOT,
    TRIED,
    ReleaseError,
    at_home,
    debian_version,
    make,
    notes,
    prepare,
    version_of,
)

TITLE = "## [Unreleased]\n"
WHEN = datetime(2026, 12, 1, 10, 0, tzinfo=UTC)


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A tree with the files that have the version."""
    for name in PLACES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    changelog = tmp_path / "CHANGELOG.md"
    words = changelog.read_text()
    changelog.write_text(
        words.replace("## [Unreleased]\n", "## [Unreleased]\n\n### Added\n\n- A thing.\n\n", 1)
    )
    return tmp_path


def test_the_version_is_the_same_everywhere() -> None:
    assert version_of(ROOT)


def test_a_version_is_prepared_in_all_places(places: Path) -> None:
    prepare(places, "7.1.0rc1", WHEN)
    assert version_of(places) == "7.1.0rc1"
    said = (places / "CHANGELOG.md").read_text()
    assert "## [7.1.0rc1] - 2026-12-01\n" in said
    assert notes(said, "Unreleased") == ""
    assert "- A thing." in notes(said, "7.1.0rc1")
    debian = (places / "packaging/debian/changelog").read_text()
    assert debian.startswith("oomwatchd (7.1.0~rc1) unstable; urgency=medium\n")
    assert "Tue, 01 Dec 2026 10:00:00 +0000" in debian.split("\n\n")[2]
    with pytest.raises(ReleaseError, match="says nothing of what is new"):
        prepare(places, "7.1.0", WHEN)
    with pytest.raises(ReleaseError, match=r"a section 7\.1\.0rc1 already"):
        prepare(places, "7.1.0rc1", WHEN)


@pytest.mark.parametrize("version", ["7", "7.1", "v7.1.0", "7.1.0-1", "../x", ""])
def test_what_is_no_version_is_refused(places: Path, version: str) -> None:
    with pytest.raises(ReleaseError, match="is not a version"):
        prepare(places, version, WHEN)


def test_places_that_differ_are_no_release(places: Path) -> None:
    prepare(places, "7.1.0", WHEN)
    (places / "oomwatchd/__init__.py").write_text('__version__ = "7.2.0"\n')
    with pytest.raises(ReleaseError, match=r"begins with 7\.1\.0, the package is 7\.2\.0: run `prepare`"):
        version_of(places)


def test_what_is_shown_elsewhere_links_to_the_project(places: Path) -> None:
    (places / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (places / "README.md").write_text((ROOT / "README.md").read_text())
    (places / "packaging/debian/control").write_text((ROOT / "packaging/debian/control").read_text())
    at_home(places, "https://forge.example/a/b", "7.1.0")
    readme = (places / "README.md").read_text()
    assert re.findall(r"\]\((?!https://)[^)]*\)", readme) == []
    assert (
        "](https://forge.example/a/b/raw/v7.1.0/docs/screenshots/mips-highmem-desktop-light.webp)" in readme
    )
    assert "](https://forge.example/a/b/blob/v7.1.0/docs/install.md)" in readme
    project = tomllib.loads((places / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Homepage"] == "https://forge.example/a/b"
    assert "\nHomepage: https://forge.example/a/b\n" in (places / "packaging/debian/control").read_text()
    for wrong in ("forge.example/a", "http://forge.example/a", "https://forge.example/", "https://f/a b"):
        with pytest.raises(ReleaseError, match="is no address of a project"):
            at_home(places, wrong, "7.1.0")


def test_dpkg_orders_versions_as_we_do() -> None:
    for older, newer in (("1.0.0rc1", "1.0.0"), ("1.0.0b2", "1.0.0rc1"), ("0.1.0", "0.2.0")):
        command = ["dpkg", "--compare-versions", debian_version(older), "lt", debian_version(newer)]
        subprocess.run(command, check=True)


@pytest.mark.slow
def test_the_packages_are_built_installed_and_tried(tmp_path: Path) -> None:
    """Of a commit of its own, so that a working tree with changes can be tested, too. The Debian package is
    built and installed in tests/vm."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    changelog = clone / "CHANGELOG.md"
    changelog.write_text(
        changelog.read_text().replace("## [Unreleased]\n", "## [Unreleased]\n\n- A thing.\n", 1)
    )
    prepare(clone, "7.1.0", WHEN)
    with pytest.raises(ReleaseError, match="not committed"):
        make(clone, tmp_path / "dist", deb=False)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, "commit", "-qam", "7.1.0"], cwd=clone, check=True)
    files = make(clone, tmp_path / "dist", deb=False, tried=["*.whl"], home="https://forge.example/a/b")
    assert sorted(path.name for path in files) == [
        "NOTES.md",
        "SHA256SUMS",
        "oomwatchd-7.1.0-py3-none-any.whl",
        "oomwatchd-7.1.0.tar.gz",
    ]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "dist", check=True)
    assert "- A thing." in (tmp_path / "dist/NOTES.md").read_text()
    with zipfile.ZipFile(tmp_path / "dist/oomwatchd-7.1.0-py3-none-any.whl") as wheel:
        said = wheel.read("oomwatchd-7.1.0.dist-info/METADATA").decode()
    assert "\nProject-URL: Homepage, https://forge.example/a/b\n" in said
    # the README's first command, with this source archive in place of what PyPI has
    shown = next(block.text.splitlines()[0] for block in blocks("console") if "pipx run" in block.text)
    words = shlex.split(shown.removeprefix("$ ").replace("mips.log", str(ROOT / TRIED)))
    assert words[:3] == ["pipx", "run", "oomwatchd"]
    archive = str(tmp_path / "dist/oomwatchd-7.1.0.tar.gz")
    done = subprocess.run(
        [sys.executable, "-m", *words[:2], "--spec", archive, *words[2:]],
        env={**os.environ, "PIPX_HOME": str(tmp_path / "pipx"), "PIPX_DEFAULT_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("DIED     min_free_kbytes (pid 118")
    with pytest.raises(ReleaseError, match="is not empty"):
        make(clone, tmp_path / "dist", deb=False)
    changelog.write_text(changelog.read_text().replace("## [Unreleased]\n", "## [Unreleased]\n\n- New.\n", 1))
    subprocess.run(["git", *who, "commit", "-qam", "more"], cwd=clone, check=True)
    with pytest.raises(ReleaseError, match=r"changes that are not in 7\.1\.0"):
        make(clone, tmp_path / "other", deb=False)
