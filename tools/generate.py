"""Write every page and script that is made from the code: ``python -m tools.generate``.

Each is held current by a test. Shell completions need shtab and are left out without it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from oomwatchd.cli import explain
from oomwatchd.metrics import families
from oomwatchd.render import schema
from tests.conftest import corpus_directory
from tools import manpages, support_matrix

#: by the path in the checkout; each alone, so that the change of one computes no other
PAGES: dict[str, Callable[[], str]] = {
    "docs/findings.md": explain.document,
    "docs/metrics.md": families.document,
    "docs/event.schema.json": lambda: schema.document().decode(),
    "docs/support-matrix.md": lambda: support_matrix.generate(corpus_directory()),
}


def files() -> Iterator[tuple[str, str]]:
    """Path in the checkout and content of all of them."""
    for path, make in PAGES.items():
        yield path, make()
    for name, text in manpages.pages().items():
        yield f"packaging/man/{name}", text
    try:
        from tools.completions import completions
    except ModuleNotFoundError as error:
        if error.name != "shtab":
            raise
        return
    for name, text in completions().items():
        yield f"packaging/completions/{name}", text


def write(root: Path) -> list[str]:
    """Write those that changed below ``root``; their paths."""
    changed = []
    for path, text in files():
        file = root / path
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            changed.append(path)
    return changed


if __name__ == "__main__":
    for written in write(manpages.ROOT):
        sys.stdout.write(f"{written}\n")
