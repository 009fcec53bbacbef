"""docs/reading-an-oom-report.md says what the log, arithmetic and ``oomwatchd analyze`` say."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from oomwatchd.cli import main

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "reading-an-oom-report.md").read_text()
FENCES = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
SUMS = re.findall(r"^    ([\d +*/()-]+) = (\d+)(?: kB| pages)?$", PAGE, re.MULTILINE)
CALCULATE: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
}


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
    assert len(SUMS) == len(re.findall(r"^    .*= ", PAGE, re.MULTILINE)) > 5
    assert [sum_ for sum_ in SUMS if worth(ast.parse(sum_[0], mode="eval").body) != int(sum_[1])] == []


def worth(sum_: ast.expr) -> int:
    """With the kernel's division, which drops the rest."""
    if isinstance(sum_, ast.BinOp):
        return CALCULATE[type(sum_.op)](worth(sum_.left), worth(sum_.right))
    assert isinstance(sum_, ast.Constant) and isinstance(sum_.value, int)
    return sum_.value


def test_each_field_of_the_report_is_explained(corpus: Path) -> None:
    """Every word of the log but for names (functions of the trace, processes) and values."""
    records = re.sub(r"\n(?!\[)", "", seed(corpus).read_text()).splitlines()
    named = re.compile(r"\[<|\[ *\d+\] +\d+ +\d+ ")
    text = " ".join(record for record in records if not named.search(record[15:]))
    text = re.sub(r"\b[0-9a-f]{8}\b|\d+\.\d+\.\d+\S*|(?<=\d)kB", " ", text)
    words = set(re.findall(r"[A-Za-z_-]{3,}", text))
    assert {"lowmem_reserve", "per-cpu", "pages_scanned", "total-vm", "tainted"} < words
    assert sorted(words - set(re.findall(r"[A-Za-z_-]{3,}", PAGE))) == []
