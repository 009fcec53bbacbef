"""The README's commands, for the tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

from tests import pages
from tests.pages import Block

README = Path(__file__).resolve().parent.parent / "README.md"

#: their commands run in a whole system with the package (tests/vm), in this order
IN_THE_SYSTEM = ("Install", "First alert in five minutes", "Configuration")


def blocks(language: str) -> list[Block]:
    """All of the README's in a language, in order."""
    return [block for block in pages.blocks(README.name) if block.language == language]


def system_script() -> str:
    """A shell script of the commands for the whole system; it ends at the first that fails. Building the
    package comes before there is such a system."""
    commands = [
        line
        for block in blocks("sh")
        if block.heading in IN_THE_SYSTEM
        for line in block.text.splitlines()
        if line != "make deb"
    ]
    return "set -ex\n" + "\n".join(commands) + "\n"


def system_configuration(receiver: str) -> str:
    """The configuration that it shows, with another receiver's address."""
    (block,) = blocks("toml")
    configuration, replaced = re.subn(r'^url = ".*"$', f'url = "{receiver}"', block.text, flags=re.MULTILINE)
    if replaced != 1:
        raise ValueError("the README's configuration has no receiver")
    return configuration
