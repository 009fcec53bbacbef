"""Markdown for tickets: what stands in it, and that no name becomes markup or mentions anybody."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.cli import main
from oomwatchd.event import conclude
from oomwatchd.render.markdown import render_markdown
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.markup import html, markdown, mrkdwn, unmentioned
from tests.recorded import captures, kernel_recordings
from tests.samples import event
from tests.test_terminal import HOSTILE

SEED = "seed/mips-3.10-highmem.log"


def test_the_report_as_markdown(corpus: Path) -> None:
    [capture] = captures(corpus / SEED)
    text = render_markdown(conclude(capture).event, host="db-7")
    assert text.startswith("### OOM kill: ")
    for line in ("| **Host** | db-7 |", "**Findings**", "**Memory**", "**Zones, in kB**"):
        assert line in text.splitlines(), line
    assert re.search(r"^\| \*\*Died\*\* \| min\\_free\\_kbytes \(pid 118", text, re.M)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


@pytest.mark.parametrize(
    "name", [*HOSTILE, "a|b|c", "`x`", "[x](http://evil)", "<img src=x>", "@room", "#12"]
)
def test_no_name_becomes_markup(name: str) -> None:
    text = render_markdown(event(comm=name, summary=f"{harmless_name(name)} (pid 1): {harmless_name(name)}"))
    plain = render_markdown(event(comm="plain", summary="plain (pid 1): plain"))
    assert len(text.splitlines()) == len(plain.splitlines())
    for line in text.splitlines():
        if line.startswith("|"):  # a row has as many cells as its head
            assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 or line.count("|") > 3
    bare = re.sub(r"\\.", "", text)  # what is not escaped
    assert not re.search(r"<img|\]\(http|(?<![A-Za-z0-9_])@|://evil", bare)


def test_every_recorded_report_is_markdown(corpus: Path) -> None:
    for path in kernel_recordings(corpus)[:6]:
        for capture in captures(path)[:10]:
            text = render_markdown(conclude(capture).event)
            assert text.endswith("\n") and "\x1b" not in text
            assert all(character == "\n" or character.isprintable() for character in text)


@given(st.text())
def test_escapes_lose_nothing(text: str) -> None:
    said = unmentioned(text)
    assert re.sub(r"\\([\\`*_{}\[\]<>&#|~$!:])", r"\1", markdown(text)) == said
    for escape in (html, mrkdwn):
        back = escape(text).replace("&quot;", '"').replace("&gt;", ">").replace("&lt;", "<")
        assert back.replace("&amp;", "&") == said
        assert "<" not in escape(text)


def test_analyze_writes_it(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "--format", "markdown", str(corpus / SEED), str(corpus / SEED)]) == 0
    assert capsys.readouterr().out.count("### OOM kill: ") == 2


def test_a_test_event_says_so() -> None:
    told = msgspec.structs.replace(event(kind="test"), kills=0, victims=())
    assert render_markdown(told).startswith("### TEST: ")
