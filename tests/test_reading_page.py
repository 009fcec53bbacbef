"""docs/reading-an-oom-report.md says what the log, arithmetic and ``oomwatchd analyze`` say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oomwatchd.cli import main

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "reading-an-oom-report.md").read_text()
FENCES = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
SUMS = re.findall(r"^    (\d+) \+ (\d+) = (\d+) kB$", PAGE, re.MULTILINE)


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def seed(corpus: Path) -> Path:
    return corpus / "seed" / "mips-3.10-highmem.log"


def test_each_quoted_line_stands_in_the_log(corpus: Path) -> None:
    quoted = [line for kind, text in FENCES if not kind for line in text.splitlines() if line.startswith("[")]
    assert len(quoted) > 12
    log = squeezed(seed(corpus).read_text())
    assert [line for line in quoted if squeezed(line) not in log] == []


def test_each_answer_is_todays(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(seed(corpus))]) == 0
    said = capsys.readouterr().out.splitlines()
    answers = [
        line for kind, text in FENCES if kind == "console" for line in text.splitlines() if line[0] != "$"
    ]
    assert len(answers) == 4
    assert [line for line in answers if line not in said] == []


def test_the_sums_are_right() -> None:
    assert SUMS
    assert [sum_ for sum_ in SUMS if int(sum_[0]) + int(sum_[1]) != int(sum_[2])] == []
