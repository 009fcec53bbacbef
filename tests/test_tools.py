"""What is made from the command line and the example configuration: man pages and completions."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from oomwatchd.cli import COMMANDS
from tools.commandline import subcommands, whole
from tools.manpages import pages, roff

PACKAGING = Path(__file__).resolve().parent.parent / "packaging"
SCRIPTS = {"bash": "bash/oomwatchd", "zsh": "zsh/_oomwatchd", "fish": "fish/oomwatchd.fish"}


def test_the_man_pages_are_current() -> None:
    """``python -m tools.generate`` writes them."""
    made = pages()
    assert set(made) == {path.name for path in (PACKAGING / "man").iterdir()}
    for name, text in made.items():
        assert (PACKAGING / "man" / name).read_text() == text, name


def test_every_command_and_every_key_is_in_its_page() -> None:
    made = pages()
    assert list(subcommands(whole())) == list(COMMANDS)
    for name in COMMANDS:
        assert f'.SS "{roff(name)}"' in made["oomwatchd.8"]
    example = (PACKAGING.parent / "config.example.toml").read_text()
    for key in re.findall(r"^\w+ = .*|^\[.*\]$", example, re.M):
        assert roff(key) in made["oomwatchd.toml.5"]


def test_nothing_in_a_text_is_a_request() -> None:
    assert roff(".so x") == "\\&.so x"
    assert roff("'a\\b `c-d`") == "\\&'a\\eb \\fBc\\-d\\fP"


@pytest.mark.parametrize("name", ["oomwatchd.8", "oomwatchd-analyze.1", "oomwatchd.toml.5"])
def test_formatters_have_no_complaint(name: str) -> None:
    path = str(PACKAGING / "man" / name)
    if shutil.which("mandoc"):
        lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path], capture_output=True, text=True)
        complaints = [line for line in lint.stdout.splitlines() if "missing date" not in line]
        assert complaints == []
    elif shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("needs mandoc, or man and groff")
    if shutil.which("groff"):
        command = ["groff", "-man", "-ww", "-Tutf8", "-z", path]
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (shown.returncode, shown.stderr) == (0, "")


def test_the_completions_are_current() -> None:
    """``python -m tools.generate`` writes them."""
    pytest.importorskip("shtab")
    from tools.completions import FILES, completions

    assert FILES == SCRIPTS
    for name, text in completions().items():
        assert (PACKAGING / "completions" / name).read_text() == text, name


@pytest.mark.parametrize("shell", SCRIPTS)
def test_each_shell_takes_its_completion(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    path = str(PACKAGING / "completions" / SCRIPTS[shell])
    done = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_commands_and_options() -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    script = """
source "$0"
complete_words() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    $(complete -p oomwatchd | sed 's/.*-F \\([^ ]*\\).*/\\1/') oomwatchd
    echo "${COMPREPLY[@]}"
}
complete_words oomwatchd sel
complete_words oomwatchd doctor --j
complete_words oomwatchd analyze --format h
"""
    path = str(PACKAGING / "completions" / SCRIPTS["bash"])
    done = subprocess.run(["bash", "-c", script, path], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["selftest", "--json", "html"], done.stderr


def test_fish_completes_commands() -> None:
    if shutil.which("fish") is None:
        pytest.skip("needs fish")
    path = PACKAGING / "completions" / SCRIPTS["fish"]
    done = subprocess.run(
        ["fish", "-c", f"source {path}; complete -C 'oomwatchd sel'"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\t")[0] == "selftest"
