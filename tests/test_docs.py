"""The pages of docs/ make a site without a warning, and neither they nor the package misspell a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROSE = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs", "packaging", "oomwatchd")


def run(*command: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_site_is_built_and_every_page_is_in_its_menu(tmp_path: Path) -> None:
    said = run("mkdocs", "build", "--strict", "--site-dir", tmp_path / "site")
    assert "not included in the" not in said, said
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {path.parent.name for path in (tmp_path / "site").glob("*/index.html")} >= pages - {"index"}
    assert "site.css" in (tmp_path / "site" / "index.html").read_text()


def test_a_dead_link_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[gone](gone.md)\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\n")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0


def test_no_word_is_misspelled() -> None:
    run("codespell_lib", "--skip", "*.json,*.webp,*.pyc", *PROSE)
