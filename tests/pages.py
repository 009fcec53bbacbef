"""What the documentation shows between fences, and its commands, for the tests that run them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent
_PARTS = re.compile(
    r"^## (?P<heading>[^\n]+)$|^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"(?:^|\s)#\s.*$")


class Block(msgspec.Struct, frozen=True):
    """What stands between fences; ``heading`` is "" above the first one."""

    page: str
    heading: str
    language: str
    text: str

    def commands(self) -> Iterator[str]:
        """The commands of a ``sh`` block, or those of a ``console`` block behind a prompt."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ").removeprefix("sudo ") for line in lines if line.startswith("$ ")]
        elif self.language != "sh":
            lines = []
        for line in lines:
            if command := " ".join(_COMMENT.sub("", line).split()):
                yield command


def pages() -> list[str]:
    """Every page for people, by its path in the checkout."""
    top = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")
    return [*top, *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def blocks(page: str) -> list[Block]:
    """All fenced blocks of one page, in order."""
    found, heading = [], ""
    for part in _PARTS.finditer((ROOT / page).read_text()):
        if part["heading"]:
            heading = part["heading"]
        else:
            found.append(Block(page, heading, part["language"], part["text"]))
    return found


def block(name: str, language: str, holding: str, changed: Mapping[str, object] | None = None) -> str:
    """The one block of ``docs/NAME.md`` that holds a text, with its example values replaced; each of them
    must be there."""
    page = f"docs/{name}.md"
    [found] = [one.text for one in blocks(page) if one.language == language and holding in one.text]
    for old, new in (changed or {}).items():
        assert old in found, f"{page}: no {old!r} in\n{found}"
        found = found.replace(old, str(new))
    return found


def inline(page: str) -> list[str]:
    """The commands with arguments in the running text: code that begins with a program's name."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    code = (" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text))
    return [one for one in code if one.split()[0] in _PROGRAMS and " " in one and "=" not in one.split()[0]]


def words(command: str) -> list[str]:
    """As a shell splits it."""
    return shlex.split(command)


_PROGRAMS = (
    *("oomwatchd", "python", "python3", ".venv/bin/python", "pytest", "sh", "make", "pip", "pipx"),
    *("apt-get", "systemctl", "journalctl", "curl", "promtool", "podman", "docker", "kubectl", "sqlite3"),
    *("systemd-analyze", "dmesg"),
)
