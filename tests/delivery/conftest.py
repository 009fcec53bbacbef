"""What several tests of the delivery need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.delivery.receivers import Receiver, receiver


@pytest.fixture
def plain() -> Iterator[Receiver]:
    """A receiver by HTTP, without TLS."""
    with receiver() as made:
        yield made
