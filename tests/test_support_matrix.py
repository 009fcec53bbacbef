"""docs/support-matrix.md is what the decoder makes of the corpus today."""

from __future__ import annotations

from pathlib import Path

from oomwatchd.formats.recognise import ALL
from tools.support_matrix import fixtures, generate

PAGE = Path(__file__).resolve().parent.parent / "docs" / "support-matrix.md"


def test_the_page_is_current(corpus: Path) -> None:
    assert PAGE.read_text() == generate(corpus), "run: python -m tools.generate"


def test_every_fixture_and_every_form_has_its_row(corpus: Path) -> None:
    text = PAGE.read_text()
    assert [path.name for path in fixtures(corpus) if text.count(f"| `{path.name}` |") != 1] == []
    assert [form.name for form in ALL if text.count(f"\n| {form.name} | ") != 1] == []


def test_recorded_kernels_leave_no_line() -> None:
    """What a kernel printed whole is understood whole; the page's column 'left' says so."""
    recorded = PAGE.read_text().partition("## Recorded kernels")[2].partition("## Logs")[0]
    rows = [line.split(" | ") for line in recorded.splitlines() if ".kmsg" in line]
    assert len(rows) >= 19
    assert [row[-1] for row in rows if row[-2] != "·"] == []
