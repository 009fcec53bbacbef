"""The running daemon, with a real journald where one can be started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_sinks import journald

__all__ = ["journald"]


@pytest.fixture
def journal(request: pytest.FixtureRequest) -> Path | str:
    """The /run of a journald of our own, or why there is none."""
    try:
        started: tuple[int, Path] = request.getfixturevalue("journald")
    except pytest.skip.Exception as reason:
        return str(reason)
    return started[1]
