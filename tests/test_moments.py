"""How people name a moment, in the command and on the pages."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.words.moments import moment

NOW = datetime(2026, 3, 10, 15, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", "2026-03-10T14:00:00+00:00"),
        ("1h", "2026-03-10T14:30:00+00:00"),
        ("1h ago", "2026-03-10T14:30:00+00:00"),
        ("3d", "2026-03-07T15:30:00+00:00"),
        ("today", "2026-03-10T00:00:00+00:00"),
        ("yesterday", "2026-03-09T00:00:00+00:00"),
        (" 2026-01-31 ", "2026-01-31T00:00:00+00:00"),
        ("2026-01-31T12:00", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31T12:00+02:00", "2026-01-31T10:00:00+00:00"),
        ("2026-01-31T12:00Z", "2026-01-31T12:00:00+00:00"),
    ],
)
def test_moments(text: str, expected: str) -> None:
    assert datetime.fromtimestamp(moment(text, NOW, utc=True), UTC).isoformat() == expected


def test_local_time_is_that_of_the_process() -> None:
    assert moment("2026-01-31", NOW) == datetime(2026, 1, 31).timestamp()
    day = datetime.fromtimestamp(moment("yesterday", NOW))
    assert (day.hour, day.minute) == (0, 0) and 0 < NOW - day.timestamp() < 50 * 3600


@given(st.text())
def test_any_other_text_is_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(moment(text, NOW, utc=True), float)
