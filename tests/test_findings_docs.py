"""``oomwatchd explain`` and docs/findings.md, which come from the findings' docstrings."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from oomwatchd.cli import explain
from oomwatchd.diagnosis.findings import diagnose, diagnostics
from oomwatchd.errors import UsageError
from tests.recorded import logs, reports

DOCS = Path(__file__).parent.parent / "docs"


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    explain.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["explain", *arguments])
    status: int = args.run(args)
    return status


def test_the_document_is_current() -> None:
    written = (DOCS / "findings.md").read_text()
    assert written == explain.document(), "run: python -m tools.generate"


def test_without_an_id_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [d.id for d in diagnostics()]


@pytest.mark.parametrize("finding", [d.id for d in diagnostics()])
def test_each_has_a_page(finding: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(finding) == 0
    page = capsys.readouterr().out
    assert page.startswith(f"{finding}\n\n")
    assert "``" not in page
    assert len(page.splitlines()) > 4


def test_a_mistyped_id_names_the_right_one() -> None:
    with pytest.raises(UsageError, match="did you mean swap_absent"):
        run("swap_absend")
    with pytest.raises(UsageError, match="'oomwatchd explain' lists all"):
        run("???")


def test_the_twenty_verdicts_are_current(corpus: Path) -> None:
    rows = [line.split(" | ") for line in (DOCS / "verdicts.md").read_text().splitlines() if " | " in line]
    by_stem = {path.stem: path for path in logs(corpus)}
    assert len(rows) == 1 + 20
    for name, _, verdict, _ in rows[1:]:
        stem, _, which = name.removeprefix("| ").partition(" ")
        report = reports(by_stem[stem])[1 if which == "(second)" else 0]
        assert diagnose(report).summary == verdict
