"""Every wording of every form survives what people do to lines: a wrap at the columns of mails and terminals."""

from __future__ import annotations

import textwrap

import pytest

from oomwatchd.formats import Form, Role
from oomwatchd.formats.recognise import ALL, recognise, recognise_row
from oomwatchd.sources.text import TextReader

HEADER = (
    "[  100.000000] stress invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), "
    "order=0, oom_score_adj=0"
)
SAMPLES = [
    pytest.param(form, sample, id=f"{form.name}-{number}")
    for form in ALL
    if form.role is not Role.NEIGHBOUR and form.copies is not None
    for number, sample in enumerate(form.samples)
    if "\n" not in sample
]


def _wrapped(lines: list[str], width: int) -> str:
    return "\n".join(
        part
        for line in lines
        for part in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)
    )


@pytest.mark.parametrize("width", [60, 72, 80])
@pytest.mark.parametrize(("form", "sample"), SAMPLES)
def test_a_sample_survives_a_wrap(form: Form, sample: str, width: int) -> None:
    # other lines of the text show at which width it was broken
    lines = [*[HEADER] * 3, f"[  100.100000] {sample}", HEADER]
    reader = TextReader()
    records = reader.feed(_wrapped(lines, width).encode()) + reader.flush()
    texts = [record.text.strip() for record in records]
    if form.in_place:
        assert any((row := recognise_row(text, form.section)) and row[0] is form for text in texts), texts
    else:
        assert any((found := recognise(text)) and found[0] is form for text in texts), texts
