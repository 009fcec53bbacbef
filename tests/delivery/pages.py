"""The configurations in the documentation, unchanged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of ``docs/PAGE.md`` in a language."""
    text = (DOCS / f"{page}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def block(page: str, language: str, holding: str, changed: Mapping[str, object] | None = None) -> str:
    """The one block that holds a text, with its example values replaced; each of them must be there."""
    [found] = [text for text in blocks(page, language) if holding in text]
    for old, new in (changed or {}).items():
        assert old in found, f"{page}.md: no {old!r} in\n{found}"
        found = found.replace(old, str(new))
    return found
