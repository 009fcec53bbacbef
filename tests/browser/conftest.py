"""One browser for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import Browser, chromium


@pytest.fixture(scope="session")
def _chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def browser(_chromium: Browser) -> Browser:
    """The browser as a desktop with a light theme and with scripts."""
    _chromium.shape()
    return _chromium
