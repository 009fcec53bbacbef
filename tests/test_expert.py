"""Compares what kernel developers concluded from a log with the program's verdict.

``field2/*.json`` keep their words under ``expert``; ``tests/data/expert.json`` says for each what must be
found in WHY or the first finding of one of the log's reports to agree, and what nowhere may stand.
``python -m tests.test_expert`` prints who says what.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from oomwatchd.event import OomEvent
from oomwatchd.render.fields import change, why
from tests.conftest import corpus_directory
from tests.recorded import kinds

JUDGEMENTS = Path(__file__).parent / "data" / "expert.json"
AGREED = 0.9


class Judged(NamedTuple):
    """One log: whether the program agrees with the expert, and what it says against that."""

    stem: str
    agrees: bool
    contradictions: tuple[str, ...]


def _first(event: OomEvent) -> str:
    first = event.findings[0] if event.findings else None
    return f"{why(event)} {first.title} {first.explanation}" if first else why(event)


def judged(corpus: Path) -> list[Judged]:
    """Every log with an expert's word."""
    out = []
    for stem, entry in json.loads(JUDGEMENTS.read_text()).items():
        events = kinds(corpus / "field2" / f"{stem}.log")
        said = [t for e in events for t in (why(e), change(e), *(f.explanation for f in e.findings))]
        against = tuple(t for t in said if re.search(entry["contradicts"], t))
        out.append(Judged(stem, any(re.search(entry["agrees"], _first(e), re.I) for e in events), against))
    return out


def test_every_expert_is_asked(corpus: Path) -> None:
    with_word = {p.stem for p in corpus.glob("field2/*.json") if "expert" in json.loads(p.read_text())}
    assert with_word == set(json.loads(JUDGEMENTS.read_text()))


def test_agrees_with_the_experts(corpus: Path) -> None:
    """With nine in ten at least."""
    results = judged(corpus)
    missed = [each.stem for each in results if not each.agrees]
    assert len(missed) <= (1 - AGREED) * len(results), missed


def test_contradicts_no_expert(corpus: Path) -> None:
    assert {each.stem: each.contradictions for each in judged(corpus) if each.contradictions} == {}


if __name__ == "__main__":
    for result in judged(corpus_directory()):
        print(*result, sep="\t")
